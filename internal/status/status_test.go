package status

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

var (
	earlier = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now     = time.Date(2026, 1, 1, 1, 0, 0, 0, time.UTC)
)

// input is that of a server of two pods that serves.
func input(change ...func(*Input)) Input {
	server := &v1alpha1.MCPServer{TypeMeta: metav1.TypeMeta{APIVersion: "mcpwarden.io/v1alpha1", Kind: "MCPServer"}}
	server.Name, server.Namespace, server.Generation = "github", "agents", 3
	server.Spec.Image = "server:v1"
	server.Spec.Transport = v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))}
	server.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonServing,
		LastTransitionTime: metav1.NewTime(earlier), ObservedGeneration: 2,
	}}
	d := &appsv1.Deployment{}
	d.Generation = 5
	d.Spec.Replicas = new(int32(2))
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: plan.ContainerName, Image: "server:v1"}}
	d.Status = appsv1.DeploymentStatus{ObservedGeneration: 5, Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 2}
	in := Input{
		Server: server, Now: now, Plan: &plan.Plan{Endpoint: "http://github.agents.svc:8080/mcp", GatewayImage: "warden:v1"}, Deployment: d,
		Pods: []corev1.Pod{pod("github-a", "sha256:aa"), pod("github-b", "sha256:aa")},
	}
	for _, c := range change {
		c(&in)
	}
	return in
}

func pod(name, digest string) corev1.Pod {
	p := corev1.Pod{}
	p.Name = name
	p.Status.Phase = corev1.PodRunning
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: plan.ContainerName, Ready: true, ImageID: "registry.example/server@" + digest}}
	return p
}

// withDead adds a pod that was evicted and that nothing deletes until the pod garbage collector does.
// Its name comes before those of the others.
func withDead(in *Input) {
	p := pod("github-0", "sha256:bb")
	p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "The node was low on resource: memory."
	p.Status.ContainerStatuses[0].Ready = false
	in.Pods = append([]corev1.Pod{p}, in.Pods...)
}

func state(s v1alpha1.DesiredState) func(*Input) {
	return func(in *Input) { in.Server.Spec.DesiredState = s }
}

func counts(replicas, updated, available int32) func(*Input) {
	return func(in *Input) {
		s := &in.Deployment.Status
		s.Replicas, s.UpdatedReplicas, s.ReadyReplicas, s.AvailableReplicas = replicas, updated, available, available
	}
}

// broken makes one of the two pods unavailable, with a pod that shows why.
func broken(change func(*corev1.Pod)) func(*Input) {
	return func(in *Input) {
		counts(2, 2, 1)(in)
		in.Pods[1].Status.ContainerStatuses[0].Ready = false
		change(&in.Pods[1])
	}
}

func waiting(reason, message string) func(*Input) {
	return broken(func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: message}
	})
}

func deploymentCondition(kind appsv1.DeploymentConditionType, status corev1.ConditionStatus, reason, message string) func(*Input) {
	return func(in *Input) {
		in.Deployment.Status.Conditions = []appsv1.DeploymentCondition{{Type: kind, Status: status, Reason: reason, Message: message}}
	}
}

func problem(reason, message string, waiting bool) func(*Input) {
	return func(in *Input) {
		in.Plan, in.Problem = nil, &Problem{Reason: reason, Message: message, Waiting: waiting}
	}
}

// seen says that the status that is there is about the present generation.
func seen(in *Input) {
	for i := range in.Server.Status.Conditions {
		in.Server.Status.Conditions[i].ObservedGeneration = in.Server.Generation
	}
}

// pending keeps an egress rule closed.
func pending(in *Input) {
	in.Plan.Pending = field.ErrorList{field.Invalid(field.NewPath("spec", "network", "egress").Index(0), "a", "Service agents/a does not exist: create it")}
}

// none is a server without pods.
func none(in *Input) {
	in.Plan.Endpoint, in.Pods, in.Deployment.Spec.Replicas = "", nil, new(int32(0))
	counts(0, 0, 0)(in)
}

// unseen is a Deployment that was changed and that its controller has yet to see.
func unseen(in *Input) { in.Deployment.Generation++ }

func first(in *Input) { in.Server.Status = v1alpha1.MCPServerStatus{} }

const (
	current    = "Current"
	inProgress = "InProgress"
	failed     = "Failed"
)

