// Package argohealth runs the health checks of config/argocd as Argo CD does, and compares them with kstatus, by which Flux judges.
package argohealth

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write config/argocd/argocd-cm.yaml anew")

const (
	root           = "../../.."
	customizations = root + "/config/argocd/resource_customizations/mcpwarden.io"
	configMap      = root + "/config/argocd/argocd-cm.yaml"
	golden         = root + "/internal/status/testdata"
)

var kinds = []string{"MCPServer", "MCPPolicy"}

// health is what a script says, and what a test of Argo CD's layout expects.
type health struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

// Each case of health_test.yaml, which Argo CD's own test would read as well.
func TestHealth(t *testing.T) {
	for _, kind := range kinds {
		folder := filepath.Join(customizations, kind)
		var cases struct {
			Tests []struct {
				InputPath    string `json:"inputPath"`
				HealthStatus health `json:"healthStatus"`
			} `json:"tests"`
		}
		if err := yaml.UnmarshalStrict(read(t, filepath.Join(folder, "health_test.yaml")), &cases); err != nil {
			t.Fatal(err)
		}
		used := map[string]bool{}
		for _, c := range cases.Tests {
			used[filepath.Base(c.InputPath)] = true
			t.Run(kind+"/"+strings.TrimSuffix(filepath.Base(c.InputPath), ".yaml"), func(t *testing.T) {
				if got := run(t, kind, object(t, filepath.Join(folder, c.InputPath))); got != c.HealthStatus {
					t.Errorf("got %+v, want %+v", got, c.HealthStatus)
				}
			})
		}
		files, err := filepath.Glob(filepath.Join(folder, "testdata", "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no testdata of %s: %v", kind, err)
		}
		for _, file := range files {
			if !used[filepath.Base(file)] {
				t.Errorf("%s is in no test", file)
			}
		}
	}
}

// Every status that the operator was made to compute means the same to Argo CD and to Flux.
func TestHealthAgreesWithKstatus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(golden, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden statuses: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			server := object(t, file)
			judged, err := status.Compute(server)
			if err != nil {
				t.Fatal(err)
			}
			want := map[status.Status]string{status.CurrentStatus: "Healthy", status.InProgressStatus: "Progressing", status.FailedStatus: "Degraded"}[judged.Status]
			desired, _, _ := unstructured.NestedString(server.Object, "spec", "desiredState")
			if want == "Healthy" && (desired == "Stopped" || desired == "Quarantined") {
				want = "Suspended"
			}
			if got := run(t, "MCPServer", server); got.Status != want || got.Message == "" {
				t.Errorf("got %+v, want %q: kstatus says %s", got, want, judged.Status)
			}
		})
	}
}

