//go:build e2e

package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// commandTimeout bounds a block, and patience how long what only looks may take to see what the page shows. What
// takes longer than slow is told of.
const (
	slow           = 5 * time.Second
	commandTimeout = 4 * time.Minute
	patience       = 90 * time.Second
)

// TestCommands types what the pages say to type, in their order, in a copy of the repository and on the cluster that
// run.sh prepares, and compares what comes back with what they show. Pages that bring the operator themselves come
// first, one after another; then the others, several at a time.
func TestCommands(t *testing.T) {
	if os.Getenv("DOCS_SCRATCH") == "" {
		t.Fatal("run test/docs/run.sh, which prepares the cluster and the copy")
	}
	var shared []*runner
	for i, page := range wanted(t) {
		r := &runner{page: page, blocks: blocks(t, page), number: i + 1}
		switch {
		case !slices.ContainsFunc(r.blocks, block.runs):
			for _, b := range r.blocks {
				r.tellNotRun(t, b)
			}
		case strings.Contains(read(t, page), exclusive):
			r.number = 0
			t.Run(page, func(t *testing.T) {
				r.begin(t)
				r.sh("make -s uninstall")
				r.run()
			})
		default:
			shared = append(shared, r)
		}
	}
	install := exec.CommandContext(t.Context(), "bash", "-c", `kubectl get deployment -n mcp-warden-system mcp-warden || hack/install.sh "$OPERATOR_IMAGE" kubectl`)
	install.Dir = os.Getenv("DOCS_SCRATCH")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install the operator: %v\n%s", err, out)
	}
	for _, r := range shared {
		t.Run(r.page, func(t *testing.T) {
			t.Parallel()
			r.begin(t)
			r.run()
		})
	}
}

// wanted are the pages that run.sh was asked to run.
func wanted(t *testing.T) []string {
	t.Helper()
	all := pages(t)
	only := os.Getenv("DOCS_PAGES")
	if only == "" {
		return all
	}
	out := strings.Split(only, ",")
	for _, page := range out {
		if !slices.Contains(all, page) {
			t.Fatalf("%s is no page: %v", page, all)
		}
	}
	return out
}

// exclusive on a page says that it brings the operator itself, so that none may be there when it begins.
const exclusive = "<!-- begins without the operator -->"

// runner of one page. Namespaces and policies of pages that run at the same time have its number behind their names;
// 0 is for none.
type runner struct {
	t           *testing.T
	page        string
	blocks      []block
	number      int
	dir         string
	environment string
}

