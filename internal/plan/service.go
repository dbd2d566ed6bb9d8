package plan

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
)

// affinitySeconds is how long a client keeps reaching the same pod, in seconds (Kubernetes' default).
const affinitySeconds = 10800

// service gives the server its name in the cluster. Clients stick to a pod, because MCP sessions
// live in the memory of the pod that began them.
func (b builder) service() *accorev1.ServiceApplyConfiguration {
	return accorev1.Service(b.server.Name, b.server.Namespace).
		WithLabels(b.labels()).
		WithOwnerReferences(b.owner()).
		WithSpec(accorev1.ServiceSpec().
			WithType(corev1.ServiceTypeClusterIP).
			WithSelector(SelectorLabels(b.server.Name)).
			WithInternalTrafficPolicy(corev1.ServiceInternalTrafficPolicyCluster).
			WithSessionAffinity(corev1.ServiceAffinityClientIP).
			WithSessionAffinityConfig(accorev1.SessionAffinityConfig().
				WithClientIP(accorev1.ClientIPConfig().WithTimeoutSeconds(affinitySeconds))).
			WithPorts(accorev1.ServicePort().
				WithName(portName).
				WithProtocol(corev1.ProtocolTCP).
				WithPort(portOf(b.server)).
				WithTargetPort(intstr.FromInt32(b.clientPort()))))
}

func endpointURL(scheme, name, namespace string, port int32, path string) string {
	return fmt.Sprintf("%s://%s.%s.svc:%d%s", scheme, name, namespace, port, path)
}
