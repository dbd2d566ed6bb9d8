// Package message reads the JSON-RPC messages of MCP without changing a byte of them.
//
// It is stricter than a JSON parser has to be, because two parsers that read the same bytes differently are how a
// message gets past a check: a key that is there twice, at any depth, is refused, and so is one that differs
// from a key that matters here by its case only ("Method", "paramſ"), which Go's decoder, for one, would take for it.
// Batches are refused: no revision since 2025-06-18 has them.
package message

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// MaxDepth is how deep arrays and objects may nest; the envelope is the first of them.
const MaxDepth = 128

// JSON-RPC's codes for what cannot be read.
const (
	CodeParse          = -32700
	CodeInvalidRequest = -32600
)

// Error tells why bytes are not a message. It repeats none of them.
type Error struct {
	// Code is the JSON-RPC error code to answer with.
	Code int
	// Problem is what is wrong, and Offset where, in bytes from the start.
	Problem string
	Offset  int
}

func (e *Error) Error() string { return fmt.Sprintf("%s at byte %d", e.Problem, e.Offset) }

// Kind of a message.
type Kind uint8

// The kinds.
const (
	Request Kind = iota + 1
	Notification
	Response // with a result or an error
)

// Message is one JSON-RPC message. All byte slices are parts of Raw: JSON values as they were sent, nil where there is
// none.
type Message struct {
	Raw  []byte
	Kind Kind
	// ID is a string or a number; null in the error response to what could not be read.
	ID     []byte
	Method string
	Params Params
	Result []byte
	Error  []byte
	// ErrorCode is error.code; 0 where there is none that is an integer of a sensible size.
	ErrorCode int
	// ToolFailed is result.isError.
	ToolFailed bool
}

// Params are those members of params that something here looks at.
type Params struct {
	Raw             []byte
	Name            []byte
	URI             []byte
	Arguments       []byte
	ProtocolVersion []byte // of initialize
	RequestID       []byte // of notifications/cancelled
	ProgressToken   []byte // of notifications/progress
	Meta            Meta
}

// Meta are those members of params._meta that something here looks at.
type Meta struct {
	Raw             []byte
	ProtocolVersion []byte
	ProgressToken   []byte
	SubscriptionID  []byte
	LogLevel        []byte
	Traceparent     []byte
}

// Target is what a request is about, by which access is granted and which lines of the audit log name: params.name for a tool
// or a prompt, params.uri for a resource. Known tells whether its method has one.
func (m *Message) Target() (raw []byte, known bool) {
	switch m.Method {
	case "tools/call", "prompts/get":
		return m.Params.Name, true
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		return m.Params.URI, true
	}
	return nil, false
}

// Parse reads one message. What it returns refers to raw, which must not be changed while it is in use.
func Parse(raw []byte) (*Message, error) {
	m := &Message{Raw: raw}
	s := scanners.Get().(*scanner)
	defer s.release()
	s.data, s.message = raw, m
	if err := s.document(inEnvelope); err != nil {
		return nil, err
	}
	if err := m.check(s); err != nil {
		return nil, err
	}
	return m, nil
}

// Valid tells why raw is not one JSON document by the rules of this package; nil where it is.
func Valid(raw []byte) error {
	s := scanners.Get().(*scanner)
	defer s.release()
	s.data = raw
	if err := s.document(inOther); err != nil {
		return err
	}
	return nil
}