var cases = []struct {
	name  string
	input Input
	// ready, reconciling and stalled are "Status Reason".
	ready, reconciling, stalled string
	// says is a part of the message of Ready.
	says string
	// kstatus is what kstatus makes of it; package test/judges asks kstatus itself.
	kstatus string
}{
	{"first pass without a Deployment", input(first, func(in *Input) { in.Deployment, in.Pods = nil, nil }),
		"Unknown Progressing", "True Progressing", "False Reconciled", "has not been acted upon yet", inProgress},
	{"first pass with a Deployment that nobody has seen", input(first, func(in *Input) { in.Deployment.Status = appsv1.DeploymentStatus{}; in.Pods = nil }),
		"Unknown Progressing", "True Progressing", "False Reconciled", "has not been acted upon yet", inProgress},
	{"serving", input(),
		"True Serving", "False Reconciled", "False Reconciled", "2 of 2 pods are ready.", current},
	{"a rollout under way, old pods serving", input(counts(3, 1, 2)),
		"True Serving", "True Progressing", "False Reconciled", "2 of 2 pods are ready", inProgress},
	{"a change that the controller has yet to see", input(func(in *Input) { in.Deployment.Generation = 6 }),
		"True Serving", "True Progressing", "False Reconciled", "2 of 2 pods are ready", inProgress},
	{"no pod yet", input(counts(0, 0, 0), func(in *Input) { in.Pods = nil }),
		"False ReplicasUnavailable", "True Progressing", "False Reconciled", "0 of 2 pods are ready.", inProgress},
	{"image cannot be pulled", input(waiting("ErrImagePull", "registry.example/server:v1: not found")),
		"False ReplicasUnavailable", "True Progressing", "False Reconciled", "Pod github-b: the image cannot be pulled: registry.example/server:v1: not found", inProgress},
	{"image pull backs off", input(waiting("ImagePullBackOff", `Back-off pulling image "server:v1": ErrImagePull: registry.example/server:v1: not found`)),
		"False ReplicasUnavailable", "True Progressing", "False Reconciled", "the image cannot be pulled: registry.example/server:v1: not found", inProgress},
	{"secret is missing", input(waiting("CreateContainerConfigError", `secret "github-token" not found`)),
		"False ReplicasUnavailable", "True Progressing", "False Reconciled", `CreateContainerConfigError: secret "github-token" not found`, inProgress},
	{"server exits", input(broken(func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 40s"}
		p.Status.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}
	})), "False ReplicasUnavailable", "True Progressing", "False Reconciled", "the server exited with code 137 (OOMKilled); see its log", inProgress},
	{"pod cannot be scheduled", input(broken(func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {gpu: true}. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."}}
	})), "False ReplicasUnavailable", "True Progressing", "False Reconciled", "cannot be scheduled: no node is available: Insufficient cpu, node(s) had untolerated taint {gpu: true}", inProgress},
	{"pod failed", input(broken(func(p *corev1.Pod) {
		p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "writable-0 exceeds its limit"
	})), "False ReplicasUnavailable", "True Progressing", "False Reconciled", "failed: Evicted writable-0 exceeds its limit", inProgress},
	{"pod failed, another has a trouble that lasts", input(waiting("ErrImagePull", "not found"), withDead),
		"False ReplicasUnavailable", "True Progressing", "False Reconciled", "ready. Pod github-b: the image cannot be pulled: not found", inProgress},
	{"pod failed and was replaced", input(withDead),
		"True Serving", "False Reconciled", "False Reconciled", "2 of 2 pods are ready.", current},
	{"pods cannot be created", input(counts(0, 0, 0), deploymentCondition(appsv1.DeploymentReplicaFailure, corev1.ConditionTrue, "FailedCreate", "exceeded quota")),
		"False ReplicasUnavailable", "True Progressing", "False Reconciled", "Pods cannot be created: exceeded quota", inProgress},
	{"a pod that ends is no trouble", input(broken(func(p *corev1.Pod) {
		p.DeletionTimestamp = new(metav1.NewTime(now))
		p.Status.ContainerStatuses[0].State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 143}
	})), "False ReplicasUnavailable", "True Progressing", "False Reconciled", "1 of 2 pods are ready.", inProgress},
	{"rollout failed, old pods serving", input(counts(3, 1, 2), deploymentCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", "")),
		"True Serving", "False RolloutFailed", "True RolloutFailed", "2 of 2 pods are ready", failed},
	{"rollout failed, nothing serving", input(counts(1, 1, 0), deploymentCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", "")),
		"False ReplicasUnavailable", "False RolloutFailed", "True RolloutFailed", "0 of 2 pods are ready", failed},
	{"a deadline of the spec before", input(counts(3, 1, 2), func(in *Input) { in.Deployment.Generation = 6 },
		deploymentCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", "")),
		"True Serving", "True Progressing", "False Reconciled", "2 of 2 pods are ready", inProgress},
	{"stopping", input(state(v1alpha1.StateStopped), func(in *Input) { in.Plan.Endpoint = ""; in.Pods = in.Pods[:1] }),
		"False Stopping", "True Stopping", "False Reconciled", "1 pod is still there.", inProgress},
	{"stopped", input(state(v1alpha1.StateStopped), func(in *Input) { in.Plan.Endpoint = ""; in.Pods = nil; in.Deployment.Spec.Replicas = new(int32(0)) }, counts(0, 0, 0)),
		"True Stopped", "False Reconciled", "False Reconciled", "No pod runs, as asked.", current},
	{"stopped, with pods that ended", input(state(v1alpha1.StateStopped), func(in *Input) { in.Plan.Endpoint = ""; in.Pods = nil; in.Deployment.Spec.Replicas = new(int32(0)) }, counts(0, 0, 0), withDead,
		func(in *Input) {
			in.Pods = append(in.Pods, pod("github-1", "sha256:aa"))
			in.Pods[1].Status.Phase = corev1.PodSucceeded
		}),
		"True Stopped", "False Reconciled", "False Reconciled", "No pod runs, as asked.", current},
	{"quarantined, with a pod that ended", input(state(v1alpha1.StateQuarantined), func(in *Input) { in.Plan.Endpoint = "" }, withDead),
		"True Quarantined", "False Reconciled", "False Reconciled", "2 pods are kept.", current},
	{"quarantined", input(state(v1alpha1.StateQuarantined), func(in *Input) { in.Plan.Endpoint = "" }),
		"True Quarantined", "False Reconciled", "False Reconciled", "Its NetworkPolicies open nothing and nothing is rolled out; 2 pods are kept.", current},
	{"stopped, not seen yet", input(state(v1alpha1.StateStopped), none, unseen),
		"Unknown Progressing", "True Progressing", "False Reconciled", "has not been acted upon yet", inProgress},
	{"quarantined, not seen yet", input(state(v1alpha1.StateQuarantined), func(in *Input) { in.Plan.Endpoint = "" }, unseen),
		"Unknown Progressing", "True Progressing", "False Reconciled", "has not been acted upon yet", inProgress},
	{"stopped with egress pending", input(state(v1alpha1.StateStopped), none, pending),
		"True Stopped", "False Reconciled", "False Reconciled", "No pod runs, as asked.", current},
	{"quarantined with egress pending", input(state(v1alpha1.StateQuarantined), func(in *Input) { in.Plan.Endpoint = "" }, pending),
		"True Quarantined", "False Reconciled", "False Reconciled", "2 pods are kept.", current},
	{"egress pending and an image that cannot be pulled", input(waiting("ErrImagePull", "not found"), pending),
		"False EgressTargetNotFound", "True EgressTargetNotFound", "False Reconciled",
		"1 of 2 pods are ready. Pod github-b: the image cannot be pulled: not found. spec.network.egress[0]: Service agents/a does not exist: create it", inProgress},
	{"egress pending and a rollout that failed", input(counts(3, 1, 2), pending, deploymentCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", "")),
		"False EgressTargetNotFound", "False RolloutFailed", "True RolloutFailed", "2 of 2 pods are ready. spec.network.egress[0]: Service", failed},
	{"egress pending", input(func(in *Input) {
		in.Plan.Pending = field.ErrorList{
			field.Invalid(field.NewPath("spec", "network", "egress").Index(0), "a", "Service agents/a does not exist: create it"),
			field.Invalid(field.NewPath("spec", "network", "egress").Index(1), "b", "Service agents/b does not exist: create it"),
		}
	}), "False EgressTargetNotFound", "True EgressTargetNotFound", "False Reconciled", "spec.network.egress[0]: Service agents/a does not exist: create it; spec.network.egress[1]: Service", inProgress},
	{"invalid spec", input(problem(v1alpha1.ReasonInvalidSpec, "spec.a: is wrong", false)),
		"False InvalidSpec", "False InvalidSpec", "True InvalidSpec", "spec.a: is wrong", failed},
	{"name conflict", input(problem(v1alpha1.ReasonNameConflict, "Service agents/github exists", false)),
		"False NameConflict", "False NameConflict", "True NameConflict", "Service agents/github exists", failed},
	{"rejected", input(problem(v1alpha1.ReasonRejected, "the API server refused", false)),
		"False Rejected", "False Rejected", "True Rejected", "the API server refused", failed},
	{"an error that passes, of a spec that was never applied", input(problem(v1alpha1.ReasonReconcileError, "timeout", true)),
		"Unknown ReconcileError", "True ReconcileError", "False ReconcileError", "timeout", inProgress},
	{"an error that passes, of a server that serves", input(seen, problem(v1alpha1.ReasonReconcileError, "timeout", true)),
		"True ReconcileError", "True ReconcileError", "False ReconcileError", "timeout", inProgress},
	{"an error that passes, on the first pass", input(first, problem(v1alpha1.ReasonReconcileError, "timeout", true)),
		"Unknown ReconcileError", "True ReconcileError", "False ReconcileError", "timeout", inProgress},
}

func TestCompute(t *testing.T) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			before := tc.input.Server.DeepCopy()
			got := Compute(tc.input)
			for conditionType, want := range map[string]string{
				v1alpha1.ConditionReady: tc.ready, v1alpha1.ConditionReconciling: tc.reconciling, v1alpha1.ConditionStalled: tc.stalled,
			} {
				c := meta.FindStatusCondition(got.Conditions, conditionType)
				if c == nil {
					t.Fatalf("no condition %s", conditionType)
				}
				if is := fmt.Sprintf("%s %s", c.Status, c.Reason); is != want {
					t.Errorf("%s is %q, want %q: %s", conditionType, is, want, c.Message)
				}
				if c.ObservedGeneration != 3 {
					t.Errorf("%s is about generation %d, want 3", conditionType, c.ObservedGeneration)
				}
				if c.Message == "" || len(c.Message) > maxMessage {
					t.Errorf("%s has a message of %d bytes", conditionType, len(c.Message))
				}
			}
			if c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReady); !strings.Contains(c.Message, tc.says) {
				t.Errorf("Ready says %q, want %q in it", c.Message, tc.says)
			}
			if got.ObservedGeneration != 3 {
				t.Errorf("observedGeneration is %d, want 3", got.ObservedGeneration)
			}
			if !equality.Semantic.DeepEqual(before, tc.input.Server) {
				t.Error("the server, which is that of the cache, was changed")
			}
			golden(t, tc.name, tc.kstatus, tc.input.Server, got)
			again := tc.input
			again.Server, again.Now = tc.input.Server.DeepCopy(), now.Add(time.Hour)
			again.Server.Status = got
			if second := Compute(again); !equality.Semantic.DeepEqual(second, got) {
				t.Errorf("computed again an hour later it is another status:\n%v\n%v", second, got)
			}
		})
	}
}

