package controllers

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// What others make may open what the operator closes: it is watched, and never written.
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch
// +kubebuilder:rbac:groups=mcpwarden.io,resources=mcppolicies,verbs=list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=ingresses,verbs=list;watch
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings;clusterrolebindings,verbs=list;watch
// +kubebuilder:rbac:groups=gateway.networking.k8s.io,resources=httproutes;grpcroutes;tlsroutes;tcproutes;udproutes,verbs=list;watch
// +kubebuilder:rbac:groups=cilium.io,resources=ciliumclusterwidenetworkpolicies,verbs=list;watch

// checkInterval is how often it is found out whether the surroundings can still be read: rights that were taken
// away do not end a watch, and a watch that fails tells nobody.
const checkInterval = 5 * time.Second

// settleTime is how long the first reconciles wait for the surroundings to be read. What is not there by then is Unknown.
const settleTime = 20 * time.Second

// surrounding is a kind whose objects may turn a verdict, whoever makes them.
type surrounding struct {
	kind schema.GroupKind
	// optional says that a cluster need not serve the kind: then there is none of it.
	optional bool
	// object is an empty one; nil for a kind that the operator's own cache holds, and that is only checked here.
	object func(schema.GroupVersionKind) client.Object
	// concerns names the servers whose verdict an object may turn: one, those of a namespace where there is no name, or all.
	concerns func(client.Object) []types.NamespacedName
}

var (
	kindMCPPolicy          = schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: "MCPPolicy"}
	kindNamespace          = schema.GroupKind{Kind: "Namespace"}
	kindNetworkPolicy      = schema.GroupKind{Group: networkingv1.GroupName, Kind: "NetworkPolicy"}
	kindIngress            = schema.GroupKind{Group: networkingv1.GroupName, Kind: "Ingress"}
	kindRoleBinding        = schema.GroupKind{Group: rbacv1.GroupName, Kind: "RoleBinding"}
	kindClusterRoleBinding = schema.GroupKind{Group: rbacv1.GroupName, Kind: "ClusterRoleBinding"}
	kindPod                = schema.GroupKind{Kind: "Pod"}
	kindService            = schema.GroupKind{Kind: "Service"}
	kindServiceAccount     = schema.GroupKind{Kind: "ServiceAccount"}
	kindSecret             = schema.GroupKind{Kind: "Secret"}
	// kindsOfPlan are what the plan is made from and compared with: read through the operator's own cache.
	kindsOfPlan = []schema.GroupKind{
		kindNetworkPolicy, kindService, kindServiceAccount, kindSecret, {Kind: "Node"},
		{Group: appsv1.GroupName, Kind: "Deployment"}, {Group: policyv1.GroupName, Kind: "PodDisruptionBudget"},
	}
	kindCiliumPolicy      = plan.CiliumNetworkPolicyKind.GroupKind()
	kindCiliumClusterwide = schema.GroupKind{Group: kindCiliumPolicy.Group, Kind: "CiliumClusterwideNetworkPolicy"}
	kindOpenReport        = compliance.OpenReportKind.GroupKind()
	kindsOfRoute          = []schema.GroupKind{
		{Group: groupGateway, Kind: "HTTPRoute"}, {Group: groupGateway, Kind: "GRPCRoute"},
		{Group: groupGateway, Kind: "TLSRoute"}, {Group: groupGateway, Kind: "TCPRoute"}, {Group: groupGateway, Kind: "UDPRoute"},
	}
)

const groupGateway = "gateway.networking.k8s.io"

