package plan_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/plan/plantest"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func cases(t *testing.T) []plantest.Case {
	t.Helper()
	cases, err := plantest.Load()
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

func TestGolden(t *testing.T) {
	cases := cases(t)
	if len(cases) < 14 {
		t.Errorf("%d golden cases, want at least 14", len(cases))
	}
	for _, tc := range cases {
		t.Run(tc.Name, func(t *testing.T) { compareGolden(t, tc.Output, render(t, tc.Input)) })
	}
}

func compareGolden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the tests of this package with -update", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("differs from %s; run the tests of this package with -update and look at the difference\n%s",
			path, firstLine(string(got), string(want)))
	}
}

// render a plan: what is not an object as comments, then every object in the order of the plan.
func render(t *testing.T, in plan.Input) []byte {
	t.Helper()
	p, errs := plan.Build(in)
	if len(errs) > 0 {
		t.Fatalf("no plan: %v", errs)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# endpoint: %s\n", p.Endpoint)
	for _, err := range p.Pending {
		fmt.Fprintf(&b, "# pending: %v\n", err)
	}
	if p.EgressTrouble != "" {
		fmt.Fprintf(&b, "# egress: %s\n", p.EgressTrouble)
	}
	if p.Held != nil {
		fmt.Fprintf(&b, "# held: %s: %s\n", p.Held.Reason, p.Held.Message)
	}
	renderObjects(t, &b, p.Objects)
	return b.Bytes()
}

func renderObjects(t *testing.T, b *bytes.Buffer, objects []plan.Object) {
	t.Helper()
	for _, o := range objects {
		raw, err := yaml.Marshal(o.Config)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(b, "---\n%s", raw)
	}
}

func firstLine(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		at := func(lines []string) string {
			if i < len(lines) {
				return lines[i]
			}
			return "(end)"
		}
		if at(g) != at(w) {
			return fmt.Sprintf("line %d\n got: %s\nwant: %s", i+1, at(g), at(w))
		}
	}
	return ""
}

// The input must not be changed: it is the object in the cache of the controller.
func TestBuildChangesNothing(t *testing.T) {
	for _, tc := range cases(t) {
		t.Run(tc.Name, func(t *testing.T) {
			before := fmt.Sprintf("%#v", must(yaml.Marshal(tc.Input.Server)))
			first := render(t, tc.Input)
			if after := fmt.Sprintf("%#v", must(yaml.Marshal(tc.Input.Server))); after != before {
				t.Errorf("the server was changed from %s to %s", before, after)
			}
			if second := render(t, tc.Input); !bytes.Equal(first, second) {
				t.Error("the same input gave two plans")
			}
		})
	}
}

func must(raw []byte, err error) string {
	if err != nil {
		panic(err)
	}
	return string(raw)
}
