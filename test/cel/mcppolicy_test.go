package cel

import (
	"strings"
	"testing"
)

// basePolicy is a valid MCPPolicy that demands nothing, which every case starts from.
const basePolicy = `
apiVersion: mcpwarden.io/v1alpha1
kind: MCPPolicy
metadata: {name: production}
spec: {namespaceSelector: {}, action: Enforce}
`

func images(s string) string  { return spec("images: {" + s + "}") }
func reach(s string) string   { return spec("egress: {" + s + "}") }
func secrets(s string) string { return spec("secrets: {" + s + "}") }
func pods(s string) string    { return spec("pods: {" + s + "}") }
func largest(s string) string { return pods("maxResources: {" + s + "}") }
func exempt(s string) string  { return spec("exemptions: [{" + s + "}]") }

const anExemption = "namespace: prod-a, name: legacy, controls: [NET-03], reason: the vendor API has no host name, expiresAt: '2027-01-31T00:00:00Z'"

// acceptedPolicies are forms that admins expect to work, as patches of the base.
var acceptedPolicies = []struct{ name, patch string }{
	{"one that demands nothing", "{}"},
	{"warn", spec("action: Warn")},
	{"audit", spec("action: Audit")},
	{"namespaces by label", spec("namespaceSelector: {matchLabels: {env: prod}, matchExpressions: [{key: team.example/tier, operator: NotIn, values: [sandbox, '']}, {key: a, operator: Exists}]}")},
	{"one repository and all below another", images("allowedRepositories: [ghcr.io/github/github-mcp-server, 'ghcr.io/github/*', 'registry.example:5000/*', 'docker.io/library/*', 'a.example/b/c_d/e__f/g--h.i']")},
	{"no repository", images("allowedRepositories: []")},
	{"a digest", images("requireDigest: true")},
	{"most repositories", images("allowedRepositories: " + list(64, "r%d.example/a"))},
	{"hosts", reach("allowedHosts: [api.github.com, '*.github.com', a.b, 'xn--bcher-kva.example']")},
	{"most hosts", reach("allowedHosts: " + list(128, "h%d.example"))},
	{"ranges", reach("deniedCIDRs: [10.0.0.0/8, 0.0.0.0/0, 'fd00::/8', '::/0', 203.0.113.7/32]")},
	{"ports", reach("allowedPorts: [1, 443, 65535]")},
	{"a proof", reach("requireProof: true")},
	{"an age", secrets("maxAge: 2160h")},
	{"the shortest age", secrets("maxAge: 1m")},
	{"the longest age", secrets("maxAge: 87600h")},
	{"names of variables", secrets("allowedEnvNames: ['GITHUB_*', LOG_LEVEL, _x.y-Z, 'A*']")},
	{"values of its own", secrets("sharing: SelectedNamespaces")},
	{"values that are shared", secrets("sharing: Anywhere")},
	{"resources", largest("cpu: 2, memory: 1Gi, ephemeral-storage: '1e9'")},
	{"runtime classes", pods("allowedRuntimeClassNames: [gvisor, kata.example]")},
	{"user namespaces", pods("requireUserNamespace: true")},
	{"an exemption", exempt(anExemption)},
	{"one that is over", exempt("namespace: a, name: b, controls: [NET-03, IMG-01], reason: r, expiresAt: '2020-01-31T00:00:00+02:00'")},
	{"most exemptions", spec("exemptions: " + list(256, "{namespace: a, name: b%d, controls: [NET-03], reason: r, expiresAt: '2027-01-31T00:00:00Z'}"))},
	{"the example of the documentation", fullPolicy},
}

// fullPolicy has every field of the API.
const fullPolicy = `
spec:
  namespaceSelector: {matchLabels: {env: prod}}
  action: Enforce
  images:  {allowedRepositories: ["ghcr.io/github/*"], requireDigest: true}
  egress:  {allowedHosts: ["*.github.com"], deniedCIDRs: ["10.0.0.0/8"], allowedPorts: [443], requireProof: true}
  secrets: {maxAge: 2160h, allowedEnvNames: ["GITHUB_*", "LOG_LEVEL"], sharing: SelectedNamespaces}
  pods:    {maxResources: {cpu: 2, memory: 1Gi, ephemeral-storage: 1Gi}, allowedRuntimeClassNames: [gvisor], requireUserNamespace: false}
  exemptions: [{namespace: prod-a, name: legacy, controls: [NET-03], reason: "vendor API has no host name", expiresAt: 2027-01-31T00:00:00Z}]
`

