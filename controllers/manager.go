package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	ctrlsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

const (
	// podServerIndex finds pods by the MCPServer that their label names.
	podServerIndex = "mcpwarden.io/server"
	// serverServiceIndex finds MCPServers by the Services that their egress rules name.
	serverServiceIndex = "mcpwarden.io/egress-service"
	// serverSecretIndex finds MCPServers by the Secrets that they name.
	serverSecretIndex = "mcpwarden.io/source-secret"
	// serverDigestIndex finds MCPServers by the digests of the values that they get.
	serverDigestIndex = "mcpwarden.io/source-digest"
	// secretServerIndex finds the Secrets that the operator made for an MCPServer.
	secretServerIndex = "mcpwarden.io/server"
)

// Events are recorded, and a leader is elected, with these rights; the election still writes events
// of the core group, in the operator's own namespace.
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch,namespace=mcp-warden-system
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,verbs=get;create;update,namespace=mcp-warden-system

// Options of the operator.
type Options struct {
	// Manager options; its scheme, cache and client are set by NewManager.
	Manager ctrl.Options
	// ClusterDNS is the Service that answers DNS queries in the cluster.
	ClusterDNS types.NamespacedName
	// ClusterCIDRs are ranges of the cluster that its nodes do not report, such as those of its pods
	// where the CNI hands addresses out by itself. No cidr egress rule opens them.
	ClusterCIDRs []netip.Prefix
	// Namespaces are those that the operator looks at; empty: all. See scope.ParseNamespaces.
	Namespaces []string
	// ComponentImage is the operator's own image, which also holds what runs beside servers; empty: nothing does.
	ComponentImage string
	// Namespace of the operator itself, where it keeps the key of all digests, and where the canary and the
	// probers run.
	Namespace string
	// MaxRotations is how many servers may be in the middle of a rotation at the same time; 10 if zero.
	MaxRotations int
	// CNIBackend says whether CiliumNetworkPolicies back egress proxies up: CNIBackendAuto, CNIBackendNone
	// (the default) or CNIBackendCilium.
	CNIBackend string
	// Workers is how many servers are reconciled at the same time.
	Workers int
	// BlockedRetry is how long it takes until what somebody else must cure is tried again; 30 s if zero.
	BlockedRetry time.Duration
	// CheckInterval is how often it is found out whether what verdicts are computed from can still be read; 5 s if zero.
	CheckInterval time.Duration
	// ToolsInterval is how often the gateway of each server is asked for the server's tools; 30 s if zero. ToolsTransport is how;
	// nil: by HTTP, past no proxy.
	ToolsInterval  time.Duration
	ToolsTransport http.RoundTripper
	// Metrics gets the metrics of what the statuses say, and of the build; nil: nobody does.
	Metrics prometheus.Registerer
	// OwnerAge is how old what is known of the objects that fill Secrets may get; 5 min if zero.
	OwnerAge time.Duration
}

