//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// newPolicy makes a policy for one namespace, which goes with the test.
func newPolicy(t *testing.T, namespace string, spec v1alpha1.MCPPolicySpec) *v1alpha1.MCPPolicy {
	t.Helper()
	spec.NamespaceSelector = v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"kubernetes.io/metadata.name": v1alpha1.LabelValue(namespace)}}
	policy := &v1alpha1.MCPPolicy{ObjectMeta: metav1.ObjectMeta{Name: "for-" + namespace}, Spec: spec}
	if err := k8s.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(k8s.Delete(context.Background(), policy)); err != nil {
			t.Error(err)
		}
	})
	return policy
}

// TestCutRightsAreUnknown takes the operator's rights away, one resource after another, while it runs: no verdict passes
// on what it may not read, and each says so. It has the cluster for itself, because all servers are judged by these rights.
func TestCutRightsAreUnknown(t *testing.T) {
	ns := newNamespace(t)
	newSecret(t, ns, "source", map[string]string{"token": secretly("cut")})
	newPolicy(t, ns, v1alpha1.MCPPolicySpec{Action: v1alpha1.PolicyAudit, Secrets: &v1alpha1.SecretPolicy{Sharing: v1alpha1.SharingSelectedNamespaces}})
	s := &scene{newServer(t, ns, "judged", func(spec *v1alpha1.MCPServerSpec) {
		spec.Env = []v1alpha1.EnvVar{fromSecret("TOKEN", "source", "token")}
		allowAgents(spec)
	})}
	s.whole(t)
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "mcp-warden"}}
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(role), role); err != nil {
		t.Fatal(err)
	}
	rules := role.DeepCopy().Rules
	restore := func(ctx context.Context) error { return setRules(ctx, role, rules) }
	t.Cleanup(func() {
		if err := restore(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, cut := range []struct {
		resource string
		controls []v1alpha1.ControlID
	}{
		{"clusterrolebindings", []v1alpha1.ControlID{"ACC-05"}},
		{"rolebindings", []v1alpha1.ControlID{"ACC-05"}},
		{"ingresses", []v1alpha1.ControlID{"ACC-02"}},
		{"services", []v1alpha1.ControlID{"ACC-01"}},
		{"serviceaccounts", []v1alpha1.ControlID{"ACC-06"}},
		{"ciliumclusterwidenetworkpolicies", []v1alpha1.ControlID{"NET-04"}},
		{"ciliumnetworkpolicies", []v1alpha1.ControlID{"NET-04"}},
		{"networkpolicies", []v1alpha1.ControlID{"NET-01", "NET-02", "NET-03"}},
		{"secrets", []v1alpha1.ControlID{"SEC-05", "SEC-07"}},
		{"deployments", []v1alpha1.ControlID{"OPS-05"}},
		{"poddisruptionbudgets", []v1alpha1.ControlID{"OPS-05"}},
		{"nodes", []v1alpha1.ControlID{"OPS-05"}},
		{"namespaces", []v1alpha1.ControlID{"OPS-03", "SEC-07"}},
		{"mcppolicies", []v1alpha1.ControlID{"SEC-07"}},
		{"pods", []v1alpha1.ControlID{"POD-01", "POD-02", "NET-01", "IMG-03"}},
	} {
		t.Run(cut.resource, func(t *testing.T) {
			if err := setRules(t.Context(), role, without(rules, cut.resource)); err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			// The operator finds out every five seconds, and the machine may be busy.
			within(t, 2*verdictTime, func(ctx context.Context) error { return s.unknown(ctx, cut.resource, cut.controls) })
			t.Logf("Unknown after %s: %s", time.Since(begin).Round(10*time.Millisecond), s.control(cut.controls[0]).Message)
			if c := meta.FindStatusCondition(s.server.Status.Conditions, v1alpha1.ConditionPolicyCompliant); c == nil || c.Status == metav1.ConditionTrue {
				t.Errorf("PolicyCompliant: %+v", c)
			}
			if err := restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.whole(t)
		})
	}
	t.Run("the kind MCPPolicy is gone", s.withoutPolicies)
}

// unknown says which of some controls is not Unknown for want of a resource.
func (s *scene) unknown(ctx context.Context, resource string, controls []v1alpha1.ControlID) error {
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(s.server), s.server); err != nil {
		return err
	}
	for _, id := range controls {
		if got := s.control(id); got.Result != v1alpha1.ControlUnknown || !strings.Contains(got.Message, resource) {
			return fmt.Errorf("%s is %s for want of %s: %s", id, got.Result, resource, got.Message)
		}
	}
	return nil
}

func setRules(ctx context.Context, role *rbacv1.ClusterRole, rules []rbacv1.PolicyRule) error {
	base := role.DeepCopy()
	role.Rules = rules
	return k8s.Patch(ctx, role, client.MergeFrom(base))
}

// without are rules that give no right to a resource.
func without(rules []rbacv1.PolicyRule, resource string) []rbacv1.PolicyRule {
	var out []rbacv1.PolicyRule
	for i := range rules {
		rule := rules[i].DeepCopy()
		rule.Resources = slices.DeleteFunc(rule.Resources, func(r string) bool { return r == resource })
		if len(rule.Resources) > 0 {
			out = append(out, *rule)
		}
	}
	return out
}

// withoutPolicies takes the kind MCPPolicy out of the cluster, and brings it back.
func (s *scene) withoutPolicies(t *testing.T) {
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	crd.SetName("mcppolicies.mcpwarden.io")
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(crd), crd); err != nil {
		t.Fatal(err)
	}
	again := crd.DeepCopy()
	again.SetResourceVersion("")
	again.SetUID("")
	again.SetManagedFields(nil)
	unstructured.RemoveNestedField(again.Object, "status")
	bring := func(ctx context.Context) error {
		if err := k8s.Create(ctx, again.DeepCopy()); !apierrors.IsAlreadyExists(err) {
			return err
		}
		return nil
	}
	t.Cleanup(func() {
		if err := bring(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := k8s.Delete(t.Context(), crd); err != nil {
		t.Fatal(err)
	}
	within(t, 2*verdictTime, func(ctx context.Context) error {
		return s.unknown(ctx, "MCPPolicy", []v1alpha1.ControlID{"SEC-07"})
	})
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(crd), crd); !apierrors.IsNotFound(err) {
			return errors.Join(errors.New("the kind is still going"), err)
		}
		return bring(ctx)
	})
	s.whole(t)
}

