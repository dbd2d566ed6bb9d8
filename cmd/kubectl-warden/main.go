// The kubectl plugin: kubectl warden judges manifests and explains the controls, without a cluster, and shows and
// changes what is done with servers in one.
package main

import (
	"os"

	"github.com/mcpwarden/mcp-warden/internal/cli"
)

func main() {
	os.Exit(cli.Run(os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
