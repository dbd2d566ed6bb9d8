package credentials

import (
	"regexp"
	"strings"
	"sync"
)

// rule of ours. Its pattern is looked for only where one of the hints is in the value or its name,
// and the last group that took part is what may be a credential.
type rule struct {
	id, description string
	hints           []string
	pattern         func() *regexp.Regexp
	// on is what the pattern looks at.
	on func(value) string
	// isOne tells a credential from what stands for one.
	isOne func(string) bool
}

var ours = []rule{
	{
		id: "url-password", description: "password in a URL", hints: []string{"://"},
		pattern: lazily(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/?#@:"'<>]*:([^\s/?#@"']+)@`),
		on:      func(v value) string { return v.text }, isOne: notPlaceholder,
	},
	{
		id: "authorization-header", description: "credential of an Authorization header", hints: []string{"bearer", "basic", "token", "apikey", "api-key"},
		pattern: lazily(`(?i)(?:^\s*|authorization\\?["']?\s*[:=]\s*\\?["']?)(?:bearer|basic|token|api-?key)\s+([a-z0-9._~+/=:-]{16,})`),
		on:      func(v value) string { return v.text }, isOne: hasDigit,
	},
	{
		id: "password", description: "password", hints: []string{"passw", "passphrase", "pwd", "pass"},
		// NAME=value, --flag=value, key=value of a connection string, ?key=value of a URL.
		pattern: lazily(`(?i)(?:passw(?:or)?d|passphrase|(?:^|[^a-z0-9])(?:pwd|pass))\\?["']?[ \t]*=[ \t]*\\?["']?([^\s"'&;,]+)`),
		on:      value.assignment, isOne: notPlaceholder,
	},
	{
		id: "password", description: "password", hints: []string{"passw", "passphrase", "pwd"},
		// A key of JSON, or one of YAML at the start of a line.
		pattern: lazily(`(?im)(?:["'][\w.-]*(?:passw(?:or)?d|passphrase|pwd)\\?["']\s*:\s*\\?["']([^\s"']+)|^[ \t]*[\w.-]*(?:passw(?:or)?d|passphrase):[ \t]+["']?([^\s"',]+)["']?\s*$)`),
		on:      func(v value) string { return v.text }, isOne: notPlaceholder,
	},
}

func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

func (r *rule) holds(v value) bool {
	text := r.on(v)
	lower := strings.ToLower(text)
	for _, hint := range r.hints {
		if !strings.Contains(lower, hint) {
			continue
		}
		for _, groups := range r.pattern().FindAllStringSubmatch(text, maxMatches) {
			if r.isOne(lastOf(groups)) && !isWorkingDirectory(v) {
				return true
			}
		}
		return false
	}
	return false
}

// maxMatches bounds the placeholders that are passed over before a value is taken to hold nothing else.
const maxMatches = 1000

func lastOf(groups []string) string {
	for i := len(groups) - 1; i > 0; i-- {
		if groups[i] != "" {
			return groups[i]
		}
	}
	return ""
}

// isWorkingDirectory knows the variables of the shell that share a word with passwords.
func isWorkingDirectory(v value) bool { return v.name == "PWD" || v.name == "OLDPWD" }

func hasDigit(s string) bool { return strings.ContainsAny(s, "0123456789") }

// placeholder is what stands where a credential could, and is none: a reference to another variable or
// to where the value is kept, a form to be filled in, a switch, a small number, a path.
var placeholder = lazily(`(?i)^(?:` + strings.Join([]string{
	`.*\$\(.*`, `.*\$\{.*`, `(?-i:\$[A-Z_][A-Z0-9_]*)`, `.*\{\{.*`, `%[a-z_]+%|%s|%v|\{\w*\}`,
	`<.*|\[.*\]?`, `\*+|\.+|x+|_+`,
	`true|false|yes|no|on|off|enabled?|disabled?|required|optional|always|never|none|null|nil|string|[0-9]{1,3}`,
	`\.{0,2}(?:/[\w.-]+)+/?`,
	`(?:vault|op|ref\+\w+|file|env|secret|awssm|gcpsm|azurekv|keyring|keychain|sops):.*`,
}, "|") + `)$`)

func notPlaceholder(s string) bool { return !placeholder().MatchString(s) }
