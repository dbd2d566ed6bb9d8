package egressproxy

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestSlowHead(t *testing.T) {
	b := start(t, func(c *Config) { c.Limits.HeadTime = 20 * time.Millisecond })
	b.denied(b.ask("CONNECT api.example.com:443 HTTP/1.1\r\nX-Slow: "), 1, HeadTimeout)
	b.denied(b.ask(""), 2, HeadTimeout)
}

func TestSlowHello(t *testing.T) {
	_, port := tlsHost(t)
	b := start(t, func(c *Config) { c.Limits.HelloTime = 20 * time.Millisecond }, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	conn := b.tunnel(fmt.Sprintf("api.example.com:%d", port))
	if _, err := conn.Write(whole(serverNames("api.example.com"))[:10]); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err == nil && len(answer) > 0 {
		t.Errorf("answered %q", answer)
	}
	b.denied("", 1, HelloTimeout)
}

// TestSilentHost: a host that does not answer a ClientHello could still ask for another one, so nothing more is let
// through to it.
func TestSilentHost(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() // it accepts in the kernel only
	port := listener.Addr().(*net.TCPAddr).Port
	b := start(t, func(c *Config) { c.Limits.HelloTime = 50 * time.Millisecond }, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	conn := b.tunnel(fmt.Sprintf("api.example.com:%d", port))
	hello := whole(serverNames("api.example.com"))
	if _, err := conn.Write(append(hello, whole(serverNames("evil.example.net"))...)); err != nil {
		t.Fatal(err)
	}
	b.denied("", 2, HelloTimeout)
	if end := b.audit.wait(t, "end", 1); end.Cause != string(HelloRefused) || end.BytesUp != int64(len(hello)) {
		t.Errorf("%+v", end)
	}
}

// TestManyHalfOpen holds that a client which opens connections and says nothing keeps only itself out, and
// that what it holds is let go.
func TestManyHalfOpen(t *testing.T) {
	_, port := tlsHost(t)
	b := start(t, func(c *Config) { c.Limits.PendingPerClient, c.Limits.HeadTime = 200, time.Minute }, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	const many = 1000
	conns := make([]net.Conn, many)
	for i := range conns {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}}).Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "CONNECT api.example.com:443 HTTP/1.1\r\nX-Slow: ")
		conns[i] = conn
	}
	last := b.audit.wait(t, "decision", many-200)
	if last.Reason != string(TooManyConnections) || last.Client != "127.0.0.66" {
		t.Errorf("decided %+v", last)
	}
	response, err := b.httpClient("a", "of-a").Get(fmt.Sprintf("https://api.example.com:%d/", port))
	if err != nil {
		t.Fatalf("another client is kept out: %v", err)
	}
	response.Body.Close()
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "all are let go", func() bool { return b.proxy.pending.count() == 0 })
	if len(b.proxy.pending.perClient) != 0 {
		t.Error("clients that went are remembered")
	}
}

