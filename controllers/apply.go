package controllers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	acappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	acnetworkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"
	acpolicyv1 "k8s.io/client-go/applyconfigurations/policy/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// Server-side apply needs create and patch. Get finds what does not carry our label. Update takes out
// what others put into an object of ours and what stands in the way of ours.
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups="",resources=services,verbs=get;create;update;patch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=policy,resources=poddisruptionbudgets,verbs=get;list;watch;create;update;patch;delete
// +kubebuilder:rbac:groups=apps,resources=deployments,verbs=get;list;watch;create;update;patch

// metaOf returns the metadata of an apply configuration of a kind that plans hold.
func metaOf(config runtime.ApplyConfiguration) *acmetav1.ObjectMetaApplyConfiguration {
	switch config := config.(type) {
	case *acappsv1.DeploymentApplyConfiguration:
		return config.ObjectMetaApplyConfiguration
	case *acnetworkingv1.NetworkPolicyApplyConfiguration:
		return config.ObjectMetaApplyConfiguration
	case *acpolicyv1.PodDisruptionBudgetApplyConfiguration:
		return config.ObjectMetaApplyConfiguration
	case *accorev1.SecretApplyConfiguration:
		return config.ObjectMetaApplyConfiguration
	case *accorev1.ConfigMapApplyConfiguration:
		return config.ObjectMetaApplyConfiguration
	case *accorev1.ServiceApplyConfiguration:
		return config.ObjectMetaApplyConfiguration
	case *accorev1.ServiceAccountApplyConfiguration:
		return config.ObjectMetaApplyConfiguration
	}
	panic(fmt.Sprintf("no plan holds a %T", config))
}

// pair is a planned object and what is there in its place.
type pair struct {
	planned plan.Object
	// live is nil where there is none, or none that the cache holds.
	live client.Object
	// uid of an object that is there and belongs to the server; empty where there is none.
	uid types.UID
	// confirm has the last word before the object is written; nil where nothing can forbid that.
	confirm func(context.Context) error
}

// apply makes the live objects those of the plan. Every name is checked before anything is
// written, so that a conflict leaves nothing half-applied; then the objects are written in the order
// of the plan, isolation first, and what is no longer planned is removed. Where the server is up
// already, a conflict over one name must not leave the others unguarded.
func (r *MCPServerReconciler) apply(ctx context.Context, server *v1alpha1.MCPServer, p *plan.Plan, obs *observation, secrets *decision) error {
	var pairs []pair
	var conflict error
	for _, o := range p.Objects {
		pair, err := r.lookUp(ctx, server, o)
		switch {
		case err == nil:
			pairs = append(pairs, pair)
		case isProblem(err):
			conflict = cmp.Or(conflict, err)
		default:
			return err
		}
	}
	if conflict != nil && obs.deployment == nil {
		return conflict
	}
	seen := r.inPlaceOf(server)
	seen.begin()
	workload := slices.IndexFunc(pairs, func(pair pair) bool { return pair.planned.Kind == "Deployment" })
	for i, pair := range pairs {
		if i == workload { // what its pods read must be there first
			if runs(server) {
				pair.confirm = func(ctx context.Context) error { return r.confirm(ctx, server, p) }
			}
			if err := r.copySecrets(ctx, server, secrets); err != nil {
				return err
			}
		}
		applied, err := r.applyOne(ctx, server, pair)
		if err != nil {
			return fmt.Errorf("apply %s: %w", pair.planned.Kind, err)
		}
		if deployment, ok := applied.(*appsv1.Deployment); ok {
			obs.deployment = deployment
		}
	}
	if conflict != nil {
		return conflict
	}
	if workload < 0 { // the pods that run, if any, read their files none the less
		if err := r.copyFiles(ctx, server, secrets); err != nil {
			return err
		}
	}
	if err := cmp.Or(r.collect(ctx, server, obs, secrets), r.prune(ctx, server, p)); err != nil {
		return err
	}
	seen.end()
	return nil
}

