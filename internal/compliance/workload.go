package compliance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/credentials"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// Workload is one that is no MCPServer's kind, such as a Deployment, as a manifest has it.
type Workload struct {
	// Namespace of the workload.
	Namespace string
	// Template of its pods, and the field that it stands at, such as spec.template; empty for a pod.
	Template *corev1.Pod
	Path     string
	// NetworkPolicies of the namespace in the same input. A cluster may have more.
	NetworkPolicies []networkingv1.NetworkPolicy
	// NamespaceLabels are nil where the input does not hold the namespace.
	NamespaceLabels map[string]string
	// Policies that select the namespace, sorted by name.
	Policies []v1alpha1.MCPPolicy
	// Exemptions that the workload declares, with their reasons.
	Exemptions map[v1alpha1.ControlID]string
}

// EvaluateWorkload judges a workload by every control that applies to workloads.
func EvaluateWorkload(w *Workload) Report {
	var out Report
	for i := range catalogue {
		c := &catalogue[i]
		if !c.OfWorkloads() {
			continue
		}
		found := c.workload(w)
		result := Result{Control: c, Violations: found.Violations, Demanded: slices.ContainsFunc(found.Violations, func(v Violation) bool { return v.Policy != "" })}
		_, exempt := w.Exemptions[c.ID]
		switch {
		case len(found.Violations) > 0 && exempt && !result.Demanded: // what an admin demands, no manifest excuses itself from
			result.Result, result.Message = v1alpha1.ControlExempted, messageOf(found.Violations)
		case len(found.Violations) > 0:
			result.Result, result.Message = v1alpha1.ControlFail, messageOf(found.Violations)
		case found.Unknown != "":
			result.Result, result.Message, result.Demanded = v1alpha1.ControlUnknown, found.Unknown, found.Demanded
		case found.NotApplicable:
			continue
		default:
			result.Result = v1alpha1.ControlPass
		}
		for j := range result.Violations {
			if !c.saysFix {
				result.Violations[j].Message += ". " + c.Fix
			}
		}
		out.Results = append(out.Results, result)
	}
	return out
}

// field of the template, by that of a pod.
func (w *Workload) field(part string) string {
	if w.Path == "" {
		return part
	}
	return w.Path + "." + part
}

// workload looks at the template.
func (check podCheck) workload(w *Workload) Outcome {
	var out Outcome
	check(w.Template, func(field, said string) { out.blame(w.field(field), "%s", strings.TrimLeft(said, ":, ")) })
	return out
}

// eachPolicy asks every policy that selects the namespace.
func (w *Workload) eachPolicy(ask func(*v1alpha1.MCPPolicySpec) ([]Violation, bool)) Outcome {
	return eachPolicy(&Input{Policies: w.Policies}, ask)
}

func userNamespaceDemanded(w *Workload) Outcome {
	return w.eachPolicy(func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
		wrong := unless(isFalse(w.Template.Spec.HostUsers), "does not run in a user namespace, which pods.requireUserNamespace demands")
		demands := p.Pods != nil && p.Pods.RequireUserNamespace
		return violation(w.field("spec.hostUsers"), unless(!demands, wrong)), demands
	})
}

func runtimeClassAllowed(w *Workload) Outcome {
	name := ""
	if w.Template.Spec.RuntimeClassName != nil {
		name = *w.Template.Spec.RuntimeClassName
	}
	return w.eachPolicy(func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
		return violation(w.field("spec.runtimeClassName"), runtimeClassProblem(p, name)), p.Pods != nil && len(p.Pods.AllowedRuntimeClassNames) > 0
	})
}

// limitsWithinPolicy is about every container: which one serves nobody can tell.
func limitsWithinPolicy(w *Workload) Outcome {
	return w.eachPolicy(func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
		var out Outcome
		for _, c := range containersOf(w.Template) {
			limits := c.Resources.Limits
			for _, r := range exceeding(p, limits.Cpu(), limits.Memory(), limits.StorageEphemeral()) {
				out.blame(w.field(c.field("resources.limits."+r.name)), "%s: %s is more than pods.maxResources allows (%s), or no limit", &c, r.have, r.most)
			}
		}
		return out.Violations, p.Pods != nil && p.Pods.MaxResources != nil
	})
}

