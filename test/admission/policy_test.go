package admission

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

// judged is a server under a policy.
type judged struct {
	name string
	// policy and server are what the specs hold beside what is required, in YAML's flow style.
	policy, server string
	// want are the controls that are violated, in order, separated by blanks.
	want string
}

const pinned = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func repositories(patterns, image, want string) judged {
	return judged{image + " under " + patterns, "images: {allowedRepositories: [" + patterns + "]}", "image: '" + image + "'", want}
}

func hosts(patterns, host, want string) judged {
	return judged{host + " under " + patterns, "egress: {allowedHosts: [" + patterns + "]}", "network: {egress: [{to: {host: '" + host + "'}, ports: [443]}]}", want}
}

func ranges(denied, cidr, want string) judged {
	return judged{cidr + " beside " + denied, "egress: {deniedCIDRs: [" + denied + "]}", "network: {egress: [{to: {cidr: '" + cidr + "'}, ports: [443]}]}", want}
}

func variables(patterns, name, want string) judged {
	return judged{name + " under " + patterns, "secrets: {allowedEnvNames: [" + patterns + "]}", "env: [{name: " + name + ", value: a}]", want}
}

func limits(most, resources, want string) judged {
	return judged{resources + " under " + most, "pods: {maxResources: {" + most + "}}", resources, want}
}

const everything = "images: {allowedRepositories: [a.example/b], requireDigest: true}, egress: {allowedHosts: [a.example], deniedCIDRs: [10.0.0.0/8], allowedPorts: [443], requireProof: true}, " +
	"secrets: {allowedEnvNames: [A]}, pods: {maxResources: {cpu: 100m, memory: 64Mi, ephemeral-storage: 64Mi}, allowedRuntimeClassNames: [gvisor], requireUserNamespace: true}"

