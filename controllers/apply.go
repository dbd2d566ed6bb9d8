package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// Server-side apply needs create and patch; update takes out what others put into an object of ours.
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=get;list;watch;create;update;patch
// +kubebuilder:rbac:groups="",resources=services,verbs=get;create;update;patch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;update;patch

// newObject returns an empty object of a kind that plans hold.
func newObject(kind string) client.Object {
	switch kind {
	case "Deployment":
		return &appsv1.Deployment{}
	case "NetworkPolicy":
		return &networkingv1.NetworkPolicy{}
	case "PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}
	case "Service":
		return &corev1.Service{}
	case "ServiceAccount":
		return &corev1.ServiceAccount{}
	}
	panic("no plan holds a " + kind)
}

// pair is a planned object and what is there in its place.
type pair struct {
	planned plan.Object
	// live is nil where there is none, or none that the cache holds.
	live client.Object
	// ours tells that an object is there and belongs to the server.
	ours bool
}

// apply makes the live objects those of the plan. Every name is checked before anything is
// written, so that a conflict leaves nothing half-applied; then the objects are written in the order
// of the plan, isolation first, and what is no longer planned is removed.
func (r *MCPServerReconciler) apply(ctx context.Context, server *v1alpha1.MCPServer, p *plan.Plan, obs *observation) error {
	pairs := make([]pair, len(p.Objects))
	for i, o := range p.Objects {
		var err error
		if pairs[i], err = r.lookUp(ctx, server, o); err != nil {
			return err
		}
	}
	for _, pair := range pairs {
		applied, err := r.applyOne(ctx, server, pair)
		if err != nil {
			return fmt.Errorf("apply %s: %w", pair.planned.Kind, err)
		}
		if deployment, ok := applied.(*appsv1.Deployment); ok {
			obs.deployment = deployment
		}
	}
	return r.prune(ctx, server, p)
}

// lookUp finds what is there under the name of a planned object. What the cache does not hold is
// asked for once more, by metadata, because the cache holds only what carries our label.
func (r *MCPServerReconciler) lookUp(ctx context.Context, server *v1alpha1.MCPServer, o plan.Object) (pair, error) {
	key := client.ObjectKey{Namespace: o.Namespace, Name: o.Name}
	live := newObject(o.Kind)
	err := r.Client.Get(ctx, key, live)
	if err == nil {
		return pair{planned: o, live: live, ours: true}, checkOwner(server, o, live, isMarked(server, live))
	}
	if !apierrors.IsNotFound(err) {
		return pair{}, fmt.Errorf("get %s %s: %w", o.Kind, key, err)
	}
	gvk, err := apiutil.GVKForObject(live, r.Client.Scheme())
	if err != nil {
		return pair{}, err
	}
	partial := &metav1.PartialObjectMetadata{}
	partial.SetGroupVersionKind(gvk)
	if err := r.Live.Get(ctx, key, partial); err != nil {
		if apierrors.IsNotFound(err) {
			return pair{planned: o}, nil
		}
		return pair{}, fmt.Errorf("get %s %s: %w", o.Kind, key, err)
	}
	return pair{planned: o, ours: true}, checkOwner(server, o, partial, wasApplied(partial))
}

// checkOwner refuses an object that somebody else controls, or that nobody controls and that does
// not bear our mark either.
func checkOwner(server *v1alpha1.MCPServer, o plan.Object, live client.Object, marked bool) error {
	ref := metav1.GetControllerOfNoCopy(live)
	switch {
	case o.Name == plan.BaselineName:
		return nil // the name is ours, in every namespace
	case ref == nil && marked, ref != nil && ref.UID == server.UID:
		return nil
	case ref == nil:
		return nameConflict(o, "exists and does not belong to this MCPServer")
	case ref.Kind == "MCPServer" && ref.Name == server.Name:
		return leftover(o)
	}
	return nameConflict(o, fmt.Sprintf("exists and belongs to %s %s", ref.Kind, ref.Name))
}

// isMarked recognises an object of the server that lost its owner reference.
func isMarked(server *v1alpha1.MCPServer, live client.Object) bool {
	labels := live.GetLabels()
	return labels[plan.LabelManagedBy] == plan.ManagedBy && labels[plan.LabelServer] == server.Name
}

// wasApplied recognises an object that lost its labels too: who applied it is written in it.
func wasApplied(live client.Object) bool {
	return slices.ContainsFunc(live.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool {
		return e.Manager == plan.FieldManager && e.Operation == metav1.ManagedFieldsOperationApply
	})
}

