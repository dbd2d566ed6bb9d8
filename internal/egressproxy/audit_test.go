package egressproxy

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
)

// TestForgery: whatever a client sends, one decision is one line, and its fields are what the proxy says.
func TestForgery(t *testing.T) {
	const forged = `x","decision":"Allowed","reason":"Listed`
	for name, request := range map[string]string{
		"a host":            "CONNECT " + forged + ":443 HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a host in a URL":   "GET http://" + forged + "/ HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a name":            "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth("a\"\n{\"msg\":\"decision\",\"decision\":\"Allowed\"}\n", "of-a") + "\r\n",
		"terminal controls": "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth("\x1b[2J\x1b]0;x\x07\x7f\u009b31m\u2028\u202e", "x") + "\r\n",
		"not UTF-8":         "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth("\xff\xfe\xc3", "x") + "\r\n",
		"a long name":       "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth(strings.Repeat("a", 700), "x") + "\r\n",
		"a long method":     strings.Repeat("A", 10_000) + " http://api.example.com/ HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a long host":       "CONNECT " + strings.Repeat("a", 10_000) + ":443 HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nil, rule("api.example.com", 443))
			b.ask(request)
			b.audit.wait(t, "decision", 1)
			lines := b.audit.lines(t, "decision")
			if len(lines) != 1 || lines[0].Decision != "Denied" || lines[0].Reason == string(Listed) {
				t.Errorf("%+v", lines)
			}
			for text := range strings.Lines(b.audit.String()) {
				if strings.ContainsFunc(strings.TrimSuffix(text, "\n"), func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("a line holds control characters: %q", text)
				}
				if len(text) > 2000 {
					t.Errorf("a line of %d bytes", len(text))
				}
			}
		})
	}
}

// TestNoSecrets: what clients put where it does not belong is not written down.
func TestNoSecrets(t *testing.T) {
	const secret = "s3cr3t"
	for name, request := range map[string]string{
		"a password in a URL":               "GET http://user:" + secret + "@api.example.com/ HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a token as a user":                 "GET http://" + secret + "@api.example.com/ HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a password in a CONNECT":           "CONNECT user:" + secret + "@api.example.com:443 HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a token in a path without a host":  "GET /?token=" + secret + " HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a token in the path of a CONNECT":  "CONNECT api.example.com:443/" + secret + " HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a token in a query":                "GET http://api.example.org/?token=" + secret + " HTTP/1.1\r\nHost: api.example.org\r\n" + auth("a", "of-a") + "\r\n",
		"a token in a query without a path": "GET http://api_example.org?token=" + secret + " HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a token in a fragment":             "GET http://api.example.com#" + secret + " HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"a token with another scheme":       "GET https://" + secret + "@api.example.com/ HTTP/1.1\r\n" + auth("a", "of-a") + "\r\n",
		"the credential as the name":        "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth(secret, "") + "\r\n",
		"a wrong password":                  "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth("a", secret) + "\r\n",
		"a header":                          "GET http://api.example.org/ HTTP/1.1\r\nHost: api.example.org\r\nAuthorization: Bearer " + secret + "\r\n" + auth("a", "of-a") + "\r\n",
		"a malformed header":                "GET http://api.example.com/ HTTP/1.1\r\nCookie " + secret + "\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nil, rule("api.example.com", 443, 80))
			answer := b.ask(request)
			if d := b.audit.wait(t, "decision", 1); d.Decision != "Denied" {
				t.Fatalf("%+v", d)
			}
			if text := b.audit.String() + answer; strings.Contains(text, secret) {
				t.Errorf("written down: %s", text)
			}
		})
	}
}

// TestServerName that is refused is told, bounded and quoted.
func TestForgedServerName(t *testing.T) {
	b, _ := openTunnel(t, nil)
	conn := b.tunnel(fmt.Sprintf("api.example.com:%d", b.anyFlow().addrPort()))
	if _, err := conn.Write(whole(serverNames("x\n{\"msg\":\"decision\",\"decision\":\"Allowed\"}" + strings.Repeat("a", 5000)))); err != nil {
		t.Fatal(err)
	}
	d := b.audit.wait(t, "decision", 2)
	if d.Reason != string(ServerNameMismatch) || len(b.audit.lines(t, "decision")) != 2 || len(d.Detail) > maxDetail+2 {
		t.Errorf("%+v", d)
	}
}

// TestOneServerCannotPassForAnother: the credentials of two servers open what is their own, through the same
// connection address, and one after the other.
func TestOneServerCannotPassForAnother(t *testing.T) {
	_, port := tlsHost(t)
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	for i, test := range []struct {
		server, password string
		want             Reason
	}{
		{"a", "of-a", Listed}, {"b", "of-b", HostNotListed}, {"a", "of-b", CredentialWrong}, {"b", "of-a", CredentialWrong}, {"a", "of-a", Listed},
	} {
		response, err := b.httpClient(test.server, test.password).Get(fmt.Sprintf("https://api.example.com:%d/", port))
		if err == nil {
			response.Body.Close()
		}
		d := b.audit.wait(t, "decision", i+1)
		if d.Reason != string(test.want) || (err == nil) != (test.want == Listed) {
			t.Errorf("%s with %s: %+v, %v", test.server, test.password, d, err)
		}
		if test.want == CredentialWrong && (d.Server != "" || d.ClaimedServer != test.server) {
			t.Errorf("a wrong credential counts as the server's: %+v", d)
		}
	}
}

