package controllers_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// caller is a server with a host rule.
func caller(namespace, name, host string) *v1alpha1.MCPServer {
	server := example(namespace, name)
	server.Spec.Network = &v1alpha1.Network{Egress: []v1alpha1.EgressRule{{To: v1alpha1.EgressTarget{Host: host}, Ports: []int32{443}}}}
	return server
}

// proxyObjects returns one object of each that an egress proxy has, in the order in which they are applied.
func proxyObjects(namespace string) []client.Object {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: plan.EgressProxyName}
	return []client.Object{
		&networkingv1.NetworkPolicy{ObjectMeta: meta},
		&corev1.ServiceAccount{ObjectMeta: meta},
		&corev1.Service{ObjectMeta: meta},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: plan.AccessListName}},
		&policyv1.PodDisruptionBudget{ObjectMeta: meta},
		&appsv1.Deployment{ObjectMeta: meta},
	}
}

func credentialOf(server *v1alpha1.MCPServer) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: plan.CredentialName(server.Name)}}
}

// settledCaller creates a server with a host rule and waits until it and its proxy are set up.
func settledCaller(t *testing.T, o *operator, server *v1alpha1.MCPServer) {
	t.Helper()
	create(t, server)
	waitUp(t, server)
	o.calm(t, server.Namespace)
}

func waitUp(t *testing.T, server *v1alpha1.MCPServer) {
	t.Helper()
	eventually(t, func() string {
		for _, obj := range append(proxyObjects(server.Namespace), &appsv1.Deployment{ObjectMeta: named(server)}) {
			if !exists(t, obj) {
				return kindOf(obj) + " " + obj.GetName() + " is not there"
			}
		}
		return ""
	})
}

// grantsOf reads the access list as the proxy does, and returns what it grants to who shows the
// server's credential; nil for nothing.
func grantsOf(t *testing.T, server *v1alpha1.MCPServer) *access.Grants {
	t.Helper()
	list := proxyObjects(server.Namespace)[3].(*corev1.Secret)
	secret := credentialOf(server)
	if !exists(t, list) || !exists(t, secret) {
		return nil
	}
	policy, err := access.Parse(list.Data[plan.AccessListKey])
	if err != nil {
		t.Fatalf("the proxy refuses the access list: %v", err)
	}
	return policy.Grants(server.Name, string(secret.Data[plan.CredentialKey]))
}

// mayReach waits until the access list lets a server reach a host, or does not.
func mayReach(t *testing.T, server *v1alpha1.MCPServer, host string, want bool) {
	t.Helper()
	eventually(t, func() string {
		grants := grantsOf(t, server)
		if got := grants != nil && grants.Judge(host, 443).Port; got != want {
			return fmt.Sprintf("server %s may reach %s: %t, want %t", server.Name, host, got, want)
		}
		return ""
	})
}

func TestEgressProxyIsSetUp(t *testing.T) {
	o := parallel(t)
	server := caller(newNamespace(t), "web", "api.example.com")
	settledCaller(t, o, server)
	mayReach(t, server, "api.example.com", true)
	mayReach(t, server, "other.example.com", false)

	secret, list := credentialOf(server), proxyObjects(server.Namespace)[3].(*corev1.Secret)
	get(t, secret)
	get(t, list)
	token := string(secret.Data[plan.CredentialKey])
	if raw, err := base64.RawURLEncoding.DecodeString(token); err != nil || len(raw) != 32 {
		t.Errorf("a credential of %d bytes, %v; want 32", len(raw), err)
	}
	if strings.Contains(string(list.Data[plan.AccessListKey]), token) {
		t.Error("the access list carries the credential")
	}
	if !plan.IsOwnedBy(secret, server) {
		t.Error("the credential does not go with its server")
	}
	service, deployment := proxyObjects(server.Namespace)[2].(*corev1.Service), &appsv1.Deployment{ObjectMeta: named(server)}
	get(t, service)
	get(t, deployment)
	want := "http://web:$(MCP_WARDEN_EGRESS_TOKEN)@" + service.Spec.ClusterIP + ":3128"
	if got := envOf(deployment, "HTTPS_PROXY"); got != want {
		t.Errorf("HTTPS_PROXY is %q, want %q", got, want)
	}
	// No kubelet runs here: the proxy has no ready pod, and the server says so.
	if c := waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonEgressProxyNotReady); !strings.Contains(c.Message, "egress proxy") {
		t.Errorf("message %q", c.Message)
	}
	for _, req := range o.in(server.Namespace, func(r request) bool { return r.verb == "list" || r.verb == "watch" }) {
		t.Errorf("the operator asked for %s: values of Secrets would be among the answers", req)
	}
}

