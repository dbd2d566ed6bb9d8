// Command charts writes what the Helm charts have in common with the kustomize install: the kinds, the rights, the
// admission rules and the probe as templates, of the manifests on standard input; and the table of values in docs/helm.md.
// The rest of charts/ is written by hand, and test/charts compares what it gives.
//
//	kustomize build config/default | go run ./hack/charts
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "charts:", err)
		os.Exit(1)
	}
}

func run() error {
	manifests, err := io.ReadAll(os.Stdin)
	if err != nil {
		return fmt.Errorf("read manifests: %w", err)
	}
	templates, err := templatesOf(manifests)
	if err != nil {
		return err
	}
	for path, text := range templates {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return writeValues("charts/mcp-warden", "docs/helm.md")
}
