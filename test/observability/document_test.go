package observability

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/metrics.md instead of comparing with it")

const preface = `# Metrics, alerts and the dashboard

<!-- Written by make golden from what the programs register and from test/observability. Do not edit. -->

## Scraping the operator

Metrics are off until ` + "`--metrics-bind-address`" + ` names an address. They are served by HTTPS, to whoever sends a bearer token that the API server knows (TokenReview) and
whose account may ` + "`get`" + ` the path ` + "`/metrics`" + ` (SubjectAccessReview): 401 without such a token, 403 without the right, 503 where the API server cannot be asked. There is no way to serve them
to everybody. An answer is kept for a minute, a refusal for ten seconds.

With kustomize, add the component ` + "`config/metrics`" + ` to an overlay over ` + "`config/default`" + `:

` + "```yaml" + `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [https://github.com/mcpwarden/mcp-warden//config/default]
components: [https://github.com/mcpwarden/mcp-warden//config/metrics]
` + "```" + `

It brings the flag (port 8443), the Service ` + "`mcp-warden-metrics`" + `, a NetworkPolicy that lets in pods of namespaces with the label ` + "`mcpwarden.io/scrapes-metrics: \"true\"`" + `, the two rights that the
operator needs to ask (` + "`mcp-warden-metrics-auth`" + `: create tokenreviews and subjectaccessreviews) and a ClusterRole for the scraper. An install without metrics has none of them. Then let the scraper in:

<!-- not run: monitoring and prometheus stand for a namespace and an account of yours -->
` + "```sh" + `
kubectl label namespace monitoring mcpwarden.io/scrapes-metrics=true
kubectl create clusterrolebinding mcp-warden-metrics-reader --clusterrole=mcp-warden-metrics-reader --serviceaccount=monitoring:prometheus
` + "```" + `

A scrape configuration must keep the labels that the operator sets (` + "`honor_labels`" + `; of a ServiceMonitor ` + "`honorLabels`" + `), because ` + "`namespace`" + ` is that of the servers, and must name the job
` + "`mcp-warden-metrics`" + `, as a ServiceMonitor does by itself: alerts and dashboard find the operator's series by it.

The operator signs its certificate itself, anew with each start. To have it verified, give it one: ` + "`--metrics-cert-dir`" + ` is a folder with ` + "`tls.crt`" + ` and ` + "`tls.key`" + `, such as a mounted Secret of
cert-manager's; they are read again when they change. HTTP/2 is off.

## What the operator tells

Both replicas tell of all servers: take the greatest (` + "`max by (namespace)`" + `), not the sum. What is counted (` + "`_total`" + `) is told by the replica that did it: there, take the sum. Gauges are counted from the cache
when they are asked for. No label grows with servers or pods: reasons are those of the API, any other is ` + "`Other`" + `. To see which server it is, ask the cluster; the [runbooks](runbooks.md) say how.
`

// The document is what the programs register.
func TestDocument(t *testing.T) {
	got := render(t)
	file := fileOfRepository("docs", "metrics.md")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/metrics.md is not what the programs register: run make golden")
	}
}

func render(t *testing.T) []byte {
	t.Helper()
	gateways, onStdio := gatewayMetrics(t)
	b := bytes.NewBufferString(preface)
	table(b, operatorMetrics(t))
	b.WriteString("\nOf those that controller-runtime and client-go add, alerts and dashboard use these:\n")
	table(b, borrowed)
	b.WriteString("\nGo's own (`go_*`) and the process's (`process_*`) are there, too.\n\n## What an egress proxy tells\n\nOn port 8081 of its pods, in plain HTTP. Nothing may reach that port until a NetworkPolicy of yours " +
		"opens it to the scraper ([egress](egress.md)).\n")
	table(b, proxyMetrics(t))
	b.WriteString("\n## What a gateway tells\n\nOn port 29011 of a server's pods, in plain HTTP; only the operator's pods may reach it, until a NetworkPolicy of yours opens it to the scraper ([the gateway](gateway.md)).\n")
	table(b, gateways)
	b.WriteString("\nIn front of a server on stdio these, too:\n")
	table(b, onStdio)
	b.WriteString("\n## What the probe tells\n\nNothing: it runs once and reports by its exit and its log. What it found is in the condition `NetworkPolicyEnforced`.\n" +
		"\n## Alerts\n\n`charts/mcp-warden/files/alerts.yaml` holds them as rule groups of Prometheus. Each has an entry in the [runbooks](runbooks.md).\n\n| alert | severity | for | |\n| --- | --- | --- | --- |\n")
	for _, rule := range alertingRules(t) {
		fmt.Fprintf(b, "| [%s](runbooks.md#%s) | %s | %s | %s |\n", rule.Name(), strings.ToLower(rule.Name()), rule.Labels().Get("severity"),
			short(rule.HoldDuration().String()), rule.Annotations().Get("summary"))
	}
	b.WriteString("\n## Dashboard\n\n`charts/mcp-warden/files/dashboard.json` is for Grafana 10 and newer: import it, and choose the data source. It shows verdicts, controls that do not pass, conditions, rotations and isolation by namespace, " +
		"the work of the operator, and gateways and egress proxies where they are scraped.\n" +
		"\n## Health and logs\n\nOn port 8081: `/healthz` says that the process is alive, `/readyz` that it has read all that it is to hold; a replica that does not lead holds less. " +
		"Logs are JSON, one object a line, with the kind of the object as key; [how to read them](runbooks.md).\n")
	return b.Bytes()
}

// short leaves out the zeros of a duration.
func short(duration string) string {
	if duration == "0s" {
		return "at once"
	}
	return strings.TrimSuffix(duration, "0s")
}

func table(b *bytes.Buffer, metrics []metric) {
	b.WriteString("\n| metric | type | labels | |\n| --- | --- | --- | --- |\n")
	for _, m := range metrics {
		var labels []string
		for _, l := range m.labels {
			labels = append(labels, "`"+l+"`")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, strings.Join(labels, ", "), m.help)
	}
}