// golden keeps the object that results, for test/judges to ask kstatus about it.
func golden(t *testing.T, name, kstatus string, server *v1alpha1.MCPServer, status v1alpha1.MCPServerStatus) {
	t.Helper()
	object := server.DeepCopy()
	object.Status = status
	raw, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	raw = append([]byte("# kstatus: "+kstatus+"\n"), raw...)
	path := filepath.Join("testdata", strings.NewReplacer(" ", "-", ",", "").Replace(name)+".yaml")
	if *update {
		if err := os.WriteFile(path, raw, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run the tests of this package with -update", err)
	}
	if !bytes.Equal(raw, want) {
		t.Errorf("differs from %s; run the tests of this package with -update and look at the difference:\n%s", path, raw)
	}
}

func TestTransitionTimeIsKeptWhileTheStatusStays(t *testing.T) {
	got := Compute(input())
	if c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReady); !c.LastTransitionTime.Time.Equal(earlier) {
		t.Errorf("Ready stayed True and its time is %s", c.LastTransitionTime)
	}
	got = Compute(input(counts(0, 0, 0)))
	if c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReady); !c.LastTransitionTime.Time.Equal(now) {
		t.Errorf("Ready turned and its time is %s", c.LastTransitionTime)
	}
}

func TestWhatPodsRun(t *testing.T) {
	for _, tc := range []struct {
		name string
		pods []corev1.Pod
		want string
	}{
		{"one digest", []corev1.Pod{pod("a", "sha256:aa"), pod("b", "sha256:aa")}, "sha256:aa"},
		{"a rollout under way", []corev1.Pod{pod("a", "sha256:aa"), pod("b", "sha256:bb")}, ""},
		{"no pod", nil, ""},
		{"a pod that was evicted from the image before", func() []corev1.Pod {
			in := input(withDead)
			return in.Pods
		}(), "sha256:aa"},
		{"an image without a digest", []corev1.Pod{func() corev1.Pod {
			p := pod("a", "")
			p.Status.ContainerStatuses[0].ImageID = "sha256:cc"
			return p
		}()}, ""},
		{"a container that is not the server", []corev1.Pod{pod("a", "sha256:aa"), func() corev1.Pod {
			p := pod("b", "sha256:bb")
			p.Status.ContainerStatuses[0].Name = "sidecar"
			return p
		}()}, "sha256:aa"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Compute(input(func(in *Input) { in.Pods = tc.pods }))
			if got.Image == nil || got.Image.Reference != "server:v1" || got.Image.Digest != tc.want {
				t.Errorf("image is %+v, want reference server:v1 and digest %q", got.Image, tc.want)
			}
		})
	}
}

