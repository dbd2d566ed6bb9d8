package controllers

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// EgressProxyReconciler keeps an egress proxy in every namespace in which a server has a host rule.
type EgressProxyReconciler struct {
	base
	// Cilium says that CiliumNetworkPolicies back the proxies up.
	Cilium bool

	// intact holds what known returns, by namespace: of one at a time there is one reconcile.
	intact sync.Map
	// told is the conflict that was told of last, by namespace.
	told sync.Map
}

// Reconcile makes the egress proxy of one namespace what the servers in it need.
func (r *EgressProxyReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	result, err := r.reconcile(ctx, req.Namespace)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return ctrl.Result{}, nil // all of it goes with its namespace
	}
	return result, err
}

func (r *EgressProxyReconciler) reconcile(ctx context.Context, namespace string) (ctrl.Result, error) {
	list := &v1alpha1.MCPServerList{}
	if err := r.Client.List(ctx, list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		return ctrl.Result{}, fmt.Errorf("list MCPServers: %w", err)
	}
	servers := make([]*v1alpha1.MCPServer, 0, len(list.Items))
	for i := range list.Items {
		if plan.NeedsEgressProxy(&list.Items[i]) {
			servers = append(servers, &list.Items[i])
		}
	}
	if r.ComponentImage == "" || len(servers) == 0 {
		return r.takeDown(ctx, namespace)
	}
	facts, err := r.clusterFacts(ctx)
	if err != nil {
		return ctrl.Result{}, err
	}
	in := plan.EgressInput{Namespace: namespace, Servers: servers, Image: r.ComponentImage, Cilium: r.Cilium, Facts: facts}
	credentials, conflict, err := r.credentials(ctx, servers)
	if err != nil {
		return ctrl.Result{}, err
	}
	in.Credentials = credentials
	planned, err := plan.EgressProxy(in)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("plan the egress proxy: %w", err)
	}
	if err := r.apply(ctx, planned); isProblem(err) {
		conflict = cmp.Or(err, conflict)
	} else if err != nil {
		return ctrl.Result{}, err
	}
	again, err := r.nudgePods(ctx, namespace)
	if err != nil {
		return ctrl.Result{}, err
	}
	return r.tell(namespace, servers, conflict, again), nil
}

// tell the servers of a conflict once, and look at it again every now and then.
func (r *EgressProxyReconciler) tell(namespace string, servers []*v1alpha1.MCPServer, conflict error, again time.Duration) ctrl.Result {
	if conflict == nil {
		r.told.Delete(namespace)
		return ctrl.Result{RequeueAfter: again}
	}
	if last, _ := r.told.Swap(namespace, conflict.Error()); last != conflict.Error() {
		for _, server := range servers {
			r.Recorder.Eventf(server, nil, corev1.EventTypeWarning, v1alpha1.ReasonNameConflict, "Apply", "%s", problemOf(conflict).Message)
		}
	}
	if again == 0 || again > r.BlockedRetry {
		again = r.BlockedRetry
	}
	return ctrl.Result{RequeueAfter: again}
}

// apply makes the live objects those of the plan. A name that belongs to somebody else keeps a proxy
// from being set up; where one is up already, it must not leave the rest unguarded.
func (r *EgressProxyReconciler) apply(ctx context.Context, p *plan.EgressPlan) error {
	var pairs []pair
	var conflict error
	up := false
	for _, o := range p.Objects {
		pair, err := r.lookUp(ctx, o)
		switch {
		case err == nil:
			pairs = append(pairs, pair)
			up = up || (o.Kind == "Deployment" && pair.live != nil)
		case isProblem(err):
			conflict = cmp.Or(conflict, err)
		default:
			return err
		}
	}
	if conflict != nil && !up {
		return conflict
	}
	if err := r.applyCilium(ctx, p.Cilium); isProblem(err) && up {
		conflict = cmp.Or(conflict, err)
	} else if err != nil {
		return err
	}
	for _, pair := range pairs {
		if err := r.applyOne(ctx, pair, p.Digest); err != nil {
			return fmt.Errorf("apply %s: %w", pair.planned.Kind, err)
		}
	}
	return conflict
}

