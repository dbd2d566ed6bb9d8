package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// troubleOf says what keeps pods from being ready, as a sentence to append; "" where nothing is
// known. What is known to change while the cause stays, as back-off times and numbers of nodes, is
// taken out of it, because each other message is another write of the status.
func troubleOf(d *appsv1.Deployment, pods []corev1.Pod, now time.Time) string {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return " Pods cannot be created: " + c.Message
		}
	}
	// A pod that failed may have been replaced long ago: it is the answer only where no other pod has one.
	sorted := slices.SortedFunc(slices.Values(pods), func(a, b corev1.Pod) int {
		return cmp.Or(cmp.Compare(order(&a), order(&b)), cmp.Compare(a.Name, b.Name))
	})
	enough := d.Status.AvailableReplicas >= deref(d.Spec.Replicas)
	for i := range sorted {
		if enough && ended(&sorted[i]) {
			continue
		}
		if why := troubleOfPod(&sorted[i], now); why != "" {
			return fmt.Sprintf(" Pod %s: %s", sorted[i].Name, why)
		}
	}
	return ""
}

// ended tells whether a pod will never run again. Nothing deletes an evicted pod until the pod
// garbage collector does: the ReplicaSet makes another in its place and scaling down leaves it alone.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// alive are the pods that run, will run or are about to end.
func alive(pods []corev1.Pod) []corev1.Pod {
	var out []corev1.Pod
	for i := range pods {
		if !ended(&pods[i]) {
			out = append(out, pods[i])
		}
	}
	return out
}

// order puts pods that ended last.
func order(pod *corev1.Pod) int {
	if ended(pod) {
		return 1
	}
	return 0
}

func troubleOfPod(pod *corev1.Pod, now time.Time) string {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded {
		return ""
	}
	if pod.Status.Phase == corev1.PodFailed {
		return fmt.Sprintf("failed: %s %s", pod.Status.Reason, pod.Status.Message)
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "cannot be scheduled: " + scheduling(c.Message)
		}
	}
	if why := troubleOfProbe(pod); why != "" {
		return why
	}
	if why := troubleOfGateway(pod); why != "" {
		return why
	}
	for i := range pod.Status.ContainerStatuses {
		if why := troubleOfContainer(&pod.Status.ContainerStatuses[i]); why != "" {
			return why
		}
	}
	if front, since := unanswered(pod); front != "" && now.Sub(since) >= handshakePatience {
		return "the server does not answer the handshake of MCP; see the log of container " + front + ", and whether spec.transport is right"
	}
	return ""
}

// troubleOfGateway says what keeps the gateway from running before the server.
func troubleOfGateway(pod *corev1.Pod) string {
	for i := range pod.Status.InitContainerStatuses {
		c := &pod.Status.InitContainerStatuses[i]
		if (c.Name == plan.GatewayContainerName || c.Name == plan.GatewayCopyContainerName) && c.State.Running == nil {
			if why := troubleOfContainer(c); why != "" {
				return "container " + c.Name + ": " + why
			}
		}
	}
	return ""
}

// handshakePatience is how long a server may take to answer the gateway before that is worth telling.
const handshakePatience = 15 * time.Second

// unanswered is the container of a gateway that runs, and since when, and that says that the server behind it does not answer.
func unanswered(pod *corev1.Pod) (name string, since time.Time) {
	if pod.DeletionTimestamp != nil || !plan.HasGateway(&pod.Spec) {
		return "", time.Time{}
	}
	all := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	for _, front := range []string{plan.GatewayContainerName, plan.ContainerName} { // the latter where it is the gateway's
		if i := slices.IndexFunc(all, func(c corev1.ContainerStatus) bool { return c.Name == front }); i >= 0 {
			if c := &all[i]; !c.Ready && c.State.Running != nil {
				return front, c.State.Running.StartedAt.Time
			}
			return "", time.Time{}
		}
	}
	return "", time.Time{}
}

