package compliance

import (
	"testing"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func TestSelecting(t *testing.T) {
	policy := func(name string, selector v1alpha1.LabelSelector) v1alpha1.MCPPolicy {
		p := v1alpha1.MCPPolicy{Spec: v1alpha1.MCPPolicySpec{NamespaceSelector: selector}}
		p.Name = name
		return p
	}
	expression := func(operator v1alpha1.LabelSelectorOperator, values ...v1alpha1.LabelValue) v1alpha1.LabelSelector {
		return v1alpha1.LabelSelector{MatchExpressions: []v1alpha1.LabelSelectorRequirement{{Key: "env", Operator: operator, Values: values}}}
	}
	policies := []v1alpha1.MCPPolicy{
		policy("not-test", expression("NotIn", "test")),
		policy("all", v1alpha1.LabelSelector{}),
		policy("prod", v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"env": "prod"}}),
		policy("labelled", expression("Exists")),
	}
	for labels, want := range map[string][]string{"prod": {"all", "labelled", "not-test", "prod"}, "test": {"all", "labelled"}, "": {"all", "not-test"}} {
		set := map[string]string{}
		if labels != "" {
			set["env"] = labels
		}
		got, err := Selecting(policies, set)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("env=%q: %d policies, want %v", labels, len(got), want)
		}
		for i := range got {
			if got[i].Name != want[i] {
				t.Errorf("env=%q: policy %d is %s, want %s", labels, i, got[i].Name, want[i])
			}
		}
	}
	if _, err := Selecting([]v1alpha1.MCPPolicy{policy("odd", expression("In"))}, nil); err == nil {
		t.Error("a selector that is not valid selects something")
	}
}

func TestContradiction(t *testing.T) {
	images := func(patterns ...v1alpha1.RepositoryPattern) *v1alpha1.MCPPolicySpec {
		return &v1alpha1.MCPPolicySpec{Images: &v1alpha1.ImagePolicy{AllowedRepositories: patterns}}
	}
	classes := func(names ...v1alpha1.ObjectName) *v1alpha1.MCPPolicySpec {
		return &v1alpha1.MCPPolicySpec{Pods: &v1alpha1.PodPolicy{AllowedRuntimeClassNames: names}}
	}
	for _, tc := range []struct {
		a, b *v1alpha1.MCPPolicySpec
		want bool
	}{
		{images("ghcr.io/a/*"), images("ghcr.io/b/*"), true},
		{images("ghcr.io/a/*"), images("ghcr.io/a/b/*"), false},
		{images("ghcr.io/a/b"), images("docker.io/x/*", "ghcr.io/a/*"), false},
		{images("ghcr.io/a/b"), images(), false},
		{classes("gvisor"), classes("kata"), true},
		{classes("gvisor"), classes("kata", "gvisor"), false},
		{classes("gvisor"), images("ghcr.io/a/*"), false},
	} {
		if got := Contradiction(tc.a, tc.b); (got != "") != tc.want || (Contradiction(tc.b, tc.a) != "") != tc.want {
			t.Errorf("%v and %v: %q, want a contradiction: %v", tc.a, tc.b, got, tc.want)
		}
	}
}