func (r *EgressProxyReconciler) applyOne(ctx context.Context, pair pair, digest string) error {
	if pair.planned.Kind == "Secret" {
		return r.putAccessList(ctx, pair, digest)
	}
	_, _, err := r.put(ctx, pair)
	return err
}

// nudgePods has the kubelets of the proxy's pods look at the access list as it is now.
func (r *EgressProxyReconciler) nudgePods(ctx context.Context, namespace string) (time.Duration, error) {
	pods := &corev1.PodList{}
	if err := r.Client.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels(plan.EgressProxyLabels()), client.UnsafeDisableDeepCopy); err != nil {
		return 0, fmt.Errorf("list pods of the egress proxy: %w", err)
	}
	return r.nudge(ctx, pods.Items, r.known(namespace)[plan.AccessListName])
}

// takeDown removes the proxy of a namespace, if it has one. First nobody may use it any more, which
// ends open tunnels; then its pods go; and last, when none is left, what keeps them closed.
func (r *EgressProxyReconciler) takeDown(ctx context.Context, namespace string) (ctrl.Result, error) {
	found := map[string]pair{}
	for _, o := range plan.EgressProxyObjects(namespace) {
		live, err := r.cached(ctx, o)
		if err != nil {
			return ctrl.Result{}, err
		}
		if live != nil && isOfProxy(live) && ownedByNobody(o, live) == nil {
			found[o.Kind] = pair{planned: o, live: live, uid: live.GetUID()}
		}
	}
	pods := &corev1.PodList{}
	if err := r.Client.List(ctx, pods, client.InNamespace(namespace), client.MatchingLabels(plan.EgressProxyLabels()), client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list pods of the egress proxy: %w", err)
	}
	if _, deployed := found["Deployment"]; !deployed && len(pods.Items) == 0 {
		r.intact.Delete(namespace)
		r.told.Delete(namespace)
		if err := r.removeAll(ctx, found, "PodDisruptionBudget", "Service", "ServiceAccount", "Secret", "NetworkPolicy"); err != nil {
			return ctrl.Result{}, err
		}
		return ctrl.Result{}, r.removeCilium(ctx, namespace)
	}
	again, err := r.close(ctx, namespace, found)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("close the egress proxy: %w", err)
	}
	return ctrl.Result{RequeueAfter: again}, r.removeAll(ctx, found, "Deployment", "PodDisruptionBudget", "Service")
}

// close a proxy that is to go: its list lets nobody through, and its NetworkPolicy nothing out.
func (r *EgressProxyReconciler) close(ctx context.Context, namespace string, found map[string]pair) (time.Duration, error) {
	facts, err := r.clusterFacts(ctx)
	if err != nil {
		return 0, err
	}
	p, err := plan.EgressProxy(plan.EgressInput{Namespace: namespace, Image: r.ComponentImage, Cilium: r.Cilium, Facts: facts})
	if err != nil {
		return 0, err
	}
	for _, o := range p.Objects {
		pair, ok := found[o.Kind]
		if !ok || (o.Kind != "Secret" && o.Kind != "NetworkPolicy") {
			continue
		}
		pair.planned = o
		if err := r.applyOne(ctx, pair, p.Digest); err != nil {
			return 0, fmt.Errorf("apply %s: %w", o.Kind, err)
		}
	}
	return r.nudgePods(ctx, namespace)
}

// removeAll deletes what was found of some kinds.
func (r *EgressProxyReconciler) removeAll(ctx context.Context, found map[string]pair, kinds ...string) error {
	for _, kind := range kinds {
		pair, ok := found[kind]
		if !ok || pair.live.GetDeletionTimestamp() != nil {
			continue
		}
		opts := []client.DeleteOption{client.Preconditions{UID: &pair.uid}}
		if kind == "Deployment" { // it is gone once its pods are
			opts = append(opts, client.PropagationPolicy("Foreground"))
		}
		if err := r.Client.Delete(ctx, pair.live, opts...); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete %s %s: %w", kind, pair.planned.Name, err)
		}
	}
	return nil
}

// isOfProxy recognises an object of an egress proxy.
func isOfProxy(o client.Object) bool {
	labels := o.GetLabels()
	return labels[plan.LabelManagedBy] == plan.ManagedBy && labels[plan.LabelComponent] == plan.ComponentEgressProxy
}
