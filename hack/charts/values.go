package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

const begin, end = "<!-- values: written by make generate -->\n", "<!-- values: end -->\n"

// schema is what the table of values reads of a JSON schema.
type schema struct {
	Description          string
	Properties           map[string]schema
	AdditionalProperties any
}

// writeValues writes the table of a chart's values into a page, between two markers.
func writeValues(chart, page string) error {
	var s schema
	raw, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return fmt.Errorf("read the schema of %s: %w", chart, err)
	}
	values := map[string]any{}
	raw, err = os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err == nil {
		err = yaml.Unmarshal(raw, &values)
	}
	if err != nil {
		return fmt.Errorf("read the values of %s: %w", chart, err)
	}
	var rows []string
	if err := table(&rows, "", s, values); err != nil {
		return fmt.Errorf("%s: %w", chart, err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s has no markers for the table of values", page)
	}
	out := before + begin + "| Value | Default | Meaning |\n| --- | --- | --- |\n" + strings.Join(rows, "") + end + after
	return os.WriteFile(page, []byte(out), 0o644)
}

// table appends a row for every value that can be set; a value that the defaults lack, or that the schema does not describe, is an error.
func table(rows *[]string, prefix string, s schema, values map[string]any) error {
	names := make([]string, 0, len(s.Properties))
	for name := range s.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		path, property := prefix+name, s.Properties[name]
		value, ok := values[name]
		if !ok && property.Properties == nil {
			if prefix == "" && (name == "enabled" || name == "global") {
				continue // of a chart that depends on this one
			}
			return fmt.Errorf("values.yaml has no default for %s", path)
		}
		if property.Description == "" {
			return fmt.Errorf("values.schema.json does not describe %s", path)
		}
		inner, isObject := value.(map[string]any)
		if len(inner) > 0 && isObject && property.Properties != nil && !strings.HasPrefix(path, "resources.") {
			if err := table(rows, path+".", property, inner); err != nil {
				return err
			}
			continue
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		*rows = append(*rows, fmt.Sprintf("| `%s` | `%s` | %s |\n", path, raw, property.Description))
	}
	for name := range values {
		if _, ok := s.Properties[name]; !ok && s.AdditionalProperties == false {
			return fmt.Errorf("values.schema.json does not know %s", prefix+name)
		}
	}
	return nil
}
