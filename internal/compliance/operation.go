package compliance

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// labelEnforce of a namespace is the Pod Security Standard that its pods must meet to be admitted.
const labelEnforce = "pod-security.kubernetes.io/enforce"

// sharedNamespaces are there in every cluster and belong to nobody in particular.
var sharedNamespaces = []string{"default", "kube-system", "kube-public", "kube-node-lease"}

// operationControls are about what is done with the server and around it.
var operationControls = []Control{
	{
		ID: "OPS-01", Title: "A server in quarantine is cut off", Severity: v1alpha1.SeverityCritical, Reads: "spec.desiredState; plan; live pods; NetworkPolicies; drift; the proof of isolation",
		Rationale:  "Who puts a server into quarantine suspects it: whatever is still open, an intruder uses.",
		Remedy:     "Delete the policies that open something to its pods, and use a CNI that enforces NetworkPolicies.",
		References: []string{"CoSAI MCP-T8", "CoSAI MCP-T12", "NSA/CISA: network policies"},
		declared:   quarantinePlanned,
		live:       quarantineHonoured,
	},
	{
		ID: "OPS-02", Title: "A server that is stopped runs nothing", Severity: v1alpha1.SeverityMedium, Reads: "spec.desiredState; live pods; Deployment",
		Rationale:  "A server that goes on running after it was stopped is one that nobody watches.",
		Remedy:     "See which autoscaler, or who else, scales the Deployment.",
		References: []string{"OWASP MCP09:2025", "CoSAI MCP-T11"},
		declared: func(in *Input) Outcome {
			return Outcome{NotApplicable: in.Server.Spec.DesiredState != v1alpha1.StateStopped}
		},
		live: stopHonoured,
	},
	{
		ID: "OPS-03", Title: "The namespace enforces a Pod Security Standard", Severity: v1alpha1.SeverityMedium, Reads: "the namespace's labels",
		Rationale:  "Beside a hardened server anybody with rights on pods could run a privileged one in the same namespace, and read its Secrets.",
		Remedy:     "Label the namespace with " + labelEnforce + "=restricted (baseline at least).",
		Fix:        "Label the namespace with pod-security.kubernetes.io/enforce=restricted (baseline at least).",
		References: []string{"PSS baseline", "PSS restricted", "CIS Kubernetes 5.2.1", "NSA/CISA: Pod security enforcement"},
		live:       podSecurityEnforced,
		workload:   templateUnderPodSecurity,
		saysFix:    true,
	},
	{
		ID: "OPS-04", Title: "The exemptions are valid", Severity: v1alpha1.SeverityLow, Reads: "policies",
		Rationale:  "Exemptions that ended, or that name no control, hide what is in force and what is not.",
		Remedy:     "Take the exemption out of the policy, or renew it for a reason.",
		References: []string{"OWASP MCP08:2025", "CoSAI MCP-T12"},
		declared:   exemptionsValid,
	},
	{
		ID: "OPS-05", Title: "The managed objects are as planned", Severity: v1alpha1.SeverityHigh, Reads: "plan; drift",
		Rationale:  "What somebody changes behind the operator is not under its control: an attacker's way around every other control.",
		Remedy:     "See who may write to the operator's objects, and what refuses its own writes.",
		References: []string{"OWASP MCP09:2025", "CoSAI MCP-T6", "CoSAI MCP-T11"},
		live: func(in *Input, live *Live) Outcome {
			return noDrift(in, live, func(kind string) bool { return kind != "NetworkPolicy" && kind != "Secret" })
		},
	},
	{
		ID: "OPS-06", Title: "Health and logs can be read", Severity: v1alpha1.SeverityLow, Reads: "live pods",
		Rationale:  "A server that nobody can look into is one whose misuse nobody notices.",
		Remedy:     "See that the pod has its readiness probe, and that the kubelet of its node answers.",
		References: []string{"OWASP MCP08:2025", "CoSAI MCP-T12", "NSA/CISA: audit logging and threat detection"},
		live: func(in *Input, live *Live) Outcome {
			return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
				if serverContainer(&pod.Spec).ReadinessProbe == nil {
					out.fail("pod %s has no readiness probe: %s", pod.Name, replacePod)
				}
				if pod.Status.Phase == corev1.PodUnknown || pod.Status.Reason == "NodeLost" {
					out.fail("nothing is heard of pod %s: see the kubelet of node %s", pod.Name, pod.Spec.NodeName)
				}
			})
		},
	},
	{
		ID: "OPS-07", Title: "The server has a namespace that is not everybody's", Severity: v1alpha1.SeverityLow, Reads: "metadata.namespace",
		Rationale:  "In a namespace that everybody uses nobody can say who may read the server's Secrets.",
		Remedy:     "Move the server to a namespace of its team.",
		Fix:        "Move the workload to a namespace of its own.",
		References: []string{"CIS Kubernetes 5.7.1", "CIS Kubernetes 5.7.4", "NSA/CISA: namespaces"},
		declared: func(in *Input) Outcome {
			wrong := unless(!slices.Contains(sharedNamespaces, in.Server.Namespace), "is there in every cluster and nobody's own: choose another")
			return Outcome{Violations: violation("metadata.namespace", wrong)}
		},
		workload: templateInOwnNamespace,
		saysFix:  true,
	},
}

