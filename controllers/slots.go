package controllers

import (
	"context"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

// maxRotations is how many rotations may be in flight where nobody says.
const maxRotations = 10

// rotatingIndex finds the Deployments that are in the middle of a rotation.
const rotatingIndex = "mcpwarden.io/rotating"

// rotatingOf is what the index knows a Deployment by.
func rotatingOf(o client.Object) []string {
	d := o.(*appsv1.Deployment)
	state, err := rotation.Decode(d.Annotations[plan.AnnotationRotation])
	if err != nil || !rotation.InFlight(state, status.Rollout(d, nil)) {
		return nil
	}
	return []string{"true"}
}

// slots bound how many rotations are in flight. Which are is told by the Deployments; beside them
// count those that are about to be.
type slots struct {
	limit int

	mu    sync.Mutex
	taken map[types.NamespacedName]bool
}

// take takes a slot for a server, to be left once its Deployment tells of the rotation; false where
// none is free.
func (s *slots) take(ctx context.Context, reader client.Reader, server types.NamespacedName) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rotating := &appsv1.DeploymentList{}
	if err := reader.List(ctx, rotating, client.MatchingFields{rotatingIndex: "true"}, client.UnsafeDisableDeepCopy); err != nil {
		return false, fmt.Errorf("list Deployments in rotation: %w", err)
	}
	used := len(s.taken)
	for i := range rotating.Items {
		if !s.taken[client.ObjectKeyFromObject(&rotating.Items[i])] {
			used++
		}
	}
	if used >= s.limit {
		return false, nil
	}
	s.taken[server] = true
	return true, nil
}

// leave gives back a slot that was taken.
func (s *slots) leave(server types.NamespacedName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, server)
}
