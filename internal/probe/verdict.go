package probe

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Evidence is all that a verdict depends on.
type Evidence struct {
	// Image says whether the operator knows the image of the probes; without it no server has one.
	Image bool
	// Canary are the addresses of the canary's Service; none where there is no canary.
	Canary []netip.Addr
	// Nodes on which the server may run, or runs.
	Nodes []Node
	// Probers are the pods of the operator's own namespace that probe.
	Probers []corev1.Pod
	// Pods of the server.
	Pods []corev1.Pod
	// EachPod says that every pod must have proven its own isolation, as it does where proof is required.
	EachPod bool
}

// Node is a node as a verdict sees it.
type Node struct {
	Name string
	// Ready as the control plane has it: False or Unknown once the kubelet stopped to report, after which what
	// the node's pods say is old.
	Ready bool
}

// Verdict over the isolation of one server.
type Verdict struct {
	Result Result
	// NodesProven of NodesTotal.
	NodesProven, NodesTotal int
	// Message says what is wrong, where, and how to fix it.
	Message string
}

// Remedies, one per kind of trouble.
const (
	remedyCNI     = "Install a CNI that enforces NetworkPolicies, such as Cilium or Calico, or turn its enforcement on."
	remedyRestart = "Replace the pod (kubectl rollout restart) once the nodes are proven."
	remedyCanary  = "See the operator's pods: kubectl get pods --all-namespaces -l " + LabelComponent
)

// Evaluate gives the verdict. What was reached and must not be counts from wherever it comes; a
// proof needs every node, and nothing that is missing or old ever makes one.
func Evaluate(e Evidence) Verdict {
	out := Verdict{Result: Unknown, NodesTotal: len(e.Nodes)}
	switch {
	case !e.Image:
		out.Message = "Nothing is probed: the operator was started without --component-image."
		return out
	case len(e.Canary) == 0:
		out.Message = fmt.Sprintf("Nothing is probed: there is no Service %s with an address in the operator's namespace; install config/probe.", CanaryName)
		return out
	}
	var trouble tally
	probers := byNode(e.Probers)
	for _, node := range e.Nodes {
		result, why := nodeVerdict(node, probers[node.Name], e.Canary)
		if result == Proven {
			out.NodesProven++
		}
		trouble.add(result, "Node "+node.Name+": "+why)
	}
	for i := range e.Pods {
		result, why := podVerdict(&e.Pods[i], e)
		trouble.add(result, "Pod "+e.Pods[i].Name+": "+why)
	}
	out.Result, out.Message = trouble.verdict(out)
	return out
}

// tally keeps the first trouble of each kind, by name, so that the same evidence gives the same message.
type tally struct {
	reached, unclear []string
}

func (t *tally) add(result Result, why string) {
	switch result {
	case NotEnforced:
		t.reached = append(t.reached, why)
	case Unknown:
		t.unclear = append(t.unclear, why)
	}
}

func (t *tally) verdict(v Verdict) (Result, string) {
	switch {
	case len(t.reached) > 0:
		return NotEnforced, first(t.reached)
	case v.NodesTotal == 0:
		return Unknown, "There is no node on which the server may run."
	case len(t.unclear) > 0:
		return Unknown, fmt.Sprintf("Isolation is proven on %d of %d nodes. %s", v.NodesProven, v.NodesTotal, first(t.unclear))
	}
	return Proven, fmt.Sprintf("Isolation is proven on %d of %d nodes on which the server may run.", v.NodesProven, v.NodesTotal)
}

func first(troubles []string) string {
	slices.Sort(troubles)
	if more := len(troubles) - 1; more > 0 {
		return fmt.Sprintf("%s (and %d more)", troubles[0], more)
	}
	return troubles[0]
}

func byNode(pods []corev1.Pod) map[string][]*corev1.Pod {
	out := make(map[string][]*corev1.Pod, len(pods)/2)
	for i := range pods {
		out[pods[i].Spec.NodeName] = append(out[pods[i].Spec.NodeName], &pods[i])
	}
	return out
}

