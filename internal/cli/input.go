package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	// maxFile is how large one file may be, in bytes; maxDocuments is how many objects are read in all.
	maxFile      = 32 << 20
	maxDocuments = 100_000
	// stdin is how standard input is named in what is printed.
	stdin = "<stdin>"
)

// document is one object of the input, with where it stands.
type document struct {
	file   string
	node   *yaml.Node
	object map[string]any
}

func (d *document) text(path ...string) string {
	object := d.object
	for _, key := range path[:len(path)-1] {
		object, _ = object[key].(map[string]any)
	}
	out, _ := object[path[len(path)-1]].(string)
	return out
}

func (d *document) kind() string { return d.text("kind") }

// is tells whether the object is of a kind of ours.
func (d *document) is(kind string) bool {
	return d.kind() == kind && d.text("apiVersion") == v1alpha1.GroupVersion.String()
}

// isCore tells whether the object is of a kind of Kubernetes' own core group.
func (d *document) isCore(kind string) bool { return d.kind() == kind && d.text("apiVersion") == "v1" }

// into decodes the object.
func (d *document) into(out any) error {
	raw, err := json.Marshal(d.object)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, out)
}

// readAll reads every object of files, folders and standard input (-), in their order.
func readAll(paths []string, in io.Reader) ([]document, error) {
	var out []document
	for _, path := range paths {
		files, err := filesOf(path)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			docs, err := readFile(file, in)
			if err != nil {
				return nil, err
			}
			if out = append(out, docs...); len(out) > maxDocuments {
				return nil, fmt.Errorf("more than %d objects: judge them in parts", maxDocuments)
			}
		}
	}
	return out, nil
}

// filesOf are the YAML and JSON files in and below a folder, or the file itself. Hidden folders are left out.
func filesOf(path string) ([]string, error) {
	if path == "-" {
		return []string{"-"}, nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	var out []string
	err = filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != path && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case entry.Type().IsRegular():
			switch filepath.Ext(name) {
			case ".yaml", ".yml", ".json":
				out = append(out, name)
			}
		}
		return nil
	})
	return out, err
}

func readFile(name string, in io.Reader) ([]document, error) {
	if name == "-" {
		return parse(stdin, in)
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return parse(name, file)
}

// parse reads the objects of one stream. What is no object of Kubernetes is left out.
func parse(name string, in io.Reader) ([]document, error) {
	raw, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("%s: more than %d MiB", name, maxFile>>20)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	var out []document
	for {
		node := &yaml.Node{}
		switch err := decoder.Decode(node); {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		docs, err := objects(name, node)
		if err != nil {
			return nil, err
		}
		out = append(out, docs...)
	}
}

// objects of one YAML document: itself, or the items of a list. Values are read as kubectl reads them.
func objects(name string, node *yaml.Node) ([]document, error) {
	if node.Kind != yaml.DocumentNode || len(node.Content) != 1 || node.Content[0].Kind != yaml.MappingNode {
		return nil, nil
	}
	root := node.Content[0]
	raw, err := yaml.Marshal(root)
	if err == nil {
		raw, err = sigsyaml.YAMLToJSONStrict(raw)
	}
	object := map[string]any{}
	if err == nil {
		err = utiljson.Unmarshal(raw, &object)
	}
	if err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, root.Line, err)
	}
	return flatten(document{file: name, node: root, object: object}), nil
}

func flatten(d document) []document {
	if d.kind() == "" || d.text("apiVersion") == "" {
		return nil
	}
	items, ok := d.object["items"].([]any)
	if !ok || !strings.HasSuffix(d.kind(), "List") {
		return []document{d}
	}
	var out []document
	nodes := child(d.node, "items")
	for i, item := range items {
		object, ok := item.(map[string]any)
		if !ok || nodes == nil || i >= len(nodes.Content) {
			continue
		}
		out = append(out, flatten(document{file: d.file, node: resolved(nodes.Content[i]), object: object})...)
	}
	return out
}
