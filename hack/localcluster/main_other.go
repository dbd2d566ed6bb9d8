//go:build !linux

// Command localcluster needs Linux: everything it runs is built for this
// machine and started on it.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "localcluster: needs Linux; run it on a Linux machine or in a Linux VM")
	os.Exit(3)
}
