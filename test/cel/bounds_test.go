package cel

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

// unbounded are the fields without a bound of their own in the schema, each with the reason.
var unbounded = map[string]string{
	"spec.filesystem.writablePaths[].sizeLimit": "int-or-string: its rule bounds it",
	"spec.resources.limits.cpu":                 "int-or-string: its rule bounds it",
	"spec.resources.limits.memory":              "int-or-string: its rule bounds it",
	"spec.resources.limits.ephemeral-storage":   "int-or-string: its rule bounds it",
	"spec.resources.requests.cpu":               "int-or-string: its rule bounds it",
	"spec.resources.requests.memory":            "int-or-string: its rule bounds it",
	"spec.resources.requests.ephemeral-storage": "int-or-string: its rule bounds it",

	"spec.pods.maxResources.cpu":               "int-or-string: its rule bounds it",
	"spec.pods.maxResources.memory":            "int-or-string: its rule bounds it",
	"spec.pods.maxResources.ephemeral-storage": "int-or-string: its rule bounds it",
}

// Every part of a spec is bounded: what is not could fill etcd, the caches of every client and the
// budget of the rules.
func TestEveryFieldIsBounded(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(apiserver.Root(), "config", "crd", "bases", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	found := map[string]string{}
	for _, path := range files {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		crd := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(raw, crd); err != nil {
			t.Fatal(err)
		}
		for _, version := range crd.Spec.Versions {
			spec := version.Schema.OpenAPIV3Schema.Properties["spec"]
			findUnbounded("spec", &spec, found)
		}
	}
	for _, field := range slices.Sorted(maps.Keys(found)) {
		if unbounded[field] == "" {
			t.Errorf("%s: %s", field, found[field])
		}
	}
	for field := range unbounded {
		if found[field] == "" {
			t.Errorf("%s is listed as unbounded and is not", field)
		}
	}
}

func findUnbounded(path string, s *apiextensionsv1.JSONSchemaProps, found map[string]string) {
	if s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields {
		found[path] = "unknown fields are kept"
	}
	switch {
	case s.XIntOrString:
		found[path] = "int-or-string without a bound in the schema"
	case s.Type == "string" && s.MaxLength == nil && len(s.Enum) == 0 && s.Format == "":
		found[path] = "string without maxLength, enum or format"
	case s.Type == "integer" && (s.Minimum == nil || s.Maximum == nil):
		found[path] = "integer without minimum and maximum"
	case s.Type == "array":
		if s.MaxItems == nil {
			found[path] = "array without maxItems"
		}
		findUnbounded(path+"[]", s.Items.Schema, found)
	case s.Type == "object":
		if s.AdditionalProperties != nil {
			if s.MaxProperties == nil {
				found[path] = "map without maxProperties"
			}
			findUnbounded(path+"[*]", s.AdditionalProperties.Schema, found)
		}
		for name := range s.Properties {
			property := s.Properties[name]
			findUnbounded(path+"."+name, &property, found)
		}
	case s.Type == "":
		found[path] = "no type"
	}
}
