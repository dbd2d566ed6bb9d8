package compliance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

const (
	// widestV4 and widestV6 are the prefixes, in bits, of the widest ranges that ask for no attention: what one
	// organisation is usually given at most.
	widestV4, widestV6 = 16, 32

	portDNS, portDNSOverTLS, portHTTP = 53, 853, 80
)

// networkAnnotations give a pod a network interface beside the one that NetworkPolicies cover.
var networkAnnotations = []string{"k8s.v1.cni.cncf.io/networks", "v1.multus-cni.io/default-network"}

// networkControls are about what a server may reach, and who may reach it.
var networkControls = []Control{
	{
		ID: "NET-01", Title: "Every pod is closed both ways unless a rule opens it", Severity: v1alpha1.SeverityHigh, Reads: "live pods; NetworkPolicies",
		Rationale:  "A pod that no NetworkPolicy selects reaches everything and is reached by everything.",
		Remedy:     "Put the pod's labels back, or delete it; see that " + plan.BaselineName + " is there.",
		Fix:        "Give a NetworkPolicy that selects the pods and names both Ingress and Egress in policyTypes.",
		References: []string{"OWASP MCP02:2025", "CoSAI MCP-T8", "CIS Kubernetes 5.3.2", "NSA/CISA: network policies"},
		live:       closedBothWays,
		workload:   templateClosed,
	},
	{
		ID: "NET-02", Title: "No other NetworkPolicy lets anybody in", Severity: v1alpha1.SeverityHigh, Reads: "live pods; NetworkPolicies",
		Rationale:  "NetworkPolicies add up: one more that selects the pods opens them to whom the spec does not name.",
		Remedy:     "Narrow the NetworkPolicy's podSelector, or delete it; name clients in spec.network.ingress.",
		References: []string{"OWASP MCP07:2025", "CoSAI MCP-T2", "CoSAI MCP-T8", "NSA/CISA: network policies"},
		live: func(in *Input, live *Live) Outcome {
			return eachPolicyOfPods(in, live, func(out *Outcome, policy *networkingv1.NetworkPolicy, pod *corev1.Pod) {
				if !isOurs(in, policy) && opensIngress(policy) {
					out.fail("NetworkPolicy %s opens ingress to pod %s: narrow its podSelector, and name clients in spec.network.ingress", policy.Name, pod.Name)
				}
			})
		},
	},
	{
		ID: "NET-03", Title: "No other NetworkPolicy lets the server out", Severity: v1alpha1.SeverityHigh, Reads: "live pods; NetworkPolicies",
		Rationale:  "NetworkPolicies add up: one more that selects the pods opens a way out that data and credentials can leave by.",
		Remedy:     "Narrow the NetworkPolicy's podSelector, or delete it; name targets in spec.network.egress.",
		References: []string{"OWASP MCP10:2025", "CoSAI MCP-T5", "CoSAI MCP-T8", "NSA/CISA: network policies"},
		live: func(in *Input, live *Live) Outcome {
			return eachPolicyOfPods(in, live, func(out *Outcome, policy *networkingv1.NetworkPolicy, pod *corev1.Pod) {
				if !isOurs(in, policy) && opensEgress(policy) {
					out.fail("NetworkPolicy %s opens egress from pod %s: narrow its podSelector, and name targets in spec.network.egress", policy.Name, pod.Name)
				}
			})
		},
	},
	{
		ID: "NET-04", Title: "No network policy of another kind opens anything", Severity: v1alpha1.SeverityHigh, Reads: "live pods; network policies of other kinds",
		Rationale:  "What a CNI's own policies allow is allowed, whatever NetworkPolicies say.",
		Remedy:     "Narrow the policy's selector, or delete it.",
		References: []string{"OWASP MCP07:2025", "CoSAI MCP-T8", "NSA/CISA: network policies"},
		live:       noOtherPolicyOpens,
	},
	{
		ID: "NET-05", Title: "The server's NetworkPolicies are as planned", Severity: v1alpha1.SeverityHigh, Reads: "plan; drift",
		Rationale:  "They are what isolates the server; who may edit them may open it.",
		Remedy:     "See who may write NetworkPolicies in the namespace; the operator puts its own right.",
		References: []string{"CoSAI MCP-T6", "CoSAI MCP-T8", "CIS Kubernetes 5.3.2"},
		live:       func(in *Input, live *Live) Outcome { return noDrift(in, live, isNetworkPolicy) },
	},
	{
		ID: "NET-06", Title: "No metadata, link-local or loopback address can be reached", Severity: v1alpha1.SeverityCritical, Reads: "plan; live pods; NetworkPolicies",
		Rationale:  "A cloud's metadata service hands the node's credentials to whoever asks.",
		Remedy:     "Except 169.254.0.0/16 and the cloud's other metadata addresses from the NetworkPolicy, or delete it.",
		Fix:        "Name peers, and except 169.254.0.0/16 and the clouds' other metadata addresses.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T8", "NSA/CISA: protecting sensitive cloud infrastructure"},
		declared:   planOpensNoMetadata,
		live: func(in *Input, live *Live) Outcome {
			return eachPolicyOfPods(in, live, func(out *Outcome, policy *networkingv1.NetworkPolicy, pod *corev1.Pod) {
				if found, opens := opensForbidden(policy, plan.NeverReachable()); opens && closes(policy, networkingv1.PolicyTypeEgress) {
					out.fail("NetworkPolicy %s opens %s to pod %s, metadata or link-local addresses with it: except them, or delete it", policy.Name, found, pod.Name)
				}
			})
		},
		workload: templateReachesNoMetadata,
	},
	{
		ID: "NET-07", Title: "No egress rule opens a wide address range", Severity: v1alpha1.SeverityMedium, Reads: "spec.network.egress",
		Rationale:  fmt.Sprintf("A range wider than /%d (IPv4) or /%d (IPv6) holds addresses of many owners: one of them is the attacker's.", widestV4, widestV6),
		Remedy:     "Name the hosts with to.host, or the ranges that the service publishes.",
		Fix:        "Name peers, or narrower ranges.",
		References: []string{"OWASP MCP10:2025", "CoSAI MCP-T8", "NSA/CISA: network policies"},
		declared:   noWideRange,
		workload:   templateReachesNoWideRange,
	},
	{
		ID: "NET-08", Title: "DNS goes to the cluster's resolver alone", Severity: v1alpha1.SeverityMedium, Reads: "spec.network.egress; live pods; NetworkPolicies",
		Rationale:  "Queries to a resolver of the attacker's choice carry data out past every other rule.",
		Remedy:     "Take ports 53 and 853 out of cidr and pods rules: DNS is opened by itself where a rule needs it.",
		Fix:        "Open ports 53 and 853 to the pods of the cluster's resolver alone.",
		References: []string{"OWASP MCP10:2025", "CoSAI MCP-T5", "CoSAI MCP-T8"},
		declared:   noForeignResolver,
		live: func(in *Input, live *Live) Outcome {
			return eachPolicyOfPods(in, live, func(out *Outcome, policy *networkingv1.NetworkPolicy, pod *corev1.Pod) {
				if !isOurs(in, policy) && opensEgress(policy) && slices.ContainsFunc(policy.Spec.Egress, opensDNSByAddress) {
					out.fail("NetworkPolicy %s opens DNS to addresses outside the cluster from pod %s: open it to the cluster's resolver alone", policy.Name, pod.Name)
				}
			})
		},
		workload: templateUsesClusterDNS,
	},
	{
		ID: "NET-09", Title: "The enforcement of NetworkPolicies is proven", Severity: v1alpha1.SeverityHigh, Reads: "the proof of isolation",
		Rationale:  "Kubernetes does not say whether a CNI enforces NetworkPolicies; where it does not, none of them isolates anything.",
		Remedy:     "Install a CNI that enforces NetworkPolicies, and see condition NetworkPolicyEnforced for what the proof lacks.",
		References: []string{"CoSAI MCP-T8", "CIS Kubernetes 5.3.1", "NSA/CISA: network policies"},
		live:       isolationProven,
	},
	{
		ID: "NET-10", Title: "The hosts that rules open are ones that policy allows", Severity: v1alpha1.SeverityHigh, Reads: "spec.network.egress; policies", Enforced: true,
		Rationale:  "Every host that can be reached is one that data can be sent to.",
		Remedy:     "Take the host out of spec.network.egress, or have it added to egress.allowedHosts.",
		References: []string{"OWASP MCP10:2025", "CoSAI MCP-T8"},
		declared:   hostsAllowed,
	},
	{
		ID: "NET-11", Title: "No rule opens addresses that policy denies", Severity: v1alpha1.SeverityHigh, Reads: "spec.network.egress; policies", Enforced: true,
		Rationale:  "Ranges that an admin denies hold what an MCP server must never reach, such as the company's own network.",
		Remedy:     "Narrow the cidr so that it does not overlap egress.deniedCIDRs.",
		References: []string{"CoSAI MCP-T8", "NSA/CISA: network policies"},
		declared:   deniedRangesClosed,
	},
	{
		ID: "NET-12", Title: "The ports that rules open are ones that policy allows", Severity: v1alpha1.SeverityMedium, Reads: "spec.network.egress; policies", Enforced: true,
		Rationale:  "Ports beside those that are needed lead to other services of the same host.",
		Remedy:     "Take the port out of the rule, or have it added to egress.allowedPorts.",
		References: []string{"CoSAI MCP-T8", "NSA/CISA: network policies"},
		declared:   portsAllowed,
	},
	{
		ID: "NET-13", Title: "A proof of isolation is required where policy demands it", Severity: v1alpha1.SeverityHigh, Reads: "spec.network.enforcement; policies", Enforced: true,
		Rationale:  "A server that starts before its isolation is proven may run unprotected for as long as nobody looks.",
		Remedy:     "Set spec.network.enforcement to Require.",
		References: []string{"CoSAI MCP-T8", "CIS Kubernetes 5.3.1"},
		declared: func(in *Input) Outcome {
			return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
				if p.Egress == nil || !p.Egress.RequireProof {
					return nil, false
				}
				return violation("spec.network.enforcement", unless(plan.RequiresProof(in.Server), "must be Require, as egress.requireProof demands")), true
			})
		},
	},
	{
		ID: "NET-14", Title: "The pods have no second network", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "NetworkPolicies cover a pod's first network interface; what comes and goes by another is not restricted.",
		Remedy:     remedyPod,
		Fix:        "Take the annotation off the pod template.",
		References: []string{"CoSAI MCP-T8", "NSA/CISA: network policies"},
		pod: func(pod *corev1.Pod, report reportFunc) {
			for _, key := range networkAnnotations {
				if _, has := pod.Annotations[key]; has {
					report("metadata.annotations["+key+"]", " is given another network by its annotation "+key)
				}
			}
		},
	},
	{
		ID: "NET-15", Title: "No rule lets connections hide the name they ask for", Severity: v1alpha1.SeverityMedium, Reads: "spec.network.egress",
		Rationale:  "Behind an encrypted client hello a connection to an allowed host may be one to another that the same address serves.",
		Remedy:     "Take encryptedClientHello out of the rule, unless a client cannot do without.",
		References: []string{"OWASP MCP10:2025", "CoSAI MCP-T7"},
		declared: func(in *Input) Outcome {
			return eachRule(in, func(out *Outcome, field string, rule *v1alpha1.EgressRule) {
				if rule.EncryptedClientHello == v1alpha1.EncryptedClientHelloAllow {
					out.blame(field+".encryptedClientHello", "lets connections hide which host they are for: leave it out")
				}
			})
		},
	},
	{
		ID: "NET-16", Title: "What leaves the cluster is encrypted", Severity: v1alpha1.SeverityLow, Reads: "spec.network.egress",
		Rationale:  "Over plain HTTP credentials and answers can be read and changed by everybody on the way.",
		Remedy:     "Use the service's TLS port, and take port 80 out of host and cidr rules.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T7"},
		declared: func(in *Input) Outcome {
			return eachRule(in, func(out *Outcome, field string, rule *v1alpha1.EgressRule) {
				if (rule.To.Host != "" || rule.To.CIDR != "") && slices.Contains(rule.Ports, portHTTP) {
					out.blame(field+".ports", "opens port 80, on which nothing is encrypted: use 443")
				}
			})
		},
	},
	{
		ID: "NET-17", Title: "No egress rule opens every pod of the cluster", Severity: v1alpha1.SeverityMedium, Reads: "spec.network.egress",
		Rationale:  "From a server that reaches every pod an attacker goes on to any of them.",
		Remedy:     "Name the namespace and the pods by their labels.",
		Fix:        "Name the namespace and the pods by their labels.",
		References: []string{"OWASP MCP02:2025", "CoSAI MCP-T8", "NSA/CISA: network policies"},
		declared: func(in *Input) Outcome {
			return eachRule(in, func(out *Outcome, field string, rule *v1alpha1.EgressRule) {
				if rule.To.Pods != nil && isEveryPod(rule.To.Pods) {
					out.blame(field+".to.pods", "selects every pod of the cluster: name the namespace and the pods")
				}
			})
		},
		workload: templateReachesNotEveryPod,
	},
}

