package plan

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	acnetworkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// BaselineName is the name of the NetworkPolicy that closes every server pod of a namespace.
const BaselineName = "mcp-warden-default-deny"

// Baseline is the baseline of a namespace, as every plan in it holds it.
func Baseline(namespace string) Object {
	return Object{Kind: "NetworkPolicy", Name: BaselineName, Namespace: namespace, Config: baseline(namespace)}
}

// baseline closes both ways for every server pod of the namespace and opens nothing. It has no
// owner: when an MCPServer is deleted, its own policy goes at once, while its pods may still run for
// their grace period; the baseline keeps them closed until the last one is gone.
func baseline(namespace string) *acnetworkingv1.NetworkPolicyApplyConfiguration {
	return acnetworkingv1.NetworkPolicy(BaselineName, namespace).
		WithLabels(map[string]string{LabelManagedBy: ManagedBy}).
		WithSpec(acnetworkingv1.NetworkPolicySpec().
			WithPodSelector(acmetav1.LabelSelector().
				WithMatchLabels(map[string]string{LabelManagedBy: ManagedBy}).
				WithMatchExpressions(acmetav1.LabelSelectorRequirement().
					WithKey(LabelServer).WithOperator("Exists"))).
			WithPolicyTypes(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress))
}

// networkPolicy closes both ways for the server's pods and opens what its spec names; nothing
// unless it is to run.
func (b builder) networkPolicy(egress []*acnetworkingv1.NetworkPolicyEgressRuleApplyConfiguration) *acnetworkingv1.NetworkPolicyApplyConfiguration {
	spec := acnetworkingv1.NetworkPolicySpec().
		WithPodSelector(b.selector()).
		WithPolicyTypes(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress)
	if b.state() == v1alpha1.StateRunning {
		if ingress := b.ingress(); ingress != nil {
			spec.WithIngress(ingress)
		}
		if b.gatewayImage != "" {
			spec.WithIngress(b.adminRule())
		}
		spec.WithEgress(egress...)
		if b.probeImage != "" {
			spec.WithEgress(b.canaryRule())
		}
	}
	return acnetworkingv1.NetworkPolicy(b.server.Name, b.server.Namespace).
		WithLabels(b.labels()).
		WithOwnerReferences(b.owner()).
		WithSpec(spec)
}

// ingress opens the gateway's port, without a gateway the server's, to the peers that the spec names; nil without any.
func (b builder) ingress() *acnetworkingv1.NetworkPolicyIngressRuleApplyConfiguration {
	network := b.server.Spec.Network
	if network == nil || len(network.Ingress) == 0 {
		return nil
	}
	rule := acnetworkingv1.NetworkPolicyIngressRule().
		WithPorts(policyPort(corev1.ProtocolTCP, intstr.FromInt32(b.clientPort())))
	for i := range network.Ingress {
		rule.WithFrom(podPeer(&network.Ingress[i]))
	}
	return rule
}

func podPeer(peer *v1alpha1.PodPeer) *acnetworkingv1.NetworkPolicyPeerApplyConfiguration {
	out := acnetworkingv1.NetworkPolicyPeer()
	if peer.NamespaceSelector != nil {
		out.WithNamespaceSelector(convert[acmetav1.LabelSelectorApplyConfiguration](peer.NamespaceSelector))
	}
	if peer.PodSelector != nil {
		out.WithPodSelector(convert[acmetav1.LabelSelectorApplyConfiguration](peer.PodSelector))
	}
	return out
}

func policyPort(protocol corev1.Protocol, port intstr.IntOrString) *acnetworkingv1.NetworkPolicyPortApplyConfiguration {
	return acnetworkingv1.NetworkPolicyPort().WithProtocol(protocol).WithPort(port)
}
