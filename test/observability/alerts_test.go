package observability

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

const (
	runbookURL = "https://github.com/mcpwarden/mcp-warden/blob/main/docs/runbooks.md#"
	// evaluation is how often rules are evaluated, and series have a sample.
	evaluation = 30 * time.Second
	// hour is how many samples an hour has beside the first.
	hour = "x119"
)

func fileOfRepository(parts ...string) string {
	return filepath.Join(append([]string{apiserver.Root()}, parts...)...)
}

var alertsFile = fileOfRepository("charts", "mcp-warden", "files", "alerts.yaml")

// quiet is a cluster in which nothing is wrong: two replicas of the operator, one of which leads, and servers in several
// states of which none needs anybody.
const quiet = `
up{job="mcp-warden-metrics",instance="a"} 1` + hour + `
up{job="mcp-warden-metrics",instance="b"} 1` + hour + `
leader_election_master_status{name="mcp-warden",instance="a"} 1` + hour + `
leader_election_master_status{name="mcp-warden",instance="b"} 0` + hour + `
leader_election_master_status{name="some-other-operator",instance="c"} 0` + hour + `
mcp_warden_servers{namespace="agents",compliant="True",instance="a"} 3` + hour + `
mcp_warden_servers{namespace="agents",compliant="True",instance="b"} 3` + hour + `
mcp_warden_controls_not_passed_servers{namespace="agents",control="OPS-02",severity="Medium",result="Fail",instance="a"} 3` + hour + `
mcp_warden_controls_not_passed_servers{namespace="agents",control="POD-01",severity="Critical",result="Exempted",instance="a"} 1` + hour + `
mcp_warden_conditions_servers{namespace="agents",condition="Ready",status="True",reason="Serving",instance="a"} 2` + hour + `
mcp_warden_conditions_servers{namespace="agents",condition="Ready",status="True",reason="Stopped",instance="a"} 1` + hour + `
mcp_warden_conditions_servers{namespace="agents",condition="Stalled",status="False",reason="Reconciled",instance="a"} 3` + hour + `
mcp_warden_conditions_servers{namespace="agents",condition="NetworkPolicyEnforced",status="True",reason="Proven",instance="a"} 3` + hour + `
mcp_warden_conditions_servers{namespace="agents",condition="SecretsCurrent",status="True",reason="Current",instance="a"} 2` + hour + `
mcp_warden_conditions_servers{namespace="agents",condition="SecretsCurrent",status="False",reason="ManualRotationPending",instance="a"} 1` + hour + `
mcp_warden_condition_changes_total{namespace="agents",condition="PolicyCompliant",status="False",reason="ControlsFailed",instance="a"} 2` + hour + `
mcp_warden_condition_changes_total{namespace="agents",condition="PolicyCompliant",status="False",reason="ControlsFailed",instance="b"} 0` + hour + `
mcp_warden_condition_changes_total{namespace="agents",condition="SecretsCurrent",status="False",reason="Rotating",instance="a"} 0+1` + hour + `
controller_runtime_reconcile_total{job="mcp-warden-metrics",controller="mcpserver",result="success",instance="a"} 0+30` + hour + `
controller_runtime_reconcile_total{job="mcp-warden-metrics",controller="mcpserver",result="error",instance="a"} 0+10` + hour + `
controller_runtime_reconcile_errors_total{job="mcp-warden-metrics",controller="mcpserver",instance="a"} 0+10` + hour + `
controller_runtime_terminal_reconcile_errors_total{job="mcp-warden-metrics",controller="mcpserver",instance="a"} 0+9` + hour + `
controller_runtime_reconcile_total{job="another-operator",controller="other",result="error",instance="c"} 0+10` + hour + `
controller_runtime_reconcile_errors_total{job="another-operator",controller="other",instance="c"} 0+10` + hour + `
controller_runtime_terminal_reconcile_errors_total{job="another-operator",controller="other",instance="c"} 0` + hour + `
workqueue_depth{job="mcp-warden-metrics",controller="mcpserver",name="mcpserver",priority="0",instance="a"} 5` + hour + `
workqueue_depth{job="mcp-warden-metrics",controller="canary",name="canary",priority="0",instance="a"} 0` + hour + `
controller_runtime_reconcile_total{job="mcp-warden-metrics",controller="canary",result="success",instance="a"} 1` + hour + `
workqueue_longest_running_processor_seconds{job="mcp-warden-metrics",controller="mcpserver",name="mcpserver",instance="a"} 3` + hour + `
mcp_warden_egress_access_list_current{namespace="agents",pod="p"} 1` + hour + `
`

