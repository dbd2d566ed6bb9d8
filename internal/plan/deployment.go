package plan

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	acappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	// userID is the user and group that every server runs as.
	userID = 65532
	// firstFreePort is the lowest port that needs no privilege.
	firstFreePort = 1024
	// portName of the transport port.
	portName = "mcp"

	progressDeadlineSeconds = 300
	// revisionHistoryLimit is small, because each revision keeps the values of its snapshot alive.
	revisionHistoryLimit = 2
	gracePeriodSeconds   = 30
	// farewellSeconds is how long a pod that is to end goes on serving: until no proxy of a node sends
	// it new connections.
	farewellSeconds = 5
)

// deployment runs the server. Every field that the API would default is set, so that what is live
// can be compared with what was planned, field by field.
func (b builder) deployment() *acappsv1.DeploymentApplyConfiguration {
	spec := acappsv1.DeploymentSpec().
		WithSelector(b.selector()).
		WithTemplate(b.podTemplate()).
		WithStrategy(acappsv1.DeploymentStrategy().
			WithType(appsv1.RollingUpdateDeploymentStrategyType).
			WithRollingUpdate(acappsv1.RollingUpdateDeployment().
				WithMaxUnavailable(intstr.FromInt32(0)).
				WithMaxSurge(intstr.FromInt32(1)))).
		WithRevisionHistoryLimit(revisionHistoryLimit).
		WithProgressDeadlineSeconds(b.progressDeadline())
	replicas := b.replicas()
	if replicas != nil {
		spec.WithReplicas(*replicas)
	}
	if b.state() == v1alpha1.StateQuarantined {
		spec.WithPaused(true) // nothing is rolled out, so that the pods stay as they are
	}
	out := acappsv1.Deployment(b.server.Name, b.server.Namespace).
		WithLabels(b.labels()).
		WithOwnerReferences(b.owner()).
		WithSpec(spec)
	if b.secrets.State != "" {
		out.WithAnnotations(map[string]string{AnnotationRotation: b.secrets.State})
	}
	if replicas != nil && *replicas == 0 { // stopped, or quarantined after that: a spec cannot ask for none
		out.WithAnnotations(map[string]string{AnnotationStopped: "true"})
	}
	return out
}

func (b builder) progressDeadline() int32 {
	if r := b.server.Spec.Rotation; r != nil && r.ProgressDeadlineSeconds != nil {
		return *r.ProgressDeadlineSeconds
	}
	return progressDeadlineSeconds
}

func (b builder) podTemplate() *accorev1.PodTemplateSpecApplyConfiguration {
	vols, mounts := volumes(&b.server.Spec, *b.resources.Limits.Memory)
	fileVols, fileMounts := secretFiles(b.server.Name, b.server.Spec.SecretFiles)
	vols, mounts = append(vols, fileVols...), append(mounts, fileMounts...)
	pod := accorev1.PodSpec().
		WithServiceAccountName(b.server.Name).
		WithDeprecatedServiceAccount(b.server.Name). // defaulted by the API from the field above
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithRestartPolicy(corev1.RestartPolicyAlways).
		WithDNSPolicy(corev1.DNSClusterFirst).
		WithSchedulerName(corev1.DefaultSchedulerName).
		WithTerminationGracePeriodSeconds(gracePeriodSeconds).
		WithSecurityContext(openLowPort(podSecurityContext(b.features), *b.server.Spec.Transport.Port)).
		WithContainers(b.container(mounts)).
		WithVolumes(vols...)
	if b.probeImage != "" {
		pod.WithInitContainers(b.probeContainer())
	}
	if slices.Contains(b.features, v1alpha1.PodFeatureUserNamespace) {
		pod.WithHostUsers(false)
	}
	for _, secret := range b.server.Spec.ImagePullSecrets {
		pod.WithImagePullSecrets(accorev1.LocalObjectReference().WithName(string(secret.Name)))
	}
	b.schedule(pod)
	out := accorev1.PodTemplateSpec().WithLabels(b.labels()).WithSpec(pod)
	if b.usesEgressProxy() {
		out.WithAnnotations(map[string]string{AnnotationCredential: b.facts.EgressProxy.Credential})
	}
	if b.secrets.Snapshot != "" {
		out.WithLabels(map[string]string{LabelSnapshot: b.secrets.Label})
	}
	return out
}

// podSecurityContext is the pod's half of the Pod Security Standard "restricted", and more.
func podSecurityContext(features []v1alpha1.PodFeature) *accorev1.PodSecurityContextApplyConfiguration {
	out := accorev1.PodSecurityContext().
		WithRunAsNonRoot(true).
		WithRunAsUser(userID).
		WithRunAsGroup(userID).
		WithFSGroup(userID).
		WithFSGroupChangePolicy(corev1.FSGroupChangeOnRootMismatch).
		WithSeccompProfile(accorev1.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))
	if slices.Contains(features, v1alpha1.PodFeatureStrictSupplementalGroups) {
		out.WithSupplementalGroupsPolicy(corev1.SupplementalGroupsPolicyStrict)
	}
	return out
}

