package version_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/internal/version"
)

func TestAsked(t *testing.T) {
	version.Version = "v1.2.3"
	t.Cleanup(func() { version.Version = "dev" })
	for args, want := range map[string]bool{"--version": true, "-version": true, "": false, "server": false, "server --version": false, "--version server": false} {
		var out strings.Builder
		if got := version.Asked("probe", strings.Fields(args), &out); got != want {
			t.Errorf("Asked(%q) = %v", args, got)
		}
		said := ""
		if want {
			said = "probe v1.2.3 " + runtime.Version() + "\n"
		}
		if out.String() != said {
			t.Errorf("%q is told %q, want %q", args, out.String(), said)
		}
	}
}
