package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// server returns a valid server that the tests of this package change.
func server(change ...func(*v1alpha1.MCPServer)) *v1alpha1.MCPServer {
	s := &v1alpha1.MCPServer{Spec: v1alpha1.MCPServerSpec{
		Image:     "registry.example/server:v1",
		Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))},
	}}
	s.Name, s.Namespace, s.UID, s.Generation = "github", "agents", "uid-1", 1
	for _, c := range change {
		c(s)
	}
	return s
}

func egressTo(to v1alpha1.EgressTarget, ports ...int32) func(*v1alpha1.MCPServer) {
	return func(s *v1alpha1.MCPServer) {
		if s.Spec.Network == nil {
			s.Spec.Network = &v1alpha1.Network{}
		}
		s.Spec.Network.Egress = append(s.Spec.Network.Egress, v1alpha1.EgressRule{To: to, Ports: ports})
	}
}

var dns = types.NamespacedName{Namespace: "kube-system", Name: "kube-dns"}

func servicePort(protocol corev1.Protocol, port int32, target intstr.IntOrString) corev1.ServicePort {
	return corev1.ServicePort{Protocol: protocol, Port: port, TargetPort: target}
}

func TestEgressThatIsPending(t *testing.T) {
	dnsService := Service{Selector: map[string]string{"k8s-app": "dns"}, Ports: []corev1.ServicePort{servicePort(corev1.ProtocolUDP, 53, intstr.FromInt32(53))}}
	postgres := types.NamespacedName{Namespace: "data", Name: "postgres"}
	toPostgres := v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Name: "postgres", Namespace: "data"}}
	for _, tc := range []struct {
		name     string
		services map[types.NamespacedName]Service
		field    string
		fix      string
	}{
		{
			"the Service is missing",
			map[types.NamespacedName]Service{dns: dnsService},
			"spec.network.egress[0].to.service", "Service data/postgres does not exist: create it, or correct the name",
		},
		{
			"the Service has no selector",
			map[types.NamespacedName]Service{dns: dnsService, postgres: {}},
			"spec.network.egress[0].to.service", "name its addresses in a cidr rule",
		},
		{
			"the Service has no such port",
			map[types.NamespacedName]Service{dns: dnsService, postgres: {
				Selector: map[string]string{"a": "b"},
				Ports:    []corev1.ServicePort{servicePort(corev1.ProtocolTCP, 80, intstr.IntOrString{}), servicePort(corev1.ProtocolUDP, 5432, intstr.IntOrString{})},
			}},
			"spec.network.egress[0].to.service", "Service data/postgres has no TCP port 5432: it has 5432/UDP, 80/TCP",
		},
		{
			"the Service has no port at all",
			map[types.NamespacedName]Service{dns: dnsService, postgres: {Selector: map[string]string{"a": "b"}}},
			"spec.network.egress[0].to.service", "it has none",
		},
		{
			"DNS is missing",
			map[types.NamespacedName]Service{postgres: {Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{servicePort("", 5432, intstr.IntOrString{})}}},
			"spec.network.egress", "need the cluster's DNS: Service kube-system/kube-dns does not exist",
		},
		{
			"DNS does not answer on port 53",
			map[types.NamespacedName]Service{
				dns:      {Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{servicePort(corev1.ProtocolTCP, 80, intstr.IntOrString{})}},
				postgres: {Selector: map[string]string{"a": "b"}, Ports: []corev1.ServicePort{servicePort("", 5432, intstr.IntOrString{})}},
			},
			"spec.network.egress", "it is not the cluster's DNS",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rules, pending, errs := planEgress(server(egressTo(toPostgres, 5432)), Facts{Services: tc.services, ClusterDNS: dns})
			if len(errs) > 0 {
				t.Errorf("waiting may cure it, and it is an error: %v", errs)
			}
			if len(pending) != 1 || pending[0].Field != tc.field || !strings.Contains(pending[0].Detail, tc.fix) {
				t.Errorf("pending is %v, want one at %s with %q", pending, tc.field, tc.fix)
			}
			if len(rules) > 1 {
				t.Errorf("a rule that is pending was opened: %d rules", len(rules))
			}
		})
	}
}

