package plan

import (
	"encoding/json"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// planned returns the objects of a server by kind, without the baseline.
func planned(t *testing.T, in Input) map[string]Object {
	t.Helper()
	p, errs := Build(in)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	out := map[string]Object{}
	for _, o := range p.Objects {
		if o.Name != BaselineName {
			out[o.Kind] = o
		}
	}
	return out
}

func liveObject[T any](o Object) *T { return convert[T](o.Config) }

func deployment(change func(*appsv1.Deployment)) func(map[string]Object) (Object, client.Object) {
	return func(objects map[string]Object) (Object, client.Object) {
		live := liveObject[appsv1.Deployment](objects["Deployment"])
		live.Spec.Replicas = new(int32(3)) // as an autoscaler would
		change(live)
		return objects["Deployment"], live
	}
}

func service(change func(*corev1.Service)) func(map[string]Object) (Object, client.Object) {
	return func(objects map[string]Object) (Object, client.Object) {
		live := liveObject[corev1.Service](objects["Service"])
		live.Spec.ClusterIP, live.Spec.ClusterIPs = "10.96.1.2", []string{"10.96.1.2"}
		live.Spec.IPFamilies, live.Spec.IPFamilyPolicy = []corev1.IPFamily{corev1.IPv4Protocol}, new(corev1.IPFamilyPolicySingleStack)
		change(live)
		return objects["Service"], live
	}
}

func policy(change func(*networkingv1.NetworkPolicy)) func(map[string]Object) (Object, client.Object) {
	return func(objects map[string]Object) (Object, client.Object) {
		live := liveObject[networkingv1.NetworkPolicy](objects["NetworkPolicy"])
		change(live)
		return objects["NetworkPolicy"], live
	}
}

func account(change func(*corev1.ServiceAccount)) func(map[string]Object) (Object, client.Object) {
	return func(objects map[string]Object) (Object, client.Object) {
		live := liveObject[corev1.ServiceAccount](objects["ServiceAccount"])
		change(live)
		return objects["ServiceAccount"], live
	}
}

func TestDrift(t *testing.T) {
	for _, tc := range []struct {
		name string
		live func(map[string]Object) (Object, client.Object)
		// want is the path of the drift; empty where what others did is theirs to do.
		want string
	}{
		{"nothing changed", deployment(func(*appsv1.Deployment) {}), ""},
		{"an autoscaler scaled", deployment(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(7)) }), ""},
		{"kubectl rollout restart", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
		}), ""},
		{"a second network interface, beside a restart", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = map[string]string{
				"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z", "k8s.v1.cni.cncf.io/networks": "host",
			}
		}), "spec.template.metadata.annotations[k8s.v1.cni.cncf.io/networks]"},
		{"AppArmor switched off", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = map[string]string{"container.apparmor.security.beta.kubernetes.io/server": "unconfined"}
		}), "spec.template.metadata.annotations"},
		{"a sidecar asked for", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = map[string]string{"sidecar.istio.io/inject": "true"}
		}), "spec.template.metadata.annotations"},
		{"a label of others on the object", deployment(func(d *appsv1.Deployment) { d.Labels["team"] = "a" }), ""},
		{"an annotation of others on the object", deployment(func(d *appsv1.Deployment) {
			d.Annotations = map[string]string{"deployment.kubernetes.io/revision": "2"}
		}), ""},
		{"a second owner that does not control", deployment(func(d *appsv1.Deployment) {
			d.OwnerReferences = append(d.OwnerReferences, metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "a", UID: "other"})
		}), ""},
		{"the status", deployment(func(d *appsv1.Deployment) { d.Status.Replicas = 3 }), ""},
		{"another image", deployment(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "evil" }), "spec.template.spec.containers[0].image"},
		{"an added container", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers, corev1.Container{Name: "sidecar"})
		}), "spec.template.spec.containers"},
		{"an added init container", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "init"}}
		}), "spec.template.spec.initContainers"},
		{"an added variable", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "b"}}
		}), "spec.template.spec.containers[0].env"},
		{"an added host path", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Volumes = append(d.Spec.Template.Spec.Volumes, corev1.Volume{Name: "host"})
		}), "spec.template.spec.volumes"},
		{"the network of the host", deployment(func(d *appsv1.Deployment) { d.Spec.Template.Spec.HostNetwork = true }), "spec.template.spec.hostNetwork"},
		{"a writable root", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem = new(false)
		}), "spec.template.spec.containers[0].securityContext.readOnlyRootFilesystem"},
		{"an added capability", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}
		}), "spec.template.spec.containers[0].securityContext.capabilities.add"},
		{"a label on the pod template", deployment(func(d *appsv1.Deployment) { d.Spec.Template.Labels["app"] = "other" }), "spec.template.metadata.labels.app"},
		{"a label of ours changed", deployment(func(d *appsv1.Deployment) { d.Labels[LabelServer] = "other" }), "metadata.labels[mcpwarden.io/server]"},
		{"paused", deployment(func(d *appsv1.Deployment) { d.Spec.Paused = true }), "spec.paused"},
		{"the owner removed", deployment(func(d *appsv1.Deployment) { d.OwnerReferences = nil }), "metadata.ownerReferences"},
		{"the owner no longer controls", deployment(func(d *appsv1.Deployment) { d.OwnerReferences[0].Controller = nil }), "metadata.ownerReferences[0].controller"},
		{"addresses allocated to the Service", service(func(*corev1.Service) {}), ""},
		{"external addresses", service(func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.1"} }), "spec.externalIPs"},
		{"another type of Service", service(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort }), "spec.type"},
		{"another selector of the Service", service(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "other"} }), "spec.selector.app"},
		{"addresses published before pods are ready", service(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true }), "spec.publishNotReadyAddresses"},
		{"an added egress rule", policy(func(p *networkingv1.NetworkPolicy) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
		}), "spec.egress"},
		{"an added ingress rule", policy(func(p *networkingv1.NetworkPolicy) {
			p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{})
		}), "spec.ingress"},
		{"one direction left open", policy(func(p *networkingv1.NetworkPolicy) { p.Spec.PolicyTypes = p.Spec.PolicyTypes[:1] }), "spec.policyTypes"},
		{"a pull secret that a cloud adds to the account", account(func(a *corev1.ServiceAccount) {
			a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "cloud"}}
		}), ""},
		{"a token for the account", account(func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = new(true) }), "automountServiceAccountToken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o, live := tc.live(planned(t, Input{Server: server()}))
			before := live.DeepCopyObject()
			expected := o.Expected(live)
			if got := Drift(live, expected); got != tc.want {
				t.Errorf("drift at %q, want %q", got, tc.want)
			}
			if Drift(live, before) != "" {
				t.Error("the live object, which is that of the cache, was changed")
			}
			if path := Drift(expected, o.Expected(expected)); path != "" {
				t.Errorf("what is expected would not be expected once it is live: %s", path)
			}
		})
	}
}