// openLowPort lets a server without capabilities listen on a port below 1024, in its own network.
func openLowPort(out *accorev1.PodSecurityContextApplyConfiguration, port int32) *accorev1.PodSecurityContextApplyConfiguration {
	if port < firstFreePort {
		out.WithSysctls(accorev1.Sysctl().WithName("net.ipv4.ip_unprivileged_port_start").WithValue(strconv.Itoa(int(port))))
	}
	return out
}

func (b builder) container(mounts []*accorev1.VolumeMountApplyConfiguration) *accorev1.ContainerApplyConfiguration {
	spec := &b.server.Spec
	port := *spec.Transport.Port
	out := accorev1.Container().
		WithName(ContainerName).
		WithImage(spec.Image).
		WithImagePullPolicy(pullPolicy(spec.Image)).
		WithCommand(spec.Command...).
		WithArgs(spec.Args...).
		WithPorts(accorev1.ContainerPort().WithName(portName).WithContainerPort(port).WithProtocol(corev1.ProtocolTCP)).
		WithResources(accorev1.ResourceRequirements().
			WithRequests(resourceList(b.resources.Requests)).
			WithLimits(resourceList(b.resources.Limits))).
		WithVolumeMounts(mounts...).
		WithReadinessProbe(tcpProbe(port, 5, 3)).
		WithStartupProbe(tcpProbe(port, 1, b.progressDeadline())).
		WithLifecycle(accorev1.Lifecycle().WithPreStop(accorev1.LifecycleHandler().
			WithSleep(accorev1.SleepAction().WithSeconds(farewellSeconds)))).
		WithTerminationMessagePath(corev1.TerminationMessagePathDefault).
		WithTerminationMessagePolicy(corev1.TerminationMessageReadFile).
		WithSecurityContext(containerSecurityContext())
	for i := range spec.Env {
		out.WithEnv(b.envVar(&spec.Env[i]))
	}
	out.WithEnv(b.egressEnv()...)
	return out
}

// containerSecurityContext repeats what the pod's says, so that each container stands on its own.
func containerSecurityContext() *accorev1.SecurityContextApplyConfiguration {
	return accorev1.SecurityContext().
		WithRunAsNonRoot(true).
		WithRunAsUser(userID).
		WithRunAsGroup(userID).
		WithPrivileged(false).
		WithAllowPrivilegeEscalation(false).
		WithReadOnlyRootFilesystem(true).
		WithProcMount(corev1.DefaultProcMount).
		WithCapabilities(accorev1.Capabilities().WithDrop("ALL")).
		WithSeccompProfile(accorev1.SeccompProfile().WithType(corev1.SeccompProfileTypeRuntimeDefault))
}

// pullPolicy asks the registry again for a tag, which may have moved, and not for a digest.
func pullPolicy(image string) corev1.PullPolicy {
	if strings.Contains(image, "@") {
		return corev1.PullIfNotPresent
	}
	return corev1.PullAlways
}

// tcpProbe asks whether the server listens: all that can be told without speaking MCP.
func tcpProbe(port, periodSeconds, failureThreshold int32) *accorev1.ProbeApplyConfiguration {
	return accorev1.Probe().
		WithTCPSocket(accorev1.TCPSocketAction().WithPort(intstr.FromInt32(port))).
		WithPeriodSeconds(periodSeconds).
		WithTimeoutSeconds(1).
		WithSuccessThreshold(1).
		WithFailureThreshold(failureThreshold)
}

// envVar takes what comes from a Secret out of the snapshot, never from the Secret itself.
func (b builder) envVar(env *v1alpha1.EnvVar) *accorev1.EnvVarApplyConfiguration {
	out := accorev1.EnvVar().WithName(env.Name)
	if env.ValueFrom == nil {
		if env.Value != nil && *env.Value != "" {
			out.WithValue(*env.Value)
		}
		return out
	}
	source := accorev1.EnvVarSource()
	if env.ValueFrom.SecretKeyRef != nil {
		name := cmp.Or(b.secrets.Snapshot, SnapshotName(b.server.Name, noSnapshot))
		source.WithSecretKeyRef(accorev1.SecretKeySelector().WithName(name).WithKey(env.Name))
	}
	if ref := env.ValueFrom.ConfigMapKeyRef; ref != nil {
		source.WithConfigMapKeyRef(accorev1.ConfigMapKeySelector().WithName(string(ref.Name)).WithKey(ref.Key))
	}
	return out.WithValueFrom(source)
}