// begin gives the page a copy of the repository of its own.
func (r *runner) begin(t *testing.T) {
	r.t = t
	r.dir = t.TempDir()
	r.environment = filepath.Join(t.TempDir(), "environment")
	r.sh(`git clone -q "$DOCS_SCRATCH" . && mkdir bin && ln -s "$DOCS_SCRATCH"/bin/* bin/`)
	samples, err := exec.CommandContext(t.Context(), "git", "-C", r.dir, "ls-files", "--", "config/samples", "docs/examples").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, sample := range strings.Fields(string(samples)) {
		path := filepath.Join(r.dir, filepath.FromSlash(sample))
		raw, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, []byte(r.substituted(string(raw))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// cleanUp takes away what a page left. Nothing of it is waited for where nobody else uses the names.
const cleanUp = `
kubectl delete mcppolicies --ignore-not-found production staging hosts >/dev/null 2>&1 || true
for namespace in agents databases staging production; do
  kubectl delete pods --all -n $namespace --grace-period=1 --wait=false >/dev/null 2>&1 || true
  kubectl delete namespace --ignore-not-found $namespace --wait=`

func (r *runner) run() {
	began := time.Now()
	defer r.sh(cleanUp + fmt.Sprint(r.number == 0) + "\ndone")
	for _, b := range r.blocks {
		if r.t.Failed() {
			r.t.Logf("%s and what follows was not run", b)
			break
		}
		r.block(b)
	}
	r.t.Logf("%s took %s", r.page, time.Since(began).Round(time.Second))
}

func (*runner) tellNotRun(t *testing.T, b block) {
	if b.notRun != "" {
		t.Logf("%s is not run: %s", b, b.notRun)
	}
}

// runs says whether a block is more than something to read.
func (b block) runs() bool {
	return b.notRun == "" && (b.language == "sh" || b.language == "console") || b.first != ""
}

func (r *runner) block(b block) {
	if b.first != "" {
		r.sh(b.first)
	}
	switch {
	case b.notRun != "":
		r.tellNotRun(r.t, b)
	case b.language == "yaml":
		r.file(b)
	case b.language == "sh":
		began := time.Now()
		if out, err := r.command(b.text); err != nil {
			r.t.Errorf("%s: %v\n%s\n%s", b, err, b.text, out)
		} else if took := time.Since(began); took > slow {
			r.t.Logf("%s took %s", b, took.Round(time.Second))
		}
	case b.language == "console":
		for _, c := range sessions(b.text) {
			r.session(b, c)
		}
	}
}

var fileName = regexp.MustCompile(`^# ([-a-z0-9/.]+\.ya?ml)\b.*\n`)

// file writes a block of YAML that begins with the name of a file.
func (r *runner) file(b block) {
	name := fileName.FindStringSubmatch(b.text)
	if name == nil {
		return
	}
	var documents []string
	for _, document := range strings.Split(b.text, "\n---\n") {
		documents = append(documents, r.localImages(document))
	}
	path := filepath.Join(r.dir, filepath.FromSlash(r.substituted(name[1])))
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(r.substituted(strings.Join(documents, "---\n"))), 0o600))
	if err != nil {
		r.t.Fatal(err)
	}
}

// localImages has servers run the tests' own, as nothing else can be pulled here, and containers a stand-in that
// listens on the port that they name.
func (r *runner) localImages(document string) string {
	object := map[string]any{}
	if err := yaml.UnmarshalStrict([]byte(document), &object); err != nil {
		r.t.Fatal(err)
	}
	spec, _ := object["spec"].(map[string]any)
	switch object["kind"] {
	case "MCPServer":
		image, set := spec["image"].(string)
		transport, _ := spec["transport"].(map[string]any)
		if !set || strings.Contains(image, "broken") || transport == nil {
			break
		}
		spec["image"] = os.Getenv("TESTBED_IMAGE")
		if transport["type"] == "Stdio" {
			spec["command"], spec["args"] = []string{"/everything-server"}, nil
		} else {
			spec["command"], spec["args"] = nil, []string{"-http", fmt.Sprintf(":%v", transport["port"])}
		}
	case "Deployment", "StatefulSet":
		template, _ := spec["template"].(map[string]any)
		podSpec, _ := template["spec"].(map[string]any)
		containers, _ := podSpec["containers"].([]any)
		for _, c := range containers {
			standIn(c.(map[string]any))
		}
	}
	out, err := yaml.Marshal(object)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(out)
}

func standIn(container map[string]any) {
	port := "8080"
	if ports, _ := container["ports"].([]any); len(ports) > 0 {
		port = fmt.Sprint(ports[0].(map[string]any)["containerPort"])
	}
	if strings.Contains(container["image"].(string), "postgres") {
		container["command"] = []string{"/toolbox", "serve", ":" + port}
	} else {
		container["command"], container["args"] = []string{"/everything-server"}, []string{"-http", ":" + port}
	}
	container["image"] = os.Getenv("TESTBED_IMAGE")
}

// names that pages give to namespaces and policies. Pages that run at the same time must not have the same ones.
const names = `\b(agents|databases|staging|production)\b`

var (
	name     = regexp.MustCompile(names)
	numbered = regexp.MustCompile(names + `-[0-9]+\b`)
)

// substituted is what is typed instead of what a page says: here there are other registries, hosts and names.
func (r *runner) substituted(text string) string {
	repository, _, _ := strings.Cut(os.Getenv("OPERATOR_IMAGE"), "@")
	text = strings.NewReplacer(
		"hack/images.sh --push-to registry.example/mcp-warden", "cat bin/images.env",
		"registry.example/mcp-warden:dev", os.Getenv("OPERATOR_IMAGE"),
		"image.repository=registry.example/mcp-warden", "image.repository="+repository,
		"api.example.com", "api.example.test",
		"evil.example.com", "evil.test",
	).Replace(text)
	if r.number == 0 {
		return text
	}
	return name.ReplaceAllString(text, fmt.Sprintf("${1}-%d", r.number))
}

// named brings what the cluster says back to the names of the page.
func (*runner) named(text string) string {
	text = strings.NewReplacer("api.example.test", "api.example.com", "evil.test", "evil.example.com").Replace(text)
	return numbered.ReplaceAllString(text, "$1")
}

// sh runs what no reader types.
func (r *runner) sh(script string) {
	r.t.Helper()
	began := time.Now()
	if out, err := r.command(script); err != nil {
		r.t.Fatalf("%s: %v\n%s\n%s", r.page, err, script, out)
	}
	if took := time.Since(began); took > slow {
		first, _, _ := strings.Cut(strings.TrimSpace(script), "\n")
		r.t.Logf("%s took %s", first, took.Round(time.Second))
	}
}

// command runs a script as a reader would, with the variables that the scripts before it set.
func (r *runner) command(script string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), commandTimeout)
	defer cancel()
	whole := fmt.Sprintf("set -euo pipefail; [ ! -f %[1]s ] || . %[1]s; trap 'export -p >%[1]s' EXIT\n%[2]s", r.environment, r.substituted(script))
	cmd := exec.CommandContext(ctx, "bash", "-c", whole)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "NAMESPACE="+r.substituted("agents"))
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return r.named(out.String()), err
}

// looks matches what only looks, and may be asked again: what a page shows there need not be so at once.
var looks = regexp.MustCompile(`^kubectl (-n \S+ )?(get|describe|logs|warden report|events|explain|auth)\b`)

func (r *runner) session(b block, s session) {
	until := time.Now().Add(patience)
	for {
		out, err := r.command(s.command)
		ok := err == nil
		if s.answer != "" { // a command that is refused is shown to be
			ok = matches(s.answer, out)
		}
		switch {
		case ok:
			return
		case !looks.MatchString(s.command) || time.Now().After(until):
			r.t.Errorf("%s: $ %s\nanswered (%v)\n%s\nand is said to answer\n%s", b, s.command, err, out, s.answer)
			return
		}
		select {
		case <-r.t.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}
