package plan

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// A node counts where the scheduler may put a pod of the server, and where one runs.
func TestEligible(t *testing.T) {
	taint := func(key, value string, effect corev1.TaintEffect) []corev1.Taint {
		return []corev1.Taint{{Key: key, Value: value, Effect: effect}}
	}
	nodes := []Node{
		{Name: "plain", Ready: true},
		{Name: "fast", Labels: map[string]string{"disk": "ssd"}, Ready: true},
		{Name: "dead", Taints: taint("node.kubernetes.io/unreachable", "", corev1.TaintEffectNoSchedule)},
		{Name: "gpu", Taints: taint("gpu", "a", corev1.TaintEffectNoExecute), Ready: true},
		{Name: "shunned", Taints: taint("old", "", corev1.TaintEffectPreferNoSchedule), Ready: true},
		{Name: "windows", Labels: map[string]string{"kubernetes.io/os": "windows"}, Ready: true},
	}
	ssd := &v1alpha1.Affinity{NodeAffinity: &v1alpha1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &v1alpha1.NodeSelector{
		NodeSelectorTerms: []v1alpha1.NodeSelectorTerm{{MatchExpressions: []v1alpha1.NodeSelectorRequirement{{Key: "disk", Operator: "In", Values: []v1alpha1.LabelValue{"ssd"}}}}}}}}
	for name, tc := range map[string]struct {
		scheduling *v1alpha1.Scheduling
		running    string
		want       []string
	}{
		"anywhere":                      {nil, "", []string{"plain", "fast", "shunned"}},
		"by selector":                   {&v1alpha1.Scheduling{NodeSelector: map[string]v1alpha1.LabelValue{"disk": "ssd"}}, "", []string{"fast"}},
		"by affinity":                   {&v1alpha1.Scheduling{Affinity: ssd}, "", []string{"fast"}},
		"with a toleration":             {&v1alpha1.Scheduling{Tolerations: []v1alpha1.Toleration{{Key: "gpu", Value: "a"}}}, "", []string{"plain", "fast", "gpu", "shunned"}},
		"with one of another value":     {&v1alpha1.Scheduling{Tolerations: []v1alpha1.Toleration{{Key: "gpu", Value: "b"}}}, "", []string{"plain", "fast", "shunned"}},
		"with one of another effect":    {&v1alpha1.Scheduling{Tolerations: []v1alpha1.Toleration{{Key: "gpu", Operator: "Exists", Effect: "NoSchedule"}}}, "", []string{"plain", "fast", "shunned"}},
		"with one for all":              {&v1alpha1.Scheduling{Tolerations: []v1alpha1.Toleration{{Operator: "Exists"}}}, "", []string{"plain", "fast", "dead", "gpu", "shunned"}},
		"where a pod outlives its node": {nil, "dead", []string{"plain", "fast", "dead", "shunned"}},
		"where the selector changed":    {&v1alpha1.Scheduling{NodeSelector: map[string]v1alpha1.LabelValue{"disk": "ssd"}}, "plain", []string{"plain", "fast"}},
		"where no node is left":         {&v1alpha1.Scheduling{NodeSelector: map[string]v1alpha1.LabelValue{"disk": "hdd"}}, "", nil},
	} {
		server := &v1alpha1.MCPServer{Spec: v1alpha1.MCPServerSpec{Scheduling: tc.scheduling}}
		got := Eligible(server, nodes, map[string]bool{tc.running: true})
		var names []string
		for _, node := range got {
			names = append(names, node.Name)
			if node.Ready != (node.Name != "dead") {
				t.Errorf("%s: node %s is ready: %v", name, node.Name, node.Ready)
			}
		}
		if len(names) != len(tc.want) {
			t.Errorf("%s: %v, want %v", name, names, tc.want)
			continue
		}
		for i := range names {
			if names[i] != tc.want[i] {
				t.Errorf("%s: %v, want %v", name, names, tc.want)
			}
		}
	}
}

// Without a proof nothing starts that requires one; what runs is left alone, and gets no pod that
// would start without one.
func TestUnproven(t *testing.T) {
	const image = "registry.example/mcp-warden:v1"
	server := func(enforcement v1alpha1.Enforcement, state v1alpha1.DesiredState, given string) *v1alpha1.MCPServer {
		s := &v1alpha1.MCPServer{}
		s.Name, s.Namespace, s.Generation = "web", "agents", 2
		s.Spec = v1alpha1.MCPServerSpec{Image: "server:v1", DesiredState: state,
			Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))}, Network: &v1alpha1.Network{Enforcement: enforcement}}
		s.Status.ObservedGeneration, s.Status.Network = 2, &v1alpha1.NetworkStatus{ProbeImage: given}
		return s
	}
	up := &LiveDeployment{Replicas: 1}
	for name, tc := range map[string]struct {
		server *v1alpha1.MCPServer
		image  string
		live   *LiveDeployment
		result probe.Result
		held   string
	}{
		"required, proven":                                {server(v1alpha1.EnforcementRequire, "", ""), image, nil, probe.Proven, ""},
		"required, unknown":                               {server(v1alpha1.EnforcementRequire, "", ""), image, nil, probe.Unknown, v1alpha1.ReasonNotProven},
		"required, not enforced":                          {server(v1alpha1.EnforcementRequire, "", ""), image, nil, probe.NotEnforced, v1alpha1.ReasonNotEnforced},
		"required, no verdict":                            {server(v1alpha1.EnforcementRequire, "", ""), image, nil, "", v1alpha1.ReasonNotProven},
		"required, proven, without a probe":               {server(v1alpha1.EnforcementRequire, "", ""), "", nil, probe.Proven, v1alpha1.ReasonNotProven},
		"required, up, not enforced":                      {server(v1alpha1.EnforcementRequire, "", image), image, up, probe.NotEnforced, ""},
		"required, up, the operator lost its image":       {server(v1alpha1.EnforcementRequire, "", image), "", up, probe.Unknown, ""},
		"required, up, its pods get a probe":              {server(v1alpha1.EnforcementRequire, "", ""), image, up, probe.Unknown, ""},
		"required, up, its pods cannot have a probe":      {server(v1alpha1.EnforcementRequire, "", ""), "", up, probe.Unknown, v1alpha1.ReasonNotProven},
		"required, stopped":                               {server(v1alpha1.EnforcementRequire, v1alpha1.StateStopped, ""), image, nil, probe.Unknown, ""},
		"required, quarantined":                           {server(v1alpha1.EnforcementRequire, v1alpha1.StateQuarantined, image), image, up, probe.NotEnforced, ""},
		"reported, not enforced":                          {server(v1alpha1.EnforcementReport, "", ""), image, nil, probe.NotEnforced, ""},
		"reported by default, unknown, without any probe": {server("", "", ""), "", nil, probe.Unknown, ""},
	} {
		p, errs := Build(Input{Server: tc.server, Facts: Facts{ComponentImage: tc.image, Live: tc.live, Isolation: probe.Verdict{Result: tc.result, Message: "Node a."}}})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		held := ""
		if p.Held != nil {
			held = p.Held.Reason
		}
		if held != tc.held {
			t.Errorf("%s: held %q, want %q", name, held, tc.held)
		}
	}
}
