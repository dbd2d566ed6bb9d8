// Bench-gateway measures the gateway, in one run: a server spoken to directly, through a bare httputil.ReverseProxy, and through the
// gateway; and a server on stdio spoken to directly, and through the gateway. Each is a process of its own; they take turns, so that what else
// the machine does hits all of them.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
	"github.com/mcpwarden/mcp-warden/internal/gateway/stdio"
	"github.com/mcpwarden/mcp-warden/internal/gateway/upstream"
)

func main() {
	if len(os.Args) > 1 && roles[os.Args[1]] != nil {
		fail(roles[os.Args[1]](os.Args[2:]))
		return
	}
	rounds := flag.Int("rounds", 3, "How often each takes its turn.")
	turn := flag.Duration("turn", 2*time.Second, "How long a turn is.")
	flag.Parse()
	fail(bench(*rounds, *turn))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-gateway:", err)
		os.Exit(1)
	}
}

// roles are what the processes are, beside the one that measures.
var roles = map[string]func(args []string) error{
	"origin": func([]string) error { return serve(http.HandlerFunc(origin)) },
	"bare": func(args []string) error {
		to, err := url.Parse(args[0])
		if err != nil {
			return fmt.Errorf("bare: %w", err)
		}
		proxy := &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
			Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
		}
		return serve(proxy)
	},
	"gateway": func(args []string) error {
		limits := gateway.DefaultLimits()
		backend, err := upstream.New(args[0]+"/mcp", limits)
		if err != nil {
			return err
		}
		return serveGateway(limits, backend)
	},
	"gateway-stdio": func([]string) error {
		limits := gateway.DefaultLimits()
		log := slog.New(slog.DiscardHandler)
		backend, err := stdio.New([]string{os.Args[0], "stdio"}, stdio.DefaultLimits(limits), log, prometheus.NewRegistry())
		if err != nil {
			return err
		}
		return serveGateway(limits, backend)
	},
	"stdio": func([]string) error { return answerLines(os.Stdin, os.Stdout) },
}

// serveGateway serves with all stages; the audit lines go to a file, as they do in a cluster.
func serveGateway(limits gateway.Limits, backend gateway.Backend) error {
	audit, err := os.CreateTemp("", "bench-gateway-audit")
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	_ = os.Remove(audit.Name())
	g, err := gateway.New(gateway.Config{Path: "/mcp", Limits: limits, Backend: backend, Log: slog.New(slog.NewJSONHandler(audit, nil)), Registry: prometheus.NewRegistry()})
	if err != nil {
		return err
	}
	listener, err := listen()
	if err != nil {
		return err
	}
	return gateway.NewServer(g, nil, slog.New(slog.DiscardHandler)).Serve(context.Background(), listener, time.Second)
}

func serve(handler http.Handler) error {
	listener, err := listen()
	if err != nil {
		return err
	}
	return http.Serve(listener, handler)
}

// listen listens at a free port, and tells it to the process that measures, with which this one ends.
func listen() (net.Listener, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	fmt.Println("http://" + listener.Addr().String())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return listener, nil
}

// origin answers each request with a message of the size of a small tool's result.
func origin(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	m, err := message.Parse(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(answer(m))
}

func answer(m *message.Message) []byte {
	return fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","content":[{"type":"text","text":"%s"}]}}`, m.ID, strings.Repeat("An answer. ", 20))
}

// answerLines is the same server on stdio.
func answerLines(in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if m, err := message.Parse(line); err == nil && m.Kind == message.Request {
			if _, err := out.Write(append(answer(m), '\n')); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
	}
}

// launch starts a role, and returns its address.
func launch(role string, args ...string) (address string, stop func(), err error) {
	cmd := exec.Command(os.Args[0], append([]string{role}, args...)...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", role, err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", role, err)
	}
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("%s: %w", role, err)
	}
	stop = func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		stop()
		return "", nil, fmt.Errorf("%s: it does not start: %w", role, err)
	}
	return strings.TrimSpace(line), stop, nil
}

func bench(rounds int, turn time.Duration) error {
	direct, stop, err := launch("origin")
	if err != nil {
		return err
	}
	defer stop()
	bare, stop, err := launch("bare", direct)
	if err != nil {
		return err
	}
	defer stop()
	ours, stop, err := launch("gateway", direct)
	if err != nil {
		return err
	}
	defer stop()
	piped, stop, err := launch("gateway-stdio")
	if err != nil {
		return err
	}
	defer stop()
	pipe, stop, err := newPipe()
	if err != nil {
		return err
	}
	defer stop()
	fmt.Printf("%d processors, %s; %d rounds of %v for each\n", runtime.NumCPU(), runtime.Version(), rounds, turn)
	met := true
	for _, connections := range []int{1, 32, 256} {
		targets := []target{
			{name: "direct", open: opener(direct, false)}, {name: "ReverseProxy", open: opener(bare, false)}, {name: "gateway", open: opener(ours, false)},
			{name: "stdio directly", open: pipe.open}, {name: "gateway, stdio", open: opener(piped, true)},
		}
		if err := measure(targets, connections, rounds, turn); err != nil {
			return err
		}
		ok := report(targets, connections)
		met = met && ok
	}
	if !met {
		return errors.New("a target was missed")
	}
	return nil
}
