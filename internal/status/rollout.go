package status

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// maxCrashes is how often a server of a new pod may end before its rollout has failed: it need not
// be waited for until the deadline.
const maxCrashes = 3

// Rollout says how far a Deployment is with its pod template, given the pods of the server.
func Rollout(d *appsv1.Deployment, pods []corev1.Pod) rotation.Rollout {
	switch {
	case deref(d.Spec.Replicas) == 0:
		return rotation.Idle
	case isComplete(d):
		return rotation.Complete
	case crashes(d, pods), deadlineExceeded(d) && !wasHeldByProbe(d, pods):
		return rotation.Failed
	}
	return rotation.Progressing
}

// isComplete tells whether all pods are of the present template and available.
func isComplete(d *appsv1.Deployment) bool {
	want, have := deref(d.Spec.Replicas), d.Status
	return have.ObservedGeneration >= d.Generation && have.UpdatedReplicas == want && have.Replicas == want && have.AvailableReplicas == want
}

// crashes tells whether a pod with the values of the present template ends again and again.
func crashes(d *appsv1.Deployment, pods []corev1.Pod) bool {
	return anyNew(d, pods, func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.Name == plan.ContainerName && !c.Ready && c.RestartCount >= maxCrashes
		})
	})
}

// wasHeldByProbe tells whether a pod with the values of the present template had yet to prove its isolation when
// the deadline passed: its server had not seen them, so that they are not what kept it from being ready.
func wasHeldByProbe(d *appsv1.Deployment, pods []corev1.Pod) bool {
	passed := slices.IndexFunc(d.Status.Conditions, func(c appsv1.DeploymentCondition) bool { return c.Type == appsv1.DeploymentProgressing })
	return anyNew(d, pods, func(pod *corev1.Pod) bool {
		return slices.ContainsFunc(pod.Status.InitContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.Name == probe.InitContainerName && (!c.Ready || (c.State.Terminated != nil && passed >= 0 &&
				d.Status.Conditions[passed].LastTransitionTime.Before(&c.State.Terminated.FinishedAt)))
		})
	})
}

// anyNew tells whether something holds of a pod with the values of the present template.
func anyNew(d *appsv1.Deployment, pods []corev1.Pod, holds func(*corev1.Pod) bool) bool {
	for i := range pods {
		if pods[i].DeletionTimestamp == nil && pods[i].Labels[plan.LabelSnapshot] == d.Spec.Template.Labels[plan.LabelSnapshot] && holds(&pods[i]) {
			return true
		}
	}
	return false
}
