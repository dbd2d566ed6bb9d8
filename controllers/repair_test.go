package controllers_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// tampering is one way to change an object of a server.
type tampering struct {
	name   string
	kind   int // in children
	change func(client.Object)
}

func onDeployment(name string, change func(*corev1.PodSpec)) tampering {
	return tampering{name, 4, func(o client.Object) { change(&o.(*appsv1.Deployment).Spec.Template.Spec) }}
}

func onService(name string, change func(*corev1.ServiceSpec)) tampering {
	return tampering{name, 2, func(o client.Object) { change(&o.(*corev1.Service).Spec) }}
}

func tamperings() []tampering {
	out := []tampering{
		onDeployment("image", func(p *corev1.PodSpec) { p.Containers[0].Image = "registry.example/evil:v1" }),
		onDeployment("sidecar", func(p *corev1.PodSpec) {
			p.Containers = append(p.Containers, corev1.Container{Name: "evil", Image: "registry.example/evil:v1"})
		}),
		onDeployment("hostPath", func(p *corev1.PodSpec) {
			p.Volumes = append(p.Volumes, corev1.Volume{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
			p.Containers[0].VolumeMounts = append(p.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "host", MountPath: "/host"})
		}),
		onDeployment("volume of another kind", func(p *corev1.PodSpec) {
			p.Volumes[0].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}
		}),
		onDeployment("probe of another kind", func(p *corev1.PodSpec) {
			p.Containers[0].ReadinessProbe.ProbeHandler = corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}}
		}),
		onDeployment("hostNetwork", func(p *corev1.PodSpec) { p.HostNetwork, p.Containers[0].Ports[0].HostPort = true, 8080 }),
		onDeployment("capability", func(p *corev1.PodSpec) {
			p.Containers[0].SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}
		}),
		onDeployment("token", func(p *corev1.PodSpec) { p.AutomountServiceAccountToken = new(true) }),
		{"annotation of the pods", 4, func(o client.Object) {
			o.(*appsv1.Deployment).Spec.Template.Annotations = map[string]string{"k8s.v1.cni.cncf.io/networks": "host"}
		}},
		{"egress", 0, func(o client.Object) {
			spec := &o.(*networkingv1.NetworkPolicy).Spec
			spec.Egress = append(spec.Egress, networkingv1.NetworkPolicyEgressRule{})
		}},
		{"policyTypes", 0, func(o client.Object) {
			o.(*networkingv1.NetworkPolicy).Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		}},
		{"automount", 1, func(o client.Object) { o.(*corev1.ServiceAccount).AutomountServiceAccountToken = new(true) }},
		onService("LoadBalancer", func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeLoadBalancer }),
		onService("externalIPs", func(s *corev1.ServiceSpec) { s.ExternalIPs = []string{"192.0.2.1"} }),
		onService("selector", func(s *corev1.ServiceSpec) { s.Selector["more"] = "x" }),
		onService("port", func(s *corev1.ServiceSpec) {
			s.Ports = append(s.Ports, corev1.ServicePort{Name: "evil", Port: 22, TargetPort: intstr.FromInt32(22)})
		}),
		{"maxUnavailable", 3, func(o client.Object) {
			o.(*policyv1.PodDisruptionBudget).Spec.MaxUnavailable = new(intstr.FromInt32(0))
		}},
		{"minAvailable", 3, func(o client.Object) {
			spec := &o.(*policyv1.PodDisruptionBudget).Spec
			spec.MaxUnavailable, spec.MinAvailable = nil, new(intstr.FromInt32(2))
		}},
	}
	for kind, name := range []string{"NetworkPolicy", "ServiceAccount", "Service", "PodDisruptionBudget", "Deployment"} {
		out = append(out,
			tampering{name + " managed-by removed", kind, func(o client.Object) { delete(o.GetLabels(), plan.LabelManagedBy) }},
			tampering{name + " server label changed", kind, func(o client.Object) { o.GetLabels()[plan.LabelServer] = "other" }},
			tampering{name + " disowned", kind, func(o client.Object) { o.SetOwnerReferences(nil) }},
			tampering{name + " disowned and unlabelled", kind, func(o client.Object) { o.SetOwnerReferences(nil); o.SetLabels(nil) }},
		)
	}
	return out
}

// specOf is what the operator answers for in an object.
func specOf(o client.Object) any {
	switch o := o.(type) {
	case *networkingv1.NetworkPolicy:
		return o.Spec
	case *corev1.ServiceAccount:
		return *o.AutomountServiceAccountToken
	case *corev1.Service:
		spec := o.Spec.DeepCopy()
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
		return *spec
	case *policyv1.PodDisruptionBudget:
		return o.Spec
	case *appsv1.Deployment:
		return o.Spec
	}
	panic(fmt.Sprintf("%T", o))
}

