package rotation

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// Verdict for the condition SecretsCurrent. No message carries a value.
type Verdict struct {
	Status  metav1.ConditionStatus
	Reason  string
	Message string
}

// severity orders reasons, worst first: what breaks pods or credentials now, what keeps new values
// away until somebody acts, what waiting cures, what is only unknown, what is well.
var severity = []string{
	v1alpha1.ReasonSnapshotLost,
	v1alpha1.ReasonExpired,
	v1alpha1.ReasonSourceNotFound,
	v1alpha1.ReasonInvalidValue,
	v1alpha1.ReasonRotationRolledBack,
	v1alpha1.ReasonRotationFailed,
	v1alpha1.ReasonTooOld,
	v1alpha1.ReasonManualRotationPending,
	v1alpha1.ReasonRotationThrottled,
	v1alpha1.ReasonRotationQueued,
	v1alpha1.ReasonRotationPending,
	v1alpha1.ReasonRotating,
	v1alpha1.ReasonSourceUnreadable,
	v1alpha1.ReasonNoSecrets,
	v1alpha1.ReasonCurrent,
}

// Worst makes one verdict of several: status and reason of the worst, and after its message those of
// all others that are not True, by severity. A reason that is not known is the worst of all.
func Worst(verdicts ...Verdict) Verdict {
	sorted := slices.SortedStableFunc(slices.Values(verdicts), func(a, b Verdict) int {
		return cmp.Compare(slices.Index(severity, a.Reason), slices.Index(severity, b.Reason))
	})
	if len(sorted) == 0 {
		return Verdict{}
	}
	worst := sorted[0]
	messages := []string{worst.Message}
	for _, v := range sorted[1:] {
		if v.Status != metav1.ConditionTrue && v.Message != "" && !slices.Contains(messages, v.Message) {
			messages = append(messages, v.Message)
		}
	}
	worst.Message = strings.Join(messages, " ")
	return worst
}

func yes(reason, message string) Verdict { return Verdict{metav1.ConditionTrue, reason, message} }
func no(reason, message string) Verdict  { return Verdict{metav1.ConditionFalse, reason, message} }
func unknown(message string) Verdict {
	return Verdict{metav1.ConditionUnknown, v1alpha1.ReasonSourceUnreadable, message}
}