func TestDNSIsOpenedOnlyWhereItIsNeeded(t *testing.T) {
	facts := Facts{ClusterDNS: dns, Services: map[types.NamespacedName]Service{
		dns: {Selector: map[string]string{"k8s-app": "dns"}, Ports: []corev1.ServicePort{servicePort(corev1.ProtocolUDP, 53, intstr.FromString("dns"))}},
	}}
	rules, _, _ := planEgress(server(egressTo(v1alpha1.EgressTarget{CIDR: "203.0.113.0/24"}, 443)), facts)
	if len(rules) != 1 {
		t.Errorf("a cidr rule gave %d rules, want itself only", len(rules))
	}
	peer := v1alpha1.EgressTarget{Pods: &v1alpha1.PodPeer{PodSelector: &v1alpha1.LabelSelector{}}}
	rules, _, _ = planEgress(server(egressTo(peer, 443), egressTo(peer, 80)), facts)
	if len(rules) != 3 {
		t.Fatalf("two pods rules gave %d rules, want them and one for DNS", len(rules))
	}
	opened := convert[networkingv1.NetworkPolicyEgressRule](rules[2])
	if len(opened.Ports) != 1 || *opened.Ports[0].Protocol != corev1.ProtocolUDP || opened.Ports[0].Port.StrVal != "dns" {
		t.Errorf("DNS was opened on %v, want UDP on the port of its pods", opened.Ports)
	}
	if got := opened.To[0].PodSelector.MatchLabels["k8s-app"]; got != "dns" {
		t.Errorf("DNS was opened to pods with k8s-app=%q", got)
	}
}

