// The probe shows whether the cluster enforces NetworkPolicies: as the canary that answers, as the
// prober on every node, and as the init container of every server.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "probe: name what to do")
	os.Exit(2)
}
