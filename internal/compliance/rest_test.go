package compliance_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

func image(name string) func(*v1alpha1.MCPServerSpec) {
	return func(s *v1alpha1.MCPServerSpec) { s.Image = name }
}

func secretsAre(reason, message string) func(*compliance.Input) {
	return func(in *compliance.Input) {
		in.Live.Secrets.Status, in.Live.Secrets.Reason, in.Live.Secrets.Message = "False", reason, message
	}
}

func drifted(kind, path string) func(*compliance.Input) {
	return func(in *compliance.Input) {
		in.Live.Drift.Value = append(in.Live.Drift.Value, compliance.Drift{Kind: kind, Name: "github", Path: path})
	}
}

func TestSecretControls(t *testing.T) {
	noSecrets := func(s *v1alpha1.MCPServerSpec) { s.Env = nil }
	names := func(p *v1alpha1.MCPPolicySpec) {
		p.Secrets = &v1alpha1.SecretPolicy{AllowedEnvNames: []v1alpha1.EnvNamePattern{"LOG_LEVEL", "GITHUB_*"}}
	}
	day := &metav1.Duration{Duration: 24 * time.Hour}
	ownAge := func(s *v1alpha1.MCPServerSpec) { s.Rotation = &v1alpha1.Rotation{MaxAge: day} }
	age := func(p *v1alpha1.MCPPolicySpec) { p.Secrets = &v1alpha1.SecretPolicy{MaxAge: day} }
	aged := func(since time.Duration) func(*compliance.Input) {
		return func(in *compliance.Input) {
			in.Live.Secrets.Sources[0].ChangedTime = new(metav1.NewTime(now.Add(-since)))
		}
	}
	apart := func(p *v1alpha1.MCPPolicySpec) {
		p.Secrets = &v1alpha1.SecretPolicy{Sharing: v1alpha1.SharingSelectedNamespaces}
	}
	twin := func(policies ...string) func(*compliance.Input) {
		return func(in *compliance.Input) {
			in.Live.Twins.Value = []compliance.Twin{{Namespace: "test", Name: "other", Ours: "github-token/token", Theirs: "x/y", Policies: policies}}
		}
	}
	fromSecret := func(name string) func(*compliance.Input) {
		return onServer(func(c *corev1.Container) { c.Env[1].ValueFrom.SecretKeyRef.Name = name })
	}
	run(t, []check{
		{control: "SEC-01", name: "none", want: v1alpha1.ControlPass},
		{control: "SEC-01", name: "a password", field: "spec.env[DB_PASSWORD].value", says: "put it into a Secret", spec: func(s *v1alpha1.MCPServerSpec) {
			s.Env = append(s.Env, v1alpha1.EnvVar{Name: "DB_PASSWORD", Value: new("hunter2hunter2")})
		}},
		{control: "SEC-01", name: "many", says: "3 more fields", live: func(in *compliance.Input) { in.Literals = &credentials.Report{More: 3} }},
		{control: "SEC-01", name: "not all was looked at", want: v1alpha1.ControlUnknown, says: "spec.args[3]", live: func(in *compliance.Input) {
			in.Literals = &credentials.Report{Unchecked: []string{"spec.args[3]"}}
		}},
		{control: "SEC-01", name: "nobody looked", want: v1alpha1.ControlUnknown, says: "nobody looked", live: func(in *compliance.Input) { in.Literals = nil }},

		{control: "SEC-02", name: "not demanded", want: none},
		{control: "SEC-02", name: "approved", want: v1alpha1.ControlPass, policy: names},
		{control: "SEC-02", name: "another", policy: names, field: "spec.env[LOG_LEVEL_2]", spec: func(s *v1alpha1.MCPServerSpec) {
			s.Env = append(s.Env, v1alpha1.EnvVar{Name: "LOG_LEVEL_2", Value: new("info")})
		}},
		{control: "SEC-02", name: "policies that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.PoliciesUnknown = "forbidden" }},

		{control: "SEC-03", name: "no age is demanded", want: none},
		{control: "SEC-03", name: "no secrets", want: none, spec: noSecrets, policy: age},
		{control: "SEC-03", name: "young", want: v1alpha1.ControlPass, policy: age, spec: ownAge, live: aged(23 * time.Hour)},
		{control: "SEC-03", name: "too old for the server", says: "24h0m0s", spec: ownAge, live: aged(24 * time.Hour)},
		{control: "SEC-03", name: "too old for policy", says: "policy p: Not changed for longer", policy: age, live: aged(25 * time.Hour)},
		{control: "SEC-03", name: "of unknown age", want: v1alpha1.ControlUnknown, says: "github-token", policy: age, live: func(in *compliance.Input) { in.Live.Secrets.Sources[0].ChangedTime = nil }},
		{control: "SEC-03", name: "a key of which nothing is known", want: v1alpha1.ControlUnknown, says: "github-token/token", policy: age, live: func(in *compliance.Input) { in.Live.Secrets.Sources = nil }},
		{control: "SEC-03", name: "nobody looked", want: v1alpha1.ControlUnknown, says: "looked at", policy: age, live: func(in *compliance.Input) { in.Live.Secrets = compliance.SecretsVerdict{} }},

		{control: "SEC-04", name: "no end is known", want: v1alpha1.ControlPass},
		{control: "SEC-04", name: "no secrets", want: none, spec: noSecrets},
		{control: "SEC-04", name: "valid", want: v1alpha1.ControlPass, live: func(in *compliance.Input) {
			in.Live.Secrets.Sources[0].NotAfter = new(metav1.NewTime(now.Add(time.Second)))
		}},
		{control: "SEC-04", name: "expired", says: "Expired", live: func(in *compliance.Input) { in.Live.Secrets.Sources[0].NotAfter = new(metav1.NewTime(now)) }},
		{control: "SEC-04", name: "expired, says its issuer", says: "Expired", live: func(in *compliance.Input) {
			in.Live.Secrets.Sources[0].Owner = &v1alpha1.SecretOwner{Kind: "Certificate", NotAfter: new(metav1.NewTime(now))}
		}},

		{control: "SEC-05", name: "current", want: v1alpha1.ControlPass},
		{control: "SEC-05", name: "rotating", want: v1alpha1.ControlUnknown, says: "being replaced", live: secretsAre(v1alpha1.ReasonRotating, "Pods are being replaced.")},
		{control: "SEC-05", name: "rolled back", says: "went back", live: secretsAre(v1alpha1.ReasonRotationRolledBack, "It went back.")},
		{control: "SEC-05", name: "waiting for a request", says: "waits", live: secretsAre(v1alpha1.ReasonManualRotationPending, "It waits.")},
		{control: "SEC-05", name: "a reason that nobody knows", says: "Odd", live: secretsAre("Odd", "")},
		{control: "SEC-05", name: "too old, and deployed", want: v1alpha1.ControlPass, live: secretsAre(v1alpha1.ReasonTooOld, "Old.")},
		{control: "SEC-05", name: "too old, and not deployed", want: v1alpha1.ControlUnknown, says: "not known", live: func(in *compliance.Input) {
			secretsAre(v1alpha1.ReasonTooOld, "Old.")(in)
			in.Live.Secrets.Desired = "other"
		}},

		{control: "SEC-06", name: "untouched", want: v1alpha1.ControlPass, live: drifted("Service", "spec.type")},
		{control: "SEC-06", name: "lost", says: "is gone", live: secretsAre(v1alpha1.ReasonSnapshotLost, "")},
		{control: "SEC-06", name: "edited", says: "Secret github is not as planned at data", live: drifted("Secret", "data")},
		{control: "SEC-06", name: "made anew", says: "Secret github was changed at data", live: repaired("Secret", "data", time.Second)},
		{control: "SEC-06", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.Drift.Unknown = "forbidden" }},

		{control: "SEC-07", name: "not demanded", want: none, live: twin()},
		{control: "SEC-07", name: "alone", want: v1alpha1.ControlPass, policy: apart},
		{control: "SEC-07", name: "shared within the policy", want: v1alpha1.ControlPass, policy: apart, live: twin("o", "p")},
		{control: "SEC-07", name: "shared beyond it", says: "policy p: the value of github-token/token is that of x/y of MCPServer test/other", policy: apart, live: twin("o")},
		{control: "SEC-07", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", policy: apart, live: func(in *compliance.Input) { in.Live.Twins.Unknown = "forbidden" }},

		{control: "SEC-08", name: "the snapshot", want: v1alpha1.ControlPass, live: fromSecret("github-env-fedcba9876543210")},
		{control: "SEC-08", name: "another Secret", says: "Secret github-token", live: fromSecret("github-token")},
		{control: "SEC-08", name: "one that is named alike", says: "Secret github-env-prod", live: fromSecret("github-env-prod")},
		{control: "SEC-08", name: "all of one", says: "all of Secret other", live: onServer(func(c *corev1.Container) {
			c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "other"}}}}
		})},
		{control: "SEC-08", name: "a volume", says: "volume extra is of Secret other", live: volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "other"}})},
	})
}

