package controllers_test

import (
	"errors"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// What the operator may not read any more is Unknown, whatever it knew before, and known again as soon as it may.
func TestWithheldInformationIsUnknown(t *testing.T) {
	o := exclusive(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	server := example(namespace, "web")
	create(t, secretOf(namespace, "source", map[string]string{"token": "not-a-real-value"}))
	server.Spec.Env = []v1alpha1.EnvVar{{Name: "TOKEN", ValueFrom: &v1alpha1.EnvVarSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "source", Key: "token"}}}}
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonServing)
	newPolicy(t, namespace, v1alpha1.PolicyAudit, func(p *v1alpha1.MCPPolicySpec) {
		p.Secrets = &v1alpha1.SecretPolicy{Sharing: v1alpha1.SharingSelectedNamespaces}
	})
	for resource, ids := range map[string][]v1alpha1.ControlID{
		"pods":                {"POD-01", "POD-02", "POD-05", "POD-13", "POD-14", "NET-01", "NET-02", "IMG-03", "ACC-01"},
		"networkpolicies":     {"NET-01", "NET-02", "NET-03", "NET-06"},
		"services":            {"ACC-01", "ACC-02"},
		"ingresses":           {"ACC-02"},
		"rolebindings":        {"ACC-05"},
		"clusterrolebindings": {"ACC-05"},
		"serviceaccounts":     {"ACC-06"},
		"namespaces":          {"OPS-03", "IMG-01"},
		"mcppolicies":         {"IMG-01"},

		// What the plan is made from, and compared with.
		"deployments":          {"NET-05", "SEC-06", "OPS-05"},
		"poddisruptionbudgets": {"OPS-05"},
		"nodes":                {"NET-05", "OPS-05"},
		"secrets":              {"SEC-05", "SEC-06", "SEC-07"},
	} {
		t.Run(resource, func(t *testing.T) {
			o.before(func(r request) error {
				if r.resource == resource && r.verb == "list" {
					return errors.New("a test withholds this")
				}
				return nil
			})
			for _, id := range ids {
				got := waitControl(t, server, id, v1alpha1.ControlUnknown)
				if !strings.Contains(got.Message, "withholds") {
					t.Errorf("%s does not say why: %s", id, got.Message)
				}
			}
			if c := condition(server, v1alpha1.ConditionPolicyCompliant); c.Status == metav1.ConditionTrue {
				t.Errorf("PolicyCompliant is %s: %s", c.Status, c.Message)
			}
			o.before(nil)
			for _, id := range ids {
				eventually(t, func() string {
					get(t, server)
					if got := control(server, id); got.Result == v1alpha1.ControlUnknown && strings.Contains(got.Message, "withholds") {
						return string(id) + " is still unknown"
					}
					return ""
				})
			}
		})
	}
}
