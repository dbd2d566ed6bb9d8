// Package controllers holds one reconciler per kind: observe, plan, apply, report. It is the only
// code that talks to the API server.
package controllers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

const (
	// blockedRetry is how soon what somebody else must cure is tried again: no event may tell of the cure.
	blockedRetry = 30 * time.Second
	// reconcileTimeout ends a reconcile that waits for the cache to see what it never will.
	reconcileTimeout = time.Minute
	// firstRetry and lastRetry bound the time between two attempts after an error.
	firstRetry, lastRetry = 50 * time.Millisecond, time.Minute
)

// MCPServerReconciler makes the cluster match every MCPServer.
type MCPServerReconciler struct {
	base

	metrics   *statusMetrics
	sources   *sources
	digestKey *digestKey
	slots     *slots
	owners    *ownerReader
	tools     *tools
	// literals are the literalReports by the name of the server.
	literals sync.Map
	// inPlace are what is remembered of each server, as *inPlace by its name.
	inPlace sync.Map
}

// +kubebuilder:rbac:groups=mcpwarden.io,resources=mcpservers,verbs=get;list;watch
// +kubebuilder:rbac:groups=mcpwarden.io,resources=mcpservers/status,verbs=patch

// Reconcile makes the cluster match one MCPServer.
func (r *MCPServerReconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	server := &v1alpha1.MCPServer{}
	if err := r.Client.Get(ctx, req.NamespacedName, server); err != nil {
		if apierrors.IsNotFound(err) {
			r.forget(req)
			return r.closeBehind(ctx, req.Namespace)
		}
		return ctrl.Result{}, fmt.Errorf("get MCPServer: %w", err)
	}
	if isBeingCollected(server) {
		return r.closeBehind(ctx, req.Namespace)
	}
	if err := r.surroundings.await(ctx); err != nil {
		return ctrl.Result{}, err
	}
	obs, err := r.observe(ctx, server)
	if err != nil {
		return r.report(ctx, server, nil, status.Input{}, err)
	}
	secrets, done, err := r.decide(ctx, server, obs)
	defer done()
	if err != nil {
		return r.report(ctx, server, nil, status.Input{}, err)
	}
	seen := secrets.status(&server.Status, obs, r.Now())
	planned, invalid := plan.Build(plan.Input{Server: server, Facts: obs.facts, Secrets: secrets.forPlan(server, obs)})
	if len(invalid) > 0 {
		return r.report(ctx, server, obs, obs.status(nil, seen), invalidSpec(invalid))
	}
	r.holdBack(ctx, server, planned, obs.deployment)
	err = cmp.Or(r.apply(ctx, server, planned, obs, secrets), r.nudgeFiles(ctx, obs, secrets, seen), obs.unread)
	return r.report(ctx, server, obs, obs.status(planned, seen), err)
}

// forget is for a server that is gone.
func (r *MCPServerReconciler) forget(req ctrl.Request) {
	r.literals.Delete(req.NamespacedName)
	r.inPlace.Delete(req.NamespacedName)
}

// isBeingCollected tells a server whose objects the garbage collector takes, or sets free, before the
// server itself goes. One that only somebody's finalizer holds is guarded to the end.
func isBeingCollected(server client.Object) bool {
	return server.GetDeletionTimestamp() != nil && slices.ContainsFunc(server.GetFinalizers(), func(f string) bool {
		return f == metav1.FinalizerDeleteDependents || f == metav1.FinalizerOrphanDependents
	})
}

// report writes the status if it changed, records what turned, and decides what is tried again.
func (r *MCPServerReconciler) report(ctx context.Context, server *v1alpha1.MCPServer, obs *observation, in status.Input, err error) (ctrl.Result, error) {
	err = redactedFor(server, err)
	switch {
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return ctrl.Result{}, nil // the server goes with its namespace
	case apierrors.IsConflict(err):
		return ctrl.Result{}, err // somebody wrote at the same time: look again
	}
	in.Server, in.Now, in.Problem = server, r.Now(), problemOf(err)
	in.Literals = r.literalCredentials(server)
	in.Tools = r.tools.of(client.ObjectKeyFromObject(server))
	in.Compliance = r.judge(ctx, server, obs, in, err)
	updated := server.DeepCopy()
	updated.Status = status.Compute(in)
	if writeErr := r.writeStatus(ctx, server, updated); writeErr != nil {
		return ctrl.Result{}, redactedFor(server, writeErr)
	}
	r.metrics.changed(server, server.Status.Conditions, updated.Status.Conditions)
	for _, e := range append(in.Events(), status.Transitions(&server.Status, &updated.Status)...) {
		r.Recorder.Eventf(server, nil, e.Type, e.Reason, e.Action, "%s", e.Note)
	}
	switch {
	case in.Problem == nil:
		return ctrl.Result{RequeueAfter: in.Recheck()}, nil
	case in.Problem.Reason == v1alpha1.ReasonNameConflict, in.Problem.Reason == v1alpha1.ReasonRejected:
		return ctrl.Result{RequeueAfter: r.BlockedRetry}, nil
	case in.Problem.Waiting:
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, reconcile.TerminalError(err)
}

// writeStatus makes at most one write, and none without a change.
func (r *MCPServerReconciler) writeStatus(ctx context.Context, old, updated *v1alpha1.MCPServer) error {
	if equalStatus(&old.Status, &updated.Status) {
		return nil
	}
	err := r.Client.Status().Patch(ctx, updated.DeepCopy(), client.MergeFrom(old), client.FieldOwner(plan.FieldManager))
	if err := client.IgnoreNotFound(err); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}
