package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// tap passes connections on to an address, and notes the bytes of both directions.
type tap struct {
	listener net.Listener
	to       string
	open     sync.WaitGroup
	mu       sync.Mutex
	conns    []*recording
}

// recording is what went over one connection.
type recording struct {
	mu      sync.Mutex
	up      bytes.Buffer
	down    bytes.Buffer
	closers []io.Closer
}

func newTap(to string) (*tap, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("tap: %w", err)
	}
	t := &tap{listener: listener, to: to}
	go t.serve()
	return t, nil
}

func (t *tap) addr() string { return t.listener.Addr().String() }

func (t *tap) serve() {
	for {
		near, err := t.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", t.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		r := &recording{closers: []io.Closer{near, far}}
		t.mu.Lock()
		t.conns = append(t.conns, r)
		t.mu.Unlock()
		t.open.Go(func() { r.pass(far, near, &r.up) })
		t.open.Go(func() { r.pass(near, far, &r.down) })
	}
}

func (r *recording) pass(to io.WriteCloser, from io.Reader, note *bytes.Buffer) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		r.mu.Lock()
		note.Write(buffer[:n])
		r.mu.Unlock()
		if _, writeErr := to.Write(buffer[:n]); err != nil || writeErr != nil {
			r.close()
			return
		}
	}
}

func (r *recording) close() {
	for _, c := range r.closers {
		_ = c.Close()
	}
}

// stop ends all connections, and returns what was exchanged.
func (t *tap) stop() []exchange {
	_ = t.listener.Close()
	t.mu.Lock()
	conns := slices.Clone(t.conns)
	t.mu.Unlock()
	for _, r := range conns {
		r.close()
	}
	t.open.Wait()
	var all []exchange
	for _, r := range conns {
		all = append(all, r.exchanges()...)
	}
	return withoutProbes(all)
}

// exchange is a request and what came back.
type exchange struct {
	method  string
	path    string
	header  http.Header
	body    []byte
	status  int // 0: nothing came back
	answer  http.Header
	content []byte
	cut     bool // the answer did not come to its end
}

func (r *recording) exchanges() (all []exchange) {
	up, down := bufio.NewReader(&r.up), bufio.NewReader(&r.down)
	for {
		request, err := http.ReadRequest(up)
		if err != nil {
			return all // the end, or of a request that was not sent to its end
		}
		x := exchange{method: request.Method, path: request.URL.RequestURI(), header: request.Header}
		if x.body, err = io.ReadAll(request.Body); err != nil {
			return all
		}
		response, err := http.ReadResponse(down, request)
		if err != nil {
			x.cut = true
			return append(all, x)
		}
		x.status, x.answer = response.StatusCode, response.Header
		x.content, err = io.ReadAll(response.Body)
		x.cut = err != nil
		all = append(all, x)
	}
}

// probe is how the gateway calls itself when it asks the server for its tools.
const probe = `"mcp-warden-gateway"`

// withoutProbes leaves out the gateway's own handshakes.
func withoutProbes(all []exchange) []exchange {
	sessions := map[string]bool{}
	for i := range all {
		if id := all[i].answer.Get("Mcp-Session-Id"); id != "" && bytes.Contains(all[i].body, []byte(probe)) {
			sessions[id] = true
		}
	}
	return slices.DeleteFunc(all, func(x exchange) bool {
		return bytes.Contains(x.body, []byte(probe)) || sessions[x.header.Get("Mcp-Session-Id")]
	})
}

// owned are the headers that the protocols make the gateway own: those of one hop, and of how a body is framed; Date, which whoever answers
// sets; and what the gateway has checked, or knows better than the client.
var owned = []string{
	"Connection", "Keep-Alive", "Transfer-Encoding", "Content-Length", "Accept-Encoding", "Date", "Host",
	"Origin", "Sec-Fetch-Site", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
}

// head is all of an exchange but the answer's content, with nothing left out but what is owned.
func (x *exchange) head() string {
	return fmt.Sprintf("%s %s\n%s\n%s\n%d\n%s", x.method, x.path, lines(x.header), x.body, x.status, lines(x.answer))
}

func lines(h http.Header) string {
	var out []string
	for name, values := range h {
		if !slices.Contains(owned, name) {
			out = append(out, name+": "+strings.Join(values, " | "))
		}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// messages are the JSON-RPC messages of an exchange: what the client said, if anything, and what came back.
func (x *exchange) messages() (client []byte, server [][]byte) {
	if x.method == http.MethodPost {
		client = x.body
	}
	if !strings.HasPrefix(x.answer.Get("Content-Type"), "text/event-stream") {
		if strings.HasPrefix(x.answer.Get("Content-Type"), "application/json") && len(x.content) > 0 {
			server = [][]byte{x.content}
		}
		return client, server
	}
	for event := range strings.SplitSeq(strings.ReplaceAll(string(x.content), "\r\n", "\n"), "\n\n") {
		var data []string
		for line := range strings.SplitSeq(event, "\n") {
			if text, ok := strings.CutPrefix(line, "data:"); ok {
				data = append(data, strings.TrimPrefix(text, " "))
			}
		}
		if text := strings.Join(data, "\n"); text != "" {
			server = append(server, []byte(text))
		}
	}
	return client, server
}
