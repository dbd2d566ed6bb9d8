package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	acpolicyv1 "k8s.io/client-go/applyconfigurations/policy/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

const (
	// EgressProxyName is the name of the objects of a namespace's egress proxy, but for its access list.
	EgressProxyName = "mcp-warden-egress"
	// AccessListName is the name of the Secret that holds the proxy's access list.
	AccessListName = "mcp-warden-egress-access"
	// AccessListKey is the key of the access list in its Secret, and the name of the file.
	AccessListKey = "access.json"
	// AnnotationAccessList of the access list's Secret is the digest of the list.
	AnnotationAccessList = "mcpwarden.io/access-list"
	// LabelComponent says which part of MCP Warden an object or a pod belongs to.
	LabelComponent = "mcpwarden.io/component"
	// ComponentEgressProxy is the value of LabelComponent of everything of an egress proxy.
	ComponentEgressProxy = "egress-proxy"

	egressPort       = 3128
	egressHealthPort = 8081
	egressReplicas   = 2
)

// EgressInput is all that the plan of a namespace's egress proxy depends on.
type EgressInput struct {
	Namespace string
	// Servers of the namespace, whatever their state.
	Servers []*v1alpha1.MCPServer
	// Credentials are the SHA-256 of the servers' credentials, by name, as access.Digest writes them.
	Credentials map[string]string
	// Image that holds the proxy.
	Image string
	// Cilium says that a CiliumNetworkPolicy is to say what the proxy may reach.
	Cilium bool
	Facts  Facts
}

// EgressPlan is what the egress proxy of a namespace should be.
type EgressPlan struct {
	// Objects in the order in which they are applied: isolation first, the workload last.
	Objects []Object
	// Cilium is the CiliumNetworkPolicy; nil where none is wanted.
	Cilium *unstructured.Unstructured
	// AccessList is what the proxy reads, and Digest tells one from another.
	AccessList []byte
	Digest     string
}

// NeedsEgressProxy tells whether a server has host rules that are to be open.
func NeedsEgressProxy(server *v1alpha1.MCPServer) bool {
	return stateOf(server) == v1alpha1.StateRunning && server.DeletionTimestamp == nil && hasHostRule(&server.Spec)
}

func hasHostRule(spec *v1alpha1.MCPServerSpec) bool {
	return spec.Network != nil && slices.ContainsFunc(spec.Network.Egress, func(rule v1alpha1.EgressRule) bool { return rule.To.Host != "" })
}

// EgressProxy plans the egress proxy of a namespace. It fails where the access list would become
// larger than a Secret can be.
func EgressProxy(in EgressInput) (*EgressPlan, error) {
	list, err := access.Encode(accessList(in))
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(list)
	p := &EgressPlan{AccessList: list, Digest: hex.EncodeToString(sum[:])}
	b := egressBuilder{EgressInput: in, digest: p.Digest, list: list}
	add := func(kind, name string, config interface{ IsApplyConfiguration() }) {
		p.Objects = append(p.Objects, Object{Kind: kind, Name: name, Namespace: in.Namespace, Config: config})
	}
	add("NetworkPolicy", EgressProxyName, b.networkPolicy())
	add("ServiceAccount", EgressProxyName, b.serviceAccount())
	add("Service", EgressProxyName, b.service())
	add("Secret", AccessListName, b.accessListSecret())
	add("PodDisruptionBudget", EgressProxyName, b.podDisruptionBudget())
	add("Deployment", EgressProxyName, b.deployment())
	if in.Cilium {
		p.Cilium = b.ciliumNetworkPolicy()
	}
	return p, nil
}

// EgressProxyObjects are the names of all objects of a namespace's egress proxy, with nothing in them.
func EgressProxyObjects(namespace string) []Object {
	out := []Object{{Kind: "Secret", Name: AccessListName, Namespace: namespace}}
	for _, kind := range []string{"NetworkPolicy", "ServiceAccount", "Service", "PodDisruptionBudget", "Deployment"} {
		out = append(out, Object{Kind: kind, Name: EgressProxyName, Namespace: namespace})
	}
	return out
}

// egressBuilder carries what every object of one proxy is built from.
type egressBuilder struct {
	EgressInput
	digest string
	list   []byte
}

// EgressProxyLabels are the labels of everything of an egress proxy, and those by which its pods are found.
func EgressProxyLabels() map[string]string {
	return map[string]string{LabelManagedBy: ManagedBy, LabelComponent: ComponentEgressProxy}
}