func TestReplicasOfTheSpecAreOurs(t *testing.T) {
	s := server(func(s *v1alpha1.MCPServer) { s.Spec.Replicas = new(int32(2)) })
	o := planned(t, Input{Server: s})["Deployment"]
	live := liveObject[appsv1.Deployment](o)
	live.Spec.Replicas = new(int32(0))
	if got := Drift(live, o.Expected(live)); got != "spec.replicas" {
		t.Errorf("drift at %q, want spec.replicas", got)
	}
}

// TestQuarantineKeepsTheNumberOfPods: a Deployment that is paused still scales.
func TestQuarantineKeepsTheNumberOfPods(t *testing.T) {
	for _, tc := range []struct {
		name    string
		asked   *int32
		live    *LiveDeployment
		want    int32
		stopped bool
	}{
		{"the spec asks for fewer", new(int32(1)), &LiveDeployment{Replicas: 3}, 3, false},
		{"the spec asks for more", new(int32(5)), &LiveDeployment{Replicas: 3}, 3, false},
		{"the spec leaves it to others", nil, &LiveDeployment{Replicas: 3}, 3, false},
		{"it was stopped", new(int32(2)), &LiveDeployment{}, 0, true},
		{"it was stopped, and the spec leaves it to others", nil, &LiveDeployment{}, 0, true},
		{"it never ran", nil, nil, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := server(func(s *v1alpha1.MCPServer) {
				s.Spec.Replicas, s.Spec.DesiredState = tc.asked, v1alpha1.StateQuarantined
			})
			d := liveObject[appsv1.Deployment](planned(t, Input{Server: s, Facts: Facts{Live: tc.live}})["Deployment"])
			if !d.Spec.Paused || d.Spec.Replicas == nil || *d.Spec.Replicas != tc.want {
				t.Errorf("replicas %v, paused %v; want %d, paused", d.Spec.Replicas, d.Spec.Paused, tc.want)
			}
			if _, marked := d.Annotations[AnnotationStopped]; marked != tc.stopped {
				t.Errorf("marked as stopped: %v, want %v", marked, tc.stopped)
			}
		})
	}
}

