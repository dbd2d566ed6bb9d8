package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

// policiesOf are the policies that select a namespace, or why nobody knows.
func (r *base) policiesOf(ctx context.Context, namespace string) (policies []v1alpha1.MCPPolicy, unknown string) {
	all := &v1alpha1.MCPPolicyList{}
	if why := r.surroundings.list(ctx, kindMCPPolicy, all); why != "" {
		return nil, "the policies could not be read: " + why
	}
	if len(all.Items) == 0 {
		return nil, ""
	}
	labels := r.namespaceLabels(ctx, namespace)
	if labels.Unknown != "" {
		return nil, "which policies select the namespace is not known: " + labels.Unknown
	}
	policies, err := compliance.Selecting(all.Items, labels.Value)
	if err != nil {
		return nil, err.Error()
	}
	return policies, ""
}

// holdBack takes the Deployment out of a plan that a policy with action Enforce forbids, where to apply it would start
// anything: a policy that is tightened later turns the verdict of what runs, and nothing waits.
func (r *MCPServerReconciler) holdBack(ctx context.Context, server *v1alpha1.MCPServer, planned *plan.Plan, live *appsv1.Deployment) {
	if !runs(server) || isInPlace(planned, live) {
		return
	}
	policies, _ := r.policiesOf(ctx, server.Namespace) // where nobody knows, confirm asks before anything is written
	if message := r.violations(server, planned, policies); message != "" {
		planned.HoldBack(&plan.Hold{Reason: v1alpha1.ReasonPolicyViolation, Message: message})
	}
}

// isInPlace tells whether a Deployment is as planned, so that nothing of it is to be written.
func isInPlace(planned *plan.Plan, live *appsv1.Deployment) bool {
	i := slices.IndexFunc(planned.Objects, func(o plan.Object) bool { return o.Kind == "Deployment" })
	return i >= 0 && live != nil && plan.Drift(live, planned.Objects[i].Expected(live)) == ""
}

// runs tells whether pods are to run: what stops a server, or cuts it off, no policy forbids.
func runs(server *v1alpha1.MCPServer) bool {
	return server.Spec.DesiredState == "" || server.Spec.DesiredState == v1alpha1.StateRunning
}

// violations of policies with action Enforce, as a message; empty where there are none.
func (r *MCPServerReconciler) violations(server *v1alpha1.MCPServer, planned *plan.Plan, policies []v1alpha1.MCPPolicy) string {
	var messages []string
	for _, result := range compliance.Blocking(compliance.Input{
		Now: r.Now(), Server: server, Plan: planned, Literals: r.literalCredentials(server), Policies: policies,
	}) {
		messages = append(messages, string(result.Control.ID)+": "+result.Message)
	}
	return strings.Join(messages, "; ")
}

// confirm asks the API server itself whether a policy forbids what is about to be rolled out: what was watched may be
// older than a policy that was just made.
func (r *MCPServerReconciler) confirm(ctx context.Context, server *v1alpha1.MCPServer, planned *plan.Plan) error {
	policies := &v1alpha1.MCPPolicyList{}
	if err := r.Live.List(ctx, policies); err != nil {
		return fmt.Errorf("list MCPPolicies before a rollout: %w", err)
	}
	if len(policies.Items) == 0 {
		return nil
	}
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(kindNamespace.WithVersion("v1"))
	if err := r.Live.Get(ctx, types.NamespacedName{Name: server.Namespace}, namespace); err != nil {
		return fmt.Errorf("get Namespace before a rollout: %w", err)
	}
	selecting, err := compliance.Selecting(policies.Items, namespace.Labels)
	if err != nil {
		return err
	}
	if message := r.violations(server, planned, selecting); message != "" {
		return &problemError{status.Problem{Reason: v1alpha1.ReasonPolicyViolation, Message: "No pod is started: " + message}}
	}
	return nil
}

// serversAround answers to a change of what surrounds servers: one, those of a namespace, or all.
func (r *base) serversAround(ctx context.Context, servers types.NamespacedName) []reconcile.Request {
	switch {
	case servers.Namespace == "":
		return r.serversIn(ctx)
	case servers.Name == "":
		return r.serversIn(ctx, client.InNamespace(servers.Namespace))
	}
	if err := r.Client.Get(ctx, servers, &v1alpha1.MCPServer{}); err != nil {
		return nil // most accounts are no server's
	}
	return []reconcile.Request{{NamespacedName: servers}}
}