// cases are put to the API server and to internal/compliance: both must find the same.
var cases = []judged{
	{"a policy that demands nothing", "", "", ""},
	{"an exemption alone", "exemptions: [{namespace: a, name: b, controls: [IMG-01], reason: r, expiresAt: '2099-01-31T00:00:00Z'}]", "", ""},

	repositories("ghcr.io/github/server", "ghcr.io/github/server", ""),
	repositories("ghcr.io/github/server", "ghcr.io/github/server:v1", ""),
	repositories("ghcr.io/github/server", "ghcr.io/github/server:v1"+pinned, ""),
	repositories("ghcr.io/github/server", "ghcr.io/github/server"+pinned, ""),
	repositories("ghcr.io/github/server", "ghcr.io/github/server2", "IMG-01"),
	repositories("ghcr.io/github/server", "ghcr.io/github/server/evil", "IMG-01"),
	repositories("ghcr.io/github/server", "GHCR.IO/github/server", "IMG-01"),
	repositories("'ghcr.io/github/*'", "ghcr.io/github/server", ""),
	repositories("'ghcr.io/github/*'", "ghcr.io/github/a/b:v1", ""),
	repositories("'ghcr.io/github/*'", "ghcr.io/github", "IMG-01"),
	repositories("'ghcr.io/github/*'", "ghcr.io/github-evil/server", "IMG-01"),
	repositories("'ghcr.io/github/*'", "ghcr.io/evil/github/server", "IMG-01"),
	repositories("'ghcr.io/github/*'", "index.ghcr.io/github/server", "IMG-01"),
	repositories("'ghcr.io/*'", "ghcr.io:443/github/server", "IMG-01"),
	repositories("a.example/b, 'c.example/*'", "c.example/d", ""),
	repositories("'docker.io/*'", "alpine", ""),
	repositories("docker.io/library/alpine", "alpine:3", ""),
	repositories("docker.io/library/alpine", "index.docker.io/library/alpine:3", ""),
	repositories("docker.io/grafana/mcp-grafana", "grafana/mcp-grafana:v1", ""),
	repositories("docker.io/grafana/mcp-grafana", "index.docker.io/grafana/mcp-grafana", ""),
	repositories("'docker.io/*'", "localhost/alpine", "IMG-01"),
	repositories("'docker.io/*'", "localhost:5000/alpine", "IMG-01"),
	repositories("'docker.io/*'", "Registry/alpine", "IMG-01"),
	repositories("'docker.io/*'", "registry:5000/alpine", "IMG-01"),
	repositories("'docker.io/*'", "[2001:db8::1]:5000/alpine", "IMG-01"),
	repositories("registry.example:5000/a", "registry.example:5000/a:v1", ""),
	repositories("registry.example:5000/a", "registry.example/a:v1", "IMG-01"),
	{"no repository named", "images: {allowedRepositories: []}", "", ""},
	{"no digest", "images: {requireDigest: true}", "image: 'a.example/b:v1'", "IMG-02"},
	{"a digest", "images: {requireDigest: true}", "image: 'a.example/b:v1" + pinned + "'", ""},

	hosts("api.github.com", "api.github.com", ""),
	hosts("api.github.com", "api.github.com.evil.example", "NET-10"),
	hosts("api.github.com", "evil-api.github.com", "NET-10"),
	hosts("api.github.com", "*.github.com", "NET-10"),
	hosts("'*.github.com'", "api.github.com", ""),
	hosts("'*.github.com'", "a.b.github.com", ""),
	hosts("'*.github.com'", "github.com", "NET-10"),
	hosts("'*.github.com'", "evilgithub.com", "NET-10"),
	hosts("'*.github.com'", "*.github.com", ""),
	hosts("'*.github.com'", "*.api.github.com", ""),
	hosts("'*.github.com'", "*.com.example", "NET-10"),
	hosts("'*.api.github.com'", "*.github.com", "NET-10"),
	hosts("a.example, '*.github.com'", "github.example", "NET-10"),
	{"a range where hosts are limited", "egress: {allowedHosts: [a.example]}", "network: {egress: [{to: {cidr: 203.0.113.0/24}, ports: [443]}]}", ""},

	ranges("10.0.0.0/8", "10.1.0.0/16", "NET-11"),
	ranges("10.1.0.0/16", "10.0.0.0/8", "NET-11"),
	ranges("10.0.0.0/8", "10.0.0.0/8", "NET-11"),
	ranges("10.0.0.0/8", "0.0.0.0/0", "NET-11"),
	ranges("0.0.0.0/0", "203.0.113.7/32", "NET-11"),
	ranges("10.0.0.0/8", "11.0.0.0/8", ""),
	ranges("10.0.0.0/9", "10.128.0.0/9", ""),
	ranges("fd00::/8", "fd12:3456::/32", "NET-11"),
	ranges("fd12:3456::/32", "fc00::/7", "NET-11"),
	ranges("fd00::/8", "2001:db8::/32", ""),
	ranges("'::/0'", "203.0.113.0/24", ""),
	ranges("0.0.0.0/0", "2001:db8::/32", ""),
	ranges("10.0.0.0/8", "64:ff9b::a00:0/104", "NET-11"),
	ranges("10.0.0.0/8", "64:ff9b::/96", "NET-11"),
	ranges("10.0.0.0/8", "64:ff9b::b00:0/104", ""),
	ranges("192.0.2.0/24, 10.0.0.0/8", "10.2.3.0/24", "NET-11"),
	{"a host where ranges are denied", "egress: {deniedCIDRs: [0.0.0.0/0]}", "network: {egress: [{to: {host: a.example}, ports: [443]}]}", ""},

	{"an allowed port", "egress: {allowedPorts: [443, 80]}", "network: {egress: [{to: {host: a.example}, ports: [80]}]}", ""},
	{"another port", "egress: {allowedPorts: [443]}", "network: {egress: [{to: {cidr: 203.0.113.0/24}, ports: [443, 8443]}]}", "NET-12"},
	{"a port of a Service", "egress: {allowedPorts: [443]}", "network: {egress: [{to: {service: {name: db}}, ports: [5432]}]}", "NET-12"},
	{"a port of pods", "egress: {allowedPorts: [443]}", "network: {egress: [{to: {pods: {podSelector: {}}}, ports: [5432]}]}", "NET-12"},
	{"ports without rules", "egress: {allowedPorts: [443]}", "", ""},

	{"no proof", "egress: {requireProof: true}", "", "NET-13"},
	{"a proof that is only reported", "egress: {requireProof: true}", "network: {enforcement: Report}", "NET-13"},
	{"a proof", "egress: {requireProof: true}", "network: {enforcement: Require}", ""},

	variables("LOG_LEVEL", "LOG_LEVEL", ""),
	variables("LOG_LEVEL", "LOG_LEVEL2", "SEC-02"),
	variables("LOG_LEVEL", "log_level", "SEC-02"),
	variables("'GITHUB_*'", "GITHUB_TOKEN", ""),
	variables("'GITHUB_*'", "GITHUB_", ""),
	variables("'GITHUB_*'", "GITHUB", "SEC-02"),
	variables("'GITHUB_*'", "MY_GITHUB_TOKEN", "SEC-02"),
	{"a variable from a Secret", "secrets: {allowedEnvNames: [A]}", "env: [{name: A, value: a}, {name: B, valueFrom: {secretKeyRef: {name: s, key: k}}}]", "SEC-02"},
	{"no variable", "secrets: {allowedEnvNames: [A]}", "", ""},

	limits("memory: 1Gi", "resources: {limits: {memory: 1Gi}}", ""),
	limits("memory: 1Gi", "resources: {limits: {memory: 1025Mi}}", "POD-17"),
	limits("memory: '1e9'", "resources: {limits: {memory: 1G}}", ""),
	limits("memory: '1e9'", "resources: {limits: {memory: 1Gi}}", "POD-17"),
	limits("memory: 1073741824", "resources: {limits: {memory: '1073741825'}}", "POD-17"),
	limits("memory: 1Gi", "resources: {limits: {memory: 1073741824}}", ""),
	limits("memory: 512Mi", "", ""),
	limits("memory: 511Mi", "", "POD-17"),
	limits("memory: 512Mi", "resources: {requests: {memory: 600Mi}}", "POD-17"),
	limits("cpu: 1", "", ""),
	limits("cpu: 999m", "", "POD-17"),
	limits("cpu: 1e0", "resources: {requests: {cpu: 1500m}}", "POD-17"),
	limits("cpu: 500m", "resources: {limits: {cpu: 0.5}}", ""),
	limits("cpu: 500m", "resources: {limits: {cpu: '501m'}}", "POD-17"),
	limits("cpu: 1, memory: 1Gi, ephemeral-storage: 256Mi", "", ""),
	limits("ephemeral-storage: 255Mi", "", "POD-17"),
	limits("ephemeral-storage: 256Mi", "filesystem: {writablePaths: [{path: /tmp, sizeLimit: 1Gi}]}", ""),
	limits("ephemeral-storage: 320Mi", "filesystem: {writablePaths: [{path: /cache}]}", ""),
	limits("ephemeral-storage: 319Mi", "filesystem: {writablePaths: [{path: /cache}]}", "POD-17"),
	limits("ephemeral-storage: 1Gi", "filesystem: {writablePaths: [{path: /cache, sizeLimit: 512Mi}, {path: /more, sizeLimit: 256Mi}]}", ""),
	limits("ephemeral-storage: 1Gi", "filesystem: {writablePaths: [{path: /cache, sizeLimit: 512Mi}, {path: /more, sizeLimit: 257Mi}]}", "POD-17"),
	limits("ephemeral-storage: 1Gi", "resources: {limits: {ephemeral-storage: 1G}}, filesystem: {writablePaths: [{path: /cache, sizeLimit: 2Gi}]}", ""),

	{"the runtime class", "pods: {allowedRuntimeClassNames: [gvisor, kata]}", "scheduling: {runtimeClassName: kata}", ""},
	{"another runtime class", "pods: {allowedRuntimeClassNames: [gvisor]}", "scheduling: {runtimeClassName: runc}", "POD-16"},
	{"no runtime class", "pods: {allowedRuntimeClassNames: [gvisor]}", "", "POD-16"},
	{"a claim without a user namespace", "pods: {requireUserNamespace: true}", "filesystem: {data: [{mountPath: /a, configMapName: a}, {mountPath: /b, claimName: b}]}", "POD-15"},
	{"data without a claim", "pods: {requireUserNamespace: true}", "filesystem: {data: [{mountPath: /a, configMapName: a}]}", ""},

	{"everything at once", everything, "image: 'c.example/d', env: [{name: B, value: b}], scheduling: {runtimeClassName: runc}, filesystem: {data: [{mountPath: /b, claimName: b}]}, " +
		"network: {egress: [{to: {host: b.example}, ports: [80]}, {to: {cidr: 10.0.0.0/8}, ports: [443]}]}",
		"IMG-01 IMG-02 NET-10 NET-11 NET-12 NET-13 SEC-02 POD-15 POD-16 POD-17"},
	{"everything as it must be", everything, "image: 'a.example/b" + pinned + "', env: [{name: A, value: b}], scheduling: {runtimeClassName: gvisor}, resources: {limits: {cpu: 100m, memory: 64Mi, ephemeral-storage: 64Mi}}, " +
		"network: {enforcement: Require, egress: [{to: {host: a.example}, ports: [443]}]}", ""},
	{"exempted", everything + ", exemptions: [{namespace: NAMESPACE, name: server, controls: [IMG-01, IMG-02, NET-13, POD-16, POD-17], reason: r, expiresAt: '2099-01-31T00:00:00Z'}]", "env: [{name: B, value: b}]", "SEC-02"},
	{"an exemption that is over", "images: {requireDigest: true}, exemptions: [{namespace: NAMESPACE, name: server, controls: [IMG-02], reason: r, expiresAt: '2026-01-31T00:00:00Z'}]", "", "IMG-02"},
	{"an exemption of another server", "images: {requireDigest: true}, exemptions: [{namespace: NAMESPACE, name: other, controls: [IMG-02], reason: r, expiresAt: '2099-01-31T00:00:00Z'}]", "", "IMG-02"},
	{"an exemption in another namespace", "images: {requireDigest: true}, exemptions: [{namespace: other, name: server, controls: [IMG-02], reason: r, expiresAt: '2099-01-31T00:00:00Z'}]", "", "IMG-02"},
	{"an exemption from another control", "images: {requireDigest: true}, exemptions: [{namespace: NAMESPACE, name: server, controls: [IMG-01], reason: r, expiresAt: '2099-01-31T00:00:00Z'}]", "", "IMG-02"},
}

