package compliance_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

var update = flag.Bool("update", false, "write docs/controls.md instead of comparing with it")

const document = "../../docs/controls.md"

const preface = `# The controls

<!-- Written from the catalogue (internal/compliance) by make golden. Do not edit. -->

A control is one thing that must hold of an MCPServer. The operator judges every server by every control, from the live objects
and not from what was asked for, and shows the results in ` + "`status.compliance`" + `; the condition ` + "`PolicyCompliant`" + ` sums them up.
` + "`kubectl warden lint`" + ` judges manifests by the same catalogue, without a cluster, and ` + "`kubectl warden explain POD-01`" + ` prints what this page says.

A result is **Pass**, **Fail**, **Unknown** (it cannot be told, and the message says why; no control ever passes on missing information) or **Exempted** (it
does not hold, and a policy excuses the server until a time). A control that does not apply, such as one that no policy demands, has no result.

- **Severity**: Critical: without it a server can take over others, or the cluster. High: without it a server can reach, or be reached by, what it must
  not. Medium: without it an attack is easier, or harder to notice. Low: a defence in depth. Critical and High turn ` + "`PolicyCompliant`" + `; so does every
  control, whatever its severity, where a policy demands it.
- **Reads**: what the control looks at. Controls that read more than the spec, the plan and the policies take a cluster: offline they are Unknown.
- **Blocks**: under a policy with action Enforce a change of the spec that violates the control is never rolled out. What the control demands by itself,
  without a policy that names a value, blocks only where its severity is High or Critical.
- **Workloads**: ` + "`kubectl warden lint --workloads`" + ` judges Deployments and other workloads that are no server's by the control, too; *In a workload* says how
  to fix it there. What it reads is the template of the pods, and the NetworkPolicies, policies and Namespace of the same input.

References: *PSS* are the [Pod Security Standards](https://kubernetes.io/docs/concepts/security/pod-security-standards/); *OWASP* is the
[OWASP MCP Top 10](https://owasp.org/www-project-mcp-top-10/), 2025; *CoSAI* the threats of the Coalition for Secure AI's paper
[Model Context Protocol (MCP) Security](https://github.com/cosai-oasis/ws4-secure-design-agentic-systems); *CIS Kubernetes* the CIS Kubernetes Benchmark, by
the numbers of its version 1.10; *NSA/CISA* the Kubernetes Hardening Guide, version 1.2, by the subject.

What no control tells yet: whether an image is signed, what a Service without a selector leads to (somebody else writes its
EndpointSlices), and what a server does with what it may reach.

Pods that have ended are not looked at; ones that are being deleted are. While a rollout is under way, a pod that differs from the Deployment may be of the
revision before: then a control that compares the two is Unknown, and one about the floor that every pod gets is not.
`

var families = []struct{ prefix, name string }{
	{"POD", "Pods"}, {"NET", "Networks"}, {"SEC", "Secrets"}, {"IMG", "Images"}, {"ACC", "Access"}, {"OPS", "Operations"},
}

// The document is what the catalogue says.
func TestDocument(t *testing.T) {
	got := render()
	if *update {
		if err := os.WriteFile(document, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/controls.md is not what the catalogue says: run make golden")
	}
}

func render() []byte {
	var b bytes.Buffer
	b.WriteString(preface)
	for _, family := range families {
		fmt.Fprintf(&b, "\n## %s\n\n| id | what holds | severity | blocks | workloads |\n| --- | --- | --- | --- | --- |\n", family.name)
		controls := of(family.prefix)
		for _, c := range controls {
			fmt.Fprintf(&b, "| [%s](#%s) | %s | %s | %s | %s |\n", c.ID, strings.ToLower(string(c.ID)), c.Title, c.Severity, yes(c.Enforced), yes(c.OfWorkloads()))
		}
		for _, c := range controls {
			fmt.Fprintf(&b, "\n### %s\n\n%s. %s\n\n- Severity: %s\n- Reads: %s\n- Takes a cluster: %s\n- Remedy: %s\n- References: %s\n",
				c.ID, c.Title, c.Rationale, c.Severity, c.Reads, orNo(yes(c.IsLive())), c.Remedy, strings.Join(c.References, ", "))
			if c.OfWorkloads() {
				fmt.Fprintf(&b, "- In a workload: %s\n", c.Fix)
			}
		}
	}
	return b.Bytes()
}

func of(family string) []compliance.Control {
	var out []compliance.Control
	for _, c := range compliance.Catalogue() {
		if strings.HasPrefix(string(c.ID), family) {
			out = append(out, c)
		}
	}
	return out
}

func yes(holds bool) string {
	if holds {
		return "yes"
	}
	return ""
}

func orNo(text string) string {
	if text == "" {
		return "no"
	}
	return text
}
