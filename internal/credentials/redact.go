package credentials

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	// maxMessage is how much of a message is kept, in bytes: no message of ours is as long.
	maxMessage = 4096
	// fragment is the length from which a part of a value is taken out of a message wherever it stands.
	fragment = 8
	// redacted stands for what was taken out.
	redacted = "[redacted]"
)

// Redact takes the literal values of env, args and command out of a message that somebody else wrote,
// such as the API server, an admission policy or the kubelet: whole, in parts of eight bytes and more
// (a message may cut a value off), and as they are quoted. Shorter values go where they stand alone. The
// program, the first word of the command, stays unless it holds a credential: that it is not found is
// what is told most often.
func Redact(server *v1alpha1.MCPServer, message string) string {
	if message == "" {
		return ""
	}
	message = strings.ToValidUTF8(message[:min(len(message), maxMessage)], "")
	m := newMask(message)
	for _, v := range literals(&server.Spec) {
		if v.field == "spec.command[0]" && v.isOrdinary() || v.text == server.Name || v.text == server.Namespace {
			continue
		}
		for _, text := range written(withoutReferences(v.text)) {
			m.hideFragments(text)
			for _, word := range shortWords(text) {
				m.hideWord(word)
			}
		}
	}
	return m.String()
}

func (v value) isOrdinary() bool {
	left := maxWork
	finding, done := v.find(&left)
	return finding == nil && done
}

var reference = lazily(`\$\([^)]*\)`)

// withoutReferences takes out $(NAME): the names of variables are no values.
func withoutReferences(text string) string { return reference().ReplaceAllLiteralString(text, " ") }

// written are the ways in which messages write a text: as it is, and quoted for Go and for JSON.
func written(text string) []string {
	out := []string{text}
	forGo := strconv.Quote(text)
	forJSON := &bytes.Buffer{}
	encoder := json.NewEncoder(forJSON)
	encoder.SetEscapeHTML(false)
	if forGo = forGo[1 : len(forGo)-1]; forGo != text {
		out = append(out, forGo)
	}
	if err := encoder.Encode(text); err == nil {
		if s := strings.Trim(forJSON.String(), "\"\n"); s != text && s != forGo {
			out = append(out, s)
		}
	}
	if escaped, err := json.Marshal(text); err == nil {
		if s := strings.Trim(string(escaped), `"`); s != text && s != forGo {
			out = append(out, s)
		}
	}
	return out
}

var assigned = lazily(`[=:]["']?([^\s"'&;,@/(){}\[\]]+)`)

// shortWords are a text, and what it assigns, where they are too short to be told by a fragment.
func shortWords(text string) []string {
	var out []string
	if len(text) < fragment {
		out = append(out, text)
	}
	for _, groups := range assigned().FindAllStringSubmatch(text, maxMatches) {
		if len(groups[1]) < fragment {
			out = append(out, groups[1])
		}
	}
	return out
}

// mask knows which bytes of a message must go.
type mask struct {
	message string
	hidden  []bool
	// at are the places of each fragment of the message that is not hidden yet.
	at map[string][]int
}

func newMask(message string) *mask {
	m := &mask{message: message, hidden: make([]bool, len(message)), at: map[string][]int{}}
	for i := 0; i+fragment <= len(message); i++ {
		key := message[i : i+fragment]
		m.at[key] = append(m.at[key], i)
	}
	return m
}

func (m *mask) hide(start, end int) {
	for i := start; i < end; i++ {
		m.hidden[i] = true
	}
}

// hideFragments hides every part of the text that is long enough.
func (m *mask) hideFragments(text string) {
	for i := 0; i+fragment <= len(text); i++ {
		key := text[i : i+fragment]
		for _, start := range m.at[key] {
			m.hide(start, start+fragment)
		}
		delete(m.at, key)
	}
}

// hideWord hides a short text where it stands alone: in quotes, or from four bytes on between what is
// no letter and no digit.
func (m *mask) hideWord(word string) {
	if word == "" {
		return
	}
	for from := 0; ; {
		i := strings.Index(m.message[from:], word)
		if i < 0 {
			return
		}
		start, end := from+i, from+i+len(word)
		before, after := byte(' '), byte(' ')
		if start > 0 {
			before = m.message[start-1]
		}
		if end < len(m.message) {
			after = m.message[end]
		}
		quoted := before == after && strings.IndexByte("\"'`", before) >= 0
		if quoted || len(word) >= 4 && !isWordByte(before) && !isWordByte(after) {
			m.hide(start, end)
		}
		from = start + 1
	}
}

func isWordByte(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z' || b >= 0x80
}

func (m *mask) String() string {
	out := &strings.Builder{}
	for i := 0; i < len(m.message); i++ {
		switch {
		case !m.hidden[i]:
			out.WriteByte(m.message[i])
		case i == 0 || !m.hidden[i-1]:
			out.WriteString(redacted)
		}
	}
	return strings.ToValidUTF8(out.String(), "")
}
