package controllers

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// scrapeTimeout bounds how long the statuses may take to be read from the cache.
const scrapeTimeout = 5 * time.Second

var (
	serversDesc = prometheus.NewDesc("mcp_warden_servers",
		"Number of MCPServers, by namespace and by the status of their condition PolicyCompliant.", []string{"namespace", "compliant"}, nil)
	controlsDesc = prometheus.NewDesc("mcp_warden_controls_not_passed_servers",
		"Number of MCPServers of a namespace for which a control does not pass, by its result: Fail, Unknown or Exempted.",
		[]string{"namespace", "control", "severity", "result"}, nil)
	conditionsDesc = prometheus.NewDesc("mcp_warden_conditions_servers",
		"Number of MCPServers of a namespace whose condition has a status and a reason.", []string{"namespace", "condition", "status", "reason"}, nil)
	changesDesc = prometheus.NewDesc("mcp_warden_condition_changes_total",
		"How often conditions of MCPServers of a namespace turned to a status and a reason, as written by this replica.",
		[]string{"namespace", "condition", "status", "reason"}, nil)
)

// metricConditions and metricReasons are the values that labels may have. The API server takes any text for them: what is
// not known here is left out, or counted as otherReason, so that nobody can make the metrics grow.
var (
	metricConditions = []string{
		v1alpha1.ConditionReady, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled, v1alpha1.ConditionSecretsCurrent,
		v1alpha1.ConditionNoLiteralCredentials, v1alpha1.ConditionNetworkPolicyEnforced, v1alpha1.ConditionToolsObserved, v1alpha1.ConditionPolicyCompliant,
	}
	metricReasons = []string{
		v1alpha1.ReasonServing, v1alpha1.ReasonStopped, v1alpha1.ReasonQuarantined, v1alpha1.ReasonStopping, v1alpha1.ReasonProgressing,
		v1alpha1.ReasonReplicasUnavailable, v1alpha1.ReasonRolloutFailed, v1alpha1.ReasonEgressTargetNotFound, v1alpha1.ReasonEgressProxyNotReady,
		v1alpha1.ReasonInvalidSpec, v1alpha1.ReasonNameConflict, v1alpha1.ReasonRejected, v1alpha1.ReasonReconcileError, v1alpha1.ReasonReconciled,
		v1alpha1.ReasonNoneFound, v1alpha1.ReasonLiteralCredentialFound, v1alpha1.ReasonNotAllChecked,
		v1alpha1.ReasonProven, v1alpha1.ReasonNotEnforced, v1alpha1.ReasonNotProven,
		v1alpha1.ReasonCompliant, v1alpha1.ReasonControlsFailed, v1alpha1.ReasonControlsUnknown, v1alpha1.ReasonPolicyViolation,
		v1alpha1.ReasonObserved, v1alpha1.ReasonNotObserved, v1alpha1.ReasonInventoryUnreadable, v1alpha1.ReasonNoGateway, v1alpha1.ReasonToolsChanged,
		v1alpha1.ReasonCurrent, v1alpha1.ReasonNoSecrets, v1alpha1.ReasonSourceNotFound, v1alpha1.ReasonSourceUnreadable, v1alpha1.ReasonInvalidValue,
		v1alpha1.ReasonRotationPending, v1alpha1.ReasonRotationQueued, v1alpha1.ReasonRotating, v1alpha1.ReasonManualRotationPending,
		v1alpha1.ReasonRotationRolledBack, v1alpha1.ReasonRotationFailed, v1alpha1.ReasonRotationThrottled, v1alpha1.ReasonSnapshotLost,
		v1alpha1.ReasonTooOld, v1alpha1.ReasonExpired,
	}
)

const otherReason = "Other"

// awaitedChanges are the changes whose first one matters: they are shown as 0 before, because of a counter that
// comes into being with 1, Prometheus cannot tell that it rose.
var awaitedChanges = []conditionState{
	{v1alpha1.ConditionPolicyCompliant, metav1.ConditionFalse, v1alpha1.ReasonControlsFailed},
	{v1alpha1.ConditionSecretsCurrent, metav1.ConditionFalse, v1alpha1.ReasonRotating},
	{v1alpha1.ConditionSecretsCurrent, metav1.ConditionFalse, v1alpha1.ReasonRotationRolledBack},
}