func TestNumbersAndEndpoint(t *testing.T) {
	got := Compute(input(counts(3, 1, 2)))
	if got.Replicas != 2 || got.ReadyReplicas != 2 || got.Endpoint != "http://github.agents.svc:8080/mcp" {
		t.Errorf("got %+v", got)
	}
}

// A rollout that goes on while enough pods are ready is not held up by a pod that ended long ago.
func TestAPodThatEndedDoesNotExplainARollout(t *testing.T) {
	got := Compute(input(counts(3, 1, 2), withDead))
	c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReconciling)
	if want := "1 of 2 pods run the present spec, 2 are available."; c.Message != want {
		t.Errorf("Reconciling says %q, want %q", c.Message, want)
	}
}

// The status is written at each change of a message: numbers of nodes must not change it.
func TestWhatTheSchedulerSays(t *testing.T) {
	for message, want := range map[string]string{
		"0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods. no new claims to deallocate, preemption: 0/3 nodes are available: 3 No preemption victims found.": "no node is available: Insufficient cpu, Too many pods",
		"0/5 nodes are available: 1 Too many pods, 4 Insufficient cpu.":      "no node is available: Insufficient cpu, Too many pods",
		"0/12 nodes are available: 12 Insufficient memory.":                  "no node is available: Insufficient memory",
		"0/3 nodes are available: pod has unbound PersistentVolumeClaims.":   "no node is available: pod has unbound PersistentVolumeClaims",
		"0/3 nodes are available: persistentvolumeclaim \"data\" not found.": "no node is available: persistentvolumeclaim \"data\" not found",
		"0/3 nodes are available":                                            "no node is available",
		"no nodes available to schedule pods":                                "no nodes available to schedule pods",
		"":                                                                   "",
	} {
		if got := scheduling(message); got != want {
			t.Errorf("%q becomes %q, want %q", message, got, want)
		}
	}
}

