package compliance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// replacePod is the remedy for a pod that is not as the operator made it: what runs cannot be put right in place.
const replacePod = "find out which admission webhook or who changed it, and delete the pod"

// fail adds a violation that no field of the spec is to blame for.
func (o *Outcome) fail(format string, args ...any) {
	o.Violations = append(o.Violations, Violation{Message: fmt.Sprintf(format, args...)})
}

// blame adds a violation of a field of the spec.
func (o *Outcome) blame(field, format string, args ...any) {
	o.Violations = append(o.Violations, Violation{Field: field, Message: fmt.Sprintf(format, args...)})
}

// unsure says what could not be told. The first word stays.
func (o *Outcome) unsure(format string, args ...any) {
	if o.Unknown == "" {
		o.Unknown = fmt.Sprintf(format, args...)
	}
}

// running are the pods that have not ended. One that is being deleted still runs.
func running(live *Live) []*corev1.Pod {
	var out []*corev1.Pod
	for i := range live.Pods.Value {
		if pod := &live.Pods.Value[i]; pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			out = append(out, pod)
		}
	}
	return out
}

// eachPod looks at every pod that runs. Where none does, nothing can be told of a server that is to run; of
// one that is not, that nothing is wrong.
func eachPod(in *Input, live *Live, look func(*Outcome, *corev1.Pod)) Outcome {
	var out Outcome
	if live.Pods.Unknown != "" {
		out.unsure("the pods cannot be looked at: %s", live.Pods.Unknown)
		return out
	}
	pods := running(live)
	if len(pods) == 0 && isToRun(in.Server) {
		out.unsure("no pod runs that could be looked at")
	}
	for _, pod := range pods {
		look(&out, pod)
	}
	return out
}

func isToRun(server *v1alpha1.MCPServer) bool {
	return server.Spec.DesiredState == "" || server.Spec.DesiredState == v1alpha1.StateRunning
}

// podContainer is a container of a pod, of whatever kind.
type podContainer struct {
	corev1.Container
	// kind is container, init container or ephemeral container.
	kind string
}

// field of the container in its pod.
func (c *podContainer) field(part string) string {
	list := map[string]string{kindContainer: "containers", kindInit: "initContainers", kindEphemeral: "ephemeralContainers"}[c.kind]
	return fmt.Sprintf("spec.%s[%s].%s", list, c.Name, part)
}

func (c *podContainer) String() string { return c.kind + " " + c.Name }

func (c *podContainer) context() *corev1.SecurityContext {
	if c.SecurityContext == nil {
		return &corev1.SecurityContext{}
	}
	return c.SecurityContext
}

const (
	kindContainer = "container"
	kindInit      = "init container"
	kindEphemeral = "ephemeral container"
)

// containersOf are all containers of a pod: what one may not do, none may.
func containersOf(pod *corev1.Pod) []podContainer {
	var out []podContainer
	for _, c := range pod.Spec.InitContainers {
		out = append(out, podContainer{c, kindInit})
	}
	for _, c := range pod.Spec.Containers {
		out = append(out, podContainer{c, kindContainer})
	}
	for i := range pod.Spec.EphemeralContainers {
		out = append(out, podContainer{corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon), kindEphemeral})
	}
	return out
}

// A podCheck says what is wrong with a pod, whoever made it.
type podCheck func(pod *corev1.Pod, report reportFunc)

// A reportFunc takes down what is wrong: the field of the pod, and what is said after the pod's name.
type reportFunc func(field, said string)

// live looks at every pod of a server that runs.
func (check podCheck) live(in *Input, live *Live) Outcome {
	return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		check(pod, func(_, said string) { out.fail("pod %s%s: %s", pod.Name, said, replacePod) })
	})
}

// eachContainer looks at every container of a pod.
func eachContainer(look func(pod *corev1.PodSecurityContext, c *podContainer) string) podCheck {
	return func(pod *corev1.Pod, report reportFunc) {
		for _, c := range containersOf(pod) {
			if wrong := look(contextOf(pod), &c); wrong != "" {
				report(c.field("securityContext"), fmt.Sprintf(", %s: %s", &c, wrong))
			}
		}
	}
}

func contextOf(pod *corev1.Pod) *corev1.PodSecurityContext {
	if pod.Spec.SecurityContext == nil {
		return &corev1.PodSecurityContext{}
	}
	return pod.Spec.SecurityContext
}

// asTemplate compares every pod that runs with the template of the Deployment. A pod that differs may be of the
// revision before while a rollout is under way or the pod is ending: then nobody can tell.
func asTemplate(in *Input, live *Live, compare func(pod *corev1.Pod, template *corev1.PodSpec) []string) Outcome {
	return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		if live.Deployment == nil {
			out.unsure("there is no Deployment to compare pod %s with", pod.Name)
			return
		}
		for _, difference := range compare(pod, &live.Deployment.Spec.Template.Spec) {
			if isSettled(live) && pod.DeletionTimestamp == nil {
				out.fail("pod %s: %s: %s", pod.Name, difference, replacePod)
			} else {
				out.unsure("pod %s: %s; it may be of the revision before, since a rollout is under way", pod.Name, difference)
			}
		}
	})
}