func envOf(d *appsv1.Deployment, name string) string {
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// TestEgressFollowsTheServers changes what servers of a namespace may reach in every way there is.
func TestEgressFollowsTheServers(t *testing.T) {
	o := parallel(t)
	first := caller(newNamespace(t), "first", "api.example.com")
	second := caller(first.Namespace, "second", "files.example.com")
	settledCaller(t, o, first)
	settledCaller(t, o, second)
	mayReach(t, first, "api.example.com", true)
	mayReach(t, first, "files.example.com", false)
	mayReach(t, second, "files.example.com", true)

	for _, state := range []v1alpha1.DesiredState{v1alpha1.StateQuarantined, v1alpha1.StateStopped} {
		edit(t, first, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = state })
		mayReach(t, first, "api.example.com", false)
		mayReach(t, second, "files.example.com", true)
	}
	edit(t, first, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateRunning })
	mayReach(t, first, "api.example.com", true)
	edit(t, first, func(s *v1alpha1.MCPServer) { s.Spec.Network.Egress[0].To.Host = "*.example.com" })
	mayReach(t, first, "new.example.com", true)
	remove(t, first)
	eventually(t, func() string {
		list := proxyObjects(first.Namespace)[3].(*corev1.Secret)
		get(t, list)
		if strings.Contains(string(list.Data[plan.AccessListKey]), "first") {
			return "the deleted server is still in the access list"
		}
		return ""
	})
	waitGone(t, credentialOf(first))
	mayReach(t, second, "files.example.com", true)
}

// TestEgressProxyGoesWithTheLastRule takes the last host rule away, in each way.
func TestEgressProxyGoesWithTheLastRule(t *testing.T) {
	o := parallel(t)
	for name, end := range map[string]func(*testing.T, *v1alpha1.MCPServer){
		"rule removed": func(t *testing.T, server *v1alpha1.MCPServer) {
			edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Network = nil })
		},
		"stopped": func(t *testing.T, server *v1alpha1.MCPServer) {
			edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateStopped })
		},
		"deleted": func(t *testing.T, server *v1alpha1.MCPServer) { remove(t, server) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := caller(newNamespace(t), "web", "api.example.com")
			settledCaller(t, o, server)
			end(t, server)
			for _, obj := range proxyObjects(server.Namespace) {
				waitGone(t, obj)
			}
			o.calm(t, server.Namespace)
		})
	}
}

// The list is emptied before the proxy goes, and what closes its pods goes after them.
func TestEgressProxyIsClosedBeforeItGoes(t *testing.T) {
	o := parallel(t)
	server := caller(newNamespace(t), "web", "api.example.com")
	settledCaller(t, o, server)
	remove(t, server)
	for _, obj := range proxyObjects(server.Namespace) {
		waitGone(t, obj)
	}
	order := map[string]int{}
	for i, req := range o.in(server.Namespace, request.writes) {
		order[req.verb+" "+req.resource+" "+req.name] = i // the last of its kind
	}
	list, deployment := order["patch secrets "+plan.AccessListName], order["delete deployments "+plan.EgressProxyName]
	policy := order["delete networkpolicies "+plan.EgressProxyName]
	if list == 0 || list > deployment || deployment > policy {
		t.Errorf("the list was emptied in write %d, the Deployment deleted in %d, its NetworkPolicy in %d", list, deployment, policy)
	}
}

// TestEgressProxyGoesWhileTheOperatorIsDown deletes the last server when nobody looks.
func TestEgressProxyGoesWhileTheOperatorIsDown(t *testing.T) {
	o, err := startOperator()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.cancel) // where the test fails: two operators would confuse those after it
	server := caller(newNamespace(t), "web", "api.example.com")
	settledCaller(t, o, server)
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	remove(t, server)
	exclusive(t)
	for _, obj := range append(proxyObjects(server.Namespace), baselineOf(server.Namespace)) {
		waitGone(t, obj)
	}
}