func TestServicesOf(t *testing.T) {
	if got := ServicesOf(server()); got != nil {
		t.Errorf("a server without rules names %v", got)
	}
	got := ServicesOf(server(
		egressTo(v1alpha1.EgressTarget{CIDR: "203.0.113.0/24"}, 1),
		egressTo(v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Name: "a"}}, 1),
		egressTo(v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Name: "b", Namespace: "other"}}, 1)))
	want := []types.NamespacedName{{Namespace: "agents", Name: "a"}, {Namespace: "other", Name: "b"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// clusterOf has pods, a node and an API server.
func clusterOf() Facts {
	return Facts{
		Nodes:     []Node{{Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.11/32"), netip.MustParsePrefix("10.244.0.0/16")}}},
		APIServer: []netip.Addr{netip.MustParseAddr("198.51.100.7")},
	}
}

// What the spec alone makes impossible is an error.
func TestCIDRsThatCanNeverBeOpened(t *testing.T) {
	for _, tc := range []struct{ name, cidr, fix string }{
		{"the metadata service", "169.254.169.254/32", "metadata"},
		{"not a range", "example", "must be an address range"},
		{"host bits", "203.0.113.1/24", "must be an address range"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, errs := Build(Input{Server: server(egressTo(v1alpha1.EgressTarget{CIDR: tc.cidr}, 443)), Facts: clusterOf()})
			if len(errs) != 1 || errs[0].Field != "spec.network.egress[0].to.cidr" || !strings.Contains(errs[0].Detail, tc.fix) {
				t.Errorf("got %v, want spec.network.egress[0].to.cidr with %q", errs, tc.fix)
			}
		})
	}
}

// What the cluster makes impossible closes its own rule and no more: a node that joins must not keep
// the rest of the plan, a quarantine above all, from being applied.
func TestCIDRsOfTheCluster(t *testing.T) {
	for _, tc := range []struct{ name, cidr, fix string }{
		{"pods", "10.244.3.0/24", "use to.service or to.pods"},
		{"a node", "10.0.0.11/32", "lies wholly within"},
		{"the API server", "198.51.100.7/32", "the API server"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := server(egressTo(v1alpha1.EgressTarget{CIDR: tc.cidr}, 443), egressTo(v1alpha1.EgressTarget{CIDR: "203.0.113.0/24"}, 443))
			p, errs := Build(Input{Server: s, Facts: clusterOf()})
			if len(errs) > 0 {
				t.Fatalf("the cluster stops the whole plan: %v", errs)
			}
			if len(p.Pending) != 1 || p.Pending[0].Field != "spec.network.egress[0].to.cidr" || !strings.Contains(p.Pending[0].Detail, tc.fix) {
				t.Errorf("pending is %v, want spec.network.egress[0].to.cidr with %q", p.Pending, tc.fix)
			}
			opened := convert[networkingv1.NetworkPolicy](p.Objects[1].Config).Spec.Egress
			if len(opened) != 1 || opened[0].To[0].IPBlock.CIDR != "203.0.113.0/24" {
				t.Errorf("opened is %+v, want the other rule only", opened)
			}
		})
	}
}

// A server that is not to run has no rule, so that none can be pending or wrong.
func TestNoEgressUnlessRunning(t *testing.T) {
	for _, state := range []v1alpha1.DesiredState{v1alpha1.StateQuarantined, v1alpha1.StateStopped} {
		for _, to := range []v1alpha1.EgressTarget{
			{CIDR: "10.0.0.11/32"}, {CIDR: "169.254.169.254/32"}, {CIDR: "203.0.113.0/24"},
			{Service: &v1alpha1.ServiceReference{Name: "missing"}},
		} {
			s := server(egressTo(to, 443), func(s *v1alpha1.MCPServer) {
				s.Spec.DesiredState = state
				s.Spec.Network.Ingress = []v1alpha1.PodPeer{{PodSelector: &v1alpha1.LabelSelector{}}}
			})
			p, errs := Build(Input{Server: s, Facts: clusterOf()})
			if len(errs) > 0 || len(p.Pending) > 0 {
				t.Fatalf("%s: errors %v, pending %v", state, errs, p)
			}
			if spec := convert[networkingv1.NetworkPolicy](p.Objects[1].Config).Spec; len(spec.Egress)+len(spec.Ingress) > 0 {
				t.Errorf("%s: the policy opens %+v", state, spec)
			}
		}
	}
}

// closedAddresses must be outside of what any rule opens.
var closedAddresses = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"),
	netip.MustParseAddr("127.0.0.1"),
	netip.MustParseAddr("100.100.100.200"),
	netip.MustParseAddr("168.63.129.16"),
	netip.MustParseAddr("192.0.0.192"),
	netip.MustParseAddr("224.0.0.251"),
	netip.MustParseAddr("fe80::1"),
	netip.MustParseAddr("::1"),
	netip.MustParseAddr("fd00:ec2::254"),
	netip.MustParseAddr("fd00:ec2::253"),
	netip.MustParseAddr("fd00:ec2::23"),
	netip.MustParseAddr("fd20:ce::254"),
	netip.MustParseAddr("fd00:42::42"),
	netip.MustParseAddr("fd00:c1::a9fe:a9fe"),
	netip.MustParseAddr("64:ff9b:1::1"),
	netip.MustParseAddr("64:ff9b:1:ffff::a9fe:a9fe"),
}

// translated is how a gateway with the well-known prefix 64:ff9b::/96 reaches an IPv4 address.
func translated(addr netip.Addr) netip.Addr {
	raw, v4 := netip.MustParseAddr("64:ff9b::").As16(), addr.As4()
	copy(raw[12:], v4[:])
	return netip.AddrFrom16(raw)
}

// What is closed is closed however it is written: behind NAT64 and as an IPv4-mapped address too,
// and a range of nothing else opens nothing.
func TestClosedAddressesInIPv6(t *testing.T) {
	facts := Facts{
		Nodes:     []Node{{Nets: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.11/128"), netip.MustParsePrefix("10.244.0.0/16")}}},
		APIServer: []netip.Addr{netip.MustParseAddr("::ffff:198.51.100.7")},

		ClusterNets: []netip.Prefix{netip.MustParsePrefix("172.20.0.0/16")},
	}
	for cidr, want := range map[string]string{
		"0.0.0.0/5":              "[0.0.0.0/8]",
		"10.0.0.0/24":            "[10.0.0.11/32]",
		"198.51.100.0/24":        "[198.51.100.7/32]",
		"64:ff9b::a00:0/120":     "[64:ff9b::a00:b/128]",
		"64:ff9b::af0:0/108":     "[64:ff9b::af4:0/112]",
		"64:ff9b::c633:6400/120": "[64:ff9b::c633:6407/128]",
		"64:ff9b::a83f:8100/120": "[64:ff9b::a83f:8110/128]",
		"64:ff9b::6464:6400/120": "[64:ff9b::6464:64c8/128]",
		"64:ff9b::cb00:7101/128": "[]",
		"172.16.0.0/12":          "[172.20.0.0/16]",
		"64:ff9b::ac10:0/108":    "[64:ff9b::ac14:0/112]",
		"64:ff9b::a9fe:a9fe/128": "",
		"64:ff9b::7f00:1/128":    "",
		"64:ff9b::af4:1/128":     "",
		"64:ff9b:1::/64":         "",
		"fd00:ec2::/64":          "",
		"fd00:42::42/128":        "",
		"fd00:c1::a9fe:a9fe/128": "",
		"fd00:42::/64":           "[fd00:42::42/128]",
		"fd00:c1::/64":           "[fd00:c1::a9fe:a9fe/128]",
	} {
		except, err := carveOut(netip.MustParsePrefix(cidr), facts)
		got := fmt.Sprint(except)
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("%s: closed is %s (%v), want %s", cidr, got, err, want)
		}
	}
}

// FuzzCarveOut takes any range and any facts of a cluster: what it leaves open never holds an
// address that is closed, and every exception lies within the range, as the API server demands.
func FuzzCarveOut(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0}, 0, []byte{10, 0, 0, 11}, 32, []byte{198, 51, 100, 7})
	f.Add([]byte{169, 254, 0, 0}, 15, []byte{10, 244, 0, 0}, 16, []byte{10, 96, 0, 1})
	f.Add(make([]byte, 16), 0, netip.MustParseAddr("fd00:244::").AsSlice(), 64, netip.MustParseAddr("fd00:96::1").AsSlice())
	f.Add(netip.MustParseAddr("fe80::").AsSlice(), 9, []byte{10, 0, 0, 11}, 24, []byte{1, 1, 1, 1})
	f.Add(netip.MustParseAddr("64:ff9b::").AsSlice(), 90, []byte{10, 244, 0, 0}, 16, []byte{10, 96, 0, 1})
	f.Add(make([]byte, 16), 0, netip.MustParseAddr("::ffff:10.0.0.11").AsSlice(), 128, netip.MustParseAddr("::ffff:10.96.0.1").AsSlice())
	f.Add([]byte{10, 0, 0, 0}, 8, netip.MustParseAddr("::ffff:10.0.0.0").AsSlice(), 120, []byte{10, 0, 0, 1})
	f.Add([]byte{10, 0, 0, 0}, 8, []byte{10, 0, 0, 0}, 8, []byte{10, 0, 0, 1})
	f.Fuzz(func(t *testing.T, address []byte, bits int, nodeAddress []byte, nodeBits int, api []byte) {
		cidr, ok := prefix(address, bits)
		if !ok {
			return // not a range
		}
		facts := Facts{Nodes: []Node{{}}}
		if addr, ok := netip.AddrFromSlice(nodeAddress); ok {
			if net, err := addr.Prefix(nodeBits); err == nil {
				facts.Nodes[0].Nets = append(facts.Nodes[0].Nets, net)
			}
		}
		if addr, ok := netip.AddrFromSlice(api); ok {
			facts.APIServer = append(facts.APIServer, addr)
		}
		except, err := carveOut(cidr, facts)
		if err != nil {
			return // nothing of it is opened
		}
		isPartOf(t, cidr, except)
		for _, addr := range closedIn(facts) {
			if cidr.Contains(addr) && !slices.ContainsFunc(except, func(e netip.Prefix) bool { return e.Contains(addr) }) {
				t.Errorf("%s with %v opens %s", cidr, except, addr)
			}
		}
	})
}