// lookUp finds what is there under the name of a planned object. What the cache does not hold is
// asked for once more, by metadata, because the cache holds only what carries our label.
func (r *MCPServerReconciler) lookUp(ctx context.Context, server *v1alpha1.MCPServer, o plan.Object) (pair, error) {
	key := client.ObjectKey{Namespace: o.Namespace, Name: o.Name}
	var live client.Object = plan.NewLive(o.Kind)
	err := r.Client.Get(ctx, key, live)
	if client.IgnoreNotFound(err) != nil {
		return pair{}, fmt.Errorf("get %s %s: %w", o.Kind, key, err)
	}
	switch found := err == nil; {
	case found && (metav1.GetControllerOfNoCopy(live) != nil || isMarked(server, live) || o.IsShared()):
		return pair{planned: o, live: live, uid: live.GetUID()}, checkOwner(server, o, live)
	case !found && (o.Kind == "Service" || o.IsShared()):
		return pair{planned: o}, nil // the cache holds every Service, and the names of what is shared are ours
	}
	gvk, err := apiutil.GVKForObject(live, r.Client.Scheme())
	if err != nil {
		return pair{}, err
	}
	partial := &metav1.PartialObjectMetadata{}
	partial.SetGroupVersionKind(gvk)
	// The API server's cache will do: what it does not know yet, the apply is refused by.
	cached := &client.GetOptions{Raw: &metav1.GetOptions{ResourceVersion: "0"}}
	if err := r.Live.Get(ctx, key, partial, cached); err != nil {
		if apierrors.IsNotFound(err) {
			return pair{planned: o}, nil
		}
		return pair{}, fmt.Errorf("get %s %s: %w", o.Kind, key, err)
	}
	return pair{planned: o, uid: partial.UID}, checkOwner(server, o, partial)
}

// checkOwner refuses an object that somebody else controls, or that nobody controls and that does
// not bear our mark either.
func checkOwner(server *v1alpha1.MCPServer, o plan.Object, live client.Object) error {
	ref := metav1.GetControllerOfNoCopy(live)
	marked := isMarked(server, live) || wasApplied(live)
	switch {
	case o.IsShared():
		return nil // the name is ours, in every namespace
	case ref == nil && marked, ref != nil && ref.UID == server.UID:
		return nil
	case ref == nil:
		return nameConflict(o, "exists and does not belong to this MCPServer")
	case ref.Kind == "MCPServer" && ref.APIVersion == v1alpha1.GroupVersion.String() && ref.Name == server.Name:
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
	if pair.uid == "" && wasInPlace(server, pair.planned) {
		if err := r.stillThere(ctx, server); err != nil {
			return nil, err
		}
	}
	digest, err := planDigest(pair.planned) // before it carries what the API server answered
	if err != nil {
		return nil, err
	}
	applied, drift, err := r.put(ctx, pair)
	if err != nil {
		return nil, err
	}
	changed := pair.live == nil || drift != ""
	if changed {
		r.recordRepair(server, pair, drift, applied)
	}
	r.inPlaceOf(server).saw(objectName{pair.planned.Kind, pair.planned.Name}, digest, changed, drift, r.Now())
	return applied, nil
}

// stillThere asks the API server whether a server that the cache holds is there: the garbage collector may
// be taking what it left, which is not to be made again. What it returns then is a conflict.
func (r *MCPServerReconciler) stillThere(ctx context.Context, server *v1alpha1.MCPServer) error {
	live := &metav1.PartialObjectMetadata{}
	live.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("MCPServer"))
	switch err := r.Live.Get(ctx, client.ObjectKeyFromObject(server), live); {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("get MCPServer: %w", err)
	case err == nil && live.UID == server.UID && !isBeingCollected(live):
		return nil
	}
	resource := schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "mcpservers"}
	return apierrors.NewConflict(resource, server.Name, errors.New("it was deleted a moment ago"))
}