// closedBothWays wants every pod to be selected for both directions, by whichever policies.
func closedBothWays(in *Input, live *Live) Outcome {
	var unread Outcome
	policies := policiesOf(live, &unread)
	out := eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
			isClosed := slices.ContainsFunc(policies, func(p selecting) bool { return closes(p.NetworkPolicy, direction) && p.selects(pod) })
			if !isClosed && unread.Unknown == "" {
				out.fail("pod %s is selected by no NetworkPolicy for %s: put its labels back, or delete it", pod.Name, strings.ToLower(string(direction)))
			}
		}
	})
	if unread.Unknown != "" {
		out.unsure("%s", unread.Unknown)
	}
	return out
}

func noOtherPolicyOpens(in *Input, live *Live) Outcome {
	out := eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		for _, policy := range live.OtherPolicies.Value {
			switch {
			case !policy.OpensIngress && !policy.OpensEgress:
			case policy.Selects == nil:
				out.unsure("it cannot be told what %s %s selects", policy.Kind, policy.Name)
			case policy.Selects(pod.Labels):
				out.fail("%s %s opens the network of pod %s: narrow its selector, or delete it", policy.Kind, policy.Name, pod.Name)
			}
		}
	})
	if live.OtherPolicies.Unknown != "" {
		out.unsure("network policies of other kinds cannot be looked at: %s", live.OtherPolicies.Unknown)
	}
	return out
}