// What is told of a verdict beside its cause says who does what next.
func TestWhatHappensNext(t *testing.T) {
	deadline := deploymentCondition(appsv1.DeploymentProgressing, corev1.ConditionFalse, "ProgressDeadlineExceeded", "")
	for _, tc := range []struct {
		name  string
		input Input
		says  string
	}{
		{"a rollout that failed", input(counts(3, 1, 2), deadline), "goes on by itself once what holds it up is fixed"},
		{"a spec that is invalid", input(problem(v1alpha1.ReasonInvalidSpec, "a", false)), "looked at again when the spec"},
		{"a name that is taken", input(problem(v1alpha1.ReasonNameConflict, "a", false)), "looked at again every now and then"},
		{"an object that was refused", input(problem(v1alpha1.ReasonRejected, "a", false)), "looked at again every now and then"},
	} {
		got := Compute(tc.input)
		c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionReconciling)
		if !strings.Contains(c.Message, tc.says) {
			t.Errorf("of %s, Reconciling says %q, want %q in it", tc.name, c.Message, tc.says)
		}
	}
}

// A problem takes nothing away from what was applied before, and adds nothing that was not applied.
func TestProblemsKeepWhatWasReported(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Input)
	}{
		{"a passing error before anything was read", func(in *Input) {
			problem(v1alpha1.ReasonReconcileError, "timeout", true)(in)
			in.Deployment, in.Pods = nil, nil
		}},
		{"a spec that became invalid", problem(v1alpha1.ReasonInvalidSpec, "spec.a: is wrong", false)},
		{"a plan that could not be applied", func(in *Input) {
			in.Plan.Endpoint = "http://github.agents.svc:9090/mcp"
			in.Problem = &Problem{Reason: v1alpha1.ReasonNameConflict, Message: "exists"}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := Compute(input())
			in := input(tc.change)
			in.Server.Status = before
			got := Compute(in)
			if got.Endpoint != before.Endpoint || got.Replicas != 2 || got.ReadyReplicas != 2 || got.Image == nil || got.Resources == nil {
				t.Errorf("got %+v, before it was %+v", got, before)
			}
		})
	}
	in := input(first, func(in *Input) { in.Problem = &Problem{Reason: v1alpha1.ReasonNameConflict, Message: "exists"} })
	if got := Compute(in); got.Endpoint != "" {
		t.Errorf("nothing was applied, and clients are told to go to %s", got.Endpoint)
	}
}

