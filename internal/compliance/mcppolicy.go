package compliance

import "github.com/mcpwarden/mcp-warden/api/v1alpha1"

// eachPolicy asks every policy that selects the server what it demands: violations, and whether it demands
// anything at all. Where none does the control does not apply; where the policies could not be read nobody knows.
func eachPolicy(in *Input, ask func(*v1alpha1.MCPPolicySpec) ([]Violation, bool)) Outcome {
	out := Outcome{NotApplicable: true}
	for i := range in.Policies {
		violations, demands := ask(&in.Policies[i].Spec)
		if demands {
			out.NotApplicable, out.Demanded = false, true
		}
		for _, v := range violations {
			v.Policy = in.Policies[i].Name
			out.Violations = append(out.Violations, v)
		}
	}
	if in.PoliciesUnknown != "" {
		out.NotApplicable, out.Demanded, out.Unknown = false, true, in.PoliciesUnknown
	}
	return out
}