// NewManager returns a manager with every reconciler set up, and with a cache that holds no more
// than they read.
func NewManager(config *rest.Config, opts Options) (ctrl.Manager, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("build scheme: %w", err)
		}
	}
	opts.Manager.Scheme = scheme
	opts.Manager.Cache = cacheOptions()
	opts.BlockedRetry = cmp.Or(opts.BlockedRetry, blockedRetry)
	closed, err := limit(config, &opts)
	if err != nil {
		return nil, fmt.Errorf("limit the operator to its namespaces: %w", err)
	}
	cilium, err := backUpByCilium(config, opts)
	if err != nil {
		return nil, err
	}
	// A reconcile must see what the one before it wrote, or it would write it again.
	opts.Manager.Client = client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: new(true)}}
	mgr, err := ctrl.NewManager(config, opts.Manager)
	if err != nil {
		return nil, fmt.Errorf("create manager: %w", err)
	}
	if closed != nil {
		if err := mgr.Add(closed); err != nil {
			return nil, fmt.Errorf("add the watch over namespaces: %w", err)
		}
	}
	around, err := newSurroundings(mgr, opts.Namespaces, cmp.Or(opts.CheckInterval, checkInterval))
	if err != nil {
		return nil, err
	}
	shared := base{
		surroundings: around,
		Client:       mgr.GetClient(), Live: mgr.GetAPIReader(), Recorder: mgr.GetEventRecorder(plan.FieldManager),
		ClusterDNS: opts.ClusterDNS, ClusterCIDRs: opts.ClusterCIDRs, ComponentImage: opts.ComponentImage, Namespace: opts.Namespace, Namespaces: opts.Namespaces,
		Now: time.Now, BlockedRetry: opts.BlockedRetry,
	}
	inventories := newTools(mgr.GetClient(), opts.ToolsTransport, opts.ToolsInterval)
	if err := mgr.Add(inventories); err != nil {
		return nil, fmt.Errorf("add the look at servers' tools: %w", err)
	}
	told := newStatusMetrics(mgr.GetClient())
	if opts.Metrics != nil {
		if err := errors.Join(opts.Metrics.Register(told), opts.Metrics.Register(NewBuildInfo())); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	servers := &MCPServerReconciler{
		base:      shared,
		metrics:   told,
		tools:     inventories,
		sources:   newSources(mgr.GetClient(), mgr.GetAPIReader()),
		digestKey: &digestKey{live: mgr.GetAPIReader(), writer: mgr.GetClient(), namespace: opts.Namespace},
		owners: &ownerReader{
			live: mgr.GetAPIReader(), mapper: mgr.GetRESTMapper(), now: time.Now,
			age: cmp.Or(opts.OwnerAge, ownerAge), seen: map[ownerName]ownerSeen{},
		},
		slots: &slots{limit: cmp.Or(opts.MaxRotations, maxRotations), taken: map[types.NamespacedName]bool{}},
	}
	if err := servers.setUpCanary(mgr); err != nil {
		return nil, err
	}
	if err := servers.setUp(mgr, opts.Workers); err != nil {
		return nil, err
	}
	proxies := &EgressProxyReconciler{base: shared, Cilium: cilium}
	if err := proxies.setUp(mgr, opts.Workers); err != nil {
		return nil, err
	}
	reports := &OpenReportsReconciler{base: shared}
	if err := reports.setUp(mgr); err != nil {
		return nil, err
	}
	if len(opts.Namespaces) > 0 {
		return mgr, nil // the status of a policy tells of all namespaces
	}
	policies := &MCPPolicyReconciler{base: shared}
	return mgr, policies.setUp(mgr)
}

// cacheGlance bounds how long a look at the caches may take: they were read, or they were not.
const cacheGlance = 500 * time.Millisecond

// CachesRead returns a check that fails until all that a manager's cache is to hold was read. A replica that does not
// lead holds less, and is ready when it could take over.
func CachesRead(mgr ctrl.Manager) healthz.Checker {
	return func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), cacheGlance)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return errors.New("the caches are not read yet")
		}
		return nil
	}
}

// cacheOptions keep the operator's memory small: of the kinds that it makes, only what carries its
// label; of others, only the fields that it reads.
func cacheOptions() cache.Options {
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{plan.LabelManagedBy: plan.ManagedBy})}
	pods := ours
	pods.Transform = transformPod
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&appsv1.Deployment{}:            ours,
			&corev1.ServiceAccount{}:        ours,
			&networkingv1.NetworkPolicy{}:   ours,
			&policyv1.PodDisruptionBudget{}: ours,
			&corev1.Pod{}:                   pods,
			&appsv1.ReplicaSet{}:            ours,
			&corev1.Secret{}:                {Transform: transformSecret},
			&corev1.ConfigMap{}:             {Field: fields.OneTermEqualSelector(metav1.ObjectNameField, probe.CanaryName)},
			&corev1.Node{}:                  {Transform: transformNode},
			&corev1.Service{}:               {Transform: transformService},
			&discoveryv1.EndpointSlice{}: {
				Namespaces: map[string]cache.Config{apiServerService.Namespace: {
					LabelSelector: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: apiServerService.Name}),
				}},
			},
		},
	}
}

