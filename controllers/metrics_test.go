package controllers

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
	if err := testutil.CollectAndCompare(newStatusMetrics(reader), strings.NewReader(want), "mcp_warden_controls_not_passed_servers", "mcp_warden_servers"); err != nil {
		t.Error(err)
	}
}

func TestConditionMetrics(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	server := func(namespace, name string, conditions ...metav1.Condition) *v1alpha1.MCPServer {
		return &v1alpha1.MCPServer{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Status: v1alpha1.MCPServerStatus{Conditions: conditions}}
	}
	secrets := func(status metav1.ConditionStatus, reason string) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.ConditionSecretsCurrent, Status: status, Reason: reason}
	}
	old := secrets(metav1.ConditionFalse, v1alpha1.ReasonTooOld)
	one, two := server("a", "one", old), server("a", "two", old)
	reader := fake.NewClientBuilder().WithScheme(scheme).WithObjects(one, two, server("b", "new"), server("b", "odd",
		secrets(metav1.ConditionTrue, "WhatSomebodyWrote"), metav1.Condition{Type: "SomebodyElses", Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCurrent})).Build()
	m := newStatusMetrics(reader)
	compliant := metav1.Condition{Type: v1alpha1.ConditionPolicyCompliant, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompliant}
	failing := compliant
	failing.Status, failing.Reason = metav1.ConditionFalse, v1alpha1.ReasonControlsFailed
	told := failing
	told.Message = "says more"
	m.changed(one, nil, []metav1.Condition{failing})                      // its first status
	m.changed(one, []metav1.Condition{failing}, []metav1.Condition{told}) // nothing turned
	m.changed(one, []metav1.Condition{compliant}, []metav1.Condition{told})
	m.changed(two, []metav1.Condition{compliant, old}, []metav1.Condition{failing, old})
	m.changed(server("gone", "x"), []metav1.Condition{compliant}, []metav1.Condition{failing})
	want := `
# HELP mcp_warden_condition_changes_total How often conditions of MCPServers of a namespace turned to a status and a reason, as written by this replica.
# TYPE mcp_warden_condition_changes_total counter
mcp_warden_condition_changes_total{condition="PolicyCompliant",namespace="a",reason="ControlsFailed",status="False"} 2
mcp_warden_condition_changes_total{condition="PolicyCompliant",namespace="b",reason="ControlsFailed",status="False"} 0
mcp_warden_condition_changes_total{condition="SecretsCurrent",namespace="a",reason="Rotating",status="False"} 0
mcp_warden_condition_changes_total{condition="SecretsCurrent",namespace="a",reason="RotationRolledBack",status="False"} 0
mcp_warden_condition_changes_total{condition="SecretsCurrent",namespace="b",reason="Rotating",status="False"} 0
mcp_warden_condition_changes_total{condition="SecretsCurrent",namespace="b",reason="RotationRolledBack",status="False"} 0
# HELP mcp_warden_conditions_servers Number of MCPServers of a namespace whose condition has a status and a reason.
# TYPE mcp_warden_conditions_servers gauge
mcp_warden_conditions_servers{condition="SecretsCurrent",namespace="a",reason="TooOld",status="False"} 2
mcp_warden_conditions_servers{condition="SecretsCurrent",namespace="b",reason="Other",status="True"} 1
`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want), "mcp_warden_conditions_servers", "mcp_warden_condition_changes_total"); err != nil {
		t.Error(err)
	}
	if len(m.changes) != 1 {
		t.Errorf("what changed in a namespace without servers is remembered: %v", m.changes)
	}
}

// A condition or reason that is new must be told of.
func TestMetricsKnowEveryCondition(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join("..", "api", "v1alpha1", "status_types.go"))
	if err != nil {
		t.Fatal(err)
	}
	for name, known := range map[string][]string{"Condition": metricConditions, "Reason": metricReasons} {
		found := regexp.MustCompile(`(?m)^\t`+name+`\w+ += "(\w+)"`).FindAllStringSubmatch(string(raw), -1)
		if len(found) != len(known) {
			t.Errorf("the API has %d constants %s..., the metrics know %d", len(found), name, len(known))
		}
		for _, match := range found {
			if !slices.Contains(known, match[1]) {
				t.Errorf("the metrics do not know %s%s", name, match[1])
			}
		}
	}
}

// A scrape must not wait for its numbers. 2,000 servers with a full status each are counted.
func BenchmarkStatusMetrics(b *testing.B) {
	list := &v1alpha1.MCPServerList{}
	for i := range 2000 {
		server := v1alpha1.MCPServer{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("n", i%50), Name: fmt.Sprint("s", i)}}
		for _, condition := range metricConditions {
			server.Status.Conditions = append(server.Status.Conditions, metav1.Condition{Type: condition, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonCompliant})
		}
		server.Status.Compliance = &v1alpha1.ComplianceStatus{}
		for c := range 40 {
			server.Status.Compliance.Controls = append(server.Status.Compliance.Controls, v1alpha1.ControlStatus{
				ID: v1alpha1.ControlID(fmt.Sprintf("POD-%02d", c)), Result: []v1alpha1.ControlResult{v1alpha1.ControlPass, v1alpha1.ControlUnknown}[c%2], Severity: v1alpha1.SeverityHigh})
		}
		list.Items = append(list.Items, server)
	}
	m := newStatusMetrics(listReader{items: list.Items})
	for b.Loop() {
		testutil.CollectAndCount(m)
	}
}

// listReader answers as a cache does that copies nothing.
type listReader struct {
	client.Reader
	items []v1alpha1.MCPServer
}

func (r listReader) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*v1alpha1.MCPServerList).Items = r.items
	return nil
}
