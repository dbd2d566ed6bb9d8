package compliance_test

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan/plantest"
)

var (
	controlID  = regexp.MustCompile(`^(POD|NET|SEC|IMG|ACC|OPS)-[0-9]{2}$`)
	references = regexp.MustCompile(`^(PSS (baseline|restricted)|OWASP MCP(0[1-9]|10):2025|CoSAI MCP-T([1-9]|1[0-2])|CIS Kubernetes 5\.[1-7]\.[0-9]{1,2}|NSA/CISA: [A-Za-z][-A-Za-z ]+)$`)
	severities = []v1alpha1.ControlSeverity{v1alpha1.SeverityCritical, v1alpha1.SeverityHigh, v1alpha1.SeverityMedium, v1alpha1.SeverityLow}
)

func TestCatalogueIsComplete(t *testing.T) {
	seen := map[v1alpha1.ControlID]bool{}
	last := map[string]v1alpha1.ControlID{}
	for _, c := range compliance.Catalogue() {
		family := string(c.ID)[:3]
		switch {
		case !controlID.MatchString(string(c.ID)):
			t.Errorf("%s is no id", c.ID)
		case seen[c.ID]:
			t.Errorf("%s is there twice", c.ID)
		case c.ID <= last[family]:
			t.Errorf("%s comes after %s", c.ID, last[family])
		}
		seen[c.ID], last[family] = true, c.ID
		if c.Title == "" || c.Reads == "" || c.Rationale == "" || c.Remedy == "" || !slices.Contains(severities, c.Severity) {
			t.Errorf("%s lacks a title, what it reads, a rationale, a remedy or a severity", c.ID)
		}
		if strings.HasSuffix(c.Title, ".") || !strings.HasSuffix(c.Rationale, ".") || !strings.HasSuffix(c.Remedy, ".") || strings.Contains(c.Remedy, "\n") {
			t.Errorf("%s: a title has no full stop, a rationale and a remedy have one, on one line", c.ID)
		}
		if len(c.References) == 0 {
			t.Errorf("%s has no reference", c.ID)
		}
		for _, r := range c.References {
			if !references.MatchString(r) {
				t.Errorf("%s: %q is no reference of a known standard", c.ID, r)
			}
		}
	}
}

// inputs are the golden cases of plans, as a controller sees them applied. Those that are held have no Deployment.
func inputs(t testing.TB) map[string]compliance.Input {
	t.Helper()
	cases, err := plantest.Load()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]compliance.Input{"ours": faithful(t, input(nil))}
	for _, c := range cases {
		out[c.Name] = faithful(t, c.Input)
	}
	if len(out) < 20 {
		t.Fatalf("%d golden cases, want at least 20", len(out))
	}
	return out
}

// everything lets the policy demand everything that there is, so that every control applies.
func everything(p *v1alpha1.MCPPolicySpec) {
	p.Images = &v1alpha1.ImagePolicy{AllowedRepositories: []v1alpha1.RepositoryPattern{"ghcr.io/*"}, RequireDigest: true}
	p.Egress = &v1alpha1.EgressPolicy{AllowedHosts: []v1alpha1.HostPattern{"*.example.com"}, DeniedCIDRs: []v1alpha1.CIDR{"10.0.0.0/8"}, AllowedPorts: []int32{443}, RequireProof: true}
	p.Secrets = &v1alpha1.SecretPolicy{MaxAge: &metav1.Duration{Duration: time.Hour}, AllowedEnvNames: []v1alpha1.EnvNamePattern{"A*"}, Sharing: v1alpha1.SharingSelectedNamespaces}
	p.Pods = &v1alpha1.PodPolicy{MaxResources: &v1alpha1.ResourceAmounts{}, AllowedRuntimeClassNames: []v1alpha1.ObjectName{"gvisor"}, RequireUserNamespace: true}
}

// withhold makes everything unknown that can be.
func withhold(live *compliance.Live) {
	v := reflect.ValueOf(live).Elem()
	for i := range v.NumField() {
		if unknown := v.Field(i); unknown.Kind() == reflect.Struct && unknown.FieldByName("Unknown").IsValid() {
			unknown.FieldByName("Unknown").SetString("withheld")
		}
	}
	live.Secrets = compliance.SecretsVerdict{}
	live.Isolation = nil
}

// What was withheld, or was never looked at, makes no control pass that depends on it.
func TestNothingPassesOnMissingInformation(t *testing.T) {
	isLive := map[v1alpha1.ControlID]bool{}
	for _, c := range compliance.Catalogue() {
		isLive[c.ID] = c.IsLive()
	}
	for name, in := range inputs(t) {
		everything(&in.Policies[0].Spec)
		withheld := *in.Live
		withhold(&withheld)
		for how, live := range map[string]*compliance.Live{"withheld": &withheld, "offline": nil} {
			in.Live = live
			for _, r := range compliance.Evaluate(in).Results {
				if r.Result == v1alpha1.ControlPass && isLive[r.Control.ID] {
					t.Errorf("%s: %s passes %s", name, r.Control.ID, how)
				}
				if r.Result == v1alpha1.ControlUnknown && r.Message == "" {
					t.Errorf("%s: %s is unknown %s and does not say why", name, r.Control.ID, how)
				}
			}
		}
	}
}

