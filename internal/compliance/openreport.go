package compliance

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// OpenReportKind is the kind of reports that dashboards of policies read (openreports.io).
var OpenReportKind = schema.GroupVersionKind{Group: "openreports.io", Version: "v1alpha1", Kind: "Report"}

// openReportResults are OpenReports' words for results: what could not be told is an error, what is excused is skipped.
var openReportResults = map[v1alpha1.ControlResult]string{
	v1alpha1.ControlPass: "pass", v1alpha1.ControlFail: "fail", v1alpha1.ControlUnknown: "error", v1alpha1.ControlExempted: "skip",
}

// OpenReportName is the name of a server's Report.
func OpenReportName(server string) string { return "mcp-warden-" + server }

// OpenReport is the verdict that a server's status shows, as a Report; nil where nobody judged it. The same status
// makes the same Report: the time of its results is that at which the verdict as a whole last turned.
func OpenReport(server *v1alpha1.MCPServer) *unstructured.Unstructured {
	verdict := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionPolicyCompliant)
	if server.Status.Compliance == nil || verdict == nil {
		return nil
	}
	out := &unstructured.Unstructured{Object: map[string]any{}}
	out.SetGroupVersionKind(OpenReportKind)
	out.SetNamespace(server.Namespace)
	out.SetName(OpenReportName(server.Name))
	out.SetLabels(map[string]string{plan.LabelManagedBy: plan.ManagedBy, plan.LabelServer: server.Name})
	out.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(server, v1alpha1.GroupVersion.WithKind("MCPServer"))})
	out.Object["source"] = "mcp-warden"
	out.Object["scope"] = map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "MCPServer",
		"namespace": server.Namespace, "name": server.Name, "uid": string(server.UID),
	}
	counts := server.Status.Compliance
	out.Object["summary"] = map[string]any{
		"pass": int64(counts.Passed), "fail": int64(counts.Failed), "warn": int64(0), "error": int64(counts.Unknown), "skip": int64(counts.Exempted),
	}
	var results []any
	for i := range counts.Controls {
		results = append(results, openReportResult(&counts.Controls[i], verdict.LastTransitionTime.Unix()))
	}
	out.Object["results"] = results
	return out
}

func openReportResult(control *v1alpha1.ControlStatus, seconds int64) map[string]any {
	family, _, _ := strings.Cut(string(control.ID), "-")
	out := map[string]any{
		"source": "mcp-warden", "policy": string(control.ID), "category": family, "scored": true,
		"severity": strings.ToLower(string(control.Severity)), "result": openReportResults[control.Result],
		"timestamp": map[string]any{"seconds": seconds, "nanos": int64(0)},
	}
	if control.Message != "" {
		out["message"] = control.Message
	}
	return out
}
