// Package cli holds the commands of the kubectl plugin (kubectl warden).
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/mcpwarden/mcp-warden/internal/version"
)

// Exit codes.
const (
	// exitOK: what was asked for holds, or was done.
	exitOK = 0
	// exitViolations: something that was judged violates a control that counts, or is no valid object.
	exitViolations = 1
	// exitUsage: the command line is wrong, or what it names cannot be read.
	exitUsage = 2
)

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// errViolations ends a command that has said already what is wrong.
var errViolations = errors.New("violations were found")

// Run runs a command line and returns the code to exit with.
func Run(args []string, streams Streams) int {
	root := newRoot(streams)
	root.SetArgs(args)
	switch err := root.Execute(); {
	case err == nil:
		return exitOK
	case errors.Is(err, errViolations):
		return exitViolations
	default:
		fmt.Fprintf(streams.Err, "Error: %v\n", err)
		return exitUsage
	}
}

func newRoot(streams Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-warden",
		Short: "Judge MCPServers by the controls of MCP Warden",
		Long: `Judge MCPServers by the controls of MCP Warden.

Exit codes: 0 nothing is wrong, 1 something is, 2 the command line is wrong or what it names cannot be read.`,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl warden"},
		Version:       version.String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	root.AddCommand(newLint(streams), newRender(streams), newExplain(streams), newReport(streams), newRotate(streams), newQuarantine(streams), newRelease(streams))
	return root
}

// paint colours words where a terminal shows them.
type paint bool

// painterFor colours what goes to a terminal, unless NO_COLOR is set (no-color.org).
func painterFor(out io.Writer) paint {
	file, ok := out.(*os.File)
	return paint(ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd())))
}

const (
	red    = "31"
	yellow = "33"
	bold   = "1"
)

func (p paint) in(code, text string) string {
	if !p {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