// isPartOf checks that exceptions are within their range, sorted, and none within or beside another
// with which it could be one.
func isPartOf(t *testing.T, cidr netip.Prefix, except []netip.Prefix) {
	t.Helper()
	for i, e := range except {
		if !cidr.Contains(e.Addr()) || e.Bits() <= cidr.Bits() {
			t.Errorf("%s: the exception %s is not a part of it", cidr, e)
		}
		if i == 0 {
			continue
		}
		before := except[i-1]
		if !before.Addr().Less(e.Addr()) || before.Overlaps(e) {
			t.Errorf("%s: the exceptions %s and %s overlap or are not sorted", cidr, before, e)
		}
		if parent, _ := e.Addr().Prefix(e.Bits() - 1); before.Bits() == e.Bits() && parent.Contains(before.Addr()) {
			t.Errorf("%s: the exceptions %s and %s could be one", cidr, before, e)
		}
	}
}

// closedIn returns addresses that no rule opens in a cluster, each IPv4 one behind NAT64 as well.
func closedIn(facts Facts) []netip.Addr {
	closed := slices.Clone(closedAddresses)
	for _, addr := range facts.APIServer {
		closed = append(closed, addr.Unmap())
	}
	for _, net := range facts.Nodes[0].Nets {
		for _, addr := range []netip.Addr{net.Addr(), last(net)} {
			closed = append(closed, addr.Unmap())
		}
	}
	for _, addr := range closed {
		if addr.Is4() {
			closed = append(closed, translated(addr))
		}
	}
	return closed
}

