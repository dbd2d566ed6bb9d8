package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	acnetworkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// dnsPort is the port of DNS, over UDP and TCP (RFC 1035, RFC 7766).
const dnsPort = 53

// neverReachable are the ranges that no cidr rule opens: this host, link-local with the metadata
// service of most clouds, multicast, and the metadata addresses that lie elsewhere; the IPv4
// ones behind NAT64 too (closedNets). IPv4-mapped addresses are not among them: they are never in a
// packet, and no policy may name them.
var neverReachable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
	netip.MustParsePrefix("168.63.129.16/32"),   // Azure
	netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud
	netip.MustParsePrefix("::/127"),             // unspecified and loopback
	netip.MustParsePrefix("64:ff9b:1::/48"),     // NAT64 of a network's own (RFC 8215): where IPv4 lies in it, nobody knows
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("fd00:ec2::/32"),          // AWS: metadata, DNS, pod identity
	netip.MustParsePrefix("fd20:ce::254/128"),       // Google Cloud
	netip.MustParsePrefix("fd00:42::42/128"),        // Scaleway
	netip.MustParsePrefix("fd00:c1::a9fe:a9fe/128"), // Oracle Cloud
}

// NeverReachable are the ranges that no cidr rule opens whatever the cluster: loopback, link-local, multicast and cloud
// metadata, those of IPv4 behind NAT64 as well.
func NeverReachable() []netip.Prefix { return closedNets(Facts{}) }

// nat64 is the well-known prefix behind which a gateway reaches all of IPv4 (RFC 6052).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// egressRule is short for the type's long name.
type egressRule = acnetworkingv1.NetworkPolicyEgressRuleApplyConfiguration

// planEgress turns the egress rules of a server into those of a NetworkPolicy. Pending are rules
// that the cluster, as it is now, keeps closed; errs are rules that can never be opened, whatever the
// cluster is like: a change of the cluster must not keep the rest of a plan from being applied. A
// server that is not to run has no rules, so that none of them can hold a quarantine up.
func planEgress(server *v1alpha1.MCPServer, facts Facts) (rules []*egressRule, pending, errs field.ErrorList) {
	if server.Spec.Network == nil || stateOf(server) != v1alpha1.StateRunning {
		return nil, nil, nil
	}
	wantsDNS, wantsProxy := false, false
	root := field.NewPath("spec", "network", "egress")
	for i := range server.Spec.Network.Egress {
		rule, to := &server.Spec.Network.Egress[i], root.Index(i).Child("to")
		switch {
		case rule.To.Host != "":
			wantsProxy = true
			if err := access.ValidateHostRule(rule.To.Host); err != nil {
				errs = append(errs, field.Invalid(to.Child("host"), rule.To.Host, err.Error()))
			}
		case rule.To.CIDR != "":
			cidr, err := parseCIDR(rule.To.CIDR, to.Child("cidr"))
			if err != nil {
				errs = append(errs, err)
				continue
			}
			out, err := cidrRule(rule, cidr, to.Child("cidr"), facts)
			rules, pending = appendRule(rules, out, pending, err)
		case rule.To.Service != nil:
			wantsDNS = true
			out, err := serviceRule(server.Namespace, rule, to.Child("service"), facts)
			rules, pending = appendRule(rules, out, pending, err)
		case rule.To.Pods != nil:
			wantsDNS = true
			rules = append(rules, acnetworkingv1.NetworkPolicyEgressRule().
				WithTo(podPeer(rule.To.Pods)).WithPorts(tcpPorts(rule.Ports)...))
		}
	}
	if wantsProxy { // and no DNS: the proxy resolves
		rules = append(rules, egressProxyRule())
	}
	if wantsDNS {
		out, err := dnsRule(root, facts)
		rules, pending = appendRule(rules, out, pending, err)
	}
	return rules, pending, errs
}

func appendRule(rules []*egressRule, rule *egressRule, errs field.ErrorList, err *field.Error) ([]*egressRule, field.ErrorList) {
	if err != nil {
		return rules, append(errs, err)
	}
	return append(rules, rule), errs
}

func tcpPorts(ports []int32) []*acnetworkingv1.NetworkPolicyPortApplyConfiguration {
	out := make([]*acnetworkingv1.NetworkPolicyPortApplyConfiguration, len(ports))
	for i, port := range ports {
		out[i] = policyPort(corev1.ProtocolTCP, intstr.FromInt32(port))
	}
	return out
}