// A case with the name of a golden status is that status: else it would go on testing one that is not written any more.
func TestCasesAreGolden(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(customizations, "MCPServer", "testdata", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	same := 0
	for _, file := range files {
		want, err := os.ReadFile(filepath.Join(golden, filepath.Base(file)))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if same++; !bytes.Equal(read(t, file), want) {
			t.Errorf("%s differs from the golden status: copy that again", file)
		}
	}
	if same == 0 {
		t.Error("no case is a golden status")
	}
}

// Whatever is taken out of a healthy status, the rest is never Healthy unless nothing that counts is missing.
func TestNothingMissingIsHealthy(t *testing.T) {
	paths := map[string][][]string{
		"MCPServer": {{"status"}, {"status", "observedGeneration"}, {"status", "conditions"}, {"metadata"}, {"metadata", "generation"}},
		"MCPPolicy": {{"status"}, {"status", "observedGeneration"}, {"status", "conditions"}, {"metadata"}, {"metadata", "generation"}},
	}
	healthy := map[string]string{"MCPServer": "serving.yaml", "MCPPolicy": "in-force.yaml"}
	counts := map[string][]string{"MCPServer": {"Ready", "Reconciling", "Stalled"}, "MCPPolicy": {"Ready"}}
	for _, kind := range kinds {
		whole := object(t, filepath.Join(customizations, kind, "testdata", healthy[kind]))
		if got := run(t, kind, whole); got.Status != "Healthy" {
			t.Fatalf("%s as a whole: %+v", kind, got)
		}
		for _, path := range paths[kind] {
			for _, junk := range []any{nil, "text", int64(7), []any{}, map[string]any{}} {
				broken := whole.DeepCopy()
				if junk == nil {
					unstructured.RemoveNestedField(broken.Object, path...)
				} else if err := unstructured.SetNestedField(broken.Object, junk, path...); err != nil {
					t.Fatal(err)
				}
				if got := run(t, kind, broken); got.Status == "Healthy" || got.Status == "Suspended" {
					t.Errorf("%s with %v for %v: %+v", kind, junk, path, got)
				}
			}
		}
		for _, name := range counts[kind] {
			for _, replace := range []any{nil, "Unknown", "", true} {
				broken := whole.DeepCopy()
				conditions, _, _ := unstructured.NestedSlice(broken.Object, "status", "conditions")
				var kept []any
				for _, c := range conditions {
					c := c.(map[string]any)
					if c["type"] == name {
						if replace == nil {
							continue
						}
						c["status"] = replace
					}
					kept = append(kept, c)
				}
				if err := unstructured.SetNestedSlice(broken.Object, kept, "status", "conditions"); err != nil {
					t.Fatal(err)
				}
				if got := run(t, kind, broken); got.Status == "Healthy" || got.Status == "Suspended" {
					t.Errorf("%s with %v for condition %s: %+v", kind, replace, name, got)
				}
			}
		}
	}
}

// What an admin gives to Argo CD is what was tested.
func TestConfigMapHoldsTheScripts(t *testing.T) {
	var want bytes.Buffer
	want.WriteString(header)
	for _, kind := range kinds {
		fmt.Fprintf(&want, "  resource.customizations.health.mcpwarden.io_%s: |\n", kind)
		for line := range strings.Lines(script(t, kind)) {
			if strings.TrimSpace(line) != "" {
				want.WriteString("    ")
			}
			want.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile(configMap, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, configMap)
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not up to date: go -C test/gitops test ./argohealth -update", configMap)
	}
	var parsed struct {
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal(got, &parsed); err != nil {
		t.Fatal(err)
	}
	for _, kind := range kinds {
		if parsed.Data["resource.customizations.health.mcpwarden.io_"+kind] != script(t, kind) {
			t.Errorf("%s holds another script for %s", configMap, kind)
		}
	}
}

const header = `# Written by go -C test/gitops test ./argohealth -update, from resource_customizations. To give it to Argo CD:
#   kubectl -n argocd patch configmap argocd-cm --patch-file config/argocd/argocd-cm.yaml
# or, where Argo CD is installed by kustomize, name it under patches.
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
data:
`

func script(t *testing.T, kind string) string {
	t.Helper()
	return string(read(t, filepath.Join(customizations, kind, "health.lua")))
}

// run runs a script with what Argo CD gives to one from its ConfigMap: the base and table libraries, a second, and obj. Its os
// library, which tells the time and nothing else, is left out: these scripts need none.
func run(t *testing.T, kind string, obj *unstructured.Unstructured) health {
	t.Helper()
	l := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer l.Close()
	for name, open := range map[string]lua.LGFunction{lua.LoadLibName: lua.OpenPackage, lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		if err := l.CallByParam(lua.P{Fn: l.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	l.SetContext(ctx)
	l.SetGlobal("obj", value(l, obj.Object))
	if err := l.DoString(script(t, kind)); err != nil {
		t.Fatal(err)
	}
	out, ok := l.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the script returned %s", l.Get(-1).Type())
	}
	return health{Status: lua.LVAsString(out.RawGetString("status")), Message: lua.LVAsString(out.RawGetString("message"))}
}

// value of Lua for one of JSON.
func value(l *lua.LState, v any) lua.LValue {
	switch v := v.(type) {
	case bool:
		return lua.LBool(v)
	case string:
		return lua.LString(v)
	case int64:
		return lua.LNumber(v)
	case float64:
		return lua.LNumber(v)
	case []any:
		out := l.CreateTable(len(v), 0)
		for _, item := range v {
			out.Append(value(l, item))
		}
		return out
	case map[string]any:
		out := l.CreateTable(0, len(v))
		for key, item := range v {
			out.RawSetString(key, value(l, item))
		}
		return out
	}
	return lua.LNil
}

func object(t *testing.T, path string) *unstructured.Unstructured {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	out := &unstructured.Unstructured{}
	if err := out.UnmarshalJSON(asJSON); err != nil {
		t.Fatal(err)
	}
	return out
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
