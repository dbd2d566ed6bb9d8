package controllers_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// planted is a password of a spec. It may stand in the spec and in the Deployment, and nowhere else.
const planted = "tr0ub4dor&planted"

// plantedInLogs keeps what the operators under test log, where it has the planted value in it.
type plantedInLogs struct {
	mu    sync.Mutex
	lines []string
}

var logs plantedInLogs

// Write is called once for each line.
func (l *plantedInLogs) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("planted")) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, string(line))
	}
	return len(line), nil
}

// notRepeated fails the test where the planted value, or a part of it, is told.
func notRepeated(t *testing.T, server *v1alpha1.MCPServer) {
	t.Helper()
	get(t, server)
	events := &eventsv1.EventList{}
	if err := admin.List(t.Context(), events, client.InNamespace(server.Namespace)); err != nil {
		t.Fatalf("list events: %v", err)
	}
	for what, of := range map[string]any{"status": server.Status, "events": events.Items} {
		raw, err := json.Marshal(of)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(raw, []byte("planted")) || bytes.Contains(raw, []byte("tr0ub4dor")) {
			t.Errorf("the %s repeats the value: %s", what, raw)
		}
	}
	logs.mu.Lock()
	defer logs.mu.Unlock()
	for _, line := range logs.lines {
		t.Errorf("the log repeats the value: %s", line)
	}
}

func TestLiteralCredential(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Spec.Env = []v1alpha1.EnvVar{{Name: "LOG_LEVEL", Value: new("info")}, {Name: "DB_PASSWORD", Value: new(planted)}}
	server.Spec.Args = []string{"--dsn", "postgres://app:" + planted + "@db/app"}
	create(t, server)
	c := waitReason(t, server, v1alpha1.ConditionNoLiteralCredentials, v1alpha1.ReasonLiteralCredentialFound)
	for _, part := range []string{"spec.env[DB_PASSWORD].value", "spec.args[1]", "valueFrom.secretKeyRef"} {
		if c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, part) {
			t.Errorf("%s: %s; want %s in it", c.Status, c.Message, part)
		}
	}
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable) // a verdict stops nothing
	o.calm(t, server.Namespace)
	if events := eventsOf(t, server, v1alpha1.ReasonLiteralCredentialFound); len(events) != 1 || events[0].Type != corev1.EventTypeWarning {
		t.Errorf("%d events of it, want one warning", len(events))
	}
	notRepeated(t, server)

	edit(t, server, func(s *v1alpha1.MCPServer) {
		s.Spec.Env, s.Spec.Args = s.Spec.Env[:1], []string{"--dsn", "postgres://app@db/app"}
	})
	if c := waitReason(t, server, v1alpha1.ConditionNoLiteralCredentials, v1alpha1.ReasonNoneFound); c.Status != metav1.ConditionTrue {
		t.Errorf("it is gone, and the verdict is %s: %s", c.Status, c.Message)
	}
}

// An admission policy may quote what it refuses, and so may the API server.
func TestRefusalsRepeatNoValue(t *testing.T) {
	parallel(t)
	namespace := newNamespace(t)
	meta := metav1.ObjectMeta{Name: "quote-" + namespace}
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: new(admissionv1.Fail), MatchConstraints: onlyIn(namespace, "apps", "deployments"),
		Validations: []admissionv1.Validation{{
			Expression:        "!object.spec.template.spec.containers[0].env.exists(e, e.name == 'DB_PASSWORD')",
			MessageExpression: "'refused because of ' + object.spec.template.spec.containers[0].env.map(e, e.value).join(', ')",
		}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: meta.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	create(t, policy)
	create(t, binding)
	removeLater(t, policy)
	removeLater(t, binding)
	probe := foreigners(example(namespace, "probe"))[4].(*appsv1.Deployment)
	probe.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "DB_PASSWORD", Value: "x"}}
	refused := func(message string) bool { return strings.Contains(message, "refused because of") }
	eventually(t, func() string {
		if err := admin.Create(t.Context(), probe.DeepCopy(), client.DryRunAll); err == nil || !refused(err.Error()) {
			return "the policy is not in force yet"
		}
		return ""
	})
	server := example(namespace, "web")
	server.Spec.Env = []v1alpha1.EnvVar{{Name: "DB_PASSWORD", Value: new(planted)}}
	create(t, server)
	eventually(t, func() string {
		get(t, server)
		if c := condition(server, v1alpha1.ConditionReady); !refused(c.Message) || !strings.Contains(c.Message, "[redacted]") {
			return "Ready says " + c.Reason + ": " + c.Message
		}
		return ""
	})
	eventually(t, func() string {
		if len(eventsOf(t, server, v1alpha1.ReasonRejected)) == 0 {
			return "no event tells of it"
		}
		return ""
	})
	notRepeated(t, server)
}
