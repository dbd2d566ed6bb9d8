package compliance

import (
	"net/netip"
	"slices"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// selecting is a NetworkPolicy with what it selects.
type selecting struct {
	*networkingv1.NetworkPolicy
	selector labels.Selector
}

func (s selecting) selects(pod *corev1.Pod) bool { return s.selector.Matches(labels.Set(pod.Labels)) }

// policiesOf are the NetworkPolicies of the server's namespace. What cannot be told of them goes into the outcome.
func policiesOf(live *Live, out *Outcome) []selecting {
	if live.NetworkPolicies.Unknown != "" {
		out.unsure("the NetworkPolicies cannot be looked at: %s", live.NetworkPolicies.Unknown)
		return nil
	}
	var policies []selecting
	for i := range live.NetworkPolicies.Value {
		policy := &live.NetworkPolicies.Value[i]
		selector, err := selectorOf(&policy.Spec.PodSelector)
		if err != nil {
			out.unsure("it cannot be told what NetworkPolicy %s selects: %v", policy.Name, err)
			continue
		}
		policies = append(policies, selecting{policy, selector})
	}
	return policies
}

// selectorOf does not validate the labels of a selector again, which the API server has: with hundreds of policies in a
// namespace that is most of the time.
func selectorOf(selector *metav1.LabelSelector) (labels.Selector, error) {
	if len(selector.MatchExpressions) == 0 {
		return labels.Set(selector.MatchLabels).AsSelectorPreValidated(), nil
	}
	return metav1.LabelSelectorAsSelector(selector)
}

// eachPolicyOfPods looks at every NetworkPolicy that selects a pod that runs, by the labels that the pod has now, with
// the first pod that it selects.
func eachPolicyOfPods(in *Input, live *Live, look func(*Outcome, *networkingv1.NetworkPolicy, *corev1.Pod)) Outcome {
	var pods []*corev1.Pod
	out := eachPod(in, live, func(_ *Outcome, pod *corev1.Pod) { pods = append(pods, pod) })
	for _, policy := range policiesOf(live, &out) {
		if at := slices.IndexFunc(pods, policy.selects); at >= 0 {
			look(&out, policy.NetworkPolicy, pods[at])
		}
	}
	return out
}

// isOurs tells the server's own NetworkPolicy and the baseline of its namespace. What those say is compared with the
// plan (NET-05).
func isOurs(in *Input, policy *networkingv1.NetworkPolicy) bool {
	return policy.Name == in.Server.Name || policy.Name == plan.BaselineName
}

// closes tells whether a policy closes a direction for the pods that it selects. One that names no direction closes
// ingress, and egress where it has rules for that.
func closes(policy *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) bool {
	if len(policy.Spec.PolicyTypes) == 0 {
		return direction == networkingv1.PolicyTypeIngress || len(policy.Spec.Egress) > 0
	}
	return slices.Contains(policy.Spec.PolicyTypes, direction)
}

// opensIngress and opensEgress tell whether a policy opens anything.
func opensIngress(policy *networkingv1.NetworkPolicy) bool {
	return closes(policy, networkingv1.PolicyTypeIngress) && len(policy.Spec.Ingress) > 0
}

func opensEgress(policy *networkingv1.NetworkPolicy) bool {
	return closes(policy, networkingv1.PolicyTypeEgress) && len(policy.Spec.Egress) > 0
}

// plannedPolicy is the server's NetworkPolicy as the plan has it; nil without a plan.
func plannedPolicy(in *Input) *networkingv1.NetworkPolicy {
	if in.Plan == nil {
		return nil
	}
	for _, o := range in.Plan.Objects {
		if o.Kind == "NetworkPolicy" && o.Name == in.Server.Name {
			policy, _ := o.Expected(plan.NewLive(o.Kind)).(*networkingv1.NetworkPolicy)
			return policy
		}
	}
	return nil
}

// opensForbidden returns a range of some that a policy opens to pods: by a block of addresses, or by a rule that names
// no peer and so opens all.
func opensForbidden(policy *networkingv1.NetworkPolicy, forbidden []netip.Prefix) (string, bool) {
	for _, rule := range policy.Spec.Egress {
		if len(rule.To) == 0 {
			return "every address", true
		}
		for _, peer := range rule.To {
			if peer.IPBlock == nil {
				continue
			}
			if found, opens := overlap(peer.IPBlock, forbidden); opens {
				return found, true
			}
		}
	}
	return "", false
}

// overlap returns what a block of addresses shares with some ranges. A block that cannot be read shares all.
func overlap(block *networkingv1.IPBlock, forbidden []netip.Prefix) (string, bool) {
	cidr, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return block.CIDR, true
	}
	var open netipx.IPSetBuilder
	for _, net := range forbidden {
		if net.Overlaps(cidr) {
			open.AddPrefix(net)
		}
	}
	var whole netipx.IPSetBuilder
	whole.AddPrefix(cidr)
	set, err := whole.IPSet()
	if err != nil {
		return block.CIDR, true
	}
	open.Intersect(set)
	for _, text := range block.Except {
		if except, err := netip.ParsePrefix(text); err == nil { // one that cannot be read takes nothing out
			open.RemovePrefix(except)
		}
	}
	left, err := open.IPSet()
	if err != nil {
		return block.CIDR, true
	}
	if prefixes := left.Prefixes(); len(prefixes) > 0 {
		return prefixes[0].String(), true
	}
	return "", false
}
