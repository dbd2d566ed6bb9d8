package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/plan/plantest"
)

// as returns a client of a user in some groups.
func as(t *testing.T, user string, groups ...string) client.Client {
	t.Helper()
	own := rest.CopyConfig(config)
	own.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	out, err := client.New(own, client.Options{Scheme: scheme})
	must(t, err)
	return out
}

// site is a namespace with an MCP server in it, as the operator leaves it, and the people around it.
type site struct {
	namespace string
	server    *v1alpha1.MCPServer
	// operator applies; tenant has every right in the namespace, and no other; rescuer has them, too, and may break the glass.
	operator, tenant, rescuer client.Client
	// pod of the server, which the ReplicaSet controller made, and another that has nothing to do with it.
	pod, bystander *corev1.Pod
}

// newSite brings a server up in a namespace.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{namespace: newNamespace(t, nil),
		operator: as(t, "system:serviceaccount:mcp-warden-system:mcp-warden", "system:serviceaccounts", "system:serviceaccounts:mcp-warden-system", "system:authenticated"),
		tenant:   as(t, "tenant", "system:authenticated"), rescuer: as(t, "rescuer", "mcpwarden.io:break-glass", "system:authenticated")}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "everything"}, Rules: []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}}}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "everything"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "tenant"}, {APIGroup: rbacv1.GroupName, Kind: "User", Name: "rescuer"}}}
	must(t, admin.Create(t.Context(), role))
	must(t, admin.Create(t.Context(), binding))

	s.server = serverOf(t, "replicas: 2, scheduling: {tolerations: [{operator: Exists}]}", s.namespace)
	s.server.Name = "web"
	must(t, s.tenant.Create(t.Context(), s.server))
	s.apply(t)
	s.awaitPod(t)
	s.bystander = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "bystander"}, Spec: podSpec()}
	must(t, s.tenant.Create(t.Context(), s.bystander))
	return s
}

// apply writes what the operator would.
func (s *site) apply(t *testing.T) {
	t.Helper()
	cases, err := plantest.Load()
	must(t, err)
	input := cases[0].Input // for the facts
	input.Server = s.server
	input.Secrets = plan.Secrets{}
	p, errs := plan.Build(input)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	p.Objects = append(p.Objects, plan.SnapshotSecret(s.server, "0123456789abcdef", "digest", map[string][]byte{"TOKEN": []byte("x")}))
	for _, o := range p.Objects {
		raw, err := json.Marshal(o.Config)
		must(t, err)
		object := &unstructured.Unstructured{}
		must(t, json.Unmarshal(raw, object))
		if err := s.operator.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(plan.FieldManager), client.ForceOwnership); err != nil {
			t.Fatalf("the operator applies %s %s: %v", o.Kind, o.Name, err)
		}
	}
}

// awaitPod waits for a pod, which Kubernetes' own controllers make.
func (s *site) awaitPod(t *testing.T) {
	t.Helper()
	pods := &corev1.PodList{}
	slices := &discoveryv1.EndpointSliceList{}
	err := wait.PollUntilContextTimeout(t.Context(), glance, patience, true, func(ctx context.Context) (bool, error) {
		err := admin.List(ctx, pods, client.InNamespace(s.namespace), client.MatchingLabels(plan.SelectorLabels("web")))
		if err == nil {
			err = admin.List(ctx, slices, client.InNamespace(s.namespace), client.MatchingLabels{discoveryv1.LabelServiceName: "web", plan.LabelManagedBy: plan.ManagedBy})
		}
		return len(pods.Items) == 2 && len(slices.Items) > 0, err
	})
	if err != nil {
		t.Fatalf("Kubernetes makes no pods or no EndpointSlice: %v", err)
	}
	s.pod = &pods.Items[0]
}

func (s *site) meta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: s.namespace, Name: "web"}
}

// change reads an object as it is and tries to write it changed, without effect.
func change[T client.Object](object T, edit func(T)) func(context.Context, client.Client) error {
	return func(ctx context.Context, c client.Client) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		edit(object)
		return c.Update(ctx, object, client.DryRunAll)
	}
}