// allSurroundings are the kinds that verdicts are computed from.
func allSurroundings() []surrounding {
	ownNamespace := func(o client.Object) []types.NamespacedName {
		return []types.NamespacedName{{Namespace: o.GetNamespace()}}
	}
	everywhere := func(client.Object) []types.NamespacedName { return []types.NamespacedName{{}} }
	itself := func(o client.Object) []types.NamespacedName { return []types.NamespacedName{{Namespace: o.GetName()}} }
	out := []surrounding{
		{kind: kindMCPPolicy, object: typed(&v1alpha1.MCPPolicy{}), concerns: everywhere},
		{kind: kindNamespace, object: metadataOnly, concerns: itself},
		{kind: kindNetworkPolicy, object: typed(&networkingv1.NetworkPolicy{}), concerns: ownNamespace},
		{kind: kindIngress, object: typed(&networkingv1.Ingress{}), concerns: ownNamespace},
		{kind: kindRoleBinding, object: typed(&rbacv1.RoleBinding{}), concerns: ownNamespace},
		{kind: kindClusterRoleBinding, object: typed(&rbacv1.ClusterRoleBinding{}), concerns: everywhere},
		{kind: kindCiliumPolicy, optional: true, object: untyped, concerns: ownNamespace},
		{kind: kindCiliumClusterwide, optional: true, object: untyped, concerns: everywhere},
		{kind: kindPod, object: typed(&corev1.Pod{}), concerns: serverOfAccount},
	}
	for _, kind := range kindsOfPlan {
		if !slices.ContainsFunc(out, func(s surrounding) bool { return s.kind == kind }) {
			out = append(out, surrounding{kind: kind})
		}
	}
	out = append(out, surrounding{kind: kindOpenReport, optional: true}) // written, and never read for a verdict
	for _, kind := range kindsOfRoute {
		out = append(out, surrounding{kind: kind, optional: true, object: untyped, concerns: namespacesOfRoute})
	}
	return out
}

func typed[T client.Object](object T) func(schema.GroupVersionKind) client.Object {
	return func(schema.GroupVersionKind) client.Object { return object.DeepCopyObject().(client.Object) }
}

func untyped(gvk schema.GroupVersionKind) client.Object {
	out := &unstructured.Unstructured{}
	out.SetGroupVersionKind(gvk)
	return out
}

func metadataOnly(gvk schema.GroupVersionKind) client.Object {
	out := &metav1.PartialObjectMetadata{}
	out.SetGroupVersionKind(gvk)
	return out
}

// surroundings watch what others make. Nothing that cannot be read keeps the operator from working: it is said to
// be unknown, and so are the verdicts that depend on it.
type surroundings struct {
	cache cache.Cache
	live  client.Reader
	// mapper finds the version that the cluster serves of a kind.
	mapper     meta.RESTMapper
	namespaces []string
	// every so often it is found out whether all can still be read.
	every time.Duration
	// settled is closed once all was read, or will not be for now.
	settled chan struct{}

	mu        sync.RWMutex
	states    map[schema.GroupKind]kindState
	listeners []chan event.TypedGenericEvent[types.NamespacedName]
}

// kindState is what is known of a kind.
type kindState struct {
	gvk schema.GroupVersionKind
	// unknown says why it cannot be read; empty where it can, or where there is none.
	unknown string
	// informer is nil where there is none of the kind, and where the operator's own cache holds it.
	informer cache.Informer
}

// newSurroundings have a cache of their own, because the manager waits for its own to be complete.
func newSurroundings(mgr ctrl.Manager, namespaces []string, every time.Duration) (*surroundings, error) {
	opts := cache.Options{
		HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(),
		DefaultTransform: transformSurrounding, ReaderFailOnMissingInformer: true, DefaultUnsafeDisableDeepCopy: new(true),
		ByObject: map[client.Object]cache.ByObject{
			&networkingv1.NetworkPolicy{}: {Label: notOurs()},
			// No server is named default, so that no pod under that account is of any interest.
			&corev1.Pod{}: {Label: notOurs(), Field: fields.OneTermNotEqualSelector("spec.serviceAccountName", "default"), Transform: transformPod},
		},
	}
	for _, namespace := range namespaces {
		if opts.DefaultNamespaces == nil {
			opts.DefaultNamespaces = map[string]cache.Config{}
		}
		opts.DefaultNamespaces[namespace] = cache.Config{}
	}
	c, err := cache.New(mgr.GetConfig(), opts)
	if err != nil {
		return nil, fmt.Errorf("create the cache of what others make: %w", err)
	}
	s := &surroundings{
		cache: c, live: mgr.GetAPIReader(), mapper: mgr.GetRESTMapper(), namespaces: namespaces, every: every,
		settled: make(chan struct{}), states: map[schema.GroupKind]kindState{},
	}
	if err := mgr.Add(c); err != nil {
		return nil, err
	}
	return s, mgr.Add(s)
}

