package docs

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

var update = flag.Bool("update", false, "write the tables of fields anew")

// schemaOf a kind, as its CustomResourceDefinition has it.
func schemaOf(kind string) *apiextensionsv1.JSONSchemaProps {
	files := map[string]string{"MCPServer": "mcpwarden.io_mcpservers.yaml", "MCPPolicy": "mcpwarden.io_mcppolicies.yaml"}
	raw, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", "crd", "bases", files[kind]))
	if err != nil {
		panic(err)
	}
	crd := apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.Unmarshal(raw, &crd); err != nil {
		panic(err)
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

const (
	fieldsBegin = "<!-- fields: written by make golden -->"
	fieldsEnd   = "<!-- end of fields -->"
)

// The page of each kind lists every field of it as its definition has them.
func TestFieldsAreListed(t *testing.T) {
	for kind, page := range map[string]string{"MCPServer": "docs/mcpserver.md", "MCPPolicy": "docs/mcppolicy.md"} {
		text := read(t, page)
		before, rest, begun := strings.Cut(text, fieldsBegin)
		listed, after, ended := strings.Cut(rest, fieldsEnd)
		if !begun || !ended {
			t.Errorf("%s lacks %s and %s", page, fieldsBegin, fieldsEnd)
			continue
		}
		want := "\n" + tables(schemaOf(kind))
		if *update {
			if err := os.WriteFile(filepath.Join(apiserver.Root(), filepath.FromSlash(page)), []byte(before+fieldsBegin+want+fieldsEnd+after), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if listed != want {
			t.Errorf("%s: the tables of fields are not up to date: run make golden", page)
		}
	}
}

func tables(schema *apiextensionsv1.JSONSchemaProps) string {
	var b strings.Builder
	for _, part := range []string{"spec", "status"} {
		inner := schema.Properties[part]
		fmt.Fprintf(&b, "\n### `%s`\n\n| Field | Type | | Meaning |\n| --- | --- | --- | --- |\n", part)
		rows(&b, part, "", &inner)
		for _, rule := range messages(&inner) {
			fmt.Fprintf(&b, "\nRule over all of it: %s.\n", rule)
		}
	}
	return b.String() + "\n"
}

// rows of the fields below one; prefix is that one's name, as the rows write it.
func rows(b *strings.Builder, path, prefix string, schema *apiextensionsv1.JSONSchemaProps) {
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		field := schema.Properties[name]
		full := prefix + name
		limits := bounds(&field)
		if slices.Contains(schema.Required, name) {
			limits = append([]string{"required"}, limits...)
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", full, typeOf(&field), strings.Join(limits, "; "), meaning(&field))
		if podFields[path+"."+full] {
			continue
		}
		inner, below := &field, full+"."
		if field.Items != nil {
			inner, below = field.Items.Schema, full+"[]."
		}
		rows(b, path, below, inner)
	}
}

// podFields are Kubernetes' own, as they are in every pod: what lies below is in Kubernetes' documentation.
var podFields = map[string]bool{"spec.scheduling.affinity": true, "status.conditions": true}

func typeOf(s *apiextensionsv1.JSONSchemaProps) string {
	switch {
	case s.XIntOrString:
		return "quantity"
	case s.Type == "array":
		return "list of " + typeOf(s.Items.Schema) + "s"
	case s.Type == "object" && s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil:
		return "map of " + typeOf(s.AdditionalProperties.Schema) + "s"
	case s.Format == "date-time":
		return "time"
	}
	return s.Type
}

func bounds(s *apiextensionsv1.JSONSchemaProps) []string {
	var out []string
	if s.Type == "array" {
		out = append(out, spanOf(s.MinItems, s.MaxItems, "entries")...)
		for _, bound := range bounds(s.Items.Schema) {
			out = append(out, "each: "+bound)
		}
		return out
	}
	if s.AdditionalProperties != nil {
		out = append(out, spanOf(s.MinProperties, s.MaxProperties, "entries")...)
	}
	if len(s.Enum) > 0 {
		values := make([]string, len(s.Enum))
		for i, value := range s.Enum {
			values[i] = "`" + strings.Trim(string(value.Raw), `"`) + "`"
		}
		out = append(out, strings.Join(values, ", "))
	}
	switch {
	case s.Minimum != nil && s.Maximum != nil:
		out = append(out, fmt.Sprintf("%.0f to %.0f", *s.Minimum, *s.Maximum))
	case s.Minimum != nil:
		out = append(out, fmt.Sprintf("at least %.0f", *s.Minimum))
	case s.Maximum != nil:
		out = append(out, fmt.Sprintf("at most %.0f", *s.Maximum))
	}
	return append(out, spanOf(s.MinLength, s.MaxLength, "characters")...)
}

func spanOf(least, most *int64, of string) []string {
	switch {
	case least != nil && most != nil && *least == *most:
		return []string{fmt.Sprintf("%d %s", *most, of)}
	case least != nil && *least > 0 && most != nil:
		return []string{fmt.Sprintf("%d to %d %s", *least, *most, of)}
	case most != nil:
		return []string{fmt.Sprintf("at most %d %s", *most, of)}
	case least != nil && *least > 0:
		return []string{fmt.Sprintf("at least %d %s", *least, of)}
	}
	return nil
}

// meaning of a field: what its definition says, and the rules that are more than a bound.
func meaning(s *apiextensionsv1.JSONSchemaProps) string {
	text := strings.Join(strings.Fields(s.Description), " ")
	for _, rule := range messages(s) {
		text += " *Rule:* " + rule + "."
	}
	if s.Items != nil && s.Items.Schema.Type != "object" {
		for _, rule := range messages(s.Items.Schema) {
			text += " *Each:* " + rule + "."
		}
	} else if s.Items != nil {
		for _, rule := range messages(s.Items.Schema) {
			text += " *Rule for each:* " + rule + "."
		}
	}
	return strings.NewReplacer("|", `\|`, "<", "&lt;", "*.", "`*.`").Replace(strings.TrimSpace(text))
}

func messages(s *apiextensionsv1.JSONSchemaProps) []string {
	var out []string
	for _, rule := range s.XValidations {
		if rule.Message != "" && !slices.Contains(out, rule.Message) {
			out = append(out, rule.Message)
		}
	}
	return out
}