// parseCIDR refuses a range that no cluster could open.
func parseCIDR(text string, path *field.Path) (netip.Prefix, *field.Error) {
	cidr, err := netip.ParsePrefix(text)
	if err != nil || cidr != cidr.Masked() {
		return cidr, field.Invalid(path, text, "must be an address range in its normal form, such as 203.0.113.0/24")
	}
	if _, err := carveOut(cidr, Facts{}); err != nil {
		return cidr, field.Invalid(path, text, err.Error())
	}
	return cidr, nil
}

// cidrRule opens an address range, less what is never reachable and what belongs to the cluster.
func cidrRule(rule *v1alpha1.EgressRule, cidr netip.Prefix, path *field.Path, facts Facts) (*egressRule, *field.Error) {
	except, err := carveOut(cidr, facts)
	if err != nil {
		return nil, field.Invalid(path, rule.To.CIDR, err.Error())
	}
	block := acnetworkingv1.IPBlock().WithCIDR(cidr.String())
	for _, prefix := range except {
		block.WithExcept(prefix.String())
	}
	return acnetworkingv1.NetworkPolicyEgressRule().
		WithTo(acnetworkingv1.NetworkPolicyPeer().WithIPBlock(block)).
		WithPorts(tcpPorts(rule.Ports)...), nil
}

// carveOut returns the parts of a range that stay closed, as few and as sorted as can be; an error
// where nothing of the range would be left.
func carveOut(cidr netip.Prefix, facts Facts) ([]netip.Prefix, error) {
	var closed, whole netipx.IPSetBuilder
	whole.AddPrefix(cidr)
	for _, prefix := range closedNets(facts) {
		closed.AddPrefix(prefix)
		whole.RemovePrefix(prefix)
	}
	left, err := whole.IPSet()
	if err != nil {
		return nil, fmt.Errorf("cannot be computed with: %w", err)
	}
	if len(left.Ranges()) == 0 {
		return nil, fmt.Errorf("lies wholly within addresses that are never opened by range (loopback, link-local, metadata, multicast, nodes, pods, the API server): " +
			"for something in the cluster use to.service or to.pods, else name another range")
	}
	closed.Intersect(prefixSet(cidr))
	set, err := closed.IPSet()
	if err != nil {
		return nil, fmt.Errorf("cannot be computed with: %w", err)
	}
	return set.Prefixes(), nil
}

func prefixSet(prefix netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	b.AddPrefix(prefix)
	set, _ := b.IPSet() // a valid prefix cannot fail
	return set
}

// closedNets are all the ranges that no cidr rule opens, those of IPv4 behind NAT64 as well: a packet
// to there ends at the same address.
func closedNets(facts Facts) []netip.Prefix {
	out := slices.Concat(neverReachable, clusterNets(facts))
	for _, net := range out {
		if net.Addr().Is4() {
			out = append(out, BehindNAT64(net))
		}
	}
	return out
}

// clusterNets are the ranges of the cluster as far as they are known: of nodes, pods, the API server.
func clusterNets(facts Facts) []netip.Prefix {
	var out []netip.Prefix
	for _, net := range facts.ClusterNets {
		out = append(out, unmapped(net))
	}
	for _, node := range facts.Nodes {
		for _, net := range node.Nets {
			out = append(out, unmapped(net))
		}
	}
	for _, addr := range facts.APIServer {
		addr = addr.Unmap()
		out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return out
}

// unmapped is a range of IPv4-mapped addresses as what it is in a packet: a range of IPv4.
func unmapped(net netip.Prefix) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address
	if net.Addr().Is4In6() && net.Bits() >= mapped {
		return netip.PrefixFrom(net.Addr().Unmap(), net.Bits()-mapped)
	}
	return net
}

// BehindNAT64 is where a gateway shows a range of IPv4 (RFC 6052).
func BehindNAT64(net netip.Prefix) netip.Prefix {
	raw, v4 := nat64.Addr().As16(), net.Addr().As4()
	copy(raw[nat64.Bits()/8:], v4[:])
	return netip.PrefixFrom(netip.AddrFrom16(raw), nat64.Bits()+net.Bits())
}

