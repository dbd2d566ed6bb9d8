package controllers

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
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

// OpenReportsReconciler writes the verdicts as Reports of openreports.io, where the cluster serves those.
type OpenReportsReconciler struct {
	base
}

// +kubebuilder:rbac:groups=openreports.io,resources=reports,verbs=get;list;create;patch

// Reconcile makes the Report of one server tell what its status does. A Report goes with its server, by its owner reference.
func (r *OpenReportsReconciler) Reconcile(ctx context.Context, req reconcile.Request) (ctrl.Result, error) {
	if err := r.surroundings.await(ctx); err != nil {
		return ctrl.Result{}, err
	}
	if !r.surroundings.serves(kindOpenReport) {
		return ctrl.Result{}, nil
	}
	server := &v1alpha1.MCPServer{}
	if err := r.Client.Get(ctx, req.NamespacedName, server); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	report := compliance.OpenReport(server)
	if report == nil {
		return ctrl.Result{}, nil
	}
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(compliance.OpenReportKind)
	switch err := r.Live.Get(ctx, client.ObjectKeyFromObject(report), live); {
	case apierrors.IsNotFound(err):
	case err != nil:
		return ctrl.Result{}, fmt.Errorf("get Report: %w", err)
	case !plan.IsOwnedBy(live, server):
		return ctrl.Result{}, reconcile.TerminalError(fmt.Errorf("the Report %s belongs to somebody else: delete it", live.GetName()))
	case sameReport(live, report):
		return ctrl.Result{}, nil
	}
	body, err := json.Marshal(report)
	if err != nil {
		return ctrl.Result{}, err
	}
	live.SetNamespace(report.GetNamespace())
	live.SetName(report.GetName())
	err = r.Client.Patch(ctx, live, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner(plan.FieldManager), client.ForceOwnership, uncached)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("apply Report: %w", err)
	}
	return ctrl.Result{}, nil
}

func sameReport(live, planned *unstructured.Unstructured) bool {
	for _, field := range []string{"source", "scope", "summary", "results"} {
		if !equality.Semantic.DeepEqual(live.Object[field], planned.Object[field]) {
			return false
		}
	}
	return true
}

// serves tells whether the cluster serves a kind.
func (s *surroundings) serves(kind schema.GroupKind) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	state := s.states[kind]
	return state.unknown == "" && state.gvk.Kind != ""
}

func (r *OpenReportsReconciler) setUp(mgr ctrl.Manager) error {
	judgedAnew := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*v1alpha1.MCPServer), e.ObjectNew.(*v1alpha1.MCPServer)
		return !equality.Semantic.DeepEqual(before.Status.Compliance, after.Status.Compliance) || verdictOf(before) != verdictOf(after)
	}}
	return ctrl.NewControllerManagedBy(mgr).Named("openreports").
		Watches(&v1alpha1.MCPServer{}, &handler.EnqueueRequestForObject{}, builder.WithPredicates(judgedAnew)).
		WatchesRawSource(ctrlsource.Channel(r.surroundings.listen(), handler.TypedEnqueueRequestsFromMapFunc(r.whenServed))).
		Complete(r)
}

// whenServed answers to a kind that comes or goes; what else surrounds servers turns their status first.
func (r *OpenReportsReconciler) whenServed(ctx context.Context, servers types.NamespacedName) []reconcile.Request {
	if servers.Namespace != "" || !r.surroundings.serves(kindOpenReport) {
		return nil
	}
	return r.serversIn(ctx)
}