// proxyTamperings are ways to change the objects of an egress proxy: by the place in proxyObjects.
func proxyTamperings() []tampering {
	pods := func(name string, change func(*corev1.PodSpec)) tampering {
		return tampering{name, 5, func(o client.Object) { change(&o.(*appsv1.Deployment).Spec.Template.Spec) }}
	}
	out := []tampering{
		{"egress", 0, func(o client.Object) {
			o.(*networkingv1.NetworkPolicy).Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
		}},
		{"ingress", 0, func(o client.Object) {
			o.(*networkingv1.NetworkPolicy).Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
		}},
		{"automount", 1, func(o client.Object) { o.(*corev1.ServiceAccount).AutomountServiceAccountToken = new(true) }},
		{"selector of the Service", 2, func(o client.Object) {
			o.(*corev1.Service).Spec.Selector = map[string]string{"app": "evil"}
		}},
		{"port of the Service", 2, func(o client.Object) { o.(*corev1.Service).Spec.Ports[0].TargetPort = intstr.FromInt32(1080) }},
		{"access list", 3, func(o client.Object) {
			o.(*corev1.Secret).Data[plan.AccessListKey] = []byte(`{"version":1,"servers":[]}`)
		}},
		{"access list, another key", 3, func(o client.Object) { o.(*corev1.Secret).Data["more"] = []byte("x") }},
		{"digest of the access list", 3, func(o client.Object) { o.GetAnnotations()[plan.AnnotationAccessList] = "other" }},
		{"disruption budget", 4, func(o client.Object) {
			o.(*policyv1.PodDisruptionBudget).Spec.MaxUnavailable = new(intstr.FromInt32(2))
		}},
		{"replicas", 5, func(o client.Object) { o.(*appsv1.Deployment).Spec.Replicas = new(int32(0)) }},
		pods("image", func(p *corev1.PodSpec) { p.Containers[0].Image = "registry.example/evil:v1" }),
		pods("another list", func(p *corev1.PodSpec) { p.Containers[0].Args[2] = "--access-list=/tmp/access.json" }),
		pods("root", func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.RunAsUser = new(int64(0)) }),
	}
	for kind, name := range []string{"NetworkPolicy", "ServiceAccount", "Service", "Secret", "PodDisruptionBudget", "Deployment"} {
		out = append(out,
			tampering{name + " managed-by removed", kind, func(o client.Object) { delete(o.GetLabels(), plan.LabelManagedBy) }},
			tampering{name + " component changed", kind, func(o client.Object) { o.GetLabels()[plan.LabelComponent] = "other" }},
			tampering{name + " unlabelled", kind, func(o client.Object) { o.SetLabels(nil) }},
		)
	}
	return out
}

func answeredFor(o client.Object) string {
	answer := []any{o.GetLabels()}
	if secret, ok := o.(*corev1.Secret); ok {
		answer = append(answer, secret.Data, secret.Annotations)
	} else {
		answer = append(answer, specOf(o))
	}
	return asJSON(answer)
}