func remove(object client.Object) func(context.Context, client.Client) error {
	return func(ctx context.Context, c client.Client) error { return c.Delete(ctx, object, client.DryRunAll) }
}

func create(object client.Object) func(context.Context, client.Client) error {
	return func(ctx context.Context, c client.Client) error {
		return c.Create(ctx, object.DeepCopyObject().(client.Object), client.DryRunAll)
	}
}

// subresource tries to write a pod through one of its subresources.
func subresource(name string, pod *corev1.Pod, edit func(*corev1.Pod)) func(context.Context, client.Client) error {
	return func(ctx context.Context, c client.Client) error {
		live := pod.DeepCopy()
		if err := admin.Get(ctx, client.ObjectKeyFromObject(pod), live); err != nil {
			return err
		}
		edit(live)
		return c.SubResource(name).Update(ctx, live, &client.SubResourceUpdateOptions{UpdateOptions: client.UpdateOptions{DryRun: []string{metav1.DryRunAll}}})
	}
}

// attempt is something that somebody tries.
type attempt struct {
	name string
	try  func(context.Context, client.Client) error
}

func podSpec() corev1.PodSpec {
	return corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "evil.example/a"}}}
}

func template(labels map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podSpec()}
}

// tampering is what nobody may do but the operator and who may break the glass.
func (s *site) tampering() []attempt {
	meta, ours := s.meta(), plan.SelectorLabels("web")
	other := metav1.ObjectMeta{Namespace: s.namespace, Name: "other"}
	labelled := *other.DeepCopy()
	labelled.Labels = ours
	owned := *labelled.DeepCopy()
	owned.OwnerReferences = s.pod.OwnerReferences
	under := func(labels map[string]string, account string) *corev1.Pod {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "other", Labels: labels}, Spec: podSpec()}
		pod.Spec.ServiceAccountName = account
		return pod
	}
	both := maps.Clone(ours)
	both["app"] = "other"
	account, secret := &corev1.ServiceAccount{ObjectMeta: meta}, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: plan.SnapshotName("web", "0123456789abcdef")}}
	baseline := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: plan.BaselineName}}
	sets := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.pod.OwnerReferences[0].Name}}
	deployment := func(edit func(*appsv1.Deployment)) func(context.Context, client.Client) error {
		return change(&appsv1.Deployment{ObjectMeta: meta}, edit)
	}
	policy := func(edit func(*networkingv1.NetworkPolicy)) func(context.Context, client.Client) error {
		return change(&networkingv1.NetworkPolicy{ObjectMeta: meta}, edit)
	}
	service := func(edit func(*corev1.Service)) func(context.Context, client.Client) error {
		return change(&corev1.Service{ObjectMeta: meta}, edit)
	}
	pod := func(edit func(*corev1.Pod)) func(context.Context, client.Client) error {
		return change(s.pod.DeepCopy(), edit)
	}
	unlabel := func(o client.Object) {
		labels := o.GetLabels()
		delete(labels, plan.LabelManagedBy)
		o.SetLabels(labels)
	}
	return []attempt{
		{"another image in the Deployment", deployment(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = "evil.example/a" })},
		{"a sidecar", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers, podSpec().Containers...)
		})},
		{"a variable", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Env = append(d.Spec.Template.Spec.Containers[0].Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "/tmp/a"})
		})},
		{"a label of the template", deployment(func(d *appsv1.Deployment) { d.Spec.Template.Labels["app"] = "other" })},
		{"an annotation of the template", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = map[string]string{"inject.example/sidecar": "true"}
		})},
		{"a restart and another image", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "now"}
			d.Spec.Template.Spec.Containers[0].Image = "evil.example/a"
		})},
		{"a pause", deployment(func(d *appsv1.Deployment) { d.Spec.Paused = true })},
		{"the strategy", deployment(func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		})},
		{"the number of pods, in the Deployment itself", deployment(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(9)) })},
		{"the Deployment's label", deployment(func(d *appsv1.Deployment) { unlabel(d) })},
		{"the Deployment's owner", deployment(func(d *appsv1.Deployment) { d.OwnerReferences = nil })},
		{"the operator's annotations", deployment(func(d *appsv1.Deployment) { d.Annotations = map[string]string{plan.AnnotationStopped: "true"} })},
		{"a finalizer", deployment(func(d *appsv1.Deployment) { d.Finalizers = []string{"a.example/b"} })},
		{"no Deployment", remove(&appsv1.Deployment{ObjectMeta: meta})},
		{"another image in the ReplicaSet", change(sets.DeepCopy(), func(r *appsv1.ReplicaSet) { r.Spec.Template.Spec.Containers[0].Image = "evil.example/a" })},
		{"no ReplicaSet", remove(sets)},
		{"a revision that is scaled", func(ctx context.Context, c client.Client) error {
			scale := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: sets.Name}, Spec: autoscalingv1.ScaleSpec{Replicas: 5}}
			return c.SubResource("scale").Update(ctx, sets.DeepCopy(), &client.SubResourceUpdateOptions{SubResourceBody: scale, UpdateOptions: client.UpdateOptions{DryRun: []string{metav1.DryRunAll}}})
		}},
		{"an endpoint of one's own", create(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "other", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.7"}}}})},
		{"another Endpoints object", func(ctx context.Context, c client.Client) error {
			endpoints := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Endpoints", "metadata": map[string]any{"namespace": s.namespace, "name": "web"}}}
			return c.Patch(ctx, endpoints, client.RawPatch(types.MergePatchType, []byte(`{"subsets":[{"addresses":[{"ip":"203.0.113.7"}]}]}`)), client.DryRunAll)
		}},
		{"another Endpoints object, without a label", func(ctx context.Context, c client.Client) error {
			endpoints := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Endpoints", "metadata": map[string]any{"namespace": s.namespace, "name": "web"}}}
			return c.Patch(ctx, endpoints, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":null},"subsets":[{"addresses":[{"ip":"203.0.113.7"}]}]}`)), client.DryRunAll)
		}},
		{"no endpoints", func(ctx context.Context, c client.Client) error {
			return c.DeleteAllOf(ctx, &discoveryv1.EndpointSlice{}, client.InNamespace(s.namespace), client.MatchingLabels{discoveryv1.LabelServiceName: "web"}, client.DryRunAll)
		}},
		{"another address of a pod", subresource("status", s.pod, func(p *corev1.Pod) {
			p.Status.PodIP, p.Status.PodIPs = "203.0.113.7", []corev1.PodIP{{IP: "203.0.113.7"}}
		})},

		{"a NetworkPolicy that opens everything", policy(func(p *networkingv1.NetworkPolicy) {
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
		})},
		{"a NetworkPolicy of other pods", policy(func(p *networkingv1.NetworkPolicy) { p.Spec.PodSelector.MatchLabels = map[string]string{"a": "b"} })},
		{"a NetworkPolicy for ingress alone", policy(func(p *networkingv1.NetworkPolicy) {
			p.Spec.PolicyTypes, p.Spec.Egress = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, nil
		})},
		{"the NetworkPolicy's label, and all that it says", policy(func(p *networkingv1.NetworkPolicy) {
			unlabel(p)
			p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{})
		})},
		{"no NetworkPolicy", remove(&networkingv1.NetworkPolicy{ObjectMeta: meta})},
		{"no baseline", remove(baseline)},
		{"a baseline of nothing", change(baseline.DeepCopy(), func(p *networkingv1.NetworkPolicy) { p.Spec.PodSelector.MatchLabels = map[string]string{"a": "b"} })},
		{"a NetworkPolicy that passes for ours", create(&networkingv1.NetworkPolicy{ObjectMeta: labelled})},

		{"a Service of type NodePort", service(func(o *corev1.Service) { o.Spec.Type = corev1.ServiceTypeNodePort })},
		{"a Service with an external address", service(func(o *corev1.Service) { o.Spec.ExternalIPs = []string{"203.0.113.7"} })},
		{"a Service of other pods", service(func(o *corev1.Service) { o.Spec.Selector = map[string]string{"app": "evil"} })},
		{"no Service", remove(&corev1.Service{ObjectMeta: meta})},
		{"a Service that passes for ours", create(&corev1.Service{ObjectMeta: labelled, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}})},

		{"an account with a token", change(account.DeepCopy(), func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = new(true) })},
		{"an account with pull secrets", change(account.DeepCopy(), func(a *corev1.ServiceAccount) {
			a.ImagePullSecrets = append(a.ImagePullSecrets, corev1.LocalObjectReference{Name: "evil"})
		})},
		{"no account", remove(account)},
		{"a snapshot less", remove(secret)},
		{"a snapshot without a label", change(secret.DeepCopy(), func(o *corev1.Secret) { o.Labels = nil })},
		{"a snapshot of another digest", change(secret.DeepCopy(), func(o *corev1.Secret) { o.Annotations[plan.AnnotationDigest] = "other" })},
		{"a Secret that passes for ours", create(&corev1.Secret{ObjectMeta: labelled})},
		{"a ConfigMap that passes for ours", create(&corev1.ConfigMap{ObjectMeta: labelled})},
		{"a budget that lets nobody drain", change(&policyv1.PodDisruptionBudget{ObjectMeta: meta}, func(b *policyv1.PodDisruptionBudget) { b.Spec.MaxUnavailable = new(intstr.FromInt32(0)) })},
		{"no budget", remove(&policyv1.PodDisruptionBudget{ObjectMeta: meta})},

		{"a pod's label less", pod(func(p *corev1.Pod) { unlabel(p) })},
		{"a pod of another server", pod(func(p *corev1.Pod) { p.Labels[plan.LabelServer] = "other" })},
		{"a pod's label more", pod(func(p *corev1.Pod) { p.Labels["app"] = "other" })},
		{"another image in a pod", pod(func(p *corev1.Pod) { p.Spec.Containers[0].Image = "evil.example/a" })},
		{"a pod without an owner", pod(func(p *corev1.Pod) { p.OwnerReferences = nil })},
		{"a pod less", remove(s.pod)},
		{"an ephemeral container", subresource("ephemeralcontainers", s.pod, func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "evil.example/a",
				ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile}})
		})},
		{"all pods at once", func(ctx context.Context, c client.Client) error {
			return c.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(s.namespace), client.MatchingLabels(ours), client.DryRunAll)
		}},
		{"a pod of one's own that is labelled later", change(s.bystander.DeepCopy(), func(p *corev1.Pod) { p.Labels = ours })},
		{"a pod that passes for one of the server", create(&corev1.Pod{ObjectMeta: labelled, Spec: podSpec()})},
		{"a pod that names the ReplicaSet as its owner", create(&corev1.Pod{ObjectMeta: owned, Spec: podSpec()})},
		{"a pod under the server's account", create(under(nil, "web"))},
		{"a Deployment whose pods pass for the server's", create(&appsv1.Deployment{ObjectMeta: other, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}, Template: template(both)}})},
		{"a ReplicaSet whose pods pass for the server's", create(&appsv1.ReplicaSet{ObjectMeta: other, Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}, Template: template(both)}})},
		{"a ReplicaSet that the Deployment would adopt", create(&appsv1.ReplicaSet{ObjectMeta: labelled, Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: ours}, Template: template(ours)}})},
		{"a verdict of one's own", func(ctx context.Context, c client.Client) error {
			server := &v1alpha1.MCPServer{ObjectMeta: meta}
			if err := admin.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
				return err
			}
			server.Status.ReadyReplicas = 7
			return c.Status().Update(ctx, server, client.DryRunAll)
		}},
	}
}