// check tells whether what was found makes a message.
func (m *Message) check(s *scanner) *Error {
	invalid := func(problem string) *Error { return &Error{Code: CodeInvalidRequest, Problem: problem} }
	if string(s.version) != `"2.0"` {
		return invalid(`"jsonrpc" is not "2.0"`)
	}
	hasMethod, hasID := s.method != nil, m.ID != nil
	if hasID && m.ID[0] != '"' && m.ID[0] != '-' && (m.ID[0] < '0' || m.ID[0] > '9') {
		if hasMethod || m.Error == nil || string(m.ID) != "null" {
			return invalid(`"id" is neither a string nor a number`)
		}
	}
	if m.Params.Raw != nil && m.Params.Raw[0] != '{' && string(m.Params.Raw) != "null" {
		return invalid(`"params" is not an object`)
	}
	switch {
	case hasMethod && (m.Result != nil || m.Error != nil):
		return invalid("both a request and a response")
	case hasMethod:
		method, err := Text(s.method)
		if err != nil {
			return invalid(`"method" is not a string`)
		}
		if m.Method = method; hasID {
			m.Kind = Request
		} else {
			m.Kind = Notification
		}
	case m.Result != nil && m.Error != nil:
		return invalid("both a result and an error")
	case m.Result == nil && m.Error == nil:
		return invalid("neither a request nor a response")
	case m.Result != nil && !hasID:
		return invalid("a result without an id")
	default:
		m.Kind = Response
	}
	return nil
}

// Change is a part of a message, one of the slices in it, and what to put in its place.
type Change struct{ Part, New []byte }

// With returns the bytes of a message with some parts changed, and all others as they were. Parts must not overlap; one that is nil
// is left out.
func (m *Message) With(changes ...Change) []byte {
	// A part of Raw reaches to the end of the same array, so its capacity tells where it begins.
	at := func(c Change) int { return cap(m.Raw) - cap(c.Part) }
	changes = slices.DeleteFunc(slices.Clone(changes), func(c Change) bool { return c.Part == nil })
	slices.SortFunc(changes, func(a, b Change) int { return at(a) - at(b) })
	out := make([]byte, 0, len(m.Raw)+64)
	end := 0
	for _, c := range changes {
		out = append(append(out, m.Raw[end:at(c)]...), c.New...)
		end = at(c) + len(c.Part)
	}
	return append(out, m.Raw[end:]...)
}

// Text is the string that a JSON value is. A value that is no string, or a string that is not Unicode text, as `"\ud800"` is
// not, is an error.
func Text(value []byte) (string, error) {
	if len(value) < 2 || value[0] != '"' {
		return "", fmt.Errorf("not a string")
	}
	inner := value[1 : len(value)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), nil
	}
	text, ok := unescape(inner)
	if !ok {
		return "", fmt.Errorf("not Unicode text")
	}
	return string(text), nil
}

// Key is an id, or a token, as JSON that is the same however it was written: a server may answer to "\u00e9" as "é", and to 1.0 as 1. What has no
// such form, as half of a character, or a number that may be rounded, is as it was written.
func Key(id []byte) string {
	if len(id) > 0 && id[0] != '"' {
		return numberKey(id)
	}
	if bytes.IndexByte(id, '\\') < 0 {
		return string(id)
	}
	text, err := Text(id)
	if err != nil {
		return string(id)
	}
	key := []byte{'"'}
	for i := range len(text) {
		switch b := text[i]; {
		case b == '"' || b == '\\':
			key = append(key, '\\', b)
		case b < ' ':
			key = fmt.Appendf(key, "\\u%04x", b)
		default:
			key = append(key, b)
		}
	}
	return string(append(key, '"'))
}

func numberKey(id []byte) string {
	const exact = 1 << 53
	if bytes.ContainsAny(id, ".eE") || string(id) == "-0" {
		if f, err := strconv.ParseFloat(string(id), 64); err == nil && f == math.Trunc(f) && f > -exact && f < exact {
			return strconv.FormatInt(int64(f), 10)
		}
	}
	return string(id)
}

// caseTwin tells whether key is one of names but for its case, by the folding that lenient decoders use.
func caseTwin(key []byte, names []string) bool {
	for _, name := range names {
		// The two letters outside ASCII that fold into it, ſ and K, take two and three bytes.
		if len(key) >= len(name) && len(key) <= 3*len(name) && string(key) != name && strings.EqualFold(string(key), name) {
			return true
		}
	}
	return false
}
