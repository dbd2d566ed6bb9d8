package controllers_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// openUp lets everybody in and the pods of a server out to everywhere, and waits until that is put right.
func openUp(t *testing.T, server *v1alpha1.MCPServer) {
	t.Helper()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: named(server)}
	get(t, policy)
	planned := policy.Spec.DeepCopy()
	edit(t, policy, func(p *networkingv1.NetworkPolicy) {
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
		p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
	})
	eventually(t, func() string {
		get(t, policy)
		if !equality.Semantic.DeepEqual(&policy.Spec, planned) {
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

// TestQuarantineOfAnInvalidSpec closes a server whose spec could not be met.
func TestQuarantineOfAnInvalidSpec(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Spec.Network = &v1alpha1.Network{
		Ingress: []v1alpha1.PodPeer{{PodSelector: &v1alpha1.LabelSelector{}}},
		Egress:  []v1alpha1.EgressRule{{To: v1alpha1.EgressTarget{CIDR: "203.0.113.0/24"}, Ports: []int32{443}}},
	}
	settled(t, o, server)
	edit(t, server, func(s *v1alpha1.MCPServer) {
		s.Spec.Filesystem = &v1alpha1.Filesystem{WritablePaths: []v1alpha1.WritablePath{{Path: "/tmp", SizeLimit: new(resource.MustParse("8Gi"))}}}
	})
	waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonInvalidSpec)
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateQuarantined })
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonQuarantined)
	policy := &networkingv1.NetworkPolicy{ObjectMeta: named(server)}
	get(t, policy)
	if len(policy.Spec.Ingress)+len(policy.Spec.Egress) > 0 {
		t.Errorf("the quarantined server is open: %+v", policy.Spec)
	}
	openUp(t, server) // where the plan holds no rule at all
}
