package status

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

// maxControlMessage bounds the message of one control, in bytes: 128 of them must fit into a status.
const maxControlMessage = 512

// setCompliance shows the verdict. Where nobody judged, what was said before stands.
func setCompliance(out *v1alpha1.MCPServerStatus, in Input) {
	if in.Compliance == nil {
		return
	}
	shown := &v1alpha1.ComplianceStatus{}
	for i := range in.Compliance.Results {
		result := &in.Compliance.Results[i]
		switch result.Result {
		case v1alpha1.ControlPass:
			shown.Passed++
		case v1alpha1.ControlFail:
			shown.Failed++
		case v1alpha1.ControlUnknown:
			shown.Unknown++
		case v1alpha1.ControlExempted:
			shown.Exempted++
		}
		shown.Controls = append(shown.Controls, v1alpha1.ControlStatus{
			ID: result.Control.ID, Result: result.Result, Severity: result.Control.Severity, Message: boundedTo(result.Message, maxControlMessage),
		})
	}
	out.Compliance = shown
	set(out, in, v1alpha1.ConditionPolicyCompliant, compliant(in.Compliance))
}

// compliant is False where a control fails that counts, and Unknown where nobody can tell of one.
func compliant(report *compliance.Report) verdict {
	var failed, unknown, advisory []string
	for i := range report.Results {
		result := &report.Results[i]
		id := string(result.Control.ID)
		switch {
		case result.Result == v1alpha1.ControlFail && result.Counts():
			failed = append(failed, id+": "+result.Message)
		case result.Result == v1alpha1.ControlUnknown && result.Counts():
			unknown = append(unknown, id+": "+result.Message)
		case result.Result == v1alpha1.ControlFail:
			advisory = append(advisory, id)
		}
	}
	switch {
	case len(failed) > 0:
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonControlsFailed, fmt.Sprintf("%d failed: %s", len(failed), strings.Join(failed, "; "))}
	case len(unknown) > 0:
		return verdict{metav1.ConditionUnknown, v1alpha1.ReasonControlsUnknown, fmt.Sprintf("%d unknown: %s", len(unknown), strings.Join(unknown, "; "))}
	case len(advisory) > 0:
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonCompliant, "Every control holds that counts. Of lower severity these fail: " + strings.Join(advisory, ", ") + "."}
	}
	return verdict{metav1.ConditionTrue, v1alpha1.ReasonCompliant, "Every control holds."}
}

// complianceEvent tells of a verdict that turned against a server, and of one that turned back.
func complianceEvent(old, now *v1alpha1.MCPServerStatus) []Event {
	c, turned := turnedTo(old, now, v1alpha1.ConditionPolicyCompliant)
	switch was := meta.FindStatusCondition(old.Conditions, v1alpha1.ConditionPolicyCompliant); {
	case turned && c.Status == metav1.ConditionFalse:
		return []Event{{corev1.EventTypeWarning, c.Reason, "Judge", c.Message}}
	case turned && c.Status == metav1.ConditionTrue && was != nil && was.Status == metav1.ConditionFalse:
		return []Event{{corev1.EventTypeNormal, c.Reason, "Judge", c.Message}}
	}
	return nil
}
