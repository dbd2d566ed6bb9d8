package controllers

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	ctrlsource "sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// MCPPolicyReconciler writes what became of every MCPPolicy. The servers' reconciler applies them.
type MCPPolicyReconciler struct {
	base
}

// +kubebuilder:rbac:groups=mcpwarden.io,resources=mcppolicies/status,verbs=patch

// Reconcile counts what all policies select: they are few, and the status of each depends on the others.
func (r *MCPPolicyReconciler) Reconcile(ctx context.Context, _ reconcile.Request) (ctrl.Result, error) {
	if err := r.surroundings.await(ctx); err != nil {
		return ctrl.Result{}, err
	}
	policies, namespaces := &v1alpha1.MCPPolicyList{}, &metav1.PartialObjectMetadataList{}
	if why := r.surroundings.list(ctx, kindMCPPolicy, policies); why != "" {
		return ctrl.Result{}, nil // it is told again when they can be read
	}
	if why := r.surroundings.list(ctx, kindNamespace, namespaces); why != "" {
		return ctrl.Result{}, nil
	}
	servers := &v1alpha1.MCPServerList{}
	if err := r.Client.List(ctx, servers, client.UnsafeDisableDeepCopy); err != nil {
		return ctrl.Result{}, fmt.Errorf("list MCPServers: %w", err)
	}
	next := metav1.Time{}
	for i := range policies.Items {
		policy := &policies.Items[i]
		updated := policy.DeepCopy()
		updated.Status = r.count(policy, policies.Items, namespaces.Items, servers.Items)
		if equality.Semantic.DeepEqual(policy.Status, updated.Status) {
			continue
		}
		if err := r.Client.Status().Patch(ctx, updated, client.MergeFrom(policy), client.FieldOwner(plan.FieldManager)); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, fmt.Errorf("write status of MCPPolicy %s: %w", policy.Name, err)
		}
	}
	for i := range policies.Items {
		for _, e := range policies.Items[i].Spec.Exemptions {
			if e.ExpiresAt.After(r.Now()) && (next.IsZero() || e.ExpiresAt.Before(&next)) {
				next = e.ExpiresAt
			}
		}
	}
	if next.IsZero() {
		return ctrl.Result{}, nil
	}
	return ctrl.Result{RequeueAfter: next.Sub(r.Now())}, nil
}

// count says what a policy selects, and what came of it.
func (r *MCPPolicyReconciler) count(policy *v1alpha1.MCPPolicy, policies []v1alpha1.MCPPolicy, namespaces []metav1.PartialObjectMetadata, servers []v1alpha1.MCPServer) v1alpha1.MCPPolicyStatus {
	out := v1alpha1.MCPPolicyStatus{Conditions: policy.DeepCopy().Status.Conditions, ObservedGeneration: policy.Generation}
	selected, contradicts := map[string]bool{}, map[string]string{}
	for i := range namespaces {
		if ok, err := compliance.Selects(policy, namespaces[i].Labels); err != nil || !ok {
			continue
		}
		selected[namespaces[i].Name] = true
		out.Namespaces++
		for j := range policies {
			other := &policies[j]
			if ok, err := compliance.Selects(other, namespaces[i].Labels); err == nil && ok && other.Name != policy.Name {
				if why := compliance.Contradiction(&policy.Spec, &other.Spec); why != "" {
					contradicts[other.Name] = why
				}
			}
		}
	}
	for i := range servers {
		server := &servers[i]
		if !selected[server.Namespace] {
			continue
		}
		out.Servers++
		switch c := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionPolicyCompliant); {
		case c == nil || c.Status == metav1.ConditionUnknown:
			out.Unknown++
		case c.Status == metav1.ConditionFalse:
			out.Violating++
		}
		for _, e := range policy.Spec.Exemptions {
			if e.Namespace == server.Namespace && e.Name == server.Name && e.ExpiresAt.After(r.Now()) {
				out.Exempted++
				break
			}
		}
	}
	ready := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonInForce, ObservedGeneration: policy.Generation,
		Message:            fmt.Sprintf("In force for %d servers in %d namespaces.", out.Servers, out.Namespaces),
		LastTransitionTime: metav1.NewTime(r.Now()),
	}
	switch {
	case len(contradicts) > 0:
		ready.Status, ready.Reason, ready.Message = metav1.ConditionFalse, v1alpha1.ReasonContradiction, contradiction(contradicts)
	case out.Servers == 0:
		ready.Status, ready.Reason = metav1.ConditionFalse, v1alpha1.ReasonSelectsNothing
		ready.Message = fmt.Sprintf("No MCPServer lies in the %d namespaces that spec.namespaceSelector selects: compare it with the labels of the namespaces that it is meant for.", out.Namespaces)
	}
	meta.SetStatusCondition(&out.Conditions, ready)
	return out
}

// contradiction names the first of the policies that no server can satisfy beside this one.
func contradiction(by map[string]string) string {
	first := ""
	for name := range by {
		if first == "" || name < first {
			first = name
		}
	}
	out := fmt.Sprintf("No server can satisfy this policy and %s, which selects the same namespace: %s. Change one of them.", first, by[first])
	if n := len(by) - 1; n > 0 {
		out = strings.TrimSuffix(out, ".") + fmt.Sprintf("; so with %d more.", n)
	}
	return out
}

// setUp has one request for all policies.
func (r *MCPPolicyReconciler) setUp(mgr ctrl.Manager) error {
	all := []reconcile.Request{{NamespacedName: types.NamespacedName{Name: "all"}}}
	around := handler.TypedEnqueueRequestsFromMapFunc(func(context.Context, types.NamespacedName) []reconcile.Request { return all })
	verdictTurned := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*v1alpha1.MCPServer), e.ObjectNew.(*v1alpha1.MCPServer)
		return verdictOf(before) != verdictOf(after)
	}}
	return ctrl.NewControllerManagedBy(mgr).Named("mcppolicy").
		Watches(&v1alpha1.MCPServer{}, handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request { return all }), builder.WithPredicates(verdictTurned)).
		WatchesRawSource(ctrlsource.Channel(r.surroundings.listen(), around)).
		Complete(r)
}

func verdictOf(server *v1alpha1.MCPServer) metav1.ConditionStatus {
	if c := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionPolicyCompliant); c != nil {
		return c.Status
	}
	return ""
}
