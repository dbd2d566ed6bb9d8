// Package version tells which build of MCP Warden a binary is.
package version

import (
	"fmt"
	"io"
	"runtime"
	"slices"
)

// Version is set when linking, by -ldflags -X. Nothing else of a build names it, so that the same sources give the same
// bytes wherever they lie.
var Version = "dev"

// String is what --version prints after the name of a binary.
func String() string { return Version + " " + runtime.Version() }

// Asked tells whether a program of that name is asked for its version and for nothing else, and then says it.
func Asked(name string, args []string, out io.Writer) bool {
	if !slices.Equal(args, []string{"--version"}) && !slices.Equal(args, []string{"-version"}) {
		return false
	}
	fmt.Fprintln(out, name, String())
	return true
}
