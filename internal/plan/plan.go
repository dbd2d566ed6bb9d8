// Package plan turns an MCPServer and what is known of the cluster into every object the server
// needs, as server-side apply configurations. It is pure: no client, no clock, no file, no network,
// so that the controller, offline tools and golden tests share it.
package plan

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

const (
	// FieldManager is the field manager of everything that the operator applies.
	FieldManager = "mcp-warden"
	// LabelManagedBy marks every object that the operator manages, with ManagedBy as its value.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of LabelManagedBy.
	ManagedBy = "mcp-warden"
	// LabelServer carries the name of the MCPServer that an object or a pod belongs to.
	LabelServer = "mcpwarden.io/server"
	// AnnotationStopped marks a Deployment that the operator scaled to zero or holds there, so that it
	// knows to scale it up again where nobody else decides on its replicas.
	AnnotationStopped = "mcpwarden.io/stopped"
	// ContainerName is the name of the server's container in its pod.
	ContainerName = "server"
	// DefaultPath is the URL path of the MCP endpoint where the spec names none.
	DefaultPath = "/mcp"
)

// Input is all that a plan depends on.
type Input struct {
	Server  *v1alpha1.MCPServer
	Facts   Facts
	Secrets Secrets
}

// Facts are what a plan needs to know of the cluster.
type Facts struct {
	// Nodes of the cluster.
	Nodes []Node
	// APIServer are the addresses at which the API server answers.
	APIServer []netip.Addr
	// ClusterNets are further ranges of the cluster, such as those that pods get their addresses from.
	ClusterNets []netip.Prefix
	// Services that egress rules name, by name; one that does not exist is missing.
	Services map[types.NamespacedName]Service
	// ClusterDNS is the name of the Service that answers DNS queries; it is among Services if it exists.
	ClusterDNS types.NamespacedName
	// Namespaces are those that the operator is limited to; empty: all are read.
	Namespaces []string
	// EgressProxy is what is known of the egress proxy of the server's namespace.
	EgressProxy EgressProxyFacts
	// Live is what the server's Deployment carries now; nil without one.
	Live *LiveDeployment
	// OperatorNamespace is where the operator and the canary run.
	OperatorNamespace string
	// ComponentImage is the operator's own image; empty where it is not known, so that nothing runs beside servers.
	ComponentImage string
	// Canary are the addresses of the canary's Service; none where there is no canary.
	Canary []netip.Addr
	// Isolation is what is known of the server's isolation.
	Isolation probe.Verdict
}

// Hidden tells a Service that an operator limited to namespaces may not read: that it is not among
// the facts says nothing of whether it exists.
func (f Facts) Hidden(service types.NamespacedName) bool {
	return len(f.Namespaces) > 0 && !slices.Contains(f.Namespaces, service.Namespace) && service != f.ClusterDNS
}

// Node is what a plan needs to know of a node.
type Node struct {
	Name   string
	Labels map[string]string
	Taints []corev1.Taint
	// Ready says that its kubelet reports, and that it can run pods.
	Ready bool
	// Nets are the node's addresses and the ranges that its pods get theirs from.
	Nets []netip.Prefix
	// UserNamespaces says whether each of the node's runtime handlers supports user namespaces.
	UserNamespaces Support
	// DefaultUserNamespaces says whether the default runtime handler does.
	DefaultUserNamespaces Support
	// StrictGroups says whether the node honours supplementalGroupsPolicy.
	StrictGroups Support
	// ImageVolumes says whether the node mounts images as volumes, and lets programs in them run.
	ImageVolumes Support
}

// Service is what a plan needs to know of a Service.
type Service struct {
	Selector map[string]string
	Ports    []corev1.ServicePort
}

// LiveDeployment is what a plan takes over from the Deployment as it is.
type LiveDeployment struct {
	// Replicas that the Deployment asks for now, by whomever they were set.
	Replicas int32
}

// Plan is what should be.
type Plan struct {
	// Objects in the order in which they are applied: isolation first, the workload last.
	Objects []Object
	// Pending says which egress rules the cluster keeps closed for now, and why. Everything else of the
	// plan stands: a rule that is pending is closed.
	Pending field.ErrorList
	// EgressTrouble says what keeps the egress proxy, and so every host rule, from working for now; empty
	// where nothing does.
	EgressTrouble string
	// Held says why the Deployment is not among the objects: it is left as it is, or not created, while
	// all else of the plan stands. Nil where it is among them.
	Held *Hold
	// Features that the pods get of those that depend on the nodes.
	Features []v1alpha1.PodFeature
	// Resources in force, defaults included.
	Resources v1alpha1.ResourceRequirements
	// ProbeImage is the image of the pods' init container; empty where they have none.
	ProbeImage string
	// GatewayImage is the image of the gateway in front of the server; empty where there is none.
	GatewayImage string
	// InitContainers are the names of the containers that the pods run before, and beside, the server's.
	InitContainers []string
	// Endpoint at which allowed clients reach the server; empty while nobody can.
	Endpoint string
}

// Object is one object of a plan.
type Object struct {
	Kind      string
	Name      string
	Namespace string
	Config    runtime.ApplyConfiguration
}

