package egressproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go4.org/netipx"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// testbed is a proxy on loopback with a resolver and hosts of its own.
type testbed struct {
	t        *testing.T
	proxy    *Proxy
	addr     string
	list     string // path of the access list
	names    *names
	audit    *auditLog
	registry *prometheus.Registry
	stop     func() // ends the proxy and waits for it
}

// names answers look-ups.
type names struct {
	mu      sync.Mutex
	answers map[string][][]netip.Addr // one after the other; the last one stays
	asked   []string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked = append(n.asked, host)
	answers := n.answers[host]
	if len(answers) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if len(answers) > 1 {
		n.answers[host] = answers[1:]
	}
	return answers[0], nil
}

func (n *names) set(host string, answers ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all [][]netip.Addr
	for _, answer := range answers {
		var addrs []netip.Addr
		for _, addr := range strings.Fields(answer) {
			addrs = append(addrs, netip.MustParseAddr(addr))
		}
		all = append(all, addrs)
	}
	n.answers[host+"."] = all
}

func (n *names) lookups() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]string(nil), n.asked...)
}

// auditLog keeps what the proxy writes.
type auditLog struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (a *auditLog) Write(b []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text.Write(b)
	select {
	case a.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (a *auditLog) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text.String()
}

// line is what the tests look at of an audit line.
type line struct {
	Msg, Decision, Reason, Server, ClaimedServer, Client, Method, Host, Address, Cause, Detail string
	Port                                                                                       int
	BytesUp, BytesDown                                                                         int64
}

// lines are those of one kind, "decision" or "end".
func (a *auditLog) lines(t *testing.T, kind string) []line {
	t.Helper()
	var out []line
	for text := range strings.Lines(a.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("not a JSON line: %q", text)
		}
		if l.Msg == kind {
			out = append(out, l)
		}
	}
	return out
}

// wait until a number of lines of a kind are there, and return the last.
func (a *auditLog) wait(t *testing.T, kind string, count int) line {
	t.Helper()
	timeout := time.After(patience)
	for {
		if lines := a.lines(t, kind); len(lines) >= count {
			return lines[count-1]
		}
		select {
		case <-a.more:
		case <-timeout:
			t.Fatalf("no %d lines %q in:\n%s", count, kind, a)
		}
	}
}

func loopback() *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddPrefix(netip.MustParsePrefix("127.0.0.0/8"))
	b.AddPrefix(netip.MustParsePrefix("::1/128"))
	set, _ := b.IPSet()
	return set
}

// listOf writes an access list in which server "a" with password "of-a" has the rules, and "b" with "of-b" none.
func listOf(t *testing.T, path string, rules ...access.Rule) {
	t.Helper()
	writeList(t, path, access.List{Version: access.Version, Servers: []access.Server{
		{Name: "a", CredentialSHA256: access.Digest("of-a"), Rules: rules},
		{Name: "b", CredentialSHA256: access.Digest("of-b")},
	}})
}

func writeList(t *testing.T, path string, list access.List) {
	t.Helper()
	data, err := access.Encode(list)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, data)
}

// writeFile replaces a file in one step, as the kubelet does.
func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func rule(host string, ports ...int) access.Rule {
	r := access.Rule{Host: host}
	for _, port := range ports {
		r.Ports = append(r.Ports, int32(port))
	}
	return r
}

// start a proxy whose access list has the rules for server "a".
func start(t *testing.T, change func(*Config), rules ...access.Rule) *testbed {
	t.Helper()
	return serve(t, 0, change, rules...)
}

