// Package status computes the status of an MCPServer from what was observed. It is pure: no client
// and no clock; time comes in as a value.
package status

import (
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// maxMessage bounds the messages of conditions, in bytes.
const maxMessage = 1024

// Input is all that a status depends on.
type Input struct {
	// Server with its present status.
	Server *v1alpha1.MCPServer
	// Now is the time of conditions that turn.
	Now time.Time
	// Plan that was applied; nil where there is none.
	Plan *plan.Plan
	// Deployment as it is now; nil where there is none.
	Deployment *appsv1.Deployment
	// Pods of the server.
	Pods []corev1.Pod
	// Secrets tell of the values that the server gets from Secrets; nil where it gets none, or where
	// they could not be looked at.
	Secrets *Secrets
	// Literals are the credentials that the spec spells out; nil where nobody looked.
	Literals *credentials.Report
	// Isolation is what is known of the server's isolation; nil where that could not be found out.
	Isolation *probe.Verdict
	// Compliance is the verdict over the server; nil where nobody judged it.
	Compliance *compliance.Report
	// Tools is what a look at the server's tools has shown; nil where nobody looked since what the status says.
	Tools *Tools
	// Problem that kept the plan from being applied; nil where it was applied.
	Problem *Problem
}

// Secrets tell of the values that a server gets from Secrets.
type Secrets struct {
	// Verdict for the condition SecretsCurrent.
	Verdict rotation.Verdict
	// Status to show.
	Status *v1alpha1.SecretsStatus
	// Events of the rotation, to be recorded where the plan was applied.
	Events []rotation.Event
	// Recheck is after how long the verdict may turn without an event; zero for never.
	Recheck time.Duration
}

// Events of what was done, beside those of conditions that turned.
func (in Input) Events() []Event {
	if in.Problem != nil || in.Secrets == nil {
		return nil
	}
	var out []Event
	for _, e := range in.Secrets.Events {
		kind := corev1.EventTypeNormal
		if e.Warning {
			kind = corev1.EventTypeWarning
		}
		out = append(out, Event{kind, e.Reason, "Rotate", e.Message})
	}
	return out
}

// Recheck is after how long to look again where nothing tells of a change; zero for never.
func (in Input) Recheck() time.Duration {
	out := time.Duration(0)
	if in.Secrets != nil {
		out = in.Secrets.Recheck
	}
	if in.Compliance != nil && !in.Compliance.Recheck.IsZero() {
		if due := max(in.Compliance.Recheck.Sub(in.Now), time.Second); out == 0 || due < out {
			out = due
		}
	}
	if due := untilUnanswered(in.Pods, in.Now); due > 0 && (out == 0 || due < out) {
		out = due
	}
	return out
}

// Problem says why a plan was not applied.
type Problem struct {
	// Reason for the conditions.
	Reason string
	// Message says what is wrong, where, and how to fix it.
	Message string
	// Waiting may cure it.
	Waiting bool
}

// verdict is a condition without its bookkeeping.
type verdict struct {
	status  metav1.ConditionStatus
	reason  string
	message string
}

// Compute returns the new status. The old one is not changed.
func Compute(in Input) v1alpha1.MCPServerStatus {
	out := *in.Server.Status.DeepCopy()
	out.ObservedGeneration = in.Server.Generation
	if in.Problem == nil { // else what was applied before still holds
		out.Endpoint = in.Plan.Endpoint
		out.Resources = in.Plan.Resources.DeepCopy()
		out.PodFeatures = in.Plan.Features
		out.GatewayImage = in.Plan.GatewayImage
		out.Replicas, out.ReadyReplicas, out.Image = 0, 0, nil
	}
	if in.Problem != nil && in.Problem.Waiting && judged(in.Server) == nil {
		out.Endpoint = "" // it was that of another spec, and part of this one may have been applied
	}
	if in.Secrets != nil {
		out.Secrets = in.Secrets.Status
	} else if in.Problem == nil {
		out.Secrets = nil
	}
	if in.Deployment != nil {
		out.Replicas = deref(in.Deployment.Spec.Replicas)
		out.ReadyReplicas = in.Deployment.Status.ReadyReplicas
		out.Image = imageOf(in.Deployment, alive(in.Pods))
	}
	ready, reconciling, stalled := conditions(in)
	set(&out, in, v1alpha1.ConditionReady, ready)
	set(&out, in, v1alpha1.ConditionReconciling, reconciling)
	set(&out, in, v1alpha1.ConditionStalled, stalled)
	if current, known := secretsCurrent(in); known {
		set(&out, in, v1alpha1.ConditionSecretsCurrent, current)
	}
	if in.Literals != nil {
		set(&out, in, v1alpha1.ConditionNoLiteralCredentials, noLiteralCredentials(in.Literals))
	}
	setIsolation(&out, in)
	setTools(&out, in)
	setCompliance(&out, in)
	setQuarantine(&out, in)
	return out
}

// secretsCurrent says nothing where the secrets could not be looked at: what was said before stands.
func secretsCurrent(in Input) (verdict, bool) {
	switch {
	case in.Secrets != nil:
		v := in.Secrets.Verdict
		return verdict{v.Status, v.Reason, v.Message}, true
	case in.Problem == nil:
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonNoSecrets, "The server names no secret."}, true
	}
	return verdict{}, false
}

