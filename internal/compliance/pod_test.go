package compliance_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

func volume(source corev1.VolumeSource) func(*compliance.Input) {
	return onPod(func(pod *corev1.Pod) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "extra", VolumeSource: source})
	})
}

// stdio is a server that the gateway starts.
func stdio(s *v1alpha1.MCPServerSpec) {
	s.Transport, s.Command = v1alpha1.Transport{Type: v1alpha1.TransportStdio}, []string{"/server"}
}

// initContainer finds one of a pod by its name.
func initContainer(pod *corev1.Pod, name string) *corev1.Container {
	return &pod.Spec.InitContainers[slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })]
}

func claim(s *v1alpha1.MCPServerSpec) {
	s.Filesystem = &v1alpha1.Filesystem{Data: []v1alpha1.DataMount{{MountPath: "/data", ClaimName: "project"}}}
}

func TestPodControls(t *testing.T) {
	userNamespace := func(p *v1alpha1.MCPPolicySpec) { p.Pods = &v1alpha1.PodPolicy{RequireUserNamespace: true} }
	gvisor := func(p *v1alpha1.MCPPolicySpec) {
		p.Pods = &v1alpha1.PodPolicy{AllowedRuntimeClassNames: []v1alpha1.ObjectName{"gvisor"}}
	}
	most := func(p *v1alpha1.MCPPolicySpec) {
		p.Pods = &v1alpha1.PodPolicy{MaxResources: &v1alpha1.ResourceAmounts{Memory: new(resource.MustParse("512Mi"))}}
	}
	inGVisor := func(s *v1alpha1.MCPServerSpec) { s.Scheduling = &v1alpha1.Scheduling{RuntimeClassName: "gvisor"} }
	run(t, []check{
		{control: "POD-01", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-01", name: "as planned, on stdio", want: v1alpha1.ControlPass, spec: stdio},
		{control: "POD-01", name: "a sidecar where the gateway is the server's command", says: "init container gateway", spec: stdio, live: onPod(func(pod *corev1.Pod) {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: plan.GatewayContainerName})
		})},
		{control: "POD-01", name: "an injected sidecar", says: "pod github-abc-a, container istio-proxy", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "istio-proxy"})
		})},
		{control: "POD-01", name: "an init container of the server's name", says: "init container server", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "server"})
		})},
		{control: "POD-01", name: "kubectl debug", says: "ephemeral container debugger", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger"}}}
		})},
		{control: "POD-01", name: "a pod that is being deleted is looked at", says: "evil", live: onPod(func(pod *corev1.Pod) {
			pod.DeletionTimestamp = &metav1.Time{Time: now}
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "evil"})
		})},
		{control: "POD-01", name: "a pod that has ended is not", want: v1alpha1.ControlPass, live: onPod(func(pod *corev1.Pod) {
			pod.Status.Phase = corev1.PodFailed
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "evil"})
		})},
		{control: "POD-01", name: "a probe that nobody planned", says: "isolation-probe", live: unplanProbe},
		{control: "POD-01", name: "a probe of the revision before", want: v1alpha1.ControlUnknown, says: "revision before", live: inRollout(unplanProbe)},
		{control: "POD-01", name: "no pod runs", want: v1alpha1.ControlUnknown, says: "no pod runs", live: noPods},
		{control: "POD-01", name: "stopped", want: v1alpha1.ControlPass, spec: func(s *v1alpha1.MCPServerSpec) { s.DesiredState = v1alpha1.StateStopped }},
		{control: "POD-01", name: "pods that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) {
			in.Live.Pods = compliance.Seen[[]corev1.Pod]{Unknown: "forbidden"}
		}},

		{control: "POD-02", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-02", name: "root", says: "runs as root", live: onContext(func(c *corev1.SecurityContext) { c.RunAsUser = new(int64(0)) })},
		{control: "POD-02", name: "the pod's user counts where the container has none", want: v1alpha1.ControlPass, live: onContext(func(c *corev1.SecurityContext) { c.RunAsUser = nil })},
		{control: "POD-02", name: "the image's user", says: "left to the image", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.SecurityContext, pod.Spec.Containers[0].SecurityContext = nil, nil
		})},
		{control: "POD-02", name: "root's group", says: "root's group", live: onContext(func(c *corev1.SecurityContext) { c.RunAsGroup = new(int64(0)) })},
		{control: "POD-02", name: "a further group", says: "root's group", live: onPod(func(pod *corev1.Pod) { pod.Spec.SecurityContext.SupplementalGroups = []int64{1, 0} })},
		{control: "POD-02", name: "not held to it", says: "runAsNonRoot", live: onContext(func(c *corev1.SecurityContext) { c.RunAsNonRoot = new(false) })},
		{control: "POD-02", name: "a debugger as root", says: "ephemeral container debugger", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "debugger", SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(0))}}}}
		})},
		{control: "POD-02", name: "root in a user namespace is not excused", says: "runs as root", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.HostUsers = new(false)
			pod.Spec.InitContainers[0].SecurityContext.RunAsUser = new(int64(0))
		})},

		{control: "POD-03", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-03", name: "writable", says: "can be written to", live: onContext(func(c *corev1.SecurityContext) { c.ReadOnlyRootFilesystem = nil })},

		{control: "POD-04", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-04", name: "one is added", says: "NET_RAW", live: onContext(func(c *corev1.SecurityContext) { c.Capabilities.Add = []corev1.Capability{"NET_RAW"} })},
		{control: "POD-04", name: "not dropped", says: "does not drop", live: onContext(func(c *corev1.SecurityContext) { c.Capabilities = nil })},

		{control: "POD-05", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-05", name: "privileged", says: "privileged", live: onContext(func(c *corev1.SecurityContext) { c.Privileged = new(true) })},
		{control: "POD-05", name: "escalation is allowed by default", says: "gain privileges", live: onContext(func(c *corev1.SecurityContext) { c.AllowPrivilegeEscalation = nil })},

		{control: "POD-06", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-06", name: "unconfined", says: "seccomp", live: onContext(func(c *corev1.SecurityContext) {
			c.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		})},

		{control: "POD-07", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-07", name: "automounted", says: "automountServiceAccountToken", live: onPod(func(pod *corev1.Pod) { pod.Spec.AutomountServiceAccountToken = nil })},
		{control: "POD-07", name: "projected", says: "volume extra", live: volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}}}})},

		{control: "POD-08", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-08", name: "by default", says: "enableServiceLinks", live: onPod(func(pod *corev1.Pod) { pod.Spec.EnableServiceLinks = nil })},

		{control: "POD-09", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-09", name: "the node's network", says: "hostNetwork", live: onPod(func(pod *corev1.Pod) { pod.Spec.HostNetwork = true })},
		{control: "POD-09", name: "the node's processes", says: "hostPID", live: onPod(func(pod *corev1.Pod) { pod.Spec.HostPID = true })},
		{control: "POD-09", name: "the node's IPC", says: "hostIPC", live: onPod(func(pod *corev1.Pod) { pod.Spec.HostIPC = true })},
		{control: "POD-09", name: "one process namespace for all", says: "shareProcessNamespace", live: onPod(func(pod *corev1.Pod) { pod.Spec.ShareProcessNamespace = new(true) })},
		{control: "POD-09", name: "a port of the node", says: "hostPort", live: onServer(func(c *corev1.Container) { c.Ports[0].HostPort = 8080 })},

		{control: "POD-10", name: "as planned", want: v1alpha1.ControlPass, spec: claim},
		{control: "POD-10", name: "a path of the node", says: "volume extra", live: volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}})},
		{control: "POD-10", name: "a path of the node, in a rollout", says: "volume extra", live: inRollout(volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}))},
		{control: "POD-10", name: "a Secret", says: "volume extra", live: volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "other"}})},
		{control: "POD-10", name: "a projected token", says: "volume extra", live: volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}}}}})},
		{control: "POD-10", name: "somebody else's Secret, projected", says: "not as planned", live: volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "other"}}}}}})},
		{control: "POD-10", name: "another claim", says: "not as planned", live: volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "other"}})},
		{control: "POD-10", name: "another claim, in a rollout", want: v1alpha1.ControlUnknown, says: "revision before",
			live: inRollout(volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "other"}}))},
		{control: "POD-10", name: "a mount that writes", spec: claim, says: "mounts", live: onServer(func(c *corev1.Container) { c.VolumeMounts[1].ReadOnly = false })},
		{control: "POD-10", name: "as planned, on stdio", want: v1alpha1.ControlPass, spec: stdio},
		{control: "POD-10", name: "the server's data in the gateway", spec: claim, says: "the mounts of init container gateway", live: onPod(func(pod *corev1.Pod) {
			initContainer(pod, plan.GatewayContainerName).VolumeMounts = pod.Spec.Containers[0].VolumeMounts
		})},
		{control: "POD-10", name: "a gateway that the server can write to", spec: stdio, says: "the mounts of container server", live: onServer(func(c *corev1.Container) {
			c.VolumeMounts[len(c.VolumeMounts)-1].ReadOnly = false
		})},
		{control: "POD-10", name: "an image that nobody planned", says: "not as planned", live: volume(corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: "evil.example/tools"}})},
		{control: "POD-10", name: "a device", says: "device", live: onServer(func(c *corev1.Container) { c.VolumeDevices = []corev1.VolumeDevice{{Name: "d"}} })},

		{control: "POD-11", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-11", name: "no limits", says: "no limit for cpu", live: onServer(func(c *corev1.Container) { c.Resources.Limits = nil })},
		{control: "POD-11", name: "a limit of none", says: "no limit for memory", live: onServer(func(c *corev1.Container) { c.Resources.Limits[corev1.ResourceMemory] = resource.Quantity{} })},
		{control: "POD-11", name: "an unbounded folder", says: "volume tmp has no sizeLimit", live: onPod(func(pod *corev1.Pod) { pod.Spec.Volumes[0].EmptyDir.SizeLimit = nil })},

		{control: "POD-12", name: "as planned, with a low port", want: v1alpha1.ControlPass, spec: func(s *v1alpha1.MCPServerSpec) { s.Transport.Port = new(int32(80)) }},
		{control: "POD-12", name: "proc", says: "/proc", live: onContext(func(c *corev1.SecurityContext) { c.ProcMount = new(corev1.UnmaskedProcMount) })},
		{control: "POD-12", name: "AppArmor", says: "AppArmor", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.SecurityContext.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
		})},
		{control: "POD-12", name: "SELinux", says: "SELinux", live: onContext(func(c *corev1.SecurityContext) { c.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"} })},
		{control: "POD-12", name: "a sysctl", says: "kernel.shm_rmid_forced", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.SecurityContext.Sysctls = []corev1.Sysctl{{Name: "kernel.shm_rmid_forced", Value: "1"}}
		})},
		{control: "POD-12", name: "a process of the node", says: "hostProcess", live: onContext(func(c *corev1.SecurityContext) {
			c.WindowsOptions = &corev1.WindowsSecurityContextOptions{HostProcess: new(true)}
		})},

		{control: "POD-13", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-13", name: "a pod of nobody's", says: "not of its Deployment", live: onPod(func(pod *corev1.Pod) { pod.OwnerReferences = nil })},
		{control: "POD-13", name: "a pod of another's", says: "not of its Deployment", live: onPod(func(pod *corev1.Pod) { pod.OwnerReferences[0].Name = "other-abc" })},
		{control: "POD-13", name: "a pod of a Job", says: "not of its Deployment", live: onPod(func(pod *corev1.Pod) { pod.OwnerReferences[0].Kind = "Job" })},

		{control: "POD-14", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-14", name: "a label was stripped", says: "does not carry its labels", live: onPod(func(pod *corev1.Pod) { delete(pod.Labels, "mcpwarden.io/server") })},

		{control: "POD-15", name: "not demanded", want: none},
		{control: "POD-15", name: "given", want: v1alpha1.ControlPass, policy: userNamespace},
		{control: "POD-15", name: "a claim", policy: userNamespace, spec: claim, field: "spec.filesystem.data[0].claimName"},
		{control: "POD-15", name: "not given", says: "user namespace", policy: userNamespace, live: onPod(func(pod *corev1.Pod) { pod.Spec.HostUsers = nil })},
		{control: "POD-15", name: "policies that cannot be read", want: v1alpha1.ControlUnknown, says: "forbidden", live: func(in *compliance.Input) { in.PoliciesUnknown = "forbidden" }},

		{control: "POD-16", name: "not demanded", want: none},
		{control: "POD-16", name: "allowed", want: v1alpha1.ControlPass, policy: gvisor, spec: inGVisor},
		{control: "POD-16", name: "none", policy: gvisor, field: "spec.scheduling.runtimeClassName"},
		{control: "POD-16", name: "taken off a pod", says: "pod github-abc-a", policy: gvisor, spec: inGVisor, live: onPod(func(pod *corev1.Pod) { pod.Spec.RuntimeClassName = nil })},

		{control: "POD-17", name: "not demanded", want: none},
		{control: "POD-17", name: "the default is within", want: v1alpha1.ControlPass, policy: most},
		{control: "POD-17", name: "more", policy: most, field: "spec.resources.limits.memory", says: "1Gi", spec: func(s *v1alpha1.MCPServerSpec) {
			s.Resources = &v1alpha1.ResourceRequirements{Limits: &v1alpha1.ResourceAmounts{Memory: new(resource.MustParse("1Gi"))}}
		}},
		{control: "POD-17", name: "resized", policy: most, says: "pod github-abc-a has a limit of 2Gi", live: onServer(func(c *corev1.Container) {
			c.Resources.Limits[corev1.ResourceMemory] = resource.MustParse("2Gi")
		})},
		{control: "POD-17", name: "the default is more", policy: func(p *v1alpha1.MCPPolicySpec) {
			p.Pods = &v1alpha1.PodPolicy{MaxResources: &v1alpha1.ResourceAmounts{CPU: new(resource.MustParse("100m"))}}
		}, field: "spec.resources.limits.cpu"},

		{control: "POD-18", name: "as planned", want: v1alpha1.ControlPass},
		{control: "POD-18", name: "another command", says: "command", live: onServer(func(c *corev1.Container) { c.Command = []string{"sh"} })},
		{control: "POD-18", name: "a hook", says: "hooks", live: onServer(func(c *corev1.Container) {
			c.Lifecycle.PostStart = &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"sh"}}}
		})},
		{control: "POD-18", name: "a variable", says: "variables", live: onServer(func(c *corev1.Container) {
			c.Env = append(c.Env, corev1.EnvVar{Name: "LD_PRELOAD", Value: "/tmp/x.so"})
		})},
		{control: "POD-18", name: "another value", says: "variables", live: onServer(func(c *corev1.Container) { c.Env[0].Value = "debug" })},
		{control: "POD-18", name: "another source", says: "variables", live: onServer(func(c *corev1.Container) { c.Env[1].ValueFrom.SecretKeyRef.Key = "other" })},
		{control: "POD-18", name: "trimmed", want: v1alpha1.ControlPass, live: onPod(compliance.TrimPod)},
		{control: "POD-18", name: "another value, trimmed", says: "variables", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.Containers[0].Env[0].Value = "debug"
			compliance.TrimPod(pod)
		})},
		{control: "POD-18", name: "a whole Secret", says: "variables", live: onServer(func(c *corev1.Container) { c.EnvFrom = []corev1.EnvFromSource{{}} })},
		{control: "POD-18", name: "another command of the probe", says: "init container isolation-probe: command", live: onPod(func(pod *corev1.Pod) { pod.Spec.InitContainers[0].Args = nil })},
		{control: "POD-18", name: "a probe that goes on running", says: "restart policy", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.InitContainers[0].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		})},
		{control: "POD-18", name: "no probe", says: "init container isolation-probe is missing", live: onPod(func(pod *corev1.Pod) { pod.Spec.InitContainers = nil })},
		{control: "POD-18", name: "another resolver", says: "looks names up", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"203.0.113.53"}}
		})},
		{control: "POD-18", name: "names of its own", says: "looks names up", live: onPod(func(pod *corev1.Pod) {
			pod.Spec.HostAliases = []corev1.HostAlias{{IP: "203.0.113.1", Hostnames: []string{"postgres.data"}}}
		})},
		{control: "POD-18", name: "no gateway", says: "init container gateway is missing", live: onPod(func(pod *corev1.Pod) { pod.Spec.InitContainers = pod.Spec.InitContainers[:1] })},
		{control: "POD-18", name: "a gateway that leads elsewhere", says: "init container gateway: command, args", live: onPod(func(pod *corev1.Pod) {
			initContainer(pod, plan.GatewayContainerName).Args[1] = "-upstream=http://203.0.113.1/mcp"
		})},
		{control: "POD-18", name: "a gateway that ends before the server starts", says: "restart policy", live: onPod(func(pod *corev1.Pod) {
			initContainer(pod, plan.GatewayContainerName).RestartPolicy = nil
		})},
		{control: "POD-18", name: "a copy of something else", spec: stdio, says: "init container gateway-copy: command", live: onPod(func(pod *corev1.Pod) {
			initContainer(pod, plan.GatewayCopyContainerName).Command = []string{"/evil"}
		})},
		{control: "POD-18", name: "past the gateway", spec: stdio, says: "container server: command", live: onServer(func(c *corev1.Container) { c.Command = []string{"/server"} })},
		{control: "POD-18", name: "a terminal", says: "tty", live: onServer(func(c *corev1.Container) { c.TTY = true })},
		{control: "POD-18", name: "another command, in a rollout", want: v1alpha1.ControlUnknown, says: "rollout", live: inRollout(onServer(func(c *corev1.Container) { c.Command = []string{"sh"} }))},
		{control: "POD-18", name: "another command, in a pod that is ending", want: v1alpha1.ControlUnknown, says: "rollout", live: onPod(func(pod *corev1.Pod) {
			pod.DeletionTimestamp, pod.Spec.Containers[0].Command = &metav1.Time{Time: now}, []string{"sh"}
		})},
		{control: "POD-18", name: "another command, of a revision that the status does not tell of yet", want: v1alpha1.ControlUnknown, says: "rollout", live: onPod(func(pod *corev1.Pod) {
			pod.Labels["pod-template-hash"], pod.Spec.Containers[0].Command = "old", []string{"sh"}
		})},
		{control: "POD-18", name: "no Deployment", want: v1alpha1.ControlUnknown, says: "no Deployment", live: func(in *compliance.Input) { in.Live.Deployment = nil }},
	})
}

func noPods(in *compliance.Input) { in.Live.Pods.Value = nil }

// unplanProbe takes the probe of isolation out of plan and Deployment, and leaves it in the pods.
func unplanProbe(in *compliance.Input) {
	in.Plan.ProbeImage, in.Plan.InitContainers = "", nil
	in.Live.Deployment.Spec.Template.Spec.InitContainers = nil
}