func asJSON(value any) string {
	raw, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// TestTamperingWithTheProxyIsPutRight changes each object of a proxy, one after another.
func TestTamperingWithTheProxyIsPutRight(t *testing.T) {
	o := parallel(t)
	server := caller(newNamespace(t), "web", "api.example.com")
	settledCaller(t, o, server)
	for _, tc := range proxyTamperings() {
		t.Run(tc.name, func(t *testing.T) {
			was, is := proxyObjects(server.Namespace)[tc.kind], proxyObjects(server.Namespace)[tc.kind]
			get(t, was)
			edit(t, is, tc.change)
			eventually(t, func() string {
				get(t, is)
				return differs(answeredFor(is), answeredFor(was))
			})
			if is.GetUID() != was.GetUID() {
				t.Error("the object was replaced")
			}
		})
	}
	o.calm(t, server.Namespace)
}

func TestDeletedObjectOfTheProxyIsRecreated(t *testing.T) {
	o := parallel(t)
	server := caller(newNamespace(t), "web", "api.example.com")
	settledCaller(t, o, server)
	for i := range proxyObjects(server.Namespace) {
		was, is := proxyObjects(server.Namespace)[i], proxyObjects(server.Namespace)[i]
		get(t, was)
		remove(t, was)
		eventually(t, func() string {
			if !exists(t, is) || is.GetUID() == was.GetUID() {
				return kindOf(is) + " is not recreated"
			}
			return ""
		})
	}
	o.calm(t, server.Namespace)
	service, deployment := proxyObjects(server.Namespace)[2].(*corev1.Service), &appsv1.Deployment{ObjectMeta: named(server)}
	get(t, service)
	get(t, deployment)
	if got := envOf(deployment, "http_proxy"); !strings.Contains(got, "@"+service.Spec.ClusterIP+":") {
		t.Errorf("the server is told of %s, and the new Service has %s", got, service.Spec.ClusterIP)
	}
}

// TestCredentialThatIsLostOrChangedIsReplaced does what people and attackers do to a credential. The
// access list follows, and so does the pod template, which replaces the pods.
func TestCredentialThatIsLostOrChangedIsReplaced(t *testing.T) {
	o := parallel(t)
	weak := func(s *corev1.Secret, token string) {
		s.Data = map[string][]byte{plan.CredentialKey: []byte(token)}
		s.Annotations = map[string]string{plan.AnnotationCredential: access.Digest(token)}
	}
	for name, tamper := range map[string]func(*testing.T, *corev1.Secret){
		"deleted": func(t *testing.T, s *corev1.Secret) { remove(t, s) },
		"another, with its digest": func(t *testing.T, s *corev1.Secret) {
			other := s.DeepCopy()
			other.ObjectMeta = metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, Labels: s.Labels, OwnerReferences: s.OwnerReferences}
			weak(other, "guess me")
			remove(t, s)
			if err := admin.Create(t.Context(), other); client.IgnoreAlreadyExists(err) != nil { // the operator may have been quicker
				t.Fatal(err)
			}
		},
		"digest changed": func(t *testing.T, s *corev1.Secret) {
			edit(t, s, func(s *corev1.Secret) { s.Annotations[plan.AnnotationCredential] = access.Digest("x") })
		},
		"digest removed": func(t *testing.T, s *corev1.Secret) { edit(t, s, func(s *corev1.Secret) { s.Annotations = nil }) },
		"labels removed": func(t *testing.T, s *corev1.Secret) { edit(t, s, func(s *corev1.Secret) { s.Labels = nil }) },
		"owner removed":  func(t *testing.T, s *corev1.Secret) { edit(t, s, func(s *corev1.Secret) { s.OwnerReferences = nil }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := caller(newNamespace(t), "web", "api.example.com")
			settledCaller(t, o, server)
			was := credentialOf(server)
			get(t, was)
			old := string(was.Data[plan.CredentialKey])
			tamper(t, was.DeepCopy())
			is, deployment := credentialOf(server), &appsv1.Deployment{ObjectMeta: named(server)}
			eventually(t, func() string {
				if !exists(t, is) || string(is.Data[plan.CredentialKey]) == old || len(is.Data[plan.CredentialKey]) != 43 {
					return "there is no new credential"
				}
				get(t, deployment)
				return differs(deployment.Spec.Template.Annotations[plan.AnnotationCredential], access.Digest(string(is.Data[plan.CredentialKey])))
			})
			mayReach(t, server, "api.example.com", true)
			list := proxyObjects(server.Namespace)[3].(*corev1.Secret)
			get(t, list)
			if policy, err := access.Parse(list.Data[plan.AccessListKey]); err != nil || policy.Grants("web", old) != nil {
				t.Errorf("the old credential still counts (%v)", err)
			}
			o.calm(t, server.Namespace)
		})
	}
}

// TestForeignObjectIsInTheWayOfTheProxy finds each of its names taken.
func TestForeignObjectIsInTheWayOfTheProxy(t *testing.T) {
	o := parallel(t)
	labels := map[string]string{"app": "foreign"}
	for i, kind := range []string{"NetworkPolicy", "ServiceAccount", "Service", "Secret", "PodDisruptionBudget", "Deployment", "credential"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := caller(newNamespace(t), "web", "api.example.com")
			theirs := append(proxyObjects(server.Namespace), credentialOf(server))[i]
			switch theirs := theirs.(type) {
			case *corev1.Service:
				theirs.Spec.Ports = []corev1.ServicePort{{Port: 80}}
			case *appsv1.Deployment:
				theirs.Spec = appsv1.DeploymentSpec{Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: labels},
					Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
						Containers: []corev1.Container{{Name: "app", Image: "registry.example/app:v1"}}}}}
			}
			create(t, theirs)
			was := unrolled(t, theirs.DeepCopyObject().(client.Object))
			create(t, server)
			eventually(t, func() string {
				if len(eventsOf(t, server, v1alpha1.ReasonNameConflict)) == 0 {
					return "no event tells of the conflict"
				}
				return ""
			})
			untouched(t, was)
			if kind != "credential" && kind != "Deployment" && exists(t, proxyObjects(server.Namespace)[5]) {
				t.Error("the proxy was set up all the same")
			}
			remove(t, theirs)
			waitUp(t, server)
			mayReach(t, server, "api.example.com", true)
			o.calm(t, server.Namespace)
		})
	}
}

