package compliance_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// another adds a NetworkPolicy that selects every pod of the namespace.
func another(spec networkingv1.NetworkPolicySpec) func(*compliance.Input) {
	return func(in *compliance.Input) {
		in.Live.NetworkPolicies.Value = append(in.Live.NetworkPolicies.Value, networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "another"}, Spec: spec})
	}
}

func egress(rules ...networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: rules}
}

func toBlock(cidr string, except ...string) networkingv1.NetworkPolicyEgressRule {
	return networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}}}
}

func rules(rules ...v1alpha1.EgressRule) func(*v1alpha1.MCPServerSpec) {
	return func(s *v1alpha1.MCPServerSpec) { s.Network.Egress = rules }
}

func cidr(text string, ports ...int32) v1alpha1.EgressRule {
	return v1alpha1.EgressRule{To: v1alpha1.EgressTarget{CIDR: text}, Ports: ports}
}

func host(name string, ports ...int32) v1alpha1.EgressRule {
	return v1alpha1.EgressRule{To: v1alpha1.EgressTarget{Host: name}, Ports: ports}
}

var everyPod = v1alpha1.PodPeer{NamespaceSelector: &v1alpha1.LabelSelector{}, PodSelector: &v1alpha1.LabelSelector{}}

func TestNetworkControls(t *testing.T) {
	ingress := []networkingv1.NetworkPolicyIngressRule{{}}
	hosts := func(patterns ...v1alpha1.HostPattern) func(*v1alpha1.MCPPolicySpec) {
		return func(p *v1alpha1.MCPPolicySpec) { p.Egress = &v1alpha1.EgressPolicy{AllowedHosts: patterns} }
	}
	denied := func(p *v1alpha1.MCPPolicySpec) {
		p.Egress = &v1alpha1.EgressPolicy{DeniedCIDRs: []v1alpha1.CIDR{"10.0.0.0/8", "2001:db8::/32"}}
	}
	ports := func(p *v1alpha1.MCPPolicySpec) { p.Egress = &v1alpha1.EgressPolicy{AllowedPorts: []int32{443}} }
	proof := func(p *v1alpha1.MCPPolicySpec) { p.Egress = &v1alpha1.EgressPolicy{RequireProof: true} }
	drift := func(d ...compliance.Drift) func(*compliance.Input) {
		return func(in *compliance.Input) { in.Live.Drift.Value = d }
	}
	other := func(ingress, egress bool, selects func(map[string]string) bool) func(*compliance.Input) {
		return func(in *compliance.Input) {
			in.Live.OtherPolicies.Value = []compliance.OtherPolicy{{Kind: "CiliumNetworkPolicy", Name: "open", Selects: selects, OpensIngress: ingress, OpensEgress: egress}}
		}
	}
	github := func(labels map[string]string) bool { return labels["mcpwarden.io/server"] == "github" }
	isolation := func(v *probe.Verdict) func(*compliance.Input) {
		return func(in *compliance.Input) { in.Live.Isolation = v }
	}
	unreadPolicies := func(in *compliance.Input) {
		in.Live.NetworkPolicies = compliance.Seen[[]networkingv1.NetworkPolicy]{Unknown: "forbidden"}
	}
	run(t, []check{
		{control: "NET-01", name: "as planned", want: v1alpha1.ControlPass},
		{control: "NET-01", name: "no policy at all", says: "for ingress", live: func(in *compliance.Input) { in.Live.NetworkPolicies.Value = nil }},
		{control: "NET-01", name: "a label was stripped", says: "pod github-abc-a is selected by no NetworkPolicy", live: onPod(func(pod *corev1.Pod) { delete(pod.Labels, "mcpwarden.io/server") })},
		{control: "NET-01", name: "closed for ingress alone", says: "for egress", live: func(in *compliance.Input) {
			in.Live.NetworkPolicies.Value = nil
			another(networkingv1.NetworkPolicySpec{})(in)
		}},
		{control: "NET-01", name: "policies that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: unreadPolicies},
		{control: "NET-01", name: "no pod runs", want: v1alpha1.ControlUnknown, says: "no pod runs", live: noPods},

		{control: "NET-02", name: "one that opens nothing", want: v1alpha1.ControlPass, live: another(networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}})},
		{control: "NET-02", name: "one for other pods", want: v1alpha1.ControlPass, live: another(networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}, Ingress: ingress})},
		{control: "NET-02", name: "one that opens", says: "NetworkPolicy another opens ingress to pod github-abc-a", live: another(networkingv1.NetworkPolicySpec{Ingress: ingress})},
		{control: "NET-02", name: "egress is another matter", want: v1alpha1.ControlPass, live: another(egress(networkingv1.NetworkPolicyEgressRule{}))},
		{control: "NET-02", name: "a selector that cannot be read", want: v1alpha1.ControlUnknown, says: "another", live: another(networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Odd"}}}, Ingress: ingress})},
		{control: "NET-02", name: "policies that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: unreadPolicies},

		{control: "NET-03", name: "as planned", want: v1alpha1.ControlPass},
		{control: "NET-03", name: "one that opens", says: "NetworkPolicy another opens egress", live: another(egress(networkingv1.NetworkPolicyEgressRule{}))},
		{control: "NET-03", name: "one that opens without saying its types", says: "another", live: another(networkingv1.NetworkPolicySpec{Egress: []networkingv1.NetworkPolicyEgressRule{{}}})},
		{control: "NET-03", name: "ingress is another matter", want: v1alpha1.ControlPass, live: another(networkingv1.NetworkPolicySpec{Ingress: ingress})},
		{control: "NET-03", name: "by the labels that a pod has now", says: "opens egress from pod github-abc-b", live: func(in *compliance.Input) {
			in.Live.Pods.Value[1].Labels["debug"] = "true"
			another(networkingv1.NetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"debug": "true"}}, Egress: []networkingv1.NetworkPolicyEgressRule{{}}})(in)
		}},

		{control: "NET-04", name: "none", want: v1alpha1.ControlPass},
		{control: "NET-04", name: "one that opens egress", says: "CiliumNetworkPolicy open", live: other(false, true, github)},
		{control: "NET-04", name: "one that opens ingress", says: "CiliumNetworkPolicy open", live: other(true, false, github)},
		{control: "NET-04", name: "one that closes", want: v1alpha1.ControlPass, live: other(false, false, github)},
		{control: "NET-04", name: "one for others", want: v1alpha1.ControlPass, live: other(true, true, func(map[string]string) bool { return false })},
		{control: "NET-04", name: "one of which nobody knows", want: v1alpha1.ControlUnknown, says: "open", live: other(true, true, nil)},
		{control: "NET-04", name: "they cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.OtherPolicies.Unknown = "forbidden" }},

		{control: "NET-05", name: "as planned", want: v1alpha1.ControlPass, live: drift(compliance.Drift{Kind: "Service", Name: "github", Path: "spec.type"})},
		{control: "NET-05", name: "changed", says: "NetworkPolicy github is not as planned at spec.egress", live: drift(compliance.Drift{Kind: "NetworkPolicy", Name: "github", Path: "spec.egress"})},
		{control: "NET-05", name: "put right", says: "NetworkPolicy github was changed at spec.egress, and the operator put it right", live: repaired("NetworkPolicy", "spec.egress", 4*time.Second)},
		{control: "NET-05", name: "made again", says: "NetworkPolicy github was removed", live: repaired("NetworkPolicy", "", 0)},
		{control: "NET-05", name: "put right a while ago", want: v1alpha1.ControlPass, live: repaired("NetworkPolicy", "spec.egress", 5*time.Second)},
		{control: "NET-05", name: "another kind put right", want: v1alpha1.ControlPass, live: repaired("Service", "spec.type", 0)},
		{control: "NET-05", name: "gone", says: "NetworkPolicy github is missing", live: drift(compliance.Drift{Kind: "NetworkPolicy", Name: "github"})},
		{control: "NET-05", name: "no plan", want: v1alpha1.ControlUnknown, says: "nothing is planned", live: func(in *compliance.Input) { in.Plan = nil }},

		{control: "NET-06", name: "as planned", want: v1alpha1.ControlPass},
		{control: "NET-06", name: "everything, as planned", want: v1alpha1.ControlPass, spec: rules(cidr("0.0.0.0/0", 443), cidr("::/0", 443))},
		{control: "NET-06", name: "everything", says: "every address", live: another(egress(networkingv1.NetworkPolicyEgressRule{}))},
		{control: "NET-06", name: "a range with the metadata address", says: "169.254.0.0/16", live: another(egress(toBlock("169.128.0.0/9")))},
		{control: "NET-06", name: "all but one half", says: "169.254.128.0/17", live: another(egress(toBlock("169.254.0.0/16", "169.254.0.0/17")))},
		{control: "NET-06", name: "a range without it", want: v1alpha1.ControlPass, live: another(egress(toBlock("160.0.0.0/4", "168.63.129.16/32", "169.254.0.0/16")))},
		{control: "NET-06", name: "behind NAT64", says: "64:ff9b::a9fe:a9fe/128", live: another(egress(toBlock("64:ff9b::a9fe:a9fe/128")))},
		{control: "NET-06", name: "a range that cannot be read", says: "nonsense", live: another(egress(toBlock("nonsense")))},
		{control: "NET-06", name: "no plan", want: v1alpha1.ControlUnknown, live: func(in *compliance.Input) { in.Plan = nil }},

		{control: "NET-07", name: "narrow", want: v1alpha1.ControlPass, spec: rules(cidr("203.0.0.0/16", 443), cidr("2001:db8::/32", 443), host("api.example.com", 443))},
		{control: "NET-07", name: "nothing is opened", want: none, spec: rules()},
		{control: "NET-07", name: "wide", field: "spec.network.egress[1].to.cidr", spec: rules(cidr("203.0.113.0/24", 443), cidr("203.0.0.0/15", 443))},
		{control: "NET-07", name: "wide, IPv6", field: "spec.network.egress[0].to.cidr", spec: rules(cidr("2001:db8::/31", 443))},

		{control: "NET-08", name: "no DNS", want: v1alpha1.ControlPass},
		{control: "NET-08", name: "by address", field: "spec.network.egress[0].ports", says: "port 53", spec: rules(cidr("203.0.113.0/24", 443, 53))},
		{control: "NET-08", name: "over TLS", says: "port 853", spec: rules(cidr("203.0.113.0/24", 853))},
		{control: "NET-08", name: "any pod", says: "port 53", spec: rules(v1alpha1.EgressRule{To: v1alpha1.EgressTarget{Pods: &everyPod}, Ports: []int32{53}})},
		{control: "NET-08", name: "a policy to the cluster's resolver", want: v1alpha1.ControlPass, live: another(egress(networkingv1.NetworkPolicyEgressRule{
			To: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}, Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(53))}}}))},
		{control: "NET-08", name: "a policy to any", says: "another", live: another(egress(networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(53))}}}))},
		{control: "NET-08", name: "a policy with a range of ports", says: "another", live: another(egress(networkingv1.NetworkPolicyEgressRule{
			Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(1)), EndPort: new(int32(100))}}}))},
		{control: "NET-08", name: "a policy with every port", says: "another", live: another(egress(toBlock("203.0.113.0/24")))},
		{control: "NET-08", name: "a policy with another port", want: v1alpha1.ControlPass, live: another(egress(networkingv1.NetworkPolicyEgressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(443))}}}))},

		{control: "NET-09", name: "proven", want: v1alpha1.ControlPass},
		{control: "NET-09", name: "not enforced", says: "reached", live: isolation(&probe.Verdict{Result: probe.NotEnforced, Message: "Node a: reached"})},
		{control: "NET-09", name: "not proven", want: v1alpha1.ControlUnknown, says: "0 of 1", live: isolation(&probe.Verdict{Result: probe.Unknown, Message: "0 of 1"})},
		{control: "NET-09", name: "not found out", want: v1alpha1.ControlUnknown, says: "found out", live: isolation(nil)},

		{control: "NET-10", name: "not demanded", want: none, spec: rules(host("api.example.com", 443))},
		{control: "NET-10", name: "allowed", want: v1alpha1.ControlPass, policy: hosts("api.example.com", "*.github.com"),
			spec: rules(host("api.example.com", 443), host("api.github.com", 443), host("*.api.github.com", 443), host("*.github.com", 443), cidr("203.0.113.0/24", 443))},
		{control: "NET-10", name: "another", policy: hosts("api.example.com"), field: "spec.network.egress[0].to.host", spec: rules(host("evil.example.com", 443))},
		{control: "NET-10", name: "one that ends alike", policy: hosts("*.github.com"), says: "evilgithub.com", spec: rules(host("evilgithub.com", 443))},
		{control: "NET-10", name: "the name itself", policy: hosts("*.github.com"), says: "github.com", spec: rules(host("github.com", 443))},
		{control: "NET-10", name: "more names than allowed", policy: hosts("api.github.com"), says: "*.github.com", spec: rules(host("*.github.com", 443))},
		{control: "NET-10", name: "policies that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.PoliciesUnknown = "forbidden" }},

		{control: "NET-11", name: "not demanded", want: none},
		{control: "NET-11", name: "elsewhere", want: v1alpha1.ControlPass, policy: denied},
		{control: "NET-11", name: "within", policy: denied, field: "spec.network.egress[0].to.cidr", spec: rules(cidr("10.1.2.0/24", 443))},
		{control: "NET-11", name: "around", policy: denied, says: "10.0.0.0/8", spec: rules(cidr("0.0.0.0/0", 443))},
		{control: "NET-11", name: "IPv6", policy: denied, says: "2001:db8::/32", spec: rules(cidr("2001:db8:1::/48", 443))},
		{control: "NET-11", name: "behind NAT64", policy: denied, says: "10.0.0.0/8", spec: rules(cidr("64:ff9b::a00:0/104", 443))},

		{control: "NET-12", name: "not demanded", want: none},
		{control: "NET-12", name: "allowed", want: v1alpha1.ControlPass, policy: ports},
		{control: "NET-12", name: "another", policy: ports, field: "spec.network.egress[0].ports", says: "22", spec: rules(cidr("203.0.113.0/24", 443, 22))},

		{control: "NET-13", name: "not demanded", want: none},
		{control: "NET-13", name: "required", want: v1alpha1.ControlPass, policy: proof, spec: func(s *v1alpha1.MCPServerSpec) { s.Network.Enforcement = v1alpha1.EnforcementRequire }},
		{control: "NET-13", name: "not required", policy: proof, field: "spec.network.enforcement"},
		{control: "NET-13", name: "no network at all", policy: proof, field: "spec.network.enforcement", spec: func(s *v1alpha1.MCPServerSpec) { s.Network = nil }},

		{control: "NET-14", name: "one network", want: v1alpha1.ControlPass},
		{control: "NET-14", name: "another", says: "k8s.v1.cni.cncf.io/networks", live: onPod(func(pod *corev1.Pod) { pod.Annotations = map[string]string{"k8s.v1.cni.cncf.io/networks": "macvlan"} })},

		{control: "NET-15", name: "refused", want: v1alpha1.ControlPass, spec: rules(host("api.example.com", 443))},
		{control: "NET-15", name: "allowed", field: "spec.network.egress[0].encryptedClientHello", spec: rules(v1alpha1.EgressRule{
			To: v1alpha1.EgressTarget{Host: "api.example.com"}, Ports: []int32{443}, EncryptedClientHello: v1alpha1.EncryptedClientHelloAllow})},

		{control: "NET-16", name: "TLS", want: v1alpha1.ControlPass, spec: rules(host("api.example.com", 443))},
		{control: "NET-16", name: "plain HTTP", field: "spec.network.egress[0].ports", spec: rules(host("api.example.com", 443, 80))},

		{control: "NET-17", name: "some pods", want: v1alpha1.ControlPass, spec: rules(v1alpha1.EgressRule{
			To: v1alpha1.EgressTarget{Pods: &v1alpha1.PodPeer{PodSelector: &v1alpha1.LabelSelector{}}}, Ports: []int32{443}})},
		{control: "NET-17", name: "every pod", field: "spec.network.egress[0].to.pods", spec: rules(v1alpha1.EgressRule{To: v1alpha1.EgressTarget{Pods: &everyPod}, Ports: []int32{443}})},
		{control: "NET-17", name: "every namespace", field: "spec.network.egress[0].to.pods", spec: rules(v1alpha1.EgressRule{
			To: v1alpha1.EgressTarget{Pods: &v1alpha1.PodPeer{NamespaceSelector: &v1alpha1.LabelSelector{}}}, Ports: []int32{443}})},
	})
}