// TestManyTunnels holds that tunnels without a ClientHello count as well, that one server cannot use up the
// others' share, and that places come back.
func TestManyTunnels(t *testing.T) {
	_, port := tlsHost(t)
	b := start(t, func(c *Config) { c.Limits.TunnelsPerServer, c.Limits.Tunnels = 3, 4 }, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	both(t, b.list, port)
	b.proxy.reload()
	authority := fmt.Sprintf("api.example.com:%d", port)
	var open []net.Conn
	for range 3 {
		open = append(open, b.tunnel(authority))
	}
	request := func(server, password string) string {
		return fmt.Sprintf("CONNECT %s HTTP/1.1\r\n%s\r\n", authority, auth(server, password))
	}
	b.denied(b.ask(request("a", "of-a")), 1, TooManyTunnels)
	other := b.connect()
	_, _ = io.WriteString(other, request("b", "of-b"))
	if line := readLine(t, other); !strings.Contains(line, " 200 ") {
		t.Errorf("another server got %q", line)
	}
	b.denied(b.ask(request("b", "of-b")), 2, TooManyTunnels) // the limit over all
	for _, conn := range open {
		conn.Close()
	}
	eventually(t, "the places come back", func() bool { return b.proxy.flows.count() == 1 })
	b.tunnel(authority)
}

// TestSweep goes through the limits on what is open, at times of its own.
func TestSweep(t *testing.T) {
	limits := func(c *Config) {
		c.Limits.Idle, c.Limits.TunnelLifetime, c.Limits.TunnelBytes = 10*time.Minute, time.Hour, 10_000
	}
	for name, test := range map[string]struct {
		act  func(b *testbed, conn net.Conn)
		want Cause
	}{
		"idle": {want: IdleTooLong, act: func(b *testbed, _ net.Conn) {
			now := time.Now()
			b.proxy.sweep(now)
			b.proxy.sweep(now.Add(10 * time.Minute))
			b.isOpen()
			b.proxy.sweep(now.Add(10*time.Minute + time.Second))
		}},
		"not idle": {want: OpenTooLong, act: func(b *testbed, conn net.Conn) {
			now := time.Now()
			for i := range 12 {
				b.proxy.sweep(now.Add(time.Duration(i) * 5 * time.Minute))
				b.isOpen()
				echo(b.t, conn, "x")
			}
			b.proxy.sweep(now.Add(time.Hour + time.Second))
		}},
		"bytes": {want: TooManyBytes, act: func(b *testbed, conn net.Conn) {
			echo(b.t, conn, strings.Repeat("x", 4000))
			b.proxy.sweep(time.Now())
			b.isOpen()
			echo(b.t, conn, strings.Repeat("x", 1001))
			b.proxy.sweep(time.Now())
		}},
		"one end went away": {want: IdleTooLong, act: func(b *testbed, conn net.Conn) {
			echo(b.t, conn, "stay")
			now := time.Now()
			b.proxy.sweep(now)
			_ = conn.(*net.TCPConn).CloseWrite()
			eventually(b.t, "the end is seen", func() bool { return b.anyFlow().half.Load() })
			b.proxy.sweep(now.Add(halfIdle))
			b.isOpen()
			b.proxy.sweep(now.Add(halfIdle + time.Second))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			b, conn := openTunnel(t, limits)
			test.act(b, conn)
			if end := b.audit.wait(t, "end", 1); end.Cause != string(test.want) {
				t.Errorf("ended for %s, want %s", end.Cause, test.want)
			}
			if _, err := io.ReadAll(conn); err != nil && !isReset(err) {
				t.Errorf("the client's connection stays open: %v", err)
			}
			if got := b.metric(`ends_total{cause="` + string(test.want) + `"}`); got != "1" {
				t.Errorf("counted %s ends", got)
			}
		})
	}
}

// TestBytesAreCounted once each, whether a sweep or the end comes first.
func TestBytesAreCounted(t *testing.T) {
	b, conn := openTunnel(t, nil)
	echo(t, conn, "12345")
	b.proxy.sweep(time.Now())
	echo(t, conn, "1234567")
	conn.Close()
	end := b.audit.wait(t, "end", 1)
	if want := int64(len(whole(serverNames("api.example.com"))) + 12); end.BytesUp != want || end.BytesDown != 13 {
		t.Errorf("the end tells %d up and %d down, want %d and 13", end.BytesUp, end.BytesDown, want)
	}
	eventually(t, "the metric says the same", func() bool {
		return b.metric(`bytes_total{direction="up"}`) == strconv.FormatInt(end.BytesUp, 10) && b.metric(`bytes_total{direction="down"}`) == "13"
	})
}

// openTunnel opens one to a host that echoes what comes after the ClientHello, after one x, and closes when the
// client does, unless it was told to stay.
func openTunnel(t *testing.T, change func(*Config)) (*testbed, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hello := whole(serverNames("api.example.com"))
	serving := make(chan struct{})
	go func() {
		defer close(serving)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			go func() {
				_, _ = io.ReadFull(conn, make([]byte, len(hello)))
				_, _ = io.WriteString(conn, "x")
				var said strings.Builder
				_, _ = io.Copy(conn, io.TeeReader(conn, &said))
				if said.String() != "stay" {
					conn.Close()
				}
			}()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-serving
	})
	port := listener.Addr().(*net.TCPAddr).Port
	b := start(t, change, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	return b, b.greet(b.tunnel(fmt.Sprintf("api.example.com:%d", port)), hello)
}

// greet sends a ClientHello and takes the host's x.
func (b *testbed) greet(conn net.Conn, hello []byte) net.Conn {
	b.t.Helper()
	if _, err := conn.Write(hello); err != nil {
		b.t.Fatal(err)
	}
	one := make([]byte, 1)
	if _, err := io.ReadFull(conn, one); err != nil || one[0] != 'x' {
		b.t.Fatalf("the tunnel does not open: %q, %v", one, err)
	}
	return conn
}

// echo sends a text and takes it back.
func echo(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("sent %q, got %q, %v", text, got, err)
	}
}

// isOpen fails where a flow has ended.
func (b *testbed) isOpen() {
	b.t.Helper()
	if f := b.anyFlow(); f == nil || f.ended() != "" {
		b.t.Fatal("ended too early")
	}
}

func (b *testbed) anyFlow() *flow {
	b.proxy.flows.mu.Lock()
	defer b.proxy.flows.mu.Unlock()
	for f := range b.proxy.flows.all {
		return f
	}
	return nil
}

// eventually waits for what other goroutines bring about.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	timeout, tick := time.After(patience), time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("it does not come about that %s", what)
		}
	}
}
