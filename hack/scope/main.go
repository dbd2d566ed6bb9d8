// Command scope limits the manifests of an install to namespaces: it reads those for all namespaces from
// standard input and writes those that hack/install.sh applies to standard output.
//
//	kubectl kustomize config/default | go run ./hack/scope a,b
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/mcpwarden/mcp-warden/internal/scope"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "scope:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("name the namespaces, separated by commas")
	}
	namespaces, err := scope.ParseNamespaces(os.Args[1])
	if err != nil {
		return err
	}
	manifests, err := io.ReadAll(os.Stdin)
	if err != nil {
		return fmt.Errorf("read manifests: %w", err)
	}
	limited, err := scope.Limit(manifests, namespaces)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(limited)
	return err
}
