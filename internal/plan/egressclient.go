package plan

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	acnetworkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

const (
	// CredentialKey is the key of a server's credential for the egress proxy in its Secret.
	CredentialKey = "token"
	// AnnotationCredential is the digest of the credential: on its Secret, and on the pod template, so
	// that another credential replaces the pods.
	AnnotationCredential = "mcpwarden.io/credential-sha256"
	// ComponentEgressCredential is the value of LabelComponent of the Secrets with credentials.
	ComponentEgressCredential = "egress-credential"
	// variableOfCredential is the name of the variable that the others of the proxy are made of.
	variableOfCredential = "MCP_WARDEN_EGRESS_TOKEN"
)

// EgressProxyFacts are what the plan of a server needs to know of the egress proxy of its namespace.
type EgressProxyFacts struct {
	// Address of the proxy's Service; invalid while it has none.
	Address netip.Addr
	// Credential is the SHA-256 of the server's credential; empty while it has none.
	Credential string
	// Trouble says what keeps the proxy from serving; empty where it serves.
	Trouble string
}

// CredentialName is the name of the Secret with a server's credential for the egress proxy.
func CredentialName(server string) string { return server + "-egress" }

// CredentialSecret holds the credential of a server. It cannot be changed: a change would reach some
// pods and not others, and the access list not at all.
func CredentialSecret(server *v1alpha1.MCPServer, token string) Object {
	b := builder{server: server}
	config := accorev1.Secret(CredentialName(server.Name), server.Namespace).
		WithLabels(b.labels()).
		WithLabels(map[string]string{LabelComponent: ComponentEgressCredential}).
		WithAnnotations(map[string]string{AnnotationCredential: access.Digest(token)}).
		WithOwnerReferences(b.owner()).
		WithType(corev1.SecretTypeOpaque).
		WithImmutable(true).
		WithData(map[string][]byte{CredentialKey: []byte(token)})
	return Object{Kind: "Secret", Name: *config.Name, Namespace: server.Namespace, Config: config}
}

// usesEgressProxy tells whether the pods of a server are given the proxy. Those of one that is not to
// run are not: they do not start, and a proxy may not be there any more.
func (b builder) usesEgressProxy() bool {
	return b.state() == v1alpha1.StateRunning && hasHostRule(&b.server.Spec)
}

// egressHold keeps pods from starting with no way to the proxy; nil where they have one.
func (b builder) egressHold() *Hold {
	proxy := b.facts.EgressProxy
	if !b.usesEgressProxy() || (proxy.Address.IsValid() && proxy.Credential != "") {
		return nil
	}
	return &Hold{Reason: v1alpha1.ReasonEgressProxyNotReady, Message: "its host rules need the egress proxy of the namespace, which is not set up yet"}
}

// egressTrouble says what keeps the host rules of a server closed; empty where nothing does.
func (b builder) egressTrouble() string {
	if !b.usesEgressProxy() {
		return ""
	}
	if _, err := dnsRule(field.NewPath("spec"), b.facts); err != nil {
		return "the egress proxy resolves no name: " + strings.TrimPrefix(err.Detail, needsDNS)
	}
	return b.facts.EgressProxy.Trouble
}

// egressProxyRule opens the pods of the namespace's egress proxy.
func egressProxyRule() *egressRule {
	return acnetworkingv1.NetworkPolicyEgressRule().
		WithTo(acnetworkingv1.NetworkPolicyPeer().WithPodSelector(acmetav1.LabelSelector().WithMatchLabels(EgressProxyLabels()))).
		WithPorts(policyPort(corev1.ProtocolTCP, intstr.FromInt32(egressPort)))
}

// egressEnv tells clients of the way to the proxy, in the variables that most of them read. The
// kubelet puts the credential in its place.
func (b builder) egressEnv() []*accorev1.EnvVarApplyConfiguration {
	if !b.usesEgressProxy() {
		return nil
	}
	url := fmt.Sprintf("http://%s:$(%s)@%s", b.server.Name, variableOfCredential, netip.AddrPortFrom(b.facts.EgressProxy.Address, egressPort))
	direct := strings.Join(directHosts(b.server), ",")
	out := []*accorev1.EnvVarApplyConfiguration{accorev1.EnvVar().WithName(variableOfCredential).WithValueFrom(
		accorev1.EnvVarSource().WithSecretKeyRef(accorev1.SecretKeySelector().WithName(CredentialName(b.server.Name)).WithKey(CredentialKey)))}
	for _, v := range [][2]string{
		{"HTTPS_PROXY", url}, {"https_proxy", url}, {"HTTP_PROXY", url}, {"http_proxy", url},
		{"NO_PROXY", direct}, {"no_proxy", direct}, {"NODE_USE_ENV_PROXY", "1"},
	} {
		out = append(out, accorev1.EnvVar().WithName(v[0]).WithValue(v[1]))
	}
	return out
}

// clusterHosts are the names and addresses within a cluster, to which the proxy never leads.
var clusterHosts = []string{".svc", ".cluster.local", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"}

// directHosts are what a client reaches without the proxy: itself, and what other rules open.
func directHosts(server *v1alpha1.MCPServer) []string {
	out := []string{"localhost", "127.0.0.1", "::1"}
	inCluster := false
	for i := range server.Spec.Network.Egress {
		switch to := &server.Spec.Network.Egress[i].To; {
		case to.CIDR != "":
			out = append(out, to.CIDR)
		case to.Service != nil:
			inCluster = true
			namespace := to.Service.Namespace
			if namespace == "" || namespace == server.Namespace {
				out, namespace = append(out, to.Service.Name), server.Namespace
			}
			out = append(out, to.Service.Name+"."+namespace)
		case to.Pods != nil:
			inCluster = true
		}
	}
	if inCluster {
		out = append(out, clusterHosts...)
	}
	return out
}