// firing is what makes an alert fire, beside the quiet cluster or in the stead of some of its series.
type firing struct {
	alert string
	// series are added.
	series string
	// without are the beginnings of series of the quiet cluster that are left out.
	without []string
	// labels that the alert has, beside its name.
	labels string
	// after is when it fires for the first time: the series are there from the beginning, or from the minute that they say.
	after time.Duration
}

var firings = []firing{
	{alert: "MCPWardenVerdictTurned", after: 10*time.Minute + evaluation, labels: `namespace="tools", severity="warning"`,
		// It turned in the 11th minute, and was put right before anybody looked.
		series: `mcp_warden_condition_changes_total{namespace="tools",condition="PolicyCompliant",status="False",reason="ControlsFailed",instance="a"} 0x20 1x98`},
	{alert: "MCPWardenServerNotCompliant", after: 10 * time.Minute, labels: `namespace="tools", severity="warning"`,
		series: "mcp_warden_servers{namespace=\"tools\",compliant=\"False\",instance=\"a\"} 2" + hour + "\nmcp_warden_servers{namespace=\"tools\",compliant=\"False\",instance=\"b\"} 2" + hour},
	{alert: "MCPWardenCriticalControlFailed", after: time.Minute, labels: `control="POD-01", namespace="tools", severity="critical"`,
		series: `mcp_warden_controls_not_passed_servers{namespace="tools",control="POD-01",severity="Critical",result="Fail",instance="a"} 1` + hour},
	{alert: "MCPWardenVerdictUnknown", after: 15 * time.Minute, labels: `namespace="tools", severity="warning"`,
		series: `mcp_warden_servers{namespace="tools",compliant="Unknown",instance="a"} 1` + hour},
	{alert: "MCPWardenIsolationNotEnforced", after: time.Minute, labels: `namespace="tools", severity="critical"`,
		series: conditionSeries("NetworkPolicyEnforced", "False", "NotEnforced")},
	{alert: "MCPWardenIsolationNotProven", after: 15 * time.Minute, labels: `namespace="tools", severity="warning"`,
		series: conditionSeries("NetworkPolicyEnforced", "Unknown", "NotProven")},
	{alert: "MCPWardenSecretTooOld", after: 5 * time.Minute, labels: `namespace="tools", reason="TooOld", severity="warning"`,
		series: conditionSeries("SecretsCurrent", "False", "TooOld")},
	{alert: "MCPWardenSecretTooOld", after: 5 * time.Minute, labels: `namespace="tools", reason="Expired", severity="warning"`,
		series: conditionSeries("SecretsCurrent", "False", "Expired")},
	{alert: "MCPWardenRotationRolledBack", after: time.Minute, labels: `namespace="tools", reason="RotationRolledBack", severity="warning"`,
		series: conditionSeries("SecretsCurrent", "False", "RotationRolledBack")},
	{alert: "MCPWardenRotationRolledBack", after: time.Minute, labels: `namespace="tools", reason="RotationFailed", severity="warning"`,
		series: conditionSeries("SecretsCurrent", "False", "RotationFailed")},
	{alert: "MCPWardenSecretsNotCurrent", after: 15 * time.Minute, labels: `namespace="tools", reason="SourceNotFound", severity="warning"`,
		series: conditionSeries("SecretsCurrent", "False", "SourceNotFound")},
	{alert: "MCPWardenServerStalled", after: 10 * time.Minute, labels: `namespace="tools", reason="PolicyViolation", severity="warning"`,
		series: conditionSeries("Stalled", "True", "PolicyViolation")},
	{alert: "MCPWardenServerNotReady", after: 15 * time.Minute, labels: `namespace="tools", severity="warning"`,
		series: conditionSeries("Ready", "False", "ReplicasUnavailable")},
	{alert: "MCPWardenNoLeader", after: 5 * time.Minute, labels: `severity="critical"`, without: []string{`leader_election_master_status{name="mcp-warden"`}},
	{alert: "MCPWardenNoLeader", after: 5 * time.Minute, labels: `severity="critical"`, without: []string{`leader_election_master_status{name="mcp-warden",instance="a"`},
		series: `leader_election_master_status{name="mcp-warden",instance="a"} 0` + hour},
	{alert: "MCPWardenReconcileErrors", after: 15*time.Minute + evaluation, labels: `controller="egressproxy", severity="warning"`, series: strings.Join([]string{
		`controller_runtime_reconcile_total{job="mcp-warden-metrics",controller="egressproxy",result="error",instance="a"} 0+1` + hour,
		`controller_runtime_reconcile_errors_total{job="mcp-warden-metrics",controller="egressproxy",instance="a"} 0+1` + hour,
		`controller_runtime_terminal_reconcile_errors_total{job="mcp-warden-metrics",controller="egressproxy",instance="a"} 0` + hour,
	}, "\n")},
	{alert: "MCPWardenQueueStuck", after: 5 * time.Minute, labels: `controller="egressproxy", severity="critical"`, // a reconcile hangs
		series: `workqueue_longest_running_processor_seconds{job="mcp-warden-metrics",controller="egressproxy",name="egressproxy",instance="a"} 300` + hour},
	{alert: "MCPWardenQueueStuck", after: 5*time.Minute + evaluation, labels: `controller="egressproxy", severity="critical"`, series: strings.Join([]string{ // there is work, and none ends
		`workqueue_depth{job="mcp-warden-metrics",controller="egressproxy",name="egressproxy",priority="0",instance="a"} 4` + hour,
		`controller_runtime_reconcile_total{job="mcp-warden-metrics",controller="egressproxy",result="success",instance="a"} 7` + hour,
	}, "\n")},
	{alert: "MCPWardenScrapeFailed", after: 10 * time.Minute, labels: `instance="c", severity="warning"`, series: `up{job="mcp-warden-metrics",instance="c"} 0` + hour},
	{alert: "MCPWardenEgressListStale", after: 5 * time.Minute, labels: `namespace="tools", severity="warning"`,
		series: `mcp_warden_egress_access_list_current{namespace="tools",pod="p"} 0` + hour},
}

