package egressproxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// clientHello is what crypto/tls sends for a configuration.
func clientHello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		_ = tls.Client(theirs, config).Handshake() // it fails: nobody answers
		theirs.Close()
	}()
	header := make([]byte, recordHeader)
	if _, err := io.ReadFull(ours, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(header[3])<<8|int(header[4]))
	if _, err := io.ReadFull(ours, body); err != nil {
		t.Fatal(err)
	}
	return append(header, body...)
}

func helloFor(t testing.TB, name string) []byte {
	return clientHello(t, &tls.Config{ServerName: name, InsecureSkipVerify: true})
}

// extension of a ClientHello.
type extension struct {
	kind uint16
	data []byte
}

func serverNames(names ...string) extension {
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, name := range names {
			b.AddUint8(nameTypeHost)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(name)) })
		}
	})
	return extension{extensionServerName, b.BytesOrPanic()}
}

// message is a ClientHello with these extensions, without its records.
func message(extensions ...extension) []byte {
	var b cryptobyte.Builder
	b.AddUint8(typeClientHello)
	b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
		b.AddUint16(0x0303)
		b.AddBytes(make([]byte, 32))
		b.AddUint8(0) // no session
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint16(0x1301) })
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint8(0) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			for _, e := range extensions {
				b.AddUint16(e.kind)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(e.data) })
			}
		})
	})
	return b.BytesOrPanic()
}

// records cuts a message into records of at most size bytes.
func records(message []byte, size int) []byte {
	var out []byte
	for len(message) > 0 {
		n := min(size, len(message))
		out = append(out, recordHandshake, 3, 1, byte(n>>8), byte(n))
		out, message = append(out, message[:n]...), message[n:]
	}
	return out
}

func whole(extensions ...extension) []byte { return records(message(extensions...), maxRecord) }

