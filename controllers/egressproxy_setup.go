package controllers

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// Beside what servers need: the proxy of a namespace goes with its last host rule, and its pods are
// annotated so that their kubelets look at the access list. Of Secrets, values are read one at a time.
// +kubebuilder:rbac:groups="",resources=serviceaccounts;services,verbs=update;delete
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;patch;update;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=patch
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=delete
// +kubebuilder:rbac:groups=cilium.io,resources=ciliumnetworkpolicies,verbs=get;list;watch;create;patch;update;delete

// The ways in which CiliumNetworkPolicies are used (Options.CNIBackend).
const (
	// CNIBackendAuto uses them where the API server serves them and the operator may write them.
	CNIBackendAuto = "auto"
	// CNIBackendNone never does.
	CNIBackendNone = "none"
	// CNIBackendCilium does, and lets the operator fail where it cannot.
	CNIBackendCilium = "cilium"
)

func (r *EgressProxyReconciler) setUp(mgr ctrl.Manager, workers int) error {
	ofProxy := builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
		component := o.GetLabels()[plan.LabelComponent]
		return component == plan.ComponentEgressProxy || component == plan.ComponentEgressCredential ||
			o.GetName() == plan.EgressProxyName || o.GetName() == plan.AccessListName
	}))
	itsNamespace := handler.EnqueueRequestsFromMapFunc(namespaceOf)
	everyProxy := handler.EnqueueRequestsFromMapFunc(r.everyProxy)
	b := ctrl.NewControllerManagedBy(mgr).
		Named("egressproxy").
		Watches(&v1alpha1.MCPServer{}, itsNamespace, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&appsv1.Deployment{}, itsNamespace, ofProxy).
		Watches(&corev1.ServiceAccount{}, itsNamespace, ofProxy).
		Watches(&corev1.Service{}, itsNamespace, ofProxy).
		Watches(&networkingv1.NetworkPolicy{}, itsNamespace, ofProxy).
		Watches(&policyv1.PodDisruptionBudget{}, itsNamespace, ofProxy).
		WatchesMetadata(&corev1.Secret{}, itsNamespace, ofProxy).
		Watches(&corev1.Pod{}, itsNamespace, ofProxy).
		Watches(&corev1.Service{}, everyProxy, builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
			name := client.ObjectKeyFromObject(o)
			return name == r.ClusterDNS || name == apiServerService
		}))).
		Watches(&corev1.Node{}, everyProxy, builder.WithPredicates(predicate.Funcs{UpdateFunc: nodeFactChanged})).
		Watches(&discoveryv1.EndpointSlice{}, everyProxy).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: workers,
			ReconciliationTimeout:   reconcileTimeout,
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry),
		})
	if r.Cilium {
		b.Watches(newCiliumPolicy(), itsNamespace, ofProxy)
	}
	return b.Complete(r)
}

// namespaceOf answers to a change of an object in a namespace.
func namespaceOf(_ context.Context, o client.Object) []reconcile.Request {
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: plan.EgressProxyName}}}
}

// everyProxy answers to what all proxies depend on.
func (r *EgressProxyReconciler) everyProxy(ctx context.Context, _ client.Object) []reconcile.Request {
	servers := &v1alpha1.MCPServerList{}
	if err := r.Client.List(ctx, servers, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "List MCPServers")
		return nil
	}
	var out []reconcile.Request
	seen := map[string]bool{}
	for i := range servers.Items {
		server := &servers.Items[i]
		if !seen[server.Namespace] && plan.NeedsEgressProxy(server) {
			seen[server.Namespace] = true
			out = append(out, namespaceOf(ctx, server)...)
		}
	}
	return out
}

// serversOfEgressProxy answers to a change of a namespace's egress proxy: the servers with host rules.
func (r *MCPServerReconciler) serversOfEgressProxy(ctx context.Context, o client.Object) []reconcile.Request {
	if o.GetName() != plan.EgressProxyName {
		return nil
	}
	servers := &v1alpha1.MCPServerList{}
	if err := r.Client.List(ctx, servers, client.InNamespace(o.GetNamespace()), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "List MCPServers")
		return nil
	}
	var out []reconcile.Request
	for i := range servers.Items {
		if plan.NeedsEgressProxy(&servers.Items[i]) {
			out = append(out, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&servers.Items[i])})
		}
	}
	return out
}

// backUpByCilium decides whether egress proxies are backed up by CiliumNetworkPolicies, and has the
// cache hold ours.
func backUpByCilium(config *rest.Config, opts Options) (bool, error) {
	if opts.CNIBackend == "" || opts.CNIBackend == CNIBackendNone {
		return false, nil
	}
	c, err := client.New(config, client.Options{Scheme: opts.Manager.Scheme})
	if err != nil {
		return false, fmt.Errorf("create client: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), reconcileTimeout)
	defer cancel()
	cilium, err := usesCilium(ctx, c, opts.CNIBackend, opts.Namespaces)
	if cilium {
		opts.Manager.Cache.ByObject[newCiliumPolicy()] = cache.ByObject{
			Label: labels.SelectorFromSet(labels.Set{plan.LabelManagedBy: plan.ManagedBy})}
	}
	return cilium, err
}

// usesCilium decides whether CiliumNetworkPolicies are written.
func usesCilium(ctx context.Context, c client.Client, backend string, namespaces []string) (bool, error) {
	if backend != CNIBackendAuto && backend != CNIBackendCilium {
		return false, fmt.Errorf("CNI backend %q: must be %s, %s or %s", backend, CNIBackendAuto, CNIBackendNone, CNIBackendCilium)
	}
	gvk := plan.CiliumNetworkPolicyKind
	_, err := c.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
	switch {
	case meta.IsNoMatchError(err) && backend == CNIBackendAuto:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("find kind %s: %w", gvk.Kind, err)
	}
	if len(namespaces) == 0 {
		namespaces = []string{""}
	}
	for _, namespace := range namespaces {
		for _, verb := range []string{"list", "watch", "patch", "delete"} {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{
					Group: gvk.Group, Resource: "ciliumnetworkpolicies", Verb: verb, Namespace: namespace}}}
			if err := c.Create(ctx, review); err != nil {
				return false, fmt.Errorf("ask for the right to %s %s: %w", verb, gvk.Kind, err)
			}
			if review.Status.Allowed {
				continue
			}
			if backend == CNIBackendCilium {
				return false, fmt.Errorf("the operator may not %s %s in namespace %q", verb, gvk.Kind, namespace)
			}
			ctrl.Log.Info("CiliumNetworkPolicies are served, and the operator may not write them: egress proxies go without", "verb", verb)
			return false, nil
		}
	}
	return true, nil
}
