package cel

import (
	"encoding/json"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/plan/plantest"
)

// What the API server stores of a plan is exactly the plan: every field that it would default is
// planned, and nothing is written in a form that it would change. Otherwise the operator would
// see drift, and write, for ever.
func TestPlansAreStoredAsPlanned(t *testing.T) {
	for _, tc := range loadCases(t) {
		t.Run(tc.Name, func(t *testing.T) {
			t.Parallel()
			namespace := newNamespace(t)
			tc.Input.Server.Namespace = namespace
			p, errs := plan.Build(tc.Input)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			for _, o := range p.Objects {
				t.Run(o.Kind+" "+o.Name, func(t *testing.T) { storedAsPlanned(t, o) })
			}
		})
	}
}

func storedAsPlanned(t *testing.T, o plan.Object) {
	t.Helper()
	first := apply(t, o)
	live := plan.NewLive(first.GetKind())
	if err := api.Get(t.Context(), client.ObjectKey{Namespace: o.Namespace, Name: o.Name}, live); err != nil {
		t.Fatal(err)
	}
	if path := plan.Drift(live, o.Expected(live)); path != "" {
		t.Errorf("what is live differs from the plan at %s", path)
	}
	if second := apply(t, o); second.GetResourceVersion() != first.GetResourceVersion() {
		t.Errorf("applied again, it was written again: resourceVersion %s, before %s", second.GetResourceVersion(), first.GetResourceVersion())
	}
}

// apply a planned object as the operator does. The client answers with what it was given, changed.
func apply(t *testing.T, o plan.Object) *unstructured.Unstructured {
	t.Helper()
	raw, err := json.Marshal(o.Config)
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	if err := json.Unmarshal(raw, object); err != nil {
		t.Fatal(err)
	}
	err = api.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(plan.FieldManager), client.ForceOwnership)
	if err != nil {
		t.Fatalf("the API server refuses the plan: %v", err)
	}
	return object
}

// The servers of the golden cases are such as users can create.
func TestGoldenServersAreAccepted(t *testing.T) {
	for _, tc := range loadCases(t) {
		t.Run(tc.Name, func(t *testing.T) {
			t.Parallel()
			raw, err := json.Marshal(tc.Input.Server)
			if err != nil {
				t.Fatal(err)
			}
			server := &unstructured.Unstructured{}
			if err := json.Unmarshal(raw, server); err != nil {
				t.Fatal(err)
			}
			server.SetNamespace("default")
			if err := create(t, server); err != nil {
				t.Error(err)
			}
		})
	}
}

// By kstatus an object without a status is done. A server is not before the operator has seen it, whatever its author writes
// into its status.
func TestServerIsNotDoneBeforeItIsSeen(t *testing.T) {
	server := patched(t, `
status:
  observedGeneration: 1
  conditions:
  - {type: Ready, status: "True", reason: Serving, message: ready, lastTransitionTime: "2026-01-01T00:00:00Z", observedGeneration: 1}
`)
	server.SetNamespace(newNamespace(t))
	if err := api.Create(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(server.GroupVersionKind())
	if err := api.Get(t.Context(), client.ObjectKeyFromObject(server), live); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"observedGeneration": int64(-1)}
	if got := live.Object["status"]; !reflect.DeepEqual(got, want) {
		t.Errorf("a new server's status is %v, want %v", got, want)
	}
}

func loadCases(t *testing.T) []plantest.Case {
	t.Helper()
	cases, err := plantest.Load()
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("there are no golden cases")
	}
	return cases
}

func newNamespace(t *testing.T) string {
	t.Helper()
	namespace := &corev1.Namespace{}
	namespace.GenerateName = "roundtrip-"
	if err := api.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	return namespace.Name
}