// serve is start with time for what is open when the proxy is told to stop.
func serve(t *testing.T, drain time.Duration, change func(*Config), rules ...access.Rule) *testbed {
	t.Helper()
	b := &testbed{
		t: t, list: filepath.Join(t.TempDir(), "access.json"),
		names: &names{answers: map[string][][]netip.Addr{}}, audit: &auditLog{more: make(chan struct{}, 1)},
		registry: prometheus.NewRegistry(),
	}
	listOf(t, b.list, rules...)
	config := Config{
		ListPath: b.list, Limits: DefaultLimits(), Resolver: b.names,
		Log: slog.New(slog.NewJSONHandler(b.audit, nil)), Registry: b.registry,
	}
	if change != nil {
		change(&config)
	}
	var err error
	if b.proxy, err = New(config); err != nil {
		t.Fatal(err)
	}
	b.proxy.exempt = loopback()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.addr = listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.proxy.Serve(ctx, listener, drain) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// metric as it is shown, "" where it is not.
func (b *testbed) metric(name string) string {
	b.t.Helper()
	recorder := httptest.NewRecorder()
	promhttp.HandlerFor(b.registry, promhttp.HandlerOpts{}).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for text := range strings.Lines(recorder.Body.String()) {
		if value, ok := strings.CutPrefix(text, "mcp_warden_egress_"+name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// connect to the proxy.
func (b *testbed) connect() *net.TCPConn {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		b.t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// ask sends bytes and returns all that comes back until the proxy closes.
func (b *testbed) ask(request string) string {
	b.t.Helper()
	conn := b.connect()
	if _, err := io.WriteString(conn, request); err != nil {
		b.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil && !isReset(err) {
		b.t.Fatalf("%.100q: the proxy does not close: %v", request, err)
	}
	return string(answer)
}

func isReset(err error) bool {
	return strings.Contains(err.Error(), "connection reset") || errors.Is(err, io.EOF)
}

// denied holds an answer and its audit line against the reason that is expected.
func (b *testbed) denied(answer string, count int, want Reason) line {
	b.t.Helper()
	got := b.audit.wait(b.t, "decision", count)
	if got.Decision != "Denied" || got.Reason != string(want) {
		b.t.Errorf("%s for %s, want Denied for %s", got.Decision, got.Reason, want)
	}
	if r, answered := refusals[want]; answered {
		head, _, _ := strings.Cut(answer, "\r\n")
		if !strings.HasPrefix(head, "HTTP/1.1 "+strconv.Itoa(r.status)+" ") {
			b.t.Errorf("answer %q, want status %d", head, r.status)
		}
	}
	return got
}

func auth(server, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(server+":"+password)) + "\r\n"
}

// tlsHost is a TLS server on loopback, with its port.
func tlsHost(t *testing.T) (*httptest.Server, int) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s", r.Host)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // tests break handshakes off
	server.StartTLS()
	t.Cleanup(server.Close)
	return server, server.Listener.Addr().(*net.TCPAddr).Port
}

// tunnel sends a CONNECT as server "a" and returns the connection after the 200.
func (b *testbed) tunnel(authority string) net.Conn {
	b.t.Helper()
	conn := b.connect()
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", authority, authority, auth("a", "of-a"))
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	if err != nil {
		b.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(response.Body)
		b.t.Fatalf("CONNECT %s: %s: %s", authority, response.Status, body)
	}
	return conn
}

// httpsClient uses the proxy as any client does, with the proxy's address from its environment.
func (b *testbed) httpClient(server, password string) *http.Client {
	b.t.Helper()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", User: url.UserPassword(server, password), Host: b.addr}),
	}
	b.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestTunnel(t *testing.T) {
	_, port := tlsHost(t)
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	for i, host := range []string{"api.example.com", "API.Example.COM", "api.example.com."} {
		response, err := b.httpClient("a", "of-a").Get(fmt.Sprintf("https://%s:%d/", host, port))
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK || !strings.HasPrefix(string(body), "hello from ") {
			t.Errorf("%s: %s %q", host, response.Status, body)
		}
		got := b.audit.wait(t, "decision", i+1)
		want := line{Msg: "decision", Decision: "Allowed", Reason: "Listed", Server: "a", Client: "127.0.0.1", Method: "CONNECT", Host: "api.example.com", Port: port, Address: "127.0.0.1"}
		if got != want {
			t.Errorf("%s: audit %+v, want %+v", host, got, want)
		}
	}
	for _, name := range b.names.lookups() {
		if name != "api.example.com." {
			t.Errorf("looked %q up: not the absolute name", name)
		}
	}
	if strings.Contains(b.audit.String(), "of-a") {
		t.Error("the audit log holds a password")
	}
}

func TestPlain(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL, body)
	}))
	defer origin.Close()
	port := origin.Listener.Addr().(*net.TCPAddr).Port
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	client := b.httpClient("a", "of-a")
	for i := range 3 {
		response, err := client.Post(fmt.Sprintf("http://API.example.com:%d/x?q=1;2", port), "text/plain", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if want := fmt.Sprintf("POST api.example.com:%d /x?q=1;2 body", port); string(body) != want {
			t.Errorf("the host saw %q, want %q", body, want)
		}
		b.audit.wait(t, "end", i+1)
	}
}

// mustPolicy is a policy in which server "a" has the rules.
func mustPolicy(t testing.TB, rules ...access.Rule) *access.Policy {
	t.Helper()
	data, err := access.Encode(access.List{Version: access.Version, Servers: []access.Server{
		{Name: "a", CredentialSHA256: access.Digest("of-a"), Rules: rules}, {Name: "b", CredentialSHA256: access.Digest("of-b")}}})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := access.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// testCertificate is one that the tests' clients do not check.
func testCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	return server.TLS.Certificates[0]
}