func TestImageControls(t *testing.T) {
	digest := func(p *v1alpha1.MCPPolicySpec) { p.Images = &v1alpha1.ImagePolicy{RequireDigest: true} }
	from := func(patterns ...v1alpha1.RepositoryPattern) func(*v1alpha1.MCPPolicySpec) {
		return func(p *v1alpha1.MCPPolicySpec) { p.Images = &v1alpha1.ImagePolicy{AllowedRepositories: patterns} }
	}
	otherImage := onServer(func(c *corev1.Container) { c.Image = "evil.example/server:v1" })
	otherContents := onPod(func(pod *corev1.Pod) { pod.Status.ContainerStatuses[0].ImageID = "x@sha256:bb" })
	run(t, []check{
		{control: "IMG-01", name: "not demanded", want: none},
		{control: "IMG-01", name: "allowed", want: v1alpha1.ControlPass, policy: from("ghcr.io/github/*")},
		{control: "IMG-01", name: "exactly", want: v1alpha1.ControlPass, policy: from("ghcr.io/github/github-mcp-server")},
		{control: "IMG-01", name: "a prefix is none without a star", policy: from("ghcr.io/github/github"), field: "spec.image"},
		{control: "IMG-01", name: "a registry that begins alike", policy: from("ghcr.io/*"), says: "ghcr.io.evil.example/x", spec: image("ghcr.io.evil.example/x:v1")},
		{control: "IMG-01", name: "Docker Hub's own", want: v1alpha1.ControlPass, policy: from("docker.io/library/*"), spec: image("nginx:1")},
		{control: "IMG-01", name: "Docker Hub", policy: from("docker.io/library/*"), says: "docker.io/team/nginx", spec: image("team/nginx:1")},
		{control: "IMG-01", name: "Docker Hub by its other name", want: v1alpha1.ControlPass, policy: from("docker.io/team/*"), spec: image("index.docker.io/team/nginx")},
		{control: "IMG-01", name: "a port and no tag", want: v1alpha1.ControlPass, policy: from("localhost:5000/a"), spec: image("localhost:5000/a")},
		{control: "IMG-01", name: "policies that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.PoliciesUnknown = "forbidden" }},

		{control: "IMG-02", name: "pinned", want: v1alpha1.ControlPass, policy: digest},
		{control: "IMG-02", name: "a tag", field: "spec.image", spec: image("ghcr.io/github/github-mcp-server:v1")},
		{control: "IMG-02", name: "a tag where policy demands a digest", says: "policy p: spec.image", policy: digest, spec: image("ghcr.io/github/github-mcp-server:v1")},

		{control: "IMG-03", name: "as declared", want: v1alpha1.ControlPass},
		{control: "IMG-03", name: "swapped", says: "evil.example/server:v1", live: otherImage},
		{control: "IMG-03", name: "swapped, in a rollout", want: v1alpha1.ControlUnknown, says: "rollout", live: inRollout(otherImage)},
		{control: "IMG-03", name: "the probe's is swapped", says: "init container isolation-probe", live: onPod(func(pod *corev1.Pod) { pod.Spec.InitContainers[0].Image = "evil.example/probe" })},
		{control: "IMG-03", name: "not rolled out", want: v1alpha1.ControlUnknown, says: "not rolled out", live: func(in *compliance.Input) {
			in.Server = in.Server.DeepCopy()
			in.Server.Spec.Image = "ghcr.io/github/github-mcp-server:v2"
		}},

		{control: "IMG-04", name: "one", want: v1alpha1.ControlPass},
		{control: "IMG-04", name: "two", says: "sha256:bb", live: otherContents},
		{control: "IMG-04", name: "two, in a rollout", want: v1alpha1.ControlUnknown, says: "rollout", live: inRollout(otherContents)},
		{control: "IMG-04", name: "not known yet", want: v1alpha1.ControlUnknown, says: "has not told yet", live: onPod(func(pod *corev1.Pod) { pod.Status.ContainerStatuses = nil })},

		{control: "IMG-05", name: "as declared", want: v1alpha1.ControlPass},
		{control: "IMG-05", name: "another", says: "imagePullSecrets", live: onPod(func(pod *corev1.Pod) { pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "x"}} })},
	})
}