// templateImages asks of the image of every container what is asked of a server's.
func templateImages(ask func(*Input) Outcome) func(*Workload) Outcome {
	return func(w *Workload) Outcome {
		out := Outcome{NotApplicable: true}
		for _, c := range containersOf(w.Template) {
			found := ask(&Input{Policies: w.Policies, Server: &v1alpha1.MCPServer{Spec: v1alpha1.MCPServerSpec{Image: c.Image}}})
			out.NotApplicable, out.Demanded = out.NotApplicable && found.NotApplicable, out.Demanded || found.Demanded
			for _, v := range found.Violations {
				v.Field, v.Message = w.field(c.field("image")), c.String()+": "+v.Message
				out.Violations = append(out.Violations, v)
			}
		}
		return out
	}
}

// noLiteralInTemplate looks for credentials as in a server's spec.
func noLiteralInTemplate(w *Workload) Outcome {
	var out Outcome
	for _, c := range containersOf(w.Template) {
		spec := v1alpha1.MCPServerSpec{Command: c.Command, Args: c.Args}
		for i := range c.Env {
			spec.Env = append(spec.Env, v1alpha1.EnvVar{Name: c.Env[i].Name, Value: &c.Env[i].Value})
		}
		found := noLiteralCredential(&Input{Literals: credentials.Find(&spec)})
		for _, v := range found.Violations {
			v.Field = w.field(c.field(strings.TrimPrefix(v.Field, "spec.")))
			out.Violations = append(out.Violations, v)
		}
		if found.Unknown != "" {
			out.unsure("%s: %s", &c, found.Unknown)
		}
	}
	return out
}

func templateUnderPodSecurity(w *Workload) Outcome {
	if w.NamespaceLabels == nil {
		return Outcome{Unknown: "the input does not hold Namespace " + w.Namespace}
	}
	return podSecurityEnforced(nil, &Live{NamespaceLabels: Seen[map[string]string]{Value: w.NamespaceLabels}})
}

func templateInOwnNamespace(w *Workload) Outcome {
	wrong := unless(!slices.Contains(sharedNamespaces, w.Namespace), "is there in every cluster and nobody's own: choose another")
	return Outcome{Violations: violation("metadata.namespace", wrong)}
}

// selectingPolicies are the NetworkPolicies of the input that select the template's pods. What cannot be told goes into the outcome.
func (w *Workload) selectingPolicies(out *Outcome) []selecting {
	if len(w.NetworkPolicies) == 0 {
		out.unsure("the input holds no NetworkPolicy of namespace %s", w.Namespace)
	}
	policies := policiesOf(&Live{NetworkPolicies: Seen[[]networkingv1.NetworkPolicy]{Value: w.NetworkPolicies}}, out)
	return slices.DeleteFunc(policies, func(p selecting) bool { return !p.selects(w.Template) })
}

// templateClosed is decided by the policies of the input: no other opens what they close by themselves, but may open more.
func templateClosed(w *Workload) Outcome {
	var out Outcome
	if w.Template.Spec.HostNetwork {
		out.blame(w.field("spec.hostNetwork"), "no NetworkPolicy applies in the network of the node")
		return out
	}
	policies := w.selectingPolicies(&out)
	if out.Unknown != "" {
		return out
	}
	for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
		if !slices.ContainsFunc(policies, func(p selecting) bool { return closes(p.NetworkPolicy, direction) }) {
			out.blame(w.field("metadata.labels"), "no NetworkPolicy of the input selects the pods for %s", strings.ToLower(string(direction)))
		}
	}
	return out
}

