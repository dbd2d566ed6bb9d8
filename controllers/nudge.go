package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// annotationNudged on a pod is when its kubelet was last told to look at it.
const annotationNudged = "mcpwarden.io/nudged-at"

// nudgePods changes an annotation of the pods of a list, so that their kubelets look at them now: a
// kubelet refreshes the Secrets that a pod mounts when it looks at the pod, and without a change that
// is every minute or so.
func nudgePods(ctx context.Context, c client.Client, now time.Time, of ...client.ListOption) error {
	pods := &corev1.PodList{}
	if err := c.List(ctx, pods, append(of, client.UnsafeDisableDeepCopy)...); err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		annotationNudged: now.UTC().Format(time.RFC3339Nano),
	}}})
	if err != nil {
		return err
	}
	for i := range pods.Items {
		pod := &corev1.Pod{}
		pod.Namespace, pod.Name = pods.Items[i].Namespace, pods.Items[i].Name
		err := c.Patch(ctx, pod, client.RawPatch(types.MergePatchType, body), client.FieldOwner(plan.FieldManager))
		if client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("annotate pod %s: %w", pod.Name, err)
		}
	}
	return nil
}
