package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
	"github.com/mcpwarden/mcp-warden/internal/gateway/stdio"
	"github.com/mcpwarden/mcp-warden/internal/gateway/upstream"
)

// roles are what the processes are, beside the one that makes the load.
var roles = map[string]func(args []string) error{
	"server":  serveHTTP,
	"child":   func([]string) error { return serveLines(os.Stdin, os.Stdout) },
	"gateway": serveGateway,
}

// sessionIdle is how soon sessions end that their clients have left: by default it is half an hour.
const sessionIdle = 20 * time.Second

// serveGateway serves at a free port and the metrics at a second, and prints both. Its arguments are the server's address, or nothing for
// stdio, and how many processes may run.
func serveGateway(args []string) error {
	limits := gateway.DefaultLimits()
	limits.AnswerTime = 30 * time.Second
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	children, err := strconv.Atoi(args[1])
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	var backend gateway.Backend
	if args[0] != "" {
		limits.Requests, limits.Streams = 2*children, 2*children
		backend, err = upstream.New(args[0]+"/mcp", limits)
	} else {
		own := stdio.DefaultLimits(limits)
		own.Children, own.Pool, own.SessionIdle, own.SessionRest = children, 4, sessionIdle, sessionIdle
		backend, err = stdio.New([]string{os.Args[0], "child"}, own, slog.New(slog.DiscardHandler), registry)
	}
	if err != nil {
		return err
	}
	g, err := gateway.New(gateway.Config{Path: "/mcp", Limits: limits, Backend: backend, Log: slog.New(slog.NewJSONHandler(io.Discard, nil)), Registry: registry})
	if err != nil {
		return err
	}
	admin := http.NewServeMux()
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	admin.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("gc") { // what is garbage is no leak
			debug.FreeOSMemory()
		}
		metrics.ServeHTTP(w, r)
	})
	listener, err1 := net.Listen("tcp", "127.0.0.1:0")
	side, err2 := net.Listen("tcp", "127.0.0.1:0")
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println("http://"+listener.Addr().String(), "http://"+side.Addr().String())
	ctx, stop := context.WithCancel(context.Background())
	go endWithParent(stop)
	go func() { _ = http.Serve(side, admin) }()
	err = gateway.NewServer(g, nil, slog.New(slog.DiscardHandler)).Serve(ctx, listener, time.Second)
	if b, ok := backend.(*stdio.Backend); ok {
		b.Close()
	}
	return err
}

func endWithParent(stop func()) {
	_, _ = io.Copy(io.Discard, os.Stdin)
	stop()
}

// answer says what the server has to say to a request: to steps, progress before the answer; to slow, the answer after a while. What it
// says names the request's token.
func answer(m *message.Message, say func(line []byte)) {
	tool, _ := message.Text(m.Params.Name)
	switch m.Method {
	case "initialize":
		say(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"load","version":"1"}}}`, m.ID))
		return
	case "server/discover":
		say(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}}}`, m.ID))
		return
	}
	if tool == "steps" {
		for i := range 3 {
			say(fmt.Appendf(nil, `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":%d,"message":%s}}`, m.Params.Meta.ProgressToken, i, m.Params.Arguments))
		}
	}
	if tool == "slow" {
		time.Sleep(500 * time.Millisecond)
	}
	say(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":{"content":[],"structuredContent":%s}}`, m.ID, m.Params.Arguments))
}

// serveLines is the server on stdio, as small as can be: a thousand of them run.
func serveLines(in io.Reader, out io.Writer) error {
	runtime.GOMAXPROCS(1)
	lines := bufio.NewReader(in)
	var mu sync.Mutex
	say := func(line []byte) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = out.Write(append(line, '\n'))
	}
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return nil // the gateway has closed its end
		}
		if m, err := message.Parse(line); err == nil && m.Kind == message.Request {
			go answer(m, say)
		}
	}
}

// serveHTTP is the server on HTTP, at the port that is said, so that one that is killed can come back there. It has sessions, which it
// loses when it is killed.
func serveHTTP(args []string) error {
	var sessions sync.Map
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.Header.Get("Mcp-Session-Id")
		_, known := sessions.Load(id)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.Method == http.MethodDelete {
			sessions.Delete(id)
			return
		}
		m, err := message.Parse(body)
		switch modern := r.Header.Get("Mcp-Protocol-Version") >= gateway.Modern; {
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		case m.Method == "initialize":
			id = rand.Text()
			sessions.Store(id, true)
			w.Header().Set("Mcp-Session-Id", id)
		case !known && !modern:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":{"code":-32600,"message":"no such session"}}`, orNull(m.ID))
			return
		}
		if m.Kind != message.Request {
			w.WriteHeader(http.StatusAccepted)
			return
		}
		stream := bytes.Contains(m.Params.Name, []byte("steps"))
		w.Header().Set("Content-Type", map[bool]string{true: "text/event-stream", false: "application/json"}[stream])
		answer(m, func(line []byte) {
			if stream {
				line = fmt.Appendf(nil, "data: %s\n\n", line)
			}
			_, _ = w.Write(line)
			if stream {
				_ = http.NewResponseController(w).Flush()
			}
		})
	})
	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fmt.Println("http://" + listener.Addr().String())
	go endWithParent(func() { os.Exit(0) })
	return http.Serve(listener, handler)
}

func orNull(id []byte) []byte {
	if id == nil {
		return []byte("null")
	}
	return id
}

// process is one in a role.
type process struct {
	cmd     *exec.Cmd
	printed []string // what it has said of itself
	stdin   io.Closer
}

func launch(args ...string) (*process, error) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stderr = os.Stderr
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", args[0], err)
	}
	p := &process{cmd: cmd, stdin: stdin}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		p.stop()
		return nil, fmt.Errorf("%s does not start: %w", args[0], err)
	}
	p.printed = strings.Fields(line)
	return p, nil
}

func (p *process) stop() {
	_ = p.stdin.Close()
	_ = p.cmd.Wait()
}