// TestKubeletsAreToldOfTheAccessList looks at the pods of the proxy: a kubelet looks at a Secret again
// when the pod changes.
func TestKubeletsAreToldOfTheAccessList(t *testing.T) {
	o := parallel(t)
	server := caller(newNamespace(t), "web", "api.example.com")
	settledCaller(t, o, server)
	told := func() (digest string) {
		list := proxyObjects(server.Namespace)[3].(*corev1.Secret)
		eventually(t, func() string {
			get(t, list)
			digest = list.Annotations[plan.AnnotationAccessList]
			pods := &corev1.PodList{}
			if err := admin.List(t.Context(), pods, client.InNamespace(server.Namespace), client.MatchingLabels(plan.EgressProxyLabels())); err != nil {
				t.Fatal(err)
			}
			if len(pods.Items) != 2 {
				return fmt.Sprintf("%d pods of the proxy", len(pods.Items))
			}
			for _, p := range pods.Items {
				if told := p.Annotations["mcpwarden.io/nudged"]; !strings.HasSuffix(told, "/"+list.ResourceVersion+"/"+digest) {
					return fmt.Sprintf("the kubelet of pod %s was told of %q", p.Name, told)
				}
			}
			return ""
		})
		return digest
	}
	before := told()
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Network.Egress[0].To.Host = "other.example.com" })
	mayReach(t, server, "other.example.com", true)
	if told() == before {
		t.Error("another list has the same digest")
	}
	o.calm(t, server.Namespace)
	pods := len(o.in(server.Namespace, func(r request) bool { return r.verb == "patch" && r.resource == "pods" }))
	if pods < 4 || pods > 12 {
		t.Errorf("%d annotations of 2 pods for 2 lists", pods)
	}
}

// An operator that dies between any two of its writes about a proxy leaves nothing that the next
// cannot finish, and no proxy without its isolation and its list.
func TestCrashWhileTheProxyIsSetUp(t *testing.T) {
	for _, n := range []int{1, 4, 7, 10, 13} {
		t.Run(fmt.Sprintf("after %d", n), func(t *testing.T) {
			server := caller(newNamespace(t), "web", "api.example.com")
			crashAfter(t, server, n)
			all := proxyObjects(server.Namespace)
			if exists(t, all[5]) && (!exists(t, all[0]) || !exists(t, all[3])) {
				t.Error("the proxy came before its isolation or its list")
			}
			o := exclusive(t)
			waitUp(t, server)
			mayReach(t, server, "api.example.com", true)
			o.calm(t, server.Namespace)
		})
	}
}

func TestRestartWithProxiesWritesNothing(t *testing.T) {
	o, err := startOperator()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.cancel) // where the test fails: two operators would confuse those after it
	namespace := newNamespace(t)
	for i := range 5 {
		create(t, caller(namespace, fmt.Sprintf("server-%d", i), "api.example.com"))
	}
	for i := range 5 {
		waitUp(t, caller(namespace, fmt.Sprintf("server-%d", i), ""))
		mayReach(t, caller(namespace, fmt.Sprintf("server-%d", i), ""), "api.example.com", true)
	}
	settle(t, o, namespace)
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	again := exclusive(t)
	again.calm(t, "")
	if writes := again.writes(namespace); len(writes) > 0 {
		t.Errorf("%d writes, the first is %s", len(writes), writes[0])
	}
	reads := again.in(namespace, func(r request) bool { return !r.writes() })
	if want := 6; len(reads) != want {
		t.Errorf("%d reads of a namespace with a proxy and 5 servers, want one of each of %d Secrets: %v", len(reads), want, reads)
	}
}

// settle waits until the pods of a proxy were told of its list for good.
func settle(t *testing.T, o *operator, namespace string) {
	t.Helper()
	eventually(t, func() string {
		pods := &corev1.PodList{}
		if err := admin.List(context.Background(), pods, client.InNamespace(namespace), client.MatchingLabels(plan.EgressProxyLabels())); err != nil {
			t.Fatal(err)
		}
		if len(pods.Items) < 2 {
			return "the proxy has too few pods"
		}
		return notNudged(pods.Items)
	})
	o.calm(t, namespace)
}