// put writes an object if it is not as planned. It returns the object as it then is, and where it
// differed from the plan; "" where it did not, or was not there.
func (r *base) put(ctx context.Context, pair pair) (applied client.Object, drift string, err error) {
	if pair.live != nil {
		if drift = plan.Drift(pair.live, pair.planned.Expected(pair.live)); drift == "" {
			return pair.live, "", nil
		}
	}
	if pair.confirm != nil {
		if err := pair.confirm(ctx); err != nil {
			return nil, drift, err
		}
	}
	if err := r.handOverReplicas(ctx, pair); err != nil {
		return nil, drift, err
	}
	applied, err = r.send(ctx, pair)
	if apierrors.IsInvalid(err) && pair.live != nil {
		applied, err = r.replace(ctx, pair, err)
	}
	if err != nil {
		if apierrors.IsConflict(err) && pair.uid == "" {
			return nil, drift, nameConflict(pair.planned, "was created by somebody else at the same time")
		}
		return nil, drift, err
	}
	applied, err = r.strip(ctx, pair.planned, applied)
	return applied, drift, err
}

// noObjectHasIt is a resourceVersion that no object of ours can have: the API server gave it out
// before any. An apply that carries it can only create.
const noObjectHasIt = "1"

// replicasManager is the field manager of replicas that were ours until an autoscaler sets others.
const replicasManager = plan.FieldManager + "-replicas"

// send applies an object to what was looked up, and to nothing that took its place since. The plan
// keeps its apply configuration as it is: client.Apply would write the API server's answer into it.
func (r *base) send(ctx context.Context, pair pair) (client.Object, error) {
	o := pair.planned
	switch meta := metaOf(o.Config); {
	case pair.uid != "":
		meta.WithUID(pair.uid)
	case !o.IsShared():
		meta.WithResourceVersion(noObjectHasIt)
	}
	body, err := json.Marshal(o.Config)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", o.Kind, err)
	}
	var applied client.Object = plan.NewLive(o.Kind)
	applied.SetNamespace(o.Namespace)
	applied.SetName(o.Name)
	opts := []client.PatchOption{client.FieldOwner(plan.FieldManager), client.ForceOwnership}
	if o.Kind == "Secret" {
		opts = append(opts, uncached)
	}
	if err := r.Client.Patch(ctx, applied, client.RawPatch(types.ApplyPatchType, body), opts...); err != nil {
		return nil, err
	}
	applied.SetManagedFields(nil)
	return applied, nil
}

// replace writes an object as a whole. Of some fields only one may be set, such as the kinds of a
// volume: applying ours to what somebody else has set is refused. A ConfigMap that somebody made immutable
// has to go first.
func (r *base) replace(ctx context.Context, pair pair, refused error) (client.Object, error) {
	if pair.planned.Kind == "ConfigMap" {
		if err := r.Client.Delete(ctx, pair.live, client.Preconditions{UID: new(pair.uid)}); client.IgnoreNotFound(err) != nil {
			return nil, err
		}
		metaOf(pair.planned.Config).UID = nil
		pair.uid = ""
		return r.send(ctx, pair)
	}
	expected := pair.planned.Expected(pair.live).(client.Object)
	if err := r.update(ctx, pair.planned.Kind, expected); err != nil {
		if apierrors.IsInvalid(err) {
			return nil, refused // it was not what somebody else has set
		}
		return nil, err
	}
	expected.SetManagedFields(nil)
	return expected, nil
}

// uncached writes an object of a kind that nobody reads through the cache: else the cache would be
// made to hold the kind, and with it the values of Secrets.
const uncached = client.DisableReadYourWritesConsistency

func (r *base) update(ctx context.Context, kind string, obj client.Object) error {
	opts := []client.UpdateOption{client.FieldOwner(plan.FieldManager)}
	if kind == "Secret" {
		opts = append(opts, uncached)
	}
	return r.Client.Update(ctx, obj, opts...)
}

