package egressproxy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// maxFields bounds the header fields of a request.
const maxFields = 100

// head is the head of a request, up to the empty line.
type head struct {
	method string
	target string
	minor  byte // of HTTP/1.x: '0' or '1'
	fields []field
}

// field of a header; its name is lower-case.
type field struct{ name, value string }

// target is where a request wants to go.
type target struct {
	host string // in its normal form
	port uint16
}

// readHead reads up to the empty line that ends a head, and returns all that was read and how much
// of it is the head. It reads on in buf and lets it grow to max bytes.
func readHead(r io.Reader, buf []byte, limit int) (data []byte, end int, reason Reason) {
	for {
		if len(buf) == cap(buf) {
			if len(buf) >= limit {
				return buf, 0, HeadTooLarge
			}
			buf = grow(buf, limit)
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		from := len(buf)
		buf = buf[:from+n]
		if len(buf) > 0 && !tokenByte(buf[0]) {
			return buf, 0, BadRequest // such as TLS: do not wait for a line that never ends
		}
		for i := from; i < len(buf); i++ {
			if buf[i] != '\n' {
				continue
			}
			if i == 0 || buf[i-1] != '\r' {
				return buf, 0, BadRequest // a bare line feed: some see the end of a line there, others do not
			}
			if i >= 3 && buf[i-2] == '\n' {
				return buf, i + 1, ""
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return buf, 0, HeadTimeout
		default:
			return buf, 0, BadRequest
		}
	}
}

// firstBuffer is what a request and a ClientHello mostly fit in.
const firstBuffer = 4 << 10

// grow returns the same bytes in a buffer of twice the size, at most limit.
func grow(buf []byte, limit int) []byte {
	out := make([]byte, len(buf), min(max(2*cap(buf), firstBuffer), limit))
	copy(out, buf)
	return out
}

// parseHead is strict: what one parser may read otherwise than another is refused, so that nobody
// behind the proxy can see other requests than the proxy does. That covers folded lines, bare CR and LF,
// spaces before the colon, control characters, and every doubtful framing of the body.
func parseHead(data []byte) (*head, bool) {
	text, ok := bytes.CutSuffix(data, []byte("\r\n\r\n"))
	if !ok {
		return nil, false
	}
	lines := strings.Split(string(text), "\r\n")
	if len(lines) > maxFields+1 {
		return nil, false
	}
	h := &head{fields: make([]field, 0, len(lines)-1)}
	var version string
	if h.method, version, ok = strings.Cut(lines[0], " "); !ok || !token(h.method) {
		return nil, false
	}
	if h.target, version, ok = strings.Cut(version, " "); !ok || !visible(h.target) {
		return nil, false
	}
	if version != "HTTP/1.1" && version != "HTTP/1.0" {
		return nil, false
	}
	h.minor = version[len(version)-1]
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !token(name) {
			return nil, false
		}
		value = strings.Trim(value, " \t")
		for _, c := range []byte(value) {
			if c < ' ' && c != '\t' || c == 0x7f {
				return nil, false
			}
		}
		h.fields = append(h.fields, field{strings.ToLower(name), value})
	}
	return h, h.framed()
}

// framed holds where the body has one length that everybody agrees on, and Host is there once at most.
func (h *head) framed() bool {
	length, lengths := h.get("content-length")
	coding, codings := h.get("transfer-encoding")
	_, hosts := h.get("host")
	switch {
	case lengths > 1 || codings > 1 || hosts > 1 || lengths+codings > 1:
		return false
	case lengths == 1 && !decimal(length, 18):
		return false
	case codings == 1 && (h.minor == '0' || !strings.EqualFold(coding, "chunked")):
		return false
	case h.method == "CONNECT":
		return codings == 0 && (lengths == 0 || length == "0")
	}
	return true
}

// get returns the value of a field, and how often it is there.
func (h *head) get(name string) (value string, count int) {
	for _, f := range h.fields {
		if f.name == name {
			value, count = f.value, count+1
		}
	}
	return value, count
}

// credential is the user name and password of Proxy-Authorization.
func (h *head) credential() (server, password string, reason Reason) {
	const maxEncoded = 1024
	value, count := h.get("proxy-authorization")
	switch {
	case count == 0:
		return "", "", CredentialMissing
	case count > 1:
		return "", "", BadRequest
	}
	scheme, encoded, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "Basic") || len(encoded) > maxEncoded {
		return "", "", CredentialWrong
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(encoded, " "))
	if err != nil {
		return "", "", CredentialWrong
	}
	server, password, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return "", "", CredentialWrong
	}
	return server, password, ""
}

// destination is where the request wants to go, from the request line alone. Authority is that as it was sent, for the
// audit log: nothing else of the target, which may hold passwords and tokens.
func (h *head) destination() (to target, authority string, reason Reason) {
	const scheme = "http://"
	port := ""
	switch {
	case h.method == "CONNECT":
		authority = h.target
	case len(h.target) > len(scheme) && strings.EqualFold(h.target[:len(scheme)], scheme):
		authority, port = h.target[len(scheme):], "80"
		if i := strings.IndexAny(authority, "/?#"); i >= 0 {
			authority = authority[:i]
		}
	}
	if authority == "" && port == "" || strings.ContainsAny(authority, `/?#@\`) || strings.Contains(h.target, "#") {
		return target{}, "", TargetRefused
	}
	to, reason = parseAuthority(authority, port)
	return to, authority, reason
}

// hostHeaderFits holds where the Host header says what the URL says. HTTP/1.0 may leave it out.
func (h *head) hostHeaderFits(to target) bool {
	value, count := h.get("host")
	if count == 0 {
		return h.minor == '0'
	}
	said, reason := parseAuthority(value, "80")
	return reason == "" && said == to
}

// upgrades holds for a request that wants to go on in another protocol.
func (h *head) upgrades() bool {
	_, count := h.get("upgrade")
	return count > 0
}

// parseAuthority reads host:port; a port that is left out is the one given, if any.
func parseAuthority(authority, port string) (target, Reason) {
	host := authority
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		host, port = authority[:i], authority[i+1:]
	}
	normal, err := access.NormalizeHost(host)
	switch {
	case errors.Is(err, access.ErrAddress):
		return target{}, AddressLiteral
	case err != nil:
		return target{}, HostMalformed
	}
	const maxDigits = 5
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 || !decimal(port, maxDigits) || port[0] == '0' {
		return target{}, TargetRefused
	}
	return target{host: normal, port: uint16(number)}, ""
}

// authority is the target as a URL has it: without the port where it is that of http.
func (t target) authority() string {
	if t.port == 80 {
		return t.host
	}
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// decimal holds for 1 to limit digits.
func decimal(s string, limit int) bool {
	return s != "" && len(s) <= limit && strings.Trim(s, "0123456789") == ""
}

// token holds for what RFC 9110 calls one.
func token(s string) bool {
	for i := range len(s) {
		if !tokenByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func tokenByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// visible holds for printable ASCII without spaces.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}