func transformPod(in any) (any, error) {
	pod, ok := in.(*corev1.Pod)
	if !ok {
		return in, nil
	}
	nudged, isNudged := pod.Annotations[annotationNudged]
	compliance.TrimPod(pod)
	if isNudged {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, annotationNudged, nudged)
	}
	pod.ManagedFields = nil
	return pod, nil
}

// transformSecret keeps what says whose a Secret is. Values never come by a watch: where one asks for
// them by mistake, it fails.
func transformSecret(in any) (any, error) {
	secret, ok := in.(*metav1.PartialObjectMetadata)
	if !ok {
		if _, tombstone := in.(toolscache.DeletedFinalStateUnknown); tombstone {
			return in, nil
		}
		return nil, fmt.Errorf("a watch of Secrets is by metadata alone, and brought a %T", in)
	}
	secret.ManagedFields = nil
	maps.DeleteFunc(secret.Labels, func(key, _ string) bool { return !isKept(key) })
	maps.DeleteFunc(secret.Annotations, func(key, _ string) bool { return !isKept(key) })
	return secret, nil
}

// isKept tells whether a label or an annotation says whose a Secret is.
func isKept(key string) bool {
	return key == plan.LabelManagedBy || strings.HasPrefix(key, "mcpwarden.io/") || strings.HasPrefix(key, "cert-manager.io/")
}

func transformNode(in any) (any, error) {
	node, ok := in.(*corev1.Node)
	if !ok {
		return in, nil
	}
	node.ManagedFields, node.Annotations = nil, nil
	node.Spec = corev1.NodeSpec{PodCIDRs: node.Spec.PodCIDRs, Taints: node.Spec.Taints}
	conditions := slices.DeleteFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type != corev1.NodeReady })
	node.Status = corev1.NodeStatus{
		Conditions: conditions,
		NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: node.Status.NodeInfo.KubeletVersion, ContainerRuntimeVersion: node.Status.NodeInfo.ContainerRuntimeVersion},
		Addresses:  node.Status.Addresses, RuntimeHandlers: node.Status.RuntimeHandlers, Features: node.Status.Features,
	}
	return node, nil
}

func transformService(in any) (any, error) {
	service, ok := in.(*corev1.Service)
	if !ok {
		return in, nil
	}
	service.ManagedFields = nil
	if service.Labels[plan.LabelManagedBy] != plan.ManagedBy && len(service.OwnerReferences) == 0 {
		service.Annotations, service.Status = nil, corev1.ServiceStatus{}
	}
	return service, nil
}