// Build plans an MCPServer. The errors say what makes the spec impossible, each with its field;
// then there is no plan, and nothing must be applied. A server under quarantine always has a plan: what
// is wrong with a spec that is not rolled out must not keep a suspect open.
func Build(in Input) (*Plan, field.ErrorList) {
	spec := &in.Server.Spec
	resources := EffectiveResources(spec)
	egress, pending, errs := planEgress(in.Server, in.Facts)
	errs = append(errs, validate(spec, resources)...)
	errs = append(errs, validateGateway(in.Server, in.Facts)...)
	if len(errs) > 0 && in.Server.Spec.DesiredState != v1alpha1.StateQuarantined {
		return nil, errs
	}
	b := builder{
		server: in.Server, facts: in.Facts, secrets: in.Secrets, resources: resources, features: features(in.Server, in.Facts),
		probeImage: probeImage(in.Server, in.Facts), gatewayImage: gatewayImage(in.Server, in.Facts),
	}
	p := &Plan{
		Pending: pending, EgressTrouble: b.egressTrouble(), Held: b.held(), Features: b.features, Resources: resources,
		ProbeImage: b.probeImage, GatewayImage: b.gatewayImage, Endpoint: endpoint(in.Server),
	}
	for _, c := range b.initContainers() {
		p.InitContainers = append(p.InitContainers, *c.Name)
	}
	p.Objects = append(p.Objects, Baseline(in.Server.Namespace))
	p.add("NetworkPolicy", in.Server.Name, in.Server.Namespace, b.networkPolicy(egress))
	if b.probeImage != "" {
		p.Objects = append(p.Objects, Canary(in.Server.Namespace, in.Facts))
	}
	p.add("ServiceAccount", in.Server.Name, in.Server.Namespace, b.serviceAccount())
	p.add("Service", in.Server.Name, in.Server.Namespace, b.service())
	if b.wantsDisruptionBudget() {
		p.add("PodDisruptionBudget", in.Server.Name, in.Server.Namespace, b.podDisruptionBudget())
	}
	if p.Held == nil {
		p.add("Deployment", in.Server.Name, in.Server.Namespace, b.deployment())
	}
	return p, nil
}

// held says what keeps new pods from starting. A server that is not to run has none that could start:
// nothing may keep it from being stopped, or cut off.
func (b builder) held() *Hold {
	if b.state() != v1alpha1.StateRunning {
		return nil
	}
	return cmp.Or(b.secrets.Hold, b.egressHold(), b.unproven())
}

// HoldBack takes the Deployment out of a plan, for a reason that is told before any other.
func (p *Plan) HoldBack(hold *Hold) {
	p.Held = hold
	p.Objects = slices.DeleteFunc(p.Objects, func(o Object) bool { return o.Kind == "Deployment" })
}

func (p *Plan) add(kind, name, namespace string, config runtime.ApplyConfiguration) {
	p.Objects = append(p.Objects, Object{Kind: kind, Name: name, Namespace: namespace, Config: config})
}

// builder carries what every object of one server is built from.
type builder struct {
	server    *v1alpha1.MCPServer
	facts     Facts
	secrets   Secrets
	resources v1alpha1.ResourceRequirements
	features  []v1alpha1.PodFeature
	// probeImage is that of the init container; empty: there is none.
	probeImage string
	// gatewayImage is that of the gateway; empty: there is none.
	gatewayImage string
}

// labels of every object of the server. Labels of the MCPServer are never copied: a GitOps engine
// would take the children for its own.
func (b builder) labels() map[string]string {
	return map[string]string{
		"app.kubernetes.io/name": b.server.Name,
		LabelManagedBy:           ManagedBy,
		LabelServer:              b.server.Name,
	}
}

// SelectorLabels are the labels by which everything of one server finds its pods.
func SelectorLabels(server string) map[string]string {
	return map[string]string{LabelManagedBy: ManagedBy, LabelServer: server}
}

func (b builder) selector() *acmetav1.LabelSelectorApplyConfiguration {
	return acmetav1.LabelSelector().WithMatchLabels(SelectorLabels(b.server.Name))
}

func (b builder) owner() *acmetav1.OwnerReferenceApplyConfiguration {
	return acmetav1.OwnerReference().
		WithAPIVersion(v1alpha1.GroupVersion.String()).
		WithKind("MCPServer").
		WithName(b.server.Name).
		WithUID(b.server.UID).
		WithController(true)
}

func (b builder) state() v1alpha1.DesiredState { return stateOf(b.server) }

func stateOf(s *v1alpha1.MCPServer) v1alpha1.DesiredState {
	if s.Spec.DesiredState == "" {
		return v1alpha1.StateRunning
	}
	return s.Spec.DesiredState
}

// replicas that should run now; nil where somebody else decides. A Deployment that is paused still
// scales, so that one in quarantine is held at what it has, and at none where there is none.
func (b builder) replicas() *int32 {
	switch {
	case b.state() == v1alpha1.StateRunning:
		return b.server.Spec.Replicas
	case b.state() == v1alpha1.StateQuarantined && b.facts.Live != nil:
		return new(b.facts.Live.Replicas)
	}
	return new(int32(0))
}

// endpoint is empty where the network is closed or no pod runs.
func endpoint(s *v1alpha1.MCPServer) string {
	if stateOf(s) != v1alpha1.StateRunning {
		return ""
	}
	scheme := "http"
	if s.Spec.Transport.TLS != nil {
		scheme = "https"
	}
	return endpointURL(scheme, s.Name, s.Namespace, portOf(s), endpointPath(s))
}

// IsOwnedBy tells whether the object's controller is the server.
func IsOwnedBy(obj metav1.Object, server *v1alpha1.MCPServer) bool {
	ref := metav1.GetControllerOfNoCopy(obj)
	return ref != nil && ref.UID == server.UID
}
