package controllers

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func TestVerdictMetrics(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	server := func(namespace, name string, compliant metav1.ConditionStatus, results ...v1alpha1.ControlResult) *v1alpha1.MCPServer {
		out := &v1alpha1.MCPServer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		if compliant != "" {
			out.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionPolicyCompliant, Status: compliant}}
		}
		for i, result := range results {
			if out.Status.Compliance == nil {
				out.Status.Compliance = &v1alpha1.ComplianceStatus{}
			}
			out.Status.Compliance.Controls = append(out.Status.Compliance.Controls, v1alpha1.ControlStatus{
				ID: []v1alpha1.ControlID{"IMG-01", "IMG-02"}[i], Result: result, Severity: v1alpha1.SeverityHigh,
			})
		}
		return out
	}
	reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(
		server("a", "new", ""),
		server("a", "good", metav1.ConditionTrue, v1alpha1.ControlPass, v1alpha1.ControlExempted),
		server("a", "bad", metav1.ConditionFalse, v1alpha1.ControlFail, v1alpha1.ControlPass),
		server("a", "worse", metav1.ConditionFalse, v1alpha1.ControlFail, v1alpha1.ControlUnknown),
		server("b", "bad", metav1.ConditionFalse, v1alpha1.ControlFail, v1alpha1.ControlPass),
	).Build()
	want := `
# HELP mcp_warden_controls_not_passed_servers Number of MCPServers of a namespace for which a control does not pass, by its result: Fail, Unknown or Exempted.
# TYPE mcp_warden_controls_not_passed_servers gauge
mcp_warden_controls_not_passed_servers{control="IMG-01",namespace="a",result="Fail",severity="High"} 2
mcp_warden_controls_not_passed_servers{control="IMG-01",namespace="b",result="Fail",severity="High"} 1
mcp_warden_controls_not_passed_servers{control="IMG-02",namespace="a",result="Exempted",severity="High"} 1
mcp_warden_controls_not_passed_servers{control="IMG-02",namespace="a",result="Unknown",severity="High"} 1
# HELP mcp_warden_servers Number of MCPServers, by namespace and by the status of their condition PolicyCompliant.
# TYPE mcp_warden_servers gauge
mcp_warden_servers{compliant="False",namespace="a"} 2
mcp_warden_servers{compliant="False",namespace="b"} 1
mcp_warden_servers{compliant="True",namespace="a"} 1
mcp_warden_servers{compliant="Unknown",namespace="a"} 1
`
	if err := testutil.CollectAndCompare(&verdicts{reader}, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
