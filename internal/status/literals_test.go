package status

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
)

func literals(r *credentials.Report) func(*Input) {
	return func(in *Input) { in.Literals = r }
}

func finding(field string) credentials.Finding {
	return credentials.Finding{Field: field, Rule: "github-pat", Description: "GitHub Personal Access Token"}
}

func TestNoLiteralCredentials(t *testing.T) {
	many := &credentials.Report{More: 5}
	for i := range 16 {
		many.Findings = append(many.Findings, finding(fmt.Sprintf("spec.env[%s%d].value", strings.Repeat("A", 250), i)))
	}
	for _, tc := range []struct {
		name   string
		report *credentials.Report
		want   string
		says   []string
	}{
		{"nothing", &credentials.Report{}, "True NoneFound", []string{"No literal credential"}},
		{"one", &credentials.Report{Findings: []credentials.Finding{finding("spec.args[3]")}}, "False LiteralCredentialFound",
			[]string{"spec.args[3] (GitHub Personal Access Token, rule github-pat).", "valueFrom.secretKeyRef", "secretFiles", "$(NAME)"}},
		{"many", many, "False LiteralCredentialFound", []string{"and 20 more.", "valueFrom.secretKeyRef", "replace it."}},
		{"too large", &credentials.Report{Unchecked: []string{"spec.env[A].value"}}, "Unknown NotAllChecked", []string{"spec.env[A].value", "filesystem.data"}},
		{"one, and too large", &credentials.Report{Findings: []credentials.Finding{finding("spec.args[3]")}, Unchecked: []string{"spec.env[A].value"}}, "False LiteralCredentialFound", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Compute(input(literals(tc.report)))
			c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionNoLiteralCredentials)
			if c == nil || fmt.Sprintf("%s %s", c.Status, c.Reason) != tc.want || c.ObservedGeneration != 3 {
				t.Fatalf("got %+v, want %s", c, tc.want)
			}
			for _, part := range tc.says {
				if !strings.Contains(c.Message, part) || strings.HasSuffix(c.Message, "...") {
					t.Errorf("says %q, want %q in it", c.Message, part)
				}
			}
			if ready := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReady); ready.Status != metav1.ConditionTrue {
				t.Errorf("a finding stops nothing, and Ready is %s", ready.Status)
			}
		})
	}
}

func TestLiteralCredentialsAreToldOnce(t *testing.T) {
	status := func(r *credentials.Report) *v1alpha1.MCPServerStatus { return new(Compute(input(literals(r)))) }
	clean, one := status(&credentials.Report{}), status(&credentials.Report{Findings: []credentials.Finding{finding("spec.args[3]")}})
	two := status(&credentials.Report{Findings: []credentials.Finding{finding("spec.args[3]"), finding("spec.args[4]")}})
	if events := Transitions(clean, one); len(events) != 1 || events[0].Type != corev1.EventTypeWarning || events[0].Reason != v1alpha1.ReasonLiteralCredentialFound || !strings.Contains(events[0].Note, "spec.args[3]") {
		t.Errorf("events %+v", events)
	}
	for name, events := range map[string][]Event{"the same": Transitions(one, one), "another": Transitions(one, two), "none any more": Transitions(one, clean), "none at first": Transitions(&v1alpha1.MCPServerStatus{Conditions: one.Conditions[:3]}, clean)} {
		if len(events) > 0 {
			t.Errorf("%s: events %+v", name, events)
		}
	}
}

// The kubelet and the scheduler may quote what the spec says.
func TestTroubleRepeatsNoValue(t *testing.T) {
	in := input(waiting("RunContainerError", `exec: "--password=hunter2hunter2": stat --password=hunter2hunter2: no such file`))
	in.Server.Spec.Args = []string{"--password=hunter2hunter2"}
	c := meta.FindStatusCondition(Compute(in).Conditions, v1alpha1.ConditionReady)
	if strings.Contains(c.Message, "hunter2") || !strings.Contains(c.Message, "no such file") {
		t.Errorf("Ready says %q", c.Message)
	}
}
