//go:build !linux && !darwin

// Command localcluster needs Linux or macOS: everything it runs is built for
// this machine and started on it.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "localcluster: needs Linux, or macOS for a control plane alone")
	os.Exit(3)
}
