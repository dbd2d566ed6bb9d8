package plan_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"

	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// Every pod meets the Pod Security Standard "restricted", as the admission plugin itself judges it.
func TestPodSecurityStandardRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	versions := []api.Version{
		api.MajorMinorVersion(1, 33), api.MajorMinorVersion(1, 34), api.MajorMinorVersion(1, 35),
		api.MajorMinorVersion(1, 36), api.LatestVersion(),
	}
	templates := map[string]corev1.PodTemplateSpec{}
	for _, tc := range cases(t) {
		tc.Input.Secrets.Hold, tc.Input.Facts.Isolation.Result = nil, probe.Proven // judged as it will be
		if !tc.Input.Facts.EgressProxy.Address.IsValid() {
			tc.Input.Facts.EgressProxy = plan.EgressProxyFacts{Address: netip.MustParseAddr("10.96.7.7"), Credential: "digest"}
		}
		templates[tc.Name] = deploymentOf(t, tc.Input).Spec.Template
	}
	for _, tc := range egressCases(t) {
		templates["egress proxy, "+tc.Name] = unpack[appsv1.Deployment](t, egressProxy(t, tc.Input).Objects, "Deployment").Spec.Template
	}
	for name, template := range templates {
		for _, version := range versions {
			t.Run(name+"/"+version.String(), func(t *testing.T) {
				results := evaluator.EvaluatePod(api.LevelVersion{Level: api.LevelRestricted, Version: version}, &template.ObjectMeta, &template.Spec)
				if got := policy.AggregateCheckResults(results); !got.Allowed {
					t.Errorf("violates the standard: %s", got.ForbiddenDetail())
				}
			})
		}
	}
}

func deploymentOf(t *testing.T, in plan.Input) *appsv1.Deployment {
	t.Helper()
	p, errs := plan.Build(in)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	raw, err := json.Marshal(p.Objects[len(p.Objects)-1].Config)
	if err != nil {
		t.Fatal(err)
	}
	out := &appsv1.Deployment{}
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatal(err)
	}
	if out.Kind != "Deployment" || len(out.Spec.Template.Spec.Containers) == 0 {
		t.Fatal("the last object of the plan is no Deployment with a container")
	}
	return out
}