// statusMetrics tell what the statuses of all servers say, counted when they are asked for, and what turned. Their number
// grows with namespaces, controls and reasons, never with servers or pods.
type statusMetrics struct {
	reader client.Reader

	mu      sync.Mutex
	changes map[conditionCount]float64
}

// NewStatusMetrics returns the metrics that an operator registers, over the servers that a reader lists.
func NewStatusMetrics(reader client.Reader) prometheus.Collector { return newStatusMetrics(reader) }

func newStatusMetrics(reader client.Reader) *statusMetrics {
	return &statusMetrics{reader: reader, changes: map[conditionCount]float64{}}
}

type (
	servers   struct{ namespace, compliant string }
	notPassed struct{ namespace, control, severity, result string }
	// conditionState is what a condition says.
	conditionState struct {
		condition string
		status    metav1.ConditionStatus
		reason    string
	}
	conditionCount struct {
		namespace string
		conditionState
	}
)

// stateOf is what the metrics tell of a condition; none of one that is not the operator's.
func stateOf(c *metav1.Condition) (conditionState, bool) {
	out := conditionState{c.Type, c.Status, c.Reason}
	if !slices.Contains(metricReasons, c.Reason) {
		out.reason = otherReason
	}
	return out, slices.Contains(metricConditions, c.Type)
}

// changed counts the conditions that a write of a status turned. Those of a server's first status did not turn.
func (m *statusMetrics) changed(server *v1alpha1.MCPServer, old, now []metav1.Condition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range now {
		is, ours := stateOf(&now[i])
		before := meta.FindStatusCondition(old, now[i].Type)
		if !ours || before == nil {
			continue
		}
		if was, _ := stateOf(before); was != is {
			m.changes[conditionCount{server.Namespace, is}]++
		}
	}
}

// Describe tells which metrics there are.
func (m *statusMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{serversDesc, controlsDesc, conditionsDesc, changesDesc} {
		descs <- desc
	}
}

// Collect counts. Where the cache cannot be read the scrape fails, because no number is better than a wrong one.
func (m *statusMetrics) Collect(metrics chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	list := &v1alpha1.MCPServerList{}
	if err := m.reader.List(ctx, list, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
		metrics <- prometheus.NewInvalidMetric(serversDesc, err)
		return
	}
	total, results, conditions := map[servers]float64{}, map[notPassed]float64{}, map[conditionCount]float64{}
	namespaces := map[string]bool{}
	for i := range list.Items {
		server := &list.Items[i]
		namespaces[server.Namespace] = true
		compliant := metav1.ConditionUnknown
		for j := range server.Status.Conditions {
			c := &server.Status.Conditions[j]
			if c.Type == v1alpha1.ConditionPolicyCompliant {
				compliant = c.Status
			}
			if state, ours := stateOf(c); ours {
				conditions[conditionCount{server.Namespace, state}]++
			}
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
	for key, n := range conditions {
		metrics <- key.metric(conditionsDesc, prometheus.GaugeValue, n)
	}
	for key, n := range m.changesIn(namespaces) {
		metrics <- key.metric(changesDesc, prometheus.CounterValue, n)
	}
}

func (c conditionCount) metric(desc *prometheus.Desc, kind prometheus.ValueType, n float64) prometheus.Metric {
	return prometheus.MustNewConstMetric(desc, kind, n, c.namespace, c.condition, string(c.status), c.reason)
}

// changesIn are the changes in namespaces that have servers; those in others are forgotten.
func (m *statusMetrics) changesIn(namespaces map[string]bool) map[conditionCount]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[conditionCount]float64{}
	for namespace := range namespaces {
		for _, state := range awaitedChanges {
			out[conditionCount{namespace, state}] = 0
		}
	}
	for key, n := range m.changes {
		if !namespaces[key.namespace] {
			delete(m.changes, key)
			continue
		}
		out[key] = n
	}
	return out
}