func isNetworkPolicy(kind string) bool { return kind == "NetworkPolicy" }

// noDrift names the objects of some kinds that are not as planned.
func noDrift(in *Input, live *Live, isMeant func(kind string) bool) Outcome {
	var out Outcome
	if in.Plan == nil {
		out.unsure("the spec cannot be met, so that nothing is planned")
	}
	for i := range live.Repairs {
		if d := &live.Repairs[i]; isMeant(d.Kind) && d.Shown(in.Now) {
			out.fail("%s %s was %s, and the operator put it right a moment ago: see who may write to it", d.Kind, d.Name, d.how())
		}
	}
	if live.Drift.Unknown != "" {
		out.unsure("it cannot be told whether objects are as planned: %s", live.Drift.Unknown)
		return out
	}
	for _, d := range live.Drift.Value {
		switch {
		case !isMeant(d.Kind):
		case d.Path == "":
			out.fail("%s %s is missing: see why the operator cannot create it", d.Kind, d.Name)
		default:
			out.fail("%s %s is not as planned at %s: see who changed it, and why the operator cannot put it right", d.Kind, d.Name, d.Path)
		}
	}
	return out
}

func planOpensNoMetadata(in *Input) Outcome {
	var out Outcome
	policy := plannedPolicy(in)
	if policy == nil {
		out.unsure("the spec cannot be met, so that nothing is planned")
		return out
	}
	if found, opens := opensForbidden(policy, plan.NeverReachable()); opens {
		out.blame("spec.network.egress", "opens %s: name another range", found)
	}
	return out
}

