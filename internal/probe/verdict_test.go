package probe

import (
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// prober is a pod of a DaemonSet, as one that finds all as it must be.
func prober(node, component string, change ...func(*corev1.Pod)) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: component + "-" + node, Labels: map[string]string{LabelComponent: component},
		OwnerReferences: []metav1.OwnerReference{{Kind: "DaemonSet", Name: "mcp-warden-" + component, Controller: new(true)}},
	}}
	pod.Spec.NodeName = node
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: ProberContainerName, Ready: true, Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
	}
	for _, c := range change {
		c(&pod)
	}
	return pod
}

func container(change func(*corev1.ContainerStatus)) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { change(&pod.Status.ContainerStatuses[0]) }
}

// notReady is a prober that runs and does not find what it should.
var notReady = container(func(c *corev1.ContainerStatus) { c.Ready = false })

var leaked = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: ExitReached, Message: "10.96.0.9:29002 reached"}}

// backingOff is a prober that reached what it must not and waits to be started again.
var backingOff = container(func(c *corev1.ContainerStatus) {
	c.Ready, c.Started = false, new(false)
	c.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	c.LastTerminationState = leaked
})

// serverPod is a pod of the server with a finding of its init container; none where the message is empty.
func serverPod(message string) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-1"}}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "server", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	if message != "" {
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
			Name: InitContainerName, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: message}}}}
	}
	return pod
}

const (
	provenHere    = `{"result":"Proven","addresses":"10.96.0.9","detail":""}`
	provenThere   = `{"result":"Proven","addresses":"10.1.1.1","detail":""}`
	notProvenHere = `{"result":"Unknown","addresses":"10.96.0.9","detail":"10.96.0.9:29001 not reached"}`
	reachedHere   = `{"result":"NotEnforced","addresses":"10.96.0.9","detail":"10.96.0.9:29002 reached"}`
)

// sound is evidence of two nodes that makes a proof.
func sound(change func(*Evidence)) Evidence {
	e := Evidence{
		Image: true, Canary: []netip.Addr{netip.MustParseAddr("10.96.0.9")}, Nodes: []Node{{"a", true}, {"b", true}},
		Probers: []corev1.Pod{
			prober("a", ComponentRestricted), prober("a", ComponentUnrestricted),
			prober("b", ComponentRestricted), prober("b", ComponentUnrestricted),
		},
		Pods: []corev1.Pod{serverPod(provenHere)},
	}
	if change != nil {
		change(&e)
	}
	return e
}

// with changes the restricted prober of node a.
func with(change ...func(*corev1.Pod)) func(*Evidence) {
	return func(e *Evidence) { e.Probers[0] = prober("a", ComponentRestricted, change...) }
}