// serviceRule opens the pods behind a Service on the ports that the Service's own ports lead to:
// policies are enforced after the Service's address was translated.
func serviceRule(namespace string, rule *v1alpha1.EgressRule, path *field.Path, facts Facts) (*egressRule, *field.Error) {
	name := types.NamespacedName{Namespace: rule.To.Service.Namespace, Name: rule.To.Service.Name}
	if name.Namespace == "" {
		name.Namespace = namespace
	}
	service, err := findService(name, path, facts)
	if err != nil {
		return nil, err
	}
	out := podsOf(name.Namespace, service)
	for _, port := range rule.Ports {
		target, ok := targetPort(service, corev1.ProtocolTCP, port)
		if !ok {
			return nil, field.Invalid(path, name.String(), fmt.Sprintf("Service %s has no TCP port %d: it has %s", name, port, portList(service)))
		}
		out.WithPorts(policyPort(corev1.ProtocolTCP, target))
	}
	return out, nil
}

func findService(name types.NamespacedName, path *field.Path, facts Facts) (Service, *field.Error) {
	service, ok := facts.Services[name]
	switch {
	case facts.Hidden(name):
		return service, field.Forbidden(path, fmt.Sprintf("Service %s lies outside the namespaces that MCP Warden is limited to here, and may not be read: "+
			"name its pods in a to.pods rule, or have namespace %s added to the install", name, name.Namespace))
	case !ok:
		return service, field.Invalid(path, name.String(), fmt.Sprintf("Service %s does not exist: create it, or correct the name", name))
	case len(service.Selector) == 0:
		return service, field.Invalid(path, name.String(), fmt.Sprintf("Service %s selects no pods, so that a NetworkPolicy cannot follow it: name its addresses in a cidr rule", name))
	}
	return service, nil
}

func podsOf(namespace string, service Service) *egressRule {
	return acnetworkingv1.NetworkPolicyEgressRule().WithTo(acnetworkingv1.NetworkPolicyPeer().
		WithNamespaceSelector(acmetav1.LabelSelector().WithMatchLabels(map[string]string{corev1.LabelMetadataName: namespace})).
		WithPodSelector(acmetav1.LabelSelector().WithMatchLabels(service.Selector)))
}

// needsDNS is how the message about a missing DNS begins.
const needsDNS = "service and pods rules need the cluster's DNS: "

// dnsRule opens the pods of the cluster's DNS, and no other resolver.
func dnsRule(path *field.Path, facts Facts) (*egressRule, *field.Error) {
	service, err := findService(facts.ClusterDNS, path, facts)
	if err != nil {
		err.Detail = needsDNS + err.Detail
		return nil, err
	}
	out := podsOf(facts.ClusterDNS.Namespace, service)
	for _, protocol := range []corev1.Protocol{corev1.ProtocolUDP, corev1.ProtocolTCP} {
		if target, ok := targetPort(service, protocol, dnsPort); ok {
			out.WithPorts(policyPort(protocol, target))
		}
	}
	if len(out.Ports) == 0 {
		return nil, field.Invalid(path, facts.ClusterDNS.String(), fmt.Sprintf("Service %s has no port 53: it is not the cluster's DNS", facts.ClusterDNS))
	}
	return out, nil
}

// targetPort of a port of a Service: the port of its pods, by number or by name.
func targetPort(service Service, protocol corev1.Protocol, port int32) (intstr.IntOrString, bool) {
	for _, p := range service.Ports {
		if p.Port != port || (p.Protocol != protocol && (p.Protocol != "" || protocol != corev1.ProtocolTCP)) {
			continue
		}
		if p.TargetPort == (intstr.IntOrString{}) {
			return intstr.FromInt32(port), true
		}
		return p.TargetPort, true
	}
	return intstr.IntOrString{}, false
}

func portList(service Service) string {
	ports := map[string]struct{}{}
	for _, p := range service.Ports {
		ports[fmt.Sprintf("%d/%s", p.Port, p.Protocol)] = struct{}{}
	}
	if len(ports) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(ports)), ", ")
}

// ServicesOf are the Services that a server's egress rules name, without the cluster's DNS.
func ServicesOf(server *v1alpha1.MCPServer) []types.NamespacedName {
	if server.Spec.Network == nil {
		return nil
	}
	var out []types.NamespacedName
	for i := range server.Spec.Network.Egress {
		if ref := server.Spec.Network.Egress[i].To.Service; ref != nil {
			name := types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}
			if name.Namespace == "" {
				name.Namespace = server.Namespace
			}
			out = append(out, name)
		}
	}
	return out
}
