package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	acnetworkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// Canary is the ConfigMap of a namespace that tells the probes in it where the canary is. It is read
// when a pod starts, so that a canary that moves rolls nothing.
func Canary(namespace string, facts Facts) Object {
	return Object{Kind: "ConfigMap", Name: probe.CanaryName, Namespace: namespace, Config: accorev1.ConfigMap(probe.CanaryName, namespace).
		WithLabels(map[string]string{LabelManagedBy: ManagedBy}).
		WithData(map[string]string{probe.AddressesKey: probe.FormatAddresses(facts.Canary)})}
}

// IsShared tells the objects that a namespace has once, for all its servers: nothing owns them, and
// their names are the operator's.
func (o Object) IsShared() bool {
	return (o.Kind == "NetworkPolicy" && o.Name == BaselineName) || (o.Kind == "ConfigMap" && o.Name == probe.CanaryName)
}

// RequiresProof tells whether no pod of a server may start before its isolation is proven.
func RequiresProof(server *v1alpha1.MCPServer) bool {
	return server.Spec.Network != nil && server.Spec.Network.Enforcement == v1alpha1.EnforcementRequire
}

// unproven says why nothing may start that requires a proof. Where pods run, only what they were given
// decides: each new one holds itself back until it has proven its isolation.
func (b builder) unproven() *Hold {
	if !RequiresProof(b.server) || (b.facts.Live != nil && b.probeImage != "") {
		return nil
	}
	if b.facts.Isolation.Result == probe.Proven && b.probeImage != "" {
		return nil
	}
	return &Hold{Reason: reasonOf(b.facts.Isolation.Result), Message: "isolation is required (network.enforcement) and not proven: " + b.facts.Isolation.Message}
}

func reasonOf(result probe.Result) string {
	if result == probe.NotEnforced {
		return v1alpha1.ReasonNotEnforced
	}
	return v1alpha1.ReasonNotProven
}

// probeImage is the image of the init container; empty where there is none. An upgrade of the operator
// must not roll servers: where a Deployment is up, it keeps what it has until the spec changes, unless it
// has none and cannot do without.
func probeImage(server *v1alpha1.MCPServer, facts Facts) string {
	given := ""
	if server.Status.Network != nil {
		given = server.Status.Network.ProbeImage
	}
	return componentImage(server, facts, given, RequiresProof(server))
}

// componentImage is the operator's image for what runs beside a server that was given one before, or none, and which it may need.
func componentImage(server *v1alpha1.MCPServer, facts Facts, given string, needed bool) string {
	if facts.Live == nil || server.Status.ObservedGeneration != server.Generation || (given == "" && needed) {
		return facts.ComponentImage
	}
	return given
}

// probeContainer runs before the server, in its pod, and finds out whether the pod is isolated. It
// asks for no more than any server does, so that it costs the scheduler nothing.
func (b builder) probeContainer() *accorev1.ContainerApplyConfiguration {
	args := []string{"server"}
	if RequiresProof(b.server) {
		args = append(args, "--require")
	}
	amounts := func(cpu, memory, storage string) corev1.ResourceList {
		return corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
			corev1.ResourceEphemeralStorage: resource.MustParse(storage),
		}
	}
	return accorev1.Container().
		WithName(probe.InitContainerName).
		WithImage(b.probeImage).
		WithImagePullPolicy(corev1.PullIfNotPresent). // no server waits for a registry because of it
		WithCommand("/probe").
		WithArgs(args...).
		WithEnv(accorev1.EnvVar().WithName(probe.AddressesEnv).WithValueFrom(accorev1.EnvVarSource().
			WithConfigMapKeyRef(accorev1.ConfigMapKeySelector().
				WithName(probe.CanaryName).WithKey(probe.AddressesKey).WithOptional(true)))).
		WithResources(accorev1.ResourceRequirements().
			WithRequests(amounts("10m", "16Mi", "1Mi")).
			WithLimits(amounts("100m", "32Mi", "8Mi"))).
		WithTerminationMessagePath(corev1.TerminationMessagePathDefault).
		WithTerminationMessagePolicy(corev1.TerminationMessageReadFile).
		WithSecurityContext(containerSecurityContext())
}

// canaryRule opens the one port of the canary that a probe must reach. All that is heard there is a
// greeting that never changes.
func (b builder) canaryRule() *egressRule {
	return acnetworkingv1.NetworkPolicyEgressRule().
		WithTo(acnetworkingv1.NetworkPolicyPeer().
			WithNamespaceSelector(acmetav1.LabelSelector().WithMatchLabels(map[string]string{corev1.LabelMetadataName: b.facts.OperatorNamespace})).
			WithPodSelector(acmetav1.LabelSelector().WithMatchLabels(map[string]string{
				LabelManagedBy: ManagedBy, probe.LabelComponent: probe.ComponentCanary}))).
		WithPorts(policyPort(corev1.ProtocolTCP, intstr.FromInt32(probe.AllowedPort)))
}

// Eligible are the nodes on which a server may run, and those of which the names are given, on which
// pods of it run. A RuntimeClass may rule out more nodes; they count.
func Eligible(server *v1alpha1.MCPServer, nodes []Node, running map[string]bool) []probe.Node {
	scheduling := server.Spec.Scheduling
	if scheduling == nil {
		scheduling = &v1alpha1.Scheduling{}
	}
	pod := &corev1.Pod{}
	if scheduling.Affinity != nil {
		pod.Spec.Affinity = convert[corev1.Affinity](scheduling.Affinity)
	}
	required := nodeaffinity.GetRequiredNodeAffinity(pod)
	var out []probe.Node
	for i := range nodes {
		node := &nodes[i]
		if running[node.Name] || (selects(scheduling.NodeSelector, node.Labels) && !isForeignOS(node) &&
			tolerates(scheduling.Tolerations, node.Taints) && attracts(required, node)) {
			out = append(out, probe.Node{Name: node.Name, Ready: node.Ready})
		}
	}
	return out
}

// attracts tells whether a node is one that the affinity requires. Where that cannot be told, it
// counts: then it must be proven too.
func attracts(required nodeaffinity.RequiredNodeAffinity, node *Node) bool {
	matches, err := required.Match(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name, Labels: node.Labels}})
	return matches || err != nil
}

// tolerates tells whether no taint keeps the server's pods from being put on a node.
func tolerates(tolerations []v1alpha1.Toleration, taints []corev1.Taint) bool {
	for _, taint := range taints {
		if taint.Effect != corev1.TaintEffectPreferNoSchedule && !slices.ContainsFunc(tolerations, func(t v1alpha1.Toleration) bool {
			return (t.Effect == "" || t.Effect == string(taint.Effect)) && (t.Key == "" || string(t.Key) == taint.Key) &&
				(t.Operator == string(corev1.TolerationOpExists) || string(t.Value) == taint.Value)
		}) {
			return false
		}
	}
	return true
}
