package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

// command runs a command line as a shell would.
func command(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = Run(args, Streams{In: strings.NewReader(stdin), Out: &out, Err: &errOut})
	return code, out.String(), errOut.String()
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"--help", exitOK, "kubectl warden [command]"},
		{"explain --help", exitOK, "kubectl warden explain NET-03"},
		{"completion bash", exitOK, "bash completion"},
		{"nonsense", exitUsage, `unknown command "nonsense"`},
		{"explain --nonsense", exitUsage, "unknown flag"},
		{"explain NET-01 NET-02", exitUsage, "at most 1 arg"},
		{"explain XYZ-99", exitUsage, `"XYZ-99" is no control`},
		{"__complete explain NET-0", exitOK, "NET-03\t"},
	} {
		code, stdout, stderr := command(t, "", strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(stdout+stderr, tc.says) {
			t.Errorf("%s: exit %d, want %d with %q:\n%s%s", tc.args, code, tc.code, tc.says, stdout, stderr)
		}
	}
}

func TestExplain(t *testing.T) {
	_, list, _ := command(t, "", "explain")
	for _, c := range compliance.Catalogue() {
		if !strings.Contains(list, string(c.ID)+" ") || !strings.Contains(list, c.Title) {
			t.Errorf("the list lacks %s", c.ID)
		}
		_, text, _ := command(t, "", "explain", strings.ToLower(string(c.ID)))
		for _, part := range []string{string(c.ID), c.Title, c.Rationale, c.Remedy, string(c.Severity), c.References[0]} {
			if !strings.Contains(text, part) {
				t.Errorf("what is said of %s lacks %q", c.ID, part)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("%s is coloured where there is no terminal", c.ID)
		}
	}
}