// nodeVerdict weighs the three controls of one node.
func nodeVerdict(node Node, probers []*corev1.Pod, canary []netip.Addr) (Result, string) {
	if !node.Ready {
		return Unknown, "it is not Ready, so that what its pods say may be old. See what its kubelet lacks."
	}
	proven := map[string]bool{}
	unclear := ""
	for _, pod := range probers {
		role := pod.Labels[LabelComponent]
		status := containerOf(pod.Status.ContainerStatuses, ProberContainerName)
		if !isProber(pod) || status == nil {
			continue
		}
		if said, reached := reachedBy(status); reached && role == ComponentRestricted {
			return NotEnforced, fmt.Sprintf("pod %s reached what its NetworkPolicy does not open: %s. %s", pod.Name, said, remedyCNI)
		}
		switch {
		case !isReady(pod, status):
		case !covers(canary, pod.Status.PodIPs):
			unclear = "its pods have addresses of a family that the canary has not, over which nothing is proven. Give Service " + CanaryName + " both families (ipFamilyPolicy: PreferDualStack)."
		default:
			proven[role] = true
		}
	}
	switch {
	case proven[ComponentRestricted] && proven[ComponentUnrestricted]:
		return Proven, ""
	case unclear != "":
		return Unknown, unclear
	case proven[ComponentRestricted]:
		return Unknown, "no pod that nothing restricts reaches the canary, so that it shows nothing that a restricted one does not either. " + remedyCanary
	case proven[ComponentUnrestricted]:
		return Unknown, "the restricted prober does not run, or does not reach what its NetworkPolicy opens. " + remedyCanary
	}
	return Unknown, "no prober reaches the canary, or none runs there. " + remedyCanary
}

// isProber tells the pods of our DaemonSets, which bear the names of their components, from others that
// carry the label, and from one that has ended or is about to.
func isProber(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOfNoCopy(pod)
	return pod.DeletionTimestamp == nil && !pod.Spec.HostNetwork && !ended(pod) &&
		owner != nil && owner.Kind == "DaemonSet" && owner.Name == "mcp-warden-"+pod.Labels[LabelComponent]
}

// ended tells a pod that will never run again, whatever it says of itself.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

// isReady needs the word of the kubelet and that of the control plane, which takes it back when the
// node stops to report.
func isReady(pod *corev1.Pod, status *corev1.ContainerStatus) bool {
	if !status.Ready || status.State.Running == nil || pod.Status.Phase != corev1.PodRunning {
		return false
	}
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// reachedBy tells a prober that ended because it reached what it must not, and has not found
// otherwise since: a container that has started has made its first round.
func reachedBy(status *corev1.ContainerStatus) (said string, reached bool) {
	if status.Started != nil && *status.Started && status.State.Running != nil {
		return "", false
	}
	for _, t := range []*corev1.ContainerStateTerminated{status.State.Terminated, status.LastTerminationState.Terminated} {
		if t != nil {
			return t.Message, t.ExitCode == ExitReached
		}
	}
	return "", false
}

// covers tells whether the canary has an address of every family that a pod has.
func covers(canary []netip.Addr, ips []corev1.PodIP) bool {
	for _, ip := range ips {
		address, err := netip.ParseAddr(ip.IP)
		if err != nil || !slices.ContainsFunc(canary, func(c netip.Addr) bool { return c.Is4() == address.Unmap().Is4() }) {
			return false
		}
	}
	return len(ips) > 0
}

// podVerdict is what a pod of the server says of itself. It counts against the server; for it only where
// each pod must have proven its isolation.
func podVerdict(pod *corev1.Pod, e Evidence) (Result, string) {
	if ended(pod) {
		return Proven, ""
	}
	finding, found := findingOf(pod)
	switch {
	case found && finding.Result == NotEnforced:
		return NotEnforced, fmt.Sprintf("it reached what its NetworkPolicies do not open when it started: %s. %s %s", finding.Detail, remedyCNI, remedyRestart)
	case !e.EachPod || !hasStarted(pod):
		return Proven, ""
	case !found || finding.Result != Proven:
		return Unknown, "it runs without having proven its own isolation. " + remedyRestart
	case finding.Addresses != FormatAddresses(e.Canary):
		return Unknown, "it probed another address than the canary's. " + remedyRestart
	}
	return Proven, ""
}

// findingOf is the newest finding of a pod's init container.
func findingOf(pod *corev1.Pod) (Finding, bool) {
	status := containerOf(pod.Status.InitContainerStatuses, InitContainerName)
	if status == nil {
		return Finding{}, false
	}
	t := cmp.Or(status.State.Terminated, status.LastTerminationState.Terminated)
	if t == nil {
		return Finding{}, false
	}
	finding, err := ParseFinding(t.Message)
	return finding, err == nil
}

// hasStarted tells whether any container of a pod beside its init containers runs or ran.
func hasStarted(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil
	})
}

func containerOf(statuses []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}
