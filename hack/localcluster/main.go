//go:build linux || darwin

// Command localcluster brings up a real Kubernetes control plane, or a whole
// node with it, from Go modules and Debian packages: no container engine, no
// download of images or release binaries.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cli"
)

// The main goroutine stays on the main thread: it is the one for which the
// supervisor's parent-death signal is set, and the only one that can clear it.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
