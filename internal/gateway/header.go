package gateway

import (
	"encoding/base64"
	"errors"
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
		value, err := single(h[header.name], header.from)
		if err != nil {
			return Headers{}, fmt.Errorf("the header %s %w", header.name, err)
		}
		*header.to = value
	}
	_, out.HasName = h["Mcp-Name"]
	name, err := decodeValue(out.Name)
	if err != nil {
		return Headers{}, fmt.Errorf("the header Mcp-Name: %w", err)
	}
	out.Name = name
	return out, nil
}

// single is the one value of a header, of characters of ASCII that begin with from; empty where there is none.
func single(values []string, from byte) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", errors.New("is there more than once")
	case len(values[0]) > maxHeader:
		return "", errors.New("is too long")
	case strings.ContainsFunc(values[0], func(r rune) bool { return r < rune(from) || r > '~' }):
		return "", errors.New("holds a character that it must not")
	}
	return values[0], nil
}

// ParamHeader is the value, without its encoding, of the header by which a client repeats an argument of a tool; name is what the
// tool calls it.
func ParamHeader(h http.Header, name string) (value string, has bool, err error) {
	values := h.Values("Mcp-Param-" + name)
	raw, err := single(values, ' ')
	if err == nil {
		value, err = decodeValue(raw)
	}
	return value, len(values) > 0, err
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