func egressLabels() map[string]string {
	labels := EgressProxyLabels()
	labels["app.kubernetes.io/name"] = EgressProxyName
	return labels
}

func egressSelector() *acmetav1.LabelSelectorApplyConfiguration {
	return acmetav1.LabelSelector().WithMatchLabels(EgressProxyLabels())
}

// accessList says which server may reach what. It knows a server by the digest of its credential; one
// without a credential, or that is not to run, is not in it.
func accessList(in EgressInput) access.List {
	list := access.List{Version: access.Version, Denied: deniedNets(in.Facts), Servers: []access.Server{}}
	for _, server := range in.Servers {
		digest, rules := in.Credentials[server.Name], hostRules(server)
		if digest != "" && len(rules) > 0 {
			list.Servers = append(list.Servers, access.Server{Name: server.Name, CredentialSHA256: digest, Rules: rules})
		}
	}
	slices.SortFunc(list.Servers, func(a, b access.Server) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// hostRules of a server that are open: none where it is not to run. Those that the proxy would not
// take are told in the server's own status, and must not shut the proxy for the others.
func hostRules(server *v1alpha1.MCPServer) []access.Rule {
	if !NeedsEgressProxy(server) {
		return nil
	}
	var out []access.Rule
	for i := range server.Spec.Network.Egress {
		rule := &server.Spec.Network.Egress[i]
		if rule.To.Host == "" || access.ValidateHostRule(rule.To.Host) != nil {
			continue
		}
		out = append(out, access.Rule{Host: rule.To.Host, Ports: rule.Ports, EncryptedClientHello: string(rule.EncryptedClientHello)})
	}
	return out
}

// deniedNets are the ranges of the cluster that the proxy does not refuse anyhow.
func deniedNets(facts Facts) []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, net := range clusterNets(facts) {
		b.AddPrefix(net)
	}
	for _, net := range access.ForbiddenNets() {
		b.RemovePrefix(net)
	}
	return prefixesOf(&b)
}

// prefixesOf a set of valid ranges, as few and as sorted as can be.
func prefixesOf(b *netipx.IPSetBuilder) []netip.Prefix {
	set, err := b.IPSet()
	if err != nil {
		panic(fmt.Sprintf("ranges: %v", err)) // only of ranges that are none
	}
	return set.Prefixes()
}

func (b egressBuilder) serviceAccount() *accorev1.ServiceAccountApplyConfiguration {
	return accorev1.ServiceAccount(EgressProxyName, b.Namespace).
		WithLabels(egressLabels()).
		WithAutomountServiceAccountToken(false)
}

// service gives the proxy an address that needs no DNS: servers are given it as it is.
func (b egressBuilder) service() *accorev1.ServiceApplyConfiguration {
	return accorev1.Service(EgressProxyName, b.Namespace).
		WithLabels(egressLabels()).
		WithSpec(accorev1.ServiceSpec().
			WithType(corev1.ServiceTypeClusterIP).
			WithSelector(EgressProxyLabels()).
			WithInternalTrafficPolicy(corev1.ServiceInternalTrafficPolicyCluster).
			WithSessionAffinity(corev1.ServiceAffinityNone).
			WithPorts(accorev1.ServicePort().
				WithName("proxy").
				WithProtocol(corev1.ProtocolTCP).
				WithPort(egressPort).
				WithTargetPort(intstr.FromInt32(egressPort))))
}

func (b egressBuilder) accessListSecret() *accorev1.SecretApplyConfiguration {
	return accorev1.Secret(AccessListName, b.Namespace).
		WithLabels(egressLabels()).
		WithAnnotations(map[string]string{AnnotationAccessList: b.digest}).
		WithType(corev1.SecretTypeOpaque).
		WithData(map[string][]byte{AccessListKey: b.list})
}

func (b egressBuilder) podDisruptionBudget() *acpolicyv1.PodDisruptionBudgetApplyConfiguration {
	return acpolicyv1.PodDisruptionBudget(EgressProxyName, b.Namespace).
		WithLabels(egressLabels()).
		WithSpec(acpolicyv1.PodDisruptionBudgetSpec().
			WithMaxUnavailable(intstr.FromInt32(1)).
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow).
			WithSelector(egressSelector()))
}