func set(out *v1alpha1.MCPServerStatus, in Input, conditionType string, v verdict) {
	meta.SetStatusCondition(&out.Conditions, metav1.Condition{
		Type: conditionType, Status: v.status, Reason: v.reason, Message: bounded(v.message),
		ObservedGeneration: in.Server.Generation, LastTransitionTime: metav1.NewTime(in.Now),
	})
}

func bounded(message string) string { return boundedTo(message, maxMessage) }

func boundedTo(message string, most int) string {
	if len(message) <= most {
		return message
	}
	return strings.ToValidUTF8(message[:most-3], "") + "..."
}

// conditions are the kstatus triad.
func conditions(in Input) (ready, reconciling, stalled verdict) {
	idle := verdict{metav1.ConditionFalse, v1alpha1.ReasonReconciled, "Nothing is left to do."}
	if p := in.Problem; p != nil {
		ready = verdict{metav1.ConditionFalse, p.Reason, p.Message}
		active := verdict{metav1.ConditionTrue, p.Reason, p.Message}
		if p.Waiting {
			ready.status = readyDespite(in)
			return ready, active, verdict{metav1.ConditionFalse, p.Reason, "It is tried again."}
		}
		return ready, verdict{metav1.ConditionFalse, p.Reason, next(p)}, active
	}
	why, pending := pendingEgress(in)
	if held := in.Plan.Held; held != nil { // what runs, if anything, runs another spec
		message := sentences("No pod is started: "+held.Message, pending)
		if held.Reason == v1alpha1.ReasonPolicyViolation { // waiting does not cure it
			blocked := verdict{metav1.ConditionFalse, held.Reason, "It is looked at again when the spec or a policy changes."}
			return verdict{metav1.ConditionFalse, held.Reason, message}, blocked, verdict{metav1.ConditionTrue, held.Reason, message}
		}
		return verdict{metav1.ConditionFalse, held.Reason, message}, verdict{metav1.ConditionTrue, held.Reason, message}, idle
	}
	ready, progress := workload(in)
	if pending != "" { // what else is wrong is told first
		ready = verdict{metav1.ConditionFalse, why, sentences(ready.message, pending)}
	}
	if progress.reason == v1alpha1.ReasonRolloutFailed {
		progress.status = metav1.ConditionTrue
		return ready, verdict{metav1.ConditionFalse, progress.reason, "The rollout goes on by itself once what holds it up is fixed."}, progress
	}
	reconciling, stalled = idle, idle
	if progress.reason != "" {
		reconciling = progress
	}
	if pending != "" {
		reconciling = verdict{metav1.ConditionTrue, why, sentences(progress.message, pending)}
	}
	return ready, reconciling, stalled
}

// next says when the controller looks again at what is blocked: a spec that is invalid when an event
// tells of a change; of an object or a policy of somebody else's no event may tell.
func next(p *Problem) string {
	if p.Reason == v1alpha1.ReasonInvalidSpec {
		return "It is looked at again when the spec, or what it was checked against in the cluster, changes."
	}
	return "It is looked at again every now and then."
}

// pendingEgress says which egress rules are closed for want of a target or of the egress proxy. A
// server that is stopped or quarantined is where it should be without them.
func pendingEgress(in Input) (reason, message string) {
	if !runs(in) {
		return "", ""
	}
	var messages []string
	for _, err := range in.Plan.Pending {
		messages = append(messages, err.Field+": "+err.Detail)
	}
	reason = v1alpha1.ReasonEgressTargetNotFound
	if len(messages) == 0 {
		reason = v1alpha1.ReasonEgressProxyNotReady
	}
	if in.Plan.EgressTrouble != "" {
		messages = append(messages, in.Plan.EgressTrouble)
	}
	return reason, strings.Join(messages, "; ")
}

