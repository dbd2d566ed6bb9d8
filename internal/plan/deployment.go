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
	// portName of the port that clients are let in by, and serverPortName of that of a server behind a gateway.
	portName, serverPortName = "mcp", "server"

	progressDeadlineSeconds = 300
	// revisionHistoryLimit is small, because each revision keeps the values of its snapshot alive.
	revisionHistoryLimit = 2
	// gracePeriodSeconds is above all that a gateway may take in front of stdio: the farewell, the drain and twice the grace of a process.
	gracePeriodSeconds = 30
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
	if b.gatewayImage != "" && isStdio(b.server) {
		volume, mount := b.gatewayBinary()
		vols, mounts = append(vols, volume), append(mounts, mount)
	}
	if volume, mount := b.gatewayCertificate(); volume != nil {
		vols = append(vols, volume)
		if isStdio(b.server) { // the gateway is in the server's container
			mounts = append(mounts, mount)
		}
	}
	pod := accorev1.PodSpec().
		WithServiceAccountName(b.server.Name).
		WithDeprecatedServiceAccount(b.server.Name). // defaulted by the API from the field above
		WithAutomountServiceAccountToken(false).
		WithEnableServiceLinks(false).
		WithRestartPolicy(corev1.RestartPolicyAlways).
		WithDNSPolicy(corev1.DNSClusterFirst).
		WithSchedulerName(corev1.DefaultSchedulerName).
		WithTerminationGracePeriodSeconds(gracePeriodSeconds).
		WithSecurityContext(b.openLowPort(podSecurityContext(b.features))).
		WithContainers(b.container(mounts)).
		WithVolumes(vols...)
	pod.WithInitContainers(b.initContainers()...)
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

// initContainers come before the server, in this order: a pod that has to prove its isolation does so before anything listens.
func (b builder) initContainers() []*accorev1.ContainerApplyConfiguration {
	var out []*accorev1.ContainerApplyConfiguration
	if b.probeImage != "" {
		out = append(out, b.probeContainer())
	}
	switch {
	case b.hasSidecar():
		out = append(out, b.gatewaySidecar())
	case b.gatewayImage != "" && !b.hasImageVolume():
		out = append(out, b.gatewayCopy())
	}
	return out
}

// openLowPort lets a server without capabilities listen on a port below 1024, in its own network. One on stdio listens nowhere.
func (b builder) openLowPort(out *accorev1.PodSecurityContextApplyConfiguration) *accorev1.PodSecurityContextApplyConfiguration {
	if port := portOf(b.server); port < firstFreePort && !isStdio(b.server) {
		out.WithSysctls(accorev1.Sysctl().WithName("net.ipv4.ip_unprivileged_port_start").WithValue(strconv.Itoa(int(port))))
	}
	return out
}

func (b builder) container(mounts []*accorev1.VolumeMountApplyConfiguration) *accorev1.ContainerApplyConfiguration {
	spec := &b.server.Spec
	out := accorev1.Container().
		WithName(ContainerName).
		WithImage(spec.Image).
		WithImagePullPolicy(pullPolicy(spec.Image)).
		WithResources(accorev1.ResourceRequirements().
			WithRequests(resourceList(b.resources.Requests)).
			WithLimits(resourceList(b.resources.Limits))).
		WithVolumeMounts(mounts...).
		WithLifecycle(accorev1.Lifecycle().WithPreStop(accorev1.LifecycleHandler().
			WithSleep(accorev1.SleepAction().WithSeconds(farewellSeconds)))).
		WithTerminationMessagePath(corev1.TerminationMessagePathDefault).
		WithTerminationMessagePolicy(corev1.TerminationMessageReadFile).
		WithSecurityContext(containerSecurityContext())
	for i := range spec.Env {
		out.WithEnv(b.envVar(&spec.Env[i]))
	}
	out.WithEnv(b.egressEnv()...)
	if isStdio(b.server) {
		b.wrapInGateway(out)
	} else {
		b.listen(out)
	}
	return out
}

// listen is for a server that speaks HTTP itself.
func (b builder) listen(out *accorev1.ContainerApplyConfiguration) {
	port, name := portOf(b.server), portName
	if b.hasSidecar() {
		name = serverPortName
	}
	out.WithCommand(b.server.Spec.Command...).
		WithArgs(b.server.Spec.Args...).
		WithPorts(accorev1.ContainerPort().WithName(name).WithContainerPort(port).WithProtocol(corev1.ProtocolTCP)).
		WithReadinessProbe(tcpProbe(port, 5, 3)).
		WithStartupProbe(tcpProbe(port, 1, b.progressDeadline()))
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

// tcpProbe asks whether the server listens: a server that is gone is noticed before the next handshake.
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