// Where an error kept a new spec from being applied, clients are told of no endpoint until one is.
func TestEndpointIsThatOfTheGeneration(t *testing.T) {
	in := input(problem(v1alpha1.ReasonReconcileError, "timeout", true))
	in.Server.Status = Compute(input())
	if got := Compute(in); got.Endpoint == "" {
		t.Error("the spec that was applied still holds, and its endpoint is gone")
	}
	in.Server.Generation++
	for range 2 { // the second time, the status is already about the new generation
		in.Server.Status = Compute(in)
		c := meta.FindStatusCondition(in.Server.Status.Conditions, v1alpha1.ConditionReady)
		if in.Server.Status.Endpoint != "" || c.Status != metav1.ConditionUnknown {
			t.Errorf("endpoint %q and Ready %s of a generation that was never applied", in.Server.Status.Endpoint, c.Status)
		}
	}
}

func TestMessagesAreBounded(t *testing.T) {
	for _, message := range []string{strings.Repeat("a", 5000), strings.Repeat("ä", 5000), strings.Repeat("a", maxMessage-4) + strings.Repeat("€", 100)} {
		got := Compute(input(problem(v1alpha1.ReasonRejected, message, false)))
		for _, c := range got.Conditions {
			if len(c.Message) > maxMessage || !utf8.ValidString(c.Message) {
				t.Errorf("%s has a message of %d bytes, valid: %t", c.Type, len(c.Message), utf8.ValidString(c.Message))
			}
		}
	}
}

// secrets of which something is to be said.
func secrets(reason string) func(*Input) {
	return func(in *Input) {
		in.Secrets = &Secrets{Verdict: rotation.Verdict{Status: metav1.ConditionFalse, Reason: reason, Message: "Something."}, Status: &v1alpha1.SecretsStatus{}}
	}
}

// What could not be looked at keeps what was said of it.
func TestSecretsNotLookedAt(t *testing.T) {
	old := Compute(input(secrets(v1alpha1.ReasonTooOld)))
	in := input(problem(v1alpha1.ReasonReconcileError, "no answer", true))
	in.Server.Status = old
	got := Compute(in)
	if c := meta.FindStatusCondition(got.Conditions, v1alpha1.ConditionSecretsCurrent); c == nil || c.Reason != v1alpha1.ReasonTooOld || got.Secrets == nil {
		t.Errorf("got %+v and %+v", c, got.Secrets)
	}
}

