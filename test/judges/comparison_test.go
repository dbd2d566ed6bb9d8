package judges

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/controlplaneio/kubesec/v2/pkg/ruler"
	"go.uber.org/zap"
)

// docs/comparison.md says what the judges think of a plain Deployment beside what the operator makes: of the Deployment
// that stands there, and of the golden plan of the smallest server.
func TestComparison(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "comparison.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n# plain.yaml\n(.*?)```").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/comparison.md has no plain.yaml")
	}
	plain := plan{name: "plain", text: block[1], documents: bytes.Split(block[1], []byte("\n---\n"))}
	all := plans(t)
	i := slices.IndexFunc(all, func(p plan) bool { return p.name == "minimal" })
	if i < 0 {
		t.Fatal("no golden plan is named minimal")
	}
	for _, row := range []string{
		fmt.Sprintf("| kubesec: score | %d | %d |", kubesecScore(t, plain), kubesecScore(t, all[i])),
		fmt.Sprintf("| kube-score: critical findings | %s | %s |", criticalNames(t, plain), criticalNames(t, all[i])),
	} {
		if !bytes.Contains(page, []byte("\n"+row+"\n")) {
			t.Errorf("docs/comparison.md lacks the line\n%s", row)
		}
	}
}

func kubesecScore(t *testing.T, p plan) int {
	t.Helper()
	reports, err := ruler.NewRuleset(zap.NewNop().Sugar()).Run(p.name, p.document("Deployment"), ruler.SchemaConfig{DisableValidation: true})
	if err != nil || len(reports) != 1 {
		t.Fatalf("%s: %d reports, %v", p.name, len(reports), err)
	}
	return reports[0].Score
}

func criticalNames(t *testing.T, p plan) string {
	t.Helper()
	var names []string
	for _, check := range criticalOf(t, p) {
		names = append(names, "`"+check.Check.ID+"`")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return fmt.Sprintf("%d: %s", len(names), strings.Join(names, ", "))
}