func prefix(address []byte, bits int) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(address)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := addr.Unmap().Prefix(bits)
	return p, err == nil
}

// last address of a range.
func last(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := p.Bits(); i < len(raw)*8; i++ {
		raw[i/8] |= 1 << (7 - i%8)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}

// FuzzPlanEgress plans rules of any content: it never panics, and for one rule it gives a rule, a
// pending error or an error.
func FuzzPlanEgress(f *testing.F) {
	f.Add("203.0.113.0/24", "", "", uint16(443))
	f.Add("::/0", "", "", uint16(443))
	f.Add("", "postgres", "data", uint16(5432))
	f.Add("", "postgres", "", uint16(0))
	f.Add("169.254.169.254/32", "", "", uint16(80))
	f.Add("\x00/", "\xff", "\n", uint16(1))
	f.Fuzz(func(t *testing.T, cidr, name, namespace string, port uint16) {
		to := v1alpha1.EgressTarget{CIDR: cidr}
		if name != "" {
			to.Service = &v1alpha1.ServiceReference{Name: name, Namespace: namespace}
		}
		facts := Facts{ClusterDNS: dns, Services: map[types.NamespacedName]Service{
			{Namespace: "data", Name: "postgres"}: {
				Selector: map[string]string{"app": "postgres"},
				Ports:    []corev1.ServicePort{servicePort("", 5432, intstr.FromString("sql"))},
			},
		}}
		rules, pending, errs := planEgress(server(egressTo(to, int32(port))), facts)
		if (cidr != "" || name != "") && len(rules)+len(pending)+len(errs) == 0 {
			t.Error("the rule is neither opened nor reported")
		}
		for _, rule := range rules {
			if len(rule.To) == 0 || len(rule.Ports) == 0 {
				t.Errorf("the rule %+v opens every peer or every port", rule)
			}
		}
	})
}

// An operator that is limited to namespaces says so, and opens nothing that it may not read.
func TestEgressBeyondTheOperatorsNamespaces(t *testing.T) {
	ports := []corev1.ServicePort{servicePort(corev1.ProtocolTCP, 53, intstr.FromInt32(53))}
	seen := Service{Selector: map[string]string{"app": "any"}, Ports: ports}
	facts := Facts{ClusterDNS: dns, Namespaces: []string{"agents", "tools"}, Services: map[types.NamespacedName]Service{
		dns:                                 seen,
		{Namespace: "tools", Name: "near"}:  seen,
		{Namespace: "data", Name: "hidden"}: seen, // even if it came to be known
	}}
	rules, pending, errs := planEgress(server(
		egressTo(v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Namespace: "data", Name: "hidden"}}, 53),
		egressTo(v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Namespace: "data", Name: "missing"}}, 53),
		egressTo(v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Namespace: "tools", Name: "near"}}, 53),
	), facts)
	if len(errs) > 0 || len(rules) != 2 {
		t.Errorf("%d rules are open, want that of tools/near and that of the DNS: %v", len(rules), errs)
	}
	for i, name := range []string{"data/hidden", "data/missing"} {
		if i >= len(pending) || !strings.Contains(pending[i].Error(), "Service "+name+" lies outside the namespaces that MCP Warden is limited to") ||
			!strings.Contains(pending[i].Error(), "to.pods") {
			t.Errorf("pending %v, want rule %d to say what to do about %s", pending, i, name)
		}
	}
}
