package compliance_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

const (
	imageDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	snapshot    = "github-env-0123456789abcdef"
)

// input is a server that passes every control, with one policy that demands nothing yet.
func input(change func(*v1alpha1.MCPServer)) plan.Input {
	server := &v1alpha1.MCPServer{
		ObjectMeta: metav1.ObjectMeta{Name: "github", Namespace: "agents", UID: "uid", Generation: 1},
		Spec: v1alpha1.MCPServerSpec{
			Image:     "ghcr.io/github/github-mcp-server@" + imageDigest,
			Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))},
			Replicas:  new(int32(2)),
			Env: []v1alpha1.EnvVar{
				{Name: "LOG_LEVEL", Value: new("info")},
				{Name: "GITHUB_TOKEN", ValueFrom: &v1alpha1.EnvVarSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "github-token", Key: "token"}}},
			},
			Network: &v1alpha1.Network{
				Ingress: []v1alpha1.PodPeer{{PodSelector: &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"role": "agent"}}}},
				Egress:  []v1alpha1.EgressRule{{To: v1alpha1.EgressTarget{CIDR: "203.0.113.0/24"}, Ports: []int32{443}}},
			},
		},
	}
	if change != nil {
		change(server)
	}
	return plan.Input{
		Server:  server,
		Secrets: plan.Secrets{Snapshot: snapshot, Label: "0123456789abcdef"},
		Facts: plan.Facts{
			Nodes:          []plan.Node{{Name: "node-1", UserNamespaces: plan.Supported, DefaultUserNamespaces: plan.Supported, StrictGroups: plan.Supported}},
			ComponentImage: "registry.example/mcp-warden:v1", OperatorNamespace: "mcp-warden-system",
			Isolation: probe.Verdict{Result: probe.Proven},
		},
	}
}

// faithful is what a controller sees of a plan that was applied and that nobody touched.
func faithful(t testing.TB, in plan.Input) compliance.Input {
	t.Helper()
	p, errs := plan.Build(in)
	if len(errs) > 0 {
		t.Fatalf("no plan: %v", errs)
	}
	live := &compliance.Live{
		NamespaceLabels: compliance.Seen[map[string]string]{Value: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}},
		Secrets:         compliance.SecretsVerdict{Status: "True", Reason: v1alpha1.ReasonCurrent, Desired: "d", Deployed: "d"},
		Isolation:       &probe.Verdict{Result: probe.Proven},
	}
	for _, o := range p.Objects {
		switch o.Kind {
		case "Deployment":
			live.Deployment = object[appsv1.Deployment](t, o)
			settle(live)
		case "NetworkPolicy":
			live.NetworkPolicies.Value = append(live.NetworkPolicies.Value, *object[networkingv1.NetworkPolicy](t, o))
		case "Service":
			live.Services.Value = append(live.Services.Value, *object[corev1.Service](t, o))
		case "ServiceAccount":
			live.Account.Value = object[corev1.ServiceAccount](t, o)
		}
	}
	for _, ref := range plan.ReferencesOf(&in.Server.Spec) {
		live.Secrets.Sources = append(live.Secrets.Sources, v1alpha1.SecretSource{Name: ref.Secret, Key: ref.Key, ChangedTime: new(metav1.NewTime(now.Add(-24 * time.Hour)))})
	}
	return compliance.Input{
		Now: now, Server: in.Server, Plan: p, Literals: credentials.Find(&in.Server.Spec), Live: live,
		Policies: []v1alpha1.MCPPolicy{{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1alpha1.MCPPolicySpec{Action: v1alpha1.PolicyEnforce}}},
	}
}

// settle lets the Deployment have the pods that it asks for.
func settle(live *compliance.Live) {
	d := live.Deployment
	d.Generation, d.Status.ObservedGeneration = 1, 1
	n := int32(1)
	if d.Spec.Replicas != nil {
		n = *d.Spec.Replicas
	}
	d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.ReadyReplicas, d.Status.AvailableReplicas = n, n, n, n
	live.Pods.Value = nil
	for i := range n {
		live.Pods.Value = append(live.Pods.Value, podOf(d, "github-abc-"+string('a'+i)))
	}
}

// podOf is a pod as a Deployment's ReplicaSet makes it.
func podOf(d *appsv1.Deployment, name string) corev1.Pod {
	template := d.Spec.Template.DeepCopy()
	pod := corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name, pod.Namespace = name, d.Namespace
	pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = "abc"
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: d.Name + "-abc", UID: types.UID("rs"), Controller: new(true)}}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{{
		Name: plan.ContainerName, Ready: true, ImageID: "ghcr.io/github/github-mcp-server@" + imageDigest,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}}}
	return pod
}