func TestSoundEvidenceIsAProof(t *testing.T) {
	for name, change := range map[string]func(*Evidence){
		"all is well":                                   nil,
		"each pod has proven it":                        func(e *Evidence) { e.EachPod = true },
		"no pod yet":                                    func(e *Evidence) { e.EachPod, e.Pods = true, nil },
		"a pod that is being probed":                    func(e *Evidence) { e.EachPod, e.Pods = true, []corev1.Pod{{}} },
		"a pod that ended was never isolated":           func(e *Evidence) { e.Pods[0] = serverPod(reachedHere); e.Pods[0].Status.Phase = corev1.PodFailed },
		"reported only, a pod started without a canary": func(e *Evidence) { e.Pods[0] = serverPod(notProvenHere) },
		"reached once, and closed again since":          with(container(func(c *corev1.ContainerStatus) { c.LastTerminationState = leaked })),
		"a prober that is replaced": func(e *Evidence) {
			e.Probers = append(e.Probers, prober("a", ComponentRestricted, notReady))
		},
		"dual-stack": func(e *Evidence) {
			e.Canary = append(e.Canary, netip.MustParseAddr("fd00::9"))
			for i := range e.Probers {
				e.Probers[i].Status.PodIPs = append(e.Probers[i].Status.PodIPs, corev1.PodIP{IP: "fd00::7"})
			}
		},
		"a node that is not for the server": func(e *Evidence) {
			e.Probers = append(e.Probers, prober("c", ComponentRestricted, backingOff))
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Evaluate(sound(change))
			if got.Result != Proven || got.NodesProven != 2 || got.NodesTotal != 2 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// What is missing, old or forged makes no proof.
func TestWhatIsNotAProof(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Evidence)
		says   string
	}{
		"no image of the probes": {func(e *Evidence) { e.Image = false }, "--component-image"},
		"no canary":              {func(e *Evidence) { e.Canary = nil }, "config/probe"},
		"no node":                {func(e *Evidence) { e.Nodes = nil }, "no node"},
		"the kubelet is silent":  {func(e *Evidence) { e.Nodes[0].Ready = false }, "Node a: it is not Ready"},
		"the control plane took a silent node's word back": {
			with(func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }), "Node a: the restricted prober"},
		"a new node":                              {func(e *Evidence) { e.Nodes = append(e.Nodes, Node{"c", true}) }, "Node c: no prober"},
		"no restricted prober on a node":          {func(e *Evidence) { e.Probers = e.Probers[1:] }, "Node a: the restricted prober"},
		"no unrestricted prober on a node":        {func(e *Evidence) { e.Probers = append(e.Probers[:1:1], e.Probers[2:]...) }, "Node a: no pod that nothing restricts"},
		"no probers at all":                       {func(e *Evidence) { e.Probers = nil }, "Node a: no prober reaches the canary, or none runs there. "},
		"the restricted prober is somewhere else": {with(func(p *corev1.Pod) { p.Spec.NodeName = "z" }), "Node a"},
		"the restricted prober is not scheduled":  {with(func(p *corev1.Pod) { p.Spec.NodeName = "" }), "Node a"},
		"the canary is dead": {func(e *Evidence) {
			for i := range e.Probers {
				notReady(&e.Probers[i])
			}
		}, "Node a: no prober reaches the canary, or none runs there. See the operator's pods: kubectl get pods --all-namespaces -l mcpwarden.io/component (and 1 more)"},
		"somebody blocks the canary for all":  {func(e *Evidence) { notReady(&e.Probers[1]); notReady(&e.Probers[3]) }, "no pod that nothing restricts"},
		"the restricted prober finds nothing": {with(notReady), "Node a: the restricted prober"},
		"its image is missing": {with(container(func(c *corev1.ContainerStatus) {
			c.Ready, c.Started, c.State = false, new(false), corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}
		})), "Node a: the restricted prober"},
		"it ended for another reason": {with(container(func(c *corev1.ContainerStatus) {
			c.Ready, c.Started, c.State = false, new(false), corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137}}
		})), "Node a: the restricted prober"},
		"it reached what it must not long ago, and finds nothing now": {with(notReady, container(func(c *corev1.ContainerStatus) {
			c.LastTerminationState = leaked
		})), "Node a: the restricted prober"},
		"it says that it is ready and does not run": {with(container(func(c *corev1.ContainerStatus) { c.State = corev1.ContainerState{} })), "Node a"},
		"it is about to end":                        {with(func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }), "Node a"},
		"it was evicted":                            {with(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), "Node a"},
		"it is on the host's network":               {with(func(p *corev1.Pod) { p.Spec.HostNetwork = true }), "Node a"},
		"somebody's pod with the label":             {with(func(p *corev1.Pod) { p.OwnerReferences = nil }), "Node a"},
		"somebody's DaemonSet with the label":       {with(func(p *corev1.Pod) { p.OwnerReferences[0].Name = "mine" }), "Node a"},
		"the unrestricted prober with the label of the other": {with(func(p *corev1.Pod) {
			p.OwnerReferences[0].Name = "mcp-warden-" + ComponentUnrestricted
		}), "Node a"},
		"pods have IPv6 and the canary has not": {with(func(p *corev1.Pod) {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::7"})
		}), "PreferDualStack"},
		"a pod without an address": {with(func(p *corev1.Pod) { p.Status.PodIPs = nil }), "Node a"},
		"required, and a pod says nothing": {func(e *Evidence) {
			e.EachPod, e.Pods[0] = true, serverPod("")
		}, "Pod web-1: it runs without having proven"},
		"required, and a pod says what no probe says": {func(e *Evidence) {
			e.EachPod, e.Pods[0] = true, serverPod("Proven")
		}, "Pod web-1: it runs without having proven"},
		"required, and a pod could not tell": {func(e *Evidence) {
			e.EachPod, e.Pods[0] = true, serverPod(notProvenHere)
		}, "Pod web-1: it runs without having proven"},
		"required, and somebody sent the probe elsewhere": {func(e *Evidence) {
			e.EachPod, e.Pods[0] = true, serverPod(provenThere)
		}, "Pod web-1: it probed another address"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Evaluate(sound(tc.change))
			if got.Result != Unknown || !strings.Contains(got.Message, tc.says) {
				t.Errorf("%+v, want Unknown and %q", got, tc.says)
			}
		})
	}
}

