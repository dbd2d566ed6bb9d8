package controllers_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/controllers"
)

// newPolicy makes a policy for one namespace, which goes with the test. It allows the images of examples alone.
func newPolicy(t *testing.T, namespace string, action v1alpha1.PolicyAction, change func(*v1alpha1.MCPPolicySpec)) *v1alpha1.MCPPolicy {
	t.Helper()
	policy := &v1alpha1.MCPPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "for-" + namespace},
		Spec: v1alpha1.MCPPolicySpec{
			NamespaceSelector: v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"kubernetes.io/metadata.name": v1alpha1.LabelValue(namespace)}},
			Action:            action,
			Images:            &v1alpha1.ImagePolicy{AllowedRepositories: []v1alpha1.RepositoryPattern{"registry.example/*"}},
		},
	}
	if change != nil {
		change(&policy.Spec)
	}
	create(t, policy)
	removeLater(t, policy)
	return policy
}

const foreignImage = "elsewhere.example/server:v1"

// control is what the status says of a control; its result is empty where that is nothing.
func control(server *v1alpha1.MCPServer, id v1alpha1.ControlID) v1alpha1.ControlStatus {
	if server.Status.Compliance != nil {
		for _, c := range server.Status.Compliance.Controls {
			if c.ID == id {
				return c
			}
		}
	}
	return v1alpha1.ControlStatus{}
}

func waitControl(t *testing.T, server *v1alpha1.MCPServer, id v1alpha1.ControlID, want v1alpha1.ControlResult) v1alpha1.ControlStatus {
	t.Helper()
	var got v1alpha1.ControlStatus
	eventually(t, func() string {
		get(t, server)
		if got = control(server, id); got.Result != want {
			return fmt.Sprintf("%s is %q: %s; want %q", id, got.Result, got.Message, want)
		}
		return ""
	})
	return got
}

func imageOf(t *testing.T, server *v1alpha1.MCPServer) string {
	t.Helper()
	deployment := &appsv1.Deployment{ObjectMeta: named(server)}
	get(t, deployment)
	return deployment.Spec.Template.Spec.Containers[0].Image
}

func TestEnforcedPolicy(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	policy := newPolicy(t, server.Namespace, v1alpha1.PolicyEnforce, nil)
	waitControl(t, server, "IMG-01", v1alpha1.ControlPass)

	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Image = foreignImage })
	stalled := waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonPolicyViolation)
	for _, part := range []string{"IMG-01", policy.Name, "spec.image", "elsewhere.example/server", "images.allowedRepositories"} {
		if stalled.Status != metav1.ConditionTrue || !strings.Contains(stalled.Message, part) {
			t.Errorf("Stalled is %s, which does not name %s: %s", stalled.Status, part, stalled.Message)
		}
	}
	waitControl(t, server, "IMG-01", v1alpha1.ControlFail)
	if c := condition(server, v1alpha1.ConditionPolicyCompliant); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, "IMG-01") {
		t.Errorf("PolicyCompliant is %s: %s", c.Status, c.Message)
	}
	o.calm(t, server.Namespace)
	if image := imageOf(t, server); image != "registry.example/server:v1" {
		t.Errorf("the Deployment runs %s, want what was compliant", image)
	}
	eventually(t, func() string {
		get(t, policy)
		if policy.Status.Servers != 1 || policy.Status.Violating != 1 || policy.Status.Namespaces != 1 {
			return fmt.Sprintf("the policy's status: %+v", policy.Status)
		}
		return ""
	})

	// What stops a server no policy forbids.
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateStopped })
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonStopped)
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateRunning })
	waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonPolicyViolation)

	remove(t, policy)
	eventually(t, func() string {
		if image := imageOf(t, server); image != foreignImage {
			return "the Deployment runs " + image + " with no policy against it"
		}
		return ""
	})
	waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonReconciled)
}