// eachRule looks at every egress rule. Where there is none, there is nothing to look at.
func eachRule(in *Input, look func(out *Outcome, field string, rule *v1alpha1.EgressRule)) Outcome {
	var out Outcome
	if in.Server.Spec.Network == nil || len(in.Server.Spec.Network.Egress) == 0 {
		return Outcome{NotApplicable: true}
	}
	for i := range in.Server.Spec.Network.Egress {
		look(&out, fmt.Sprintf("spec.network.egress[%d]", i), &in.Server.Spec.Network.Egress[i])
	}
	return out
}

// eachPolicyRule asks of every policy that demands something and every egress rule what is wrong, and returns the part
// of the rule's field that is to blame.
func eachPolicyRule(in *Input, demands func(*v1alpha1.EgressPolicy) bool, ask func(p *v1alpha1.EgressPolicy, rule *v1alpha1.EgressRule) (part, wrong string)) Outcome {
	return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
		if p.Egress == nil || !demands(p.Egress) {
			return nil, false
		}
		out := eachRule(in, func(out *Outcome, field string, rule *v1alpha1.EgressRule) {
			if part, wrong := ask(p.Egress, rule); wrong != "" {
				out.blame(field+part, "%s", wrong)
			}
		})
		return out.Violations, true
	})
}

func noWideRange(in *Input) Outcome {
	return eachRule(in, func(out *Outcome, field string, rule *v1alpha1.EgressRule) {
		cidr, err := netip.ParsePrefix(rule.To.CIDR)
		if err != nil { // another kind of rule, or one that is refused
			return
		}
		if widest := map[bool]int{true: widestV4, false: widestV6}[cidr.Addr().Is4()]; cidr.Bits() < widest {
			out.blame(field+".to.cidr", "%s is wider than /%d: name the hosts with to.host, or narrower ranges", cidr, widest)
		}
	})
}