// applyOne writes an object if it is not as planned, and returns it as it then is.
func (r *MCPServerReconciler) applyOne(ctx context.Context, server *v1alpha1.MCPServer, pair pair) (client.Object, error) {
	drift := ""
	if pair.live != nil {
		if drift = plan.Drift(pair.live, pair.planned.Expected(pair.live)); drift == "" {
			return pair.live, nil
		}
	}
	// Without ForceOwnership, an object that somebody else creates at this very moment is a conflict.
	opts := []client.ApplyOption{client.FieldOwner(plan.FieldManager)}
	if pair.ours {
		opts = append(opts, client.ForceOwnership)
	}
	if err := r.Client.Apply(ctx, pair.planned.Config, opts...); err != nil {
		if apierrors.IsConflict(err) && !pair.ours {
			return nil, nameConflict(pair.planned, "was created by somebody else at the same time")
		}
		return nil, err
	}
	applied := newObject(pair.planned.Kind)
	if err := remarshal(pair.planned.Config, applied); err != nil {
		return nil, err
	}
	r.recordRepair(server, pair, drift)
	return applied, r.strip(ctx, pair.planned, applied)
}

// strip takes out what others added to an object of ours and what applying leaves in place.
func (r *MCPServerReconciler) strip(ctx context.Context, o plan.Object, applied client.Object) error {
	expected := o.Expected(applied).(client.Object)
	if plan.Drift(applied, expected) == "" {
		return nil
	}
	if err := r.Client.Update(ctx, expected, client.FieldOwner(plan.FieldManager)); err != nil {
		return err
	}
	if path := plan.Drift(expected, o.Expected(expected)); path != "" {
		return fmt.Errorf("%s %s/%s was put right and is changed again at once at %s: find out which admission webhook does it",
			o.Kind, o.Namespace, o.Name, path)
	}
	return remarshal(expected, applied)
}

// recordRepair tells of an object that changed although the spec did not.
func (r *MCPServerReconciler) recordRepair(server *v1alpha1.MCPServer, pair pair, drift string) {
	o := pair.planned
	if server.Status.ObservedGeneration != server.Generation || meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionReady) == nil {
		return
	}
	switch {
	case drift != "":
		r.Recorder.Eventf(server, nil, corev1.EventTypeNormal, "Repaired", "Apply", "%s %s differed from the plan at %s and was put right", o.Kind, o.Name, drift)
	case !pair.ours && o.Name != plan.BaselineName:
		r.Recorder.Eventf(server, nil, corev1.EventTypeNormal, "Recreated", "Apply", "%s %s was missing and was created", o.Kind, o.Name)
	}
}

// prune removes what the server owns and the plan no longer holds.
func (r *MCPServerReconciler) prune(ctx context.Context, server *v1alpha1.MCPServer, p *plan.Plan) error {
	const kind = "PodDisruptionBudget" // the only object that a plan may be without
	if slices.ContainsFunc(p.Objects, func(o plan.Object) bool { return o.Kind == kind }) {
		return nil
	}
	live := newObject(kind)
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(server), live)
	if apierrors.IsNotFound(err) || (err == nil && !plan.IsOwnedBy(live, server)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", kind, err)
	}
	if err := r.Client.Delete(ctx, live, client.Preconditions{UID: new(live.GetUID())}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s: %w", kind, err)
	}
	return nil
}

// release removes the baseline of a namespace once no server and no pod of one is left in it.
func (r *MCPServerReconciler) release(ctx context.Context, namespace string) error {
	servers, pods := &v1alpha1.MCPServerList{}, &corev1.PodList{}
	for _, list := range []client.ObjectList{servers, pods} {
		if err := r.Client.List(ctx, list, client.InNamespace(namespace), client.Limit(1)); err != nil {
			return fmt.Errorf("list what is left in namespace %s: %w", namespace, err)
		}
	}
	if len(servers.Items) > 0 || len(pods.Items) > 0 {
		return nil
	}
	baseline := &networkingv1.NetworkPolicy{}
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: plan.BaselineName}, baseline); err != nil {
		return client.IgnoreNotFound(err)
	}
	if err := r.Client.Delete(ctx, baseline, client.Preconditions{UID: new(baseline.GetUID())}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete NetworkPolicy %s: %w", plan.BaselineName, err)
	}
	return nil
}

// remarshal turns what the API server answered into the type that the rest of the code reads.
func remarshal(from any, into client.Object) error {
	raw, err := json.Marshal(from)
	if err != nil {
		return fmt.Errorf("encode %T: %w", from, err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decode %T: %w", into, err)
	}
	into.SetManagedFields(nil)
	return nil
}