// Offline and live agree wherever both decide.
func TestOfflineAndLiveAgree(t *testing.T) {
	decided := 0
	for name, in := range inputs(t) {
		for _, demands := range []func(*v1alpha1.MCPPolicySpec){func(*v1alpha1.MCPPolicySpec) {}, everything} {
			demands(&in.Policies[0].Spec)
			offline := in
			offline.Live = nil
			for _, want := range compliance.Evaluate(offline).Results {
				got := resultOf(in, want.Control.ID)
				if want.Result == v1alpha1.ControlUnknown || got.Result == v1alpha1.ControlUnknown {
					continue
				}
				decided++
				if got.Result != want.Result {
					t.Errorf("%s: %s is %s offline and %q live: %s", name, want.Control.ID, want.Result, got.Result, got.Message)
				}
			}
		}
	}
	if decided < 100 {
		t.Errorf("%d results were compared, want more", decided)
	}
}

// A plan that was applied and that nobody touched fails nothing that only live objects can fail; but for the gateway, where there is none.
func TestNoFalseAlarm(t *testing.T) {
	for name, in := range inputs(t) {
		offline := in
		offline.Live = nil
		for _, r := range compliance.Evaluate(in).Results {
			if r.Control.ID == "ACC-07" && in.Plan.GatewayImage == "" {
				continue
			}
			if r.Result == v1alpha1.ControlFail && resultOf(offline, r.Control.ID).Result != v1alpha1.ControlFail {
				t.Errorf("%s: %s fails: %s", name, r.Control.ID, r.Message)
			}
		}
	}
}

// A pod that was trimmed is judged as it is whole.
func TestTrimPodChangesNoVerdict(t *testing.T) {
	source := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		in := faithful(t, input(nil))
		everything(&in.Policies[0].Spec)
		spoil(source, reflect.ValueOf(&in.Live.Pods.Value[0].Spec).Elem())
		whole := compliance.Evaluate(in)
		for i := range in.Live.Pods.Value {
			compliance.TrimPod(&in.Live.Pods.Value[i])
		}
		for i, r := range compliance.Evaluate(in).Results {
			if want := whole.Results[i]; r.Result != want.Result || r.Message != want.Message {
				t.Fatalf("%s: %s %q, whole %s %q", r.Control.ID, r.Result, r.Message, want.Result, want.Message)
			}
		}
	}
}

func TestTrimPodTakesValuesOut(t *testing.T) {
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{"note": "hunter2"}},
		Spec: corev1.PodSpec{
			Containers:          []corev1.Container{{Name: "server", Env: []corev1.EnvVar{{Name: "TOKEN", Value: "hunter2"}}}},
			EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Env: []corev1.EnvVar{{Name: "TOKEN", Value: "hunter2"}}}}},
		},
	}
	compliance.TrimPod(&pod)
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), "hunter2") || !strings.Contains(string(raw), "TOKEN") {
		t.Errorf("left over: %s", raw)
	}
	once := pod.DeepCopy()
	if compliance.TrimPod(&pod); !reflect.DeepEqual(&pod, once) {
		t.Errorf("trimmed twice: %+v, once: %+v", pod.Spec, once.Spec)
	}
}

// spoil takes out, or fills with nothing, parts of a value at random.
func spoil(source *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			if v.CanSet() && source.IntN(8) == 0 {
				v.Set(reflect.New(v.Type().Elem()))
			}
			return
		}
		if v.CanSet() && source.IntN(8) == 0 {
			v.SetZero()
			return
		}
		spoil(source, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				spoil(source, v.Field(i))
			}
		}
	case reflect.Slice:
		if v.CanSet() && source.IntN(12) == 0 {
			v.Set(reflect.MakeSlice(v.Type(), source.IntN(3), 3))
		}
		for i := range v.Len() {
			spoil(source, v.Index(i))
		}
	case reflect.Map:
		if v.CanSet() && source.IntN(8) == 0 {
			v.SetZero()
		}
	case reflect.Bool:
		if v.CanSet() && source.IntN(8) == 0 {
			v.SetBool(!v.Bool())
		}
	case reflect.String:
		if v.CanSet() && source.IntN(16) == 0 {
			v.SetString([]string{"", "x", "0", "::/0"}[source.IntN(4)])
		}
	case reflect.Int, reflect.Int32, reflect.Int64:
		if v.CanSet() && source.IntN(16) == 0 {
			v.SetInt(int64(source.IntN(3)) - 1)
		}
	}
}