// notOurs selects the objects that the operator's own cache does not hold.
func notOurs() labels.Selector {
	requirement, err := labels.NewRequirement(plan.LabelManagedBy, selection.NotIn, []string{plan.ManagedBy})
	if err != nil {
		panic(err) // both are constants
	}
	return labels.NewSelector().Add(*requirement)
}

// transformSurrounding keeps what verdicts read.
func transformSurrounding(in any) (any, error) {
	object, ok := in.(client.Object)
	if !ok {
		return in, nil
	}
	object.SetManagedFields(nil)
	object.SetAnnotations(nil)
	if policy, ok := in.(*v1alpha1.MCPPolicy); ok {
		policy.Labels = nil
	}
	return object, nil
}

// serverOfAccount is the server whose account a pod of somebody else runs under, if there is one.
func serverOfAccount(o client.Object) []types.NamespacedName {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return nil
	}
	return []types.NamespacedName{{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}}
}

// listen returns a channel that names the servers to be looked at: one, those of a namespace, or all. It is called
// before Start.
func (s *surroundings) listen() chan event.TypedGenericEvent[types.NamespacedName] {
	c := make(chan event.TypedGenericEvent[types.NamespacedName], 64)
	s.listeners = append(s.listeners, c)
	return c
}

func (s *surroundings) tell(ctx context.Context, servers types.NamespacedName) {
	for _, listener := range s.listeners {
		select {
		case listener <- event.TypedGenericEvent[types.NamespacedName]{Object: servers}:
		case <-ctx.Done():
		}
	}
}

// Start checks every kind now and then, until the operator stops.
func (s *surroundings) Start(ctx context.Context) error {
	s.check(ctx)
	s.awaitSync(ctx)
	close(s.settled)
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if s.check(ctx) {
				s.tell(ctx, types.NamespacedName{})
			}
		}
	}
}

// await waits until the surroundings were read, or will not be for now.
func (s *surroundings) await(ctx context.Context) error {
	select {
	case <-s.settled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitSync waits until every informer has read its kind, but not for ever.
func (s *surroundings) awaitSync(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	var synced []toolscache.InformerSynced
	s.mu.RLock()
	for _, state := range s.states {
		if state.informer != nil && state.unknown == "" {
			synced = append(synced, state.informer.HasSynced)
		}
	}
	s.mu.RUnlock()
	toolscache.WaitForCacheSync(ctx.Done(), synced...)
}

// check finds out of every kind whether it can be read. It returns whether anything changed.
func (s *surroundings) check(ctx context.Context) (changed bool) {
	for _, kind := range allSurroundings() {
		now := s.look(ctx, kind)
		s.mu.Lock()
		before, known := s.states[kind.kind]
		s.states[kind.kind] = now
		s.mu.Unlock()
		changed = changed || !known || before.unknown != now.unknown || before.gvk != now.gvk
	}
	return changed
}

// look lists one object of a kind, as it would be listed for a verdict.
func (s *surroundings) look(ctx context.Context, kind surrounding) kindState {
	mapping, err := s.mapper.RESTMapping(kind.kind)
	if meta.IsNoMatchError(err) {
		return s.absent(ctx, kind)
	}
	if err != nil {
		return kindState{unknown: fmt.Sprintf("find kind %s: %v", kind.kind.Kind, err)}
	}
	out := kindState{gvk: mapping.GroupVersionKind}
	for _, namespace := range s.within(mapping) {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(mapping.GroupVersionKind)
		err := s.live.List(ctx, list, client.InNamespace(namespace), client.Limit(1))
		if apierrors.IsNotFound(err) {
			return s.absent(ctx, kind)
		}
		if err != nil {
			out.unknown = "list " + mapping.Resource.Resource + ": " + err.Error()
			return out
		}
	}
	if kind.object != nil {
		out.informer, err = s.watch(ctx, kind, mapping.GroupVersionKind)
		if err != nil {
			out.unknown = fmt.Sprintf("watch %s: %v", mapping.Resource.Resource, err)
		}
	}
	return out
}

// within are the namespaces in which a kind is read; "" for all.
func (s *surroundings) within(mapping *meta.RESTMapping) []string {
	if len(s.namespaces) == 0 || mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return []string{""}
	}
	return s.namespaces
}

// absent is a kind that the cluster does not serve: where it need not, there is nothing of it to see.
func (s *surroundings) absent(ctx context.Context, kind surrounding) kindState {
	s.mu.RLock()
	before := s.states[kind.kind]
	s.mu.RUnlock()
	if before.informer != nil {
		if err := s.cache.RemoveInformer(ctx, kind.object(before.gvk)); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Stop to watch a kind that is gone", "kind", kind.kind.String())
		}
	}
	if kind.optional {
		return kindState{}
	}
	return kindState{unknown: "the cluster does not serve " + kind.kind.String()}
}