// TestIdleRaisesNoAlarm has servers of every sort stand still for E2E_IDLE (a minute if that is not set): no control
// turns, and no condition does.
func TestIdleRaisesNoAlarm(t *testing.T) {
	t.Parallel()
	idle := time.Minute
	if given := os.Getenv("E2E_IDLE"); given != "" {
		var err error
		if idle, err = time.ParseDuration(given); err != nil {
			t.Fatalf("E2E_IDLE: %v", err)
		}
	}
	ns := newNamespace(t)
	newPolicy(t, ns, v1alpha1.MCPPolicySpec{
		Action:  v1alpha1.PolicyEnforce,
		Secrets: &v1alpha1.SecretPolicy{MaxAge: &metav1.Duration{Duration: 24 * time.Hour}, AllowedEnvNames: []v1alpha1.EnvNamePattern{"TOKEN"}, Sharing: v1alpha1.SharingSelectedNamespaces},
	})
	newSecret(t, ns, "source", map[string]string{"token": secretly("idle")})
	var scenes []*scene
	for name, change := range map[string]func(*v1alpha1.MCPServerSpec){
		"plain":  allowAgents,
		"proven": requireProof,
		"two":    func(s *v1alpha1.MCPServerSpec) { s.Replicas = new(int32(2)); allowAgents(s) },
		"token":  func(s *v1alpha1.MCPServerSpec) { s.Env = []v1alpha1.EnvVar{fromSecret("TOKEN", "source", "token")} },
		"files": func(s *v1alpha1.MCPServerSpec) {
			s.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/token", SecretRef: v1alpha1.SecretKeys{Name: "source", Keys: []v1alpha1.DataKey{"token"}}}}
		},
		"calls": func(s *v1alpha1.MCPServerSpec) {
			s.Network = &v1alpha1.Network{Egress: []v1alpha1.EgressRule{hostRule("api.idle.test", 443)}}
		},
	} {
		scenes = append(scenes, &scene{newServer(t, ns, name, change)})
	}
	var since []map[string]metav1.Time
	for _, s := range scenes {
		s.whole(t)
		eventually(t, func(ctx context.Context) error { // its gateway is asked every half minute
			if err := k8s.Get(ctx, client.ObjectKeyFromObject(s.server), s.server); err != nil {
				return err
			}
			if !meta.IsStatusConditionTrue(s.server.Status.Conditions, v1alpha1.ConditionToolsObserved) {
				return fmt.Errorf("MCPServer %s: its tools are not observed: %+v", s.server.Name, s.server.Status.Conditions)
			}
			return nil
		})
		since = append(since, turnedAt(s.server))
	}
	writes := map[string]bool{}
	err := wait.PollUntilContextTimeout(t.Context(), time.Second, idle, true, func(ctx context.Context) (bool, error) {
		for i, s := range scenes {
			if err := k8s.Get(ctx, client.ObjectKeyFromObject(s.server), s.server); err != nil {
				return false, err
			}
			writes[s.server.Name+"@"+s.server.ResourceVersion] = true
			if err := calm(s.server, since[i]); err != nil {
				return false, err
			}
		}
		return false, nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a false alarm: %v", err)
	}
	t.Logf("%d servers stood still for %s: %d writes of their status, no alarm", len(scenes), idle, len(writes)-len(scenes))
}

// turnedAt says when each condition of a server turned.
func turnedAt(server *v1alpha1.MCPServer) map[string]metav1.Time {
	out := map[string]metav1.Time{}
	for _, c := range server.Status.Conditions {
		out[c.Type] = c.LastTransitionTime
	}
	return out
}

// calm says what of a server's verdict is not as it was.
func calm(server *v1alpha1.MCPServer, since map[string]metav1.Time) error {
	if c := server.Status.Compliance; c == nil || c.Failed+c.Unknown > 0 {
		return fmt.Errorf("MCPServer %s: not every control passes: %+v", server.Name, c)
	}
	for _, c := range server.Status.Conditions {
		if was := since[c.Type]; !c.LastTransitionTime.Equal(&was) {
			return fmt.Errorf("MCPServer %s: %s turned at %s: %s", server.Name, c.Type, c.LastTransitionTime, c.Message)
		}
	}
	return nil
}

// stance is what a policy was sure to forbid, and since when.
type stance struct {
	mu sync.Mutex
	// strict says that the policy forbids BAD variables for sure; freeAt when it last was not sure to.
	strict bool
	freeAt time.Time
}

func (s *stance) set(strict bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.strict, s.freeAt = strict, time.Now()
}

// TestNoOrderOfChangesStartsAViolatingPod changes a policy and a server in any order, from both sides at once, under
// admission and operator as they run, and looks at every pod that starts: none has a revision that the policy forbade at
// every moment since it was asked for.
func TestNoOrderOfChangesStartsAViolatingPod(t *testing.T) {
	t.Parallel()
	const steps = 500
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	ns := newNamespace(t)
	policy := newPolicy(t, ns, v1alpha1.MCPPolicySpec{Action: v1alpha1.PolicyAudit, Secrets: &v1alpha1.SecretPolicy{AllowedEnvNames: []v1alpha1.EnvNamePattern{"GOOD_*"}}})
	server := newServer(t, ns, "raced", func(s *v1alpha1.MCPServerSpec) { s.Replicas = new(int32(1)) })
	waitReason(t, server, v1alpha1.ReasonServing)
	seen := &revisions{stance: &stance{freeAt: time.Now()}, asked: map[string]time.Time{}, pods: map[string]bool{}}
	stop := seen.watch(t, server)
	refused := 0
	var sides sync.WaitGroup
	for step := range steps {
		if random.IntN(3) == 0 {
			sides.Wait() // else both sides are written at once
		}
		if random.IntN(2) == 0 {
			sides.Wait()
			strict := random.IntN(3) > 0
			sides.Go(func() { seen.decree(t, policy, strict) })
			continue
		}
		name := fmt.Sprintf("%s_%d", []string{"GOOD", "BAD"}[random.IntN(2)], step)
		if !seen.ask(t, server, name) {
			refused++
		}
		if step%25 == 24 { // let some come up
			sides.Wait()
			eventually(t, func(ctx context.Context) error { return settledOrHeld(ctx, server) })
		}
	}
	sides.Wait()
	eventually(t, func(ctx context.Context) error { return settledOrHeld(ctx, server) })
	stop()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for _, violation := range seen.violations {
		t.Error(violation)
	}
	t.Logf("seed %d: %d steps, %d changes refused at admission, %d pods started, %d of them with a BAD variable while that was allowed", seed, steps, refused, len(seen.pods), seen.bad)
	if len(seen.pods) < 10 || refused == 0 || seen.bad == 0 {
		t.Error("this shows little: too few pods, none refused, or none that was allowed")
	}
}

// revisions are what was asked for, and the pods that started.
type revisions struct {
	*stance
	asked      map[string]time.Time
	pods       map[string]bool
	bad        int
	violations []string
}

// decree sets what the policy forbids.
func (r *revisions) decree(t *testing.T, policy *v1alpha1.MCPPolicy, strict bool) {
	r.set(false) // while it is written nothing is sure
	action := v1alpha1.PolicyAudit
	if strict {
		action = v1alpha1.PolicyEnforce
	}
	base := policy.DeepCopy()
	policy.Spec.Action = action
	if err := k8s.Patch(t.Context(), policy, client.MergeFrom(base)); err != nil {
		t.Error(err)
	}
	r.set(strict)
}

// ask changes the server's only variable; false where admission refuses it.
func (r *revisions) ask(t *testing.T, server *v1alpha1.MCPServer, name string) bool {
	t.Helper()
	r.mu.Lock()
	r.asked[name] = time.Now()
	r.mu.Unlock()
	base := server.DeepCopy()
	server.Spec.Env = []v1alpha1.EnvVar{{Name: name, Value: new("x")}}
	err := k8s.Patch(t.Context(), server, client.MergeFrom(base))
	if isRefused(err) {
		server.Spec.Env = base.Spec.Env
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

// watch looks at every pod of a server as it appears.
func (r *revisions) watch(t *testing.T, server *v1alpha1.MCPServer) (stop func()) {
	t.Helper()
	pods, err := k8s.Watch(t.Context(), &corev1.PodList{}, client.InNamespace(server.Namespace), client.MatchingLabels{"mcpwarden.io/server": server.Name})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for event := range pods.ResultChan() {
			if pod, ok := event.Object.(*corev1.Pod); ok {
				r.look(pod)
			}
		}
	}()
	return func() {
		pods.Stop()
		<-done
	}
}

func (r *revisions) look(pod *corev1.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods[pod.Name] {
		return
	}
	r.pods[pod.Name] = true
	for _, env := range pod.Spec.Containers[0].Env {
		if !strings.HasPrefix(env.Name, "BAD_") {
			continue
		}
		r.bad++
		if r.strict && r.freeAt.Before(r.asked[env.Name]) {
			r.violations = append(r.violations, fmt.Sprintf("pod %s started with %s, which was forbidden ever since it was asked for", pod.Name, env.Name))
		}
	}
}

// settledOrHeld says what of a server is still under way.
func settledOrHeld(ctx context.Context, server *v1alpha1.MCPServer) error {
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
		return err
	}
	stalled := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionStalled)
	if stalled != nil && stalled.ObservedGeneration == server.Generation && stalled.Reason == v1alpha1.ReasonPolicyViolation {
		return nil
	}
	if err := hasReason(ctx, server, v1alpha1.ReasonServing); err != nil {
		return err
	}
	deployment := &appsv1.Deployment{}
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), deployment); err != nil {
		return err
	}
	if deployment.Status.ObservedGeneration != deployment.Generation {
		return errors.New("the Deployment is not looked at yet")
	}
	return nil
}
