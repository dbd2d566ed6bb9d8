package egressproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// both writes an access list in which servers "a" and "b" may reach the same port.
func both(t *testing.T, path string, port int) {
	t.Helper()
	rules := []access.Rule{rule("api.example.com", port)}
	writeList(t, path, access.List{Version: access.Version, Servers: []access.Server{
		{Name: "a", CredentialSHA256: access.Digest("of-a"), Rules: rules},
		{Name: "b", CredentialSHA256: access.Digest("of-b"), Rules: rules},
	}})
}

func readLine(t *testing.T, r io.Reader) string {
	t.Helper()
	text, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestWithdrawn holds that an open tunnel ends when the list no longer allows it, without a restart and within
// the time that is promised; and that it stays open through changes that do not concern it.
func TestWithdrawn(t *testing.T) {
	server := func(port int, password string, rules ...access.Rule) access.Server {
		return access.Server{Name: "a", CredentialSHA256: access.Digest(password), Rules: append(rules, rule("other.example.com", port))}
	}
	for name, test := range map[string]struct {
		list func(port int) access.List
		open bool
	}{
		"another rule goes": {open: true, list: func(port int) access.List {
			return access.List{Servers: []access.Server{server(port, "of-a", rule("api.example.com", port))}}
		}},
		"another rule allows it": {open: true, list: func(port int) access.List {
			return access.List{Servers: []access.Server{server(port, "of-a", rule("*.example.com", port))}}
		}},
		"the rule goes": {list: func(port int) access.List { return access.List{Servers: []access.Server{server(port, "of-a")}} }},
		"the port goes": {list: func(port int) access.List {
			return access.List{Servers: []access.Server{server(port, "of-a", rule("api.example.com", 1))}}
		}},
		"the server goes": {list: func(int) access.List { return access.List{Servers: []access.Server{}} }},
		"another credential": {list: func(port int) access.List {
			return access.List{Servers: []access.Server{server(port, "new", rule("api.example.com", port))}}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b, conn := openTunnel(t, nil)
			list := test.list(b.anyFlow().addrPort())
			list.Version = access.Version
			old := b.proxy.state.Load()
			began := time.Now()
			writeList(t, b.list, list)
			eventually(t, "the list is read by itself", func() bool { return b.proxy.state.Load() != old })
			if test.open {
				echo(t, conn, "still there")
				return
			}
			if end := b.audit.wait(t, "end", 1); end.Cause != string(RuleWithdrawn) {
				t.Errorf("ended for %s", end.Cause)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v", took)
			}
			if _, err := io.ReadAll(conn); err != nil && !isReset(err) {
				t.Errorf("the client's connection stays open: %v", err)
			}
		})
	}
}

func (f *flow) addrPort() int { return int(f.to.port) }

func TestWithdrawnAddress(t *testing.T) {
	b, _ := openTunnel(t, nil)
	b.proxy.exempt = nil // from now on, loopback is as forbidden as it is in production
	b.proxy.use(b.proxy.state.Load(), nil)
	if end := b.audit.wait(t, "end", 1); end.Cause != string(RuleWithdrawn) {
		t.Errorf("ended for %s", end.Cause)
	}
}

// TestWithdrawnECH: a tunnel with an encrypted hello ends when that is no longer allowed; one without goes on.
func TestWithdrawnECH(t *testing.T) {
	b, plain := openTunnel(t, nil)
	port := b.anyFlow().addrPort()
	allowed := rule("api.example.com", port)
	allowed.EncryptedClientHello = access.ECHAllow
	listOf(t, b.list, allowed)
	b.proxy.reload()
	hello := whole(serverNames("api.example.com"), extension{0xfe0d, []byte{0}})
	conn := b.tunnel(fmt.Sprintf("api.example.com:%d", port))
	if _, err := conn.Write(hello); err != nil {
		t.Fatal(err)
	}
	if d := b.audit.wait(t, "decision", 2); d.Decision != "Allowed" {
		t.Fatalf("%+v", d)
	}
	listOf(t, b.list, rule("api.example.com", port))
	b.proxy.reload()
	if end := b.audit.wait(t, "end", 1); end.Cause != string(RuleWithdrawn) {
		t.Errorf("ended for %s", end.Cause)
	}
	echo(t, plain, "still there")
}

// TestWithdrawnWhilePending: a rule that goes between the CONNECT and the ClientHello, and a download in plain
// HTTP.
func TestWithdrawnWhilePending(t *testing.T) {
	sent := make(chan struct{})
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "first")
		_ = http.NewResponseController(w).Flush()
		close(sent)
		<-r.Context().Done()
	}))
	defer origin.Close()
	port := origin.Listener.Addr().(*net.TCPAddr).Port
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	authority := fmt.Sprintf("api.example.com:%d", port)
	half := b.tunnel(authority)
	response, err := b.httpClient("a", "of-a").Get("http://" + authority + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	<-sent
	listOf(t, b.list)
	b.proxy.reload()
	if _, err := io.ReadAll(response.Body); err == nil {
		t.Error("the download looks as if it was complete")
	}
	if answer, err := io.ReadAll(half); err == nil && len(answer) > 0 {
		t.Errorf("the tunnel answers %q", answer)
	}
	if end := b.audit.wait(t, "end", 1); end.Cause != string(RuleWithdrawn) || end.Method != "GET" {
		t.Errorf("end %+v", end)
	}
	if d := b.audit.wait(t, "decision", 2); d.Reason != string(Revoked) {
		t.Errorf("the tunnel without a ClientHello: %+v", d)
	}
}