// FuzzEvaluate spoils what is live, whatever it is: no object may make a panic of a verdict, or a verdict without
// a reason.
func FuzzEvaluate(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed, seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, withPlan bool) {
		in := faithful(t, input(nil))
		everything(&in.Policies[0].Spec)
		source := rand.New(rand.NewPCG(seed, 0))
		for _, part := range []any{&in.Live.Pods, &in.Live.NetworkPolicies, &in.Live.Services, &in.Live.Account, in.Live.Deployment, &in.Live.Secrets} {
			spoil(source, reflect.ValueOf(part).Elem())
		}
		if !withPlan {
			in.Plan = nil
		}
		for _, r := range compliance.Evaluate(in).Results {
			if (r.Result == v1alpha1.ControlPass) != (r.Message == "") {
				t.Errorf("%s is %s and says %q", r.Control.ID, r.Result, r.Message)
			}
		}
	})
}

// What a policy demands counts whatever its severity, also where it cannot be told. What the server alone wants does not.
func TestUnknownCountsWhereAPolicyDemandsIt(t *testing.T) {
	in := faithful(t, input(func(s *v1alpha1.MCPServer) {
		s.Spec.Rotation = &v1alpha1.Rotation{MaxAge: &metav1.Duration{Duration: time.Hour}}
	}))
	in.Live.Pods.Unknown, in.Live.Secrets = "forbidden", compliance.SecretsVerdict{}
	counts := func(id v1alpha1.ControlID) bool {
		t.Helper()
		r := resultOf(in, id)
		if r.Result != v1alpha1.ControlUnknown {
			t.Fatalf("%s is %q", id, r.Result)
		}
		return r.Counts()
	}
	if counts("SEC-03") {
		t.Error("SEC-03 counts, and no policy demands it")
	}
	everything(&in.Policies[0].Spec)
	in.Policies[0].Spec.Pods = &v1alpha1.PodPolicy{MaxResources: &v1alpha1.ResourceAmounts{}} // which nothing exceeds
	for _, id := range []v1alpha1.ControlID{"SEC-03", "POD-17"} {
		if !counts(id) {
			t.Errorf("%s does not count, and a policy demands it", id)
		}
	}
	in.Policies, in.PoliciesUnknown = nil, "forbidden"
	for _, id := range []v1alpha1.ControlID{"SEC-02", "SEC-03", "POD-16", "NET-12"} {
		if !counts(id) {
			t.Errorf("%s does not count, and a policy may demand it", id)
		}
	}
}

// What blocks needs neither a plan nor a cluster, and only policies that enforce do it.
func TestBlocking(t *testing.T) {
	in := faithful(t, input(func(s *v1alpha1.MCPServer) { s.Spec.Image = "docker.io/evil/server:v1" }))
	in.Policies[0].Spec.Images = &v1alpha1.ImagePolicy{AllowedRepositories: []v1alpha1.RepositoryPattern{"ghcr.io/*"}}
	blocked := func() (ids []string) {
		for _, r := range compliance.Blocking(in) {
			ids = append(ids, string(r.Control.ID))
		}
		return ids
	}
	if got := blocked(); !slices.Equal(got, []string{"IMG-01"}) {
		t.Errorf("Enforce blocks %v", got)
	}
	in.Policies[0].Spec.Action = v1alpha1.PolicyWarn
	if got := blocked(); len(got) > 0 {
		t.Errorf("Warn blocks %v", got)
	}
	in.Policies = append(in.Policies, v1alpha1.MCPPolicy{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: v1alpha1.MCPPolicySpec{Action: v1alpha1.PolicyEnforce}})
	if got := blocked(); len(got) > 0 {
		t.Errorf("a policy that demands nothing blocks %v", got)
	}
	in.Policies[0].Spec.Action = v1alpha1.PolicyEnforce
	in.Policies[0].Spec.Exemptions = []v1alpha1.Exemption{{Namespace: "agents", Name: "github", Controls: []v1alpha1.ControlID{"IMG-01"}, ExpiresAt: metav1.NewTime(now.Add(time.Second))}}
	if got := blocked(); len(got) > 0 {
		t.Errorf("an exempted violation blocks %v", got)
	}
	in.Now = now.Add(time.Second)
	if got := blocked(); !slices.Equal(got, []string{"IMG-01"}) {
		t.Errorf("after the exemption %v", got)
	}
}

// Every control that can block has what blocking asks.
func TestEnforcedControlsDecideBySpecAlone(t *testing.T) {
	in := faithful(t, input(nil))
	everything(&in.Policies[0].Spec)
	in.Plan, in.Live = nil, nil
	compliance.Blocking(in) // must not panic
	for _, r := range compliance.Evaluate(in).Results {
		if r.Control.Enforced && r.Result == v1alpha1.ControlUnknown && !r.Control.IsLive() {
			t.Errorf("%s needs more than the spec: %s", r.Control.ID, r.Message)
		}
	}
}

// A control says how to fix a workload where it applies to workloads, and nowhere else.
func TestFixes(t *testing.T) {
	for _, c := range compliance.Catalogue() {
		if c.OfWorkloads() != (c.Fix != "") {
			t.Errorf("%s applies to workloads: %t, and says: %q", c.ID, c.OfWorkloads(), c.Fix)
		}
	}
}
