package message

import (
	"bytes"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// place is where in a message a value stands: the keys that matter depend on it.
type place uint8

const (
	inOther place = iota
	inEnvelope
	inParams
	inMeta
	inResult
	inError
)

const metaPrefix = "io.modelcontextprotocol/"

// names are the keys that matter at a place. What differs from them by its case only is refused.
var names = [...][]string{
	inEnvelope: {"jsonrpc", "id", "method", "params", "result", "error"},
	inParams:   {"name", "uri", "arguments", "protocolVersion", "requestId", "progressToken", "_meta"},
	inMeta: {
		metaPrefix + "protocolVersion", metaPrefix + "clientCapabilities", metaPrefix + "clientInfo", metaPrefix + "logLevel",
		metaPrefix + "subscriptionId", "progressToken", "traceparent",
	},
	inResult: {"isError"},
	inError:  {"code"},
}

var scanners = sync.Pool{New: func() any { return new(scanner) }}

// scanner goes over a document once.
type scanner struct {
	data    []byte
	pos     int
	keys    [][]byte // of the objects that are open, the innermost last
	message *Message // where to note what was found; nil for Valid
	version []byte
	method  []byte
}

func (s *scanner) release() {
	clear(s.keys[:cap(s.keys)])
	if cap(s.keys) > 1<<8 {
		s.keys = nil
	}
	*s = scanner{keys: s.keys[:0]}
	scanners.Put(s)
}

func (s *scanner) fail(problem string) *Error {
	return &Error{Code: CodeParse, Problem: problem, Offset: s.pos}
}

func (s *scanner) refuse(problem string) *Error {
	return &Error{Code: CodeInvalidRequest, Problem: problem, Offset: s.pos}
}

func (s *scanner) document(at place) *Error {
	s.space()
	if at == inEnvelope && s.pos < len(s.data) && s.data[s.pos] != '{' {
		if err := s.value(1, inOther); err != nil {
			return err
		}
		return s.refuse("not one JSON object")
	}
	if err := s.value(1, at); err != nil {
		return err
	}
	if s.space(); s.pos != len(s.data) {
		return s.fail("something follows the document")
	}
	return nil
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int, at place) *Error {
	if s.pos >= len(s.data) {
		return s.fail("unexpected end")
	}
	switch c := s.data[s.pos]; c {
	case '{':
		return s.object(depth, at)
	case '[':
		return s.array(depth)
	case '"':
		return s.text()
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return s.number()
	}
}

// linearKeys is up to how many keys an object's new key is compared with each; a set takes over beyond.
const linearKeys = 24

func (s *scanner) object(depth int, at place) *Error {
	if depth > MaxDepth {
		return s.refuse("nested too deep")
	}
	s.pos++
	base := len(s.keys)
	var set map[string]struct{}
	for s.space(); !s.take('}'); s.space() {
		if len(s.keys) > base && !s.take(',') {
			return s.fail("a comma or the end of an object is missing")
		}
		s.space()
		key, err := s.key()
		if err != nil {
			return err
		}
		if set, err = s.add(base, set, key, at); err != nil {
			return err
		}
		if s.space(); !s.take(':') {
			return s.fail("a colon is missing")
		}
		s.space()
		start := s.pos
		if err := s.value(depth+1, s.inside(at, key)); err != nil {
			return err
		}
		s.found(at, key, s.data[start:s.pos])
	}
	s.keys = s.keys[:base]
	return nil
}

func (s *scanner) array(depth int) *Error {
	if depth > MaxDepth {
		return s.refuse("nested too deep")
	}
	s.pos++
	for first := true; ; first = false {
		if s.space(); s.take(']') {
			return nil
		}
		if !first && !s.take(',') {
			return s.fail("a comma or the end of an array is missing")
		}
		s.space()
		if err := s.value(depth+1, inOther); err != nil {
			return err
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.pos < len(s.data) && s.data[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// key reads a key, and returns it without its escapes.
func (s *scanner) key() ([]byte, *Error) {
	if s.pos >= len(s.data) || s.data[s.pos] != '"' {
		return nil, s.fail("a key is missing")
	}
	start := s.pos + 1
	if err := s.text(); err != nil {
		return nil, err
	}
	key := s.data[start : s.pos-1]
	if bytes.IndexByte(key, '\\') < 0 {
		return key, nil
	}
	key, ok := unescape(key)
	if !ok {
		return nil, s.refuse("a key is not Unicode text")
	}
	return key, nil
}

// add notes a key of the object whose keys start at base; set holds them where they are many.
func (s *scanner) add(base int, set map[string]struct{}, key []byte, at place) (map[string]struct{}, *Error) {
	if at != inOther && caseTwin(key, names[at]) {
		return set, s.refuse("a key is in the wrong case")
	}
	own := s.keys[base:]
	s.keys = append(s.keys, key)
	if len(own) <= linearKeys {
		for _, other := range own {
			if bytes.Equal(other, key) {
				return set, s.refuse("a key is there twice")
			}
		}
		return set, nil
	}
	if set == nil {
		set = make(map[string]struct{}, 4*linearKeys)
		for _, other := range own {
			set[string(other)] = struct{}{}
		}
	}
	if _, twice := set[string(key)]; twice {
		return set, s.refuse("a key is there twice")
	}
	set[string(key)] = struct{}{}
	return set, nil
}

// inside is the place of the value under key of an object at a place.
func (s *scanner) inside(at place, key []byte) place {
	switch at {
	case inEnvelope:
		switch string(key) {
		case "params":
			return inParams
		case "result":
			return inResult
		case "error":
			return inError
		}
	case inParams:
		if string(key) == "_meta" {
			return inMeta
		}
	}
	return inOther
}

// found notes a value that something looks at.
func (s *scanner) found(at place, key, value []byte) {
	m := s.message
	if m == nil {
		return
	}
	switch at {
	case inEnvelope:
		switch string(key) {
		case "jsonrpc":
			s.version = value
		case "id":
			m.ID = value
		case "method":
			s.method = value
		case "params":
			m.Params.Raw = value
		case "result":
			m.Result = value
		case "error":
			m.Error = value
		}
	case inParams:
		switch string(key) {
		case "name":
			m.Params.Name = value
		case "uri":
			m.Params.URI = value
		case "arguments":
			m.Params.Arguments = value
		case "protocolVersion":
			m.Params.ProtocolVersion = value
		case "requestId":
			m.Params.RequestID = value
		case "progressToken":
			m.Params.ProgressToken = value
		case "_meta":
			m.Params.Meta.Raw = value
		}
	case inMeta:
		switch string(key) {
		case metaPrefix + "protocolVersion":
			m.Params.Meta.ProtocolVersion = value
		case metaPrefix + "subscriptionId":
			m.Params.Meta.SubscriptionID = value
		case metaPrefix + "logLevel":
			m.Params.Meta.LogLevel = value
		case "progressToken":
			m.Params.Meta.ProgressToken = value
		case "traceparent":
			m.Params.Meta.Traceparent = value
		}
	case inResult:
		if string(key) == "isError" {
			m.ToolFailed = string(value) == "true"
		}
	case inError:
		if string(key) == "code" {
			if code, err := strconv.ParseInt(string(value), 10, 32); err == nil {
				m.ErrorCode = int(code)
			}
		}
	}
}

// plain are the bytes that stand for themselves in a string.
var plain = func() (table [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		table[c] = c != '"' && c != '\\'
	}
	return table
}()

func (s *scanner) text() *Error {
	s.pos++
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		switch {
		case plain[c]:
			s.pos++
		case c == '"':
			s.pos++
			return nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		case c < 0x20:
			return s.fail("a control character in a string")
		default:
			r, size := utf8.DecodeRune(s.data[s.pos:])
			if r == utf8.RuneError && size == 1 {
				return s.fail("not UTF-8")
			}
			s.pos += size
		}
	}
	return s.fail("a string does not end")
}

func (s *scanner) escape() *Error {
	rest := s.data[s.pos+1:]
	if len(rest) == 0 {
		return s.fail("a string does not end")
	}
	switch rest[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return nil
	case 'u':
		if _, ok := hex4(rest[1:]); ok {
			s.pos += 6
			return nil
		}
	}
	return s.fail("an unknown escape in a string")
}

func (s *scanner) literal(word string) *Error {
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.fail("an unknown word")
	}
	s.pos += len(word)
	return nil
}

func (s *scanner) number() *Error {
	s.take('-')
	if !s.take('0') && !s.digits() {
		return s.fail("not a value")
	}
	if s.take('.') && !s.digits() {
		return s.fail("a digit is missing")
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return s.fail("a digit is missing")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// unescape resolves the escapes of a string that was scanned. It fails where half of a surrogate pair stands alone.
func unescape(b []byte) ([]byte, bool) {
	short := map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			out = append(out, b[i])
			i++
			continue
		}
		if b[i+1] != 'u' {
			out = append(out, short[b[i+1]])
			i += 2
			continue
		}
		r, _ := hex4(b[i+2:])
		i += 6
		if utf16.IsSurrogate(r) {
			if i+6 > len(b) || b[i] != '\\' || b[i+1] != 'u' {
				return nil, false
			}
			low, _ := hex4(b[i+2:])
			if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
				return nil, false
			}
			i += 6
		}
		out = utf8.AppendRune(out, r)
	}
	return out, true
}
