package gateway

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDecodeHeaders(t *testing.T) {
	for name, test := range map[string]struct {
		in   http.Header
		want Headers
		err  string
	}{
		"none":           {in: http.Header{}},
		"all":            {in: http.Header{"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Session-Id": {"a-b"}, "Last-Event-Id": {"1 2"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {"fetch it"}}, want: Headers{Version: "2026-07-28", Session: "a-b", LastEventID: "1 2", Method: "tools/call", Name: "fetch it", HasName: true}},
		"base64":         {in: http.Header{"Mcp-Name": {"=?base64?SGVsbG8sIOS4lueVjA==?="}}, want: Headers{Name: "Hello, 世界", HasName: true}},
		"literal":        {in: http.Header{"Mcp-Name": {"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="}}, want: Headers{Name: "=?base64?literal?=", HasName: true}},
		"other case":     {in: http.Header{"Mcp-Name": {"=?BASE64?YQ==?="}}, want: Headers{Name: "=?BASE64?YQ==?=", HasName: true}},
		"empty name":     {in: http.Header{"Mcp-Name": {""}}, want: Headers{HasName: true}},
		"twice":          {in: http.Header{"Mcp-Method": {"a", "b"}}, err: "more than once"},
		"not base64":     {in: http.Header{"Mcp-Name": {"=?base64?a?="}}, err: "not base64"},
		"trailing bits":  {in: http.Header{"Mcp-Name": {"=?base64?YR==?="}}, err: "not base64"},
		"not UTF-8":      {in: http.Header{"Mcp-Name": {"=?base64?/w==?="}}, err: "not UTF-8"},
		"raw bytes":      {in: http.Header{"Mcp-Name": {"caf\xc3\xa9"}}, err: "must not"},
		"tab":            {in: http.Header{"Mcp-Method": {"a\tb"}}, err: "must not"},
		"space in an id": {in: http.Header{"Mcp-Session-Id": {"a b"}}, err: "must not"},
		"long":           {in: http.Header{"Mcp-Session-Id": {strings.Repeat("x", maxHeader+1)}}, err: "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeHeaders(test.in)
			if test.err == "" && (err != nil || got != test.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
			if test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got %v, want an error that says %q", err, test.err)
			}
		})
	}
}

// FuzzDecodeHeaders: what a client encodes by the rules is decoded to what it was, and nothing that is decoded is not text.
func FuzzDecodeHeaders(f *testing.F) {
	for _, seed := range []string{"fetch", "=?base64?SGVsbG8=?=", "=?base64?", "世界", " padded ", "a\r\nb", "=?base64?=?="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		raw, err := decodeHeaders(http.Header{"Mcp-Name": {value}, "Mcp-Method": {value}, "Mcp-Session-Id": {value}})
		if err == nil && (!utf8.ValidString(raw.Name) || strings.ContainsAny(raw.Method+raw.Session, "\r\n \x00")) {
			t.Fatalf("%q passed as %+v", value, raw)
		}
		if !utf8.ValidString(value) || len(value) > maxHeader/2 {
			return
		}
		encoded := base64Prefix + base64.StdEncoding.EncodeToString([]byte(value)) + base64Suffix
		got, err := decodeHeaders(http.Header{"Mcp-Name": {encoded}})
		if err != nil || got.Name != value {
			t.Fatalf("%q came back as %q, %v", value, got.Name, err)
		}
	})
}
