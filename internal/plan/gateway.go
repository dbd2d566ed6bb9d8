package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	acmetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	acnetworkingv1 "k8s.io/client-go/applyconfigurations/networking/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	// GatewayContainerName is the name of the sidecar in front of a server that speaks HTTP.
	GatewayContainerName = "gateway"
	// GatewayCopyContainerName is the name of the init container that brings the gateway to a server on stdio
	// where no image volume does.
	GatewayCopyContainerName = "gateway-copy"
	// GatewayPort is where the gateway takes clients' requests, in every pod. The CRD keeps servers off this port and the next.
	GatewayPort = 29010
	// GatewayAdminPort is where it answers the kubelet, and tells the operator of the server's tools.
	GatewayAdminPort = 29011
	// DefaultPort of the Service of a server on stdio.
	DefaultPort = 8080

	// gatewayFolder holds the gateway in the container of a server on stdio.
	gatewayFolder = "/mcp-warden"
	gatewayVolume = "gateway"
	// gatewayTLSFolder holds the certificate that the gateway shows to clients, and its key.
	gatewayTLSFolder = "/mcp-warden-tls"
	gatewayTLSVolume = "gateway-tls"
	// gatewayCopyLimit bounds the copy of the gateway, which has some 10 MiB.
	gatewayCopyLimit = "32Mi"

	// drainSeconds is how long what is open may go on after SIGTERM, and stopGraceSeconds how long a process on stdio may take to
	// end when its input has, and again after SIGTERM. With the farewell they are below the grace period of the pod.
	drainSeconds, stopGraceSeconds = 10, 5
)

// What the gateway may hold. Beside a server on HTTP it has bounds of its own; in front of one on stdio it shares the container's
// memory with the server's processes, so that it takes an eighth, and no more processes may run than fit in.
const (
	gatewayBufferedBytes, minGatewayBufferedBytes = 64 << 20, 8 << 20
	// gatewayOwnBytes is what it needs beside what it holds for clients.
	gatewayOwnBytes = 64 << 20
	// gatewayShareOfMemory is the part of a container's memory that it may fill with messages on stdio: one of so many.
	gatewayShareOfMemory = 8
	// processBytes is the room for one process of a server on stdio.
	processBytes               = 64 << 20
	minProcesses, maxProcesses = 4, 64
)

// gatewayImage is the image of the gateway; empty where there is none. As with the probe's, an upgrade of the operator must
// not roll servers: where a Deployment is up, it keeps what it has until the spec changes, unless it has none and cannot do without.
func gatewayImage(server *v1alpha1.MCPServer, facts Facts) string {
	return componentImage(server, facts, server.Status.GatewayImage, isStdio(server))
}

func isStdio(server *v1alpha1.MCPServer) bool {
	return server.Spec.Transport.Type == v1alpha1.TransportStdio
}

// HasGateway tells whether the requests to a pod of a server go through a gateway: a sidecar, or the server's own command.
func HasGateway(pod *corev1.PodSpec) bool {
	return slices.ContainsFunc(pod.InitContainers, func(c corev1.Container) bool {
		return c.Name == GatewayContainerName && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	}) || slices.ContainsFunc(pod.Containers, func(c corev1.Container) bool {
		return c.Name == ContainerName && len(c.Command) == 1 && c.Command[0] == gatewayFolder+"/gateway"
	})
}

// hasSidecar tells whether the gateway is a container of its own.
func (b builder) hasSidecar() bool { return b.gatewayImage != "" && !isStdio(b.server) }

// validateGateway refuses a server that only a gateway can serve where there is none, and mounts in its way.
func validateGateway(server *v1alpha1.MCPServer, facts Facts) field.ErrorList {
	root := field.NewPath("spec")
	var errs field.ErrorList
	if gatewayImage(server, facts) == "" {
		const missing = "needs the gateway, which the operator does not have: start the operator with --component-image"
		if isStdio(server) {
			errs = append(errs, field.Invalid(root.Child("transport", "type"), server.Spec.Transport.Type, missing))
		}
		if tls := server.Spec.Transport.TLS; tls != nil {
			errs = append(errs, field.Invalid(root.Child("transport", "tls", "secretName"), tls.SecretName, missing))
		}
	}
	if !isStdio(server) {
		return errs
	}
	folders := []v1alpha1.MountPath{gatewayFolder}
	if server.Spec.Transport.TLS != nil {
		folders = append(folders, gatewayTLSFolder)
	}
	check := func(path *field.Path, mount v1alpha1.MountPath) {
		for _, folder := range folders {
			if isWithin(mount, folder) || isWithin(folder, mount) {
				errs = append(errs, field.Invalid(path, mount, "must not be equal to, within or around "+string(folder)+", where the gateway is: choose another folder"))
			}
		}
	}
	if files := server.Spec.Filesystem; files != nil {
		for i := range files.WritablePaths {
			check(root.Child("filesystem", "writablePaths").Index(i).Child("path"), files.WritablePaths[i].Path)
		}
		for i := range files.Data {
			check(root.Child("filesystem", "data").Index(i).Child("mountPath"), files.Data[i].MountPath)
		}
	}
	for i := range server.Spec.SecretFiles {
		check(root.Child("secretFiles").Index(i).Child("mountPath"), server.Spec.SecretFiles[i].MountPath)
	}
	return errs
}

