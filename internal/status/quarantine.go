package status

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// maxQuarantined bounds the pods that are told of: as many as a server may have.
const maxQuarantined = 100

// setQuarantine keeps the evidence of a quarantine. What was seen once stays, until the server is released.
func setQuarantine(out *v1alpha1.MCPServerStatus, in Input) {
	if in.Server.Spec.DesiredState != v1alpha1.StateQuarantined {
		out.Quarantine = nil
		return
	}
	if in.Plan == nil || in.Problem != nil && out.Quarantine == nil {
		return // it is not cut off yet
	}
	if out.Quarantine == nil {
		out.Quarantine = &v1alpha1.QuarantineStatus{Since: metav1.NewTime(in.Now)}
	}
	for i := range in.Pods {
		known := slices.ContainsFunc(out.Quarantine.Pods, func(p v1alpha1.QuarantinedPod) bool { return p.Name == in.Pods[i].Name })
		if !known && len(out.Quarantine.Pods) < maxQuarantined {
			out.Quarantine.Pods = append(out.Quarantine.Pods, evidenceOf(&in.Pods[i]))
		}
	}
	slices.SortFunc(out.Quarantine.Pods, func(a, b v1alpha1.QuarantinedPod) int { return strings.Compare(a.Name, b.Name) })
}

func evidenceOf(pod *corev1.Pod) v1alpha1.QuarantinedPod {
	out := v1alpha1.QuarantinedPod{Name: pod.Name, UID: string(pod.UID), Node: pod.Spec.NodeName}
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == plan.ContainerName {
			out.ImageID, out.ContainerID, out.Restarts = c.ImageID, c.ContainerID, c.RestartCount
		}
	}
	return out
}
