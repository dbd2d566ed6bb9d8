package plan

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func amount(s string) *resource.Quantity { return new(resource.MustParse(s)) }

// TestImpossibleSpecs: what the rules of the CRD let through, from an older CRD or because it
// depends on defaults, is refused with its field and a way out.
func TestImpossibleSpecs(t *testing.T) {
	bad := &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"a b": "c"}}
	term := v1alpha1.PodAffinityTerm{LabelSelector: *bad, NamespaceSelector: bad, TopologyKey: "zone"}
	scheduling := func(s v1alpha1.Scheduling) func(*v1alpha1.MCPServer) {
		return func(server *v1alpha1.MCPServer) { server.Spec.Scheduling = &s }
	}
	for _, tc := range []struct {
		name   string
		change func(*v1alpha1.MCPServer)
		fields []string
		fix    string
	}{
		{"/tmp above the memory limit", func(s *v1alpha1.MCPServer) {
			s.Spec.Filesystem = &v1alpha1.Filesystem{WritablePaths: []v1alpha1.WritablePath{{Path: "/tmp", SizeLimit: amount("1Gi")}}}
		}, []string{"spec.filesystem.writablePaths[/tmp].sizeLimit"}, "lower it, or raise spec.resources.limits.memory"},
		{"node labels", scheduling(v1alpha1.Scheduling{NodeSelector: bad.MatchLabels}), []string{"spec.scheduling.nodeSelector[a b]"}, "must consist of alphanumeric characters"},
		{"clients", func(s *v1alpha1.MCPServer) {
			s.Spec.Network = &v1alpha1.Network{Ingress: []v1alpha1.PodPeer{{}, {NamespaceSelector: bad, PodSelector: bad}}}
		}, []string{"spec.network.ingress[1].namespaceSelector.matchLabels[a b]", "spec.network.ingress[1].podSelector.matchLabels[a b]"}, "must consist of alphanumeric characters"},
		{"targets", egressTo(v1alpha1.EgressTarget{Pods: &v1alpha1.PodPeer{PodSelector: bad}}, 1), []string{"spec.network.egress[0].to.pods.podSelector.matchLabels[a b]"}, "must consist of alphanumeric characters"},
		{"affinity", scheduling(v1alpha1.Scheduling{Affinity: &v1alpha1.Affinity{PodAffinity: &v1alpha1.PodAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []v1alpha1.PodAffinityTerm{term},
		}}}), []string{
			"spec.scheduling.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchLabels[a b]",
			"spec.scheduling.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespaceSelector.matchLabels[a b]",
		}, "must consist of alphanumeric characters"},
		{"anti-affinity", scheduling(v1alpha1.Scheduling{Affinity: &v1alpha1.Affinity{PodAntiAffinity: &v1alpha1.PodAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []v1alpha1.WeightedPodAffinityTerm{{Weight: 1, PodAffinityTerm: v1alpha1.PodAffinityTerm{LabelSelector: *bad, TopologyKey: "zone"}}},
		}}}), []string{
			"spec.scheduling.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector.matchLabels[a b]",
		}, "must consist of alphanumeric characters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, errs := Build(Input{Server: server(tc.change)})
			if p != nil {
				t.Error("there is a plan beside the errors")
			}
			if len(errs) != len(tc.fields) {
				t.Fatalf("got %v, want errors at %v", errs, tc.fields)
			}
			for i, err := range errs {
				if err.Field != tc.fields[i] || !strings.Contains(err.Detail, tc.fix) {
					t.Errorf("got %v, want %s with %q", err, tc.fields[i], tc.fix)
				}
			}
		})
	}
}