func TestAccessControls(t *testing.T) {
	service := func(spec corev1.ServiceSpec) func(*compliance.Input) {
		return func(in *compliance.Input) {
			in.Live.Services.Value = append(in.Live.Services.Value, corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "front"}, Spec: spec})
		}
	}
	ours := map[string]string{"mcpwarden.io/server": "github"}
	all := func(changes ...func(*compliance.Input)) func(*compliance.Input) {
		return func(in *compliance.Input) {
			for _, change := range changes {
				change(in)
			}
		}
	}
	ingress := func(service string) func(*compliance.Input) {
		return func(in *compliance.Input) {
			in.Live.Ingresses.Value = []networkingv1.Ingress{{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{
				{}, {IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{
					{Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: service}}}}}}}}}}}
		}
	}
	route := func(service string) func(*compliance.Input) {
		return func(in *compliance.Input) {
			in.Live.Routes.Value = []compliance.Route{{Kind: "HTTPRoute", Namespace: "edge", Name: "web", Services: []string{service}}}
		}
	}
	account := func(change func(*corev1.ServiceAccount)) func(*compliance.Input) {
		return func(in *compliance.Input) { change(in.Live.Account.Value) }
	}
	clients := func(peer v1alpha1.PodPeer) func(*v1alpha1.MCPServerSpec) {
		return func(s *v1alpha1.MCPServerSpec) { s.Network.Ingress = []v1alpha1.PodPeer{peer} }
	}
	run(t, []check{
		{control: "ACC-01", name: "as planned", want: v1alpha1.ControlPass},
		{control: "ACC-01", name: "NodePort", says: "Service front is of type NodePort", live: service(corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: ours})},
		{control: "ACC-01", name: "LoadBalancer", says: "LoadBalancer", live: service(corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: ours})},
		{control: "ACC-01", name: "external addresses", says: "externalIPs", live: service(corev1.ServiceSpec{ExternalIPs: []string{"203.0.113.1"}, Selector: ours})},
		{control: "ACC-01", name: "by a label that a pod has now", says: "front", live: all(
			service(corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"front": "true"}}),
			onPod(func(pod *corev1.Pod) { pod.Labels["front"] = "true" }))},
		{control: "ACC-01", name: "before a pod runs", says: "front", live: all(noPods, service(corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: ours}))},
		{control: "ACC-01", name: "of others", want: v1alpha1.ControlPass, live: service(corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Selector: map[string]string{"app": "other"}})},
		{control: "ACC-01", name: "without a selector", want: v1alpha1.ControlPass, live: service(corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort})},
		{control: "ACC-01", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.Services.Unknown = "forbidden" }},

		{control: "ACC-02", name: "none", want: v1alpha1.ControlPass},
		{control: "ACC-02", name: "to the server's Service", says: "Ingress web leads to the server by Service github", live: ingress("github")},
		{control: "ACC-02", name: "to another Service of its pods", says: "Service front", live: all(service(corev1.ServiceSpec{Selector: ours}), ingress("front"))},
		{control: "ACC-02", name: "by default", says: "Service github", live: func(in *compliance.Input) {
			in.Live.Ingresses.Value = []networkingv1.Ingress{{Spec: networkingv1.IngressSpec{DefaultBackend: &networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "github"}}}}}
		}},
		{control: "ACC-02", name: "to others", want: v1alpha1.ControlPass, live: ingress("other")},
		{control: "ACC-02", name: "to a Service that cannot be read", want: v1alpha1.ControlUnknown, says: "Service other", live: all(ingress("other"), func(in *compliance.Input) {
			in.Live.Services = compliance.Seen[[]corev1.Service]{Unknown: "forbidden"}
		})},
		{control: "ACC-02", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.Ingresses.Unknown = "forbidden" }},

		{control: "ACC-03", name: "none", want: v1alpha1.ControlPass},
		{control: "ACC-03", name: "to the server", says: "HTTPRoute edge/web", live: route("github")},
		{control: "ACC-03", name: "to others", want: v1alpha1.ControlPass, live: route("other")},
		{control: "ACC-03", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.Routes.Unknown = "forbidden" }},

		{control: "ACC-04", name: "named", want: v1alpha1.ControlPass},
		{control: "ACC-04", name: "everybody", field: "spec.network.ingress[0]", spec: clients(everyPod)},
		{control: "ACC-04", name: "every namespace", field: "spec.network.ingress[0]", spec: clients(v1alpha1.PodPeer{NamespaceSelector: &v1alpha1.LabelSelector{}})},
		{control: "ACC-04", name: "every pod of its own namespace", want: v1alpha1.ControlPass, spec: clients(v1alpha1.PodPeer{PodSelector: &v1alpha1.LabelSelector{}})},
		{control: "ACC-04", name: "nobody", want: v1alpha1.ControlPass, spec: func(s *v1alpha1.MCPServerSpec) { s.Network = nil }},

		{control: "ACC-05", name: "none", want: v1alpha1.ControlPass},
		{control: "ACC-05", name: "bound", says: "RoleBinding b gives ClusterRole/edit to the server's account, through Group x", live: func(in *compliance.Input) {
			in.Live.Bindings.Value = []compliance.Binding{{Kind: "RoleBinding", Name: "b", Role: "ClusterRole/edit", Subject: "Group x"}}
		}},
		{control: "ACC-05", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.Bindings.Unknown = "forbidden" }},

		{control: "ACC-07", name: "as planned", want: v1alpha1.ControlPass},
		{control: "ACC-07", name: "as planned, on stdio", want: v1alpha1.ControlPass, spec: stdio},
		{control: "ACC-07", name: "no gateway", says: "has no gateway", live: onPod(func(pod *corev1.Pod) { pod.Spec.InitContainers = nil })},
		{control: "ACC-07", name: "a gateway that ended before the server started", says: "has no gateway", live: onPod(func(pod *corev1.Pod) {
			initContainer(pod, plan.GatewayContainerName).RestartPolicy = nil
		})},
		{control: "ACC-07", name: "no gateway, on stdio", spec: stdio, says: "has no gateway", live: onServer(func(c *corev1.Container) { c.Command = []string{"/server"} })},
		{control: "ACC-07", name: "a Service to the server's own port", says: "Service direct leads to port 8080", live: beside(corev1.ServicePort{Port: 80, TargetPort: intstr.FromInt32(8080)})},
		{control: "ACC-07", name: "a Service to its own port by name", says: "Service direct leads to port server", live: beside(corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("server")})},
		{control: "ACC-07", name: "a Service to the port of its own number", says: "Service direct leads to port", live: beside(corev1.ServicePort{Port: 8080})},
		{control: "ACC-07", name: "another Service to the gateway", want: v1alpha1.ControlPass, live: beside(corev1.ServicePort{Port: 80, TargetPort: intstr.FromString("mcp")})},
		{control: "ACC-07", name: "no pod runs", want: v1alpha1.ControlUnknown, says: "no pod runs", live: noPods},
		{control: "ACC-07", name: "Services that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.Services.Unknown = "forbidden" }},

		{control: "ACC-06", name: "as planned", want: v1alpha1.ControlPass},
		{control: "ACC-06", name: "another account", says: `account "admin"`, live: onPod(func(pod *corev1.Pod) { pod.Spec.ServiceAccountName = "admin" })},
		{control: "ACC-06", name: "it gives its token", says: "automountServiceAccountToken", live: account(func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = nil })},
		{control: "ACC-06", name: "it holds a pull secret", says: "holds secrets", live: account(func(a *corev1.ServiceAccount) { a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "x"}} })},
		{control: "ACC-06", name: "there is none", want: v1alpha1.ControlUnknown, says: "no ServiceAccount", live: func(in *compliance.Input) { in.Live.Account.Value = nil }},
		{control: "ACC-06", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) {
			in.Live.Account = compliance.Seen[*corev1.ServiceAccount]{Unknown: "forbidden"}
		}},
	})
}

