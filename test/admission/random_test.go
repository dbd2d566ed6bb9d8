package admission

import (
	"flag"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

var seed = flag.Uint64("seed", 1, "of the random policies and servers")

// chance builds policies and servers out of parts that nearly meet one another.
type chance struct{ *rand.Rand }

func (c chance) of(pool ...string) string { return pool[c.IntN(len(pool))] }

// list is a list of one to four parts, none twice, each quoted.
func (c chance) list(pool ...string) string {
	c.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	return "['" + strings.Join(pool[:1+c.IntN(min(4, len(pool)))], "', '") + "']"
}

// some is a text, or nothing half of the time.
func (c chance) some(text string) string {
	if c.IntN(2) == 0 {
		return ""
	}
	return text + ", "
}

func (c chance) policy() string {
	return "images: {" + c.some("allowedRepositories: "+c.list("docker.io/*", "docker.io/library/alpine", "docker.io/a/b", "ghcr.io/github/*", "ghcr.io/github/server", "registry.example:5000/*", "localhost/*", "localhost:5000/x")) +
		c.some("requireDigest: true") + "}, egress: {" +
		c.some("allowedHosts: "+c.list("a.example", "*.a.example", "b.a.example", "*.b.a.example", "example.org", "*.example.org")) +
		c.some("deniedCIDRs: "+c.list("10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "203.0.113.0/24", "128.0.0.0/1", "fd00::/8", "2001:db8::/32", "64:ff9b::/96")) +
		c.some("allowedPorts: "+strings.ReplaceAll(c.list("443", "80", "5432", "65535"), "'", "")) + c.some("requireProof: true") + "}, secrets: {" +
		c.some("allowedEnvNames: "+c.list("A", "A*", "AB", "AB_*", "B.c", "_*", "a*")) + "}, pods: {maxResources: {" +
		c.some("cpu: "+c.of("1", "999m", "1e0", "'0.5'", "1500m")) + c.some("memory: "+c.of("512Mi", "511Mi", "'1e9'", "1Gi", "600M", "'536870912'")) +
		c.some("ephemeral-storage: "+c.of("256Mi", "320Mi", "'3e8'", "1Gi")) + "}, " +
		c.some("allowedRuntimeClassNames: "+c.list("gvisor", "kata", "g")) + c.some("requireUserNamespace: true") + "}, " +
		c.some("exemptions: [{namespace: NAMESPACE, name: server, controls: "+c.list("IMG-01", "NET-10", "NET-11", "SEC-02", "POD-17")+", reason: r, expiresAt: '"+c.of("2099-01-01T00:00:00Z", "2020-01-01T00:00:00+02:00")+"'}]")
}

func (c chance) server() string {
	var rules, variables []string
	for range c.IntN(4) {
		to := c.of("host: '"+c.of("a.example", "*.a.example", "b.a.example", "c.b.a.example", "*.b.a.example", "example.org", "x.example.org", "aexample.org", "ba.example")+"'",
			"cidr: '"+c.of("10.0.0.0/8", "10.1.2.0/24", "0.0.0.0/0", "11.0.0.0/8", "192.168.0.1/32", "203.0.112.0/23", "fd12::/16", "fc00::/7", "2001:DB8:1::/48", "::/0", "64:ff9b::a01:0/112", "64:ff9b::cb00:7100/120", "64:ff9b::b00:0/104")+"'",
			"service: {name: db}")
		rules = append(rules, "{to: {"+to+"}, ports: "+strings.ReplaceAll(c.list("443", "80", "5432", "65535", "8443"), "'", "")+"}")
	}
	for _, name := range []string{"A", "AB", "AB_C", "B.c", "Bxc", "a", "_"} {
		if c.IntN(4) == 0 {
			variables = append(variables, "{name: "+name+", value: v}")
		}
	}
	amounts := func() string {
		return "{" + c.some("cpu: "+c.of("1", "999m", "'0.5'", "1.5", "100m")) + c.some("memory: "+c.of("512Mi", "511Mi", "1G", "1Gi", "536870912", "'6e8'")) + c.some("ephemeral-storage: "+c.of("256Mi", "320Mi", "1G", "268435457")) + "}"
	}
	return "image: '" + c.of("alpine", "alpine:3", "a/b", "a/b:v1"+pinned, "index.docker.io/a/b", "docker.io/a/b", "ghcr.io/github/server:v1", "ghcr.io/github/server"+pinned, "ghcr.io/github/x/y", "ghcr.io/githubx/y", "GHCR.io/github/y",
		"localhost/x", "localhost:5000/x:v1", "registry.example:5000/a/b", "registry.example/a/b", "Registry/a", "index.ghcr.io/github/server") + "', " +
		"env: [" + strings.Join(variables, ", ") + "], network: {" + c.some("enforcement: "+c.of("Require", "Report")) + "egress: [" + strings.Join(rules, ", ") + "]}, " +
		"resources: {" + c.of("requests: ", "limits: ") + amounts() + "}, " + c.some("scheduling: {runtimeClassName: "+c.of("gvisor", "kata", "g", "runc")+"}") +
		"filesystem: {" + c.some("writablePaths: [{path: /tmp, sizeLimit: 1Gi}, {path: /a"+c.of("", ", sizeLimit: 32Mi", ", sizeLimit: '1e6'", ", sizeLimit: 67108864")+"}]") + c.some("data: [{mountPath: /b, "+c.of("claimName: b", "configMapName: b")+"}]") + "}"
}

// Whatever the policy and the server, the API server and the catalogue find the same controls violated.
func TestAgreeOnRandomServers(t *testing.T) {
	c := chance{rand.New(rand.NewPCG(*seed, 0))}
	const policies, servers = 30, 10
	namespaces, specs := make([]string, policies), make([]judged, policies)
	for i := range namespaces {
		namespaces[i], specs[i] = newNamespace(t, nil), judged{policy: c.policy()}
		enact(t, policyOf(t, specs[i], namespaces[i]))
	}
	must(t, inForce(t.Context()))
	found := map[string]int{}
	for i, namespace := range namespaces {
		policy := policyOf(t, specs[i], namespace)
		for range servers {
			text := c.server()
			server := serverOf(t, text, namespace)
			var ids []string
			for _, r := range compliance.Blocking(compliance.Input{Now: time.Now(), Server: server.DeepCopy(), Policies: []v1alpha1.MCPPolicy{*policy}}) {
				ids = append(ids, string(r.Control.ID))
				found[string(r.Control.ID)]++
			}
			refusal := refusalOf(t, admin.Create(t.Context(), server, client.DryRunAll))
			if got, want := sorted(idsIn(refusal)), sorted(strings.Join(ids, " ")); got != want {
				t.Fatalf("-seed=%d: the API server found %q, internal/compliance %q: %s\npolicy: %s\nserver: %s", *seed, got, want, refusal, specs[i].policy, text)
			}
			if len(ids) == 0 {
				found["nothing"]++
			}
		}
	}
	t.Log(found)
	for _, id := range append(idsOfCases(), "nothing") {
		if found[id] == 0 {
			t.Errorf("%s was never found: the parts do not meet", id)
		}
	}
}

func idsOfCases() []string {
	var out []string
	for _, tc := range cases {
		out = append(out, strings.Fields(tc.want)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