func TestEffectiveResources(t *testing.T) {
	type amounts = v1alpha1.ResourceAmounts
	for _, tc := range []struct {
		name             string
		requests, limits *amounts
		disk             string
		want             string // requests and limits of cpu, memory and storage
	}{
		{"nothing asked", nil, nil, "", "50m/1 128Mi/512Mi 64Mi/256Mi"},
		{"a limit below the default request", nil, &amounts{CPU: amount("20m"), Memory: amount("64Mi"), EphemeralStorage: amount("32Mi")}, "", "20m/20m 64Mi/64Mi 32Mi/32Mi"},
		{"a request above the default limit", &amounts{CPU: amount("4"), Memory: amount("2Gi"), EphemeralStorage: amount("1Gi")}, nil, "", "4/4 2Gi/2Gi 1Gi/1Gi"},
		{"a request below the default limit", &amounts{CPU: amount("100m")}, nil, "", "100m/1 128Mi/512Mi 64Mi/256Mi"},
		{"both asked", &amounts{CPU: amount("1"), Memory: amount("1Gi")}, &amounts{CPU: amount("2"), Memory: amount("1Gi")}, "", "1/2 1Gi/1Gi 64Mi/256Mi"},
		{"room for what is written to disk", nil, nil, "1Gi", "50m/1 128Mi/512Mi 64Mi/1280Mi"},
		{"finer than a container can be given", &amounts{CPU: amount("1500u")}, &amounts{CPU: amount("2100u")}, "", "2m/3m 128Mi/512Mi 64Mi/256Mi"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := &v1alpha1.MCPServerSpec{Resources: &v1alpha1.ResourceRequirements{Requests: tc.requests, Limits: tc.limits}}
			if tc.disk != "" {
				spec.Filesystem = &v1alpha1.Filesystem{WritablePaths: []v1alpha1.WritablePath{
					{Path: "/tmp", SizeLimit: amount("16Mi")}, {Path: "/cache", SizeLimit: amount(tc.disk)},
				}}
			}
			r := EffectiveResources(spec)
			got := strings.Join([]string{
				r.Requests.CPU.String() + "/" + r.Limits.CPU.String(),
				r.Requests.Memory.String() + "/" + r.Limits.Memory.String(),
				r.Requests.EphemeralStorage.String() + "/" + r.Limits.EphemeralStorage.String(),
			}, " ")
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestFeatures(t *testing.T) {
	able := Node{UserNamespaces: Supported, DefaultUserNamespaces: Supported, StrictGroups: Supported}
	unable := Node{UserNamespaces: Unsupported, DefaultUserNamespaces: Unsupported, StrictGroups: Unsupported}
	starting := Node{}
	windows := unable
	windows.Labels = map[string]string{corev1.LabelOSStable: "windows"}
	both := []v1alpha1.PodFeature{v1alpha1.PodFeatureUserNamespace, v1alpha1.PodFeatureStrictSupplementalGroups}
	claim := func(s *v1alpha1.MCPServer) {
		s.Spec.Filesystem = &v1alpha1.Filesystem{Data: []v1alpha1.DataMount{{MountPath: "/data", ClaimName: "a"}}}
	}
	given := func(features ...v1alpha1.PodFeature) func(*v1alpha1.MCPServer) {
		return func(s *v1alpha1.MCPServer) {
			s.Status.ObservedGeneration, s.Status.PodFeatures = s.Generation, features
		}
	}
	for _, tc := range []struct {
		name   string
		nodes  []Node
		live   bool
		change func(*v1alpha1.MCPServer)
		want   []v1alpha1.PodFeature
	}{
		{"no node is known", nil, false, nil, nil},
		{"every node can", []Node{able, able}, false, nil, both},
		{"one node cannot", []Node{able, unable}, false, nil, nil},
		{"one node does not say", []Node{able, starting}, false, nil, nil},
		{"a node on which no server can run", []Node{able, windows}, false, nil, both},
		{"a claim", []Node{able}, false, claim, both[1:]},
		{"a node that comes rolls nothing", []Node{able}, true, given(), nil},
		{"what the pods were given stays", []Node{able}, true, given(both...), both},
		{"a node that starts takes nothing away", []Node{able, starting}, true, given(both...), both},
		{"nodes that are all gone take nothing away", nil, true, given(both...), both},
		{"a node that cannot run the pods takes the feature away", []Node{able, unable}, true, given(both...), nil},
		{"a change of the spec takes a feature up", []Node{able}, true, nil, both},
		{"a Deployment that is gone is made with what the nodes can", []Node{able}, false, given(), both},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := server()
			if tc.change != nil {
				tc.change(s)
			}
			facts := Facts{Nodes: tc.nodes}
			if tc.live {
				facts.Live = &LiveDeployment{Replicas: 1}
			}
			if got := features(s, facts); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestPullPolicy(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"server":                                corev1.PullAlways,
		"server:v1":                             corev1.PullAlways,
		"registry.example:5000/server@sha256:0": corev1.PullIfNotPresent,
	} {
		if got := pullPolicy(image); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}