func TestOperationControls(t *testing.T) {
	quarantined := func(s *v1alpha1.MCPServerSpec) { s.DesiredState = v1alpha1.StateQuarantined }
	stopped := func(s *v1alpha1.MCPServerSpec) { s.DesiredState = v1alpha1.StateStopped }
	// withPods lets the pods of before still be there.
	withPods := func(change func(*compliance.Input)) func(*compliance.Input) {
		return func(in *compliance.Input) {
			in.Live.Pods.Value = []corev1.Pod{podOf(in.Live.Deployment, "github-abc-a")}
			if change != nil {
				change(in)
			}
		}
	}
	label := func(level string) func(*compliance.Input) {
		return func(in *compliance.Input) {
			in.Live.NamespaceLabels.Value = map[string]string{"pod-security.kubernetes.io/enforce": level}
		}
	}
	exemption := func(name string, ends time.Duration, ids ...v1alpha1.ControlID) func(*v1alpha1.MCPPolicySpec) {
		return func(p *v1alpha1.MCPPolicySpec) {
			p.Exemptions = []v1alpha1.Exemption{{Namespace: "agents", Name: name, Controls: ids, ExpiresAt: metav1.NewTime(now.Add(ends))}}
		}
	}
	run(t, []check{
		{control: "OPS-01", name: "not in quarantine", want: none},
		{control: "OPS-01", name: "cut off", want: v1alpha1.ControlPass, spec: quarantined, live: withPods(nil)},
		{control: "OPS-01", name: "no pod is left", want: v1alpha1.ControlPass, spec: quarantined},
		{control: "OPS-01", name: "another policy opens egress", says: "another", spec: quarantined, live: withPods(another(egress(networkingv1.NetworkPolicyEgressRule{})))},
		{control: "OPS-01", name: "another policy opens ingress", says: "another", spec: quarantined, live: withPods(another(networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{}}}))},
		{control: "OPS-01", name: "its own policy is not as planned", says: "spec.egress", spec: quarantined, live: withPods(drifted("NetworkPolicy", "spec.egress"))},
		{control: "OPS-01", name: "it is not held", says: "spec.paused", spec: quarantined, live: withPods(drifted("Deployment", "spec.paused"))},
		{control: "OPS-01", name: "a pod without labels", says: "selected by no NetworkPolicy", spec: quarantined, live: withPods(onPod(func(pod *corev1.Pod) { pod.Labels = nil }))},
		{control: "OPS-01", name: "policies are not enforced", says: "reached", spec: quarantined, live: withPods(func(in *compliance.Input) {
			in.Live.Isolation = &probe.Verdict{Result: probe.NotEnforced, Message: "reached"}
		})},
		{control: "OPS-01", name: "enforcement is not proven", want: v1alpha1.ControlUnknown, says: "0 of 1", spec: quarantined, live: withPods(func(in *compliance.Input) {
			in.Live.Isolation = &probe.Verdict{Result: probe.Unknown, Message: "0 of 1"}
		})},
		{control: "OPS-01", name: "policies that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", spec: quarantined, live: withPods(func(in *compliance.Input) {
			in.Live.NetworkPolicies = compliance.Seen[[]networkingv1.NetworkPolicy]{Unknown: "forbidden"}
		})},

		{control: "OPS-02", name: "not stopped", want: none},
		{control: "OPS-02", name: "nothing runs", want: v1alpha1.ControlPass, spec: stopped},
		{control: "OPS-02", name: "pods are ending", want: v1alpha1.ControlUnknown, says: "has not ended", spec: stopped, live: withPods(nil)},
		{control: "OPS-02", name: "scaled up", says: "asks for pods", spec: stopped, live: func(in *compliance.Input) { in.Live.Deployment.Spec.Replicas = new(int32(1)) }},

		{control: "OPS-03", name: "restricted", want: v1alpha1.ControlPass},
		{control: "OPS-03", name: "baseline", want: v1alpha1.ControlPass, live: label("baseline")},
		{control: "OPS-03", name: "privileged", says: `"privileged"`, live: label("privileged")},
		{control: "OPS-03", name: "none", says: `""`, live: func(in *compliance.Input) { in.Live.NamespaceLabels.Value = nil }},
		{control: "OPS-03", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.NamespaceLabels.Unknown = "forbidden" }},

		{control: "OPS-04", name: "none", want: none},
		{control: "OPS-04", name: "of another server", want: none, policy: exemption("other", 0, "NET-01")},
		{control: "OPS-04", name: "in force", want: v1alpha1.ControlPass, policy: exemption("github", time.Second, "NET-01")},
		{control: "OPS-04", name: "policies that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.PoliciesUnknown = "forbidden" }},

		{control: "OPS-05", name: "as planned", want: v1alpha1.ControlPass, live: drifted("NetworkPolicy", "spec")},
		{control: "OPS-05", name: "changed", says: "Service github is not as planned at spec.type", live: drifted("Service", "spec.type")},
		{control: "OPS-05", name: "put right", says: "Deployment github was changed at spec.template", live: repaired("Deployment", "spec.template", time.Second)},
		{control: "OPS-05", name: "not known", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.Live.Drift.Unknown = "forbidden" }},

		{control: "OPS-06", name: "as planned", want: v1alpha1.ControlPass},
		{control: "OPS-06", name: "no probe", says: "readiness probe", live: onServer(func(c *corev1.Container) { c.ReadinessProbe = nil })},
		{control: "OPS-06", name: "a node that is lost", says: "nothing is heard", live: onPod(func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodUnknown })},

		{control: "OPS-07", name: "its own", want: v1alpha1.ControlPass},
	})
}

