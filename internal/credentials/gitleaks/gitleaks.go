// Package gitleaks finds credentials in a text with the default rules of gitleaks
// (github.com/gitleaks/gitleaks). It is pure.
//
// The rules are gitleaks' own, as a table that test/credentials/generate writes from the module that
// test/credentials pins; the engine is ours. The library itself was measured first, at v8.30.1: it adds
// 56 modules to the 64 of the manager (viper, lipgloss, wazero, sevenzip and more), 3.3 MB to its
// binary and 24 MiB to its memory, because it compiles every rule at the start. Here a rule is
// compiled when one of its keywords turns up for the first time: most never are. What is left out
// is what a field of a spec does not have: paths, commits, encodings inside encodings, and the comment
// "gitleaks:allow", by which a value would vouch for itself.
//
// A test in test/credentials runs the library and this package over the same texts and demands the
// same findings.
package gitleaks

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Finding is a credential in a text.
type Finding struct {
	// Rule is the id of gitleaks' rule.
	Rule string
	// Description of the rule.
	Description string
	// Secret is what was found. It must go nowhere.
	Secret string

	line int
}

// rule of gitleaks: a match of pattern, in a text that holds a keyword, is a finding unless its
// secret is not random enough or an allowlist holds of it.
type rule struct {
	id, description, pattern string
	// group of the pattern that is the secret; 0 stands for the first that is not empty.
	group int
	// entropy that the secret must exceed, in bits per character.
	entropy  float64
	keywords []string
	allowed  []allowlist
}

// allowlist says of which matches a rule is wrong.
type allowlist struct {
	// all of pattern and stopwords must hold, not just one of them.
	all bool
	// target of the pattern.
	target    target
	pattern   string
	stopwords []string
}

// target is what the pattern of an allowlist looks at.
type target int

const (
	secret target = iota
	wholeMatch
	wholeLine
)

// compiled holds each pattern that was needed so far. It cannot grow beyond those of the rules.
var compiled sync.Map

func expression(pattern string) *regexp.Regexp {
	if re, ok := compiled.Load(pattern); ok {
		return re.(*regexp.Regexp)
	}
	re, _ := compiled.LoadOrStore(pattern, regexp.MustCompile(pattern))
	return re.(*regexp.Regexp)
}

// maxFindings bounds what is found in one text.
const maxFindings = 256

// Find returns the credentials in a text, in the order of the rules; of more than maxFindings, the
// first. Go's regular expressions do not backtrack, and a rule takes about 0.1 µs for each byte of
// the text; but a text can be made to hold the keywords of every rule. So left bounds the work: it is
// taken down by the length of the text for each rule that looks at it, and where it does not suffice,
// done is false and rules were left out.
func Find(text string, left *int) (found []Finding, done bool) {
	done = true
	var out []Finding
	for i, asked := range whoseKeywords(text) {
		if !asked {
			continue
		}
		if *left < len(text) {
			done = false
			continue
		}
		*left -= len(text)
		out = rules[i].find(text, out)
	}
	for _, f := range out {
		if !isGeneric(f.Rule) || !foundByBetter(f, out) {
			found = append(found, f)
		}
	}
	return found, done
}

// keyword of a rule.
type keyword struct {
	text string
	rule int
}

// byFirstByte holds the keywords of all rules.
var byFirstByte = sync.OnceValue(func() *[256][]keyword {
	out := &[256][]keyword{}
	for i := range rules {
		for _, k := range rules[i].keywords {
			out[k[0]] = append(out[k[0]], keyword{k, i})
		}
	}
	return out
})

// whoseKeywords says of each rule whether the text holds one of its keywords.
func whoseKeywords(text string) []bool {
	out := make([]bool, len(rules))
	lower, keywords := strings.ToLower(text), byFirstByte()
	for i := range len(lower) {
		for _, k := range keywords[lower[i]] {
			if strings.HasPrefix(lower[i:], k.text) {
				out[k.rule] = true
			}
		}
	}
	return out
}

func (r *rule) find(text string, out []Finding) []Finding {
	re := expression(r.pattern)
	for _, at := range re.FindAllStringIndex(text, -1) {
		if len(out) == maxFindings {
			break
		}
		match := strings.Trim(text[at[0]:at[1]], "\n")
		found := r.secretOf(re, match)
		if r.entropy > 0 && entropy(found) <= r.entropy {
			continue
		}
		isAllowed := func(a allowlist) bool { return a.holds(found, match, lineOf(text, at[0], at[0]+len(match))) }
		if slices.ContainsFunc(global, isAllowed) || slices.ContainsFunc(r.allowed, isAllowed) {
			continue
		}
		out = append(out, Finding{Rule: r.id, Description: r.description, Secret: found, line: strings.Count(text[:at[0]], "\n")})
	}
	return out
}

// secretOf is the part of a match that is secret.
func (r *rule) secretOf(re *regexp.Regexp, match string) string {
	groups := re.FindStringSubmatch(match)
	switch {
	case len(groups) < 2:
		return match
	case r.group > 0:
		return groups[r.group]
	}
	if i := slices.IndexFunc(groups[1:], func(s string) bool { return s != "" }); i >= 0 {
		return groups[1+i]
	}
	return match
}

func (a *allowlist) holds(found, match, line string) bool {
	of := found
	switch a.target {
	case wholeMatch:
		of = match
	case wholeLine:
		of = line
	}
	lower := strings.ToLower(found)
	matches := a.pattern != "" && of != "" && expression(a.pattern).MatchString(of)
	stops := slices.ContainsFunc(a.stopwords, func(w string) bool { return strings.Contains(lower, w) })
	if a.all {
		return (matches || a.pattern == "") && (stops || len(a.stopwords) == 0)
	}
	return matches || stops
}

// lineOf returns the lines that text[start:end] is on.
func lineOf(text string, start, end int) string {
	start = strings.LastIndexByte(text[:start], '\n') + 1
	if i := strings.IndexByte(text[end:], '\n'); i >= 0 {
		return text[start : end+i]
	}
	return text[start:]
}

// entropy of a text in bits per character, as gitleaks computes it.
func entropy(text string) float64 {
	counts := map[rune]int{}
	for _, c := range text {
		counts[c]++
	}
	bits := 0.0
	for _, n := range counts {
		p := float64(n) / float64(len(text))
		bits -= p * math.Log2(p)
	}
	return bits
}

func isGeneric(rule string) bool { return strings.Contains(rule, "generic") }

// foundByBetter tells whether a rule that knows whose credential it is found the same one.
func foundByBetter(f Finding, all []Finding) bool {
	return slices.ContainsFunc(all, func(other Finding) bool {
		return !isGeneric(other.Rule) && other.line == f.line && strings.Contains(other.Secret, f.Secret)
	})
}

// IDs of the rules.
func IDs() []string {
	out := make([]string, len(rules))
	for i := range rules {
		out[i] = rules[i].id
	}
	return out
}
