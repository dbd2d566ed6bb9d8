package controllers

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// ReplicaSets are not watched; one that is left may still make a pod.
// +kubebuilder:rbac:groups=apps,resources=replicasets,verbs=list

// leftoverRetry is how soon it is looked again whether the garbage collector has taken what it
// will take, and of which no event tells.
const leftoverRetry = 5 * time.Second

// closeBehind answers for the baseline of a namespace in which a server went away: it stays as long
// as a server, a pod of one or what could make such a pod is there, and goes after that.
func (r *MCPServerReconciler) closeBehind(ctx context.Context, namespace string) (ctrl.Result, error) {
	live := &networkingv1.NetworkPolicy{}
	err := r.Client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: plan.BaselineName}, live)
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, fmt.Errorf("get NetworkPolicy %s: %w", plan.BaselineName, err)
	}
	exists := err == nil
	left, err := r.anyLeft(ctx, namespace, exists)
	switch {
	case err != nil:
		return ctrl.Result{}, err
	case left != "":
		if err := r.restoreBaseline(ctx, namespace, live, exists); err != nil {
			return ctrl.Result{}, err
		}
		if left == "ReplicaSet" {
			return ctrl.Result{RequeueAfter: leftoverRetry}, nil
		}
		return ctrl.Result{}, nil
	case exists:
		if err := r.Client.Delete(ctx, live, client.Preconditions{UID: new(live.GetUID())}); client.IgnoreNotFound(err) != nil {
			return ctrl.Result{}, fmt.Errorf("delete NetworkPolicy %s: %w", plan.BaselineName, err)
		}
	}
	return ctrl.Result{}, nil
}

// anyLeft names a kind of which a namespace still holds an object of ours; "" where it holds none.
func (r *MCPServerReconciler) anyLeft(ctx context.Context, namespace string, exists bool) (string, error) {
	inNamespace := []client.ListOption{client.InNamespace(namespace), client.Limit(1), client.UnsafeDisableDeepCopy}
	servers, deployments, pods := &v1alpha1.MCPServerList{}, &appsv1.DeploymentList{}, &corev1.PodList{}
	for _, list := range []client.ObjectList{servers, deployments, pods} {
		opts := inNamespace
		if list != client.ObjectList(servers) { // what is not a server's is the egress proxy's
			opts = append(slices.Clone(opts), client.HasLabels{plan.LabelServer})
		}
		if err := r.Client.List(ctx, list, opts...); err != nil {
			return "", fmt.Errorf("list what is left in namespace %s: %w", namespace, err)
		}
	}
	switch {
	case len(servers.Items) > 0:
		return "MCPServer", nil
	case len(deployments.Items) > 0:
		return "Deployment", nil
	case len(pods.Items) > 0:
		return "Pod", nil
	case !exists:
		return "", nil
	}
	sets := &metav1.PartialObjectMetadataList{}
	sets.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("ReplicaSetList"))
	if err := r.Live.List(ctx, sets, client.InNamespace(namespace), client.Limit(1),
		client.MatchingLabels{plan.LabelManagedBy: plan.ManagedBy}, client.HasLabels{plan.LabelServer}); err != nil {
		return "", fmt.Errorf("list ReplicaSets left in namespace %s: %w", namespace, err)
	}
	if len(sets.Items) > 0 {
		return "ReplicaSet", nil
	}
	return "", nil
}

// restoreBaseline puts the baseline right where no plan does.
func (r *MCPServerReconciler) restoreBaseline(ctx context.Context, namespace string, live *networkingv1.NetworkPolicy, exists bool) error {
	pair := pair{planned: plan.Baseline(namespace)}
	if exists {
		if plan.Drift(live, pair.planned.Expected(live)) == "" {
			return nil
		}
		pair.uid = live.UID
	}
	applied, err := r.send(ctx, pair)
	if err == nil {
		_, err = r.strip(ctx, pair.planned, applied)
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}