// noForeignResolver applies to a server without rules, too: others may open DNS to it.
func noForeignResolver(in *Input) Outcome {
	out := eachRule(in, func(out *Outcome, field string, rule *v1alpha1.EgressRule) {
		if rule.To.CIDR == "" && (rule.To.Pods == nil || !isEveryPod(rule.To.Pods)) {
			return
		}
		for _, port := range rule.Ports {
			if port == portDNS || port == portDNSOverTLS {
				out.blame(field+".ports", "opens port %d, so that names can be asked of any resolver there: leave it out", port)
			}
		}
	})
	out.NotApplicable = false
	return out
}

// opensDNSByAddress tells a rule that opens a port of DNS to a range of addresses, or to everything.
func opensDNSByAddress(rule networkingv1.NetworkPolicyEgressRule) bool {
	byAddress := len(rule.To) == 0 || slices.ContainsFunc(rule.To, func(p networkingv1.NetworkPolicyPeer) bool { return p.IPBlock != nil })
	return byAddress && (len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, isDNSPort))
}

func isDNSPort(port networkingv1.NetworkPolicyPort) bool {
	if port.Port == nil || port.Port.Type == intstr.String {
		return true // every port, or one of a name that may be any
	}
	last := port.Port.IntVal
	if port.EndPort != nil {
		last = *port.EndPort
	}
	return port.Port.IntVal <= portDNS && portDNS <= last || port.Port.IntVal <= portDNSOverTLS && portDNSOverTLS <= last
}

func isolationProven(_ *Input, live *Live) Outcome {
	var out Outcome
	switch {
	case live.Isolation == nil:
		out.unsure("it could not be found out whether NetworkPolicies are enforced")
	case live.Isolation.Result == probe.NotEnforced:
		out.fail("%s", live.Isolation.Message)
	case live.Isolation.Result != probe.Proven:
		out.unsure("%s", live.Isolation.Message)
	}
	return out
}

func hostsAllowed(in *Input) Outcome {
	return eachPolicyRule(in, func(p *v1alpha1.EgressPolicy) bool { return len(p.AllowedHosts) > 0 },
		func(p *v1alpha1.EgressPolicy, rule *v1alpha1.EgressRule) (string, string) {
			if rule.To.Host == "" || slices.ContainsFunc(p.AllowedHosts, func(allowed v1alpha1.HostPattern) bool { return covered(rule.To.Host, string(allowed)) }) {
				return "", ""
			}
			return ".to.host", rule.To.Host + " is not among egress.allowedHosts: take it out, or have it added"
		})
}

// covered tells whether everything that a host rule opens is what a pattern allows.
func covered(host, pattern string) bool {
	if host == pattern {
		return true
	}
	suffix, below := strings.CutPrefix(pattern, "*")
	return below && strings.HasSuffix(strings.TrimPrefix(host, "*"), suffix)
}

func deniedRangesClosed(in *Input) Outcome {
	return eachPolicyRule(in, func(p *v1alpha1.EgressPolicy) bool { return len(p.DeniedCIDRs) > 0 },
		func(p *v1alpha1.EgressPolicy, rule *v1alpha1.EgressRule) (string, string) {
			cidr, err := netip.ParsePrefix(rule.To.CIDR)
			if err != nil { // another kind of rule, or one that is refused
				return "", ""
			}
			for _, text := range p.DeniedCIDRs {
				denied, err := netip.ParsePrefix(string(text))
				if err != nil || denied.Overlaps(cidr) || denied.Addr().Is4() && plan.BehindNAT64(denied).Overlaps(cidr) {
					return ".to.cidr", fmt.Sprintf("%s overlaps %s of egress.deniedCIDRs: narrow it", cidr, text)
				}
			}
			return "", ""
		})
}

func portsAllowed(in *Input) Outcome {
	return eachPolicyRule(in, func(p *v1alpha1.EgressPolicy) bool { return len(p.AllowedPorts) > 0 },
		func(p *v1alpha1.EgressPolicy, rule *v1alpha1.EgressRule) (string, string) {
			for _, port := range rule.Ports {
				if !slices.Contains(p.AllowedPorts, port) {
					return ".ports", fmt.Sprintf("port %d is not among egress.allowedPorts: take it out, or have it added", port)
				}
			}
			return "", ""
		})
}

// isEveryPod tells a peer that is every pod of every namespace.
func isEveryPod(peer *v1alpha1.PodPeer) bool {
	return peer.NamespaceSelector != nil && isEmpty(peer.NamespaceSelector) && (peer.PodSelector == nil || isEmpty(peer.PodSelector))
}

func isEmpty(selector *v1alpha1.LabelSelector) bool {
	return len(selector.MatchLabels) == 0 && len(selector.MatchExpressions) == 0
}