func conditionSeries(condition, status, reason string) string {
	return fmt.Sprintf(`mcp_warden_conditions_servers{namespace="tools",condition=%q,status=%q,reason=%q,instance="a"} 1%s`, condition, status, reason, hour)
}

// history is when which alert was firing first, by its name and labels, within an hour.
func history(t *testing.T, series string) map[string]time.Duration {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 30s\n"+indent(series))
	engine := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(engine, storage), AppendableV2: storage, Queryable: storage, Context: context.Background(),
		NotifyFunc: func(context.Context, string, ...*rules.Alert) {}, Logger: silent(), ExternalURL: &url.URL{},
	})
	groups, errs := manager.LoadGroups(evaluation, labels.EmptyLabels(), "", nil, false, alertsFile)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	out := map[string]time.Duration{}
	for at := time.Duration(0); at < time.Hour; at += evaluation {
		for _, group := range groups {
			group.Eval(context.Background(), time.Unix(0, 0).Add(at))
			for _, rule := range group.AlertingRules() {
				if err := rule.LastError(); err != nil {
					t.Fatalf("%s: %v", rule.Name(), err)
				}
				for _, alert := range rule.ActiveAlerts() {
					if alert.State != rules.StateFiring {
						continue
					}
					if text := alert.Annotations.String(); strings.Contains(text, "{{") || strings.Contains(text, "<no value>") || strings.Contains(text, "error expanding") {
						t.Errorf("%s says %s", rule.Name(), text)
					}
					if _, known := out[alert.Labels.String()]; !known {
						out[alert.Labels.String()] = at
					}
				}
			}
		}
	}
	return out
}

func indent(series string) string {
	var out strings.Builder
	for line := range strings.Lines(series) {
		if line = strings.TrimSpace(line); line != "" {
			out.WriteString("  " + line + "\n")
		}
	}
	return out.String()
}

func TestQuietClusterRaisesNoAlarm(t *testing.T) {
	if fired := history(t, quiet); len(fired) > 0 {
		t.Errorf("fired: %v", fired)
	}
}