// harmless is what everybody may do whom RBAC lets.
func (s *site) harmless() []attempt {
	meta := s.meta()
	other := metav1.ObjectMeta{Namespace: s.namespace, Name: "other", Labels: map[string]string{"app": "other", plan.LabelManagedBy: "Helm"}}
	deployment := func(edit func(*appsv1.Deployment)) func(context.Context, client.Client) error {
		return change(&appsv1.Deployment{ObjectMeta: meta}, edit)
	}
	return []attempt{
		{"kubectl rollout restart", deployment(func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations = maps.Clone(d.Spec.Template.Annotations)
			if d.Spec.Template.Annotations == nil {
				d.Spec.Template.Annotations = map[string]string{}
			}
			d.Spec.Template.Annotations["kubectl.kubernetes.io/restartedAt"] = time.Now().Format(time.RFC3339)
		})},
		{"an annotation", deployment(func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a.example/b": "c"} })},
		{"an annotation of a pod", change(s.pod.DeepCopy(), func(p *corev1.Pod) { p.Annotations = map[string]string{"cni.example/ip": "c"} })},
		{"an annotation of a pod, by its status", subresource("status", s.pod, func(p *corev1.Pod) { p.Annotations = map[string]string{"cni.example/ip": "c"} })},
		{"an endpoint of another Service", create(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "other", Labels: map[string]string{discoveryv1.LabelServiceName: "other"}},
			AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.7"}}}})},
		{"kubectl scale", func(ctx context.Context, c client.Client) error {
			scale := &autoscalingv1.Scale{ObjectMeta: meta, Spec: autoscalingv1.ScaleSpec{Replicas: 3}}
			return c.SubResource("scale").Update(ctx, &appsv1.Deployment{ObjectMeta: meta}, &client.SubResourceUpdateOptions{SubResourceBody: scale, UpdateOptions: client.UpdateOptions{DryRun: []string{metav1.DryRunAll}}})
		}},
		{"an eviction", func(ctx context.Context, c client.Client) error {
			return c.SubResource("eviction").Create(ctx, s.pod.DeepCopy(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: s.pod.Name}, DeleteOptions: &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}})
		}},
		{"a NetworkPolicy of one's own", create(&networkingv1.NetworkPolicy{ObjectMeta: other})},
		{"a Service of one's own", create(&corev1.Service{ObjectMeta: other, Spec: corev1.ServiceSpec{Selector: plan.SelectorLabels("web"), Ports: []corev1.ServicePort{{Port: 80}}}})},
		{"a pod of one's own", create(&corev1.Pod{ObjectMeta: other, Spec: podSpec()})},
		{"a Deployment of one's own", create(&appsv1.Deployment{ObjectMeta: other, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}, Template: template(map[string]string{"app": "other"})}})},
		{"a binding to the account", create(&rbacv1.RoleBinding{ObjectMeta: other, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "everything"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "web", Namespace: s.namespace}}})},
		{"an edit of the server", change(&v1alpha1.MCPServer{ObjectMeta: meta}, func(m *v1alpha1.MCPServer) { m.Spec.DesiredState = v1alpha1.StateStopped })},
		{"no server", remove(&v1alpha1.MCPServer{ObjectMeta: meta})},
	}
}

