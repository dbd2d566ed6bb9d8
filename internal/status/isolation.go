package status

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// isolationStatus is how each result shows in the condition.
var isolationStatus = map[probe.Result]verdict{
	probe.Proven:      {status: metav1.ConditionTrue, reason: v1alpha1.ReasonProven},
	probe.NotEnforced: {status: metav1.ConditionFalse, reason: v1alpha1.ReasonNotEnforced},
	probe.Unknown:     {status: metav1.ConditionUnknown, reason: v1alpha1.ReasonNotProven},
}

// setIsolation tells what is known of the server's isolation, whatever else is wrong with it.
func setIsolation(out *v1alpha1.MCPServerStatus, in Input) {
	if in.Isolation == nil {
		return
	}
	network := v1alpha1.NetworkStatus{}
	if out.Network != nil {
		network = *out.Network
	}
	network.Proof = v1alpha1.NetworkProof(in.Isolation.Result)
	network.NodesProven, network.NodesTotal = int32(in.Isolation.NodesProven), int32(in.Isolation.NodesTotal)
	if in.Problem == nil {
		network.ProbeImage = in.Plan.ProbeImage
	}
	out.Network = &network
	v := isolationStatus[in.Isolation.Result]
	v.message = in.Isolation.Message
	set(out, in, v1alpha1.ConditionNetworkPolicyEnforced, v)
}

// isolationEvent tells of a proof that came or went. That there is none yet is no event.
func isolationEvent(old, now *v1alpha1.MCPServerStatus) []Event {
	c, turned := turnedTo(old, now, v1alpha1.ConditionNetworkPolicyEnforced)
	switch {
	case !turned:
		return nil
	case c.Status == metav1.ConditionTrue:
		return []Event{{corev1.EventTypeNormal, c.Reason, "Probe", c.Message}}
	case c.Status == metav1.ConditionFalse, old.Network != nil:
		return []Event{{corev1.EventTypeWarning, c.Reason, "Probe", c.Message}}
	}
	return nil
}
