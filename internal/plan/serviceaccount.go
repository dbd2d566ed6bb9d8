package plan

import (
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
)

// serviceAccount is an account of the server's own that nothing is bound to and whose token no pod gets.
func (b builder) serviceAccount() *accorev1.ServiceAccountApplyConfiguration {
	return accorev1.ServiceAccount(b.server.Name, b.server.Namespace).
		WithLabels(b.labels()).
		WithOwnerReferences(b.owner()).
		WithAutomountServiceAccountToken(false)
}
