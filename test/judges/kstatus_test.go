package judges

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// GitOps engines judge an MCPServer by kstatus: it must come to what the status means.
func TestKstatus(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("..", "..", "internal", "status", "testdata", "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden statuses: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			comment, _, _ := bytes.Cut(raw, []byte("\n"))
			want, found := strings.CutPrefix(string(comment), "# kstatus: ")
			if !found {
				t.Fatalf("begins with %q, which does not say what is expected", comment)
			}
			asJSON, err := yaml.YAMLToJSON(raw)
			if err != nil {
				t.Fatal(err)
			}
			object := &unstructured.Unstructured{}
			if err := object.UnmarshalJSON(asJSON); err != nil {
				t.Fatal(err)
			}
			got, err := status.Compute(object)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status.String() != want {
				t.Errorf("kstatus says %s (%s), want %s", got.Status, got.Message, want)
			}
		})
	}
}
