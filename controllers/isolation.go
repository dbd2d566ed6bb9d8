package controllers

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// Of all ConfigMaps, those that say where the canary is. Those of the operator's own namespace, its
// probers and its canary are read there by an install that is limited to namespaces, too.
// +kubebuilder:rbac:groups="",resources=configmaps,resourceNames=mcp-warden-canary,verbs=list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups="",resources=configmaps,resourceNames=mcp-warden-canary,verbs=list;watch;create;update;patch;delete,namespace=mcp-warden-system
// +kubebuilder:rbac:groups="",resources=services,resourceNames=mcp-warden-canary,verbs=list;watch,namespace=mcp-warden-system
// +kubebuilder:rbac:groups="",resources=pods,verbs=list;watch;patch,namespace=mcp-warden-system

// observeIsolation gathers the evidence of the server's isolation and weighs it.
func (r *MCPServerReconciler) observeIsolation(ctx context.Context, server *v1alpha1.MCPServer, obs *observation) error {
	obs.facts.OperatorNamespace, obs.facts.ComponentImage = r.Namespace, r.ComponentImage
	var err error
	if obs.facts.Canary, err = r.canary(ctx); err != nil {
		return err
	}
	probers := &corev1.PodList{}
	if err := r.Client.List(ctx, probers, client.InNamespace(r.Namespace),
		client.HasLabels{probe.LabelComponent}, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list probers: %w", err)
	}
	running := map[string]bool{}
	for i := range obs.pods {
		if phase := obs.pods[i].Status.Phase; phase != corev1.PodFailed && phase != corev1.PodSucceeded {
			running[obs.pods[i].Spec.NodeName] = true
		}
	}
	obs.facts.Isolation = probe.Evaluate(probe.Evidence{
		Image: r.ComponentImage != "", Canary: obs.facts.Canary, Nodes: plan.Eligible(server, obs.facts.Nodes, running),
		Probers: probers.Items, Pods: obs.pods, EachPod: plan.RequiresProof(server),
	})
	return nil
}

// canary finds the addresses of the canary's Service.
func (r *MCPServerReconciler) canary(ctx context.Context) ([]netip.Addr, error) {
	service := &corev1.Service{}
	if err := r.Client.Get(ctx, r.canaryName(), service); err != nil {
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("get Service of the canary: %w", err)
	}
	addresses, err := probe.ParseAddresses(strings.Join(service.Spec.ClusterIPs, ","))
	if err != nil {
		return nil, nil // a Service without an address is no canary
	}
	return addresses, nil
}

// canaryName is that of the canary's Service, and of the ConfigMap for the probers.
func (r *MCPServerReconciler) canaryName() types.NamespacedName {
	return types.NamespacedName{Namespace: r.Namespace, Name: probe.CanaryName}
}

// setUpCanary keeps the ConfigMap from which the probers learn where the canary is, and has the kubelets of those
// that wait for it look at once.
func (r *MCPServerReconciler) setUpCanary(mgr ctrl.Manager) error {
	ours := builder.WithPredicates(predicate.NewPredicateFuncs(func(o client.Object) bool {
		return client.ObjectKeyFromObject(o) == r.canaryName()
	}))
	return ctrl.NewControllerManagedBy(mgr).Named("canary").
		Watches(&corev1.Service{}, &handler.EnqueueRequestForObject{}, ours).
		Watches(&corev1.ConfigMap{}, &handler.EnqueueRequestForObject{}, ours).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.canaryOfProber)).
		Complete(reconcile.Func(r.reconcileCanary))
}

// canaryOfProber answers to a change of a prober that has proven nothing yet.
func (r *MCPServerReconciler) canaryOfProber(_ context.Context, pod client.Object) []reconcile.Request {
	if pod.GetNamespace() != r.Namespace || !waitsForCanary(pod.(*corev1.Pod)) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: r.canaryName()}}
}

// waitsForCanary tells a prober that runs and has not found what it should: it may know no address of the canary, or an old one.
func waitsForCanary(pod *corev1.Pod) bool {
	component := pod.Labels[probe.LabelComponent]
	return (component == probe.ComponentRestricted || component == probe.ComponentUnrestricted) && evidenceOf(pod).running && !evidenceOf(pod).podReady
}

func (r *MCPServerReconciler) reconcileCanary(ctx context.Context, _ reconcile.Request) (ctrl.Result, error) {
	addresses, err := r.canary(ctx)
	if err != nil || len(addresses) == 0 {
		return ctrl.Result{}, err // the probers find out by themselves that nobody answers
	}
	if err := r.restore(ctx, plan.Canary(r.Namespace, plan.Facts{Canary: addresses})); err != nil {
		return ctrl.Result{}, err
	}
	probers := &corev1.PodList{}
	if err := r.Client.List(ctx, probers, client.InNamespace(r.Namespace), client.HasLabels{probe.LabelComponent}); err != nil {
		return ctrl.Result{}, fmt.Errorf("list probers: %w", err)
	}
	waiting := slices.DeleteFunc(probers.Items, func(pod corev1.Pod) bool { return !waitsForCanary(&pod) })
	again, err := r.nudge(ctx, waiting, fmt.Sprint(addresses))
	return ctrl.Result{RequeueAfter: again}, err
}

// serversOfCanary answers to a change of a namespace's ConfigMap.
func (r *MCPServerReconciler) serversOfCanary(ctx context.Context, object client.Object) []reconcile.Request {
	return r.serversIn(ctx, client.InNamespace(object.GetNamespace()))
}

// evidence is what a verdict takes from a prober.
type evidence struct {
	node, component, ip, deleted string
	ready, podReady, started     bool
	running, reached             bool
}

func evidenceOf(o client.Object) evidence {
	pod := o.(*corev1.Pod)
	out := evidence{node: pod.Spec.NodeName, component: pod.Labels[probe.LabelComponent], ip: fmt.Sprint(pod.Status.PodIPs)}
	if pod.DeletionTimestamp != nil {
		out.deleted = pod.DeletionTimestamp.String()
	}
	for _, c := range pod.Status.Conditions {
		out.podReady = out.podReady || (c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue)
	}
	for _, c := range pod.Status.ContainerStatuses {
		out.ready, out.started, out.running = c.Ready, c.Started != nil && *c.Started, c.State.Running != nil
		for _, t := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
			out.reached = out.reached || (t != nil && t.ExitCode == probe.ExitReached)
		}
	}
	return out
}

// proofDelay is how long after a change of a prober the servers are looked at: a prober that starts or ends
// changes several times in a row, and so do those of all nodes in a rollout.
const proofDelay = time.Second

// afterProbers answers to a change of a prober that may turn a verdict: every server, a little later. What
// the operator finds when it starts is no change: it looks at every server then.
func (r *MCPServerReconciler) afterProbers() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	later := func(ctx context.Context, pod client.Object, q queue) {
		if pod.GetLabels()[probe.LabelComponent] == "" || pod.GetNamespace() != r.Namespace {
			return
		}
		for _, request := range r.serversIn(ctx) {
			q.AddAfter(request, proofDelay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList {
				later(ctx, e.Object, q)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			if evidenceOf(e.ObjectOld) != evidenceOf(e.ObjectNew) {
				later(ctx, e.ObjectNew, q)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { later(ctx, e.Object, q) },
	}
}