func TestHello(t *testing.T) {
	const name = "api.example.com"
	good := message(serverNames(name))
	trailing := append(bytes.Clone(good), 0)
	renamed := append(bytes.Clone(good[handshakeHeader:]), 0)
	for _, test := range []struct {
		name   string
		stream []byte
		want   Reason
	}{
		{"crypto/tls", helloFor(t, name), ""},
		{"by hand", whole(serverNames(name)), ""},
		{"in capitals", whole(serverNames("API.Example.COM")), ""},
		{"with a dot at the end", whole(serverNames(name + ".")), ""},
		{"in records of 1 byte", records(good, 1), ""},
		{"in records of 7 bytes", records(good, 7), ""},
		{"records of other things behind it", append(whole(serverNames(name)), 20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 2, 0, 0), ""},
		{"unknown extensions", whole(extension{0x1a1a, []byte{0}}, serverNames(name), extension{0xfe0e, nil}), ""},

		{"another name", helloFor(t, "evil.example.net"), ServerNameMismatch},
		{"a child", whole(serverNames("x." + name)), ServerNameMismatch},
		{"the parent", whole(serverNames("example.com")), ServerNameMismatch},
		{"a zero byte behind the name", whole(serverNames(name + "\x00.evil.net")), ServerNameMismatch},
		{"two dots at the end", whole(serverNames(name + "..")), ServerNameMismatch},
		{"beyond ASCII, but the same when it is mapped", whole(serverNames("api。example.com")), ServerNameMismatch},
		{"an address", whole(serverNames("203.0.113.1")), ServerNameMismatch},
		{"a line break in the name", whole(serverNames(name + "\r\n")), ServerNameMismatch},
		{"no name", clientHello(t, &tls.Config{InsecureSkipVerify: true}), ServerNameMissing},
		{"no extensions", whole(), ServerNameMissing},
		{"an empty name", whole(serverNames("")), HelloMalformed},
		{"an empty list of names", whole(serverNames()), HelloMalformed},
		{"an empty extension", whole(extension{extensionServerName, nil}), HelloMalformed},
		{"two names", whole(serverNames(name, "evil.example.net")), HelloMalformed},
		{"two names, the right one last", whole(serverNames("evil.example.net", name)), HelloMalformed},
		{"two extensions", whole(serverNames(name), serverNames("evil.example.net")), HelloMalformed},
		{"two extensions, the right one last", whole(serverNames("evil.example.net"), serverNames(name)), HelloMalformed},
		{"two equal extensions", whole(serverNames(name), serverNames(name)), HelloMalformed},
		{"a name of another type", whole(extension{extensionServerName, []byte{0, 4, 1, 0, 1, 'x'}}), HelloMalformed},
		{"ECH", whole(serverNames(name), extension{0xfe0d, []byte{0, 1, 2}}), EncryptedHello},
		{"ECH before the name", whole(extension{0xfe0d, []byte{0}}, serverNames(name)), EncryptedHello},
		{"an empty ECH", whole(serverNames(name), extension{0xfe0d, nil}), EncryptedHello},
		{"ECH in 1-byte records", records(message(serverNames(name), extension{0xfe0d, []byte{0}}), 1), EncryptedHello},
		{"ESNI, the draft", whole(serverNames(name), extension{0xffce, []byte{0}}), EncryptedHello},
		{"ECH with another name", whole(serverNames("evil.example.net"), extension{0xfe0d, []byte{0}}), ServerNameMismatch},

		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), NotTLS},
		{"SSH", []byte("SSH-2.0-x\r\n"), NotTLS},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1, 0, 0x15}, NotTLS},
		{"an alert first", []byte{21, 3, 1, 0, 2, 1, 0}, NotTLS},
		{"application data first", []byte{23, 3, 3, 0, 1, 0}, NotTLS},
		{"another major version", append([]byte{22, 4}, good...), NotTLS},
		{"a version to come", []byte{22, 3, 5, 0, 1, 1}, NotTLS},
		{"an empty record", append([]byte{22, 3, 1, 0, 0}, whole(serverNames(name))...), NotTLS},
		{"a record that is too long", []byte{22, 3, 1, 0x40, 1, 1}, NotTLS},
		{"a ServerHello", records(append([]byte{2}, good[1:]...), maxRecord), HelloMalformed},
		{"an alert within", append(records(good[:20], maxRecord), 21, 3, 1, 0, 2, 1, 0), HelloMalformed},
		{"an empty record within", append(records(good[:20], maxRecord), 22, 3, 1, 0, 0), HelloMalformed},
		{"a second message behind it", records(append(bytes.Clone(good), good...), maxRecord), HelloMalformed},
		{"a byte behind it in the record", records(trailing, maxRecord), HelloMalformed},
		{"a byte too many in the message", records(append([]byte{1, 0, byte(len(renamed) >> 8), byte(len(renamed))}, renamed...), maxRecord), HelloMalformed},
		{"too many extensions", whole(many(maxExtensions + 1)...), HelloMalformed},
		{"longer than is read", records(message(serverNames(name), extension{21, make([]byte, 17<<10)}), maxRecord), HelloTooLarge},
		{"a length of 16 MiB", records(append([]byte{1, 0xff, 0xff, 0xff}, make([]byte, 17<<10)...), maxRecord), HelloTooLarge},
	} {
		for _, step := range []int{len(test.stream), 1} {
			t.Run(fmt.Sprintf("%s/%d at a time", test.name, step), func(t *testing.T) {
				c := &client{}
				h, read, _, reason := readHello(&slowly{data: test.stream, step: step}, nil, DefaultLimits().HelloBytes, false)
				if reason == "" {
					c.Proxy = &Proxy{}
					c.state.Store(&state{policy: mustPolicy(t, rule(name, 443))})
					reason = c.judgeHello(&flow{grants: mustPolicy(t, rule(name, 443)).Grants("a", "of-a"), to: target{name, 443}}, h)
				}
				if reason != test.want {
					t.Errorf("%q, want %q", reason, test.want)
				}
				if !bytes.HasPrefix(test.stream, read) {
					t.Error("what was read is not what was sent")
				}
			})
		}
	}
}

func many(count int) []extension {
	out := make([]extension, count)
	for i := range out {
		out[i].kind = uint16(0x2000 + i)
	}
	return out
}

