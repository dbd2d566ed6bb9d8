package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	sigsyaml "sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/plan/plantest"
)

// command runs a command line as a shell would.
func command(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code = Run(args, Streams{In: strings.NewReader(stdin), Out: &out, Err: &errOut})
	return code, out.String(), errOut.String()
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"--help", exitOK, "kubectl warden [command]"},
		{"explain --help", exitOK, "kubectl warden explain NET-03"},
		{"--version", exitOK, "kubectl warden version dev go1."},
		{"completion bash", exitOK, "bash completion"},
		{"nonsense", exitUsage, `unknown command "nonsense"`},
		{"explain --nonsense", exitUsage, "unknown flag"},
		{"explain NET-01 NET-02", exitUsage, "at most 1 arg"},
		{"explain XYZ-99", exitUsage, `"XYZ-99" is no control`},
		{"__complete explain NET-0", exitOK, "NET-03\t"},
	} {
		code, stdout, stderr := command(t, "", strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(stdout+stderr, tc.says) {
			t.Errorf("%s: exit %d, want %d with %q:\n%s%s", tc.args, code, tc.code, tc.says, stdout, stderr)
		}
	}
}

func TestExplain(t *testing.T) {
	_, list, _ := command(t, "", "explain")
	for _, c := range compliance.Catalogue() {
		if !strings.Contains(list, string(c.ID)+" ") || !strings.Contains(list, c.Title) {
			t.Errorf("the list lacks %s", c.ID)
		}
		_, text, _ := command(t, "", "explain", strings.ToLower(string(c.ID)))
		for _, part := range []string{string(c.ID), c.Title, c.Rationale, c.Remedy, string(c.Severity), c.References[0]} {
			if !strings.Contains(text, part) {
				t.Errorf("what is said of %s lacks %q", c.ID, part)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("%s is coloured where there is no terminal", c.ID)
		}
	}
}

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s; run the tests of this package with -update and look at the difference:\n%s", path, got)
	}
}

