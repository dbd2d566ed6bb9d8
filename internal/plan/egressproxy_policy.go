package plan

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	acnetworkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// theInternet is what names outside may lead to: all of IPv4, and what is handed out of IPv6.
var theInternet = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("2000::/3")}

// networkPolicy lets the servers of the namespace in, and the proxy out to the cluster's DNS and to the
// internet, on the ports that rules name: a second wall behind what the proxy itself refuses. Policies
// of both kinds add up, so that with Cilium this one opens nothing outwards.
func (b egressBuilder) networkPolicy() *acnetworkingv1.NetworkPolicyApplyConfiguration {
	servers := acmetav1.LabelSelector().
		WithMatchLabels(map[string]string{LabelManagedBy: ManagedBy}).
		WithMatchExpressions(acmetav1.LabelSelectorRequirement().WithKey(LabelServer).WithOperator(metav1.LabelSelectorOpExists))
	spec := acnetworkingv1.NetworkPolicySpec().
		WithPodSelector(egressSelector()).
		WithPolicyTypes(networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress).
		WithIngress(acnetworkingv1.NetworkPolicyIngressRule().
			WithFrom(acnetworkingv1.NetworkPolicyPeer().WithPodSelector(servers)).
			WithPorts(policyPort(corev1.ProtocolTCP, intstr.FromInt32(egressPort))))
	if !b.Cilium {
		if dns, err := dnsRule(field.NewPath("spec"), b.Facts); err == nil {
			spec.WithEgress(dns)
		}
		if ports := b.ports(); len(ports) > 0 {
			spec.WithEgress(b.internetRule(ports))
		}
	}
	return acnetworkingv1.NetworkPolicy(EgressProxyName, b.Namespace).WithLabels(egressLabels()).WithSpec(spec)
}

func (b egressBuilder) internetRule(ports []int32) *egressRule {
	rule := acnetworkingv1.NetworkPolicyEgressRule().WithPorts(tcpPorts(ports)...)
	for _, whole := range theInternet {
		block := acnetworkingv1.IPBlock().WithCIDR(whole.String())
		for _, prefix := range b.closed(whole) {
			block.WithExcept(prefix.String())
		}
		rule.WithTo(acnetworkingv1.NetworkPolicyPeer().WithIPBlock(block))
	}
	return rule
}

// closed are the parts of a range that the proxy has no business with.
func (b egressBuilder) closed(whole netip.Prefix) []netip.Prefix {
	var closed netipx.IPSetBuilder
	for _, net := range slices.Concat(closedNets(b.Facts), access.ForbiddenNets()) {
		closed.AddPrefix(net)
	}
	closed.Intersect(prefixSet(whole))
	return prefixesOf(&closed)
}

// ports that any rule of the namespace names, sorted.
func (b egressBuilder) ports() []int32 {
	var out []int32
	for _, ports := range b.portsByHost() {
		out = append(out, ports...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// CiliumNetworkPolicyKind is Cilium's own kind of policy, as much of it as is used here.
var CiliumNetworkPolicyKind = schema.GroupVersionKind{Group: "cilium.io", Version: "v2", Kind: "CiliumNetworkPolicy"}

// ciliumNetworkPolicy lets the proxy out to the names that rules name, and to what the cluster's DNS
// said of them: the node knows the names, whatever becomes of the proxy.
func (b egressBuilder) ciliumNetworkPolicy() *unstructured.Unstructured {
	var names, egress []any
	ports := b.portsByHost()
	for _, host := range slices.Sorted(maps.Keys(ports)) {
		names = append(names, ciliumName(host))
		egress = append(egress, map[string]any{"toFQDNs": []any{ciliumName(host)}, "toPorts": ciliumPorts(ports[host])})
	}
	spec := map[string]any{
		"endpointSelector": map[string]any{"matchLabels": map[string]any{LabelManagedBy: ManagedBy, LabelComponent: ComponentEgressProxy}},
		"egress":           append(b.ciliumDNS(names), egress...),
	}
	if len(egress) == 0 {
		spec["egress"] = []any{map[string]any{}} // one rule that matches nothing: all is closed
	}
	out := &unstructured.Unstructured{Object: map[string]any{"spec": spec}}
	out.SetGroupVersionKind(CiliumNetworkPolicyKind)
	out.SetNamespace(b.Namespace)
	out.SetName(EgressProxyName)
	out.SetLabels(egressLabels())
	return out
}

// ciliumDNS lets the proxy ask the cluster's DNS for the names of the rules, and for no other.
func (b egressBuilder) ciliumDNS(names []any) []any {
	service, ok := b.Facts.Services[b.Facts.ClusterDNS]
	if !ok || len(service.Selector) == 0 {
		return nil // nothing resolves: the servers' status tells
	}
	labels := map[string]any{"k8s:io.kubernetes.pod.namespace": b.Facts.ClusterDNS.Namespace}
	for key, value := range service.Selector {
		labels["k8s:"+key] = value
	}
	var ports []any
	for _, protocol := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
		if target, ok := targetPort(service, protocol, dnsPort); ok {
			ports = append(ports, map[string]any{"port": target.String(), "protocol": string(protocol)})
		}
	}
	return []any{map[string]any{
		"toEndpoints": []any{map[string]any{"matchLabels": labels}},
		"toPorts":     []any{map[string]any{"ports": ports, "rules": map[string]any{"dns": names}}},
	}}
}

// portsByHost are the ports of every host that a rule of the namespace names.
func (b egressBuilder) portsByHost() map[string][]int32 {
	out := map[string][]int32{}
	for _, server := range b.Servers {
		for _, rule := range hostRules(server) {
			out[rule.Host] = append(out[rule.Host], rule.Ports...)
		}
	}
	for host, ports := range out {
		slices.Sort(ports)
		out[host] = slices.Compact(ports)
	}
	return out
}

// ciliumName writes a host of a rule as Cilium does. To a version before 1.19, two stars stand for one
// label and not for any number of them.
func ciliumName(host string) any {
	if strings.HasPrefix(host, "*.") {
		return map[string]any{"matchPattern": "*" + host}
	}
	return map[string]any{"matchName": host}
}

// maxCiliumPorts is how many ports Cilium takes in one list.
const maxCiliumPorts = 40

func ciliumPorts(ports []int32) []any {
	var out []any
	for chunk := range slices.Chunk(ports, maxCiliumPorts) {
		var list []any
		for _, port := range chunk {
			list = append(list, map[string]any{"port": strconv.Itoa(int(port)), "protocol": string(corev1.ProtocolTCP)})
		}
		out = append(out, map[string]any{"ports": list})
	}
	return out
}
