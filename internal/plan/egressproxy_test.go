package plan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/plan/plantest"
)

func egressCases(t *testing.T) []plantest.EgressCase {
	t.Helper()
	cases, err := plantest.LoadEgress()
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) < 3 {
		t.Fatalf("%d golden cases of egress proxies, want at least 3", len(cases))
	}
	return cases
}

func egressProxy(t *testing.T, in plan.EgressInput) *plan.EgressPlan {
	t.Helper()
	p, err := plan.EgressProxy(in)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGoldenEgressProxy(t *testing.T) {
	for _, tc := range egressCases(t) {
		t.Run(tc.Name, func(t *testing.T) {
			p := egressProxy(t, tc.Input)
			if named := plan.EgressProxyObjects(tc.Input.Namespace); len(named) != len(p.Objects) {
				t.Errorf("%d objects are removed and %d are made", len(named), len(p.Objects))
			}
			var b bytes.Buffer
			fmt.Fprintf(&b, "# %s: %s\n", plan.AccessListKey, p.AccessList)
			renderObjects(t, &b, p.Objects)
			if p.Cilium != nil {
				fmt.Fprintf(&b, "---\n%s", must(yaml.Marshal(p.Cilium)))
			}
			compareGolden(t, tc.Output, b.Bytes())
		})
	}
}

// unpack an object of a plan into what a client reads.
func unpack[T any](t *testing.T, objects []plan.Object, kind string) *T {
	t.Helper()
	i := slices.IndexFunc(objects, func(o plan.Object) bool { return o.Kind == kind })
	if i < 0 {
		t.Fatalf("the plan has no %s", kind)
	}
	raw, err := json.Marshal(objects[i].Config)
	if err != nil {
		t.Fatal(err)
	}
	out := new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// What the operator writes, the proxy reads, and finds in it what the specs say.
func TestAccessListSaysWhatTheSpecsSay(t *testing.T) {
	const token = "a credential of 256 random bits"
	server := func(name string, state v1alpha1.DesiredState, host string) *v1alpha1.MCPServer {
		s := &v1alpha1.MCPServer{}
		s.Name = name
		s.Spec.DesiredState = state
		s.Spec.Network = &v1alpha1.Network{Egress: []v1alpha1.EgressRule{{To: v1alpha1.EgressTarget{Host: host}, Ports: []int32{443}}}}
		return s
	}
	in := plan.EgressInput{
		Namespace: "agents",
		Servers: []*v1alpha1.MCPServer{
			server("running", "", "api.example.com"), server("stopped", v1alpha1.StateStopped, "api.example.com"),
			server("quarantined", v1alpha1.StateQuarantined, "api.example.com"), server("refused", "", "xn--a.example.com"),
		},
		Credentials: map[string]string{},
		Facts:       plan.Facts{ClusterNets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}},
	}
	for _, s := range in.Servers {
		in.Credentials[s.Name] = access.Digest(token)
	}
	list := egressProxy(t, in).AccessList
	if strings.Contains(string(list), token) {
		t.Error("the credential itself is in the list")
	}
	policy, err := access.Parse(list)
	if err != nil {
		t.Fatal(err)
	}
	if grants := policy.Grants("running", token); grants == nil || !grants.Judge("api.example.com", 443).Port {
		t.Error("a running server may not reach its host")
	}
	for _, name := range []string{"stopped", "quarantined", "refused"} {
		if policy.Grants(name, token) != nil {
			t.Errorf("the %s server may use the proxy", name)
		}
	}
	if !policy.Forbids(netip.MustParseAddr("198.51.100.7")) {
		t.Error("an address of the cluster is open")
	}
}

// The second wall stands where the first does: what the proxy never connects to, its NetworkPolicy
// does not open either.
func TestNetworkPolicyOfTheProxyClosesWhatTheProxyRefuses(t *testing.T) {
	for _, tc := range egressCases(t) {
		if tc.Input.Cilium {
			continue
		}
		t.Run(tc.Name, func(t *testing.T) {
			p := egressProxy(t, tc.Input)
			policy, err := access.Parse(p.AccessList)
			if err != nil {
				t.Fatal(err)
			}
			blocks := ipBlocks(unpack[networkingv1.NetworkPolicy](t, p.Objects, "NetworkPolicy"))
			for _, text := range []string{
				"10.0.0.1", "10.96.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254",
				"168.63.129.16", "192.0.0.192", "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fd00:ec2::254",
				"64:ff9b::a00:1", "2002:a00:1::1", "2001::1", "ff02::1", "::ffff:10.0.0.1",
			} {
				addr := netip.MustParseAddr(text)
				if !policy.Forbids(addr) {
					t.Errorf("the proxy connects to %s", addr)
				}
				if opens(blocks, addr) {
					t.Errorf("the NetworkPolicy opens %s", addr)
				}
			}
			for _, node := range tc.Input.Facts.Nodes {
				for _, net := range node.Nets {
					if !policy.Forbids(net.Addr()) || opens(blocks, net.Addr()) {
						t.Errorf("%s of a node is open", net)
					}
				}
			}
			for _, text := range []string{"203.0.113.10", "140.82.112.3", "2606:50c0:8000::64"} {
				if addr := netip.MustParseAddr(text); policy.Forbids(addr) || !opens(blocks, addr) {
					t.Errorf("%s is closed", addr)
				}
			}
		})
	}
}

func ipBlocks(policy *networkingv1.NetworkPolicy) []*networkingv1.IPBlock {
	var out []*networkingv1.IPBlock
	for _, rule := range policy.Spec.Egress {
		for _, peer := range rule.To {
			if peer.IPBlock != nil {
				out = append(out, peer.IPBlock)
			}
		}
	}
	return out
}

func opens(blocks []*networkingv1.IPBlock, addr netip.Addr) bool {
	return slices.ContainsFunc(blocks, func(block *networkingv1.IPBlock) bool {
		return netip.MustParsePrefix(block.CIDR).Contains(addr) && !slices.ContainsFunc(block.Except, func(except string) bool {
			return netip.MustParsePrefix(except).Contains(addr)
		})
	})
}

// A node that joins and says nothing yet of what it supports must not roll the proxies.
func TestStartingNodeDoesNotRollTheProxy(t *testing.T) {
	in := egressCases(t)[0].Input
	before := unpack[appsv1.Deployment](t, egressProxy(t, in).Objects, "Deployment")
	in.Facts.Nodes = append(slices.Clone(in.Facts.Nodes), plan.Node{Nets: []netip.Prefix{netip.MustParsePrefix("10.0.0.9/32")}})
	after := unpack[appsv1.Deployment](t, egressProxy(t, in).Objects, "Deployment")
	if !equality.Semantic.DeepEqual(before.Spec.Template, after.Spec.Template) {
		t.Error("the pod template changed")
	}
}