// TestNotOnASecondRequest: what comes behind a refusal on the same connection is not read, with the right
// credential or not.
func TestNotOnASecondRequest(t *testing.T) {
	b := start(t, nil, rule("api.example.com", 80))
	b.names.set("api.example.com", "127.0.0.1")
	good := "GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n" + auth("a", "of-a") + "\r\n"
	answer := b.ask("GET http://evil.example.net/ HTTP/1.1\r\nHost: evil.example.net\r\n" + auth("a", "of-a") + "\r\n" + good)
	b.denied(answer, 1, HostNotListed)
	if strings.Count(answer, "HTTP/1.1") != 1 || len(b.audit.lines(t, "decision")) != 1 || len(b.names.lookups()) != 0 {
		t.Errorf("a second request was read: %q\n%s", answer, b.audit)
	}
}

// TestEarly: a ClientHello that comes together with the CONNECT is held to the same, and so is another request in its
// place.
func TestEarly(t *testing.T) {
	b, _ := openTunnel(t, nil)
	authority := fmt.Sprintf("api.example.com:%d", b.anyFlow().addrPort())
	head := fmt.Sprintf("CONNECT %s HTTP/1.1\r\n%s\r\n", authority, auth("a", "of-a"))
	conn := b.connect()
	_, _ = io.WriteString(conn, head+string(whole(serverNames("api.example.com"))))
	const answer = "HTTP/1.1 200 Connection established\r\n\r\nx"
	got := make([]byte, len(answer))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != answer {
		t.Errorf("%q, %v", got, err)
	}
	for i, test := range []struct {
		early string
		want  Reason
	}{
		{head, NotTLS},
		{string(whole(serverNames("evil.example.net"))), ServerNameMismatch},
		{"\r\n" + string(whole(serverNames("api.example.com"))), NotTLS},
	} {
		conn := b.connect()
		_, _ = io.WriteString(conn, head+test.early)
		if d := b.audit.wait(t, "decision", i+3); d.Reason != string(test.want) {
			t.Errorf("%q: %s, want %s", test.early, d.Reason, test.want)
		}
		conn.Close()
	}
}

// TestWholeAndInOrder: what goes through a tunnel comes out as it went in, both ways at once, and half-closed
// connections stay half-closed.
func TestWholeAndInOrder(t *testing.T) {
	b, conn := openTunnel(t, nil)
	const size = 8 << 20
	sent := make(chan error, 1)
	go func() {
		chunk := make([]byte, 100_003)
		for at := 0; at < size; at += len(chunk) {
			for i := range chunk {
				chunk[i] = byte((at + i) * 31 >> 3)
			}
			if _, err := conn.Write(chunk[:min(len(chunk), size-at)]); err != nil {
				sent <- err
				return
			}
		}
		sent <- conn.(*net.TCPConn).CloseWrite()
	}()
	data, err := io.ReadAll(conn)
	if err != nil || len(data) != size {
		t.Fatalf("%d bytes came back, %v", len(data), err)
	}
	for i, got := range data {
		if got != byte(i*31>>3) {
			t.Fatalf("byte %d is another one", i)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	end := b.audit.wait(t, "end", 1)
	if end.Cause != string(Finished) || end.BytesDown != size+1 || end.BytesUp != size+int64(len(whole(serverNames("api.example.com")))) {
		t.Errorf("%+v", end)
	}
}

// TestDrain: what is open when the proxy is told to stop may go on until it ends or the time is over; what is new is
// not taken.
func TestDrain(t *testing.T) {
	for name, test := range map[string]struct {
		drain time.Duration
		want  Cause
	}{
		"ends by itself": {patience, Finished},
		"takes too long": {30 * time.Millisecond, ProxyStopped},
	} {
		t.Run(name, func(t *testing.T) {
			other, old := openTunnel(t, nil)
			port := other.anyFlow().addrPort()
			old.Close()
			b := serve(t, test.drain, nil, rule("api.example.com", port))
			b.names.set("api.example.com", "127.0.0.1")
			conn := b.greet(b.tunnel(fmt.Sprintf("api.example.com:%d", port)), whole(serverNames("api.example.com")))
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.stop()
			}()
			eventually(t, "it is not ready", func() bool { return b.proxy.Ready() != nil })
			eventually(t, "nothing new is taken", func() bool {
				late, err := net.Dial("tcp", b.addr)
				if err == nil {
					late.Close()
				}
				return err != nil
			})
			if test.want == Finished {
				echo(t, conn, "still there")
				conn.Close()
			}
			select {
			case <-done:
			case <-time.After(patience):
				t.Fatal("it does not stop")
			}
			if end := b.audit.wait(t, "end", 1); end.Cause != string(test.want) {
				t.Errorf("ended for %s, want %s", end.Cause, test.want)
			}
		})
	}
}

func TestInterleave(t *testing.T) {
	at := func(text string) (out []netip.AddrPort) {
		for _, addr := range strings.Fields(text) {
			out = append(out, netip.AddrPortFrom(netip.MustParseAddr(addr), 443))
		}
		return out
	}
	six, four := at("2001:db8::1 2001:db8::2 2001:db8::3"), at("192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7")
	got := interleave(six, four)
	want := at("2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2 2001:db8::3 192.0.2.3 192.0.2.4 192.0.2.5")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
