package plan

import (
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	acpolicyv1 "k8s.io/client-go/applyconfigurations/policy/v1"
)

// wantsDisruptionBudget where more than one pod runs, whoever decided on their number.
func (b builder) wantsDisruptionBudget() bool {
	if replicas := b.replicas(); replicas != nil {
		return *replicas > 1
	}
	return b.facts.Live != nil && b.facts.Live.Replicas > 1
}

// podDisruptionBudget lets a drain take one pod at a time, and never lets a pod that is broken
// anyway hold a drain up.
func (b builder) podDisruptionBudget() *acpolicyv1.PodDisruptionBudgetApplyConfiguration {
	return acpolicyv1.PodDisruptionBudget(b.server.Name, b.server.Namespace).
		WithLabels(b.labels()).
		WithOwnerReferences(b.owner()).
		WithSpec(acpolicyv1.PodDisruptionBudgetSpec().
			WithMaxUnavailable(intstr.FromInt32(1)).
			WithUnhealthyPodEvictionPolicy(policyv1.AlwaysAllow).
			WithSelector(b.selector()))
}
