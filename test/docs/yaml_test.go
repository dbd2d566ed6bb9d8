package docs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

// foreign are the groups of kinds that the tests' API server does not serve: of these, the YAML is parsed strictly
// and must say what it is. What goes with them is tried where these systems run.
var foreign = []string{
	"argoproj.io", "cert-manager.io", "external-secrets.io", "helm.toolkit.fluxcd.io", "kustomize.config.k8s.io",
	"kustomize.toolkit.fluxcd.io", "monitoring.coreos.com", "notification.toolkit.fluxcd.io", "openreports.io", "source.toolkit.fluxcd.io",
}

// bases are the smallest objects of our kinds, which parts of others are laid over.
var bases = map[string]string{
	"MCPServer": `{"apiVersion": "mcpwarden.io/v1alpha1", "kind": "MCPServer", "metadata": {"name": "github"},
		"spec": {"image": "registry.example/server:v1", "transport": {"type": "StreamableHTTP", "port": 8080}}}`,
	"MCPPolicy": `{"apiVersion": "mcpwarden.io/v1alpha1", "kind": "MCPPolicy", "metadata": {"name": "production"},
		"spec": {"action": "Enforce", "namespaceSelector": {}}}`,
}

// What users copy must be accepted by a real API server: the samples, every whole object of the documentation, and
// every part of one of our kinds, laid over a small one.
func TestYAMLIsAccepted(t *testing.T) {
	server, err := apiserver.Start(context.Background(), "docs", "kube-scheduler", "kube-controller-manager")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	api, err := client.New(server.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, b := range allYAML(t) {
		for _, document := range strings.Split(b.text, "\n---\n") {
			what, err := accepted(t.Context(), api, b, document)
			if err != nil {
				t.Errorf("%s: %v\n%s", b, err, document)
			}
			counts[what]++
		}
	}
	t.Logf("looked at: %v", counts)
	if counts["MCPServer"] < 4 || counts["part of MCPServer"] < 4 || counts["MCPPolicy"] < 2 {
		t.Errorf("too few were found: %v", counts)
	}
}

// allYAML are the YAML blocks of the pages, and the samples as if they were one each.
func allYAML(t *testing.T) []block {
	t.Helper()
	var out []block
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			if b.language == "yaml" {
				out = append(out, b)
			}
		}
	}
	for _, pattern := range []string{"config/samples/*.yaml", "docs/examples/*.yaml"} {
		paths, err := filepath.Glob(filepath.Join(apiserver.Root(), filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, block{page: path, text: string(raw)})
		}
	}
	return out
}

// accepted says what a document is, and what is wrong with it.
func accepted(ctx context.Context, api client.Client, b block, document string) (string, error) {
	object := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
		return "", err
	}
	whole := &unstructured.Unstructured{Object: object}
	switch {
	case b.partOf != "":
		return "part of " + b.partOf, partOf(b.partOf, object)
	case whole.GetKind() == "":
		kind := kindOfPart(object)
		if kind == "" {
			return "", fmt.Errorf("is a part of what? Say so: <!-- part of: charts/mcp-warden/values.yaml -->")
		}
		part, err := laidOver(bases[kind], object)
		if err != nil {
			return "", err
		}
		return "part of " + kind, created(ctx, api, part)
	case slices.Contains(foreign, whole.GroupVersionKind().Group):
		return "of another system", nil
	case bases[whole.GetKind()] != "" && missesRequired(object):
		// A patch, as kustomize lays it over an object.
		part, err := laidOver(bases[whole.GetKind()], object)
		if err != nil {
			return "", err
		}
		return "part of " + whole.GetKind(), created(ctx, api, part)
	}
	return whole.GetKind(), created(ctx, api, whole)
}

// missesRequired says of an object of our kinds that it can only be a patch: a server without an image and a transport.
func missesRequired(object map[string]any) bool {
	spec, _ := object["spec"].(map[string]any)
	return object["kind"] == "MCPServer" && (spec["image"] == nil || spec["transport"] == nil)
}

// created asks the API server whether it would take the object, and stores nothing.
func created(ctx context.Context, api client.Client, object *unstructured.Unstructured) error {
	mapping, err := api.RESTMapper().RESTMapping(object.GroupVersionKind().GroupKind(), object.GroupVersionKind().Version)
	if err != nil {
		return fmt.Errorf("no such kind here; if it is another system's, list its group: %w", err)
	}
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		object.SetNamespace("default")
	}
	return api.Create(ctx, object, client.DryRunAll, client.FieldValidation("Strict"))
}

func kindOfPart(object map[string]any) string {
	spec, ok := object["spec"].(map[string]any)
	if !ok || len(object) != 1 {
		return ""
	}
	for _, kind := range []string{"MCPServer", "MCPPolicy"} {
		known := true
		for field := range spec {
			known = known && schemaOf(kind).Properties["spec"].Properties[field].Type != ""
		}
		if known {
			return kind
		}
	}
	return ""
}

func laidOver(base string, part map[string]any) (*unstructured.Unstructured, error) {
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON([]byte(base)); err != nil {
		return nil, err
	}
	out.Object = merge(out.Object, part)
	return out, nil
}

// merge lays a change over an object, as a JSON merge patch does.
func merge(into, change map[string]any) map[string]any {
	for field, value := range change {
		inner, isMap := value.(map[string]any)
		there, both := into[field].(map[string]any)
		switch {
		case value == nil:
			delete(into, field)
		case isMap && both:
			into[field] = merge(there, inner)
		default:
			into[field] = value
		}
	}
	return into
}

// partOf checks a part of a file of this repository that holds YAML, such as a chart's values: each field that it
// sets must be there. Of anything else a part is of, only its YAML is checked.
func partOf(what string, part map[string]any) error {
	if !strings.HasSuffix(what, ".yaml") {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(apiserver.Root(), filepath.FromSlash(what)))
	if err != nil {
		return err
	}
	whole := map[string]any{}
	if err := yaml.Unmarshal(raw, &whole); err != nil {
		return err
	}
	return within(what, whole, part)
}

func within(path string, whole, part map[string]any) error {
	for field, value := range part {
		there, found := whole[field]
		if !found {
			return fmt.Errorf("%s has no %s", path, field)
		}
		inner, isMap := value.(map[string]any)
		thereInner, _ := there.(map[string]any)
		if !isMap || len(thereInner) == 0 { // an empty map takes anything
			continue
		}
		if err := within(path+"."+field, thereInner, inner); err != nil {
			return err
		}
	}
	return nil
}
