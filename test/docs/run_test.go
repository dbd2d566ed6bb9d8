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

// commandTimeout bounds a block, and patience how long what only looks may take to see what the page shows.
const (
	commandTimeout = 4 * time.Minute
	patience       = 90 * time.Second
)

// TestCommands types what the pages say to type, in their order, in a copy of the repository and on the cluster that
// run.sh prepares, and compares what comes back with what they show. What it changes of a page is in substitutes.
func TestCommands(t *testing.T) {
	if os.Getenv("DOCS_SCRATCH") == "" {
		t.Fatal("run test/docs/run.sh, which prepares the cluster and the copy")
	}
	only := os.Getenv("DOCS_PAGES")
	for _, page := range pages(t) {
		if only != "" && !slices.Contains(strings.Split(only, ","), page) {
			continue
		}
		t.Run(page, func(t *testing.T) { newRunner(t, page).run(blocks(t, page)) })
	}
}

// exclusive on a page says that it brings the operator itself, so that none may be there when it begins.
const exclusive = "<!-- begins without the operator -->"

// runner of one page.
type runner struct {
	t           *testing.T
	page        string
	dir         string
	environment string
}

func newRunner(t *testing.T, page string) *runner {
	return &runner{t: t, page: page, dir: os.Getenv("DOCS_SCRATCH"), environment: filepath.Join(t.TempDir(), "environment")}
}

func (r *runner) run(blocks []block) {
	if !slices.ContainsFunc(blocks, func(b block) bool { return b.runs() }) {
		return
	}
	began := time.Now()
	r.sh("git clean -qfd . && git checkout -q .") // what another page made; bin/ is ignored and stays
	if strings.Contains(read(r.t, r.page), exclusive) {
		r.sh("make -s uninstall")
		defer r.sh(`kubectl get deployment -n mcp-warden-system mcp-warden >/dev/null 2>&1 || hack/install.sh "$OPERATOR_IMAGE" kubectl`)
	}
	defer r.sh(cleanUp)
	for _, b := range blocks {
		if r.t.Failed() {
			r.t.Logf("%s and what follows was not run", b)
			break
		}
		r.block(b)
	}
	r.t.Logf("%s took %s", r.page, time.Since(began).Round(time.Second))
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
		r.t.Logf("%s is not run: %s", b, b.notRun)
	case b.language == "yaml":
		r.file(b)
	case b.language == "sh":
		began := time.Now()
		if out, err := r.command(b.text); err != nil {
			r.t.Errorf("%s: %v\n%s\n%s", b, err, b.text, out)
		} else if took := time.Since(began); took > 5*time.Second {
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
	path := filepath.Join(r.dir, filepath.FromSlash(name[1]))
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

// cleanUp takes away what a page left, so that the next one begins as a reader does. Nothing of it is waited for
// longer than a kubelet takes.
const cleanUp = `
kubectl delete mcppolicies --all --ignore-not-found >/dev/null 2>&1 || true
for namespace in agents tools databases staging production; do
  kubectl delete mcpservers,deployments,statefulsets --all -n $namespace --wait=false >/dev/null 2>&1 || true
  kubectl delete pods --all -n $namespace --grace-period=1 --wait=false >/dev/null 2>&1 || true
done
kubectl delete namespace --ignore-not-found agents tools databases staging production --timeout=120s`

// substituted is what is typed instead of what a page says: here there are other registries, hosts and namespaces.
func (r *runner) substituted(text string) string {
	return strings.NewReplacer(
		"hack/images.sh --push-to registry.example/mcp-warden", "grep -h _IMAGE= bin/images.env",
		"registry.example/mcp-warden:dev", os.Getenv("OPERATOR_IMAGE"),
		"api.example.com", "api.example.test",
		"evil.example.com", "evil.test",
	).Replace(text)
}

// named brings what the cluster says back to the names of the page.
func (r *runner) named(text string) string {
	return strings.NewReplacer("api.example.test", "api.example.com", "evil.test", "evil.example.com").Replace(text)
}

// sh runs what no reader types.
func (r *runner) sh(script string) {
	r.t.Helper()
	if out, err := r.command(script); err != nil {
		r.t.Fatalf("%s: %v\n%s\n%s", r.page, err, script, out)
	}
}

// command runs a script as a reader would, with the variables that the scripts before it set.
func (r *runner) command(script string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), commandTimeout)
	defer cancel()
	whole := fmt.Sprintf("set -euo pipefail; [ ! -f %[1]s ] || . %[1]s; trap 'export -p >%[1]s' EXIT\n%[2]s", r.environment, r.substituted(script))
	cmd := exec.CommandContext(ctx, "bash", "-c", whole)
	cmd.Dir = r.dir
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return r.named(out.String()), err
}

// session is a command at a prompt, and what a page says that it answers.
type session struct{ command, answer string }

func sessions(text string) []session {
	var out []session
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		switch command, found := strings.CutPrefix(line, "$ "); {
		case found:
			out = append(out, session{command: command})
		case len(out) > 0 && out[len(out)-1].answer == "" && strings.HasSuffix(out[len(out)-1].command, "\\"):
			out[len(out)-1].command += "\n" + line
		case len(out) > 0:
			out[len(out)-1].answer += line + "\n"
		}
	}
	return out
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
		time.Sleep(time.Second)
	}
}

var (
	volatile = regexp.MustCompile(`sha256:[0-9a-f.]+|\b[0-9a-f]{8,}\b|\b[0-9]+(\.[0-9]+)*(ms|[smhd])?([0-9]+[smh])?\b`)
	space    = regexp.MustCompile(`\s+`)
)

// shape of a line: numbers, ages and digests are of any value, and columns of any width.
func shape(line string) string {
	return strings.TrimSpace(space.ReplaceAllString(volatile.ReplaceAllString(line, "#"), " "))
}

// matches says whether an answer has the shape of what is shown. Three dots stand for anything, over lines too.
func matches(shown, answer string) bool {
	var pattern strings.Builder
	for _, line := range strings.Split(strings.TrimSpace(shown), "\n") {
		parts := strings.Split(line, "...")
		for i, part := range parts {
			parts[i] = regexp.QuoteMeta(shape(part))
		}
		pattern.WriteString(strings.Join(parts, `(?s:.*)`) + `\n`)
	}
	var lines []string
	for _, line := range strings.Split(strings.TrimSpace(answer), "\n") {
		lines = append(lines, shape(line))
	}
	whole := strings.ReplaceAll(pattern.String(), `\n(?s:.*)\n`, `\n(?s:.*)`) // dots on a line of their own: no line will do, too
	return regexp.MustCompile(`^` + strings.ReplaceAll(whole, `#(?s:.*)`, `#?(?s:.*)`) + `$`).MatchString(strings.Join(lines, "\n") + "\n")
}
