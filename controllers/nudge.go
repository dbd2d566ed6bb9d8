package controllers

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/internal/plan"
)

const (
	// annotationNudged on a pod says of which version of the objects that it mounts its kubelet was told:
	// first with the time, then, when it was told for good, without.
	annotationNudged = "mcpwarden.io/nudged"
	// nudgeAgain is when a kubelet is told once more: the first time, it may have looked before it knew of
	// the object's change.
	nudgeAgain = 2 * time.Second
)

// nudge has the kubelets of pods look at a version of the objects that they mount; where a pod does not
// change, they do so every minute or so. An operator that ended halfway is made up for by the next. It
// returns when it is to be called again; 0 where all is done.
func (r *base) nudge(ctx context.Context, pods []corev1.Pod, version string) (time.Duration, error) {
	var again time.Duration
	for i := range pods {
		pod := &pods[i]
		if pod.DeletionTimestamp != nil || version == "" {
			continue
		}
		value, wait := nextNudge(pod.Annotations[annotationNudged], version, r.Now())
		again = max(again, wait)
		if value == "" {
			continue
		}
		if err := r.writeNudge(ctx, pod, value); err != nil {
			return 0, err
		}
	}
	return again, nil
}

// nextNudge is the value that the annotation of a pod is to get now, empty for none, and when to look again.
func nextNudge(value, version string, now time.Time) (next string, again time.Duration) {
	if value == version {
		return "", 0
	}
	var since time.Time
	if rest, ok := strings.CutPrefix(value, version+" "); ok {
		since, _ = time.Parse(time.RFC3339Nano, rest)
	}
	switch waited := now.Sub(since); {
	case since.IsZero() || waited < 0:
		return version + " " + now.UTC().Format(time.RFC3339Nano), nudgeAgain
	case waited < nudgeAgain:
		return "", nudgeAgain - waited
	}
	return version, 0
}

// writeNudge sets the annotation of a pod.
func (r *base) writeNudge(ctx context.Context, pod *corev1.Pod, value string) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotationNudged: value}}})
	if err != nil {
		return fmt.Errorf("encode annotation: %w", err)
	}
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	err = r.Client.Patch(ctx, target, client.RawPatch(types.MergePatchType, body), client.FieldOwner(plan.FieldManager))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("annotate pod %s: %w", pod.Name, err)
	}
	return nil
}
