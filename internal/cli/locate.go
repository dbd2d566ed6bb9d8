package cli

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// place in the input.
type place struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// locate finds a field of an object, such as spec.env[TOKEN].value, or what there is of the way to it.
func (d *document) locate(path string) place {
	at, node := d.node, d.node
	for _, step := range steps(path) {
		key, next := descend(resolved(node), step)
		if next == nil {
			break
		}
		at, node = key, next
	}
	return place{File: d.file, Line: at.Line, Column: at.Column}
}

// steps of a path: names, and what stands in brackets, which may hold dots.
func steps(path string) []string {
	var out []string
	for path != "" {
		if rest, ok := strings.CutPrefix(path, "["); ok {
			inside, after, _ := strings.Cut(rest, "]")
			out, path = append(out, strings.Trim(inside, `"`)), after
			continue
		}
		path = strings.TrimPrefix(path, ".")
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		if end > 0 {
			out = append(out, path[:end])
		}
		path = path[end:]
	}
	return out
}

// itemKeys are the fields by which items of lists are named in paths.
var itemKeys = []string{"name", "path", "mountPath"}

// descend returns what a step leads to, and where that begins.
func descend(node *yaml.Node, step string) (at, next *yaml.Node) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == step {
				return node.Content[i], node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i]
		}
		for _, item := range node.Content {
			for _, key := range itemKeys {
				if value := child(item, key); value != nil && value.Value == step {
					return item, item
				}
			}
		}
	}
	return nil, nil
}

// child is the value of a key; nil where there is none.
func child(node *yaml.Node, key string) *yaml.Node {
	if node = resolved(node); node.Kind != yaml.MappingNode {
		return nil
	}
	_, value := descend(node, key)
	if value == nil {
		return nil
	}
	return resolved(value)
}

// resolved follows an alias to what it stands for.
func resolved(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode && node.Alias != nil {
		return node.Alias
	}
	return node
}
