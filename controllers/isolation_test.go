package controllers_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// newCanary makes the canary's Service, and returns its address.
func newCanary(t *testing.T) string {
	t.Helper()
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: probe.CanaryName},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: probe.AllowedPort}}},
	}
	create(t, service)
	removeLater(t, service)
	return service.Spec.ClusterIP
}

// readyNode makes a node whose kubelet reports until it is silenced.
func readyNode(t *testing.T, name string) (silence func()) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	create(t, node)
	removeLater(t, node)
	report := func() {
		beat := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().Format(time.RFC3339))
		_ = admin.Status().Patch(context.Background(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.RawPatch(types.StrategicMergePatchType, []byte(beat)))
	}
	report()
	edit(t, node, func(n *corev1.Node) { n.Spec.Taints = nil }) // a new node has one until it is ready
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(5 * time.Second); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				report()
			}
		}
	}()
	silence = func() { cancel(); <-done }
	t.Cleanup(silence)
	return silence
}

// probedNode is the node of the tests' probers.
const probedNode = "probed"

// newProber makes the DaemonSet of a component, plays the scheduler for its pod, and returns that.
func newProber(t *testing.T, namespace, component string) *corev1.Pod {
	t.Helper()
	labels := map[string]string{plan.LabelManagedBy: plan.ManagedBy, probe.LabelComponent: component}
	set := &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "mcp-warden-" + component},
		Spec: appsv1.DaemonSetSpec{
			Selector:       &metav1.LabelSelector{MatchLabels: labels},
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
				Containers:  []corev1.Container{{Name: probe.ProberContainerName, Image: "registry.example/mcp-warden:v1"}},
			}},
		},
	}
	create(t, set)
	pods := &corev1.PodList{}
	eventually(t, func() string {
		if err := admin.List(t.Context(), pods, client.InNamespace(namespace), client.MatchingLabels(labels)); err != nil || len(pods.Items) != 1 {
			return fmt.Sprintf("%d pods of DaemonSet %s: %v", len(pods.Items), set.Name, err)
		}
		return ""
	})
	t.Cleanup(func() { // no kubelet ends the pod
		for _, err := range []error{
			admin.Delete(context.Background(), set, client.PropagationPolicy(metav1.DeletePropagationOrphan)),
			admin.DeleteAllOf(context.Background(), &corev1.Pod{}, client.InNamespace(namespace), client.MatchingLabels(labels), client.GracePeriodSeconds(0)),
		} {
			if client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		}
	})
	pod := &pods.Items[0]
	if err := admin.SubResource("binding").Create(t.Context(), pod, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: probedNode}}); err != nil {
		t.Fatal(err)
	}
	return pod
}

// says plays the kubelet: the prober runs, and is ready or not.
func says(t *testing.T, pod *corev1.Pod, ready bool, change ...func(*corev1.ContainerStatus)) {
	t.Helper()
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	c := corev1.ContainerStatus{Name: probe.ProberContainerName, Ready: ready, Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	for _, f := range change {
		f(&c)
	}
	editStatus(t, pod, func(p *corev1.Pod) {
		p.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.244.0.7"}}, PodIP: "10.244.0.7",
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}, ContainerStatuses: []corev1.ContainerStatus{c},
		}
	})
}

// reachedTooMuch is a prober that ended because it reached what it must not.
func reachedTooMuch(c *corev1.ContainerStatus) {
	c.Started, c.State = new(false), corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: probe.ExitReached, Message: "a closed port reached"}}
}

func waitProof(t *testing.T, server *v1alpha1.MCPServer, proof string) metav1.Condition {
	t.Helper()
	eventually(t, func() string {
		get(t, server)
		if server.Status.Network == nil || string(server.Status.Network.Proof) != proof {
			return fmt.Sprintf("network %+v, want %s: %s", server.Status.Network, proof, condition(server, v1alpha1.ConditionNetworkPolicyEnforced).Message)
		}
		return ""
	})
	return condition(server, v1alpha1.ConditionNetworkPolicyEnforced)
}