// Whoever reached what must be closed counts, whatever the others say.
func TestNotEnforced(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Evidence)
		says   string
	}{
		"a prober backs off": {with(backingOff), "Node a: pod restricted-prober-a reached"},
		"a prober has just ended": {with(container(func(c *corev1.ContainerStatus) {
			c.Ready, c.Started, c.State = false, new(false), leaked
		})), "10.96.0.9:29002 reached"},
		"a prober looks again": {with(container(func(c *corev1.ContainerStatus) {
			c.Ready, c.Started, c.LastTerminationState = false, new(false), leaked
		})), "Node a"},
		"on every node":                {func(e *Evidence) { backingOff(&e.Probers[0]); backingOff(&e.Probers[2]) }, "Node a: pod restricted-prober-a reached"},
		"and the canary is dead since": {func(e *Evidence) { backingOff(&e.Probers[0]); notReady(&e.Probers[1]) }, "Node a"},
		"and another node is silent":   {func(e *Evidence) { backingOff(&e.Probers[0]); e.Nodes[1].Ready = false }, "Node a"},
		"a pod of the server":          {func(e *Evidence) { e.Pods = append(e.Pods, serverPod(reachedHere)) }, "Pod web-1: it reached"},
		"a pod that is held back": {func(e *Evidence) {
			pod := serverPod("")
			pod.Status.ContainerStatuses = nil
			pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: InitContainerName, LastTerminationState: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Message: reachedHere}}}}
			e.EachPod, e.Pods = true, []corev1.Pod{pod}
		}, "Pod web-1: it reached"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Evaluate(sound(tc.change))
			if got.Result != NotEnforced || !strings.Contains(got.Message, tc.says) {
				t.Errorf("%+v, want NotEnforced and %q", got, tc.says)
			}
		})
	}
	silent := sound(func(e *Evidence) { backingOff(&e.Probers[0]); e.Nodes[0].Ready = false })
	if got := Evaluate(silent); got.Result != Unknown {
		t.Errorf("what a silent node said is told as %s", got.Result)
	}
}

// The same evidence in another order gives the same message: each other one is a write of the status.
func TestMessageDoesNotDependOnTheOrder(t *testing.T) {
	e := sound(func(e *Evidence) { notReady(&e.Probers[0]); notReady(&e.Probers[3]) })
	want := Evaluate(e)
	e.Nodes[0], e.Nodes[1] = e.Nodes[1], e.Nodes[0]
	e.Probers[0], e.Probers[3] = e.Probers[3], e.Probers[0]
	if got := Evaluate(e); got != want {
		t.Errorf("%+v, then %+v", want, got)
	}
}