// eachEgressPolicy looks at the policies that restrict the pods' way out. Where none does nothing is opened by a rule, and nothing
// passes either.
func (w *Workload) eachEgressPolicy(look func(out *Outcome, policy *networkingv1.NetworkPolicy)) Outcome {
	var out Outcome
	closed := false
	for _, p := range w.selectingPolicies(&out) {
		if closes(p.NetworkPolicy, networkingv1.PolicyTypeEgress) {
			closed = true
			look(&out, p.NetworkPolicy)
		}
	}
	if !closed {
		out.unsure("no NetworkPolicy of the input restricts egress (NET-01)")
	}
	return out
}

func templateReachesNoMetadata(w *Workload) Outcome {
	return w.eachEgressPolicy(func(out *Outcome, policy *networkingv1.NetworkPolicy) {
		if found, opens := opensForbidden(policy, plan.NeverReachable()); opens {
			out.blame(w.field("metadata.labels"), "NetworkPolicy %s opens %s, metadata or link-local addresses with it", policy.Name, found)
		}
	})
}

func templateReachesNoWideRange(w *Workload) Outcome {
	return w.eachPeer(func(out *Outcome, policy string, peer *networkingv1.NetworkPolicyPeer) {
		switch {
		case peer == nil:
			out.blame(w.field("metadata.labels"), "NetworkPolicy %s opens every address (a rule without peers)", policy)
		case peer.IPBlock != nil:
			cidr, err := netip.ParsePrefix(peer.IPBlock.CIDR)
			widest := widestV6
			if err == nil && cidr.Addr().Is4() {
				widest = widestV4
			}
			if err != nil || cidr.Bits() < widest {
				out.blame(w.field("metadata.labels"), "NetworkPolicy %s opens %s, which is wider than /%d", policy, peer.IPBlock.CIDR, widest)
			}
		}
	})
}

func templateUsesClusterDNS(w *Workload) Outcome {
	return w.eachEgressPolicy(func(out *Outcome, policy *networkingv1.NetworkPolicy) {
		if slices.ContainsFunc(policy.Spec.Egress, opensDNSByAddress) {
			out.blame(w.field("metadata.labels"), "NetworkPolicy %s opens DNS to addresses outside the cluster", policy.Name)
		}
	})
}

// templateReachesNotEveryPod leaves rules without peers to NET-07.
func templateReachesNotEveryPod(w *Workload) Outcome {
	return w.eachPeer(func(out *Outcome, policy string, peer *networkingv1.NetworkPolicyPeer) {
		if peer == nil || peer.NamespaceSelector == nil {
			return
		}
		every := func(labels map[string]string, expressions int) bool { return len(labels) == 0 && expressions == 0 }
		if every(peer.NamespaceSelector.MatchLabels, len(peer.NamespaceSelector.MatchExpressions)) &&
			(peer.PodSelector == nil || every(peer.PodSelector.MatchLabels, len(peer.PodSelector.MatchExpressions))) {
			out.blame(w.field("metadata.labels"), "NetworkPolicy %s opens every pod of the cluster", policy)
		}
	})
}

// eachPeer looks at the peers of egress rules; nil stands for everything.
func (w *Workload) eachPeer(look func(out *Outcome, policy string, peer *networkingv1.NetworkPolicyPeer)) Outcome {
	return w.eachEgressPolicy(func(out *Outcome, policy *networkingv1.NetworkPolicy) {
		for i := range policy.Spec.Egress {
			rule := &policy.Spec.Egress[i]
			if len(rule.To) == 0 {
				look(out, policy.Name, nil)
			}
			for j := range rule.To {
				look(out, policy.Name, &rule.To[j])
			}
		}
	})
}

// ExemptionProblem says why a workload cannot be exempted from a control for a reason; empty where it can.
func ExemptionProblem(id v1alpha1.ControlID, reason string) string {
	at := slices.IndexFunc(catalogue, func(c Control) bool { return c.ID == id })
	switch {
	case at < 0 || !catalogue[at].OfWorkloads():
		return fmt.Sprintf("%s is no control of workloads: see docs/controls.md", id)
	case strings.TrimSpace(reason) == "":
		return "an exemption needs a reason"
	}
	return ""
}