// gatewaySidecar stands in front of a server that speaks HTTP: the server starts once it is up, and ends before it does.
func (b builder) gatewaySidecar() *accorev1.ContainerApplyConfiguration {
	amounts := func(cpu, memory, storage string) corev1.ResourceList {
		return corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
			corev1.ResourceEphemeralStorage: resource.MustParse(storage),
		}
	}
	args := append([]string{"-transport=http", fmt.Sprintf("-upstream=http://127.0.0.1:%d%s", portOf(b.server), endpointPath(b.server))},
		b.gatewayArgs(gatewayBufferedBytes)...)
	out := b.gatewayContainer(GatewayContainerName, args).
		WithRestartPolicy(corev1.ContainerRestartPolicyAlways).
		WithResources(accorev1.ResourceRequirements().
			WithRequests(amounts("10m", "32Mi", "8Mi")).
			WithLimits(amounts("1", "192Mi", "64Mi"))).
		WithPorts(gatewayPorts()...)
	if _, mount := b.gatewayCertificate(); mount != nil {
		out.WithVolumeMounts(mount)
	}
	return withGatewayProbes(out)
}

// gatewayCertificate is the volume with the certificate and its key: a copy, as that of every Secret. Nil without TLS.
func (b builder) gatewayCertificate() (*accorev1.VolumeApplyConfiguration, *accorev1.VolumeMountApplyConfiguration) {
	tls := b.server.Spec.Transport.TLS
	if tls == nil || b.gatewayImage == "" {
		return nil, nil
	}
	return secretFolder(gatewayTLSVolume, FilesName(b.server.Name, string(tls.SecretName)), gatewayTLSFolder,
		[]v1alpha1.DataKey{corev1.TLSCertKey, corev1.TLSPrivateKeyKey})
}

// gatewayCopy copies the gateway for a server on stdio whose pod has no image volume.
func (b builder) gatewayCopy() *accorev1.ContainerApplyConfiguration {
	amounts := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
		corev1.ResourceEphemeralStorage: resource.MustParse(gatewayCopyLimit),
	}
	limits := amounts.DeepCopy()
	limits[corev1.ResourceCPU], limits[corev1.ResourceMemory] = resource.MustParse("500m"), resource.MustParse("64Mi")
	return b.gatewayContainer(GatewayCopyContainerName, []string{"-install=" + gatewayFolder + "/gateway"}).
		WithResources(accorev1.ResourceRequirements().WithRequests(amounts).WithLimits(limits)).
		WithVolumeMounts(accorev1.VolumeMount().WithName(gatewayVolume).WithMountPath(gatewayFolder))
}

func (b builder) gatewayContainer(name string, args []string) *accorev1.ContainerApplyConfiguration {
	return accorev1.Container().
		WithName(name).
		WithImage(b.gatewayImage).
		WithImagePullPolicy(corev1.PullIfNotPresent). // no server waits for a registry because of it
		WithCommand("/gateway").
		WithArgs(args...).
		WithTerminationMessagePath(corev1.TerminationMessagePathDefault).
		WithTerminationMessagePolicy(corev1.TerminationMessageReadFile).
		WithSecurityContext(containerSecurityContext())
}

// gatewayBinary is the volume with the gateway, for the container of a server on stdio. The image volume of which the runtime
// sees to it that nobody writes to it comes first; a copy is what every node can do.
func (b builder) gatewayBinary() (*accorev1.VolumeApplyConfiguration, *accorev1.VolumeMountApplyConfiguration) {
	volume := accorev1.Volume().WithName(gatewayVolume)
	if b.hasImageVolume() {
		volume.WithImage(accorev1.ImageVolumeSource().WithReference(b.gatewayImage).WithPullPolicy(corev1.PullIfNotPresent))
	} else {
		volume.WithEmptyDir(accorev1.EmptyDirVolumeSource().WithSizeLimit(resource.MustParse(gatewayCopyLimit)))
	}
	return volume, accorev1.VolumeMount().WithName(gatewayVolume).WithMountPath(gatewayFolder).WithReadOnly(true)
}

