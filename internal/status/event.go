package status

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// Event to be recorded about an MCPServer.
type Event struct {
	// Type is Normal or Warning.
	Type string
	// Reason in CamelCase.
	Reason string
	// Action is what the operator did.
	Action string
	// Note is the message.
	Note string
}

// Transitions are the events between two statuses: none where no condition turned and no tool changed.
func Transitions(old, now *v1alpha1.MCPServerStatus) []Event {
	out := isolationEvent(old, now)
	if c, turned := turnedTo(old, now, v1alpha1.ConditionNoLiteralCredentials); turned && c.Status == metav1.ConditionFalse {
		out = append(out, Event{corev1.EventTypeWarning, c.Reason, "Inspect", c.Message})
	}
	out = append(out, toolsEvents(old, now)...)
	out = append(out, complianceEvent(old, now)...)
	if c, turned := turnedTo(old, now, v1alpha1.ConditionStalled); turned && c.Status == metav1.ConditionTrue {
		return append(out, Event{corev1.EventTypeWarning, c.Reason, "Stall", c.Message})
	}
	if c, turned := turnedTo(old, now, v1alpha1.ConditionSecretsCurrent); turned && slices.Contains(toldOfSecrets, c.Reason) {
		out = append(out, Event{corev1.EventTypeWarning, c.Reason, "Observe", c.Message})
	}
	c, turned := turnedTo(old, now, v1alpha1.ConditionReady)
	switch {
	case turned && c.Status == metav1.ConditionTrue:
		out = append(out, Event{corev1.EventTypeNormal, c.Reason, "Reconcile", c.Message})
	case turned && c.Status == metav1.ConditionFalse:
		out = append(out, Event{corev1.EventTypeWarning, c.Reason, "Reconcile", c.Message})
	}
	return out
}

// toldOfSecrets are the reasons of SecretsCurrent that somebody should hear of. The steps of a
// rotation have events of their own.
var toldOfSecrets = []string{
	v1alpha1.ReasonSourceNotFound, v1alpha1.ReasonInvalidValue, v1alpha1.ReasonSnapshotLost, v1alpha1.ReasonManualRotationPending,
	v1alpha1.ReasonRotationThrottled, v1alpha1.ReasonRotationFailed, v1alpha1.ReasonTooOld, v1alpha1.ReasonExpired,
}

// turnedTo tells whether a condition has another status or reason than before.
func turnedTo(old, now *v1alpha1.MCPServerStatus, conditionType string) (*metav1.Condition, bool) {
	is := meta.FindStatusCondition(now.Conditions, conditionType)
	was := meta.FindStatusCondition(old.Conditions, conditionType)
	if is == nil {
		return nil, false
	}
	return is, was == nil || was.Status != is.Status || was.Reason != is.Reason
}
