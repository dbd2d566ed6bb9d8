package status

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

func isolation(result probe.Result, proven, total int) func(*Input) {
	return func(in *Input) {
		in.Isolation = &probe.Verdict{Result: result, NodesProven: proven, NodesTotal: total, Message: "Node a: as it is."}
	}
}

func TestIsolation(t *testing.T) {
	for result, want := range map[probe.Result]string{
		probe.Proven: "True Proven", probe.NotEnforced: "False NotEnforced", probe.Unknown: "Unknown NotProven",
	} {
		got := Compute(input(isolation(result, 2, 3), func(in *Input) { in.Plan.ProbeImage = "image" }))
		c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionNetworkPolicyEnforced)
		if c == nil || string(c.Status)+" "+c.Reason != want || c.Message != "Node a: as it is." || c.ObservedGeneration != 3 {
			t.Errorf("%s: %+v, want %s", result, c, want)
		}
		if n := got.Network; n == nil || *n != (v1alpha1.NetworkStatus{Proof: v1alpha1.NetworkProof(result), NodesProven: 2, NodesTotal: 3, ProbeImage: "image"}) {
			t.Errorf("%s: %+v", result, n)
		}
	}
}

// An error keeps what was known, and what the pods were given: an image that is forgotten would roll them.
func TestIsolationOutlivesErrors(t *testing.T) {
	before := Compute(input(isolation(probe.Proven, 1, 1), func(in *Input) { in.Plan.ProbeImage = "image" }))
	keep := func(in *Input) { in.Server.Status = *before.DeepCopy() }
	if got := Compute(input(keep, problem(v1alpha1.ReasonReconcileError, "timeout", true))); *got.Network != *before.Network {
		t.Errorf("%+v after an error that kept everything from being looked at", got.Network)
	}
	got := Compute(input(keep, isolation(probe.NotEnforced, 0, 1), problem(v1alpha1.ReasonInvalidSpec, "spec.a: is wrong", false)))
	if got.Network.Proof != "NotEnforced" || got.Network.ProbeImage != "image" {
		t.Errorf("%+v of a spec that cannot be met", got.Network)
	}
}

func TestIsolationEvents(t *testing.T) {
	status := func(result probe.Result) v1alpha1.MCPServerStatus { return Compute(input(isolation(result, 1, 1))) }
	never := Compute(input())
	for _, tc := range []struct {
		name     string
		old, now v1alpha1.MCPServerStatus
		want     string
	}{
		{"not proven yet", never, status(probe.Unknown), ""},
		{"proven at first sight", never, status(probe.Proven), "Normal Proven"},
		{"not enforced at first sight", never, status(probe.NotEnforced), "Warning NotEnforced"},
		{"enforcement was turned off", status(probe.Proven), status(probe.NotEnforced), "Warning NotEnforced"},
		{"the proof was lost", status(probe.Proven), status(probe.Unknown), "Warning NotProven"},
		{"nothing turned", status(probe.NotEnforced), status(probe.NotEnforced), ""},
	} {
		var got []string
		for _, e := range Transitions(&tc.old, &tc.now) {
			if e.Action == "Probe" {
				got = append(got, e.Type+" "+e.Reason)
			}
		}
		if strings.Join(got, ",") != tc.want {
			t.Errorf("%s: events %v, want %q", tc.name, got, tc.want)
		}
	}
}

// Ready says what holds a pod back before its server runs.
func TestReadyTellsOfTheProbe(t *testing.T) {
	probeStatus := func(c corev1.ContainerStatus) func(*Input) {
		c.Name = probe.InitContainerName
		return broken(func(p *corev1.Pod) { p.Status.InitContainerStatuses = []corev1.ContainerStatus{c} })
	}
	ended := func(code int32, message string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error", Message: message}}
	}
	for says, change := range map[string]func(*Input){
		"Pod github-b: held back by its init container isolation-probe: 10.96.0.9:29002 reached": probeStatus(corev1.ContainerStatus{
			LastTerminationState: ended(1, `{"result":"NotEnforced","addresses":"","detail":"10.96.0.9:29002 reached"}`)}),
		"Pod github-b: its init container isolation-probe ended with code 137": probeStatus(corev1.ContainerStatus{State: ended(137, "")}),
		"Pod github-b: the image cannot be pulled: gone": probeStatus(corev1.ContainerStatus{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "gone"}}}),
	} {
		got := Compute(input(change))
		if c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReady); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, says) {
			t.Errorf("Ready says %q, want %q", c.Message, says)
		}
	}
}

// Ready says what keeps the gateway from running, and that the server does not answer it, once it has had the time to.
func TestReadyTellsOfTheGateway(t *testing.T) {
	behind := func(sidecar bool, c corev1.ContainerStatus) func(*Input) {
		return broken(func(p *corev1.Pod) {
			if !sidecar {
				p.Spec.Containers = []corev1.Container{{Name: plan.ContainerName, Command: []string{"/mcp-warden/gateway"}}}
				p.Status.ContainerStatuses[0].State = c.State
				return
			}
			p.Spec.InitContainers = []corev1.Container{{Name: plan.GatewayContainerName, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}
			c.Name = plan.GatewayContainerName
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{c}
		})
	}
	runningFor := func(d time.Duration) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now.Add(-d))}}}
	}
	for _, tc := range []struct {
		name, says string
		change     func(*Input)
		recheck    time.Duration
	}{
		{"silent", "does not answer the handshake of MCP; see the log of container gateway", behind(true, runningFor(15*time.Second)), 0},
		{"silent on stdio", "see the log of container server", behind(false, runningFor(time.Hour)), 0},
		{"young", "1 of 2 pods are ready.", behind(true, runningFor(5*time.Second)), 10 * time.Second},
		{"young on stdio", "1 of 2 pods are ready.", behind(false, runningFor(14*time.Second)), time.Second},
		{"no image", "container gateway: the image cannot be pulled: gone", behind(true, corev1.ContainerStatus{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "gone"}}}), 0},
	} {
		in := input(tc.change)
		c := meta.FindStatusCondition(Compute(in).Conditions, v1alpha1.ConditionReady)
		if young := tc.recheck > 0; c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, tc.says) || (young && c.Message != tc.says) {
			t.Errorf("%s: Ready says %q, want %q", tc.name, c.Message, tc.says)
		}
		if got := in.Recheck(); got != tc.recheck {
			t.Errorf("%s: looked at again after %s, want %s", tc.name, got, tc.recheck)
		}
	}
}
