package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilversion "k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/scope"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

// +kubebuilder:rbac:groups="",resources=nodes;pods;services,verbs=list;watch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch,namespace=default

// apiServerService is the Service of the API server.
var apiServerService = types.NamespacedName{Namespace: scope.APIServerNamespace, Name: scope.APIServerService}

// observation is what was seen before anything was changed.
type observation struct {
	facts      plan.Facts
	deployment *appsv1.Deployment
	pods       []corev1.Pod
	// secrets that the spec names; nil where it names none.
	secrets *secretsSeen
	// unread says why they could not be looked at; nil where they could.
	unread error
}

func (o *observation) status(p *plan.Plan, secrets *status.Secrets) status.Input {
	return status.Input{Plan: p, Deployment: o.deployment, Pods: o.pods, Secrets: secrets, Isolation: &o.facts.Isolation}
}

// observe reads, from the cache, what the plan and the status of a server depend on.
func (r *MCPServerReconciler) observe(ctx context.Context, server *v1alpha1.MCPServer) (*observation, error) {
	facts, err := r.clusterFacts(ctx, plan.ServicesOf(server)...)
	if err != nil {
		return nil, err
	}
	obs := &observation{facts: facts}
	for _, step := range []func(context.Context, *v1alpha1.MCPServer, *observation) error{
		r.observeDeployment, r.observePods, r.observeSecrets, r.observeEgressProxy, r.observeIsolation,
	} {
		if err := step(ctx, server, obs); err != nil {
			return nil, err
		}
	}
	return obs, nil
}

// clusterFacts are what plans need to know of the cluster, and of some Services.
func (r *base) clusterFacts(ctx context.Context, services ...types.NamespacedName) (plan.Facts, error) {
	facts := plan.Facts{ClusterDNS: r.ClusterDNS, Namespaces: r.Namespaces, ClusterNets: r.ClusterCIDRs, Services: map[types.NamespacedName]plan.Service{}}
	if err := r.observeNodes(ctx, &facts); err != nil {
		return facts, err
	}
	if err := r.observeAPIServer(ctx, &facts); err != nil {
		return facts, err
	}
	return facts, r.observeServices(ctx, append(services, r.ClusterDNS), &facts)
}

func (r *base) observeNodes(ctx context.Context, facts *plan.Facts) error {
	nodes := &corev1.NodeList{}
	if err := r.Client.List(ctx, nodes, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	for i := range nodes.Items {
		facts.Nodes = append(facts.Nodes, nodeFact(&nodes.Items[i]))
	}
	return nil
}

func nodeFact(node *corev1.Node) plan.Node {
	out := plan.Node{Name: node.Name, Labels: node.Labels, Taints: node.Spec.Taints}
	for _, c := range node.Status.Conditions {
		out.Ready = out.Ready || (c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue)
	}
	for i, handler := range node.Status.RuntimeHandlers {
		able := support(handler.Features != nil && handler.Features.UserNamespaces != nil && *handler.Features.UserNamespaces)
		if i == 0 || able == plan.Unsupported {
			out.UserNamespaces = able
		}
		if handler.Name == "" {
			out.DefaultUserNamespaces = able
		}
	}
	if f := node.Status.Features; f != nil && f.SupplementalGroupsPolicy != nil {
		out.StrictGroups = support(*f.SupplementalGroupsPolicy)
	}
	out.ImageVolumes = imageVolumes(&node.Status.NodeInfo)
	for _, address := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(address.Address); err == nil { // the others are host names
			out.Nets = append(out.Nets, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	for _, cidr := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(cidr); err == nil {
			out.Nets = append(out.Nets, prefix.Masked())
		}
	}
	return out
}

// imageVolumes tells whether a node mounts images as volumes from which programs can be run. No node says so itself: kubelets do by default
// from 1.36 on, and of the runtimes containerd is known to let programs run from there; others may forbid it.
func imageVolumes(info *corev1.NodeSystemInfo) plan.Support {
	kubelet, err := utilversion.ParseSemantic(info.KubeletVersion)
	if err != nil {
		return plan.SupportUnknown
	}
	name, number, _ := strings.Cut(info.ContainerRuntimeVersion, "://")
	runtime, err := utilversion.ParseSemantic(number)
	return support(err == nil && name == "containerd" && kubelet.AtLeast(utilversion.MajorMinor(1, 36)) && runtime.AtLeast(utilversion.MajorMinor(2, 1)))
}

func support(able bool) plan.Support {
	if able {
		return plan.Supported
	}
	return plan.Unsupported
}

// observeAPIServer finds the addresses of the API server: of its Service, and of its endpoints.
func (r *base) observeAPIServer(ctx context.Context, facts *plan.Facts) error {
	slices := &discoveryv1.EndpointSliceList{}
	if err := r.Client.List(ctx, slices, client.InNamespace(apiServerService.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list EndpointSlices of the API server: %w", err)
	}
	service := &corev1.Service{}
	if err := r.Client.Get(ctx, apiServerService, service); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("get Service of the API server: %w", err)
	}
	addresses := service.Spec.ClusterIPs
	for i := range slices.Items {
		for _, endpoint := range slices.Items[i].Endpoints {
			addresses = append(addresses, endpoint.Addresses...)
		}
	}
	for _, address := range addresses {
		if ip, err := netip.ParseAddr(address); err == nil {
			facts.APIServer = append(facts.APIServer, ip)
		}
	}
	return nil
}

func (r *base) observeServices(ctx context.Context, names []types.NamespacedName, facts *plan.Facts) error {
	for _, name := range names {
		if facts.Hidden(name) {
			continue
		}
		service := &corev1.Service{}
		switch err := r.Client.Get(ctx, name, service); {
		case apierrors.IsNotFound(err):
		case err != nil:
			return fmt.Errorf("get Service %s: %w", name, err)
		default:
			facts.Services[name] = plan.Service{Selector: service.Spec.Selector, Ports: service.Spec.Ports}
		}
	}
	return nil
}

func (r *MCPServerReconciler) observeDeployment(ctx context.Context, server *v1alpha1.MCPServer, obs *observation) error {
	live := &appsv1.Deployment{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(server), live)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get Deployment: %w", err)
	}
	if !plan.IsOwnedBy(live, server) && (metav1.GetControllerOfNoCopy(live) != nil || !isMarked(server, live)) {
		return nil
	}
	obs.deployment = live
	obs.facts.Live = &plan.LiveDeployment{}
	if live.Spec.Replicas != nil {
		obs.facts.Live.Replicas = *live.Spec.Replicas
	}
	return nil
}

func (r *MCPServerReconciler) observePods(ctx context.Context, server *v1alpha1.MCPServer, obs *observation) error {
	pods := &corev1.PodList{}
	if err := r.Client.List(ctx, pods, client.InNamespace(server.Namespace),
		client.MatchingFields{podServerIndex: server.Name}, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	obs.pods = pods.Items
	return nil
}
