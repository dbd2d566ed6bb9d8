package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
	"github.com/mcpwarden/mcp-warden/internal/gateway/sse"
)

// backendFunc is a server in a test.
type backendFunc func(x *Exchange, reply *Reply)

func (f backendFunc) Serve(x *Exchange, reply *Reply) { f(x, reply) }

// echo answers each request with its params as the result.
var echo = backendFunc(func(x *Exchange, reply *Reply) {
	if x.Message == nil || x.Message.Kind != message.Request {
		reply.Empty(http.StatusAccepted)
		return
	}
	_ = reply.Message(http.StatusOK, fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,"result":%s}`, x.Message.ID, x.Message.Params.Raw))
})

// start serves a gateway on loopback, and returns its address.
func start(t *testing.T, limits Limits, backend Backend, stages ...Stage) (*Gateway, string) {
	t.Helper()
	g, err := New(Config{Path: "/mcp", Limits: limits, Backend: backend, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	g.stages = append(g.stages, stages...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewServer(g, nil, slog.New(slog.DiscardHandler)).Serve(ctx, listener, time.Second) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if held, open := g.budget.held.Load(), g.requests.Load()+g.streams.Load(); held != 0 || open != 0 {
			t.Errorf("at the end %d bytes are held, and %d exchanges open", held, open)
		}
	})
	return g, "http://" + listener.Addr().String() + "/mcp"
}

func post(t *testing.T, url, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(answer)
}

// code is the error code of a JSON-RPC response, of which id is the id.
func code(t *testing.T, answer, id string) int {
	t.Helper()
	var got struct {
		ID    json.RawMessage
		Error struct{ Code int }
	}
	if err := json.Unmarshal([]byte(answer), &got); err != nil || string(got.ID) != id {
		t.Errorf("not an answer to %q: %s (%v)", id, answer, err)
	}
	return got.Error.Code
}

func TestRefusals(t *testing.T) {
	limits := DefaultLimits()
	limits.MessageBytes = 1 << 10
	_, url := start(t, limits, echo)
	const ping = `{"jsonrpc":"2.0","id":123456789012345678901,"method":"ping","params":{}}`
	const id = "123456789012345678901"
	if response, answer := post(t, url, ping); response.StatusCode != http.StatusOK || answer != `{"jsonrpc":"2.0","id":`+id+`,"result":{}}` {
		t.Fatalf("what is right: %d %s", response.StatusCode, answer)
	}
	for name, test := range map[string]struct {
		url, body string
		headers   []string
		status    int
		id        string
		code      int
	}{
		"path":         {url: url + "/other", body: ping, status: 404, code: -32600},
		"duplicate":    {url: url, body: `{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}`, status: 400, code: -32600},
		"batch":        {url: url, body: `[` + ping + `]`, status: 400, code: -32600},
		"not JSON":     {url: url, body: `hello`, status: 400, code: -32700},
		"large":        {url: url, body: `{"jsonrpc":"2.0","id":1,"method":"` + strings.Repeat("x", 1<<10) + `"}`, status: 413, code: -32600},
		"media type":   {url: url, body: ping, headers: []string{"Content-Type", "text/plain"}, status: 415, code: -32600},
		"encoded":      {url: url, body: ping, headers: []string{"Content-Encoding", "gzip"}, status: 415, code: -32600},
		"rebound host": {url: url, body: ping, headers: []string{"Host", "attacker.example"}, status: 403, id: id, code: -32600},
		"other site":   {url: url, body: ping, headers: []string{"Origin", "http://attacker.example"}, status: 403, id: id, code: -32600},
		"mismatch":     {url: url, body: ping, headers: []string{"Mcp-Method", "tools/list"}, status: 400, id: id, code: -32020},
		"bad header":   {url: url, body: ping, headers: []string{"Mcp-Name", "=?base64?!?="}, status: 400, code: -32020},
	} {
		t.Run(name, func(t *testing.T) {
			response, answer := post(t, test.url, test.body, test.headers...)
			if got := code(t, answer, test.id); response.StatusCode != test.status || got != test.code {
				t.Errorf("got %d and %d, want %d and %d: %s", response.StatusCode, got, test.status, test.code, answer)
			}
		})
	}
	r, _ := http.NewRequest(http.MethodPut, url, nil)
	if response, err := http.DefaultClient.Do(r); err != nil || response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") == "" {
		t.Errorf("PUT: %v, %v", response, err)
	}
}

// Bodies that never end count against a budget; when it is used up, others are refused and not held too.
func TestBudget(t *testing.T) {
	limits := DefaultLimits()
	limits.MessageBytes, limits.BufferedBytes = 64<<10, 100<<10
	g, url := start(t, limits, echo)
	large := `{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":"` + strings.Repeat("x", 60<<10) + `"}}`
	body, unsent := io.Pipe()
	held := make(chan error, 1)
	go func() {
		response, err := http.Post(url, "application/json", body)
		if err == nil {
			_ = response.Body.Close()
		}
		held <- err
	}()
	if _, err := unsent.Write([]byte(large[:len(large)-1])); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return g.budget.held.Load() > 50<<10 })
	if response, answer := post(t, url, large); response.StatusCode != http.StatusServiceUnavailable || code(t, answer, "") != -32603 || response.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", response.StatusCode, answer)
	}
	_ = unsent.CloseWithError(errors.New("gone"))
	if err := <-held; err == nil {
		t.Error("the client that went got an answer")
	}
	waitFor(t, func() bool { return g.budget.held.Load() == 0 })
	if response, answer := post(t, url, large); response.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %d %s", response.StatusCode, answer)
	}
}

