package controllers_test

import (
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

func TestOpenReports(t *testing.T) {
	o := exclusive(t)
	server := example(newNamespace(t), "web")
	server.Spec.Image = foreignImage
	settled(t, o, server)
	serve(t, apiextensionsv1.NamespaceScoped, compliance.OpenReportKind, "reports") // with a cluster that has been up for a while
	report := &unstructured.Unstructured{}
	report.SetGroupVersionKind(compliance.OpenReportKind)
	report.SetNamespace(server.Namespace)
	report.SetName(compliance.OpenReportName(server.Name))
	resultOf := func(id string) string {
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(report), report); err != nil {
			return err.Error()
		}
		results, _, _ := unstructured.NestedSlice(report.Object, "results")
		for _, result := range results {
			if result := result.(map[string]any); result["policy"] == id {
				return result["result"].(string)
			}
		}
		return "none"
	}
	eventually(t, func() string { return differs(resultOf("SEC-01"), "pass") })
	if owners := report.GetOwnerReferences(); len(owners) != 1 || owners[0].UID != server.UID {
		t.Errorf("owners %v", owners)
	}
	newPolicy(t, server.Namespace, v1alpha1.PolicyAudit, nil)
	eventually(t, func() string { return differs(resultOf("IMG-01"), "fail") })
	o.calm(t, server.Namespace)
	before := len(o.writes(server.Namespace))
	edit(t, server, func(s *v1alpha1.MCPServer) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, "example.com/note", "x") })
	o.calm(t, server.Namespace)
	if n := len(o.writes(server.Namespace)) - before; n != 0 {
		t.Errorf("%d writes for nothing", n)
	}
	get(t, server)
	fails, _, _ := unstructured.NestedInt64(report.Object, "summary", "fail")
	if fails != int64(server.Status.Compliance.Failed) {
		t.Errorf("the summary tells of %d failed controls, the status of %d", fails, server.Status.Compliance.Failed)
	}
	remove(t, server)
	waitGone(t, report)
}