// TestWithdrawnMeanwhile: the list changes between the decision and the moment that the flow is counted.
func TestWithdrawnMeanwhile(t *testing.T) {
	b := start(t, nil, rule("api.example.com", 443))
	b.names.set("api.example.com", "127.0.0.1")
	old := b.proxy.state.Load()
	listOf(t, b.list)
	b.proxy.reload()
	c := &client{Proxy: b.proxy}
	f := &flow{grants: old.policy.Grants("a", "of-a"), to: target{"api.example.com", 443}}
	if _, reason := c.connect(f); reason != Revoked {
		t.Errorf("%q", reason)
	}
	if asked := b.names.lookups(); len(asked) > 0 {
		t.Errorf("looked up %v", asked)
	}
}

// TestBadList: what was agreed last stays in force, and the proxy says that it is not what the file says.
func TestBadList(t *testing.T) {
	b, conn := openTunnel(t, nil)
	ready := func() int {
		recorder := httptest.NewRecorder()
		b.proxy.HealthHandler().ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return recorder.Code
	}
	if ready() != http.StatusOK {
		t.Fatal("not ready with a good list")
	}
	good, err := os.ReadFile(b.list)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(){
		"cut off":   func() { writeFile(t, b.list, good[:len(good)-1]) },
		"empty":     func() { writeFile(t, b.list, nil) },
		"gone":      func() { _ = os.Remove(b.list) },
		"too large": func() { writeFile(t, b.list, []byte(strings.Repeat(" ", access.MaxBytes+1))) },
	} {
		t.Run(name, func(t *testing.T) {
			spoil()
			b.proxy.reload()
			b.proxy.reload() // it stays bad
			if ready() != http.StatusServiceUnavailable {
				t.Error("ready")
			}
			if got := b.metric("access_list_current"); got != "0" {
				t.Errorf("the metric says %s", got)
			}
			echo(t, conn, "still there")
			b.greet(b.tunnel(fmt.Sprintf("api.example.com:%d", b.anyFlow().addrPort())), whole(serverNames("api.example.com"))).Close()
			writeFile(t, b.list, good)
			b.proxy.reload()
			if ready() != http.StatusOK || b.metric("access_list_current") != "1" {
				t.Error("not ready again with the good list")
			}
		})
	}
}

// TestNoList: without any list nobody gets anywhere, until there is one.
func TestNoList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.json")
	b := start(t, func(c *Config) { c.ListPath = path })
	if b.proxy.Ready() == nil {
		t.Error("ready without a list")
	}
	request := "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n"
	b.denied(b.ask(request), 1, NoAccessList)
	listOf(t, path)
	eventually(t, "the list is read", func() bool { return b.proxy.Ready() == nil })
	b.denied(b.ask(request), 2, HostNotListed)
}

