package plan

import (
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	acappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	accessListFolder = "/etc/mcp-warden/egress"
	// egressDrainSeconds is how long a proxy that is to end lets open tunnels go on.
	egressDrainSeconds = 25
	// egressGraceSeconds is how long all of its end may take.
	egressGraceSeconds = farewellSeconds + egressDrainSeconds + 5
)

// deployment runs the proxy under the same hardening as a server.
func (b egressBuilder) deployment() *acappsv1.DeploymentApplyConfiguration {
	return acappsv1.Deployment(EgressProxyName, b.Namespace).
		WithLabels(egressLabels()).
		WithSpec(acappsv1.DeploymentSpec().
			WithReplicas(egressReplicas).
			WithSelector(egressSelector()).
			WithTemplate(accorev1.PodTemplateSpec().WithLabels(egressLabels()).WithSpec(b.pod())).
			WithStrategy(acappsv1.DeploymentStrategy().
				WithType(appsv1.RollingUpdateDeploymentStrategyType).
				WithRollingUpdate(acappsv1.RollingUpdateDeployment().
					WithMaxUnavailable(intstr.FromInt32(0)).
					WithMaxSurge(intstr.FromInt32(1)))).
			WithRevisionHistoryLimit(revisionHistoryLimit).
			WithProgressDeadlineSeconds(progressDeadlineSeconds))
}

// pod of the proxy. What depends on the nodes is dropped only while one says that it cannot run it: a
// node that starts must not roll every proxy.
func (b egressBuilder) pod() *accorev1.PodSpecApplyConfiguration {
	features := supported(&v1alpha1.MCPServerSpec{}, b.Facts.Nodes, true)
	pod := accorev1.PodSpec().
		WithServiceAccountName(EgressProxyName).
		WithDeprecatedServiceAccount(EgressProxyName).
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithRestartPolicy(corev1.RestartPolicyAlways).
		WithDNSPolicy(corev1.DNSClusterFirst).
		WithSchedulerName(corev1.DefaultSchedulerName).
		WithNodeSelector(map[string]string{corev1.LabelOSStable: string(corev1.Linux)}).
		WithTerminationGracePeriodSeconds(egressGraceSeconds).
		WithSecurityContext(podSecurityContext(features)).
		WithContainers(b.container()).
		WithVolumes(accorev1.Volume().WithName("access-list").WithSecret(
			accorev1.SecretVolumeSource().WithSecretName(AccessListName).WithDefaultMode(fileMode)))
	if slices.Contains(features, v1alpha1.PodFeatureUserNamespace) {
		pod.WithHostUsers(false)
	}
	for _, key := range []string{corev1.LabelHostname, corev1.LabelTopologyZone} {
		pod.WithTopologySpreadConstraints(accorev1.TopologySpreadConstraint().
			WithMaxSkew(1).
			WithTopologyKey(key).
			WithWhenUnsatisfiable(corev1.ScheduleAnyway).
			WithLabelSelector(egressSelector()))
	}
	return pod
}

func (b egressBuilder) container() *accorev1.ContainerApplyConfiguration {
	return accorev1.Container().
		WithName("proxy").
		WithImage(b.Image).
		WithImagePullPolicy(pullPolicy(b.Image)).
		WithCommand("/egress-proxy").
		WithArgs(
			"--listen=:"+strconv.Itoa(egressPort),
			"--health-listen=:"+strconv.Itoa(egressHealthPort),
			"--access-list="+accessListFolder+"/"+AccessListKey,
			"--drain="+strconv.Itoa(egressDrainSeconds)+"s").
		WithEnv(
			accorev1.EnvVar().WithName("GOMEMLIMIT").WithValue("200MiB"),
			accorev1.EnvVar().WithName("GOMAXPROCS").WithValue("1")). // Go would take two, which wake each other for every tunnel
		WithPorts(
			accorev1.ContainerPort().WithName("proxy").WithContainerPort(egressPort).WithProtocol(corev1.ProtocolTCP),
			accorev1.ContainerPort().WithName("health").WithContainerPort(egressHealthPort).WithProtocol(corev1.ProtocolTCP)).
		WithResources(accorev1.ResourceRequirements().
			WithRequests(egressResources("50m", "32Mi", "16Mi")).
			WithLimits(egressResources("1", "256Mi", "64Mi"))).
		WithVolumeMounts(accorev1.VolumeMount().WithName("access-list").WithMountPath(accessListFolder).WithReadOnly(true)).
		WithStartupProbe(healthProbe("/healthz", 1, 30)).
		WithLivenessProbe(healthProbe("/healthz", 20, 3)).
		WithReadinessProbe(healthProbe("/readyz", 2, 2)).
		WithLifecycle(accorev1.Lifecycle().WithPreStop(accorev1.LifecycleHandler().
			WithSleep(accorev1.SleepAction().WithSeconds(farewellSeconds)))).
		WithTerminationMessagePath(corev1.TerminationMessagePathDefault).
		WithTerminationMessagePolicy(corev1.TerminationMessageReadFile).
		WithSecurityContext(containerSecurityContext())
}

func egressResources(cpu, memory, storage string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse(cpu),
		corev1.ResourceMemory:           resource.MustParse(memory),
		corev1.ResourceEphemeralStorage: resource.MustParse(storage),
	}
}

func healthProbe(path string, periodSeconds, failureThreshold int32) *accorev1.ProbeApplyConfiguration {
	return accorev1.Probe().
		WithHTTPGet(accorev1.HTTPGetAction().WithPath(path).WithPort(intstr.FromInt32(egressHealthPort)).WithScheme(corev1.URISchemeHTTP)).
		WithPeriodSeconds(periodSeconds).
		WithTimeoutSeconds(1).
		WithSuccessThreshold(1).
		WithFailureThreshold(failureThreshold)
}
