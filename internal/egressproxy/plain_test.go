package egressproxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// rawHost takes one request at a time, byte by byte as it came, and answers with fixed bytes.
type rawHost struct {
	port   int
	answer string
	got    chan string
}

func newRawHost(t *testing.T, answer string) *rawHost {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	h := &rawHost{port: listener.Addr().(*net.TCPAddr).Port, answer: answer, got: make(chan string, 10)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go h.serve(conn)
		}
	}()
	return h
}

func (h *rawHost) serve(conn net.Conn) {
	defer conn.Close()
	var raw bytes.Buffer
	request, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &raw)))
	if err == nil {
		_, err = io.Copy(io.Discard, request.Body)
	}
	if err != nil {
		h.got <- fmt.Sprintf("%s (%v)", raw.String(), err)
		return
	}
	_, _ = io.WriteString(conn, h.answer)
	_ = conn.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(&raw, conn) // whatever else comes
	h.got <- raw.String()
}

func (h *rawHost) request(t *testing.T) string {
	t.Helper()
	select {
	case got := <-h.got:
		return got
	case <-time.After(patience):
		t.Fatal("the host is not asked")
		return ""
	}
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// TestForwarded holds what a host gets of a request against what was sent, to the byte.
func TestForwarded(t *testing.T) {
	for _, test := range []struct {
		name, line, fields, body, want string
	}{
		{"as simple as can be", "GET http://HOST/ HTTP/1.1", "", "", "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{"no path", "GET http://HOST HTTP/1.1", "", "", "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{"a query and no path", "GET http://HOST?a=b HTTP/1.1", "", "", "GET /?a=b HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{"a path as it was written", "GET http://HOST/a//b/../c%2Fd?x=%41&y;z HTTP/1.1", "", "", "GET /a//b/../c%2Fd?x=%41&y;z HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{"HTTP/1.0", "GET http://HOST/ HTTP/1.0", "", "", "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{"the scheme in capitals", "GET HTTP://HOST/ HTTP/1.1", "", "", "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{"what is for the host", "GET http://HOST/ HTTP/1.1", "Authorization: Bearer x\r\nCookie: a=b\r\nX-Own: 1\r\n", "",
			"GET / HTTP/1.1\r\nHost: HOST\r\nAuthorization: Bearer x\r\nCookie: a=b\r\nX-Own: 1\r\nConnection: close\r\n\r\n"},
		{"what is for the proxy", "GET http://HOST/ HTTP/1.1", "Proxy-Connection: keep-alive\r\nProxy-Own: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nConnection: keep-alive\r\n", "",
			"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{"what Connection names", "GET http://HOST/ HTTP/1.1", "Connection: X-Hop, Authorization, close\r\nX-Hop: 1\r\nAuthorization: x\r\nX-Own: 1\r\n", "",
			"GET / HTTP/1.1\r\nHost: HOST\r\nX-Own: 1\r\nConnection: close\r\n\r\n"},
		{"Connection names Host and the length", "POST http://HOST/ HTTP/1.1", "Connection: Host, Content-Length, Proxy-Authorization\r\nContent-Length: 4\r\n", "body",
			"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"},
		{"a body", "POST http://HOST/ HTTP/1.1", "Content-Length: 4\r\n", "body", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"},
		{"chunks", "POST http://HOST/ HTTP/1.1", "Transfer-Encoding: Chunked\r\n", "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n"},
		{"a trailer", "POST http://HOST/ HTTP/1.1", "Transfer-Encoding: chunked\r\nTrailer: X-After, Authorization\r\nTE: trailers\r\n", "4\r\nbody\r\n0\r\nX-After: 1\r\nAuthorization: x\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTe: trailers\r\nConnection: close\r\n\r\n4\r\nbody\r\n0\r\n\r\n"},
		{"another request behind it", "GET http://HOST/ HTTP/1.1", "", "GET http://evil.example.net/ HTTP/1.1\r\nHost: evil.example.net\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n"},
		{"another request behind a body", "POST http://HOST/ HTTP/1.1", "Content-Length: 4\r\n", "bodyGET /evil HTTP/1.1\r\nHost: HOST\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"},
		{"another request behind chunks", "POST http://HOST/ HTTP/1.1", "Transfer-Encoding: chunked\r\n", "0\r\n\r\nGET /evil HTTP/1.1\r\nHost: HOST\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n"},
		{"expecting 100", "POST http://HOST/ HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 4\r\n", "body",
			"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newRawHost(t, ok)
			b := start(t, nil, rule("api.example.com", h.port))
			b.names.set("api.example.com", "127.0.0.1")
			host := fmt.Sprintf("api.example.com:%d", h.port)
			conn := b.connect()
			request := strings.ReplaceAll(test.line+"\r\nHost: HOST\r\n", "HOST", host) + auth("a", "of-a") + test.fields + "\r\n" + test.body
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			if got, want := h.request(t), strings.ReplaceAll(test.want, "HOST", host); got != want {
				t.Errorf("the host got\n%q, want\n%q", got, want)
			}
			answer, _ := io.ReadAll(conn)
			text := strings.TrimPrefix(string(answer), "HTTP/1.1 100 Continue\r\n\r\n")
			if !strings.HasPrefix(text, "HTTP/1.1 200 OK\r\n") && !strings.HasPrefix(text, "HTTP/1.0 200 OK\r\n") || !strings.HasSuffix(text, "\r\n\r\nok") {
				t.Errorf("answered %q", answer)
			}
			b.audit.wait(t, "end", 1)
			if d := b.audit.lines(t, "decision"); len(d) != 1 || d[0].Decision != "Allowed" {
				t.Errorf("decided %+v", d)
			}
		})
	}
}

// TestBadBodies: what is wrong with a body shows only after the decision. The host sees an incomplete request, never
// another one.
func TestBadBodies(t *testing.T) {
	for name, body := range map[string]string{
		"a chunk size that is none":            "zz\r\nbody\r\n0\r\n\r\n",
		"a chunk that is longer than its size": "2\r\nbody\r\n0\r\n\r\n",
		"a bare line feed behind the size":     "4\nbody\n0\n\n",
		"a size beyond 64 bits":                "fffffffffffffffff\r\nbody\r\n0\r\n\r\n",
		"a negative size":                      "-4\r\nbody\r\n0\r\n\r\n",
		"a size with 0x":                       "0x4\r\nbody\r\n0\r\n\r\n",
		"no last chunk":                        "4\r\nbody\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			h := newRawHost(t, ok)
			b := start(t, nil, rule("api.example.com", h.port))
			b.names.set("api.example.com", "127.0.0.1")
			host := fmt.Sprintf("api.example.com:%d", h.port)
			conn := b.connect()
			fmt.Fprintf(conn, "POST http://%s/ HTTP/1.1\r\nHost: %s\r\n%sTransfer-Encoding: chunked\r\n\r\n%s", host, host, auth("a", "of-a"), body)
			_ = conn.CloseWrite()
			got := h.request(t)
			if strings.HasSuffix(got, "0\r\n\r\n") {
				t.Errorf("the host got a whole request: %q", got)
			}
			if strings.Count(got, "HTTP/1.1") != 1 {
				t.Errorf("the host got more than one request: %q", got)
			}
			b.audit.wait(t, "end", 1)
		})
	}
}

