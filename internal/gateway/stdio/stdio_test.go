package stdio

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/gatewaytest"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
	"github.com/mcpwarden/mcp-warden/internal/gateway/sse"
)

// logs is a log that a test can look into while it is written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) contains(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

type fixture struct {
	backend *Backend
	url     string
	log     *logs
}

// start serves one of the servers. At the end nothing of it may be left.
func start(t *testing.T, server string, change func(*Limits)) fixture {
	t.Helper()
	all := gateway.DefaultLimits()
	limits := DefaultLimits(all)
	limits.StreamAfter = time.Hour // no answer becomes a stream because the machine is busy
	if change != nil {
		change(&limits)
	}
	out := new(logs)
	log := slog.New(slog.NewJSONHandler(out, nil))
	backend, err := New(command(server), limits, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	g, err := gateway.New(gateway.Config{Path: "/mcp", Limits: all, Backend: backend, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- gateway.NewServer(g, nil, log).Serve(ctx, listener, time.Second) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		backend.Close()
		if n, m := backend.spawner.count(), backend.count(); n != 0 || m != 0 {
			t.Errorf("at the end there are %d processes and %d sessions", n, m)
		}
	})
	return fixture{backend, "http://" + listener.Addr().String() + "/mcp", out}
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

// do sends a request, and returns the response with its body unread.
func (f fixture) do(ctx context.Context, t *testing.T, method, session, body string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, f.url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", "application/json, text/event-stream")
	if session != "" {
		r.Header.Set("Mcp-Session-Id", session)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

func (f fixture) post(t *testing.T, session, body string, headers ...string) (status int, answer string) {
	t.Helper()
	response := f.do(t.Context(), t, http.MethodPost, session, body, headers...)
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(raw)
}

// open makes a session.
func (f fixture) open(t *testing.T) string {
	t.Helper()
	response := f.do(t.Context(), t, http.MethodPost, "", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	body, _ := io.ReadAll(response.Body)
	id := response.Header.Get("Mcp-Session-Id")
	if response.StatusCode != http.StatusOK || len(id) < 20 || !strings.Contains(string(body), `"id":0`) {
		t.Fatalf("initialize: %d %v %s", response.StatusCode, response.Header, body)
	}
	return id
}

// say is a request to the script server.
func say(id int, what string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"x","params":{"say":"%s","_meta":{"progressToken":"t%d"}}}`, id, what, id)
}

const answer = `{'jsonrpc':'2.0','id':@id,'result':'done'}`

// modern makes a request of the revision without sessions.
func modern(id, method, params string) (body string, headers []string) {
	if params != "" {
		params += ","
	}
	return `{"jsonrpc":"2.0","id":` + id + `,"method":"` + method + `","params":{` + params +
			`"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`,
		[]string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", method}
}

// The official SDK's client gets from a server on stdio, through the gateway, what it gets in any revision from one on HTTP.
func TestSDK(t *testing.T) {
	t.Setenv("VISIBLE", "an environment")
	t.Setenv(EnvPrefix+"HIDDEN", "a secret of the gateway")
	f := start(t, "sdk", nil)
	for _, version := range []string{"2025-06-18", "2025-11-25", "2026-07-28"} {
		t.Run(version, func(t *testing.T) {
			progress := make(chan string, 10)
			session := gatewaytest.Client(t, f.url, version, http.DefaultTransport, func(p *mcp.ProgressNotificationParams) {
				progress <- fmt.Sprint(p.ProgressToken, p.Message)
			})
			tools, err := session.ListTools(t.Context(), nil)
			if err != nil || len(tools.Tools) != 5 {
				t.Errorf("tools: %v, %v", tools, err)
			}
			names := []string{"echo", "steps"}
			if version < gateway.Modern {
				names = append(names, "ask")
			}
			for _, tool := range names {
				if got, err := gatewaytest.Call(t.Context(), session, tool, "hello"); err != nil || !strings.HasPrefix(got, "hello") {
					t.Errorf("%s: %q, %v", tool, got, err)
				}
			}
			for range 3 {
				if got := <-progress; got != "token of hellohello" {
					t.Errorf("progress: %s", got)
				}
			}
			if _, err := gatewaytest.Call(t.Context(), session, "none", ""); err == nil {
				t.Error("a tool that there is not has answered")
			}
			if got := session.InitializeResult().ProtocolVersion; got != version {
				t.Errorf("they speak %s", got)
			}
			ctx, cancel := context.WithCancel(t.Context())
			called := make(chan error, 1)
			go func() {
				_, err := gatewaytest.Call(ctx, session, "hang", version)
				called <- err
			}()
			waitFor(t, func() bool { return f.log.contains("hangs " + version) })
			cancel()
			if err := <-called; err == nil {
				t.Error("a call that was cancelled has an answer")
			}
			waitFor(t, func() bool { return f.log.contains("cancelled " + version) }) // the server knows
			if _, err := gatewaytest.Call(t.Context(), session, "crash", ""); err == nil {
				t.Error("a server that ended has answered")
			}
		})
	}
	waitFor(t, func() bool { return f.backend.count() == 0 })
	if !f.log.contains(`"line":"ready with an environment"`) || f.log.contains("a secret of the gateway") {
		t.Errorf("the log: %s", f.log.text.String())
	}
}

// inFlight is how many requests servers have yet to answer.
func (f fixture) inFlight() (n int) {
	f.backend.mu.Lock()
	defer f.backend.mu.Unlock()
	for _, s := range f.backend.sessions {
		s.mu.Lock()
		n += len(s.pending)
		s.mu.Unlock()
	}
	f.backend.pool.mu.Lock()
	defer f.backend.pool.mu.Unlock()
	for _, w := range f.backend.pool.workers {
		n += len(w.calls)
	}
	return n
}

// The bytes of a message reach the process, and those of its answer the client, as they are, but that a message becomes one line, with no space
// around it: servers of the Go SDK end at one.
func TestBytesPassUnchanged(t *testing.T) {
	f := start(t, "script", nil)
	const params = `{"z":1e400,"a":[1.50,"\ud800 \/ é\n"],"unknown":{"b":92233720368547758079999}}`
	session := f.open(t)
	status, got := f.post(t, session, " {\"params\":"+params+",\r\n\"id\":12345678901234567890,\n \"method\":\"x/unknown\",\"jsonrpc\":\"2.0\"}\t\n")
	want := `{"jsonrpc":"2.0","id":12345678901234567890,"result":{"params":` + params + `,  "id":12345678901234567890,  "method":"x/unknown","jsonrpc":"2.0"}}`
	if status != http.StatusOK || got != want {
		t.Errorf("in a session: %d\n%s\n%s", status, got, want)
	}
	// Without a session the process sees another id, and the client its own.
	body, headers := modern(`"\u0061 92233720368547758079999"`, "x/unknown", `"z":`+params)
	status, got = f.post(t, "", body, headers...)
	inner := strings.Replace(body, `"\u0061 92233720368547758079999"`, "1", 1)
	if want := `{"jsonrpc":"2.0","id":"\u0061 92233720368547758079999","result":` + inner + `}`; status != http.StatusOK || got != want {
		t.Errorf("without a session: %d\n%s\n%s", status, got, want)
	}
}

// A server may write an id, or a token, in another way than its client does: it is the same one.
func TestIDsAreTheSameHoweverWritten(t *testing.T) {
	f := start(t, "sdk", nil)
	session := f.open(t)
	for id, written := range map[string]string{`"\u00e9\/"`: `"é/"`, `1e1`: `10`} {
		status, answer := f.post(t, session, fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"steps","arguments":{"text":"x"},"_meta":{"progressToken":%[1]s}}}`, id))
		if status != http.StatusOK || !strings.Contains(answer, `"id":`+written) || strings.Count(answer, `"progressToken":`+written) != 3 {
			t.Errorf("to %s: %d %s", id, status, answer)
		}
	}
}

func events(t *testing.T, response *http.Response, n int) (ids, data []string) {
	t.Helper()
	if got := response.Header.Get("Content-Type"); response.StatusCode != http.StatusOK || got != "text/event-stream" {
		body, _ := io.ReadAll(response.Body)
		t.Fatalf("no stream: %d %s %s", response.StatusCode, got, body)
	}
	reader := sse.NewReader(response.Body, 1<<20)
	for len(data) < n {
		event, err := reader.Next()
		if err != nil {
			t.Fatalf("after %q: %v", data, err)
		}
		if event.ID != "" || len(event.Data) > 0 {
			ids, data = append(ids, event.ID), append(data, string(event.Data))
		}
	}
	return ids, data
}

// What a server says is sent where it belongs: to the request that it is about, or to the stream that is about none.
func TestRouting(t *testing.T) {
	f := start(t, "script", nil)
	session := f.open(t)
	standalone := f.do(t.Context(), t, http.MethodGet, session, "")
	first := f.do(t.Context(), t, http.MethodPost, session, say(1, `{'jsonrpc':'2.0','method':'notifications/progress','params':{'progressToken':@token}}`))
	if _, got := events(t, first, 1); !strings.Contains(got[0], `"progressToken":"t1"`) {
		t.Errorf("progress of the first: %q", got)
	}
	// While two are open, the second makes the server say things about the first, about none, and ask.
	second := f.do(t.Context(), t, http.MethodPost, session, say(2, strings.Join([]string{
		`{'jsonrpc':'2.0','method':'notifications/progress','params':{'progressToken':'t1','message':'late'}}`,
		`{'jsonrpc':'2.0','method':'notifications/progress','params':{'progressToken':'nobody'}}`,
		`{'jsonrpc':'2.0','method':'notifications/message','params':{}}`,
		`{'jsonrpc':'2.0','method':'notifications/tools/list_changed'}`,
		`{'jsonrpc':'2.0','id':'ask','method':'elicitation/create'}`,
		`{'jsonrpc':'2.0','id':99,'result':'to nobody'}`, answer, `{'jsonrpc':'2.0','id':1,'result':'first'}`,
	}, "|")))
	if body, _ := io.ReadAll(second.Body); string(body) != `{"jsonrpc":"2.0","id":2,"result":"done"}` || second.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the second: %s", body)
	}
	if _, got := events(t, first, 2); !strings.Contains(got[0], "late") || got[1] != `{"jsonrpc":"2.0","id":1,"result":"first"}` {
		t.Errorf("the first: %q", got)
	}
	if _, got := events(t, standalone, 3); !strings.Contains(got[0], "message") || !strings.Contains(got[1], "list_changed") || !strings.Contains(got[2], "elicitation") {
		t.Errorf("the stream of no request: %q", got)
	}
	f.post(t, session, say(3, `{'jsonrpc':'2.0','id':'given up','method':'ping'}|{'jsonrpc':'2.0','method':'notifications/cancelled','params':{'requestId':'given up'}}|`+answer))
	for response, want := range map[string]int{`{"jsonrpc":"2.0","id":"other","result":{}}`: 400, `{"jsonrpc":"2.0","id":"given up","result":{}}`: 400, `{"jsonrpc":"2.0","id":"ask","result":{}}`: 202} {
		if status, body := f.post(t, session, response); status != want {
			t.Errorf("%s: %d %s", response, status, body)
		}
	}
}

// An answer that takes its time becomes a stream: the client sees that it was heard, and can come back for the rest.
func TestStreamAfter(t *testing.T) {
	f := start(t, "script", func(l *Limits) { l.StreamAfter = time.Millisecond })
	session := f.open(t)
	slow := f.do(t.Context(), t, http.MethodPost, session, say(1, ""), "MCP-Protocol-Version", "2025-11-25")
	if ids, _ := events(t, slow, 1); ids[0] != "2-0" {
		t.Errorf("it begins with %q", ids)
	}
	other := f.do(t.Context(), t, http.MethodPost, session, say(2, `{'jsonrpc':'2.0','id':1,'result':'at last'}|`+answer))
	if ids, data := events(t, slow, 1); ids[0] != "2-1" || !strings.Contains(data[0], "at last") {
		t.Errorf("got %q %q", ids, data)
	}
	if body, err := io.ReadAll(other.Body); err != nil || !strings.Contains(string(body), "done") {
		t.Errorf("the other: %s, %v", body, err)
	}
}

// A client whose connection breaks gets the rest when it comes back, and nothing twice; what is not held any more is refused.
func TestResume(t *testing.T) {
	f := start(t, "script", func(l *Limits) { l.BufferBytes = 2 << 10 })
	session := f.open(t)
	version := []string{"MCP-Protocol-Version", "2025-11-25"}
	ctx, cancel := context.WithCancel(t.Context())
	broken := f.do(ctx, t, http.MethodPost, session, say(1, `{'jsonrpc':'2.0','method':'a'}|{'jsonrpc':'2.0','method':'b'}`), version...)
	ids, data := events(t, broken, 3) // one to prime the client
	if data[0] != "" || ids[0] == "" || !strings.Contains(data[2], `"b"`) {
		t.Fatalf("got %q %q", ids, data)
	}
	cancel()
	_ = broken.Body.Close()
	f.post(t, session, say(2, `{'jsonrpc':'2.0','id':1,'result':'late'}|`+answer))
	for i, want := range [][]string{{`"a"`, `"b"`, "late"}, {`"b"`, "late"}, {"late"}} {
		again := f.do(t.Context(), t, http.MethodGet, session, "", append(version, "Last-Event-ID", ids[i])...)
		if _, got := events(t, again, len(want)); !strings.Contains(got[0], want[0]) || !strings.Contains(got[len(got)-1], "late") {
			t.Errorf("after %s: %q", ids[i], got)
		}
		if rest, _ := io.ReadAll(again.Body); len(rest) > 0 {
			t.Errorf("and then: %s", rest)
		}
	}
	other := f.open(t)
	for name, ask := range map[string][2]string{"another's": {other, ids[1]}, "none": {session, "99-1"}, "nonsense": {session, "1-x"}, "the future": {session, "1-99"}} {
		if r := f.do(t.Context(), t, http.MethodGet, ask[0], "", "Last-Event-ID", ask[1]); r.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", name, r.StatusCode)
		}
	}
	for range 3 {
		f.post(t, session, say(3, `{'jsonrpc':'2.0','method':'`+strings.Repeat("m", 1<<10)+`'}|`+answer))
	}
	if r := f.do(t.Context(), t, http.MethodGet, session, "", "Last-Event-ID", ids[0]); r.StatusCode != http.StatusBadRequest {
		t.Errorf("what was thrown away: %d", r.StatusCode)
	}
}

// Only the client of a session gets at it, and nobody when it has ended.
func TestSessions(t *testing.T) {
	f := start(t, "script", func(l *Limits) { l.Children, l.SessionRest, l.InFlight = 2, time.Hour, 1 })
	if status, body := f.post(t, "", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`); status != http.StatusBadRequest {
		t.Errorf("no session: %d %s", status, body)
	}
	if status, body := f.post(t, "guessed", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`); status != http.StatusNotFound {
		t.Errorf("a session that there is not: %d %s", status, body)
	}
	if status, body := f.post(t, "", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, "MCP-Protocol-Version", "1999-01-01"); status != http.StatusBadRequest || !strings.Contains(body, "-32022") {
		t.Errorf("a version that there is not: %d %s", status, body)
	}
	if r := f.do(t.Context(), t, http.MethodPost, "", say(1, answer), "Accept", "text/html"); r.StatusCode != http.StatusNotAcceptable {
		t.Errorf("a client that takes neither: %d", r.StatusCode)
	}
	one, two := f.open(t), f.open(t)
	const hello = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}`
	if status, body := f.post(t, "", hello); status != http.StatusServiceUnavailable || !strings.Contains(body, "As many sessions") {
		t.Errorf("one too many: %d %s", status, body)
	}
	if status, _ := f.post(t, one, hello); status != http.StatusBadRequest {
		t.Errorf("initialized twice: %d", status)
	}
	hanging := f.do(t.Context(), t, http.MethodPost, one, say(7, `{'jsonrpc':'2.0','method':'a'}`))
	events(t, hanging, 1)
	if status, body := f.post(t, one, say(7, answer)); status != http.StatusBadRequest || !strings.Contains(body, "open already") {
		t.Errorf("the same id: %d %s", status, body)
	}
	if status, _ := f.post(t, one, say(8, answer)); status != http.StatusServiceUnavailable {
		t.Errorf("one request too many: %d", status)
	}
	if r := f.do(t.Context(), t, http.MethodDelete, one, ""); r.StatusCode != http.StatusNoContent {
		t.Errorf("delete: %d", r.StatusCode)
	}
	if _, got := events(t, hanging, 1); !strings.Contains(got[0], `"id":7,"error":{"code":-32603`) {
		t.Errorf("what was open: %q", got)
	}
	if status, _ := f.post(t, one, say(9, answer)); status != http.StatusNotFound {
		t.Errorf("after its end: %d", status)
	}
	waitFor(t, func() bool { return f.backend.spawner.count() == 1 })
	f.open(t) // there is room again
	f.backend.limits.SessionRest = time.Nanosecond
	f.open(t) // and where there is none, who rests goes
	if status, _ := f.post(t, two, say(9, answer)); status != http.StatusNotFound {
		t.Errorf("the one that rested: %d", status)
	}
	f.backend.expire(time.Nanosecond, 100)
	if n := f.backend.count(); n != 0 {
		t.Errorf("%d sessions that nobody uses", n)
	}
}

// A process that ends takes no more than itself: what it had to answer gets an error, others go on, and a new one is started.
func TestCrash(t *testing.T) {
	f := start(t, "script", nil)
	session, other := f.open(t), f.open(t)
	status, body := f.post(t, session, say(1, "exit"))
	if status != http.StatusOK || !strings.HasPrefix(body, `{"jsonrpc":"2.0","id":1,"error":{"code":-32603`) {
		t.Errorf("in a session: %d %s", status, body)
	}
	waitFor(t, func() bool { return f.backend.count() == 1 })
	if status, _ := f.post(t, session, say(2, answer)); status != http.StatusNotFound {
		t.Errorf("the session after that: %d", status)
	}
	if status, body := f.post(t, other, say(2, answer)); status != http.StatusOK || !strings.Contains(body, "done") {
		t.Errorf("another: %d %s", status, body)
	}
	for range 3 {
		request, headers := modern("5", "x", `"say":"exit"`)
		if status, body := f.post(t, "", request, headers...); status != http.StatusOK || !strings.HasPrefix(body, `{"jsonrpc":"2.0","id":5,"error":{"code":-32603`) {
			t.Errorf("without a session: %d %s", status, body)
		}
		waitFor(t, func() bool { return f.backend.spawner.count() == 1 })
		request, headers = modern("6", "x", `"say":"`+answer+`"`)
		if status, body := f.post(t, "", request, headers...); status != http.StatusOK || !strings.Contains(body, `"id":6,"result":"done"`) {
			t.Errorf("after that: %d %s", status, body)
		}
		waitFor(t, func() bool { return f.inFlight() == 0 })
	}
	if status, body := f.post(t, other, say(3, "long|"+answer)); status != http.StatusOK || !strings.Contains(body, "-32603") {
		t.Errorf("a line that is too long: %d %s", status, body)
	}
	third := f.open(t)
	if status, body := f.post(t, third, say(4, "hello!||{'a':1,'a':2}|"+answer)); status != http.StatusOK || !strings.Contains(body, "done") {
		t.Errorf("lines that are no messages: %d %s", status, body)
	}
	if !f.log.contains("not a message") || !f.log.contains(`"exitCode":7`) {
		t.Errorf("the log: %s", f.log.text.String())
	}
}

// A server that cannot start is not started over and over.
func TestBackoff(t *testing.T) {
	f := start(t, "crash", nil)
	now := time.Now()
	var mu sync.Mutex
	f.backend.spawner.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	const hello = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}`
	var waited time.Duration
	for i := range 12 {
		if status, body := f.post(t, "", hello); !strings.Contains(body, "-32603") {
			t.Errorf("attempt %d: %d %s", i, status, body)
		}
		waitFor(t, func() bool { return f.backend.spawner.count() == 0 })
		if status, body := f.post(t, "", hello); status != http.StatusServiceUnavailable || !strings.Contains(body, "as soon as it is started") {
			t.Errorf("too early, %d: %d %s", i, status, body)
		}
		mu.Lock()
		wait := f.backend.spawner.until.Sub(now)
		now = now.Add(wait)
		mu.Unlock()
		if wait < waited || wait > time.Minute {
			t.Errorf("attempt %d: %v after %v", i, wait, waited)
		}
		waited = wait
	}
	if waited < 10*time.Second {
		t.Errorf("in the end it waits for %v only", waited)
	}
}

// Two clients without sessions use the same id and the same token at once, and nothing of one gets to the other.
func TestNoCrossTalkInPool(t *testing.T) {
	f := start(t, "script", nil)
	request := func(what string) (string, []string) {
		body, headers := modern("1", "x", `"say":"`+what+`"`)
		return strings.Replace(body, `"_meta":{`, `"_meta":{"progressToken":"same",`, 1), headers
	}
	const progress = `{'jsonrpc':'2.0','method':'notifications/progress','params':{'progressToken':@token,'of':'%s'}}`
	body, headers := request(fmt.Sprintf(progress, "one"))
	one := f.do(t.Context(), t, http.MethodPost, "", body, headers...)
	if _, got := events(t, one, 1); got[0] != `{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"same","of":"one"}}` {
		t.Errorf("one: %q", got)
	}
	// The second has the server say what could be anybody's: it goes to nobody.
	body, headers = request(fmt.Sprintf(progress, "two") + `|{'jsonrpc':'2.0','method':'notifications/message','params':{}}|{'jsonrpc':'2.0','method':'other'}|{'jsonrpc':'2.0','id':1,'result':'for one'}|` + answer)
	two := f.do(t.Context(), t, http.MethodPost, "", body, headers...)
	if _, got := events(t, two, 2); !strings.Contains(got[0], `"two"`) || got[1] != `{"jsonrpc":"2.0","id":1,"result":"done"}` {
		t.Errorf("two: %q", got)
	}
	if _, got := events(t, one, 1); got[0] != `{"jsonrpc":"2.0","id":1,"result":"for one"}` {
		t.Errorf("one: %q", got)
	}
	// Subscriptions are told apart, and end when the server ends them.
	body, headers = modern(`"sub"`, "subscriptions/listen", `"say":"{'jsonrpc':'2.0','method':'notifications/tools/list_changed','params':{'_meta':{'io.modelcontextprotocol/subscriptionId':@id}}}|{'jsonrpc':'2.0','method':'notifications/cancelled','params':{'requestId':@id}}"`)
	listening := f.do(t.Context(), t, http.MethodPost, "", body, headers...)
	if _, got := events(t, listening, 1); !strings.Contains(got[0], `"io.modelcontextprotocol/subscriptionId":"sub"`) {
		t.Errorf("a subscription: %q", got)
	}
	if rest, err := io.ReadAll(listening.Body); err != nil || len(rest) != 0 {
		t.Errorf("after its end: %q, %v", rest, err)
	}
	// When a client goes, the server is told of it by the id that it knows.
	ctx, cancel := context.WithCancel(t.Context())
	body, headers = request(fmt.Sprintf(progress, "gone"))
	events(t, f.do(ctx, t, http.MethodPost, "", body, headers...), 1)
	cancel()
	waitFor(t, func() bool { return f.log.contains(`requestId\":4`) })
	waitFor(t, func() bool { return f.inFlight() == 0 })
	// HTTP says what the protocol says that it says.
	for says, want := range map[string]int{`{'jsonrpc':'2.0','id':@id,'error':{'code':-32601,'message':''}}`: 404, `{'jsonrpc':'2.0','id':@id,'error':{'code':-32022,'message':''}}`: 400, `{'jsonrpc':'2.0','id':@id,'error':{'code':5,'message':''}}`: 200} {
		body, headers := request(says)
		if status, got := f.post(t, "", body, headers...); status != want {
			t.Errorf("%s: %d %s", says, status, got)
		}
	}
	if r := f.do(t.Context(), t, http.MethodGet, "", "", "MCP-Protocol-Version", "2026-07-28"); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", r.StatusCode)
	}
}

// A client that does not read makes its own process wait, and costs no memory beyond the bound.
func TestBackPressure(t *testing.T) {
	f := start(t, "script", func(l *Limits) { l.BufferBytes = 64 << 10 })
	session := f.open(t)
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(f.url, "http://"), "/mcp"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const lines = 300
	line := `{'jsonrpc':'2.0','method':'` + strings.Repeat("m", 8<<10) + `'}|`
	body := say(1, strings.Repeat(line, lines))
	fmt.Fprintf(conn, "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nMcp-Session-Id: %s\r\nContent-Length: %d\r\n\r\n%s", session, len(body), body)
	f.backend.mu.Lock()
	buffer := f.backend.sessions[session].buffer
	f.backend.mu.Unlock()
	held := func() int {
		buffer.mu.Lock()
		defer buffer.mu.Unlock()
		return buffer.bytes
	}
	waitFor(t, func() bool { return held() > 40<<10 })
	read := bufio.NewReader(conn)
	for n := 0; n < lines; { // it reads on, and nothing is lost
		text, err := read.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(text, "data: {") {
			n++
		}
		if got := held(); got > 64<<10 {
			t.Fatalf("%d bytes are held", got)
		}
	}
}

// The end of a process is gentle first, and certain in the end; nothing of it is left, neither its children nor a zombie.
func TestNothingIsLeft(t *testing.T) {
	f := start(t, "deaf", func(l *Limits) { l.StopGrace = 50 * time.Millisecond })
	response := f.do(t.Context(), t, http.MethodPost, "", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}`)
	var pids struct{ Result struct{ PID, Child int } }
	if err := json.NewDecoder(response.Body).Decode(&pids); err != nil || pids.Result.Child == 0 {
		t.Fatalf("%v %+v", err, pids)
	}
	f.do(t.Context(), t, http.MethodDelete, response.Header.Get("Mcp-Session-Id"), "")
	waitFor(t, func() bool { return f.backend.spawner.count() == 0 })
	for _, pid := range []int{pids.Result.PID, pids.Result.Child} {
		waitFor(t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	}
	f = start(t, "orphan", nil)
	response = f.do(t.Context(), t, http.MethodPost, "", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}`)
	if err := json.NewDecoder(response.Body).Decode(&pids); err != nil {
		t.Fatal(err)
	}
	f.do(t.Context(), t, http.MethodDelete, response.Header.Get("Mcp-Session-Id"), "")
	waitFor(t, func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", pids.Result.Child))
		return os.IsNotExist(err)
	})
}

// The gateway's own handshake has a process of its own, also when no client may have another; and what it finds out of the server
// holds for what clients may ask.
func TestDial(t *testing.T) {
	for server, want := range map[string]string{"sdk": "2026-07-28", "legacy": "2025-11-25"} {
		f := start(t, server, func(l *Limits) { l.Children = 1 })
		session := f.open(t)
		got, err := inventory.Take(t.Context(), f.backend.Dial)
		if err != nil || got.Protocol != want || got.Count != 5 {
			t.Errorf("%s: %+v, %v", server, got, err)
			continue
		}
		f.backend.Found(got)
		if n := f.backend.spawner.count(); n != 1 {
			t.Errorf("%s: %d processes", server, n)
		}
		f.do(t.Context(), t, http.MethodDelete, session, "")
		waitFor(t, func() bool { return f.backend.spawner.count() == 0 })
		body, headers := modern("1", "tools/list", "")
		status, answer := f.post(t, "", body, headers...)
		if modern := got.Modern(); modern != (status == http.StatusOK) || modern == strings.Contains(answer, `-32022,"message":"Unsupported protocol version","data":{"supported":["2025-11-25"`) {
			t.Errorf("%s: %d %s", server, status, answer)
		}
	}
	f := start(t, "crash", nil)
	if _, err := inventory.Take(t.Context(), f.backend.Dial); err == nil {
		t.Error("a handshake with a server that ends")
	}
}

func TestNew(t *testing.T) {
	for name, command := range map[string][]string{"none": nil, "missing": {"/no/such/server"}} {
		if _, err := New(command, DefaultLimits(gateway.DefaultLimits()), slog.New(slog.DiscardHandler), prometheus.NewRegistry()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
