// Package observability tests what an admin watches the operator by: its metrics, its alerts, its dashboard, and what the docs say of them.
package observability

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/controllers"
	"github.com/mcpwarden/mcp-warden/internal/egressproxy"
	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/stdio"
)

// metric is one that something exports.
type metric struct {
	name   string
	kind   string // counter, gauge or histogram
	labels []string
	help   string
}

// series are the names under which Prometheus stores it.
func (m metric) series() []string {
	if m.kind == "histogram" {
		return []string{m.name + "_bucket", m.name + "_sum", m.name + "_count"}
	}
	return []string{m.name}
}

// differs says how what was scraped is not what is documented.
func (m metric) differs(family *dto.MetricFamily) string {
	if family == nil {
		return m.name + " is not there"
	}
	if kind := strings.ToLower(family.GetType().String()); kind != m.kind || family.GetHelp() != m.help {
		return fmt.Sprintf("%s is a %s %q, and not a %s %q", m.name, kind, family.GetHelp(), m.kind, m.help)
	}
	for _, sample := range family.GetMetric() {
		var labels []string
		for _, l := range sample.GetLabel() {
			labels = append(labels, l.GetName())
		}
		want := slices.Sorted(slices.Values(m.labels))
		if slices.Sort(labels); !slices.Equal(labels, want) {
			return fmt.Sprintf("%s has the labels %v, and not %v", m.name, labels, want)
		}
	}
	return ""
}

// borrowed are the metrics of controller-runtime and client-go that alerts and dashboard use. TestOperator compares.
var borrowed = []metric{
	{"leader_election_master_status", "gauge", []string{"name"}, "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name."},
	{"controller_runtime_reconcile_total", "counter", []string{"controller", "result"}, "Total number of reconciliations per controller"},
	{"controller_runtime_reconcile_errors_total", "counter", []string{"controller"}, "Total number of reconciliation errors per controller"},
	{"controller_runtime_terminal_reconcile_errors_total", "counter", []string{"controller"}, "Total number of terminal reconciliation errors per controller"},
	{"controller_runtime_reconcile_time_seconds", "histogram", []string{"controller"}, "Length of time per reconciliation per controller"},
	{"workqueue_depth", "gauge", []string{"controller", "name", "priority"}, "Current depth of workqueue by workqueue and priority"},
	{"workqueue_queue_duration_seconds", "histogram", []string{"controller", "name"}, "How long in seconds an item stays in workqueue before being requested"},
	{"workqueue_longest_running_processor_seconds", "gauge", []string{"controller", "name"}, "How many seconds has the longest running processor for workqueue been running."},
	{"rest_client_requests_total", "counter", []string{"code", "host", "method"}, "Number of HTTP requests, partitioned by status code, method, and host."},
	{"process_resident_memory_bytes", "gauge", nil, "Resident memory size in bytes."},
	{"process_cpu_seconds_total", "counter", nil, "Total user and system CPU time spent in seconds."},
}

// recorder is a registry that remembers what was registered.
type recorder struct {
	prometheus.Registerer
	collectors []prometheus.Collector
}

func (r *recorder) Register(c prometheus.Collector) error {
	r.collectors = append(r.collectors, c)
	return nil
}

func (r *recorder) MustRegister(all ...prometheus.Collector) {
	r.collectors = append(r.collectors, all...)
}

// description is how client_golang prints one.
var description = regexp.MustCompile(`^Desc\{fqName: "(.*)", help: "(.*)", unit: "", constLabels: \{\}, variableLabels: \{(.*)\}\}$`)

// metrics are those that were registered, whether they have a sample or not.
func (r *recorder) metrics(t *testing.T) []metric {
	t.Helper()
	var out []metric
	for _, c := range r.collectors {
		kinds := kindsOf(t, c)
		descs := make(chan *prometheus.Desc, 100)
		c.Describe(descs)
		close(descs)
		for desc := range descs {
			parts := description.FindStringSubmatch(desc.String())
			if parts == nil {
				t.Fatalf("cannot read %s", desc)
			}
			m := metric{name: parts[1], kind: kinds[desc.String()], help: strings.ReplaceAll(parts[2], `\"`, `"`)}
			if parts[3] != "" {
				m.labels = strings.Split(parts[3], ",")
			}
			out = append(out, m)
		}
	}
	return out
}

