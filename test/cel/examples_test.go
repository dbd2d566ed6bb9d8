package cel

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

// What users copy must be accepted: the samples, and every whole object of the documentation.
func TestExamplesAreAccepted(t *testing.T) {
	servers := 0
	for _, pattern := range []string{"config/samples/*.yaml", "README.md", "docs/*.md"} {
		paths, err := filepath.Glob(filepath.Join(apiserver.Root(), filepath.FromSlash(pattern)))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, document := range examples(filepath.Base(path), string(raw)) {
				object := &unstructured.Unstructured{}
				if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
					t.Errorf("%s: %v\n%s", path, err, document)
					continue
				}
				if object.GetKind() == "" {
					continue // a part of an object
				}
				if object.GetKind() == "MCPServer" {
					servers++
				}
				object.SetNamespace("default")
				if err := create(t, object); err != nil {
					t.Errorf("%s: %v\n%s", path, err, document)
				}
			}
		}
	}
	if servers < 2 {
		t.Errorf("%d examples of an MCPServer were found, want that of the README and the sample", servers)
	}
}

// examples are the YAML documents of a file; of Markdown, those of its blocks of YAML.
func examples(name, text string) []string {
	if strings.HasSuffix(name, ".yaml") {
		return strings.Split(text, "\n---\n")
	}
	var out []string
	for _, block := range strings.Split(text, "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		out = append(out, strings.Split(block, "\n---\n")...)
	}
	return out
}