func (r *MCPServerReconciler) setUp(mgr ctrl.Manager, workers int) error {
	indexer := mgr.GetFieldIndexer()
	if err := indexer.IndexField(context.Background(), &corev1.Pod{}, podServerIndex, func(o client.Object) []string {
		return []string{o.GetLabels()[plan.LabelServer]}
	}); err != nil {
		return fmt.Errorf("index pods: %w", err)
	}
	if err := indexer.IndexField(context.Background(), &appsv1.Deployment{}, rotatingIndex, rotatingOf); err != nil {
		return fmt.Errorf("index Deployments: %w", err)
	}
	if err := indexer.IndexField(context.Background(), secretMeta(), secretServerIndex, func(o client.Object) []string {
		if o.GetLabels()[plan.LabelManagedBy] != plan.ManagedBy {
			return nil
		}
		return []string{o.GetLabels()[plan.LabelServer]}
	}); err != nil {
		return fmt.Errorf("index Secrets: %w", err)
	}
	if err := indexer.IndexField(context.Background(), &v1alpha1.MCPServer{}, serverSecretIndex, func(o client.Object) []string {
		return plan.SecretsOf(&o.(*v1alpha1.MCPServer).Spec)
	}); err != nil {
		return fmt.Errorf("index MCPServers: %w", err)
	}
	if err := indexer.IndexField(context.Background(), &v1alpha1.MCPServer{}, serverDigestIndex, digestsOf); err != nil {
		return fmt.Errorf("index MCPServers: %w", err)
	}
	if err := indexer.IndexField(context.Background(), &v1alpha1.MCPServer{}, serverServiceIndex, func(o client.Object) []string {
		return serviceNames(o.(*v1alpha1.MCPServer))
	}); err != nil {
		return fmt.Errorf("index MCPServers: %w", err)
	}
	// An object that was just created is as we wrote it: its reconcile would find nothing to do. One that
	// somebody changed before it was seen has another generation.
	asCreated := builder.WithPredicates(predicate.Funcs{CreateFunc: func(e event.CreateEvent) bool { return e.Object.GetGeneration() > 1 }})
	everyServer := handler.EnqueueRequestsFromMapFunc(r.everyServer)
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.MCPServer{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.Funcs{UpdateFunc: requestChanged}))).
		Owns(&appsv1.Deployment{}, asCreated).
		Owns(&corev1.ServiceAccount{}, asCreated).
		Owns(&policyv1.PodDisruptionBudget{}, asCreated).
		Owns(&networkingv1.NetworkPolicy{}, asCreated).
		Watches(&networkingv1.NetworkPolicy{}, handler.EnqueueRequestsFromMapFunc(r.serversOfBaseline)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(serverOfService), asCreated).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.serversThatCall)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.serversBeside), builder.WithPredicates(predicate.Funcs{UpdateFunc: serviceChanged})).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(r.serversOfEgressProxy)).
		Watches(&appsv1.Deployment{}, handler.EnqueueRequestsFromMapFunc(r.serversOfEgressProxy)).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(r.serversOfSecret)).
		WatchesMetadata(&appsv1.ReplicaSet{}, handler.EnqueueRequestsFromMapFunc(serverOfPod), builder.WithPredicates(deletions)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(serverOfPod)).
		Watches(&corev1.Pod{}, r.afterProbers()).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.serversOfCanary), asCreated).
		Watches(&corev1.Node{}, everyServer, builder.WithPredicates(predicate.Funcs{UpdateFunc: nodeFactChanged})).
		Watches(&discoveryv1.EndpointSlice{}, everyServer).
		Watches(&v1alpha1.MCPServer{}, handler.EnqueueRequestsFromMapFunc(r.twinsOf), builder.WithPredicates(predicate.Funcs{UpdateFunc: digestsChanged})).
		WatchesRawSource(ctrlsource.Channel(r.surroundings.listen(), handler.TypedEnqueueRequestsFromMapFunc(r.serversAround))).
		WatchesRawSource(ctrlsource.Channel(r.tools.news, handler.TypedEnqueueRequestsFromMapFunc(justThatServer))).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			ReconciliationTimeout:   reconcileTimeout,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		}).
		Complete(r)
}

func justThatServer(_ context.Context, server types.NamespacedName) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: server}}
}

// serviceNames are the Services that a server's egress rules name, as the index knows them.
func serviceNames(server *v1alpha1.MCPServer) []string {
	var out []string
	for _, name := range plan.ServicesOf(server) {
		out = append(out, name.String())
	}
	return out
}

// everyServer answers to what all plans depend on.
func (r *MCPServerReconciler) everyServer(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.serversIn(ctx)
}

// serversOfBaseline answers to a change of a namespace's baseline.
func (r *MCPServerReconciler) serversOfBaseline(ctx context.Context, policy client.Object) []reconcile.Request {
	if policy.GetName() != plan.BaselineName {
		return nil
	}
	requests := r.serversIn(ctx, client.InNamespace(policy.GetNamespace()))
	if len(requests) == 0 { // nobody needs it any more: the name stands for the namespace
		return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(policy)}}
	}
	return requests
}

// serverOfService answers to a change of the Service that has a server's name, whoever owns it.
func serverOfService(_ context.Context, service client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: client.ObjectKeyFromObject(service)}}
}

// serversThatCall answers to a change of a Service: the servers whose egress rules name it, and
// everybody where it is the cluster's DNS, the API server or the canary.
func (r *MCPServerReconciler) serversThatCall(ctx context.Context, service client.Object) []reconcile.Request {
	name := client.ObjectKeyFromObject(service)
	if name == r.ClusterDNS || name == apiServerService || name == r.canaryName() {
		return r.serversIn(ctx)
	}
	return r.serversIn(ctx, client.MatchingFields{serverServiceIndex: name.String()})
}