// notAs says how an object differs from what it was.
func notAs(was, is client.Object, server *v1alpha1.MCPServer) string {
	switch {
	case !equality.Semantic.DeepEqual(specOf(was), specOf(is)):
		return fmt.Sprintf("spec is %+v, was %+v", specOf(is), specOf(was))
	case !equality.Semantic.DeepEqual(was.GetLabels(), is.GetLabels()):
		return fmt.Sprintf("labels are %v, were %v", is.GetLabels(), was.GetLabels())
	case !plan.IsOwnedBy(is, server):
		return fmt.Sprintf("owners are %v", is.GetOwnerReferences())
	}
	return ""
}

func TestTamperingIsPutRight(t *testing.T) {
	o := parallel(t)
	for _, tc := range tamperings() {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			server := example(newNamespace(t), "web")
			server.Spec.Replicas = new(int32(2))
			settled(t, o, server)
			was, is := children(server)[tc.kind], children(server)[tc.kind]
			get(t, was)
			edit(t, is, tc.change)
			if tc.kind != 1 && notAs(was, is, server) == "" {
				t.Fatal("the test changed nothing")
			}
			eventually(t, func() string {
				get(t, is)
				return notAs(was, is, server)
			})
			turned(t, server, tc.kind)
			o.calm(t, server.Namespace)
			if is.GetUID() != was.GetUID() {
				t.Error("the object was replaced")
			}
			// To the cache, an object without its label is one that is gone.
			if n := len(eventsOf(t, server, "Repaired")) + len(eventsOf(t, server, "Recreated")); n != 1 {
				t.Errorf("%d events, want 1", n)
			}
		})
	}
}

// turned waits until the verdict has told of a repair of one of the children, and tells of it no more.
func turned(t *testing.T, server *v1alpha1.MCPServer, kind int) {
	t.Helper()
	id := v1alpha1.ControlID("OPS-05")
	if kind == 0 {
		id = "NET-05"
	}
	waitControl(t, server, id, v1alpha1.ControlFail)
	waitControl(t, server, id, v1alpha1.ControlPass)
}

func TestDeletedObjectIsRecreated(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Spec.Replicas = new(int32(2))
	settled(t, o, server)
	baseline := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: plan.BaselineName}}
	for _, child := range append(children(server), baseline) {
		get(t, child)
		uid := child.GetUID()
		remove(t, child)
		eventually(t, func() string {
			if err := admin.Get(t.Context(), client.ObjectKeyFromObject(child), child); err != nil {
				return err.Error()
			}
			if child.GetUID() == uid {
				return "it is still the old one"
			}
			return ""
		})
		kind := 1
		if _, isPolicy := child.(*networkingv1.NetworkPolicy); isPolicy {
			kind = 0
		}
		turned(t, server, kind)
	}
	o.calm(t, server.Namespace)
	got := map[string]int{}
	for _, event := range eventsOf(t, server, "Recreated") {
		kindAndName, _, _ := strings.Cut(event.Note, " was missing")
		got[kindAndName]++
	}
	for _, child := range children(server) {
		if n := got[kindOf(child)+" "+child.GetName()]; n != 1 {
			t.Errorf("%d events about %s, want 1", n, kindOf(child))
		}
	}
}

// A Deployment that is deleted takes the state of its rotation with it: it is made again as another one.
func TestDeletedDeploymentTurnsTheVerdict(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	create(t, secretOf(server.Namespace, "source", map[string]string{"token": "not-a-real-value"}))
	server.Spec.Env = []v1alpha1.EnvVar{{Name: "TOKEN", ValueFrom: &v1alpha1.EnvVarSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "source", Key: "token"}}}}
	settled(t, o, server)
	remove(t, &appsv1.Deployment{ObjectMeta: named(server)})
	turned(t, server, 1)
	o.calm(t, server.Namespace)
}

func TestRolloutRestartSurvives(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	const key = "kubectl.kubernetes.io/restartedAt"
	deployment := &appsv1.Deployment{ObjectMeta: named(server)}
	edit(t, deployment, func(d *appsv1.Deployment) {
		d.Spec.Template.Annotations = map[string]string{key: "2026-01-01T00:00:00Z"}
	})
	o.calm(t, server.Namespace)
	// A change of the spec applies the whole Deployment anew.
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Image = "registry.example/server:v2" })
	eventually(t, func() string {
		get(t, deployment)
		return differs(deployment.Spec.Template.Spec.Containers[0].Image, server.Spec.Image)
	})
	o.calm(t, server.Namespace)
	get(t, deployment)
	if deployment.Spec.Template.Annotations[key] == "" {
		t.Error("the annotation of kubectl rollout restart is gone")
	}
}