// policyOf and serverOf are the objects of a case in a namespace.
func policyOf(t *testing.T, tc judged, namespace string) *v1alpha1.MCPPolicy {
	t.Helper()
	out := &v1alpha1.MCPPolicy{}
	spec := strings.ReplaceAll(tc.policy, "NAMESPACE", namespace)
	decode(t, "metadata: {name: "+namespace+"}\nspec: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: "+namespace+"}}, action: Enforce, "+spec+"}", out)
	return out
}

func serverOf(t *testing.T, spec, namespace string) *v1alpha1.MCPServer {
	t.Helper()
	out := &v1alpha1.MCPServer{}
	if !strings.Contains(spec, "image:") {
		spec = "image: 'registry.example/team/server:v1.2.0', " + spec
	}
	decode(t, "metadata: {name: server, namespace: "+namespace+"}\nspec: {transport: {type: StreamableHTTP, port: 8080}, "+spec+"}", out)
	return out
}

var idPattern = regexp.MustCompile(`\b[A-Z]{3}-[0-9]{2}: `)

// idsIn are the controls that a message names, each once.
func idsIn(message string) string {
	var out []string
	for _, id := range idPattern.FindAllString(message, -1) {
		if id = strings.TrimSuffix(id, ": "); !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return strings.Join(out, " ")
}

// sorted is a list of words in the order of the alphabet.
func sorted(words string) string {
	return strings.Join(slices.Sorted(slices.Values(strings.Fields(words))), " ")
}

func TestAPIServerAndCatalogueAgree(t *testing.T) {
	namespaces := map[string]string{}
	for _, tc := range cases {
		if namespaces[tc.name] != "" {
			t.Errorf("two cases are named %q", tc.name)
		}
		namespaces[tc.name] = newNamespace(t, nil)
		enact(t, policyOf(t, tc, namespaces[tc.name]))
	}
	must(t, inForce(t.Context()))
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			namespace := namespaces[tc.name]
			server := serverOf(t, tc.server, namespace)
			blocking := compliance.Blocking(compliance.Input{Now: time.Now(), Server: server.DeepCopy(), Policies: []v1alpha1.MCPPolicy{*policyOf(t, tc, namespace)}})
			refusal := refusalOf(t, admin.Create(t.Context(), server, client.DryRunAll))
			if got := idsIn(refusal); got != tc.want {
				t.Errorf("the API server found %q, want %q: %s", got, tc.want, refusal)
			}
			var ids []string
			for _, r := range blocking {
				ids = append(ids, string(r.Control.ID))
				for _, v := range r.Violations {
					field, words := string(r.Control.ID)+": "+v.Field+": ", inOtherWords(r.Control.ID, v.Message)
					if _, rest, found := strings.Cut(refusal, field); !found || !strings.Contains(rest, words) {
						t.Errorf("the catalogue says %q, and the API server does not: %s", field+words, refusal)
					}
				}
			}
			if got, want := sorted(strings.Join(ids, " ")), sorted(tc.want); got != want {
				t.Errorf("internal/compliance found %q, want %q", got, want)
			}
			if tc.want != "" && !strings.Contains(refusal, "denied request: policy "+namespace+": "+tc.want[:6]+": spec.") {
				t.Errorf("the message does not begin with the policy: %s", refusal)
			}
		})
	}
}