// What lint finds, in every form; what it says holds no value of the spec.
func TestLintGolden(t *testing.T) {
	found := map[string]string{}
	for format := range formats {
		code, stdout, stderr := command(t, "", "lint", "-f", "testdata/lint", "--policy", "testdata/policy.json", "-o", format)
		if code != exitViolations || stderr != "" {
			t.Errorf("%s: exit %d: %s", format, code, stderr)
		}
		if strings.Contains(stdout, "hunter2") {
			t.Errorf("%s: a value of the spec is repeated", format)
		}
		found[format] = stdout
	}
	compareGolden(t, "lint.txt", found["text"])
	compareGolden(t, "lint.json", found["json"])
	log := sarifLog{}
	if err := json.Unmarshal([]byte(found["sarif"]), &log); err != nil {
		t.Fatal(err)
	}
	log.Runs[0].Tool.Driver.Rules = nil // the catalogue's
	sarif, err := json.MarshalIndent(log, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	compareGolden(t, "lint.sarif.json", string(sarif)+"\n")
	asJSON, err := sigsyaml.YAMLToJSON([]byte(found["yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	var one, other any
	if err := errors.Join(json.Unmarshal(asJSON, &one), json.Unmarshal([]byte(found["json"]), &other)); err != nil || !reflect.DeepEqual(one, other) {
		t.Errorf("YAML and JSON say different things: %v", err)
	}
}

func TestRenderGolden(t *testing.T) {
	stdin := `
apiVersion: v1
kind: Service
metadata: {name: postgres, namespace: data}
spec: {selector: {app: postgres}, ports: [{port: 5432}]}
---
apiVersion: mcpwarden.io/v1alpha1
kind: MCPServer
metadata: {name: github}
spec:
  image: ghcr.io/github/github-mcp-server:v1.2.0
  transport: {type: StreamableHTTP, port: 8080}
  env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: github, key: token}}}]
  network:
    enforcement: Require
    egress:
    - {to: {host: api.github.com}, ports: [443]}
    - {to: {service: {name: postgres, namespace: data}}, ports: [5432]}
    - {to: {service: {name: missing}}, ports: [80]}
`
	code, stdout, stderr := command(t, stdin, "render", "-f", "-", "-n", "agents")
	if code != exitOK || stderr != "" {
		t.Errorf("exit %d: %s", code, stderr)
	}
	compareGolden(t, "render.yaml", stdout)
}

// What goes to no terminal has no colours in it, and no words change where it has.
func TestPaint(t *testing.T) {
	var b strings.Builder
	if p := painterFor(&b); p.in(red, "error") != "error" {
		t.Error("coloured where there is no terminal")
	}
	if got := paint(true).in(red, "error"); got != "\x1b[31merror\x1b[0m" {
		t.Errorf("got %q", got)
	}
}

const goodServer = `apiVersion: mcpwarden.io/v1alpha1
kind: MCPServer
metadata: {name: web, namespace: agents}
spec:
  image: ghcr.io/github/server:v1
  transport: {type: StreamableHTTP, port: 8080}
`

func TestLintExitCodes(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	policy := strings.NewReplacer("\n", " ").Replace(`{"apiVersion": "mcpwarden.io/v1alpha1", "kind": "MCPPolicy", "metadata": {"name": "p"},
		"spec": {"action": "Audit", "namespaceSelector": {"matchLabels": {"env": "prod"}}, "images": {"requireDigest": true}}}`)
	policyFile := write("policies/p.json", policy)
	inFolder := write("tree/deep/server.yml", goodServer)
	write("tree/.git/broken.yaml", "{{")
	write("tree/notes.txt", "{{")
	broken := write("broken/template.yaml", "a: {{ .Values.a }}\nb: [")
	namespace := func(env string) string {
		return "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: agents, labels: {env: " + env + "}}\n"
	}
	for _, tc := range []struct {
		name, stdin, args string
		code              int
		says              string
	}{
		{"a warning is no failure", goodServer, "lint -f -", exitOK, "<stdin>:5: warning: IMG-02 (Medium) spec.image"},
		{"what a policy demands is", goodServer, "lint -f - --policy " + policyFile, exitViolations, "error: IMG-02 (Medium) policy p: spec.image"},
		{"the assumption is told", goodServer, "lint -f - --policy " + policyFile, exitViolations, "every policy is taken to select namespace agents"},
		{"a policy for other namespaces", goodServer + namespace("test"), "lint -f - --policy " + policyFile, exitOK, "warning: IMG-02"},
		{"a policy for this namespace", goodServer + namespace("prod"), "lint -f - --policy " + policyFile, exitViolations, "error: IMG-02"},
		{"a policy in the same stream", goodServer + "---\n" + policy, "lint -f -", exitViolations, "error: IMG-02"},
		{"a folder", "", "lint -f " + filepath.Join(folder, "tree"), exitOK, inFolder + ":5: warning"},
		{"an unknown field", goodServer + "  imagee: x\n", "lint -f -", exitViolations, "<stdin>:7: invalid: MCPServer web: spec.imagee"},
		{"a broken rule", strings.Replace(goodServer, "name: web", "name: mcp-warden-x", 1), "lint -f -", exitViolations, "choose another name"},
		{"two of one name in a list", goodServer + "  env: [{name: A, value: a}, {name: A, value: b}]\n", "lint -f -", exitViolations, "<stdin>:7: invalid: MCPServer web: spec.env[1]: Duplicate value"},
		{"values are read as kubectl reads them", goodServer + "  env: [{name: A, value: yes}]\n", "lint -f -", exitViolations, "spec.env[0].value"},
		{"nothing to judge", "apiVersion: v1\nkind: Secret\n", "lint -f -", exitOK, "No MCPServer was found"},
		{"nothing at all", "", "lint -f -", exitOK, "No MCPServer was found"},
		{"no file", "", "lint", exitUsage, `"filename" not set`},
		{"a file that is not there", "", "lint -f " + filepath.Join(folder, "nowhere"), exitUsage, "no such file"},
		{"a template", "", "lint -f " + broken, exitUsage, "template.yaml"},
		{"a key twice", goodServer + "spec: {}\n", "lint -f -", exitUsage, "already"},
		{"another form", goodServer, "lint -f - -o xml", exitUsage, "json, sarif, text, yaml"},
		{"standard input twice", goodServer, "lint -f - --policy -", exitUsage, "once"},
		{"an argument", goodServer, "lint -f - x", exitUsage, "unknown command"},
		{"render of what is not valid", strings.Replace(goodServer, "8080", "0", 1), "render -f -", exitViolations, "spec.transport.port"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, stdout, stderr := command(t, tc.stdin, strings.Fields(tc.args)...)
			if code != tc.code || !strings.Contains(stdout+stderr, tc.says) {
				t.Errorf("exit %d, want %d with %q:\n%s%s", code, tc.code, tc.says, stdout, stderr)
			}
		})
	}
}

// lint says of every golden case what the catalogue says of its plan, whatever the cluster is like.
func TestLintAndCatalogueAgree(t *testing.T) {
	cases, err := plantest.Load()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		raw, err := sigsyaml.Marshal(c.Input.Server)
		if err != nil {
			t.Fatal(err)
		}
		_, stdout, stderr := command(t, string(raw), "lint", "-f", "-", "-o", "json")
		found := lintVerdict{}
		if err := json.Unmarshal([]byte(stdout), &found); err != nil || len(found.Servers) != 1 {
			t.Errorf("%s: %v: %s%s", c.Name, err, stdout, stderr)
			continue
		}
		planned, errs := plan.Build(c.Input)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		want := compliance.Evaluate(compliance.Input{Server: c.Input.Server, Plan: planned, Literals: credentials.Find(&c.Input.Server.Spec)}).Results
		for i, got := range found.Servers[0].Results {
			if i >= len(want) || got.ID != want[i].Control.ID || got.Result != want[i].Result || got.Message != want[i].Message {
				t.Errorf("%s: lint says %s of %s: %s", c.Name, got.Result, got.ID, got.Message)
			}
		}
	}
}

// A log names rules that it holds, and places that there are.
func TestSARIF(t *testing.T) {
	_, stdout, _ := command(t, "", "lint", "-f", "testdata/lint", "--policy", "testdata/policy.json", "-o", "sarif")
	log := sarifLog{}
	if err := json.Unmarshal([]byte(stdout), &log); err != nil {
		t.Fatal(err)
	}
	run := log.Runs[0]
	if log.Version != "2.1.0" || len(log.Runs) != 1 || len(run.Results) < 5 || len(run.Tool.Driver.Rules) != len(compliance.Catalogue())+1 {
		t.Fatalf("version %s, %d runs, %d results, %d rules", log.Version, len(log.Runs), len(run.Results), len(run.Tool.Driver.Rules))
	}
	for _, r := range run.Results {
		at := r.Locations[0].PhysicalLocation
		if r.RuleIndex >= len(run.Tool.Driver.Rules) || run.Tool.Driver.Rules[r.RuleIndex].ID != r.RuleID {
			t.Errorf("result of %s has the index of another rule", r.RuleID)
		}
		if at.ArtifactLocation.URI != "testdata/lint/servers.yaml" || at.Region.StartLine < 2 || at.Region.StartColumn < 1 {
			t.Errorf("%s is at %+v", r.RuleID, at)
		}
		if !slices.Contains([]string{"error", "warning"}, r.Level) || r.Message.Text == "" {
			t.Errorf("%s: level %q, message %q", r.RuleID, r.Level, r.Message.Text)
		}
	}
}

// No input makes the program panic.
func FuzzLint(f *testing.F) {
	raw, err := os.ReadFile("testdata/lint/servers.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(raw))
	f.Add(goodServer)
	f.Add(goodWorkload)
	f.Add("a: &a [*a]")
	f.Add("apiVersion: v1\nkind: List\nitems: &x\n- apiVersion: v1\n  kind: List\n  items: *x\n")
	f.Fuzz(func(t *testing.T, text string) {
		if code, _, stderr := command(t, text, "lint", "-f", "-"); code == exitUsage && stderr == "" {
			t.Error("it fails and does not say why")
		}
		command(t, text, "lint", "--workloads", "-f", "-")
		command(t, text, "render", "-f", "-")
	})
}
