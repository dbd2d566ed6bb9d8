package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

var reasonHeading = regexp.MustCompile("(?m)^### (.*)$")

// Troubleshooting has an entry for each reason that a condition or an event of ours can have, and none for others.
func TestEveryReasonIsExplained(t *testing.T) {
	const page = "docs/troubleshooting.md"
	reasons := reasonsOfAPI(t)
	if len(reasons) < 40 {
		t.Fatalf("%d reasons were found in the API: %v", len(reasons), reasons)
	}
	var explained []string
	for _, h := range reasonHeading.FindAllStringSubmatch(read(t, page), -1) {
		for _, name := range strings.Split(h[1], ", ") {
			explained = append(explained, strings.Trim(name, "`"))
		}
	}
	for _, reason := range reasons {
		if !slices.Contains(explained, reason) {
			t.Errorf("%s has no heading for the reason %s", page, reason)
		}
	}
	seen := map[string]bool{}
	for _, reason := range explained {
		if !slices.Contains(reasons, reason) {
			t.Errorf("%s explains %s, which is no reason of the API", page, reason)
		}
		if seen[reason] {
			t.Errorf("%s explains %s twice", page, reason)
		}
		seen[reason] = true
	}
}

// reasonsOfAPI are the values of the constants Reason... of the API.
func reasonsOfAPI(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(apiserver.Root(), "api", "v1alpha1", "*_types.go"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			spec, ok := node.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") || len(spec.Values) != 1 {
				return true
			}
			if literal, ok := spec.Values[0].(*ast.BasicLit); ok {
				value, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, value)
			}
			return true
		})
	}
	return out
}