func differs[T comparable](got, want T) string {
	if got == want {
		return ""
	}
	return fmt.Sprintf("got %v, want %v", got, want)
}

// scale does what an autoscaler does.
func scale(t *testing.T, server *v1alpha1.MCPServer, replicas int32) {
	t.Helper()
	body := &autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}
	if err := admin.SubResource("scale").Update(t.Context(), &appsv1.Deployment{ObjectMeta: named(server)}, client.WithSubResourceBody(body)); err != nil {
		t.Fatalf("scale: %v", err)
	}
}

// waitBudget waits until the PodDisruptionBudget is there, or is not.
func waitBudget(t *testing.T, server *v1alpha1.MCPServer, want bool) {
	t.Helper()
	eventually(t, func() string {
		err := admin.Get(t.Context(), client.ObjectKeyFromObject(server), &policyv1.PodDisruptionBudget{})
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		return differs(!apierrors.IsNotFound(err), want)
	})
}

func replicasOf(t *testing.T, server *v1alpha1.MCPServer) int32 {
	t.Helper()
	deployment := &appsv1.Deployment{ObjectMeta: named(server)}
	get(t, deployment)
	return *deployment.Spec.Replicas
}

func TestAutoscalerDecides(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	if got := replicasOf(t, server); got != 1 {
		t.Errorf("%d replicas without an autoscaler, want 1", got)
	}
	scale(t, server, 4)
	waitBudget(t, server, true)
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Image = "registry.example/server:v2" })
	o.calm(t, server.Namespace)
	if got := replicasOf(t, server); got != 4 {
		t.Errorf("%d replicas, want the autoscaler's 4", got)
	}
	scale(t, server, 1)
	waitBudget(t, server, false)
	o.calm(t, server.Namespace)
	for _, reason := range []string{"Repaired", "Recreated", v1alpha1.ReasonControlsFailed} {
		if events := eventsOf(t, server, reason); len(events) > 0 {
			t.Errorf("%s although nobody broke anything: %s", reason, events[0].Note)
		}
	}
}

// TestAutoscalerIsNotOverruled lets an autoscaler decide in the moment before the operator writes what it had seen. The API server
// keeps no owner of replicas that nobody applied before, so that nothing but the version tells the operator.
func TestAutoscalerIsNotOverruled(t *testing.T) {
	o := exclusive(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	scale(t, server, 4)
	waitBudget(t, server, true)
	o.calm(t, server.Namespace)
	var once sync.Once
	o.before(func(req request) error {
		if req.verb == "patch" && req.resource == "deployments" && req.namespace == server.Namespace {
			once.Do(func() { scale(t, server, 2) })
		}
		return nil
	})
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Image = "registry.example/server:v2" })
	deployment := &appsv1.Deployment{ObjectMeta: named(server)}
	eventually(t, func() string {
		get(t, deployment)
		return differs(deployment.Spec.Template.Spec.Containers[0].Image, server.Spec.Image)
	})
	if got := replicasOf(t, server); got != 2 {
		t.Errorf("%d replicas, want the 2 that the autoscaler had just decided on", got)
	}
}

func TestReplicasAreLeftToAutoscaler(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Spec.Replicas = new(int32(3))
	settled(t, o, server)
	waitBudget(t, server, true)
	scale(t, server, 7)
	eventually(t, func() string { return differs(replicasOf(t, server), 3) })

	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Replicas = nil })
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Image = "registry.example/server:v2" })
	o.calm(t, server.Namespace)
	if got := replicasOf(t, server); got != 3 {
		t.Errorf("%d replicas before the autoscaler set any, want 3 as before", got)
	}
	scale(t, server, 5)
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Image = "registry.example/server:v3" })
	o.calm(t, server.Namespace)
	if got := replicasOf(t, server); got != 5 {
		t.Errorf("%d replicas, want the autoscaler's 5", got)
	}
	waitBudget(t, server, true)
}

func TestStopAndStart(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateStopped })
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonStopped)
	if got := replicasOf(t, server); got != 0 {
		t.Errorf("%d replicas while stopped", got)
	}
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateRunning })
	eventually(t, func() string { return differs(replicasOf(t, server), 1) })
}