// handOverReplicas keeps the replicas of a Deployment where the spec says nothing of them any more:
// they may still be ours, and an apply that leaves out what is ours takes it back to the default. Where they are not as they were
// seen, that is a conflict: replicas that an autoscaler sets may have no owner by which the API server would tell.
func (r *base) handOverReplicas(ctx context.Context, pair pair) error {
	config, ok := pair.planned.Config.(*acappsv1.DeploymentApplyConfiguration)
	if !ok || config.Spec.Replicas != nil || pair.live == nil {
		return nil
	}
	live := pair.live.(*appsv1.Deployment)
	if live.Spec.Replicas == nil || *live.Spec.Replicas < 2 {
		return nil
	}
	handedOver := acappsv1.Deployment(live.Name, live.Namespace).WithUID(live.UID).WithResourceVersion(live.ResourceVersion).
		WithSpec(acappsv1.DeploymentSpec().WithReplicas(*live.Spec.Replicas))
	err := r.Client.Apply(ctx, handedOver, client.FieldOwner(replicasManager))
	if apierrors.IsConflict(err) && apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) {
		return nil // somebody else has set them meanwhile: then they are not ours
	}
	return err
}

// strip takes out what others added to an object of ours and what applying leaves in place.
func (r *base) strip(ctx context.Context, o plan.Object, applied client.Object) (client.Object, error) {
	expected := o.Expected(applied).(client.Object)
	if plan.Drift(applied, expected) == "" {
		return applied, nil
	}
	if err := r.update(ctx, o.Kind, expected); err != nil {
		return nil, err
	}
	expected.SetManagedFields(nil)
	if path := plan.Drift(expected, o.Expected(expected)); path != "" {
		return nil, &driftError{compliance.Drift{Kind: o.Kind, Name: o.Name, Path: path}}
	}
	return expected, nil
}

// driftError is an object that is changed again as often as it is put right.
type driftError struct {
	compliance.Drift
}

func (e *driftError) Error() string {
	return fmt.Sprintf("%s %s was put right and is changed again at once at %s: find out which admission webhook or policy does it", e.Kind, e.Name, e.Path)
}

// recordRepair tells of an object that changed although the spec did not.
func (r *MCPServerReconciler) recordRepair(server *v1alpha1.MCPServer, pair pair, drift string, applied client.Object) {
	o := pair.planned
	if !wasInPlace(server, o) || pair.live != nil && pair.live.GetAnnotations()[plan.AnnotationRotation] != metaOf(o.Config).Annotations[plan.AnnotationRotation] {
		return // a step of a rotation is no repair
	}
	switch {
	case drift != "":
		r.Recorder.Eventf(server, applied, corev1.EventTypeNormal, "Repaired", "Apply", "%s %s differed from the plan at %s and was put right", o.Kind, o.Name, drift)
	case pair.uid != "":
		r.Recorder.Eventf(server, applied, corev1.EventTypeNormal, "Repaired", "Apply", "%s %s had lost its labels and was put right", o.Kind, o.Name)
	default:
		r.Recorder.Eventf(server, applied, corev1.EventTypeNormal, "Recreated", "Apply", "%s %s was missing and was created", o.Kind, o.Name)
	}
}

// wasInPlace tells from the status whether an object of the present spec had been applied before.
func wasInPlace(server *v1alpha1.MCPServer, o plan.Object) bool {
	if o.Kind == "PodDisruptionBudget" && server.Status.Replicas < 2 {
		return false // an autoscaler just asked for a second pod
	}
	if server.Status.Image == nil {
		return false // there was no Deployment yet
	}
	ready := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.ObservedGeneration == server.Generation && !slices.Contains(notApplied, ready.Reason)
}

// notApplied are the reasons of Ready under which not every object of the plan was applied.
var notApplied = []string{v1alpha1.ReasonInvalidSpec, v1alpha1.ReasonNameConflict, v1alpha1.ReasonRejected, v1alpha1.ReasonReconcileError}

// prune removes what the server owns and the plan no longer holds.
func (r *MCPServerReconciler) prune(ctx context.Context, server *v1alpha1.MCPServer, p *plan.Plan) error {
	const kind = "PodDisruptionBudget" // the only object that a plan may be without
	if slices.ContainsFunc(p.Objects, func(o plan.Object) bool { return o.Kind == kind }) {
		return nil
	}
	var live client.Object = plan.NewLive(kind)
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
