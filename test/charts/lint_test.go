package charts

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/internal/cli"
)

// The operator's own pods pass every control that applies to them, but for what they declare: by kustomize, and by each chart.
func TestOwnPodsPassOwnControls(t *testing.T) {
	demandNoFailure(t, string(installed))
	each(t, func(t *testing.T, version string) {
		demandNoFailure(t, template(t, version, "mcp-warden", namespace))
		demandNoFailure(t, template(t, version, "mcp-warden", namespace,
			`metrics={"enabled":true,"tlsSecretName":"metrics","scrapers":[{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"monitoring"}}}]}`))
	})
}

// declared are the exemptions that there are: one more is a decision, and not an accident.
var declared = []string{
	"mcp-warden POD-07", "mcp-warden NET-06", "mcp-warden NET-07", "mcp-warden-canary NET-01", "mcp-warden-unrestricted-prober NET-01",
}

func demandNoFailure(t *testing.T, manifests string) {
	t.Helper()
	var out, errOut bytes.Buffer
	if code := cli.Run([]string{"lint", "--workloads", "-f", "-", "-o", "json"}, cli.Streams{In: strings.NewReader(manifests), Out: &out, Err: &errOut}); code != 0 {
		t.Errorf("lint ends with %d: %s", code, &errOut)
	}
	var verdict struct {
		Workloads []struct {
			Name    string
			Results []struct{ ID, Result, Message, ExemptionReason string }
		}
		Invalid []any
	}
	if err := json.Unmarshal(out.Bytes(), &verdict); err != nil {
		t.Fatal(err)
	}
	if len(verdict.Workloads) != 4 || len(verdict.Invalid) > 0 {
		t.Errorf("%d workloads were judged, want 4; invalid: %v", len(verdict.Workloads), verdict.Invalid)
	}
	for _, w := range verdict.Workloads {
		for _, r := range w.Results {
			isDeclared := r.Result == "Exempted" && r.ExemptionReason != "" && slices.Contains(declared, w.Name+" "+r.ID)
			if r.Result == "Fail" || r.Result == "Exempted" && !isDeclared {
				t.Errorf("%s: %s: %s: %s", w.Name, r.ID, r.Result, r.Message)
			}
		}
	}
}