// A policy that is made later turns the verdict, and ends nothing.
func TestTightenedPolicyEndsNothing(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Spec.Image = foreignImage
	settled(t, o, server)
	deployment := &appsv1.Deployment{ObjectMeta: named(server)}
	get(t, deployment)
	get(t, server)
	before := condition(server, v1alpha1.ConditionReady)
	policy := newPolicy(t, server.Namespace, v1alpha1.PolicyEnforce, nil)
	waitControl(t, server, "IMG-01", v1alpha1.ControlFail)
	o.calm(t, server.Namespace)
	unchanged := func() {
		t.Helper()
		generation := deployment.Generation
		get(t, deployment)
		if deployment.Generation != generation || *deployment.Spec.Replicas != 1 {
			t.Errorf("the Deployment was changed: generation %d, then %d", generation, deployment.Generation)
		}
	}
	unchanged()
	get(t, server)
	if c := condition(server, v1alpha1.ConditionStalled); c.Status != metav1.ConditionFalse {
		t.Errorf("Stalled is %s, though nothing waits: %s", c.Status, c.Message)
	}
	if c := condition(server, v1alpha1.ConditionReady); c.Reason != before.Reason {
		t.Errorf("Ready was %s, and is %s: %s", before.Reason, c.Reason, c.Message)
	}
	if c := condition(server, v1alpha1.ConditionPolicyCompliant); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, policy.Name) {
		t.Errorf("PolicyCompliant is %s: %s", c.Status, c.Message)
	}
	// What would start a pod waits, and is told; taken back, nothing waits any more.
	for name, change := range map[string]func(*v1alpha1.MCPServerSpec){
		"another revision": func(s *v1alpha1.MCPServerSpec) { s.Args = []string{"--verbose"} },
		"another replica":  func(s *v1alpha1.MCPServerSpec) { s.Replicas = new(int32(2)) },
	} {
		was := server.Spec.DeepCopy()
		edit(t, server, func(s *v1alpha1.MCPServer) { change(&s.Spec) })
		if c := waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonPolicyViolation); c.Status != metav1.ConditionTrue {
			t.Errorf("%s: Stalled is %s", name, c.Status)
		}
		edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec = *was })
		waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonReconciled)
		unchanged()
	}
	edit(t, policy, func(p *v1alpha1.MCPPolicy) { p.Spec.Action = v1alpha1.PolicyAudit })
	waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonReconciled)
	waitControl(t, server, "IMG-01", v1alpha1.ControlFail) // audited none the less
	if n := len(eventsOf(t, server, v1alpha1.ReasonControlsFailed)); n != 1 {
		t.Errorf("%d events that the verdict turned, want 1", n)
	}
	remove(t, policy)
	waitControl(t, server, "IMG-01", "")
}

func TestExemptionLapses(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	server.Spec.Image = foreignImage
	newPolicy(t, server.Namespace, v1alpha1.PolicyEnforce, func(p *v1alpha1.MCPPolicySpec) {
		p.Exemptions = []v1alpha1.Exemption{{
			Namespace: server.Namespace, Name: server.Name, Controls: []v1alpha1.ControlID{"IMG-01"},
			Reason: "moves next week", ExpiresAt: metav1.NewTime(time.Now().Add(12 * time.Second)),
		}}
	})
	settled(t, o, server)
	waitControl(t, server, "IMG-01", v1alpha1.ControlExempted)
	if imageOf(t, server) != foreignImage {
		t.Error("an exempted server was not rolled out")
	}
	waitControl(t, server, "IMG-01", v1alpha1.ControlFail)
	if c := condition(server, v1alpha1.ConditionStalled); c.Status != metav1.ConditionFalse {
		t.Errorf("Stalled is %s, though nothing waits: %s", c.Status, c.Message)
	}
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Args = []string{"--verbose"} })
	waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonPolicyViolation)
}