// serversBeside answers to a change of a Service that is no server's own: the servers whose pods it may select.
func (r *MCPServerReconciler) serversBeside(ctx context.Context, service client.Object) []reconcile.Request {
	if service.GetLabels()[plan.LabelManagedBy] == plan.ManagedBy && service.GetLabels()[plan.LabelServer] == service.GetName() {
		return nil
	}
	return r.serversIn(ctx, client.InNamespace(service.GetNamespace()))
}

// serviceChanged drops the updates that say nothing of whom a Service exposes.
func serviceChanged(e event.UpdateEvent) bool {
	return !reflect.DeepEqual(e.ObjectOld.(*corev1.Service).Spec, e.ObjectNew.(*corev1.Service).Spec)
}

// serversIn lists servers as the cache has them: a watch must not wait for the writes of others.
func (r *base) serversIn(ctx context.Context, opts ...client.ListOption) []reconcile.Request {
	servers := &v1alpha1.MCPServerList{}
	if err := r.Client.List(ctx, servers, append(opts, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "List MCPServers")
		return nil
	}
	out := make([]reconcile.Request, len(servers.Items))
	for i := range servers.Items {
		out[i].NamespacedName = client.ObjectKeyFromObject(&servers.Items[i])
	}
	return out
}

// serversOfSecret answers to a change of a Secret: the servers that name it, and the one that it was
// made for.
func (r *MCPServerReconciler) serversOfSecret(ctx context.Context, secret client.Object) []reconcile.Request {
	out := r.serversIn(ctx, client.InNamespace(secret.GetNamespace()), client.MatchingFields{serverSecretIndex: secret.GetName()})
	if secret.GetLabels()[plan.LabelManagedBy] == plan.ManagedBy && secret.GetLabels()[plan.LabelServer] != "" {
		out = append(out, serverOfPod(ctx, secret)...)
	}
	return out
}

// digestsOf are the digests of the values that a server gets, as its status has them.
func digestsOf(o client.Object) []string {
	secrets := o.(*v1alpha1.MCPServer).Status.Secrets
	if secrets == nil {
		return nil
	}
	var out []string
	for i := range secrets.Sources {
		if digest := secrets.Sources[i].Digest; digest != "" {
			out = append(out, digest)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func digestsChanged(e event.UpdateEvent) bool {
	return !slices.Equal(digestsOf(e.ObjectOld), digestsOf(e.ObjectNew))
}

// twinsOf answers to other values of a server: the servers elsewhere that get, or got, one of them.
func (r *MCPServerReconciler) twinsOf(ctx context.Context, server client.Object) []reconcile.Request {
	var out []reconcile.Request
	for _, digest := range digestsOf(server) {
		out = append(out, r.serversIn(ctx, client.MatchingFields{serverDigestIndex: digest})...)
	}
	return slices.DeleteFunc(out, func(req reconcile.Request) bool { return req.Namespace == server.GetNamespace() })
}

// requestChanged tells whether somebody asked for a rotation.
func requestChanged(e event.UpdateEvent) bool {
	return e.ObjectOld.GetAnnotations()[v1alpha1.AnnotationRotateRequestedAt] != e.ObjectNew.GetAnnotations()[v1alpha1.AnnotationRotateRequestedAt]
}

// deletions lets nothing else through.
var deletions = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false }, UpdateFunc: func(event.UpdateEvent) bool { return false },
	GenericFunc: func(event.GenericEvent) bool { return false },
}

func serverOfPod(_ context.Context, pod client.Object) []reconcile.Request {
	if pod.GetLabels()[plan.LabelServer] == "" {
		return nil // of the operator's own components, or of somebody who borrows our label
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{
		Namespace: pod.GetNamespace(), Name: pod.GetLabels()[plan.LabelServer]}}}
}

// nodeFactChanged drops the many updates of nodes that no plan depends on.
func nodeFactChanged(e event.UpdateEvent) bool {
	return !reflect.DeepEqual(nodeFact(e.ObjectOld.(*corev1.Node)), nodeFact(e.ObjectNew.(*corev1.Node)))
}