// untilUnanswered is after how long to tell that a server does not answer; zero where none of them is to be told of then.
func untilUnanswered(pods []corev1.Pod, now time.Time) time.Duration {
	for i := range pods {
		if front, since := unanswered(&pods[i]); front != "" && now.Sub(since) < handshakePatience {
			return handshakePatience - now.Sub(since)
		}
	}
	return 0
}

// troubleOfProbe says what keeps the init container from letting the server start.
func troubleOfProbe(pod *corev1.Pod) string {
	for i := range pod.Status.InitContainerStatuses {
		c := &pod.Status.InitContainerStatuses[i]
		t := cmp.Or(c.State.Terminated, c.LastTerminationState.Terminated)
		switch {
		case c.Name != probe.InitContainerName || c.Ready:
		case t != nil:
			if finding, err := probe.ParseFinding(t.Message); err == nil {
				return "held back by its init container " + probe.InitContainerName + ": " + finding.Detail
			}
			return fmt.Sprintf("its init container %s ended with code %d (%s); see its log", probe.InitContainerName, t.ExitCode, t.Reason)
		case c.State.Waiting != nil:
			return troubleOfContainer(c)
		}
	}
	return ""
}

// scheduling removes from the scheduler's message how many nodes there are and how many each reason
// keeps out, after which it sorts the reasons, and what it says of preemption, which repeats them:
// "0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods. preemption: 0/3 nodes are ...".
func scheduling(message string) string {
	_, reasons, found := strings.Cut(message, " nodes are available")
	if !found {
		return message
	}
	if i := strings.Index(reasons, "preemption: "); i >= 0 {
		reasons, _, _ = strings.Cut(reasons[:i], ". ")
	}
	list := strings.Split(strings.TrimRight(strings.TrimPrefix(reasons, ": "), ". "), ", ")
	for i, reason := range list {
		if strings.HasPrefix(strings.TrimLeft(reason, "0123456789"), " ") {
			_, list[i], _ = strings.Cut(reason, " ")
		}
	}
	slices.Sort(list)
	return strings.TrimSuffix("no node is available: "+strings.Join(slices.Compact(list), ", "), ": ")
}

func troubleOfContainer(c *corev1.ContainerStatus) string {
	if c.Ready {
		return ""
	}
	if w := c.State.Waiting; w != nil {
		switch w.Reason {
		case "ErrImagePull", "ImagePullBackOff":
			return "the image cannot be pulled: " + pullError(w.Message)
		case "CreateContainerConfigError", "CreateContainerError", "InvalidImageName", "RunContainerError":
			return w.Reason + ": " + w.Message
		}
	}
	for _, t := range []*corev1.ContainerStateTerminated{c.State.Terminated, c.LastTerminationState.Terminated} {
		if t != nil {
			return fmt.Sprintf("the server exited with code %d (%s); see its log", t.ExitCode, t.Reason)
		}
	}
	return ""
}

// pullError removes what changes between two attempts from the kubelet's message.
func pullError(message string) string {
	if _, rest, found := strings.Cut(message, "\": "); found && strings.HasPrefix(message, "Back-off pulling image") {
		message = rest
	}
	return strings.TrimPrefix(message, "ErrImagePull: ")
}

// imageOf says what the pods run, from the pods themselves.
func imageOf(d *appsv1.Deployment, pods []corev1.Pod) *v1alpha1.ImageStatus {
	out := &v1alpha1.ImageStatus{}
	for _, c := range d.Spec.Template.Spec.Containers {
		if c.Name == plan.ContainerName {
			out.Reference = c.Image
		}
	}
	digests := map[string]bool{}
	for i := range pods {
		for _, c := range pods[i].Status.ContainerStatuses {
			if _, digest, found := strings.Cut(c.ImageID, "@"); c.Name == plan.ContainerName && found {
				digests[digest] = true
				out.Digest = digest
			}
		}
	}
	if len(digests) > 1 {
		out.Digest = ""
	}
	return out
}