// TestProof follows a proof that comes and goes, with a server that requires one and one that does not.
func TestProof(t *testing.T) {
	o := exclusive(t)
	namespace := newNamespace(t)
	reported, guarded := example(namespace, "reported"), example(namespace, "guarded")
	guarded.Spec.Network = &v1alpha1.Network{Enforcement: v1alpha1.EnforcementRequire}
	settled(t, o, reported)
	create(t, guarded)
	c := waitReason(t, guarded, v1alpha1.ConditionReady, v1alpha1.ReasonNotProven)
	if !strings.Contains(c.Message, "config/probe") {
		t.Errorf("without a canary: %s", c.Message)
	}

	address := newCanary(t)
	for _, config := range []*corev1.ConfigMap{canaryOf(namespace), canaryOf(operatorNamespace)} {
		eventually(t, func() string {
			if !exists(t, config) || config.Data[probe.AddressesKey] != address {
				return fmt.Sprintf("ConfigMap of namespace %s: %v, want %s", config.Namespace, config.Data, address)
			}
			return ""
		})
	}
	removeLater(t, canaryOf(operatorNamespace))
	silence := readyNode(t, probedNode)
	restricted := newProber(t, operatorNamespace, probe.ComponentRestricted)
	unrestricted := newProber(t, operatorNamespace, probe.ComponentUnrestricted)
	says(t, restricted, true)
	forged := newProber(t, namespace, probe.ComponentUnrestricted)
	says(t, forged, true)
	if c := waitProof(t, reported, "Unknown"); c.Status != metav1.ConditionUnknown || c.Reason != v1alpha1.ReasonNotProven {
		t.Errorf("without an unrestricted prober: %+v", c)
	}
	if exists(t, &appsv1.Deployment{ObjectMeta: named(guarded)}) {
		t.Error("a server that requires a proof was started without one")
	}

	says(t, unrestricted, true)
	for _, server := range []*v1alpha1.MCPServer{reported, guarded} {
		if c := waitProof(t, server, "Proven"); c.Status != metav1.ConditionTrue || server.Status.Network.NodesProven != 1 || server.Status.Network.NodesTotal != 1 {
			t.Errorf("proven: %+v, %+v", c, server.Status.Network)
		}
	}
	deployment := &appsv1.Deployment{ObjectMeta: named(guarded)}
	eventually(t, func() string {
		if !exists(t, deployment) {
			return "the Deployment is still held"
		}
		return ""
	})
	o.calm(t, namespace)

	says(t, restricted, false, reachedTooMuch)
	for _, server := range []*v1alpha1.MCPServer{reported, guarded} {
		if c := waitProof(t, server, "NotEnforced"); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "Node probed") || !strings.Contains(c.Message, "a closed port reached") {
			t.Errorf("not enforced: %+v", c)
		}
	}
	if !exists(t, deployment) {
		t.Error("a server that runs was taken down")
	}
	says(t, restricted, true)
	waitProof(t, reported, "Proven")
	silence()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: probedNode}}
	editStatus(t, node, func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	waitProof(t, reported, "Unknown") // the node is not Ready, or by now tainted for it
	for _, reason := range []string{v1alpha1.ReasonProven, v1alpha1.ReasonNotEnforced, v1alpha1.ReasonNotProven} {
		eventually(t, func() string { // an Event is written after the status that it tells of
			if len(eventsOf(t, reported, reason)) == 0 {
				return "no event " + reason
			}
			return ""
		})
	}
}

// TestProbersAreToldOfTheCanary has the kubelet of a prober that waits look at once, as it looks by itself after a minute or so.
func TestProbersAreToldOfTheCanary(t *testing.T) {
	o := exclusive(t)
	address := newCanary(t)
	readyNode(t, probedNode)
	waiting, proven := newProber(t, operatorNamespace, probe.ComponentRestricted), newProber(t, operatorNamespace, probe.ComponentUnrestricted)
	says(t, proven, true)
	says(t, waiting, false)
	eventually(t, func() string {
		get(t, waiting)
		return differs(waiting.Annotations["mcpwarden.io/nudged"], "["+address+"]") // told twice, and for good
	})
	o.calm(t, operatorNamespace)
	before := len(o.writes(operatorNamespace))
	editStatus(t, waiting, func(p *corev1.Pod) { p.Status.Message = "still waiting" })
	o.calm(t, operatorNamespace)
	if writes := o.writes(operatorNamespace)[before:]; len(writes) > 0 {
		t.Errorf("told again: %v", writes)
	}
	get(t, proven)
	if value := proven.Annotations["mcpwarden.io/nudged"]; value != "" {
		t.Errorf("a prober that has proven all is told too: %s", value)
	}
	removeLater(t, canaryOf(operatorNamespace))
}

// TestProofAtRest writes nothing for probes that find what those before them found.
func TestProofAtRest(t *testing.T) {
	o := exclusive(t)
	namespace := newNamespace(t)
	newCanary(t)
	readyNode(t, probedNode)
	restricted, unrestricted := newProber(t, operatorNamespace, probe.ComponentRestricted), newProber(t, operatorNamespace, probe.ComponentUnrestricted)
	says(t, restricted, true)
	says(t, unrestricted, true)
	server := example(namespace, "web")
	settled(t, o, server)
	waitProof(t, server, "Proven")
	o.calm(t, namespace)
	before := len(o.writes(namespace))
	editStatus(t, restricted, func(p *corev1.Pod) { p.Status.Message = "nothing of note" })
	edit(t, unrestricted, func(p *corev1.Pod) { p.Labels["note"] = "none" })
	says(t, restricted, true)
	o.calm(t, namespace)
	if after := len(o.writes(namespace)); after != before {
		t.Errorf("%d writes: %v", after-before, o.writes(namespace)[before:])
	}
}

// TestWhereTheCanaryIsIsKept edits and removes the ConfigMap that sends the probes to the canary.
func TestWhereTheCanaryIsIsKept(t *testing.T) {
	o := exclusive(t)
	namespace := newNamespace(t)
	address := newCanary(t)
	settled(t, o, example(namespace, "web"))
	for _, config := range []*corev1.ConfigMap{canaryOf(namespace), canaryOf(operatorNamespace)} {
		kept := func() string {
			if !exists(t, config) || config.Data[probe.AddressesKey] != address || len(config.Data) != 1 {
				return fmt.Sprintf("ConfigMap of namespace %s: %v, want %s", config.Namespace, config.Data, address)
			}
			return ""
		}
		eventually(t, kept)
		edit(t, config, func(c *corev1.ConfigMap) { c.Data[probe.AddressesKey] = "10.1.1.1" })
		eventually(t, kept)
		edit(t, config, func(c *corev1.ConfigMap) { c.Data["more"] = "of it" })
		eventually(t, kept)
		edit(t, config, func(c *corev1.ConfigMap) { c.Data[probe.AddressesKey], c.Immutable = "10.1.1.1", new(true) })
		eventually(t, kept)
		remove(t, config)
		eventually(t, kept)
	}
	web := example(namespace, "web")
	remove(t, web)
	eventually(t, func() string {
		if exists(t, canaryOf(namespace)) {
			return "it outlives the last server of the namespace"
		}
		return ""
	})
	if !exists(t, canaryOf(operatorNamespace)) {
		t.Error("it went in the operator's namespace, where the probers need it")
	}
	remove(t, canaryOf(operatorNamespace))
}
