package controllers_test

import (
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func TestInvalidSpec(t *testing.T) {
	o := parallel(t)
	for name, tc := range map[string]struct {
		breaks func(*v1alpha1.MCPServerSpec)
		field  string
	}{
		"tmp": {func(s *v1alpha1.MCPServerSpec) {
			s.Filesystem = &v1alpha1.Filesystem{WritablePaths: []v1alpha1.WritablePath{{Path: "/tmp", SizeLimit: new(resource.MustParse("8Gi"))}}}
		}, "spec.filesystem.writablePaths[/tmp].sizeLimit"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := example(newNamespace(t), "web")
			tc.breaks(&server.Spec)
			create(t, server)
			c := waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonInvalidSpec)
			if c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, tc.field) {
				t.Errorf("Stalled is %s: %s; want it to name %s", c.Status, c.Message, tc.field)
			}
			o.calm(t, server.Namespace)
			for _, req := range o.writes(server.Namespace) {
				if req.resource != "mcpservers/status" && req.resource != "events" {
					t.Errorf("half applied: %s", req)
				}
			}
			edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec = example("", "").Spec })
			waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)

			o.calm(t, server.Namespace)
			versions := map[string]string{}
			for _, child := range append(children(server)[:3], children(server)[4]) {
				get(t, child)
				versions[kindOf(child)] = child.GetResourceVersion()
			}
			edit(t, server, func(s *v1alpha1.MCPServer) { tc.breaks(&s.Spec); s.Spec.Image = "registry.example/server:v2" })
			waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonInvalidSpec)
			o.calm(t, server.Namespace)
			for _, child := range append(children(server)[:3], children(server)[4]) {
				get(t, child)
				if child.GetResourceVersion() != versions[kindOf(child)] {
					t.Errorf("%s changed with a spec that is refused", kindOf(child))
				}
			}
			if n := len(eventsOf(t, server, v1alpha1.ReasonInvalidSpec)); n == 0 || n > 2 {
				t.Errorf("%d events, want one for each time", n)
			}
		})
	}
}

// onlyIn makes an admission policy match one kind of object in one namespace.
func onlyIn(namespace, group, plural string) *admissionv1.MatchResources {
	return &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{plural}},
		}}},
	}
}

// deny makes the API server refuse a kind of object in a namespace, until the returned function is called.
func deny(t *testing.T, namespace, group, plural string) (allow func()) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: "deny-" + plural + "-" + namespace}
	policy := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		FailurePolicy: new(admissionv1.Fail), MatchConstraints: onlyIn(namespace, group, plural),
		Validations: []admissionv1.Validation{{Expression: "false", Message: "not in this cluster"}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: meta.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	create(t, policy)
	create(t, binding)
	removeLater(t, policy)
	removeLater(t, binding)
	return func() { remove(t, binding) }
}

func TestRefusedObject(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	allow := deny(t, server.Namespace, "apps", "deployments")
	probe := foreigners(example(server.Namespace, "probe"))[4]
	eventually(t, func() string {
		if err := admin.Create(t.Context(), probe, client.DryRunAll); err == nil {
			return "the policy is not in force yet"
		}
		return ""
	})
	create(t, server)
	eventually(t, func() string {
		get(t, server)
		c := condition(server, v1alpha1.ConditionReady)
		if !strings.Contains(c.Message, "not in this cluster") || !strings.Contains(c.Message, "Deployment") {
			return "Ready says " + c.Reason + ": " + c.Message
		}
		return ""
	})
	if exists(t, &appsv1.Deployment{ObjectMeta: named(server)}) {
		t.Fatal("the Deployment was created all the same")
	}
	// Errors are tried again with growing gaps, and say the same each time: no write of the status for each.
	if n := len(o.in(server.Namespace, func(r request) bool { return r.resource == "mcpservers/status" })); n > 3 {
		t.Errorf("%d writes of the status", n)
	}
	allow()
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
	o.calm(t, server.Namespace)
	if events := eventsOf(t, server, "Recreated"); len(events) > 0 {
		t.Errorf("nothing was there before, but: %s", events[0].Note)
	}
}

func TestQuota(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: "none"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/deployments.apps": resource.MustParse("0")}}}
	create(t, quota)
	eventually(t, func() string {
		get(t, quota)
		if len(quota.Status.Hard) == 0 {
			return "the quota is not in force yet"
		}
		return ""
	})
	create(t, server)
	eventually(t, func() string {
		get(t, server)
		if c := condition(server, v1alpha1.ConditionReady); !strings.Contains(c.Message, "exceeded quota") {
			return "Ready says " + c.Reason + ": " + c.Message
		}
		return ""
	})
	remove(t, quota)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
	o.calm(t, server.Namespace)
}

// An admission policy that puts back what the operator takes out must not make it write for ever.
func TestAdmissionFightsBack(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	meta := metav1.ObjectMeta{Name: "inject-" + server.Namespace}
	match := onlyIn(server.Namespace, "", "services")
	policy := &admissionv1.MutatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.MutatingAdmissionPolicySpec{
		MatchConstraints: match, FailurePolicy: new(admissionv1.Fail), ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
		Mutations: []admissionv1.Mutation{{PatchType: admissionv1.PatchTypeApplyConfiguration, ApplyConfiguration: &admissionv1.ApplyConfiguration{
			Expression: `Object{spec: Object.spec{publishNotReadyAddresses: true}}`,
		}}},
	}}
	if err := admin.Create(t.Context(), policy); err != nil {
		t.Skipf("this API server serves no MutatingAdmissionPolicy: %v", err)
	}
	removeLater(t, policy)
	binding := &admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: meta.Name}}
	create(t, binding)
	removeLater(t, binding)
	eventually(t, func() string {
		probe := foreigners(example(server.Namespace, "probe"))[2].(*corev1.Service)
		if err := admin.Create(t.Context(), probe, client.DryRunAll); err != nil {
			return err.Error()
		}
		return differs(probe.Spec.PublishNotReadyAddresses, true)
	})
	create(t, server)
	eventually(t, func() string {
		get(t, server)
		if c := condition(server, v1alpha1.ConditionReady); !strings.Contains(c.Message, "changed again at once at spec.publishNotReadyAddresses") {
			return "Ready says " + c.Reason + ": " + c.Message
		}
		return ""
	})
	before, window := len(o.writes(server.Namespace)), 3*time.Second
	since := time.Now()
	eventually(t, func() string { return differs(time.Since(since) > window, true) })
	if n := len(o.writes(server.Namespace)) - before; n > 40 {
		t.Errorf("%d writes in %s", n, window)
	}
	remove(t, binding)
	remove(t, policy)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
}
