package egressproxy

import (
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// TestRefused goes through what never reaches a host, byte by byte, and holds that nothing of it is
// answered with more than the reason, or looked up.
func TestRefused(t *testing.T) {
	const host = "Host: api.example.com\r\n"
	mine := auth("a", "of-a")
	get := func(fields string) string { return "GET http://api.example.com/ HTTP/1.1\r\n" + mine + fields + "\r\n" }
	post := func(fields string) string {
		return "POST http://api.example.com/ HTTP/1.1\r\n" + host + mine + fields + "\r\n"
	}
	connect := func(authority string) string {
		return "CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n" + mine + "\r\n"
	}
	raw := func(value string) string {
		return "CONNECT api.example.com:443 HTTP/1.1\r\nProxy-Authorization: " + value + "\r\n\r\n"
	}
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	for _, test := range []struct {
		name, request string
		want          Reason
	}{
		// Who asks.
		{"no credential", "CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n", CredentialMissing},
		{"no credential, plain", "GET http://api.example.com/ HTTP/1.1\r\n" + host + "\r\n", CredentialMissing},
		{"the credential for the host, not the proxy", "GET http://api.example.com/ HTTP/1.1\r\n" + host + strings.TrimPrefix(mine, "Proxy-") + "\r\n", CredentialMissing},
		{"a wrong password", raw(basic("a:wrong")), CredentialWrong},
		{"no password", raw(basic("a:")), CredentialWrong},
		{"another server's password", raw(basic("a:of-b")), CredentialWrong},
		{"the digest as the password", raw(basic("a:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")), CredentialWrong},
		{"an unknown server", raw(basic("c:of-a")), CredentialWrong},
		{"a name in capitals", raw(basic("A:of-a")), CredentialWrong},
		{"no colon", raw(basic("a")), CredentialWrong},
		{"nothing", raw(""), CredentialWrong},
		{"only the scheme", raw("Basic"), CredentialWrong},
		{"another scheme", raw("Bearer of-a"), CredentialWrong},
		{"not base64", raw("Basic ***"), CredentialWrong},
		{"base64 with something behind it", raw(basic("a:of-a") + "="), CredentialWrong},
		{"base64 with a line break", raw("Basic YTpv\tZi1h"), CredentialWrong},
		{"a line break in the name", raw(basic("a\r\n:of-a")), CredentialWrong},
		{"a zero byte in the password", raw(basic("a:of-a\x00")), CredentialWrong},
		{"a long one", raw(basic("a:" + strings.Repeat("x", 2000))), CredentialWrong},
		{"two credentials, the right one first", "CONNECT api.example.com:443 HTTP/1.1\r\n" + mine + auth("b", "of-b") + "\r\n", BadRequest},
		{"two credentials, the right one last", "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth("b", "of-b") + mine + "\r\n", BadRequest},

		// Where to.
		{"a server without that rule", "CONNECT api.example.com:443 HTTP/1.1\r\n" + auth("b", "of-b") + "\r\n", HostNotListed},
		{"a host that is not listed", connect("evil.example.net:443"), HostNotListed},
		{"the parent", connect("example.com:443"), HostNotListed},
		{"a child", connect("x.api.example.com:443"), HostNotListed},
		{"a name that ends alike", connect("evilapi.example.com:443"), HostNotListed},
		{"a name that begins alike", connect("api.example.com.evil.net:443"), HostNotListed},
		{"the parent of a star", connect("wild.example.org:443"), HostNotListed},
		{"another port", connect("api.example.com:8443"), PortNotListed},
		{"another port, plain", "GET http://api.example.com:8080/ HTTP/1.1\r\nHost: api.example.com:8080\r\n" + mine + "\r\n", PortNotListed},
		{"no port", connect("api.example.com"), TargetRefused},
		{"an empty port", connect("api.example.com:"), TargetRefused},
		{"port 0", connect("api.example.com:0"), TargetRefused},
		{"a port with zeros before it", connect("api.example.com:0443"), TargetRefused},
		{"a port with a sign", connect("api.example.com:+443"), TargetRefused},
		{"a port that wraps around", connect("api.example.com:65979"), TargetRefused},
		{"a port by name", connect("api.example.com:https"), TargetRefused},
		{"two ports", connect("api.example.com:443:443"), AddressLiteral},
		{"CONNECT with a URL", connect("http://api.example.com:443/"), TargetRefused},
		{"CONNECT with a path", connect("api.example.com:443/x"), TargetRefused},
		{"CONNECT with a user", connect("user@api.example.com:443"), TargetRefused},
		{"CONNECT with the host as the user", connect("api.example.com:443@evil.example.net:443"), TargetRefused},
		{"CONNECT with a query", connect("api.example.com:443?x"), TargetRefused},
		{"CONNECT with a fragment", connect("evil.example.net:443#api.example.com:443"), TargetRefused},
		{"an underscore", connect("api_.example.com:443"), HostMalformed},
		{"a percent", connect("api%2eexample.com:443"), AddressLiteral},
		{"an encoded zero byte", connect("api.example.com%00.evil.net:443"), AddressLiteral},
		{"two dots at the end", connect("api.example.com..:443"), HostMalformed},
		{"one label", connect("localhost:443"), HostMalformed},
		{"the star itself", connect("*.example.org:443"), HostMalformed},
		{"a backslash", connect(`evil.example.net\api.example.com:443`), TargetRefused},
		{"IPv4", connect("203.0.113.1:443"), AddressLiteral},
		{"IPv4 with a dot at the end", connect("203.0.113.1.:443"), AddressLiteral},
		{"the metadata address", connect("169.254.169.254:443"), AddressLiteral},
		{"decimal", connect("2130706433:443"), AddressLiteral},
		{"hexadecimal", connect("0x7f000001:443"), AddressLiteral},
		{"hexadecimal by bytes", connect("0x7f.0x0.0x0.0x1:443"), AddressLiteral},
		{"octal", connect("0177.0.0.1:443"), AddressLiteral},
		{"octal as one number", connect("017700000001:443"), AddressLiteral},
		{"a short form", connect("127.1:443"), AddressLiteral},
		{"IPv6", connect("[2001:db8::1]:443"), AddressLiteral},
		{"IPv6 without brackets", connect("2001:db8::1:443"), AddressLiteral},
		{"IPv4-mapped", connect("[::ffff:127.0.0.1]:443"), AddressLiteral},
		{"with a zone", connect("[fe80::1%25eth0]:443"), AddressLiteral},
		{"plain: IPv4", "GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n" + mine + "\r\n", AddressLiteral},
		{"plain: IPv6", "GET http://[::1]/ HTTP/1.1\r\nHost: [::1]\r\n" + mine + "\r\n", AddressLiteral},
		{"plain: a path only", "GET / HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: no scheme", "GET //api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: a star", "OPTIONS * HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: an authority", "GET api.example.com:80 HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: https", "GET https://api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: ftp", "GET ftp://api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: file", "GET file:///etc/passwd HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: a user", "GET http://user:pass@api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: the host as the user", "GET http://api.example.com@evil.example.net/ HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: the host as the user behind a backslash", "GET http://evil.example.net\\@api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: a fragment", "GET http://api.example.com/#x HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: a fragment before the host", "GET http://evil.example.net#api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: no host", "GET http:///x HTTP/1.1\r\n" + host + mine + "\r\n", HostMalformed},
		{"plain: an empty port", "GET http://api.example.com:/ HTTP/1.1\r\n" + host + mine + "\r\n", TargetRefused},
		{"plain: not listed", "GET http://evil.example.net/ HTTP/1.1\r\nHost: evil.example.net\r\n" + mine + "\r\n", HostNotListed},

		// Host and hop-by-hop.
		{"no Host", get(""), HostHeaderMismatch},
		{"another Host", get("Host: evil.example.net\r\n"), HostHeaderMismatch},
		{"another port in Host", get("Host: api.example.com:8080\r\n"), HostHeaderMismatch},
		{"an empty Host", get("Host:\r\n"), HostHeaderMismatch},
		{"a list in Host", get("Host: api.example.com, evil.example.net\r\n"), HostHeaderMismatch},
		{"a user in Host", get("Host: x@api.example.com\r\n"), HostHeaderMismatch},
		{"an address in Host", get("Host: 203.0.113.1\r\n"), HostHeaderMismatch},
		{"Host twice", get(host + host), BadRequest},
		{"Host twice, another one last", get(host + "Host: evil.example.net\r\n"), BadRequest},
		{"Host twice with CONNECT", "CONNECT api.example.com:443 HTTP/1.1\r\n" + host + host + mine + "\r\n", BadRequest},
		{"Upgrade", get(host + "Connection: Upgrade\r\nUpgrade: websocket\r\n"), UpgradeRefused},
		{"Upgrade to h2c", get(host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), UpgradeRefused},
		{"Upgrade without Connection", get(host + "Upgrade: websocket\r\n"), UpgradeRefused},
		{"TRACE", "TRACE http://api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", MethodRefused},

		// Framing: where one request ends must not be a matter of opinion.
		{"Content-Length and Transfer-Encoding", post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"), BadRequest},
		{"Transfer-Encoding and Content-Length", post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), BadRequest},
		{"Content-Length twice, the same", post("Content-Length: 4\r\nContent-Length: 4\r\n"), BadRequest},
		{"Content-Length twice, another", post("Content-Length: 4\r\nContent-Length: 5\r\n"), BadRequest},
		{"a list of lengths", post("Content-Length: 4, 4\r\n"), BadRequest},
		{"a length with a sign", post("Content-Length: +4\r\n"), BadRequest},
		{"a negative length", post("Content-Length: -1\r\n"), BadRequest},
		{"a hexadecimal length", post("Content-Length: 0x4\r\n"), BadRequest},
		{"an empty length", post("Content-Length:\r\n"), BadRequest},
		{"a length with a space", post("Content-Length: 4 4\r\n"), BadRequest},
		{"a length beyond 64 bits", post("Content-Length: 99999999999999999999\r\n"), BadRequest},
		{"Transfer-Encoding twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), BadRequest},
		{"a list of codings", post("Transfer-Encoding: gzip, chunked\r\n"), BadRequest},
		{"chunked twice over", post("Transfer-Encoding: chunked, chunked\r\n"), BadRequest},
		{"an unknown coding", post("Transfer-Encoding: xchunked\r\n"), BadRequest},
		{"identity", post("Transfer-Encoding: identity\r\n"), BadRequest},
		{"an empty coding", post("Transfer-Encoding:\r\n"), BadRequest},
		{"a vertical tab before the coding", post("Transfer-Encoding: \x0bchunked\r\n"), BadRequest},
		{"a coding with a quoted tail", post("Transfer-Encoding: chunked;x=\"\r\n"), BadRequest},
		{"Transfer-Encoding in HTTP/1.0", "POST http://api.example.com/ HTTP/1.0\r\n" + host + mine + "Transfer-Encoding: chunked\r\n\r\n", BadRequest},
		{"a space before the colon", post("Transfer-Encoding : chunked\r\n"), BadRequest},
		{"a tab before the colon", post("Content-Length\t: 4\r\n"), BadRequest},
		{"a folded line", post("X-A: b\r\n c\r\n"), BadRequest},
		{"a folded coding", post("Transfer-Encoding:\r\n chunked\r\n"), BadRequest},
		{"a folded first line", "GET http://api.example.com/ HTTP/1.1\r\n " + host + mine + "\r\n", BadRequest},
		{"a bare line feed", "GET http://api.example.com/ HTTP/1.1\n" + host + mine + "\r\n", BadRequest},
		{"bare line feeds at the end", "GET http://api.example.com/ HTTP/1.1\r\n" + host + mine + "\n\n", BadRequest},
		{"a bare line feed within a field", post("X-A: b\nTransfer-Encoding: chunked\r\n"), BadRequest},
		{"a bare carriage return within a field", post("X-A: b\rTransfer-Encoding: chunked\r\n"), BadRequest},
		{"a carriage return twice", post("X-A: b\r\r\n"), BadRequest},
		{"a zero byte in a field", post("X-A: b\x00c\r\n"), BadRequest},
		{"a zero byte in a name", post("X\x00A: b\r\n"), BadRequest},
		{"a byte beyond ASCII in a name", post("X\xe9: b\r\n"), BadRequest},
		{"a line without a colon", post("X-A\r\n"), BadRequest},
		{"no name", post(": b\r\n"), BadRequest},
		{"an empty line first", "\r\nGET http://api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", BadRequest},
		{"no version", "GET http://api.example.com/\r\n" + host + mine + "\r\n", BadRequest},
		{"HTTP/0.9", "GET http://api.example.com/ HTTP/0.9\r\n" + host + mine + "\r\n", BadRequest},
		{"HTTP/1.2", "GET http://api.example.com/ HTTP/1.2\r\n" + host + mine + "\r\n", BadRequest},
		{"HTTP/1.10", "GET http://api.example.com/ HTTP/1.10\r\n" + host + mine + "\r\n", BadRequest},
		{"HTTP/2 in clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", BadRequest},
		{"a version in small letters", "GET http://api.example.com/ http/1.1\r\n" + host + mine + "\r\n", BadRequest},
		{"two spaces", "GET  http://api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", BadRequest},
		{"a tab for a space", "GET\thttp://api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", BadRequest},
		{"a space in the URL", "GET http://api.example.com/a b HTTP/1.1\r\n" + host + mine + "\r\n", BadRequest},
		{"a byte beyond ASCII in the URL", "GET http://api.example.com/\xe9 HTTP/1.1\r\n" + host + mine + "\r\n", BadRequest},
		{"a line break in the target", "CONNECT api.example.com:443\rX HTTP/1.1\r\n" + mine + "\r\n", BadRequest},
		{"no method", " http://api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", BadRequest},
		{"a method that is no token", "G(T http://api.example.com/ HTTP/1.1\r\n" + host + mine + "\r\n", BadRequest},
		{"CONNECT with a body", "CONNECT api.example.com:443 HTTP/1.1\r\n" + mine + "Content-Length: 4\r\n\r\nbody", BadRequest},
		{"CONNECT with a chunked body", "CONNECT api.example.com:443 HTTP/1.1\r\n" + mine + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BadRequest},
		{"connect in small letters", "connect api.example.com:443 HTTP/1.1\r\n" + mine + "\r\n", TargetRefused},
		{"TLS at once", "\x16\x03\x01\x00\x05hello", BadRequest},
		{"SSH", "SSH-2.0-OpenSSH_9.9\r\n\r\n", BadRequest},
		{"SOCKS5", "\x05\x01\x00", BadRequest},

		// Size.
		{"a long line", post("X-A: " + strings.Repeat("a", 20<<10) + "\r\n"), HeadTooLarge},
		{"a long URL", "GET http://api.example.com/" + strings.Repeat("a", 20<<10) + " HTTP/1.1\r\n" + host + mine + "\r\n", HeadTooLarge},
		{"a line without an end", strings.Repeat("A", 20<<10), HeadTooLarge},
		{"many fields", post(strings.Repeat("X-A: b\r\n", maxFields)), BadRequest},
		{"a long host", connect(strings.Repeat("a.", 500) + "example.com:443"), HostMalformed},

		// What the names lead to.
		{"a name that does not resolve", connect("nowhere.wild.example.org:443"), ResolveFailed},
		{"a private address", connect("private.wild.example.org:443"), AddressForbidden},
		{"a private address, plain", "GET http://private.wild.example.org/ HTTP/1.1\r\nHost: private.wild.example.org\r\n" + mine + "\r\n", AddressForbidden},
		{"the metadata address by name", connect("metadata.wild.example.org:443"), AddressForbidden},
		{"a mapped address", connect("mapped.wild.example.org:443"), AddressForbidden},
		{"unique local", connect("ula.wild.example.org:443"), AddressForbidden},
		{"NAT64", connect("nat64.wild.example.org:443"), AddressForbidden},
		{"6to4", connect("6to4.wild.example.org:443"), AddressForbidden},
		{"a range that the list denies", connect("denied.wild.example.org:443"), AddressForbidden},
		{"a public address and a private one", connect("both.wild.example.org:443"), AddressForbidden},
		{"unspecified", connect("zero.wild.example.org:443"), AddressForbidden},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := refuseAll(t)
			answer := b.ask(test.request)
			got := b.denied(answer, 1, test.want)
			_, body, _ := strings.Cut(answer, "\r\n\r\n")
			if want := string(test.want) + ": " + refusals[test.want].text + "\n"; body != want {
				t.Errorf("body %q, want %q", body, want)
			}
			if strings.Count(answer, "HTTP/1.1 ") != 1 {
				t.Errorf("more than one answer: %q", answer)
			}
			if len(b.audit.lines(t, "decision")) != 1 {
				t.Errorf("more than one decision:\n%s", b.audit)
			}
			for _, secret := range []string{"of-a", "of-b", "wrong"} {
				if strings.Contains(b.audit.String(), secret) || strings.Contains(answer, secret) {
					t.Errorf("%s is in the answer or the audit log", secret)
				}
			}
			if names := b.names.lookups(); len(names) > 0 && got.Reason != string(ResolveFailed) && got.Reason != string(AddressForbidden) {
				t.Errorf("looked up %v for a request that is refused", names)
			}
		})
	}
}

// refuseAll is a proxy with rules, whose names lead nowhere that it may go.
func refuseAll(t *testing.T) *testbed {
	t.Helper()
	b := start(t, nil, rule("api.example.com", 443, 80), rule("*.wild.example.org", 443, 80))
	data, err := access.Encode(access.List{Version: access.Version, Denied: []netip.Prefix{netip.MustParsePrefix("198.51.100.96/27")}, Servers: []access.Server{
		{Name: "a", CredentialSHA256: access.Digest("of-a"), Rules: []access.Rule{rule("api.example.com", 443, 80), rule("*.wild.example.org", 443, 80)}},
		{Name: "b", CredentialSHA256: access.Digest("of-b")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	b.proxy.use(newState(data))
	for name, addrs := range map[string]string{
		"private": "10.1.2.3", "metadata": "169.254.169.254", "mapped": "::ffff:10.1.2.3", "ula": "fd00::1",
		"nat64": "64:ff9b::a01:203", "6to4": "2002:a01:203::1", "both": "198.51.100.1 192.168.0.1", "zero": "0.0.0.0",
		"denied": "198.51.100.99",
	} {
		b.names.set(name+".wild.example.org", addrs)
	}
	return b
}