// waitFor waits for what other goroutines do, and fails when it takes unreasonably long.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(time.Millisecond), time.After(20*time.Second)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("waited for too long")
		}
	}
}

func TestSlowClients(t *testing.T) {
	limits := DefaultLimits()
	limits.ReadTime, limits.WriteTime = 200*time.Millisecond, 200*time.Millisecond
	ended := make(chan error, 1)
	_, url := start(t, limits, backendFunc(func(_ *Exchange, reply *Reply) {
		_ = reply.Stream(http.StatusOK)
		event := sse.Event{Raw: []byte(": " + strings.Repeat("x", 64<<10) + "\n")}
		for {
			if err := reply.Event(&event); err != nil {
				ended <- err
				return
			}
		}
	}))
	address := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/mcp")
	for name, sent := range map[string]string{
		"half a head": "POST /mcp HTTP/1.1\r\nHost: localhost\r\n",
		"half a body": "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(sent)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("%s: the connection was not closed: %v", name, err)
		}
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /mcp HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended: // the client reads nothing
		if err == nil {
			t.Error("the stream ended by itself")
		}
	case <-time.After(20 * time.Second):
		t.Error("a client that reads nothing is still written to")
	}
}

func TestTooManyRequests(t *testing.T) {
	limits := DefaultLimits()
	limits.Requests, limits.Streams = 1, 1
	began, finish := make(chan bool), make(chan bool)
	_, url := start(t, limits, backendFunc(func(_ *Exchange, reply *Reply) {
		began <- true
		<-finish
		reply.Empty(http.StatusAccepted)
	}))
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		do := func() (*http.Response, error) {
			r, _ := http.NewRequest(method, url, strings.NewReader(`{"jsonrpc":"2.0","method":"m"}`))
			r.Header.Set("Content-Type", "application/json")
			return http.DefaultClient.Do(r)
		}
		first := make(chan int, 1)
		go func() {
			response, err := do()
			if err != nil {
				first <- 0
				return
			}
			first <- response.StatusCode
		}()
		<-began
		if response, err := do(); err != nil || response.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s, the second: %v, %v", method, response, err)
		}
		finish <- true
		if status := <-first; status != http.StatusAccepted {
			t.Errorf("%s, the first: %d", method, status)
		}
	}
}

// censor is a stage as a later one may be: it refuses a tool, changes results, and stops what it does not like on the way back.
type censor struct{ Pass }

func (censor) Request(x *Exchange) *Refusal {
	if raw, _ := x.Message.Target(); string(raw) == `"forbidden"` {
		return &Refusal{Status: http.StatusForbidden, Code: -1, Reason: "Forbidden", Text: "No"}
	}
	return nil
}

func (censor) Response(_ *Exchange, m *message.Message) (*message.Message, *Refusal) {
	if bytes.Contains(m.Raw, []byte("stop")) {
		return nil, &Refusal{Code: -2, Reason: "Stopped", Text: "No"}
	}
	if raw := bytes.ReplaceAll(m.Raw, []byte("secret"), []byte("******")); !bytes.Equal(raw, m.Raw) {
		changed, err := message.Parse(raw)
		if err != nil {
			return nil, &Refusal{Code: -3, Text: err.Error()}
		}
		return changed, nil
	}
	return m, nil
}

