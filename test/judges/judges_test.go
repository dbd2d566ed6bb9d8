// Package judges holds the plans of the golden tests up to the judgement of others: kube-score
// and kubesec. It is a module of its own, because they need older versions of what the product is built from.
package judges

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/controlplaneio/kubesec/v2/pkg/ruler"
	"github.com/zegl/kube-score/config"
	ks "github.com/zegl/kube-score/domain"
	"github.com/zegl/kube-score/parser"
	"github.com/zegl/kube-score/score"
	"github.com/zegl/kube-score/score/checks"
	"github.com/zegl/kube-score/scorecard"
	"go.uber.org/zap"
)

// plan is one golden output.
type plan struct {
	name string
	// text is the whole of it, documents the parts of it.
	text      []byte
	documents [][]byte
}

func plans(t *testing.T) []plan {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "..", "internal", "plan", "testdata", "*.out.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden outputs: %v", err)
	}
	var out []plan
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		comments, objects, found := bytes.Cut(raw, []byte("---\n"))
		if !found {
			t.Fatalf("%s holds no object", path)
		}
		if bytes.Contains(comments, []byte("# held: ")) {
			continue // no pod is planned: there is nothing to judge yet
		}
		out = append(out, plan{
			name: strings.TrimSuffix(filepath.Base(path), ".out.yaml"), text: objects,
			documents: bytes.Split(objects, []byte("\n---\n")),
		})
	}
	return out
}

// document of a kind; nil where the plan holds none.
func (p plan) document(kind string) []byte {
	for _, doc := range p.documents {
		if bytes.Contains(append([]byte("\n"), doc...), []byte("\nkind: "+kind+"\n")) {
			return doc
		}
	}
	return nil
}

// minimum is the least score that a Deployment may get from kubesec.
const minimum = 14

func TestKubesec(t *testing.T) {
	rules := ruler.NewRuleset(zap.NewNop().Sugar())
	for _, p := range plans(t) {
		t.Run(p.name, func(t *testing.T) {
			// Schemas would have to be downloaded; the API server validates the same objects elsewhere.
			reports, err := rules.Run(p.name, p.document("Deployment"), ruler.SchemaConfig{DisableValidation: true})
			if err != nil {
				t.Fatal(err)
			}
			if len(reports) != 1 {
				t.Fatalf("%d reports, want 1", len(reports))
			}
			t.Logf("score %d", reports[0].Score)
			for _, rule := range reports[0].Scoring.Critical {
				t.Errorf("critical: %s: %s", rule.ID, rule.Reason)
			}
			if reports[0].Score < minimum {
				t.Errorf("score %d, want at least %d; advised are %+v", reports[0].Score, minimum, reports[0].Scoring.Advise)
			}
		})
	}
}

// explained are the findings of kube-score that stand, each with the reason; docs/hardening.md tells
// users the same.
var explained = map[string]string{
	"deployment-has-poddisruptionbudget": "a budget for one pod changes nothing or blocks every drain; there is one from two pods on",
	"container-image-pull-policy":        "an image by digest cannot change, and a registry that is down must not keep its pods from restarting",
}

type namedReader struct {
	*bytes.Reader
	name string
}

func (n namedReader) Name() string { return n.name }

func TestKubeScore(t *testing.T) {
	docs, err := os.ReadFile(filepath.Join("..", "..", "docs", "hardening.md"))
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, p := range plans(t) {
		t.Run(p.name, func(t *testing.T) {
			for _, check := range criticalOf(t, p) {
				id := check.Check.ID
				used[id] = true
				if explained[id] == "" {
					t.Errorf("CRITICAL %s: %s %+v", id, check.Check.Name, check.Comments)
				}
			}
		})
	}
	for id := range explained {
		if !used[id] {
			t.Errorf("%s is explained and is no longer found", id)
		}
		if !bytes.Contains(docs, []byte("`"+id+"`")) {
			t.Errorf("docs/hardening.md does not explain %s", id)
		}
	}
}

func criticalOf(t *testing.T, p plan) []scorecard.TestScore {
	t.Helper()
	parser, err := parser.New(&parser.Config{})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := parser.ParseFiles([]ks.NamedReader{namedReader{bytes.NewReader(p.text), p.name}})
	if err != nil {
		t.Fatal(err)
	}
	run := &config.RunConfiguration{KubernetesVersion: config.Semver{Major: 1, Minor: 33}, MinReplicasDeployment: 2}
	card, err := score.Score(objects, score.RegisterAllChecks(objects, &checks.Config{}, run), run)
	if err != nil {
		t.Fatal(err)
	}
	var out []scorecard.TestScore
	for _, object := range *card {
		for _, check := range object.Checks {
			if !check.Skipped && check.Grade <= scorecard.GradeCritical {
				out = append(out, check)
			}
		}
	}
	return out
}
