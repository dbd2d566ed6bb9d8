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

// closeBehind answers for what a namespace has once, when a server went away in it: that stays as long
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
		if err := r.restore(ctx, plan.Baseline(namespace)); err != nil {
			return ctrl.Result{}, err
		}
		if left == "ReplicaSet" {
			return ctrl.Result{RequeueAfter: leftoverRetry}, nil
		}
		return ctrl.Result{}, nil
	}
	if namespace != r.Namespace { // there it is for the probers
		if err := r.removeShared(ctx, plan.Canary(namespace, plan.Facts{})); err != nil {
			return ctrl.Result{}, err
		}
	}
	return ctrl.Result{}, r.removeShared(ctx, plan.Baseline(namespace))
}

// anyLeft names a kind of which a namespace still holds an object of ours; "" where it holds none.
func (r *MCPServerReconciler) anyLeft(ctx context.Context, namespace string, exists bool) (string, error) {
	inNamespace := []client.ListOption{client.InNamespace(namespace), client.Limit(1), client.UnsafeDisableDeepCopy}
	servers, deployments, pods := &v1alpha1.MCPServerList{}, &appsv1.DeploymentList{}, &corev1.PodList{}
	for _, list := range []client.ObjectList{servers, deployments, pods} {
		opts := inNamespace
		if list != client.ObjectList(servers) { // what is not a server's is of the operator's own components
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

// restore puts an object that a namespace has once right where no plan does.
func (r *MCPServerReconciler) restore(ctx context.Context, o plan.Object) error {
	pair := pair{planned: o}
	var live client.Object = plan.NewLive(o.Kind)
	switch err := r.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Name}, live); {
	case err == nil:
		pair.live, pair.uid = live, live.GetUID()
	case !apierrors.IsNotFound(err):
		return fmt.Errorf("get %s %s: %w", o.Kind, o.Name, err)
	}
	_, _, err := r.put(ctx, pair)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	return err
}

// removeShared deletes an object that a namespace has once, if it is there.
func (r *MCPServerReconciler) removeShared(ctx context.Context, o plan.Object) error {
	var live client.Object = plan.NewLive(o.Kind)
	if err := r.Client.Get(ctx, client.ObjectKey{Namespace: o.Namespace, Name: o.Name}, live); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("get %s %s: %w", o.Kind, o.Name, err)
	}
	if err := r.Client.Delete(ctx, live, client.Preconditions{UID: new(live.GetUID())}); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s %s: %w", o.Kind, o.Name, err)
	}
	return nil
}