// A stage can refuse, change and stop, in single answers and in streams; what it leaves alone passes unchanged.
func TestStages(t *testing.T) {
	g, url := start(t, DefaultLimits(), backendFunc(func(x *Exchange, reply *Reply) {
		if x.Message.Method != "stream" {
			echo(x, reply)
			return
		}
		reply.Header().Set("Content-Type", "text/event-stream")
		_ = reply.Stream(http.StatusOK)
		for _, raw := range []string{
			": hello\n", "id: 1\ndata:\n\n", "event: message\r\nid:2\r\ndata:{\"jsonrpc\" :\"2.0\",\"method\":\"a\"}\r\n\r\n",
			"id: 3\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"secret\"}\n\n", "data: {\"jsonrpc\":\"2.0\",\"method\":\"stop\"}\n\n", "data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"stop\"}\n\n",
		} {
			event, err := sse.NewReader(strings.NewReader(raw), 1<<20).Next()
			if err == nil {
				err = reply.Event(&event)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}), censor{})
	call := func(name, text string) (int, string) {
		response, answer := post(t, url, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+name+`","x":"`+text+`"}}`)
		return response.StatusCode, answer
	}
	if status, answer := call("forbidden", ""); status != http.StatusForbidden || code(t, answer, "1") != -1 {
		t.Errorf("refused: %d %s", status, answer)
	}
	if _, answer := call("a", "my secret"); answer != `{"jsonrpc":"2.0","id":1,"result":{"name":"a","x":"my ******"}}` {
		t.Errorf("changed: %s", answer)
	}
	if _, answer := call("a", "stop"); code(t, answer, "1") != -2 {
		t.Errorf("stopped: %s", answer)
	}
	_, answer := post(t, url, `{"jsonrpc":"2.0","id":1,"method":"stream","params":{"name":"a"}}`)
	if want := ": hello\nid: 1\ndata:\n\nevent: message\r\nid:2\r\ndata:{\"jsonrpc\" :\"2.0\",\"method\":\"a\"}\r\n\r\n" +
		"id: 3\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"******\"}\n\n" +
		"data: {\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-2,\"message\":\"No\"}}\n\n"; answer != want {
		t.Errorf("stream: %q, want %q", answer, want)
	}
	for _, stage := range g.stages {
		if metrics, ok := stage.(*metricsStage); ok && testutil.ToFloat64(metrics.refusals.WithLabelValues("Stopped")) != 2 {
			t.Error("what was stopped was not counted")
		}
	}
}

// A server that is no MCP server is not passed on: neither what cannot be read, nor what two would read differently.
func TestBadAnswers(t *testing.T) {
	for name, raw := range map[string]string{
		"text": "hello", "duplicate": `{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}`, "wrong case": `{"jsonrpc":"2.0","id":1,"Result":{},"result":{}}`,
	} {
		var err error
		_, url := start(t, DefaultLimits(), backendFunc(func(_ *Exchange, reply *Reply) {
			if err = reply.Message(http.StatusOK, []byte(raw)); err != nil {
				reply.Refuse(&Refusal{Status: http.StatusBadGateway, Code: CodeInternal, Reason: BadAnswer, Text: "No"})
			}
		}))
		response, answer := post(t, url, `{"jsonrpc":"2.0","id":1,"method":"m"}`)
		if response.StatusCode != http.StatusBadGateway || code(t, answer, "1") != CodeInternal || !errors.Is(err, ErrBadAnswer) {
			t.Errorf("%s: got %d %s, %v", name, response.StatusCode, answer, err)
		}
	}
}

// What is open when the gateway stops is finished; streams end; what comes is refused.
func TestStop(t *testing.T) {
	g, err := New(Config{Path: "/mcp", Limits: DefaultLimits(), Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	began, finish := make(chan string, 2), make(chan bool)
	g.backend = backendFunc(func(x *Exchange, reply *Reply) {
		began <- x.Request.Method
		if x.Request.Method == http.MethodGet {
			<-x.Request.Context().Done()
			return
		}
		<-finish
		echo(x, reply)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + listener.Addr().String() + "/mcp"
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- NewServer(g, nil, slog.New(slog.DiscardHandler)).Serve(ctx, listener, time.Minute) }()
	answered, ended := make(chan string, 1), make(chan bool, 1)
	go func() {
		_, answer := post(t, url, `{"jsonrpc":"2.0","id":1,"method":"m","params":{}}`)
		answered <- answer
	}()
	go func() {
		if response, err := http.Get(url); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
		}
		ended <- true
	}()
	<-began
	<-began
	stop()
	<-ended
	finish <- true
	if answer := <-answered; answer != `{"jsonrpc":"2.0","id":1,"result":{}}` {
		t.Errorf("got %s", answer)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