// watch starts to watch a kind, once.
func (s *surroundings) watch(ctx context.Context, kind surrounding, gvk schema.GroupVersionKind) (cache.Informer, error) {
	s.mu.RLock()
	before := s.states[kind.kind]
	s.mu.RUnlock()
	if before.informer != nil && before.gvk == gvk {
		return before.informer, nil
	}
	informer, err := s.cache.GetInformer(ctx, kind.object(gvk), cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			if !initial {
				s.concerned(ctx, kind, object)
			}
		},
		UpdateFunc: func(before, after any) {
			if tells(before, after) {
				s.concerned(ctx, kind, before, after)
			}
		},
		DeleteFunc: func(object any) {
			if gone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			s.concerned(ctx, kind, object)
		},
	})
	return informer, err
}

// tells drops updates that change nothing, and those of the status of pods.
func tells(before, after any) bool {
	b, okBefore := before.(client.Object)
	a, okAfter := after.(client.Object)
	if !okBefore || !okAfter {
		return true
	}
	if _, isPod := a.(*corev1.Pod); isPod {
		return !maps.Equal(b.GetLabels(), a.GetLabels())
	}
	return b.GetResourceVersion() != a.GetResourceVersion()
}

func (s *surroundings) concerned(ctx context.Context, kind surrounding, objects ...any) {
	told := map[types.NamespacedName]bool{}
	for _, object := range objects {
		object, ok := object.(client.Object)
		if !ok {
			continue
		}
		for _, servers := range kind.concerns(object) {
			if !told[servers] {
				told[servers] = true
				s.tell(ctx, servers)
			}
		}
	}
}

// unread says why a kind cannot be read; empty where it can, or where there is none of it.
func (s *surroundings) unread(kind schema.GroupKind) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	state, known := s.states[kind]
	switch {
	case !known:
		return kind.Kind + " was not read yet"
	case state.unknown != "":
		return state.unknown
	case state.informer != nil && !state.informer.HasSynced():
		return kind.Kind + " was not read yet"
	}
	return ""
}

// list reads what was watched of a kind. It returns why it cannot, or "".
func (s *surroundings) list(ctx context.Context, kind schema.GroupKind, list client.ObjectList, opts ...client.ListOption) (unknown string) {
	if why := s.unread(kind); why != "" {
		return why
	}
	s.mu.RLock()
	state := s.states[kind]
	s.mu.RUnlock()
	if state.informer == nil {
		return ""
	}
	list.GetObjectKind().SetGroupVersionKind(state.gvk.GroupVersion().WithKind(state.gvk.Kind + "List"))
	if err := s.cache.List(ctx, list, opts...); err != nil {
		return fmt.Sprintf("read %s: %v", strings.ToLower(kind.Kind), err)
	}
	return ""
}
