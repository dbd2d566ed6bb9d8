package controllers

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// newCiliumPolicy is an empty object of Cilium's own kind of policy.
func newCiliumPolicy() *unstructured.Unstructured {
	out := &unstructured.Unstructured{}
	out.SetGroupVersionKind(plan.CiliumNetworkPolicyKind)
	return out
}

// applyCilium makes the CiliumNetworkPolicy that of the plan; it does nothing where none is planned.
func (r *EgressProxyReconciler) applyCilium(ctx context.Context, planned *unstructured.Unstructured) error {
	if planned == nil {
		return nil
	}
	o := plan.Object{Kind: planned.GetKind(), Namespace: planned.GetNamespace(), Name: planned.GetName()}
	live := newCiliumPolicy()
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(planned), live)
	switch {
	case err == nil:
		if sameCilium(live, planned) {
			return ownedByNobody(o, live)
		}
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("get %s: %w", o.Kind, err)
	default:
		if err := r.notForeign(ctx, o); err != nil {
			return err
		}
	}
	body, err := json.Marshal(planned)
	if err != nil {
		return err
	}
	applied := newCiliumPolicy()
	applied.SetNamespace(o.Namespace)
	applied.SetName(o.Name)
	if err := r.Client.Patch(ctx, applied, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner(plan.FieldManager), client.ForceOwnership); err != nil {
		return fmt.Errorf("apply %s: %w", o.Kind, err)
	}
	if sameCilium(applied, planned) {
		return nil
	}
	applied.Object["spec"] = planned.DeepCopy().Object["spec"] // somebody added to it, which applying leaves in place
	delete(applied.Object, "specs")
	if err := r.Client.Update(ctx, applied, client.FieldOwner(plan.FieldManager)); err != nil {
		return fmt.Errorf("update %s: %w", o.Kind, err)
	}
	return nil
}

// sameCilium tells whether a live policy says what was planned, and nothing else.
func sameCilium(live, planned *unstructured.Unstructured) bool {
	return isOfProxy(live) && equality.Semantic.DeepEqual(live.Object["spec"], planned.Object["spec"]) && live.Object["specs"] == nil
}

// notForeign refuses a policy that the cache does not hold because it is not ours.
func (r *EgressProxyReconciler) notForeign(ctx context.Context, o plan.Object) error {
	partial := &metav1.PartialObjectMetadata{}
	partial.SetGroupVersionKind(plan.CiliumNetworkPolicyKind)
	err := r.Live.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Name}, partial)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("get %s: %w", o.Kind, err)
	case !isOfProxy(partial) && !wasApplied(partial):
		return foreign(o, "does not belong to MCP Warden")
	}
	return nil
}

// removeCilium deletes the CiliumNetworkPolicy of a namespace, if it is ours.
func (r *EgressProxyReconciler) removeCilium(ctx context.Context, namespace string) error {
	if !r.Cilium {
		return nil
	}
	live := newCiliumPolicy()
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: plan.EgressProxyName}, live)
	if apierrors.IsNotFound(err) || (err == nil && !isOfProxy(live)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get %s: %w", live.GetKind(), err)
	}
	if err := r.Client.Delete(ctx, live, client.Preconditions{UID: new(live.GetUID())}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s: %w", live.GetKind(), err)
	}
	return nil
}