// object is an object of a plan as a client reads it.
func object[T any](t testing.TB, o plan.Object) *T {
	t.Helper()
	raw, err := json.Marshal(o.Config)
	if err != nil {
		t.Fatal(err)
	}
	out := new(T)
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// resultOf is what a report says of a control; an empty result where it does not apply.
func resultOf(in compliance.Input, id v1alpha1.ControlID) compliance.Result {
	for _, r := range compliance.Evaluate(in).Results {
		if r.Control.ID == id {
			return r
		}
	}
	return compliance.Result{}
}

// check is a case of a control.
type check struct {
	control v1alpha1.ControlID
	name    string
	// spec, policy and live change the server before it is planned, what the policy demands, and what is live.
	spec   func(*v1alpha1.MCPServerSpec)
	policy func(*v1alpha1.MCPPolicySpec)
	live   func(*compliance.Input)
	// want is Fail where it is left out; none means that the control does not apply.
	want v1alpha1.ControlResult
	// says is in the message.
	says string
	// field is to blame.
	field string
}

const none = v1alpha1.ControlResult("none")

func (c *check) input(t testing.TB) compliance.Input {
	t.Helper()
	in := faithful(t, input(func(s *v1alpha1.MCPServer) {
		if c.spec != nil {
			c.spec(&s.Spec)
		}
	}))
	if c.policy != nil {
		c.policy(&in.Policies[0].Spec)
	}
	if c.live != nil {
		c.live(&in)
	}
	return in
}

// judgedAs are the results that the cases had, by control.
var judgedAs = map[v1alpha1.ControlID]map[v1alpha1.ControlResult]bool{}

// Every control has a case in which it passes and one in which it fails.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" {
		for _, c := range compliance.Catalogue() {
			seen := judgedAs[c.ID]
			if !seen[v1alpha1.ControlPass] || !seen[v1alpha1.ControlFail] {
				fmt.Printf("no case in which %s passes, or none in which it fails\n", c.ID)
				code = 1
			}
		}
	}
	os.Exit(code)
}

func record(id v1alpha1.ControlID, result v1alpha1.ControlResult) {
	if judgedAs[id] == nil {
		judgedAs[id] = map[v1alpha1.ControlResult]bool{}
	}
	judgedAs[id][result] = true
}

// run judges every case. One that fails is judged again with an exemption, with one that ended, and with one of
// another policy.
func run(t *testing.T, checks []check) {
	t.Helper()
	for _, c := range checks {
		t.Run(string(c.control)+"/"+c.name, func(t *testing.T) {
			if c.want == "" {
				c.want = v1alpha1.ControlFail
			}
			in := c.input(t)
			got := resultOf(in, c.control)
			record(c.control, got.Result)
			if c.want == none {
				c.want = ""
			}
			if got.Result != c.want || !strings.Contains(got.Message, c.says) {
				t.Fatalf("got %q: %q; want %q with %q", got.Result, got.Message, c.want, c.says)
			}
			if c.field != "" && (len(got.Violations) == 0 || got.Violations[0].Field != c.field) {
				t.Errorf("blames %+v, want %s", got.Violations, c.field)
			}
			if c.want == v1alpha1.ControlFail {
				checkExemptions(t, in, &got)
			}
		})
	}
}

func checkExemptions(t *testing.T, in compliance.Input, failed *compliance.Result) {
	t.Helper()
	exemption := func(ends time.Duration) []v1alpha1.Exemption {
		return []v1alpha1.Exemption{{
			Namespace: "agents", Name: "github", Controls: []v1alpha1.ControlID{failed.Control.ID}, Reason: "test", ExpiresAt: metav1.NewTime(now.Add(ends)),
		}}
	}
	spec := &in.Policies[0].Spec
	before := spec.Exemptions
	spec.Exemptions = exemption(time.Second)
	if got := resultOf(in, failed.Control.ID); got.Result != v1alpha1.ControlExempted {
		t.Errorf("exempted, it is %q: %s", got.Result, got.Message)
	}
	spec.Exemptions = exemption(0)
	if got := resultOf(in, failed.Control.ID); got.Result != v1alpha1.ControlFail {
		t.Errorf("with an exemption that ended it is %q", got.Result)
	}
	spec.Exemptions = before
	in.Policies = append(in.Policies, v1alpha1.MCPPolicy{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: v1alpha1.MCPPolicySpec{Exemptions: exemption(time.Second)}})
	want := v1alpha1.ControlExempted
	if failed.Demanded { // by p, which alone may excuse from it
		want = v1alpha1.ControlFail
	}
	if got := resultOf(in, failed.Control.ID); got.Result != want {
		t.Errorf("exempted by another policy it is %q, want %q", got.Result, want)
	}
}

// onPod changes the first pod.
func onPod(change func(*corev1.Pod)) func(*compliance.Input) {
	return func(in *compliance.Input) { change(&in.Live.Pods.Value[0]) }
}

// onServer changes the server's container of the first pod.
func onServer(change func(*corev1.Container)) func(*compliance.Input) {
	return onPod(func(pod *corev1.Pod) { change(&pod.Spec.Containers[0]) })
}

// onContext changes its security context.
func onContext(change func(*corev1.SecurityContext)) func(*compliance.Input) {
	return onServer(func(c *corev1.Container) { change(c.SecurityContext) })
}

// inRollout lets a rollout be under way.
func inRollout(change func(*compliance.Input)) func(*compliance.Input) {
	return func(in *compliance.Input) {
		in.Live.Deployment.Status.UpdatedReplicas = 1
		change(in)
	}
}
