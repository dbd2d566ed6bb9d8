package controllers_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// openUp lets the pods of a server out to everywhere, and waits until that is put right.
func openUp(t *testing.T, server *v1alpha1.MCPServer) {
	t.Helper()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: named(server)}
	edit(t, policy, func(p *networkingv1.NetworkPolicy) {
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
	})
	eventually(t, func() string {
		get(t, policy)
		if len(policy.Spec.Egress) > 0 {
			return "the NetworkPolicy still opens everything"
		}
		return ""
	})
}

// TestConflictLeavesNothingUnguarded takes one object away from a server that is up.
func TestConflictLeavesNothingUnguarded(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: "owner"}}
	create(t, config)
	account := &corev1.ServiceAccount{ObjectMeta: named(server)}
	edit(t, account, func(a *corev1.ServiceAccount) {
		a.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: config.Name, UID: config.UID, Controller: new(true)}}
	})
	waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonNameConflict)
	openUp(t, server)
	get(t, account)
	if account.OwnerReferences[0].Kind != "ConfigMap" {
		t.Error("the foreign object was touched")
	}
}

// TestServerHeldByFinalizerIsGuarded deletes a server that somebody's finalizer keeps.
func TestServerHeldByFinalizerIsGuarded(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Finalizers = []string{"example.com/hold"}
	settled(t, o, server)
	defer edit(t, server, func(s *v1alpha1.MCPServer) { s.Finalizers = nil })
	remove(t, server)
	openUp(t, server)
}