// wrapInGateway makes the gateway the command of a server's container, and the server's own command its child's.
func (b builder) wrapInGateway(out *accorev1.ContainerApplyConfiguration) {
	spec := &b.server.Spec
	memory := b.resources.Limits.Memory.Value()
	buffered := min(max(memory/gatewayShareOfMemory, minGatewayBufferedBytes), gatewayBufferedBytes)
	args := append([]string{"-transport=stdio"}, b.gatewayArgs(buffered)...)
	args = append(args,
		fmt.Sprintf("-stop-grace=%ds", stopGraceSeconds),
		fmt.Sprintf("-max-processes=%d", min(max(memory/processBytes, minProcesses), maxProcesses)),
		"--")
	out.WithCommand(gatewayFolder + "/gateway").WithArgs(args...).WithArgs(spec.Command...).WithArgs(spec.Args...).WithPorts(gatewayPorts()...)
	withGatewayProbes(out)
}

// gatewayArgs are what the gateway is told for either transport.
func (b builder) gatewayArgs(buffered int64) []string {
	name, namespace := b.server.Name, b.server.Namespace
	service := name + "." + namespace + ".svc"
	out := []string{
		fmt.Sprintf("-listen=:%d", GatewayPort),
		fmt.Sprintf("-admin-listen=:%d", GatewayAdminPort),
		"-path=" + endpointPath(b.server),
		"-allowed-hosts=" + strings.Join([]string{name, name + "." + namespace, service, service + ".cluster.local"}, ","),
		fmt.Sprintf("-drain=%ds", drainSeconds),
		fmt.Sprintf("-max-buffered-bytes=%d", buffered),
		fmt.Sprintf("-memory-limit=%d", buffered+gatewayOwnBytes),
	}
	if b.server.Spec.Transport.TLS != nil {
		out = append(out, "-tls-cert="+gatewayTLSFolder+"/"+corev1.TLSCertKey, "-tls-key="+gatewayTLSFolder+"/"+corev1.TLSPrivateKeyKey)
	}
	return out
}

func gatewayPorts() []*accorev1.ContainerPortApplyConfiguration {
	return []*accorev1.ContainerPortApplyConfiguration{
		accorev1.ContainerPort().WithName(portName).WithContainerPort(GatewayPort).WithProtocol(corev1.ProtocolTCP),
		accorev1.ContainerPort().WithName("admin").WithContainerPort(GatewayAdminPort).WithProtocol(corev1.ProtocolTCP),
	}
}

// withGatewayProbes asks the gateway whether it runs, and whether the server behind it has answered an MCP handshake. The gateway
// itself forgives a handshake that fails now and then: what it says counts at once.
func withGatewayProbes(out *accorev1.ContainerApplyConfiguration) *accorev1.ContainerApplyConfiguration {
	return out.
		WithStartupProbe(adminProbe("/healthz", 1, 60)).
		WithLivenessProbe(adminProbe("/healthz", 20, 3)).
		WithReadinessProbe(adminProbe("/readyz", 2, 1))
}

func adminProbe(path string, periodSeconds, failureThreshold int32) *accorev1.ProbeApplyConfiguration {
	return accorev1.Probe().
		WithHTTPGet(accorev1.HTTPGetAction().WithPath(path).WithPort(intstr.FromInt32(GatewayAdminPort)).WithScheme(corev1.URISchemeHTTP)).
		WithPeriodSeconds(periodSeconds).
		WithTimeoutSeconds(5).
		WithSuccessThreshold(1).
		WithFailureThreshold(failureThreshold)
}

// adminRule lets the operator, and nobody else, ask the gateway for the server's tools.
func (b builder) adminRule() *acnetworkingv1.NetworkPolicyIngressRuleApplyConfiguration {
	return acnetworkingv1.NetworkPolicyIngressRule().
		WithFrom(acnetworkingv1.NetworkPolicyPeer().
			WithNamespaceSelector(acmetav1.LabelSelector().WithMatchLabels(map[string]string{corev1.LabelMetadataName: b.facts.OperatorNamespace})).
			WithPodSelector(acmetav1.LabelSelector().WithMatchLabels(map[string]string{"app.kubernetes.io/name": ManagedBy}))).
		WithPorts(policyPort(corev1.ProtocolTCP, intstr.FromInt32(GatewayAdminPort)))
}

// clientPort is the port of the pods that clients are let in by.
func (b builder) clientPort() int32 {
	if b.gatewayImage != "" {
		return GatewayPort
	}
	return portOf(b.server)
}

// portOf is the port of the server's Service, at which a server that speaks HTTP listens itself.
func portOf(server *v1alpha1.MCPServer) int32 {
	if port := server.Spec.Transport.Port; port != nil {
		return *port
	}
	return DefaultPort
}

func endpointPath(server *v1alpha1.MCPServer) string {
	if path := server.Spec.Transport.Path; path != "" {
		return path
	}
	return DefaultPath
}
