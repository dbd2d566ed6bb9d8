package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/gatewaytest"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
)

// front serves a gateway in front of a server, and returns the address of its endpoint.
func front(t *testing.T, address string, limits gateway.Limits) string {
	t.Helper()
	backend, err := New(address, limits)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	g, err := gateway.New(gateway.Config{Path: "/mcp", Limits: limits, Backend: backend, Log: log, Registry: prometheus.NewRegistry()})
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
		backend.transport.CloseIdleConnections()
	})
	return "http://" + listener.Addr().String() + "/mcp"
}

// seen is what a server saw of a request.
type seen struct {
	method, path, body string
	header             http.Header
}

// Whatever a client and a server say to each other, odd as it may be, is the same with the gateway between them and without.
func TestBytesPassUnchanged(t *testing.T) {
	saw := make(chan seen, 1)
	var status int
	var head http.Header
	var chunks []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		header := r.Header.Clone()
		for _, own := range []string{"Accept-Encoding", "User-Agent", "X-Forwarded-For"} {
			header.Del(own)
		}
		saw <- seen{r.Method, r.URL.Path, string(body), header}
		maps.Copy(w.Header(), head)
		w.WriteHeader(status)
		for _, chunk := range chunks {
			_, _ = io.WriteString(w, chunk)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	defer server.Close()
	through := front(t, server.URL+"/mcp", gateway.DefaultLimits())
	json := http.Header{"Content-Type": {"application/json; charset=utf-8"}, "Mcp-Session-Id": {"abc"}, "X-Other": {"1", "2"}}
	events := http.Header{"Content-Type": {"text/event-stream"}, "Cache-Control": {"no-cache, no-transform"}, "X-Accel-Buffering": {"no"}}
	const odd = ` {"zeta":{"b":1,"a":[1.50,1e400,"\ud800 \/ é"]},"method":"x/unknown","id":92233720368547758079999,` + "\r\n" + `"params":{"unknown":null,"name":7},"jsonrpc":"2.0"} `
	for name, test := range map[string]struct {
		method, body string
		header       http.Header
		status       int
		head         http.Header
		chunks       []string
	}{
		"one answer":    {http.MethodPost, odd, nil, 200, json, []string{` {"result":{"z":1.0,"a":12345678901234567890123},"jsonrpc":"2.0", "id":92233720368547758079999}` + "\n"}},
		"in chunks":     {http.MethodPost, odd, nil, 200, json, []string{`{"jsonrpc":"2.0",`, `"id":1,"result":{}}`}},
		"an rpc error":  {http.MethodPost, odd, nil, 404, json, []string{`{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no","data":[1]}}`}},
		"accepted":      {http.MethodPost, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, nil, 202, nil, nil},
		"a response":    {http.MethodPost, `{"jsonrpc":"2.0","id":"s-1","result":{"action":"accept"}}`, nil, 202, nil, nil},
		"http error":    {http.MethodPost, odd, nil, 400, http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, []string{"Bad Request: no valid session ID provided\n"}},
		"json error":    {http.MethodPost, odd, nil, 401, http.Header{"Content-Type": {"application/json"}, "Www-Authenticate": {`Bearer resource_metadata="x"`}}, []string{`{"error":"invalid_token"}`}},
		"not allowed":   {http.MethodGet, "", nil, 405, http.Header{"Allow": {"POST"}}, nil},
		"delete":        {http.MethodDelete, "", http.Header{"Mcp-Session-Id": {"abc"}}, 204, nil, nil},
		"events":        {http.MethodPost, odd, http.Header{"Accept": {"application/json, text/event-stream"}, "Authorization": {"Bearer x"}, "Traceparent": {"00-x"}, "Mcp-Param-Region": {"eu"}}, 200, events, []string{": hi\r\n", "event: message\r\nid: a_0\r\nretry: 5\r\ndata:\r\n\r\n", "data: {\"jsonrpc\":\"2.0\",", "\"method\":\"x\"}\n\ndata: {\"jsonrpc\":\ndata: \"2.0\",\"id\":1,\"result\":{}}\n\n"}},
		"listen":        {http.MethodGet, "", http.Header{"Accept": {"text/event-stream"}, "Last-Event-Id": {"a_7"}, "Mcp-Session-Id": {"abc"}}, 200, events, []string{"id: a_8\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"s-1\",\"method\":\"elicitation/create\"}\n\n", ":\n", "event: other\ndata: not a message\n\n"}},
		"empty stream":  {http.MethodPost, odd, nil, 200, events, nil},
		"redirect":      {http.MethodPost, odd, nil, 307, http.Header{"Location": {"http://elsewhere/"}}, nil},
		"cookie":        {http.MethodPost, odd, http.Header{"Cookie": {"a=b"}}, 200, http.Header{"Content-Type": {"application/json"}, "Set-Cookie": {"a=b", "c=d"}}, []string{`{"jsonrpc":"2.0","id":1,"result":{}}`}},
		"large":         {http.MethodPost, strings.Replace(odd, "null", `"`+strings.Repeat("x", 1<<20)+`"`, 1), nil, 200, json, []string{`{"jsonrpc":"2.0","id":1,"result":"` + strings.Repeat("y", 1<<20) + `"}`}},
		"many bytes":    {http.MethodPost, odd, nil, 200, events, slices.Repeat([]string{"data: {\"jsonrpc\":\"2.0\",\"method\":\"" + strings.Repeat("z", 10<<10) + "\"}\n\n"}, 30)},
		"other headers": {http.MethodPost, odd, http.Header{"Mcp-Method": {"x/unknown"}, "Connection": {"X-Hop"}, "X-Kept": {"a", "b"}}, 200, json, []string{`{"jsonrpc":"2.0","id":1,"result":{}}`}},
	} {
		t.Run(name, func(t *testing.T) {
			status, head, chunks = test.status, test.head, test.chunks
			var got [2]string
			for i, url := range []string{server.URL + "/mcp", through} {
				r, err := http.NewRequest(test.method, url, strings.NewReader(test.body))
				if err != nil {
					t.Fatal(err)
				}
				maps.Copy(r.Header, test.header)
				if test.body != "" {
					r.Header.Set("Content-Type", "application/json")
				}
				response, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(response.Body)
				_ = response.Body.Close()
				at := <-saw
				delete(at.header, "Connection") // of one connection each
				for _, own := range []string{"Date", "Content-Length"} {
					response.Header.Del(own)
				}
				if at.body != test.body {
					t.Errorf("the server got another body: %q", at.body)
				}
				got[i] = fmt.Sprintf("%+v\n%d %v\n%q %v", at, response.StatusCode, response.Header, body, err)
			}
			if got[0] != got[1] {
				t.Errorf("directly: %.2000s\nthrough the gateway: %.2000s", got[0], got[1])
			}
		})
	}
}

// A client and a server by the official SDK, in every revision, with and without sessions: all that passes between them is the same
// with the gateway and without.
func TestSDK(t *testing.T) {
	for name, options := range map[string]mcp.StreamableHTTPOptions{
		"sessions": {}, "stateless": {Stateless: true}, "one answer": {JSONResponse: true},
	} {
		server := gatewaytest.Server()
		origin := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &options))
		defer origin.Close()
		through := front(t, origin.URL+"/mcp", gateway.DefaultLimits())
		for _, version := range []string{"2025-06-18", "2025-11-25", "2026-07-28"} {
			t.Run(name+" "+version, func(t *testing.T) {
				var recorded [2][]string
				for i, url := range []string{origin.URL + "/mcp", through} {
					recorder := &gatewaytest.Recorder{RoundTripper: &http.Transport{}}
					session := gatewaytest.Client(t, url, version, recorder, nil)
					if got := session.InitializeResult().ProtocolVersion; got != version && name == "stateless" {
						t.Errorf("they speak %s", got)
					}
					converse(t, session, name == "sessions")
					recorded[i] = recorder.Exchanges()
				}
				if !slices.Equal(recorded[0], recorded[1]) {
					t.Errorf("directly:\n%s\nthrough the gateway:\n%s", strings.Join(recorded[0], "\n\n"), strings.Join(recorded[1], "\n\n"))
				}
				if len(recorded[0]) < 4 {
					t.Errorf("recorded: %q", recorded[0])
				}
			})
		}
	}
}