// A server that was stopped, then quarantined, is scaled up again when it is released: that the mark
// is gone from the plan makes it be applied, even where somebody has resumed the Deployment meanwhile.
func TestReleaseOfAStoppedServer(t *testing.T) {
	quarantined := server(func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateQuarantined })
	facts := Facts{Live: &LiveDeployment{}}
	live := liveObject[appsv1.Deployment](planned(t, Input{Server: quarantined, Facts: facts})["Deployment"])
	live.Spec.Paused = false
	released := planned(t, Input{Server: server(), Facts: facts})["Deployment"]
	if got, want := Drift(live, released.Expected(live)), "metadata.annotations"; got != want {
		t.Errorf("drift at %q, want %q", got, want)
	}
	if replicas := liveObject[appsv1.Deployment](released).Spec.Replicas; replicas != nil {
		t.Errorf("%d replicas are planned, want none, so that the API server defaults them", *replicas)
	}
}

func TestPolicyOfAQuarantinedServerHasNoRule(t *testing.T) {
	s := server(egressTo(v1alpha1.EgressTarget{CIDR: "203.0.113.0/24"}, 443), func(s *v1alpha1.MCPServer) {
		s.Spec.Network.Ingress = []v1alpha1.PodPeer{{PodSelector: &v1alpha1.LabelSelector{}}}
		s.Spec.DesiredState = v1alpha1.StateQuarantined
	})
	p := liveObject[networkingv1.NetworkPolicy](planned(t, Input{Server: s})["NetworkPolicy"])
	if len(p.Spec.Ingress)+len(p.Spec.Egress) != 0 || len(p.Spec.PolicyTypes) != 2 {
		t.Errorf("the policy is %+v, want both ways closed and no rule", p.Spec)
	}
}

// FuzzFirstDifference compares any two JSON values: it never panics, finds no difference between
// equal ones, and finds one whichever way round they are compared.
func FuzzFirstDifference(f *testing.F) {
	f.Add(`{"a":[1,{"b":null}]}`, `{"a":[1,{"b":2}]}`)
	f.Add(`[]`, `{}`)
	f.Add(`{"a.b/c":"x"}`, `{"a.b/c":"y"}`)
	f.Add(`1`, `null`)
	f.Fuzz(func(t *testing.T, left, right string) {
		var a, b any
		if json.Unmarshal([]byte(left), &a) != nil || json.Unmarshal([]byte(right), &b) != nil {
			return // not JSON
		}
		if path := firstDifference("root", a, a); path != "" {
			t.Errorf("%s differs from itself at %s", left, path)
		}
		if one, other := firstDifference("root", a, b), firstDifference("root", b, a); one != other {
			t.Errorf("%s and %s differ at %q, the other way round at %q", left, right, one, other)
		}
	})
}

func TestDriftIsOfTheLiveServicePort(t *testing.T) {
	o := planned(t, Input{Server: server()})["Service"]
	live := liveObject[corev1.Service](o)
	live.Spec.Ports[0].TargetPort = intstr.FromString("mcp")
	if got := Drift(live, o.Expected(live)); got != "spec.ports[0].targetPort" {
		t.Errorf("drift at %q, want spec.ports[0].targetPort", got)
	}
}