func TestPolicyStatus(t *testing.T) {
	o := parallel(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	first := newPolicy(t, server.Namespace, v1alpha1.PolicyAudit, nil)
	second := first.DeepCopy()
	second.ObjectMeta = metav1.ObjectMeta{Name: "against-" + server.Namespace}
	second.Spec.Images.AllowedRepositories = []v1alpha1.RepositoryPattern{"other.example/*"}
	create(t, second)
	removeLater(t, second)
	nothing := newPolicy(t, server.Namespace+"-no-such", v1alpha1.PolicyWarn, nil)
	ready := func(p *v1alpha1.MCPPolicy, reason, part string) {
		t.Helper()
		eventually(t, func() string {
			get(t, p)
			c := meta.FindStatusCondition(p.Status.Conditions, v1alpha1.ConditionReady)
			if c == nil || c.Reason != reason || !strings.Contains(c.Message, part) || p.Status.ObservedGeneration != p.Generation {
				return fmt.Sprintf("%s: %+v, want reason %s", p.Name, c, reason)
			}
			return ""
		})
	}
	ready(first, v1alpha1.ReasonContradiction, second.Name)
	ready(second, v1alpha1.ReasonContradiction, first.Name)
	ready(nothing, v1alpha1.ReasonSelectsNothing, "0 namespaces")
	remove(t, second)
	ready(first, v1alpha1.ReasonInForce, "1 servers in 1 namespaces")
}

// A policy that the operator has not heard of yet forbids a rollout all the same.
func TestPolicyThatIsSeenLate(t *testing.T) {
	o := exclusive(t)
	server := example(newNamespace(t), "web")
	settled(t, o, server)
	release := o.hold("mcppolicies")
	defer release()
	newPolicy(t, server.Namespace, v1alpha1.PolicyEnforce, nil)
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Image = foreignImage })
	waitReason(t, server, v1alpha1.ConditionStalled, v1alpha1.ReasonPolicyViolation)
	if control(server, "IMG-01").Result != "" {
		t.Error("the operator had heard of the policy: this test shows nothing")
	}
	if image := imageOf(t, server); image == foreignImage {
		t.Error("it was rolled out")
	}
	release()
	waitControl(t, server, "IMG-01", v1alpha1.ControlFail)
	if image := imageOf(t, server); image == foreignImage {
		t.Error("it was rolled out")
	}
}

// Where the policies cannot be read nothing is rolled out, all else goes on, and no verdict says that they hold.
func TestPoliciesCannotBeRead(t *testing.T) {
	for _, resource := range []string{"mcppolicies", "namespaces"} {
		t.Run(resource, func(t *testing.T) {
			server := example(newNamespace(t), "web")
			newPolicy(t, server.Namespace, v1alpha1.PolicyAudit, nil)
			refusing := &recorder{}
			refusing.before(func(r request) error {
				if r.resource == resource && r.verb != "patch" {
					return errors.New("a test refuses this")
				}
				return nil
			})
			o, err := startOperatorBehind(refusing, operatorAccount, func(*controllers.Options) {})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := o.stop(); err != nil {
					t.Error(err)
				}
			})
			create(t, server)
			waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReconcileError)
			got := waitControl(t, server, "IMG-01", v1alpha1.ControlUnknown)
			if !strings.Contains(got.Message, resource) {
				t.Errorf("the control does not say what could not be read: %s", got.Message)
			}
			if exists(t, &appsv1.Deployment{ObjectMeta: named(server)}) || !exists(t, &networkingv1.NetworkPolicy{ObjectMeta: named(server)}) {
				t.Error("the Deployment exists, or its NetworkPolicy does not")
			}
			refusing.before(nil)
			waitControl(t, server, "IMG-01", v1alpha1.ControlPass)
			waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
		})
	}
}

// Kinds that a cluster need not have are watched from when it has them.
func TestKindsThatComeLater(t *testing.T) {
	o := exclusive(t)
	for plural, kind := range map[string]string{
		"httproutes": "HTTPRoute", "grpcroutes": "GRPCRoute", "tlsroutes": "TLSRoute", "tcproutes": "TCPRoute", "udproutes": "UDPRoute",
	} {
		serve(t, apiextensionsv1.NamespaceScoped, schema.GroupVersionKind{Group: "gateway.networking.k8s.io", Version: "v1", Kind: kind}, plural)
	}
	serve(t, apiextensionsv1.ClusterScoped, schema.GroupVersionKind{Group: "cilium.io", Version: "v2", Kind: "CiliumClusterwideNetworkPolicy"}, "ciliumclusterwidenetworkpolicies")
	for _, resource := range []string{"httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes", "ciliumclusterwidenetworkpolicies"} {
		eventually(t, func() string {
			if len(o.in("", func(r request) bool { return r.verb == "watch" && r.resource == resource })) == 0 {
				return resource + " are not watched"
			}
			return ""
		})
	}
}
