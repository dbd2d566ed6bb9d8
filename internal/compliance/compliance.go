// Package compliance is the catalogue of controls, and the verdict over a server. It is pure: the
// controller, kubectl warden and the documents all use the same catalogue.
//
// A control has two halves. The declared half reads the spec, the plan and the policies, and says the same
// with and without a cluster. The live half reads what is live; without a cluster it is Unknown, and so is
// every control that has one and whose declared half passes. No control passes on missing information.
package compliance

import (
	"slices"
	"strings"
	"time"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// Control is one control of the catalogue.
type Control struct {
	// ID is stable: a family of three letters and a number.
	ID v1alpha1.ControlID
	// Title says in a few words what holds where the control passes.
	Title string
	// Severity says how much it matters.
	Severity v1alpha1.ControlSeverity
	// Reads names what the control looks at, for whoever reads the catalogue.
	Reads string
	// Rationale says what an attacker gains where the control fails.
	Rationale string
	// Remedy says in one line how to fix it.
	Remedy string
	// References to published standards, such as "PSS restricted" or "OWASP MCP01:2025".
	References []string
	// Enforced says that under a policy with action Enforce no violation of the declared half is rolled out.
	Enforced bool

	// Fix says how to fix it in the manifest of a workload that is no server's; empty where the control is about servers alone.
	Fix string

	// declared and live are the halves; nil where a control has none.
	declared func(*Input) Outcome
	live     func(*Input, *Live) Outcome
	// pod is what the control asks of any pod: of a server's live pods, where it has no other live half, and of a workload's template.
	pod podCheck
	// saysFix is set where what workload finds says how to fix it already.
	saysFix bool
	// workload judges a workload that is no server's, where pod alone does not say it.
	workload func(*Workload) Outcome
}

// OfWorkloads tells whether the control applies to a workload that is no server's.
func (c *Control) OfWorkloads() bool { return c.workload != nil }

// IsLive tells whether the control has a live half, so that it takes a cluster to pass.
func (c *Control) IsLive() bool { return c.live != nil }

// Outcome is what one half of a control found. One without anything in it passes.
type Outcome struct {
	// Violations say what is wrong, one by one.
	Violations []Violation
	// Unknown says what could not be told; empty where everything could.
	Unknown string
	// NotApplicable says that there is nothing to look at, such as where no policy demands anything.
	NotApplicable bool
	// Demanded says that a policy demands it, or may.
	Demanded bool
}

// Violation is one thing that is wrong.
type Violation struct {
	// Field of the spec, such as spec.image; empty where no field is to blame.
	Field string
	// Message says what is wrong, where, and how to fix it. It holds no value of a variable or a Secret.
	Message string
	// Policy that demands it; empty where the catalogue itself does.
	Policy string
}

// Input is all that a verdict depends on.
type Input struct {
	// Now is the time of the verdict.
	Now time.Time
	// Server that is judged.
	Server *v1alpha1.MCPServer
	// Plan of the server; nil where its spec cannot be met.
	Plan *plan.Plan
	// Literals are the credentials that the spec spells out; nil where nobody looked.
	Literals *credentials.Report
	// Policies that select the server's namespace, sorted by name.
	Policies []v1alpha1.MCPPolicy
	// PoliciesUnknown says why the policies could not all be read; empty where they could.
	PoliciesUnknown string
	// Live is what is live; nil without a cluster.
	Live *Live
}

// Result is the verdict on one control.
type Result struct {
	Control *Control
	// Result is empty where the control does not apply.
	Result v1alpha1.ControlResult
	// Message says what is wrong, or what could not be told; empty for Pass.
	Message string
	// Violations that no exemption covers; for Exempted, those that one does.
	Violations []Violation
	// Demanded says that a policy demands what is violated, or what cannot be told, so that it counts whatever its severity.
	Demanded bool
}

// Counts says whether the result of the control turns the condition PolicyCompliant.
func (r *Result) Counts() bool {
	return r.Demanded || r.Control.Severity == v1alpha1.SeverityCritical || r.Control.Severity == v1alpha1.SeverityHigh
}

// Report is the verdict, in the order of the catalogue.
type Report struct {
	Results []Result
	// Recheck is when the verdict may turn with no event; zero for never.
	Recheck time.Time
}

// offline is what the live half of every control says without a cluster.
const offline = "only a live cluster can tell"

// Evaluate judges a server by every control.
func Evaluate(in Input) Report {
	var out Report
	for i := range catalogue {
		result := evaluate(&catalogue[i], &in)
		if result.Result != "" {
			out.Results = append(out.Results, result)
		}
	}
	out.Recheck = recheck(&in)
	return out
}

func evaluate(c *Control, in *Input) Result {
	var sum Outcome
	applies := false
	for _, half := range halves(c, in) {
		applies = applies || !half.NotApplicable
		sum.Demanded = sum.Demanded || half.Demanded
		sum.Violations = append(sum.Violations, half.Violations...)
		if sum.Unknown == "" {
			sum.Unknown = half.Unknown
		}
	}
	out := Result{Control: c}
	var exempted []Violation
	for _, v := range sum.Violations {
		out.Demanded = out.Demanded || v.Policy != ""
		if isExempt(c.ID, v, in) {
			exempted = append(exempted, v)
		} else {
			out.Violations = append(out.Violations, v)
		}
	}
	switch {
	case len(out.Violations) > 0:
		out.Result, out.Message = v1alpha1.ControlFail, messageOf(out.Violations)
	case sum.Unknown != "":
		out.Result, out.Message, out.Demanded = v1alpha1.ControlUnknown, sum.Unknown, sum.Demanded
	case len(exempted) > 0:
		out.Result, out.Violations, out.Message = v1alpha1.ControlExempted, exempted, messageOf(exempted)
	case applies:
		out.Result = v1alpha1.ControlPass
	}
	return out
}

// halves evaluates those that a control has. A live half has nothing to say of a declared half that does not
// apply: a control is about one matter.
func halves(c *Control, in *Input) []Outcome {
	var out []Outcome
	if c.declared != nil {
		declared := c.declared(in)
		if declared.NotApplicable {
			return []Outcome{declared}
		}
		out = append(out, declared)
	}
	switch {
	case c.live == nil:
	case in.Live == nil:
		out = append(out, Outcome{Unknown: offline})
	default:
		out = append(out, c.live(in, in.Live))
	}
	return out
}

// messageOf tells of the first violations, and how many there are.
func messageOf(violations []Violation) string {
	const most = 3
	var parts []string
	for _, v := range violations[:min(most, len(violations))] {
		parts = append(parts, v.String())
	}
	out := strings.Join(parts, "; ")
	if n := len(violations) - most; n > 0 {
		out += "; and " + count(n, "more")
	}
	return out
}

// String names the policy and the field before the message.
func (v Violation) String() string {
	out := v.Message
	if v.Field != "" {
		out = v.Field + ": " + out
	}
	if v.Policy != "" {
		out = "policy " + v.Policy + ": " + out
	}
	return out
}

// isExempt tells whether an exemption that is still in force covers a violation. What a policy demands, only
// that policy excuses from; from what the catalogue demands, any that selects the server.
func isExempt(id v1alpha1.ControlID, v Violation, in *Input) bool {
	return slices.ContainsFunc(in.Policies, func(p v1alpha1.MCPPolicy) bool {
		return (v.Policy == "" || v.Policy == p.Name) && slices.ContainsFunc(p.Spec.Exemptions, func(e v1alpha1.Exemption) bool {
			return covers(&e, in) && slices.Contains(e.Controls, id) && in.Now.Before(e.ExpiresAt.Time)
		})
	})
}

func covers(e *v1alpha1.Exemption, in *Input) bool {
	return e.Namespace == in.Server.Namespace && e.Name == in.Server.Name
}

// recheck is when the next exemption ends, or a value becomes too old.
func recheck(in *Input) time.Time {
	next := nextAge(in)
	if in.Live != nil {
		for i := range in.Live.Repairs {
			if r := &in.Live.Repairs[i]; r.Shown(in.Now) && (next.IsZero() || r.Time.Add(repairShown).Before(next)) {
				next = r.Time.Add(repairShown)
			}
		}
	}
	for i := range in.Policies {
		for _, e := range in.Policies[i].Spec.Exemptions {
			if end := e.ExpiresAt.Time; covers(&e, in) && end.After(in.Now) && (next.IsZero() || end.Before(next)) {
				next = end
			}
		}
	}
	return next
}

// Blocking are the violations for which nothing of a spec may be rolled out, by control: those of the declared half
// that a policy with action Enforce forbids, and under such a policy what the catalogue itself demands, where it counts.
// It reads nothing live.
func Blocking(in Input) []Result {
	in.Live = nil
	enforcing := slices.DeleteFunc(slices.Clone(in.Policies), func(p v1alpha1.MCPPolicy) bool { return p.Spec.Action != v1alpha1.PolicyEnforce })
	if len(enforcing) == 0 {
		return nil
	}
	var out []Result
	for i := range catalogue {
		c := &catalogue[i]
		if !c.Enforced {
			continue
		}
		result := Result{Control: c, Result: v1alpha1.ControlFail, Demanded: true}
		for _, v := range c.declared(&in).Violations {
			enforced := (v.Policy == "" && (&Result{Control: c}).Counts()) || slices.ContainsFunc(enforcing, func(p v1alpha1.MCPPolicy) bool { return p.Name == v.Policy })
			if enforced && !isExempt(c.ID, v, &in) {
				result.Violations = append(result.Violations, v)
			}
		}
		if len(result.Violations) > 0 {
			result.Message = messageOf(result.Violations)
			out = append(out, result)
		}
	}
	return out
}

// Catalogue returns every control, in order. It must not be changed.
func Catalogue() []Control { return catalogue }

// catalogue is put together from the families, a file for each. One of its controls reads it, so that it cannot be
// initialised where it is declared.
var catalogue []Control

func init() {
	catalogue = slices.Concat(podControls, networkControls, secretControls, imageControls, accessControls, operationControls)
	for i := range catalogue {
		c := &catalogue[i]
		if c.pod != nil && c.live == nil {
			c.live = c.pod.live
		}
		if c.pod != nil && c.workload == nil {
			c.workload = c.pod.workload
		}
	}
}
