package egressproxy

import (
	"bufio"
	"bytes"
	"net/http"
	"slices"
	"strconv"
	"testing"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// FuzzHead: a head that is accepted is read by net/http, which forwards it, as the same request or not at all: the
// same method, host and framing of the body. However the bytes are cut, the answer is the same.
func FuzzHead(f *testing.F) {
	const host = "Host: api.example.com\r\n"
	for _, seed := range []string{
		"CONNECT api.example.com:443 HTTP/1.1\r\n" + host + auth("a", "of-a") + "\r\n",
		"GET http://api.example.com/a?b HTTP/1.1\r\n" + host + auth("a", "of-a") + "\r\n",
		"POST http://API.example.com.:80/ HTTP/1.1\r\nHost: api.example.com:80\r\nContent-Length: 4\r\n\r\nbody",
		"POST http://api.example.com/ HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET http://api.example.com/ HTTP/1.0\r\n\r\n",
		"GET http://user@api.example.com\\@x/ HTTP/1.1\r\n" + host + "X-A: b\r\n c\r\n\r\n",
		"POST http://api.example.com?x HTTP/1.1\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		f.Add([]byte(seed), uint8(0))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		limit := DefaultLimits().HeadBytes
		data, end, reason := readHead(&slowly{data: stream, step: limit}, nil, limit)
		_, cutEnd, cutReason := readHead(&slowly{data: stream, step: int(step) + 1}, nil, limit)
		if end != cutEnd || reason != cutReason {
			t.Fatalf("%d %q, but cut another way %d %q", end, reason, cutEnd, cutReason)
		}
		if reason != "" {
			return
		}
		h, ok := parseHead(data[:end])
		if !ok {
			return
		}
		to, authority, reason := h.destination()
		if reason == "" {
			if again, err := access.NormalizeHost(to.host); err != nil || again != to.host || to.port == 0 {
				t.Fatalf("%q leads to %+v", authority, to)
			}
		}
		request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(stream)))
		if err != nil {
			return
		}
		if request.Method != h.method {
			t.Fatalf("method %q, net/http reads %q", h.method, request.Method)
		}
		if reason == "" && h.method != http.MethodConnect {
			if other, reason := parseAuthority(request.URL.Host, "80"); reason != "" || other != to {
				t.Fatalf("%q leads to %+v, net/http reads %q", authority, to, request.URL.Host)
			}
		}
		_, chunked := h.get("transfer-encoding")
		if got := slices.Equal(request.TransferEncoding, []string{"chunked"}); got != (chunked == 1) {
			t.Fatalf("chunked %v, net/http reads %q", chunked, request.TransferEncoding)
		}
		if length, count := h.get("content-length"); count == 1 && strconv.FormatInt(request.ContentLength, 10) != trimZeros(length) {
			t.Fatalf("length %q, net/http reads %d", length, request.ContentLength)
		}
	})
}

func trimZeros(digits string) string {
	for len(digits) > 1 && digits[0] == '0' {
		digits = digits[1:]
	}
	return digits
}