func converse(t *testing.T, session *mcp.ClientSession, asks bool) {
	t.Helper()
	tools, err := session.ListTools(t.Context(), nil)
	if err != nil || len(tools.Tools) != 5 {
		t.Errorf("tools: %v, %v", tools, err)
	}
	names := []string{"echo", "steps"}
	if asks {
		names = append(names, "ask")
	}
	for _, tool := range names {
		if answer, err := gatewaytest.Call(t.Context(), session, tool, "hello"); err != nil || !strings.HasPrefix(answer, "hello") {
			t.Errorf("%s: %q, %v", tool, answer, err)
		}
	}
	if _, err := gatewaytest.Call(t.Context(), session, "none", "hello"); err == nil {
		t.Error("a tool that there is not has answered")
	}
	if err := session.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// A client that goes takes its request with it: the server sees the connection go.
func TestClientGoes(t *testing.T) {
	began, gone := make(chan bool), make(chan bool)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		began <- true
		<-r.Context().Done()
		gone <- true
	}))
	defer server.Close()
	url := front(t, server.URL+"/mcp", gateway.DefaultLimits())
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, method, url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"m"}`))
		r.Header.Set("Content-Type", "application/json")
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		<-began
		cancel()
		_ = response.Body.Close()
		<-gone
	}
}

// What a server does wrong becomes an error that says so, with the request's id.
func TestBadServers(t *testing.T) {
	limits := gateway.DefaultLimits()
	limits.MessageBytes = 1 << 10
	release := make(chan bool)
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		status int
		want   string
	}{
		"slow":     {func(http.ResponseWriter, *http.Request) { <-release }, 504, "in time"},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, "went away"},
		"html": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, "<html>")
		}, 502, "no message"},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"], w.Header()["Content-Encoding"] = []string{"application/json"}, []string{"gzip"}
			_, _ = io.WriteString(w, "{}")
		}, 502, "no message"},
		"large": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(bytes.Repeat([]byte(" "), 2<<10))
		}, 502, "too large"},
		"large event": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: "+strings.Repeat("x", 2<<10))
		}, 200, "too large"},
		"bad event": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: hello\n\n")
		}, 200, "no message"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.answer)
			defer server.Close()
			limits := limits
			if name == "slow" {
				limits.AnswerTime = 100 * time.Millisecond
				defer close(release)
			}
			status, body := ask(t, front(t, server.URL, limits))
			if status != test.status || !strings.Contains(body, test.want) || !strings.Contains(body, `"id":7,"error":{"code":-32603`) {
				t.Errorf("got %d %s", status, body)
			}
		})
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	if status, body := ask(t, front(t, "http://"+listener.Addr().String(), limits)); status != 502 || !strings.Contains(body, "cannot be reached") {
		t.Errorf("no server: %d %s", status, body)
	}
}

// noSessionStays waits until a server has no session. The SDK's server ends the one that it makes for a single request, such as the
// question which revisions it speaks, a moment after it answered.
func noSessionStays(t *testing.T, server *mcp.Server) {
	t.Helper()
	tick, late := time.NewTicker(time.Millisecond), time.After(10*time.Second)
	defer tick.Stop()
	for {
		left := 0
		for range server.Sessions() {
			left++
		}
		if left == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Errorf("%d sessions are left", left)
			return
		}
	}
}

// The gateway's own handshake works with every kind of server, and leaves no session behind.
func TestDial(t *testing.T) {
	digests := map[string]bool{}
	for name, test := range map[string]struct {
		options  mcp.StreamableHTTPOptions
		versions []string
		want     string
	}{
		"all":           {mcp.StreamableHTTPOptions{}, nil, "2025-11-25"}, // the SDK speaks the newest only without sessions
		"stateless":     {mcp.StreamableHTTPOptions{Stateless: true}, nil, "2026-07-28"},
		"legacy":        {mcp.StreamableHTTPOptions{}, []string{"2025-11-25"}, "2025-11-25"},
		"older":         {mcp.StreamableHTTPOptions{}, []string{"2025-06-18"}, "2025-06-18"},
		"one answer":    {mcp.StreamableHTTPOptions{JSONResponse: true}, []string{"2025-11-25"}, "2025-11-25"},
		"no session id": {mcp.StreamableHTTPOptions{Stateless: true}, []string{"2025-11-25"}, "2025-11-25"},
	} {
		t.Run(name, func(t *testing.T) {
			server := gatewaytest.Server(test.versions...)
			origin := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, &test.options))
			defer origin.Close()
			u, err := New(origin.URL+"/mcp", gateway.DefaultLimits())
			if err != nil {
				t.Fatal(err)
			}
			got, err := inventory.Take(t.Context(), u.Dial)
			if err != nil || got.Protocol != test.want || got.Count != 5 || got.Tools[0].Name != "ask" {
				t.Fatalf("got %+v, %v", got, err)
			}
			digests[got.SHA256] = true
			if !test.options.Stateless {
				noSessionStays(t, server)
			}
		})
	}
	if len(digests) != 1 {
		t.Errorf("the same tools have the digests %v", digests)
	}
	u, err := New("http://127.0.0.1:1/mcp", gateway.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inventory.Take(t.Context(), u.Dial); err == nil {
		t.Error("a handshake with nobody")
	}
}

func ask(t *testing.T, url string) (int, string) {
	t.Helper()
	response, err := http.Post(url, "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":7,"method":"m"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}
