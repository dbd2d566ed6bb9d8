package gateway

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"
)

// maxHeader bounds the value of each header of MCP's, in bytes.
const maxHeader = 2 << 10

const (
	base64Prefix = "=?base64?"
	base64Suffix = "?="
)

// Headers are those that MCP defines, decoded. A header that is not there is empty.
type Headers struct {
	Version     string // MCP-Protocol-Version
	Session     string // Mcp-Session-Id
	LastEventID string // Last-Event-ID
	Method      string // Mcp-Method
	Name        string // Mcp-Name, without its encoding
	HasName     bool   // there is one, be it empty
}

// decodeHeaders reads MCP's headers. Each may be there once at most, bounded, and printable: what reads the first of two
// and what reads the last of them would not speak of the same request.
func decodeHeaders(h http.Header) (Headers, error) {
	var out Headers
	for _, header := range []struct {
		name string // in its canonical form
		to   *string
		from byte // the lowest character that is allowed
	}{
		{"Mcp-Protocol-Version", &out.Version, '!'},
		{"Mcp-Session-Id", &out.Session, '!'},
		{"Last-Event-Id", &out.LastEventID, ' '},
		{"Mcp-Method", &out.Method, '!'},
		{"Mcp-Name", &out.Name, ' '},
	} {
		values := h[header.name]
		switch {
		case len(values) == 0:
			continue
		case len(values) > 1:
			return Headers{}, fmt.Errorf("the header %s is there more than once", header.name)
		case len(values[0]) > maxHeader:
			return Headers{}, fmt.Errorf("the header %s is too long", header.name)
		case strings.ContainsFunc(values[0], func(r rune) bool { return r < rune(header.from) || r > '~' }):
			return Headers{}, fmt.Errorf("the header %s holds a character that it must not", header.name)
		}
		*header.to = values[0]
	}
	_, out.HasName = h["Mcp-Name"]
	name, err := decodeValue(out.Name)
	if err != nil {
		return Headers{}, fmt.Errorf("the header Mcp-Name: %w", err)
	}
	out.Name = name
	return out, nil
}

// decodeValue undoes the encoding of values that no header can carry as they are.
func decodeValue(value string) (string, error) {
	encoded, ok := strings.CutPrefix(value, base64Prefix)
	if !ok {
		return value, nil
	}
	if encoded, ok = strings.CutSuffix(encoded, base64Suffix); !ok {
		return value, nil
	}
	text, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return "", fmt.Errorf("not base64")
	}
	if !utf8.Valid(text) {
		return "", fmt.Errorf("not UTF-8")
	}
	return string(text), nil
}