// Each alert fires, when it should, and no other does beside it.
func TestAlertsFire(t *testing.T) {
	for i, tc := range firings {
		t.Run(fmt.Sprintf("%s/%d", tc.alert, i), func(t *testing.T) {
			t.Parallel()
			var series strings.Builder
			for line := range strings.Lines(quiet) {
				if !slices.ContainsFunc(tc.without, func(beginning string) bool { return strings.HasPrefix(line, beginning) }) {
					series.WriteString(line)
				}
			}
			fired := history(t, series.String()+tc.series)
			found := false
			for alert, at := range fired {
				want := regexp.MustCompile(`^\{alertname="` + tc.alert + `", ` + regexp.QuoteMeta(tc.labels) + `\}$`)
				if !want.MatchString(alert) {
					t.Errorf("%s fires, too", alert)
					continue
				}
				if found = true; at != tc.after {
					t.Errorf("%s fires after %s, want %s", alert, at, tc.after)
				}
			}
			if !found {
				t.Errorf("does not fire with %s; these do: %v", tc.labels, fired)
			}
		})
	}
}

// alertingRules are all rules of the file.
func alertingRules(t *testing.T) []*rules.AlertingRule {
	t.Helper()
	manager := rules.NewManager(&rules.ManagerOptions{Context: context.Background(), Logger: silent(), ExternalURL: &url.URL{}})
	groups, errs := manager.LoadGroups(evaluation, labels.EmptyLabels(), "", nil, false, alertsFile)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var out []*rules.AlertingRule
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		out = append(out, groups[name].AlertingRules()...)
	}
	return out
}

// Each alert is tested, says what it must, and has an entry in the runbooks, and each entry has an alert.
func TestAlertsHaveRunbooks(t *testing.T) {
	raw, err := os.ReadFile(fileOfRepository("docs", "runbooks.md"))
	if err != nil {
		t.Fatal(err)
	}
	entries := map[string]string{}
	for _, section := range strings.Split(string(raw), "\n## ")[1:] {
		title, text, _ := strings.Cut(section, "\n")
		if strings.HasPrefix(title, "MCPWarden") {
			entries[title] = text
		}
	}
	for _, rule := range alertingRules(t) {
		name := rule.Name()
		if severity := rule.Labels().Get("severity"); severity != "critical" && severity != "warning" {
			t.Errorf("%s has the severity %q", name, severity)
		}
		for _, annotation := range []string{"summary", "description"} {
			if rule.Annotations().Get(annotation) == "" {
				t.Errorf("%s has no %s", name, annotation)
			}
		}
		if got := rule.Annotations().Get("runbook_url"); got != runbookURL+strings.ToLower(name) {
			t.Errorf("%s has the runbook %s", name, got)
		}
		if !slices.ContainsFunc(firings, func(f firing) bool { return f.alert == name }) {
			t.Errorf("nothing shows that %s fires", name)
		}
		text, found := entries[name]
		if !found {
			t.Errorf("docs/runbooks.md has no entry %s", name)
		}
		for _, part := range []string{"**Means**", "**Look**", "**Cure**", "**Over**"} {
			if found && !strings.Contains(text, part) {
				t.Errorf("the entry %s has no part %s", name, part)
			}
		}
		delete(entries, name)
	}
	for name := range entries {
		t.Errorf("docs/runbooks.md tells of %s, and there is no such alert", name)
	}
}

func TestAlertsUseWhatIsExported(t *testing.T) {
	known := exported(t)
	for _, rule := range alertingRules(t) {
		checkQuery(t, rule.Name(), rule.Query().String(), known)
	}
}

// targetLabels are those that Prometheus adds to what it scrapes.
var targetLabels = []string{"__name__", "job", "instance", "namespace", "pod"}

// checkQuery reports the series and labels of a query that nobody exports.
func checkQuery(t *testing.T, who, query string, known map[string][]string) {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v", who, err)
		return
	}
	all := slices.Clone(targetLabels)
	selectors := 0
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		selectors++
		has, ok := known[selector.Name]
		if !ok && selector.Name != "up" {
			t.Errorf("%s: nobody exports %s", who, selector.Name)
			return nil
		}
		all = append(all, has...)
		for _, m := range selector.LabelMatchers {
			if !slices.Contains(has, m.Name) && !slices.Contains(targetLabels, m.Name) {
				t.Errorf("%s: %s has no label %s", who, selector.Name, m.Name)
			}
		}
		return nil
	})
	if selectors == 0 {
		t.Errorf("%s: the query names no series", who)
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		var grouping []string
		switch node := node.(type) {
		case *parser.AggregateExpr:
			grouping = node.Grouping
		case *parser.BinaryExpr:
			if node.VectorMatching != nil {
				grouping = node.VectorMatching.MatchingLabels
			}
		}
		for _, label := range grouping {
			if !slices.Contains(all, label) {
				t.Errorf("%s: nothing in it has the label %s", who, label)
			}
		}
		return nil
	})
}