// inOtherWords is what the API server can say of a violation: CEL cannot write amounts and ranges as Go does.
func inOtherWords(id v1alpha1.ControlID, message string) string {
	switch id {
	case "POD-17":
		_, message, _ = strings.Cut(message, " ")
		message, _, _ = strings.Cut(message, " (")
	case "NET-11":
		_, message, _ = strings.Cut(message, " ") // 2001:DB8::/32 is 2001:db8::/32 there
	}
	return message
}

// atRollout are the controls that only the operator can decide before a rollout, each with the reason.
var atRollout = map[v1alpha1.ControlID]string{
	"SEC-01": "CEL has no detector of credentials",
}

// Every control that Enforce heeds is decided at admission, or cannot be.
func TestEveryEnforcedControlHasItsCases(t *testing.T) {
	tested := map[v1alpha1.ControlID]bool{}
	for _, tc := range cases {
		for id := range strings.FieldsSeq(tc.want) {
			tested[v1alpha1.ControlID(id)] = true
		}
	}
	for _, c := range compliance.Catalogue() {
		if c.Enforced && !tested[c.ID] && atRollout[c.ID] == "" {
			t.Errorf("%s is enforced, and nothing shows that it is at admission", c.ID)
		}
		if !c.Enforced && tested[c.ID] || tested[c.ID] && atRollout[c.ID] != "" {
			t.Errorf("%s is refused at admission, and nothing says so", c.ID)
		}
	}
}