// slowly gives data in steps.
type slowly struct {
	data []byte
	step int
}

func (s *slowly) Read(b []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.data[:min(s.step, len(s.data))])
	s.data = s.data[n:]
	return n, nil
}

// TestNothingBeforeHello holds that a host sees not one byte of a tunnel whose ClientHello does not pass, and
// gets the one that does as it was sent, however it was cut.
func TestNothingBeforeHello(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	got := make(chan []byte)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			first := make([]byte, 1)
			n, _ := conn.Read(first)
			_, _ = conn.Write([]byte("x")) // as no TLS server does, but it is none that asks again
			data, _ := io.ReadAll(conn)    // until the proxy closes
			data = append(first[:n], data...)
			conn.Close()
			got <- data
		}
	}()
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	authority := fmt.Sprintf("api.example.com:%d", port)

	good := records(message(serverNames("api.example.com")), 9)
	for i, test := range []struct {
		sent []byte
		want Reason
	}{
		{good, Listed},
		{whole(serverNames("evil.example.net")), ServerNameMismatch},
		{whole(), ServerNameMissing},
		{whole(serverNames("api.example.com"), extension{0xfe0d, nil}), EncryptedHello},
		{good[:len(good)-1], HelloMalformed},
		{[]byte("GET / HTTP/1.1\r\n\r\n"), NotTLS},
		{nil, HelloMissing},
	} {
		conn := b.tunnel(authority).(*net.TCPConn)
		for _, c := range test.sent {
			if _, err := conn.Write([]byte{c}); err != nil {
				break // refused before the end
			}
		}
		_ = conn.CloseWrite()
		if d := b.audit.wait(t, "decision", i+1); d.Reason != string(test.want) {
			t.Errorf("%q: decided %s, want %s", test.sent, d.Reason, test.want)
		}
		select {
		case data := <-got:
			if want := map[bool][]byte{true: test.sent}[test.want == Listed]; !bytes.Equal(data, want) {
				t.Errorf("%s: the host saw %q, want %q", test.want, data, want)
			}
		case <-time.After(patience):
			t.Fatalf("%s: the connection to the host stays open", test.want)
		}
		answer, _ := io.ReadAll(conn)
		switch test.want {
		case ServerNameMismatch, ServerNameMissing, EncryptedHello:
			if !bytes.Equal(answer, alertAccessDenied) {
				t.Errorf("%s: answered %q, want an alert", test.want, answer)
			}
		case Listed:
			if string(answer) != "x" {
				t.Errorf("the answer of the host came as %q", answer)
			}
		default:
			if len(answer) > 0 {
				t.Errorf("%s: answered %q", test.want, answer)
			}
		}
	}
}

// FuzzHello: the parser agrees with itself however the stream is cut, never takes more than it was given, and
// what it accepts has one name that is in the stream.
func FuzzHello(f *testing.F) {
	good := message(serverNames("api.example.com"))
	for _, seed := range [][]byte{
		helloFor(f, "api.example.com"), clientHello(f, &tls.Config{InsecureSkipVerify: true}), records(good, 1), records(good, 50),
		whole(serverNames("a", "b")), whole(serverNames("a"), extension{0xfe0d, []byte{1}}), []byte("GET / HTTP/1.1\r\n"), {22, 3, 1, 0, 0},
		records(append(bytes.Clone(good), good...), maxRecord),
	} {
		f.Add(seed, uint8(3), false)
		f.Add(append([]byte{20, 3, 3, 0, 1, 1}, seed...), uint8(0), true)
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint8, again bool) {
		limit := DefaultLimits().HelloBytes
		at := func(step int) (hello, int, Reason) {
			h, read, end, reason := readHello(&slowly{data: stream, step: step}, nil, limit, again)
			if len(read) > limit || end > len(read) || !bytes.HasPrefix(stream, read) {
				t.Fatalf("read %d bytes of %d", len(read), len(stream))
			}
			return h, end, reason
		}
		h, end, reason := at(limit)
		cut, cutEnd, same := at(int(step) + 1)
		if h != cut || reason != same || end != cutEnd && reason == "" {
			t.Fatalf("cut another way it is %v %d %q instead of %v %d %q", cut, cutEnd, same, h, end, reason)
		}
		if reason != "" {
			return
		}
		var joined []byte
		for rest := stream[:end]; len(rest) >= recordHeader; {
			size := int(rest[3])<<8 | int(rest[4])
			end := min(recordHeader+size, len(rest))
			if rest[0] == recordHandshake {
				joined = append(joined, rest[recordHeader:end]...)
			}
			rest = rest[end:]
		}
		if !bytes.Contains(joined, []byte(h.serverName)) {
			t.Fatalf("the name %q is not in the stream", h.serverName)
		}
		if sameName(h.serverName, "api.example.com") != strings.EqualFold(strings.TrimSuffix(h.serverName, "."), "api.example.com") {
			t.Fatalf("%q", h.serverName)
		}
	})
}

