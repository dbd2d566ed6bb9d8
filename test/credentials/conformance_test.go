// Package credentials holds the engine of internal/credentials/gitleaks against gitleaks itself. It is a
// module of its own: gitleaks has dozens of dependencies that the product must not have.
package credentials

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"

	"github.com/zricethezav/gitleaks/v8/detect"

	"github.com/mcpwarden/mcp-warden/internal/credentials/gitleaks"
)

// samples of each rule.
const samples = 10

func TestSameFindings(t *testing.T) {
	detector, err := detect.NewDetectorDefaultConfig()
	if err != nil {
		t.Fatal(err)
	}
	detector.IgnoreGitleaksAllow = true // ours knows no such comment
	found, silent := map[string]bool{}, 0
	for _, text := range corpus(t, detector) {
		want := theirs(detector, text)
		for _, f := range want {
			rule, _, _ := strings.Cut(f, " ")
			found[rule] = true
		}
		if len(want) == 0 {
			silent++
		}
		if got := ours(text); !slices.Equal(got, want) {
			t.Errorf("%q\ngitleaks %q\nours     %q", text, want, got)
		}
	}
	// A corpus in which nothing is found, or everything, shows nothing.
	if rules := len(gitleaks.IDs()); len(found) < rules*9/10 || silent < 1000 {
		t.Errorf("the corpus has findings of %d of %d rules, and %d texts without any", len(found), rules, silent)
	}
	t.Logf("findings of %d rules, %d texts without any", len(found), silent)
}

func theirs(detector *detect.Detector, text string) []string {
	var out []string
	for _, f := range detector.DetectString(text) {
		out = append(out, f.RuleID+" "+f.Secret)
	}
	slices.Sort(out)
	return out
}

func ours(text string) []string {
	var out []string
	left := 1 << 30
	found, _ := gitleaks.Find(text, &left)
	for _, f := range found {
		out = append(out, f.Rule+" "+f.Secret)
	}
	slices.Sort(out)
	return out
}

// corpus is what each rule matches, in the contexts that fields of a spec have, the same with a change
// that may break it, and the ordinary values of internal/credentials.
func corpus(t *testing.T, detector *detect.Detector) []string {
	r := rand.New(rand.NewPCG(1, 2))
	var out []string
	for _, rule := range detector.Config.GetOrderedRules() {
		if rule.Regex == nil || rule.Path != nil {
			continue
		}
		parsed, err := syntax.Parse(rule.Regex.String(), syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		for range samples {
			match := &strings.Builder{}
			write(match, parsed, r)
			keyword := rule.Keywords[r.IntN(len(rule.Keywords))]
			for _, text := range []string{
				match.String(),
				keyword + "_NAME=" + match.String(),
				strings.ToUpper(keyword) + "=" + match.String() + "\nSECOND=line\n",
				fmt.Sprintf(`{"host": "a", "%s": "%s", "port": 1}`, keyword, match),
				"first line\n" + keyword + ": " + match.String() + "\n" + match.String() + "\n",
			} {
				out = append(out, text, broken(text, r))
			}
		}
	}
	raw, err := os.ReadFile("../../internal/credentials/testdata/ordinary.txt")
	if err != nil {
		t.Fatal(err)
	}
	return append(append(out, string(raw)), strings.Split(string(raw), "\n")...)
}

// broken changes, takes out or doubles a few bytes.
func broken(text string, r *rand.Rand) string {
	b := []byte(text)
	for range 1 + r.IntN(3) {
		i := r.IntN(len(b))
		switch r.IntN(3) {
		case 0:
			b[i] = " =:\"'\n$aZ0-_/"[r.IntN(13)]
		case 1:
			b = append(b[:i], b[i+1:]...)
		default:
			b = append(b[:i+1], b[i:]...)
		}
		if len(b) == 0 {
			return "x"
		}
	}
	return string(b)
}

// write writes something that an expression matches, but for what it says of its surroundings.
func write(out *strings.Builder, re *syntax.Regexp, r *rand.Rand) {
	times := func(low, high int) {
		for range low + r.IntN(high-low+1) {
			write(out, re.Sub[0], r)
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		out.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		out.WriteRune(oneOf(re.Rune, r))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		out.WriteByte("abc123-_"[r.IntN(8)])
	case syntax.OpCapture:
		write(out, re.Sub[0], r)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			write(out, sub, r)
		}
	case syntax.OpAlternate:
		write(out, re.Sub[r.IntN(len(re.Sub))], r)
	case syntax.OpStar:
		times(0, 5)
	case syntax.OpPlus:
		times(1, 6)
	case syntax.OpQuest:
		times(0, 1)
	case syntax.OpRepeat:
		high := re.Max
		if high < 0 || high > re.Min+10 {
			high = re.Min + 10
		}
		times(re.Min, high)
	}
}

// oneOf draws from the ASCII part of a class of characters, which is pairs of first and last.
func oneOf(class []rune, r *rand.Rand) rune {
	var all []rune
	for i := 0; i < len(class); i += 2 {
		for c := class[i]; c <= class[i+1] && c < 0x7f; c++ {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return 'x'
	}
	return all[r.IntN(len(all))]
}