// quarantinePlanned is how the plan of a suspect must look.
func quarantinePlanned(in *Input) Outcome {
	if in.Server.Spec.DesiredState != v1alpha1.StateQuarantined {
		return Outcome{NotApplicable: true}
	}
	var out Outcome
	policy := plannedPolicy(in)
	switch {
	case policy == nil:
		out.unsure("nothing is planned")
	case opensIngress(policy) || opensEgress(policy) || in.Plan.Endpoint != "":
		out.fail("the plan opens something: this is a fault of the operator's")
	}
	return out
}

// quarantineHonoured wants nothing open by any policy, and what policies close to be closed.
func quarantineHonoured(in *Input, live *Live) Outcome {
	out := eachPolicyOfPods(in, live, func(out *Outcome, policy *networkingv1.NetworkPolicy, pod *corev1.Pod) {
		if !isOurs(in, policy) && (opensIngress(policy) || opensEgress(policy)) {
			out.fail("NetworkPolicy %s opens pod %s, which is in quarantine: delete it, or narrow its podSelector", policy.Name, pod.Name)
		}
	})
	for _, part := range []Outcome{
		closedBothWays(in, live), noOtherPolicyOpens(in, live), isolationForQuarantine(live),
		noDrift(in, live, func(kind string) bool { return kind == "NetworkPolicy" || kind == "Deployment" }),
	} {
		out.Violations = append(out.Violations, part.Violations...)
		if part.Unknown != "" {
			out.unsure("%s", part.Unknown)
		}
	}
	return out
}

// isolationForQuarantine does not count a proof that is merely missing where no pod runs.
func isolationForQuarantine(live *Live) Outcome {
	out := isolationProven(nil, live)
	if live.Isolation != nil && live.Isolation.Result != probe.NotEnforced && live.Pods.Unknown == "" && len(running(live)) == 0 {
		return Outcome{}
	}
	return out
}

func stopHonoured(_ *Input, live *Live) Outcome {
	var out Outcome
	switch {
	case live.Pods.Unknown != "":
		out.unsure("the pods cannot be looked at: %s", live.Pods.Unknown)
		return out
	case live.Deployment != nil && (live.Deployment.Spec.Replicas == nil || *live.Deployment.Spec.Replicas > 0):
		out.fail("the Deployment asks for pods: see who scales it")
	}
	for _, pod := range running(live) {
		out.unsure("pod %s has not ended yet", pod.Name)
	}
	return out
}

func podSecurityEnforced(_ *Input, live *Live) Outcome {
	var out Outcome
	if live.NamespaceLabels.Unknown != "" {
		out.unsure("the namespace cannot be looked at: %s", live.NamespaceLabels.Unknown)
		return out
	}
	switch level := live.NamespaceLabels.Value[labelEnforce]; level {
	case "restricted", "baseline":
	default:
		out.fail("the namespace enforces no Pod Security Standard (label %s is %q): set it to restricted", labelEnforce, level)
	}
	return out
}

// exemptionsValid looks at those of the server. One that ended is no violation of the policy's: the control that it was
// about is judged as ever.
func exemptionsValid(in *Input) Outcome {
	out := Outcome{NotApplicable: in.PoliciesUnknown == "", Unknown: in.PoliciesUnknown}
	for i := range in.Policies {
		for _, e := range in.Policies[i].Spec.Exemptions {
			if !covers(&e, in) {
				continue
			}
			out.NotApplicable = false
			if !in.Now.Before(e.ExpiresAt.Time) {
				out.fail("an exemption of policy %s ended at %s: take it out, or renew it", in.Policies[i].Name, e.ExpiresAt.UTC().Format(time.RFC3339))
			}
			for _, id := range e.Controls {
				if !slices.ContainsFunc(Catalogue(), func(c Control) bool { return c.ID == id }) {
					out.fail("an exemption of policy %s names %s, which is no control: see kubectl warden explain", in.Policies[i].Name, id)
				}
			}
		}
	}
	return out
}