// kindsOf are the kinds of a collector's metrics, by their descriptions.
func kindsOf(t *testing.T, c prometheus.Collector) map[string]string {
	t.Helper()
	switch c := c.(type) { // those have no sample before something happens
	case *prometheus.CounterVec:
		return kindOfVec(c, "counter")
	case *prometheus.GaugeVec:
		return kindOfVec(c, "gauge")
	case *prometheus.HistogramVec:
		return kindOfVec(c, "histogram")
	}
	out := map[string]string{}
	samples := make(chan prometheus.Metric, 1000)
	c.Collect(samples)
	close(samples)
	for sample := range samples {
		m := &dto.Metric{}
		if err := sample.Write(m); err != nil {
			t.Fatal(err)
		}
		kind := "gauge"
		switch {
		case m.Counter != nil:
			kind = "counter"
		case m.Histogram != nil:
			kind = "histogram"
		}
		out[sample.Desc().String()] = kind
	}
	return out
}

func kindOfVec(c prometheus.Collector, kind string) map[string]string {
	descs := make(chan *prometheus.Desc, 1)
	c.Describe(descs)
	return map[string]string{(<-descs).String(): kind}
}

// operatorMetrics are the operator's own.
func operatorMetrics(t *testing.T) []metric {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	server := &v1alpha1.MCPServer{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b"}}
	server.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionPolicyCompliant, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonControlsFailed}}
	server.Status.Compliance = &v1alpha1.ComplianceStatus{Controls: []v1alpha1.ControlStatus{{ID: "POD-01", Result: v1alpha1.ControlFail, Severity: v1alpha1.SeverityHigh}}}
	r := &recorder{}
	if err := r.Register(controllers.NewStatusMetrics(fake.NewClientBuilder().WithScheme(scheme).WithObjects(server).Build())); err != nil {
		t.Fatal(err)
	}
	if err := r.Register(controllers.NewBuildInfo()); err != nil {
		t.Fatal(err)
	}
	return r.metrics(t)
}

func proxyMetrics(t *testing.T) []metric {
	t.Helper()
	r := &recorder{}
	_, err := egressproxy.New(egressproxy.Config{
		ListPath: filepath.Join(t.TempDir(), "none"), Limits: egressproxy.DefaultLimits(), Resolver: &net.Resolver{}, Log: silent(), Registry: r,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r.metrics(t)
}

// gatewayMetrics are those of every gateway, and those that one in front of a server on stdio has beside them.
func gatewayMetrics(t *testing.T) (all, onStdio []metric) {
	t.Helper()
	r, own := &recorder{}, &recorder{}
	backend, err := stdio.New([]string{"/bin/false"}, stdio.DefaultLimits(gateway.DefaultLimits()), silent(), own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Close)
	if _, err := gateway.New(gateway.Config{Path: "/mcp", Limits: gateway.DefaultLimits(), Backend: backend, Log: silent(), Registry: r}); err != nil {
		t.Fatal(err)
	}
	return r.metrics(t), own.metrics(t)
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// exported are the labels by the name of every series that something exports.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	gateways, onStdio := gatewayMetrics(t)
	out := map[string][]string{}
	for _, m := range slices.Concat(operatorMetrics(t), proxyMetrics(t), gateways, onStdio, borrowed) {
		for _, name := range m.series() {
			out[name] = m.labels
			if strings.HasSuffix(name, "_bucket") {
				out[name] = append(slices.Clone(m.labels), "le")
			}
		}
	}
	return out
}

// No label may grow with what users make: those that do not are listed here, and a new one must be thought about.
func TestLabelsAreBounded(t *testing.T) {
	bounded := strings.Fields("namespace compliant control severity result condition status reason decision cause direction mcp_method_name error_type version goversion")
	gateways, onStdio := gatewayMetrics(t)
	for _, m := range slices.Concat(operatorMetrics(t), proxyMetrics(t), gateways, onStdio) {
		for _, label := range m.labels {
			if !slices.Contains(bounded, label) {
				t.Errorf("%s has the label %s", m.name, label)
			}
		}
	}
}
