package plan

import (
	corev1 "k8s.io/api/core/v1"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// schedule puts the scheduling of the spec into the pod, and spreads the pods where it says nothing.
func (b builder) schedule(pod *accorev1.PodSpecApplyConfiguration) {
	scheduling := b.server.Spec.Scheduling
	if scheduling == nil {
		scheduling = &v1alpha1.Scheduling{}
	}
	selector := make(map[string]string, len(scheduling.NodeSelector))
	for key, value := range scheduling.NodeSelector {
		selector[key] = string(value)
	}
	pod.WithNodeSelector(selector)
	for i := range scheduling.Tolerations {
		pod.WithTolerations(convert[accorev1.TolerationApplyConfiguration](&scheduling.Tolerations[i]))
	}
	if scheduling.Affinity != nil {
		pod.WithAffinity(convert[accorev1.AffinityApplyConfiguration](scheduling.Affinity))
	}
	for _, constraint := range spreadConstraints(scheduling) {
		pod.WithTopologySpreadConstraints(accorev1.TopologySpreadConstraint().
			WithMaxSkew(constraint.MaxSkew).
			WithTopologyKey(string(constraint.TopologyKey)).
			WithWhenUnsatisfiable(corev1.UnsatisfiableConstraintAction(constraint.WhenUnsatisfiable)).
			WithLabelSelector(b.selector()))
	}
	if scheduling.PriorityClassName != "" {
		pod.WithPriorityClassName(string(scheduling.PriorityClassName))
	}
	if scheduling.RuntimeClassName != "" {
		pod.WithRuntimeClassName(string(scheduling.RuntimeClassName))
	}
}

// spreadConstraints of the spec, or a spread over nodes and zones that holds no pod back.
func spreadConstraints(scheduling *v1alpha1.Scheduling) []v1alpha1.TopologySpreadConstraint {
	if len(scheduling.TopologySpreadConstraints) > 0 {
		return scheduling.TopologySpreadConstraints
	}
	spread := func(key v1alpha1.LabelKey) v1alpha1.TopologySpreadConstraint {
		return v1alpha1.TopologySpreadConstraint{MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: string(corev1.ScheduleAnyway)}
	}
	return []v1alpha1.TopologySpreadConstraint{spread(corev1.LabelHostname), spread(corev1.LabelTopologyZone)}
}