// sentences puts one message after another, which may be empty or lack its full stop.
func sentences(before, after string) string {
	switch {
	case before == "":
		return after
	case strings.HasSuffix(before, "."):
		return before + " " + after
	}
	return before + ". " + after
}

// readyDespite keeps what Ready said of this spec before a passing error. Unknown where it said
// nothing of it: who waits for Ready must not take the spec before for the one that was just written.
func readyDespite(in Input) metav1.ConditionStatus {
	if old := judged(in.Server); old != nil {
		return old.Status
	}
	return metav1.ConditionUnknown
}

// judged is what Ready says of the present generation; nil where it says nothing of it.
func judged(server *v1alpha1.MCPServer) *metav1.Condition {
	old := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionReady)
	if old == nil || old.ObservedGeneration != server.Generation {
		return nil
	}
	return old
}

// runs tells whether pods are to run and be reached.
func runs(in Input) bool {
	switch in.Server.Spec.DesiredState {
	case v1alpha1.StateStopped, v1alpha1.StateQuarantined:
		return false
	}
	return true
}

// workload says whether the server is in its desired state, and what is under way (an empty reason: nothing).
func workload(in Input) (ready, progress verdict) {
	if d := in.Deployment; d == nil || d.Status.ObservedGeneration == 0 || (!runs(in) && d.Status.ObservedGeneration < d.Generation) {
		message := "The Deployment was applied and has not been acted upon yet; if this lasts, see whether kube-controller-manager runs."
		return verdict{metav1.ConditionUnknown, v1alpha1.ReasonProgressing, message},
			verdict{metav1.ConditionTrue, v1alpha1.ReasonProgressing, message}
	}
	switch in.Server.Spec.DesiredState {
	case v1alpha1.StateStopped:
		return stopped(in)
	case v1alpha1.StateQuarantined: // told as what was done: policies of others may open what ours do not
		return verdict{metav1.ConditionTrue, v1alpha1.ReasonQuarantined,
			fmt.Sprintf("Its NetworkPolicies open nothing and nothing is rolled out; %s kept.", pods(len(alive(in.Pods)), "is", "are"))}, verdict{}
	}
	return running(in)
}

func stopped(in Input) (ready, progress verdict) {
	if n := len(alive(in.Pods)); n > 0 {
		message := pods(n, "is", "are") + " still there."
		return verdict{metav1.ConditionFalse, v1alpha1.ReasonStopping, message},
			verdict{metav1.ConditionTrue, v1alpha1.ReasonStopping, message}
	}
	return verdict{metav1.ConditionTrue, v1alpha1.ReasonStopped, "No pod runs, as asked."}, verdict{}
}

func running(in Input) (ready, progress verdict) {
	d := in.Deployment
	want, have := deref(d.Spec.Replicas), d.Status
	ready = verdict{metav1.ConditionTrue, v1alpha1.ReasonServing, fmt.Sprintf("%d of %d pods are ready.", have.ReadyReplicas, want)}
	trouble := credentials.Redact(in.Server, troubleOf(d, in.Pods, in.Now))
	if have.AvailableReplicas < want || want == 0 {
		ready.status, ready.reason = metav1.ConditionFalse, v1alpha1.ReasonReplicasUnavailable
		ready.message += trouble
	}
	if isComplete(d) {
		return ready, verdict{}
	}
	message := fmt.Sprintf("%d of %d pods run the present spec, %d are available.%s", have.UpdatedReplicas, want, have.AvailableReplicas, trouble)
	if deadlineExceeded(d) {
		return ready, verdict{metav1.ConditionTrue, v1alpha1.ReasonRolloutFailed, message}
	}
	return ready, verdict{metav1.ConditionTrue, v1alpha1.ReasonProgressing, message}
}

func deadlineExceeded(d *appsv1.Deployment) bool {
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing {
			return c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded" && d.Status.ObservedGeneration >= d.Generation
		}
	}
	return false
}

func pods(n int, singular, plural string) string {
	if n == 1 {
		return "1 pod " + singular
	}
	return fmt.Sprintf("%d pods %s", n, plural)
}

func deref[T any](p *T) T {
	if p == nil {
		return *new(T)
	}
	return *p
}