// refusedPolicies are policies that would not do what whoever wrote them meant.
var refusedPolicies = []refusal{
	{"no spec", "spec: null", "spec", "Required value"},
	{"no action", spec("action: null"), "spec.action", "Required value"},
	{"an action that is none", spec("action: Deny"), "spec.action", `supported values: "Enforce", "Warn", "Audit"`},
	{"no selector", spec("namespaceSelector: null"), "spec.namespaceSelector", "Required value"},
	{"a selector with a bad key", spec("namespaceSelector: {matchLabels: {'a b': c}}"), "spec.namespaceSelector.matchLabels", "every key must be a label key"},
	{"a selector with a bad value", spec("namespaceSelector: {matchLabels: {a: 'b c'}}"), "spec.namespaceSelector.matchLabels[a]", "must be a label value"},
	{"a selector with too many labels", spec("namespaceSelector: {matchLabels: {a: a, b: a, c: a, d: a, e: a, f: a, g: a, h: a, i: a}}"), "spec.namespaceSelector.matchLabels", "must have at most 8 items"},
	{"a selector with too many expressions", spec("namespaceSelector: {matchExpressions: " + list(9, "{key: k%d, operator: Exists}") + "}"), "spec.namespaceSelector.matchExpressions", "must have at most 8 items"},
	{"In without values", spec("namespaceSelector: {matchExpressions: [{key: a, operator: In}]}"), "spec.namespaceSelector.matchExpressions[0]", "In and NotIn need values"},
	{"a selector of pods", spec("podSelector: {}"), "spec.podSelector", "unknown field"},

	{"a repository with a tag", images("allowedRepositories: ['ghcr.io/github/server:v1']"), "spec.images.allowedRepositories[0]", "with no tag and no digest"},
	{"a repository with a digest", images("allowedRepositories: ['ghcr.io/github/server@sha256:" + strings.Repeat("a", 64) + "']"), "spec.images.allowedRepositories[0]", "with no tag and no digest"},
	{"a registry alone", images("allowedRepositories: [ghcr.io]"), "spec.images.allowedRepositories[0]", "must be a repository with its registry"},
	{"every repository", images("allowedRepositories: ['*']"), "spec.images.allowedRepositories[0]", "at least 3 chars long"},
	{"a wildcard in the registry", images("allowedRepositories: ['*.github.io/server']"), "spec.images.allowedRepositories[0]", "must be a repository with its registry"},
	{"a wildcard in a name", images("allowedRepositories: ['ghcr.io/github-*']"), "spec.images.allowedRepositories[0]", "or all below one"},
	{"a wildcard in the middle", images("allowedRepositories: ['ghcr.io/*/server']"), "spec.images.allowedRepositories[0]", "or all below one"},
	{"a repository in capitals", images("allowedRepositories: [ghcr.io/GitHub/server]"), "spec.images.allowedRepositories[0]", "must be a repository with its registry"},
	{"a repository with a scheme", images("allowedRepositories: ['https://ghcr.io/a']"), "spec.images.allowedRepositories[0]", "must be a repository with its registry"},
	{"a repository that climbs", images("allowedRepositories: [ghcr.io/../a]"), "spec.images.allowedRepositories[0]", "must be a repository with its registry"},
	{"a repository twice", images("allowedRepositories: [a.example/b, a.example/b]"), "spec.images.allowedRepositories[1]", "Duplicate value"},
	{"a repository too long", images("allowedRepositories: [a.example/" + strings.Repeat("a", 250) + "]"), "spec.images.allowedRepositories[0]", "may not be more than 255"},
	{"too many repositories", images("allowedRepositories: " + list(65, "r%d.example/a")), "spec.images.allowedRepositories", "must have at most 64 items"},
	{"a digest by word", images("requireDigest: always"), "spec.images.requireDigest", "must be of type boolean"},

	{"no host at all", reach("allowedHosts: []"), "spec.egress.allowedHosts", "at least 1 items"},
	{"a host of one label", reach("allowedHosts: [localhost]"), "spec.egress.allowedHosts[0]", "must be a DNS name in lower case"},
	{"every host", reach("allowedHosts: ['*.com.']"), "spec.egress.allowedHosts[0]", "must be a DNS name in lower case"},
	{"a host in capitals", reach("allowedHosts: [API.github.com]"), "spec.egress.allowedHosts[0]", "must be a DNS name in lower case"},
	{"a host with a port", reach("allowedHosts: ['api.github.com:443']"), "spec.egress.allowedHosts[0]", "must be a DNS name in lower case"},
	{"a host with a scheme", reach("allowedHosts: ['https://api.github.com']"), "spec.egress.allowedHosts[0]", "must be a DNS name in lower case"},
	{"a host with a wildcard in a label", reach("allowedHosts: ['api-*.github.com']"), "spec.egress.allowedHosts[0]", "*.github.com for every name below"},
	{"a host twice", reach("allowedHosts: [a.b, a.b]"), "spec.egress.allowedHosts[1]", "Duplicate value"},
	{"a host too long", reach("allowedHosts: ['" + strings.Repeat("a.", 126) + "aa']"), "spec.egress.allowedHosts[0]", "may not be more than 253"},
	{"too many hosts", reach("allowedHosts: " + list(129, "h%d.example")), "spec.egress.allowedHosts", "must have at most 128 items"},
	{"an address for a range", reach("deniedCIDRs: [10.0.0.1]"), "spec.egress.deniedCIDRs[0]", "must be an address range such as 10.0.0.0/8"},
	{"a range with bits behind its prefix", reach("deniedCIDRs: [10.0.0.1/8]"), "spec.egress.deniedCIDRs[0]", "no bit set behind its prefix"},
	{"a range with a prefix too long", reach("deniedCIDRs: [10.0.0.0/33]"), "spec.egress.deniedCIDRs[0]", "must be an address range"},
	{"a range that is a name", reach("deniedCIDRs: [internal]"), "spec.egress.deniedCIDRs[0]", "must be an address range"},
	{"too many ranges", reach("deniedCIDRs: " + list(65, "10.%d.0.0/16")), "spec.egress.deniedCIDRs", "must have at most 64 items"},
	{"no port at all", reach("allowedPorts: []"), "spec.egress.allowedPorts", "at least 1 items"},
	{"port 0", reach("allowedPorts: [0]"), "spec.egress.allowedPorts[0]", "greater than or equal to 1"},
	{"port 65536", reach("allowedPorts: [65536]"), "spec.egress.allowedPorts[0]", "less than or equal to 65535"},
	{"a port by name", reach("allowedPorts: [https]"), "spec.egress.allowedPorts[0]", "must be of type integer"},
	{"a port twice", reach("allowedPorts: [443, 443]"), "spec.egress.allowedPorts[1]", "Duplicate value"},
	{"too many ports", reach("allowedPorts: [" + strings.Trim(list(65, "1%d"), "[]") + "]"), "spec.egress.allowedPorts", "must have at most 64 items"},

	{"an age in days", secrets("maxAge: 90d"), "spec.secrets.maxAge", "must be a duration from 1m to 87600h"},
	{"an age of nothing", secrets("maxAge: 0s"), "spec.secrets.maxAge", "must be a duration from 1m to 87600h"},
	{"an age too long", secrets("maxAge: 87601h"), "spec.secrets.maxAge", "must be a duration from 1m to 87600h"},
	{"an age that is a number", secrets("maxAge: 90"), "spec.secrets.maxAge", "must be of type string"},
	{"no name at all", secrets("allowedEnvNames: []"), "spec.secrets.allowedEnvNames", "at least 1 items"},
	{"every name", secrets("allowedEnvNames: ['*']"), "spec.secrets.allowedEnvNames[0]", "or the beginning of some and *"},
	{"the end of a name", secrets("allowedEnvNames: ['*_TOKEN']"), "spec.secrets.allowedEnvNames[0]", "or the beginning of some and *"},
	{"a name with an equals sign", secrets("allowedEnvNames: ['A=b']"), "spec.secrets.allowedEnvNames[0]", "must be the name of a variable"},
	{"a name twice", secrets("allowedEnvNames: [A, A]"), "spec.secrets.allowedEnvNames[1]", "Duplicate value"},
	{"too many names", secrets("allowedEnvNames: " + list(129, "A%d")), "spec.secrets.allowedEnvNames", "must have at most 128 items"},
	{"sharing with nobody", secrets("sharing: Nowhere"), "spec.secrets.sharing", `supported values: "Anywhere", "SelectedNamespaces"`},

	{"cpu of nothing", largest("cpu: 0"), "spec.pods.maxResources.cpu", "must be an amount of cpu from 1m to 1024"},
	{"memory without a unit", largest("memory: 512"), "spec.pods.maxResources.memory", "must be an amount of memory from 4Mi to 16Ti"},
	{"memory by word", largest("memory: much"), "spec.pods.maxResources.memory", "should match"},
	{"storage with a great exponent", largest("ephemeral-storage: 1e999999999"), "spec.pods.maxResources.ephemeral-storage", "must be an amount of storage from 1Mi to 16Ti"},
	{"another resource", largest("nvidia.com/gpu: 1"), "spec.pods.maxResources.nvidia.com/gpu", "unknown field"},
	{"no runtime class at all", pods("allowedRuntimeClassNames: []"), "spec.pods.allowedRuntimeClassNames", "at least 1 items"},
	{"a runtime class with a bad name", pods("allowedRuntimeClassNames: [gVisor]"), "spec.pods.allowedRuntimeClassNames[0]", "must be an object name"},
	{"too many runtime classes", pods("allowedRuntimeClassNames: " + list(17, "r%d")), "spec.pods.allowedRuntimeClassNames", "must have at most 16 items"},
	{"a user namespace by word", pods("requireUserNamespace: please"), "spec.pods.requireUserNamespace", "must be of type boolean"},

	{"an exemption without a server", exempt("namespace: a, controls: [NET-03], reason: r, expiresAt: '2027-01-31T00:00:00Z'"), "spec.exemptions[0].name", "Required value"},
	{"an exemption without a namespace", exempt("name: a, controls: [NET-03], reason: r, expiresAt: '2027-01-31T00:00:00Z'"), "spec.exemptions[0].namespace", "Required value"},
	{"an exemption for ever", exempt("namespace: a, name: b, controls: [NET-03], reason: r"), "spec.exemptions[0].expiresAt", "Required value"},
	{"an exemption until no time", exempt("namespace: a, name: b, controls: [NET-03], reason: r, expiresAt: tomorrow"), "spec.exemptions[0].expiresAt", "date-time"},
	{"an exemption without a reason", exempt("namespace: a, name: b, controls: [NET-03], expiresAt: '2027-01-31T00:00:00Z'"), "spec.exemptions[0].reason", "Required value"},
	{"an exemption with an empty reason", exempt("namespace: a, name: b, controls: [NET-03], reason: '', expiresAt: '2027-01-31T00:00:00Z'"), "spec.exemptions[0].reason", "at least 1 chars long"},
	{"an exemption from nothing", exempt("namespace: a, name: b, controls: [], reason: r, expiresAt: '2027-01-31T00:00:00Z'"), "spec.exemptions[0].controls", "at least 1 items"},
	{"an exemption from everything", exempt("namespace: a, name: b, controls: ['*'], reason: r, expiresAt: '2027-01-31T00:00:00Z'"), "spec.exemptions[0].controls[0]", "must be the id of a control"},
	{"an exemption from a family", exempt("namespace: a, name: b, controls: [NET], reason: r, expiresAt: '2027-01-31T00:00:00Z'"), "spec.exemptions[0].controls[0]", "must be the id of a control"},
	{"too many exemptions", spec("exemptions: " + list(257, "{namespace: a, name: b%d, controls: [NET-03], reason: r, expiresAt: '2027-01-31T00:00:00Z'}")), "spec.exemptions", "must have at most 256 items"},
}

func TestPoliciesAccepted(t *testing.T) {
	for _, tc := range acceptedPolicies {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if err := create(t, patchedFrom(t, basePolicy, tc.patch)); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestPoliciesRefused(t *testing.T) {
	for _, tc := range refusedPolicies {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			checkRefused(t, create(t, patchedFrom(t, basePolicy, tc.patch)), tc)
		})
	}
}