// isSettled tells whether every pod that is not ending is of the Deployment's present template, going by what its
// status counts and by the pods themselves, of which a cache may show older ones.
func isSettled(live *Live) bool {
	d := live.Deployment
	if d == nil || d.Status.ObservedGeneration < d.Generation || d.Status.UpdatedReplicas != d.Status.Replicas {
		return false
	}
	revision := ""
	for _, pod := range running(live) {
		switch hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; {
		case pod.DeletionTimestamp != nil || hash == "" || hash == revision:
		case revision == "":
			revision = hash
		default:
			return false
		}
	}
	return true
}

// serverContainer is the server's container in a pod; an empty one where there is none.
func serverContainer(spec *corev1.PodSpec) *corev1.Container {
	if i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == plan.ContainerName }); i >= 0 {
		return &spec.Containers[i]
	}
	return &corev1.Container{}
}

// isChild tells whether a pod is one of the server's Deployment: of a ReplicaSet with the name that the
// Deployment gives.
func isChild(server *v1alpha1.MCPServer, pod *corev1.Pod) bool {
	owner := metav1.GetControllerOfNoCopy(pod)
	hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	return owner != nil && owner.Kind == "ReplicaSet" && strings.HasPrefix(owner.APIVersion, "apps/") &&
		hash != "" && owner.Name == server.Name+"-"+hash
}

// isLabelled tells whether a pod carries the labels by which everything of the server finds its pods.
func isLabelled(server *v1alpha1.MCPServer, pod *corev1.Pod) bool {
	for key, value := range plan.SelectorLabels(server.Name) {
		if pod.Labels[key] != value {
			return false
		}
	}
	return true
}

// TrimPod takes out of a pod's spec and annotations what no control reads: a cache of pods need not hold it. In place of the
// values of variables it leaves digests. To trim a pod twice changes nothing.
func TrimPod(pod *corev1.Pod) {
	for key := range pod.Annotations {
		if !slices.Contains(networkAnnotations, key) {
			delete(pod.Annotations, key)
		}
	}
	spec := &pod.Spec
	pod.Spec = corev1.PodSpec{
		NodeName: spec.NodeName, HostNetwork: spec.HostNetwork, HostPID: spec.HostPID, HostIPC: spec.HostIPC,
		ShareProcessNamespace: spec.ShareProcessNamespace, HostUsers: spec.HostUsers, SecurityContext: spec.SecurityContext,
		ServiceAccountName: spec.ServiceAccountName, AutomountServiceAccountToken: spec.AutomountServiceAccountToken,
		EnableServiceLinks: spec.EnableServiceLinks, RuntimeClassName: spec.RuntimeClassName,
		DNSPolicy: spec.DNSPolicy, DNSConfig: spec.DNSConfig, HostAliases: spec.HostAliases,
		ImagePullSecrets: spec.ImagePullSecrets, Volumes: spec.Volumes, ResourceClaims: spec.ResourceClaims,
		InitContainers: spec.InitContainers, Containers: spec.Containers, EphemeralContainers: spec.EphemeralContainers,
	}
	for i := range spec.InitContainers {
		trimContainer(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		trimContainer(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		trimContainer(&c)
		spec.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
}

func trimContainer(c *corev1.Container) {
	trimmed := corev1.Container{
		Name: c.Name, Image: c.Image, Command: c.Command, Args: c.Args, WorkingDir: c.WorkingDir, Ports: c.Ports,
		Env: c.Env, EnvFrom: c.EnvFrom, Resources: c.Resources, VolumeMounts: c.VolumeMounts, VolumeDevices: c.VolumeDevices,
		Lifecycle: c.Lifecycle, RestartPolicy: c.RestartPolicy, SecurityContext: c.SecurityContext, ReadinessProbe: c.ReadinessProbe, Stdin: c.Stdin, TTY: c.TTY,
	}
	for i := range trimmed.Env {
		trimmed.Env[i].Value = masked(trimmed.Env[i].Value)
	}
	*c = trimmed
}

const maskPrefix = "sha256:"

// masked is a digest in place of the value of a variable, so that two can be compared and neither is kept. What is masked
// stays as it is.
func masked(value string) string {
	if rest, ok := strings.CutPrefix(value, maskPrefix); value == "" || ok && len(rest) == hex.EncodedLen(sha256.Size) {
		return value
	}
	sum := sha256.Sum256([]byte(value))
	return maskPrefix + hex.EncodeToString(sum[:])
}
