package docs

import (
	"regexp"
	"strings"
	"testing"
)

// session is a command at a prompt, and what a page says that it answers.
type session struct{ command, answer string }

func sessions(text string) []session {
	var out []session
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		switch command, found := strings.CutPrefix(line, "$ "); {
		case found:
			out = append(out, session{command: command})
		case len(out) > 0 && out[len(out)-1].answer == "" && strings.HasSuffix(out[len(out)-1].command, "\\"):
			out[len(out)-1].command += "\n" + line
		case len(out) > 0:
			out[len(out)-1].answer += line + "\n"
		}
	}
	return out
}

var (
	volatile = regexp.MustCompile(`sha256:[0-9a-f.]+|\b[0-9a-f]{8,}\b|\b[0-9]+(\.[0-9]+)*(ms|[smhd])?([0-9]+[smh])?\b`)
	space    = regexp.MustCompile(`\s+`)
)

// shape of a line: numbers, ages and digests are of any value, and columns of any width.
func shape(line string) string {
	return strings.TrimSpace(space.ReplaceAllString(volatile.ReplaceAllString(line, "#"), " "))
}

// matches says whether an answer has the shape of what is shown. Three dots stand for anything, over lines too.
func matches(shown, answer string) bool {
	var pattern strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(shown), "\n") {
		parts := strings.Split(shape(line), "...")
		for i, part := range parts {
			parts[i] = regexp.QuoteMeta(part)
		}
		pattern.WriteString(strings.Join(parts, `(?s:.*)`) + `\n`)
	}
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(answer), "\n") {
		lines = append(lines, shape(line))
	}
	whole := strings.ReplaceAll(pattern.String(), `\n(?s:.*)\n`, `\n(?s:.*)`) // dots on a line of their own: no line will do, too
	return regexp.MustCompile(`^` + whole + `$`).MatchString(strings.Join(lines, "\n") + "\n")
}

func TestMatches(t *testing.T) {
	for name, c := range map[string]struct {
		shown, answer string
		want          bool
	}{
		"ages, and columns of another width": {"NAME   AGE\ngithub   2m", "NAME       AGE\ngithub     1h30m", true},
		"another state":                      {"NAME   READY\ngithub   True", "NAME   READY\ngithub   False", false},
		"another column":                     {"NAME   READY\ngithub   True", "NAME   READY   AGE\ngithub   True   5s", false},
		"a line more":                        {"one", "one\ntwo", false},
		"a line less":                        {"one\ntwo", "one", false},
		"dots in a line":                     {"failed: ... refused", "failed: connection to 10.0.0.1 refused", true},
		"dots for lines":                     {"one\n...\nfour", "one\ntwo\nthree\nfour", true},
		"dots for no line":                   {"one\n...", "one", true},
		"digests, cut short too":             {"image@sha256:ab12...", "image@sha256:0123456789abcdef", true},
	} {
		if got := matches(c.shown, c.answer); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