// TestAnswers holds what comes back against what the host sent.
func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name, answer string
		status       int
		body         string
		check        func(*testing.T, *http.Response)
	}{
		{name: "as it is", answer: "HTTP/1.1 404 Not Found\r\nX-Own: 1\r\nContent-Length: 4\r\n\r\nbody", status: 404, body: "body"},
		{name: "chunks", answer: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", status: 200, body: "body"},
		{name: "until it closes", answer: "HTTP/1.0 200 OK\r\n\r\nbody", status: 200, body: "body"},
		{name: "compressed, as it is", answer: "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbody", status: 200, body: "body"},
		{name: "a redirect is handed back", answer: "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", status: 302,
			check: func(t *testing.T, r *http.Response) {
				if r.Header.Get("Location") != "http://169.254.169.254/" {
					t.Error("the redirect is changed")
				}
			}},
		{name: "what is hop by hop", answer: "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\nProxy-Own: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n", status: 200,
			check: func(t *testing.T, r *http.Response) {
				for _, name := range []string{"X-Hop", "Proxy-Authenticate", "Proxy-Own", "Keep-Alive"} {
					if r.Header.Get(name) != "" {
						t.Errorf("%s comes through", name)
					}
				}
			}},
		{name: "an upgrade that nobody asked for", answer: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbody", status: 502},
		{name: "no HTTP", answer: "SSH-2.0-x\r\n", status: 502},
		{name: "nothing", answer: "", status: 502},
		{name: "two lengths", answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nbody", status: 502},
		{name: "a header without an end", answer: "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 2*maxResponseHead), status: 502},
		{name: "a header that is too large", answer: "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 2*maxResponseHead) + "\r\nContent-Length: 0\r\n\r\n", status: 502},
		{name: "two answers", answer: ok + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", status: 200, body: "ok"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newRawHost(t, test.answer)
			b := start(t, nil, rule("api.example.com", h.port))
			b.names.set("api.example.com", "127.0.0.1")
			request, _ := http.NewRequest(http.MethodGet, fmt.Sprintf("http://api.example.com:%d/", h.port), nil)
			request.Header.Set("Accept-Encoding", "identity")
			response, err := b.httpClient("a", "of-a").Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if response.StatusCode != test.status || err != nil {
				t.Errorf("status %d, %v, want %d", response.StatusCode, err, test.status)
			}
			switch want := test.body; {
			case test.status == http.StatusBadGateway:
				if string(body) != "The host gave no answer that can be handed on.\n" {
					t.Errorf("the answer tells too much: %q", body)
				}
			case string(body) != want:
				t.Errorf("body %q, want %q", body, want)
			}
			if !response.Close {
				t.Error("the connection is kept for another request")
			}
			if test.check != nil {
				test.check(t, response)
			}
			if asked := len(h.got); asked > 1 {
				t.Errorf("the host was asked %d times", asked)
			}
		})
	}
}

// TestCutAnswer: an answer that breaks off must not look complete.
func TestCutAnswer(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbody",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\nzz\r\n",
	} {
		h := newRawHost(t, answer)
		b := start(t, nil, rule("api.example.com", h.port))
		b.names.set("api.example.com", "127.0.0.1")
		response, err := b.httpClient("a", "of-a").Get(fmt.Sprintf("http://api.example.com:%d/", h.port))
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(response.Body); err == nil {
			t.Errorf("%q looks complete: %q", answer, body)
		}
		response.Body.Close()
	}
}

// TestStream: what a host sends piece by piece comes through piece by piece.
func TestStream(t *testing.T) {
	next := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	}))
	defer origin.Close()
	port := origin.Listener.Addr().(*net.TCPAddr).Port
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	response, err := b.httpClient("a", "of-a").Get(fmt.Sprintf("http://api.example.com:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	reader := bufio.NewReader(response.Body)
	for i := range 3 {
		if got, err := reader.ReadString('\n'); err != nil || got != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q, %v", got, err)
		}
		_, _ = reader.ReadString('\n')
		next <- struct{}{}
	}
	b.audit.wait(t, "end", 1)
}

// TestGone: a client that goes away takes the host's connection with it.
func TestGone(t *testing.T) {
	gone := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	defer origin.Close()
	port := origin.Listener.Addr().(*net.TCPAddr).Port
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	response, err := b.httpClient("a", "of-a").Get(fmt.Sprintf("http://api.example.com:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("the host's connection stays open")
	}
	b.audit.wait(t, "end", 1)
}