// Exemptions of other controls must not hide one that ended.
func TestExemptionThatEnded(t *testing.T) {
	in := faithful(t, input(nil))
	in.Policies[0].Spec.Exemptions = []v1alpha1.Exemption{{Namespace: "agents", Name: "github", Controls: []v1alpha1.ControlID{"NET-01", "XYZ-99"}, ExpiresAt: metav1.NewTime(now)}}
	got := resultOf(in, "OPS-04")
	record("OPS-04", got.Result)
	if got.Result != v1alpha1.ControlFail || len(got.Violations) != 2 || got.Counts() {
		t.Errorf("got %s %q", got.Result, got.Message)
	}
}

func TestSharedNamespace(t *testing.T) {
	in := faithful(t, input(func(s *v1alpha1.MCPServer) { s.Namespace = "default" }))
	got := resultOf(in, "OPS-07")
	record("OPS-07", got.Result)
	if got.Result != v1alpha1.ControlFail || got.Violations[0].Field != "metadata.namespace" {
		t.Errorf("got %s %q", got.Result, got.Message)
	}
}

// repaired is a change that was put right some time ago.
func repaired(kind, path string, ago time.Duration) func(*compliance.Input) {
	return func(in *compliance.Input) {
		in.Live.Repairs = append(in.Live.Repairs, compliance.Repair{Drift: compliance.Drift{Kind: kind, Name: "github", Path: path}, Time: now.Add(-ago)})
	}
}