// A policy is about the namespaces that its selector selects, as the catalogue takes it.
func TestNamespaceSelectors(t *testing.T) {
	label := "test.example/selected"
	namespaces := map[string]map[string]string{
		newNamespace(t, map[string]string{label: t.Name(), "env": "prod", "tier": "1"}): nil,
		newNamespace(t, map[string]string{label: t.Name(), "env": "test"}):              nil,
		newNamespace(t, map[string]string{label: t.Name(), "env": ""}):                  nil,
		newNamespace(t, map[string]string{label: t.Name()}):                             nil,
		newNamespace(t, nil): nil,
	}
	for name := range namespaces {
		namespace := &corev1.Namespace{}
		must(t, admin.Get(t.Context(), client.ObjectKey{Name: name}, namespace))
		namespaces[name] = namespace.Labels
	}
	selectors := []string{
		"matchLabels: {env: prod}", "matchLabels: {env: ''}", "matchLabels: {env: prod, tier: '1'}", "matchLabels: {env: prod, tier: '2'}",
		"matchExpressions: [{key: env, operator: In, values: [prod, test]}]", "matchExpressions: [{key: env, operator: NotIn, values: [prod]}]",
		"matchExpressions: [{key: env, operator: Exists}]", "matchExpressions: [{key: env, operator: DoesNotExist}]",
		"matchLabels: {env: prod}, matchExpressions: [{key: tier, operator: DoesNotExist}]", "matchLabels: {env: prod}, matchExpressions: [{key: tier, operator: Exists}]", "",
	}
	policies := map[string]*v1alpha1.MCPPolicy{}
	for i, selector := range selectors {
		p := &v1alpha1.MCPPolicy{}
		decode(t, fmt.Sprintf("metadata: {name: selector-%d}\nspec: {namespaceSelector: {%s}, action: Warn, images: {requireDigest: true}}", i, selector), p)
		enact(t, p)
		policies[p.Name] = p
	}
	must(t, inForce(t.Context()))
	selected := 0
	for namespace, labels := range namespaces {
		heard := warnings{}
		c := clientWith(t, &heard)
		must(t, c.Create(t.Context(), serverOf(t, "", namespace), client.DryRunAll))
		for name, p := range policies {
			raw, err := yaml.Marshal(p.Spec.NamespaceSelector)
			must(t, err)
			want, err := compliance.Selects(p, labels)
			must(t, err)
			if got := heard.about("policy " + name + ": IMG-02"); got != want {
				t.Errorf("labels %v, selector %s: the API server says %t, want %t", slices.Sorted(maps.Keys(labels)), raw, got, want)
			}
			if want {
				selected++
			}
		}
	}
	if selected == 0 {
		t.Error("nothing was selected")
	}
}

