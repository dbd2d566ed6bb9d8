package controllers

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// scrapeTimeout bounds how long the verdicts may take to be read from the cache.
const scrapeTimeout = 5 * time.Second

var (
	serversDesc = prometheus.NewDesc("mcp_warden_servers",
		"Number of MCPServers, by namespace and by the status of their condition PolicyCompliant.", []string{"namespace", "compliant"}, nil)
	controlsDesc = prometheus.NewDesc("mcp_warden_controls_not_passed_servers",
		"Number of MCPServers of a namespace for which a control does not pass, by its result: Fail, Unknown or Exempted.",
		[]string{"namespace", "control", "severity", "result"}, nil)
)

// verdicts are the metrics of what the statuses of all servers say, counted when they are asked for. Their number
// grows with namespaces and controls, never with servers or pods.
type verdicts struct {
	reader client.Reader
}

// NewVerdictMetrics returns the metrics of the verdicts over the servers that a manager's cache holds.
func NewVerdictMetrics(mgr ctrl.Manager) prometheus.Collector {
	return &verdicts{mgr.GetClient()}
}

// Describe tells which metrics there are.
func (v *verdicts) Describe(descs chan<- *prometheus.Desc) {
	descs <- serversDesc
	descs <- controlsDesc
}

type servers struct{ namespace, compliant string }

type notPassed struct{ namespace, control, severity, result string }

// Collect counts. Where the cache cannot be read the scrape fails, because no number is better than a wrong one.
func (v *verdicts) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	list := &v1alpha1.MCPServerList{}
	if err := v.reader.List(ctx, list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		metrics <- prometheus.NewInvalidMetric(serversDesc, err)
		return
	}
	total, results := map[servers]float64{}, map[notPassed]float64{}
	for i := range list.Items {
		server := &list.Items[i]
		compliant := metav1.ConditionUnknown
		if c := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionPolicyCompliant); c != nil {
			compliant = c.Status
		}
		total[servers{server.Namespace, string(compliant)}]++
		if server.Status.Compliance == nil {
			continue
		}
		for _, c := range server.Status.Compliance.Controls {
			if c.Result != v1alpha1.ControlPass {
				results[notPassed{server.Namespace, string(c.ID), string(c.Severity), string(c.Result)}]++
			}
		}
	}
	for key, n := range total {
		metrics <- prometheus.MustNewConstMetric(serversDesc, prometheus.GaugeValue, n, key.namespace, key.compliant)
	}
	for key, n := range results {
		metrics <- prometheus.MustNewConstMetric(controlsDesc, prometheus.GaugeValue, n, key.namespace, key.control, key.severity, key.result)
	}
}