// The verdict is looked at again when an exemption ends or a value becomes too old, whichever comes first.
func TestRecheck(t *testing.T) {
	in := faithful(t, input(nil))
	if got := compliance.Evaluate(in).Recheck; !got.IsZero() {
		t.Errorf("nothing is due, and yet at %s", got)
	}
	policy := &in.Policies[0].Spec
	policy.Exemptions = []v1alpha1.Exemption{{Namespace: "agents", Name: "github", ExpiresAt: metav1.NewTime(now.Add(5 * time.Hour))}}
	policy.Secrets = &v1alpha1.SecretPolicy{MaxAge: &metav1.Duration{Duration: 48 * time.Hour}} // the value is a day old
	in.Server.Spec.Rotation = &v1alpha1.Rotation{MaxAge: &metav1.Duration{Duration: 30 * time.Hour}}
	for _, step := range []struct {
		change func()
		want   time.Duration
	}{
		{func() {}, 5 * time.Hour},
		{func() { policy.Exemptions = nil }, 6 * time.Hour},
		{func() { in.Server.Spec.Rotation = nil }, 24 * time.Hour},
		{func() { in.Live.Secrets.Sources[0].NotAfter = new(metav1.NewTime(now.Add(time.Hour))) }, time.Hour},
		{func() { policy.Secrets = nil }, time.Hour},
		{func() { repaired("Deployment", "spec", 2*time.Second)(&in) }, 3 * time.Second},
	} {
		step.change()
		if got := compliance.Evaluate(in).Recheck; !got.Equal(now.Add(step.want)) {
			t.Errorf("rechecked at %s, want %s", got, now.Add(step.want))
		}
		before := in
		before.Now = now.Add(step.want)
		if compliance.Evaluate(before).Recheck.Equal(now.Add(step.want)) {
			t.Errorf("due at %s for ever", now.Add(step.want))
		}
	}
}

// beside is a Service of somebody else's that leads to the server's pods.
func beside(port corev1.ServicePort) func(*compliance.Input) {
	return func(in *compliance.Input) {
		in.Live.Services.Value = append(in.Live.Services.Value, corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "direct", Namespace: "agents"},
			Spec:       corev1.ServiceSpec{Selector: plan.SelectorLabels("github"), Ports: []corev1.ServicePort{port}},
		})
	}
}