// Warn warns, and lets the change pass; Audit lets it pass without a word.
func TestActions(t *testing.T) {
	namespace := newNamespace(t, nil)
	policy := policyOf(t, judged{policy: "images: {requireDigest: true}"}, namespace)
	policy.Spec.Action = v1alpha1.PolicyWarn
	enact(t, policy)
	must(t, inForce(t.Context()))
	heard := warnings{}
	must(t, clientWith(t, &heard).Create(t.Context(), serverOf(t, "", namespace), client.DryRunAll))
	if !heard.about("policy " + namespace + ": IMG-02: spec.image: ") {
		t.Errorf("no warning: %q", heard.lines)
	}

	policy.Spec.Action = v1alpha1.PolicyAudit
	must(t, admin.Update(t.Context(), policy))
	must(t, inForce(t.Context()))
	heard = warnings{}
	must(t, clientWith(t, &heard).Create(t.Context(), serverOf(t, "", namespace), client.DryRunAll))
	if len(heard.lines) > 0 {
		t.Errorf("under Audit: %q", heard.lines)
	}
}

// A policy that is tightened stands in the way of no change that makes nothing worse.
func TestOnlyWhatIsNewIsRefused(t *testing.T) {
	namespace := newNamespace(t, nil)
	old := "env: [{name: B, value: b}], scheduling: {runtimeClassName: runc}, filesystem: {data: [{mountPath: /b, claimName: b}]}, resources: {limits: {memory: 2Gi}}, " +
		"network: {egress: [{to: {host: b.example}, ports: [80]}, {to: {cidr: 10.0.0.0/8}, ports: [443]}]}"
	must(t, admin.Create(t.Context(), serverOf(t, old, namespace)))
	enact(t, policyOf(t, judged{policy: everything}, namespace))
	must(t, inForce(t.Context()))
	for _, tc := range []struct{ name, spec, want string }{
		{"a field that no policy is about", old + ", replicas: 2", ""},
		{"a variable more", strings.Replace(old, "env: [", "env: [{name: A, value: a}, ", 1), ""},
		{"a variable with another value", strings.Replace(old, "value: b", "value: c", 1), ""},
		{"a variable under another name", strings.Replace(old, "name: B, value", "name: C, value", 1), "SEC-02"},
		{"a rule less", strings.Replace(old, "{to: {host: b.example}, ports: [80]}, ", "", 1), ""},
		{"a rule that is allowed", strings.Replace(old, "egress: [", "egress: [{to: {host: a.example}, ports: [443]}, ", 1), ""},
		{"a rule with a port more", strings.Replace(old, "ports: [80]", "ports: [80, 443]", 1), "NET-10 NET-12"},
		{"a wider range", strings.Replace(old, "10.0.0.0/8", "10.0.0.0/7", 1), "NET-11"},
		{"less memory, and still too much", strings.Replace(old, "2Gi", "1Gi", 1), ""},
		{"more memory", strings.Replace(old, "2Gi", "3Gi", 1), "POD-17"},
		{"another image", "image: 'a.example/b:v2', " + old, "IMG-02"},
		{"another runtime class", strings.Replace(old, "runc", "kata", 1), "POD-16"},
		{"another claim", strings.Replace(old, "claimName: b", "claimName: c", 1), "POD-15"},
		{"a state that does not run", "image: 'c.example/d', desiredState: Stopped", ""},
		{"quarantine", "image: 'c.example/d', desiredState: Quarantined", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			live := &v1alpha1.MCPServer{}
			must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "server"}, live))
			live.Spec = serverOf(t, tc.spec, namespace).Spec
			refusal := refusalOf(t, admin.Update(t.Context(), live, client.DryRunAll))
			if got := idsIn(refusal); got != tc.want {
				t.Errorf("found %q, want %q: %s", got, tc.want, refusal)
			}
		})
	}
	t.Run("metadata and status", func(t *testing.T) {
		live := &v1alpha1.MCPServer{}
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "server"}, live))
		live.Labels, live.Annotations, live.Finalizers = map[string]string{"a": "b"}, map[string]string{"a": "b"}, []string{"test.example/hold"}
		must(t, admin.Update(t.Context(), live, client.DryRunAll))
		live.Status.ReadyReplicas = 1
		must(t, admin.Status().Update(t.Context(), live, client.DryRunAll))
	})
	t.Run("stopped, then started", func(t *testing.T) {
		live := &v1alpha1.MCPServer{}
		must(t, admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "server"}, live))
		live.Spec.DesiredState = v1alpha1.StateStopped
		must(t, admin.Update(t.Context(), live))
		live.Spec.DesiredState = v1alpha1.StateRunning
		refusal := refusalOf(t, admin.Update(t.Context(), live, client.DryRunAll))
		if want := "IMG-01 IMG-02 NET-10 NET-11 NET-12 NET-13 SEC-02 POD-15 POD-16 POD-17"; idsIn(refusal) != want {
			t.Errorf("found %q, want %q: %s", idsIn(refusal), want, refusal)
		}
	})
}

