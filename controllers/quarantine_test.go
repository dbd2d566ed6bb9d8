package controllers_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// copiesOf are the Secrets that hold values for a server.
func copiesOf(t *testing.T, server *v1alpha1.MCPServer) []string {
	t.Helper()
	list := &corev1.SecretList{}
	if err := admin.List(t.Context(), list, client.InNamespace(server.Namespace), client.MatchingLabels(plan.SelectorLabels(server.Name))); err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range list.Items {
		out = append(out, list.Items[i].Name)
	}
	return out
}

func TestQuarantineWithdrawsTheSecrets(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	token, file := secretOf(namespace, "token", map[string]string{"token": "one"}), secretOf(namespace, "db", map[string]string{"password": "p1"})
	create(t, token)
	create(t, file)
	server := withToken(namespace, "web", "token", "token")
	server.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets/db", SecretRef: v1alpha1.SecretKeys{Name: "db", Keys: []v1alpha1.DataKey{"password"}}}}
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonServing)
	o.calm(t, namespace)
	if got := copiesOf(t, server); len(got) != 2 {
		t.Fatalf("copies %v, want a snapshot and a copy of the file", got)
	}

	set := func(state v1alpha1.DesiredState) {
		t.Helper()
		edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = state })
	}
	set(v1alpha1.StateQuarantined)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonQuarantined)
	withdrawn := func() string {
		if got := copiesOf(t, server); len(got) > 0 {
			return fmt.Sprintf("%v can still be mounted", got)
		}
		return ""
	}
	eventually(t, withdrawn)
	get(t, server)
	evidence := server.Status.Quarantine
	if evidence == nil || len(evidence.Pods) != 2 || evidence.Pods[0].UID == "" || evidence.Since.IsZero() {
		t.Fatalf("the evidence: %+v", evidence)
	}
	pods := &corev1.PodList{}
	if err := admin.List(t.Context(), pods, client.InNamespace(namespace)); err != nil || len(pods.Items) != 2 {
		t.Errorf("%d pods are kept (%v), want 2", len(pods.Items), err)
	}
	setKey(t, token, "token", "two") // nothing is copied while it lasts
	remove(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: evidence.Pods[0].Name}})
	o.calm(t, namespace)
	if problem := withdrawn(); problem != "" {
		t.Error(problem)
	}
	get(t, server)
	if got := server.Status.Quarantine.Pods; len(got) < 2 || got[0].Name != evidence.Pods[0].Name && got[1].Name != evidence.Pods[0].Name && got[2].Name != evidence.Pods[0].Name {
		t.Errorf("the evidence does not tell of the pod that is gone: %+v", got)
	}
	setKey(t, token, "token", "one")

	set(v1alpha1.StateRunning)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonServing)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	o.calm(t, namespace)
	if got := copiesOf(t, server); len(got) != 2 {
		t.Errorf("after the release there are %v, want both copies", got)
	}
	get(t, server)
	if server.Status.Quarantine != nil {
		t.Error("the evidence outlived the quarantine")
	}

	set(v1alpha1.StateQuarantined)
	eventually(t, withdrawn)
	setKey(t, token, "token", "three")
	set(v1alpha1.StateRunning)
	eventually(t, func() string {
		get(t, server)
		if c := condition(server, v1alpha1.ConditionSecretsCurrent); c.Status != metav1.ConditionTrue || c.ObservedGeneration != server.Generation {
			return c.Reason + ": " + c.Message
		}
		return differs(valueOf(t, server), "three")
	})
}

// valueOf is what the snapshot in use holds.
func valueOf(t *testing.T, server *v1alpha1.MCPServer) string {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: server.Namespace, Name: plan.SnapshotName(server.Name, deploymentOf(t, server).Spec.Template.Labels[plan.LabelSnapshot])}}
	if !exists(t, secret) {
		return "no snapshot"
	}
	return string(secret.Data["TOKEN"])
}