// TestAskedAgain holds that a host which asks for another ClientHello gets it, and that the other one may not
// name another host.
func TestAskedAgain(t *testing.T) {
	certificate := testCertificate(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{certificate}, CurvePreferences: []tls.CurveID{tls.CurveP384}, MinVersion: tls.VersionTLS13,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	port := listener.Addr().(*net.TCPAddr).Port
	b := start(t, nil, rule("api.example.com", port))
	b.names.set("api.example.com", "127.0.0.1")
	authority := fmt.Sprintf("api.example.com:%d", port)

	conn := tls.Client(b.tunnel(authority), &tls.Config{
		ServerName: "api.example.com", InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP384},
	})
	if err := conn.Handshake(); err != nil {
		t.Fatalf("a client that is asked again: %v", err)
	}
	if !conn.ConnectionState().HelloRetryRequest {
		t.Fatal("the host did not ask again: the test shows nothing")
	}
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	pong := make([]byte, 4)
	if _, err := io.ReadFull(conn, pong); err != nil || string(pong) != "ping" {
		t.Fatalf("got %q, %v", pong, err)
	}
	conn.Close()
	if end := b.audit.wait(t, "end", 1); end.Cause == string(HelloRefused) || end.BytesUp == 0 || end.BytesDown == 0 {
		t.Errorf("end %+v", end)
	}

	for i, test := range []struct {
		second []byte
		want   Reason
	}{
		{whole(serverNames("evil.example.net")), ServerNameMismatch},
		{append([]byte{recordChangeCipher, 3, 3, 0, 1, 1}, whole(serverNames("evil.example.net"))...), ServerNameMismatch},
		{append([]byte{recordData, 3, 3, 0, 2, 0, 0}, whole()...), ServerNameMissing},
		{whole(serverNames("api.example.com"), extension{0xfe0d, nil}), EncryptedHello},
		{[]byte("GET / HTTP/1.1\r\n\r\n"), NotTLS},
	} {
		raw := b.tunnel(authority).(*net.TCPConn)
		// Groups that the host does not have, and a share for one of them.
		offer := []extension{serverNames("api.example.com"), {43, []byte{2, 3, 4}}, {13, []byte{0, 4, 8, 4, 4, 3}},
			{10, []byte{0, 4, 0, 29, 0, 24}}, {51, append([]byte{0, 36, 0, 29, 0, 32}, bytes.Repeat([]byte{9}, 32)...)}}
		if _, err := raw.Write(append(whole(offer...), test.second...)); err != nil {
			t.Fatal(err)
		}
		if d := b.audit.wait(t, "decision", 2*i+3); d.Reason != string(test.want) {
			t.Errorf("%d: decided %s, want %s", i, d.Reason, test.want)
		}
		raw.Close()
		if end := b.audit.wait(t, "end", i+2); end.Cause != string(HelloRefused) || end.BytesUp != int64(len(whole(offer...))) {
			t.Errorf("%d: %+v: more went up than the first hello of %d bytes", i, end, len(whole(offer...)))
		}
	}
}