// The largest policy and the largest server that the CRDs accept stay within what the API server spends on CEL.
func TestLargest(t *testing.T) {
	namespace := newNamespace(t, nil)
	many := func(n int, element string) string {
		out := make([]string, n)
		for i := range out {
			out[i] = strings.ReplaceAll(element, "%d", fmt.Sprintf("%03d", i))
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	long := strings.Repeat(strings.Repeat("a", 60)+".", 3) + strings.Repeat("b", 60)
	policy := judged{policy: "images: {allowedRepositories: " + many(64, "r%d.example/"+strings.Repeat("a", 240)+"/*") + "}, egress: {allowedHosts: " + many(128, "'*.h%d."+long+"'") +
		", deniedCIDRs: " + many(64, "'2001:db8:%d:1234:5678:9abc:def0:0/112'") + ", allowedPorts: " + strings.ReplaceAll(many(64, "1%d"), " ", "") + "}, secrets: {allowedEnvNames: " + many(128, "P%d"+strings.Repeat("A", 240)+"*") +
		"}, pods: {maxResources: {memory: 64Mi}, requireUserNamespace: true}, exemptions: " + many(256, "{namespace: NAMESPACE, name: server, controls: "+many(64, "NET-99")+", reason: r, expiresAt: '2099-01-31T00:00:00Z'}")}
	policy.policy = distinctControls(policy.policy)
	enact(t, policyOf(t, policy, namespace))
	must(t, inForce(t.Context()))
	ports := strings.ReplaceAll(many(32, "2%d"), " ", "")
	server := serverOf(t, "image: 'registry.example/"+strings.Repeat("a", 200)+"', env: "+many(128, "{name: P%d"+strings.Repeat("A", 239)+"B, value: b}")+
		", filesystem: {data: "+many(16, "{mountPath: /b%d, claimName: b%d}")+"}, network: {egress: "+
		strings.TrimSuffix(many(32, "{to: {host: h%d."+long+".c}, ports: "+ports+"}"), "]")+", "+strings.TrimPrefix(many(32, "{to: {cidr: '2001:db8:%d:1234:5678:9abc:def0:0/128'}, ports: "+ports+"}"), "[")+"}", namespace)
	refusal := refusalOf(t, admin.Create(t.Context(), server, client.DryRunAll))
	if !strings.Contains(refusal, "policy "+namespace+": IMG-01: spec.image: ") || !strings.HasSuffix(refusal, "...") {
		t.Errorf("the refusal says %.300s", refusal)
	}
}

// distinctControls numbers the controls of each exemption: a set holds none twice.
func distinctControls(policy string) string {
	n := 0
	for strings.Contains(policy, "NET-99") {
		policy = strings.Replace(policy, "NET-99", fmt.Sprintf("XXX-%02d", n%64), 1)
		n++
	}
	return policy
}