func TestRollout(t *testing.T) {
	const label = "0123456789abcdef"
	pod := func(snapshot string, ready bool, restarts int32) corev1.Pod {
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{plan.LabelSnapshot: snapshot}},
			Status:     corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{Name: plan.ContainerName, Ready: ready, RestartCount: restarts}}},
		}
	}
	held := func(c corev1.ContainerStatus) []corev1.Pod {
		p := pod(label, false, 0)
		c.Name = probe.InitContainerName
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{c}
		return []corev1.Pod{p}
	}
	proven := func(at time.Time) corev1.ContainerStatus {
		return corev1.ContainerStatus{Ready: true, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(at)}}}
	}
	deadline := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	rolling := appsv1.DeploymentStatus{ObservedGeneration: 2, UpdatedReplicas: 1, Replicas: 3, AvailableReplicas: 2}
	late := rolling
	late.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Reason: "ProgressDeadlineExceeded", LastTransitionTime: metav1.NewTime(deadline)}}
	for _, tc := range []struct {
		name     string
		replicas int32
		status   appsv1.DeploymentStatus
		pods     []corev1.Pod
		want     rotation.Rollout
	}{
		{"all pods are new and available", 2, appsv1.DeploymentStatus{ObservedGeneration: 2, UpdatedReplicas: 2, Replicas: 2, AvailableReplicas: 2}, nil, rotation.Complete},
		{"the template was not seen yet", 2, appsv1.DeploymentStatus{ObservedGeneration: 1, UpdatedReplicas: 2, Replicas: 2, AvailableReplicas: 2}, nil, rotation.Progressing},
		{"old pods are left", 2, rolling, nil, rotation.Progressing},
		{"no pod is wanted", 0, rolling, nil, rotation.Idle},
		{"the deadline passed", 2, late, nil, rotation.Failed},
		{"the deadline passed over a pod that has yet to prove its isolation", 2, late, held(corev1.ContainerStatus{}), rotation.Progressing},
		{"it proved it after the deadline", 2, late, held(proven(deadline.Add(time.Second))), rotation.Progressing},
		{"it had proven it before", 2, late, held(proven(deadline.Add(-time.Second))), rotation.Failed},
		{"a new pod ended twice", 2, rolling, []corev1.Pod{pod(label, false, 2)}, rotation.Progressing},
		{"a new pod ends again and again", 2, rolling, []corev1.Pod{pod(label, false, 3)}, rotation.Failed},
		{"a new pod ended often and is ready now", 2, rolling, []corev1.Pod{pod(label, true, 3)}, rotation.Progressing},
		{"an old pod ends again and again", 2, rolling, []corev1.Pod{pod("fedcba9876543210", false, 9)}, rotation.Progressing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Generation: 2}, Status: tc.status}
			d.Spec.Replicas = new(tc.replicas)
			d.Spec.Template.Labels = map[string]string{plan.LabelSnapshot: label}
			if got := Rollout(d, tc.pods); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestTransitions(t *testing.T) {
	status := func(in Input) *v1alpha1.MCPServerStatus { return new(Compute(in)) }
	serving, pullFails := status(input()), status(input(waiting("ErrImagePull", "no such image")))
	conflict := status(input(problem(v1alpha1.ReasonNameConflict, "exists", false)))
	for _, tc := range []struct {
		name     string
		old, now *v1alpha1.MCPServerStatus
		want     []string
	}{
		{"nothing turned", serving, serving, nil},
		{"the first status", &v1alpha1.MCPServerStatus{}, status(input(first, func(in *Input) { in.Deployment = nil })), nil},
		{"it serves", pullFails, serving, []string{"Normal Serving"}},
		{"it no longer serves", serving, pullFails, []string{"Warning ReplicasUnavailable"}},
		{"it is stuck", serving, conflict, []string{"Warning NameConflict"}},
		{"it is no longer stuck", conflict, serving, []string{"Normal Serving"}},
		{"it is stopped", serving, status(input(state(v1alpha1.StateStopped), func(in *Input) { in.Pods = nil })), []string{"Normal Stopped"}},
		{"a Secret is missing", serving, status(input(secrets(v1alpha1.ReasonSourceNotFound))), []string{"Warning SourceNotFound"}},
		{"a rotation goes on, which has events of its own", serving, status(input(secrets(v1alpha1.ReasonRotating))), nil},
		{"only a message changed", pullFails, status(input(waiting("ErrImagePull", "another message"))), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, e := range Transitions(tc.old, tc.now) {
				got = append(got, e.Type+" "+e.Reason)
				if e.Note == "" || e.Action == "" {
					t.Errorf("the event %+v says nothing", e)
				}
			}
			if strings.Join(got, ",") != strings.Join(tc.want, ",") {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}