// TestKubeletSwap replaces the list as the kubelet does: through a link to a folder.
func TestKubeletSwap(t *testing.T) {
	dir := t.TempDir()
	version := func(name string, rules ...access.Rule) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		listOf(t, filepath.Join(dir, name, "access.json"), rules...)
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..1")
	if err := os.Symlink("..data/access.json", filepath.Join(dir, "access.json")); err != nil {
		t.Fatal(err)
	}
	b := start(t, func(c *Config) { c.ListPath = filepath.Join(dir, "access.json") })
	old := b.proxy.state.Load()
	version("..2", rule("api.example.com", 443))
	eventually(t, "the list is read", func() bool { return b.proxy.state.Load() != old })
	if !b.proxy.state.Load().policy.Grants("a", "of-a").Judge("api.example.com", 443).Port {
		t.Error("another list is in force")
	}
}

// TestRebinding: a name whose answer changes is looked up once for a connection, and what was checked is what is
// dialled.
func TestRebinding(t *testing.T) {
	_, port := tlsHost(t)
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1", "169.254.169.254", "10.0.0.1", "127.0.0.1")
	authority := fmt.Sprintf("api.example.com:%d", port)
	b.greetTLS(authority)
	request := fmt.Sprintf("CONNECT %s HTTP/1.1\r\n%s\r\n", authority, auth("a", "of-a"))
	for i, addr := range []string{"169.254.169.254", "10.0.0.1"} {
		if d := b.denied(b.ask(request), i+2, AddressForbidden); d.Address != addr {
			t.Errorf("denied for %s, want %s", d.Address, addr)
		}
	}
	b.greetTLS(authority)
	if asked := b.names.lookups(); len(asked) != 4 {
		t.Errorf("4 connections made %d look-ups", len(asked))
	}
}

// TestLastGuard: an address that became forbidden between the check and the dial, and one that was never checked.
func TestLastGuard(t *testing.T) {
	host, port := tlsHost(t)
	b := start(t, nil, rule("api.example.com", port))
	at := netip.MustParseAddrPort(host.Listener.Addr().String())
	conn, err := b.proxy.dialOne(t.Context(), at)
	if err != nil {
		t.Fatalf("the control: %v", err)
	}
	conn.Close()
	b.proxy.exempt = nil
	if _, err := b.proxy.dialOne(t.Context(), at); err == nil || !strings.Contains(err.Error(), errForbidden.Error()) {
		t.Errorf("connected to a forbidden address: %v", err)
	}
}

// TestOwnAddress: the proxy's own addresses are forbidden, even where they are public.
func TestOwnAddress(t *testing.T) {
	own, err := ownAddresses()
	if err != nil {
		t.Fatal(err)
	}
	if !own[netip.MustParseAddr("127.0.0.1")] {
		t.Fatalf("loopback is not among %v", own)
	}
	public := netip.MustParseAddr("198.51.100.7")
	p := &Proxy{}
	st := &state{policy: mustPolicy(t), own: map[netip.Addr]bool{public: true}}
	if !p.forbids(st, public) || p.forbids(st, public.Next()) {
		t.Error("its own address is as good as any other")
	}
}

// TestFallback: of several addresses, those that do not answer are passed over.
func TestFallback(t *testing.T) {
	_, port := tlsHost(t)
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.9 127.0.0.8 ::1 127.0.0.1")
	b.greetTLS(fmt.Sprintf("api.example.com:%d", port))
	if d := b.audit.wait(t, "decision", 1); d.Address != "127.0.0.1" {
		t.Errorf("connected to %s", d.Address)
	}
	b.names.set("api.example.com", "127.0.0.9 127.0.0.8")
	b.denied(b.ask(fmt.Sprintf("CONNECT api.example.com:%d HTTP/1.1\r\n%s\r\n", port, auth("a", "of-a"))), 2, ConnectFailed)
}

// greetTLS opens a tunnel, shakes hands and closes.
func (b *testbed) greetTLS(authority string) {
	b.t.Helper()
	response, err := b.httpClient("a", "of-a").Get("https://" + authority + "/")
	if err != nil {
		b.t.Fatal(err)
	}
	response.Body.Close()
}