func TestTampering(t *testing.T) {
	s := newSite(t)
	must(t, inForce(t.Context()))
	attempts := s.tampering()
	if len(attempts) < 50 {
		t.Errorf("%d attempts, want at least 50", len(attempts))
	}
	for _, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			refusal := refusalOf(t, a.try(t.Context(), s.tenant))
			if refusal == "" {
				t.Error("it is let through")
			}
			if strings.Contains(refusal, "mcp-warden-policy") {
				t.Errorf("another policy refused it: %s", refusal)
			}
			if err := a.try(t.Context(), s.rescuer); err != nil && !apierrors.IsInvalid(err) {
				t.Errorf("who may break the glass is refused: %v", err)
			}
			if err := a.try(t.Context(), admin); err != nil && !apierrors.IsInvalid(err) {
				t.Errorf("the cluster admin is refused: %v", err)
			}
		})
	}
}

func TestHarmless(t *testing.T) {
	s := newSite(t)
	must(t, inForce(t.Context()))
	for _, a := range s.harmless() {
		t.Run(a.name, func(t *testing.T) {
			if err := a.try(t.Context(), s.tenant); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

// Kubernetes' own controllers do their work: what the operator changes is rolled out, what loses its owner is collected, and
// a namespace can be deleted.
func TestKubernetesWorks(t *testing.T) {
	s := newSite(t)
	s.server.Spec.Image = "registry.example/team/server:v2"
	s.apply(t)
	rolled := func(ctx context.Context) (bool, error) {
		pods := &corev1.PodList{}
		err := admin.List(ctx, pods, client.InNamespace(s.namespace))
		for _, pod := range pods.Items {
			if pod.Spec.Containers[0].Image == s.server.Spec.Image {
				return true, nil
			}
		}
		return false, err
	}
	must(t, wait.PollUntilContextTimeout(t.Context(), glance, patience, true, rolled))
	must(t, s.tenant.Delete(t.Context(), s.server))
	gone := func(ctx context.Context) (bool, error) {
		deployments := &appsv1.DeploymentList{}
		err := admin.List(ctx, deployments, client.InNamespace(s.namespace))
		return len(deployments.Items) == 0, err
	}
	must(t, wait.PollUntilContextTimeout(t.Context(), glance, patience, true, gone))

	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	must(t, admin.Delete(t.Context(), namespace))
	must(t, wait.PollUntilContextTimeout(t.Context(), glance, patience, true, func(ctx context.Context) (bool, error) {
		err := admin.Get(ctx, client.ObjectKeyFromObject(namespace), namespace)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}))
}

// A server in quarantine keeps its pods, whoever would scale it.
func TestQuarantineKeepsEvidence(t *testing.T) {
	s := newSite(t)
	must(t, s.operator.Patch(t.Context(), &appsv1.Deployment{ObjectMeta: s.meta()}, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"paused":true}}`))))
	must(t, inForce(t.Context()))
	for name, c := range map[string]client.Client{"tenant": s.tenant, "autoscaler": as(t, "system:serviceaccount:kube-system:horizontal-pod-autoscaler", "system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")} {
		err := wait.PollUntilContextTimeout(t.Context(), glance, patience, true, func(ctx context.Context) (bool, error) {
			scale := &autoscalingv1.Scale{ObjectMeta: s.meta(), Spec: autoscalingv1.ScaleSpec{Replicas: 0}}
			err := c.SubResource("scale").Update(ctx, &appsv1.Deployment{ObjectMeta: s.meta()}, &client.SubResourceUpdateOptions{SubResourceBody: scale, UpdateOptions: client.UpdateOptions{DryRun: []string{metav1.DryRunAll}}})
			return strings.Contains(refusalOf(t, err), "is in quarantine and keeps its pods"), nil
		})
		if err != nil {
			t.Errorf("the %s scales it", name)
		}
	}
}

// Policies are for cluster admins.
func TestWhoMayEditPolicies(t *testing.T) {
	s := newSite(t)
	policy := policyOf(t, judged{}, s.namespace)
	for name, c := range map[string]client.Client{"tenant": s.tenant, "rescuer": s.rescuer, "operator": s.operator} {
		if err := create(policy)(t.Context(), c); !apierrors.IsForbidden(err) {
			t.Errorf("the %s may create policies: %v", name, err)
		}
	}
	must(t, create(policy)(t.Context(), admin))
}

// BenchmarkPod is what the guards cost a pod that has nothing to do with MCP servers: in a namespace without any, and beside a hundred.
func BenchmarkPod(b *testing.B) {
	for _, accounts := range []int{0, 100} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-"}}
		if err := admin.Create(b.Context(), namespace); err != nil {
			b.Fatal(err)
		}
		for i := range accounts {
			account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: fmt.Sprintf("server-%d", i), Labels: plan.SelectorLabels(fmt.Sprintf("server-%d", i))}}
			if err := admin.Create(b.Context(), account); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("accounts=%d", accounts), func(b *testing.B) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "other"}, Spec: podSpec()}
			for b.Loop() {
				if err := create(pod)(b.Context(), admin); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
