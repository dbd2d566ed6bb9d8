// Package cel tests, on a real API server, what the CRD itself accepts and refuses.
package cel

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

// api reaches the API server of this package's tests.
var api client.Client

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	server, err := apiserver.Start(context.Background(), "cel", "kube-scheduler", "kube-controller-manager")
	if err != nil {
		fmt.Fprintln(os.Stderr, "start API server:", err)
		return 1
	}
	defer func() {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop API server:", err)
		}
	}()
	if api, err = client.New(server.Config, client.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, "make client:", err)
		return 1
	}
	return m.Run()
}

// base is a valid MCPServer that every case starts from.
const base = `
apiVersion: mcpwarden.io/v1alpha1
kind: MCPServer
metadata: {name: github, namespace: default}
spec:
  image: registry.example/team/server:v1.2.0
  transport: {type: StreamableHTTP, port: 8080}
`

// null stands for an explicit null, which a patch would take for a deletion.
const null = "<null>"

// patched returns the base with a JSON merge patch (RFC 7386), written as YAML, applied to it.
func patched(t *testing.T, patch string) *unstructured.Unstructured {
	t.Helper()
	return patchedFrom(t, base, patch)
}

func patchedFrom(t *testing.T, base, patch string) *unstructured.Unstructured {
	t.Helper()
	var object, change map[string]any
	for _, doc := range []struct {
		text string
		into *map[string]any
	}{{base, &object}, {patch, &change}} {
		if err := yaml.Unmarshal([]byte(doc.text), doc.into); err != nil {
			t.Fatalf("not YAML: %v\n%s", err, doc.text)
		}
	}
	return &unstructured.Unstructured{Object: nulls(merge(object, change)).(map[string]any)}
}

func merge(into, change map[string]any) map[string]any {
	for key, value := range change {
		switch value := value.(type) {
		case nil:
			delete(into, key)
		case map[string]any:
			inner, ok := into[key].(map[string]any)
			if !ok {
				inner = map[string]any{}
			}
			into[key] = merge(inner, value)
		default:
			into[key] = value
		}
	}
	return into
}

func nulls(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key := range value {
			value[key] = nulls(value[key])
		}
	case []any:
		for i := range value {
			value[i] = nulls(value[i])
		}
	case string:
		if value == null {
			return nil
		}
	}
	return value
}

// create asks the API server whether it would take the object, and stores nothing.
func create(t *testing.T, object client.Object) error {
	t.Helper()
	return api.Create(t.Context(), object, client.DryRunAll, client.FieldValidation("Strict"))
}

// list writes n elements of a list in YAML's flow style; %d in the element is its index.
func list(n int, element string) string {
	out := make([]string, n)
	for i := range out {
		out[i] = element
		if strings.Contains(element, "%d") {
			out[i] = fmt.Sprintf(element, i)
		}
	}
	return "[" + strings.Join(out, ", ") + "]"
}
