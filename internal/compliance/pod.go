package compliance

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// remedyPod of a pod that is not as the operator made it.
const remedyPod = "Find the admission webhook, or whoever else changed the pod, and delete the pod: the operator makes a new one."

// podControls are about how pods run.
var podControls = []Control{
	{
		ID: "POD-01", Title: "Only planned containers run in the pods", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "Whatever runs in a server's pod shares its network, and so everything that its NetworkPolicies and the egress proxy allow the server.",
		Remedy:     "Exclude the namespace from what injects containers, or delete the pod that kubectl debug was used on.",
		References: []string{"OWASP MCP09:2025", "CoSAI MCP-T9", "NSA/CISA: Kubernetes Pod security"},
		live:       onlyPlannedContainers,
	},
	{
		ID: "POD-02", Title: "Every container runs as a numeric user and group that are not root", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "Root in a container is root on the node for every flaw of the kernel or the runtime, and owns what the image holds.",
		Remedy:     remedyPod,
		Fix:        "Set runAsNonRoot, and a runAsUser and a runAsGroup other than 0, in securityContext.",
		References: []string{"PSS restricted", "OWASP MCP02:2025", "CoSAI MCP-T9", "CIS Kubernetes 5.2.7", "NSA/CISA: non-root containers"},
		pod:        eachContainersUser,
	},
	{
		ID: "POD-03", Title: "The root file systems are read-only", Severity: v1alpha1.SeverityMedium, Reads: "live pods",
		Rationale:  "Who can write to the image's files can replace a program and stay there until the pod ends.",
		Remedy:     remedyPod,
		Fix:        "Set securityContext.readOnlyRootFilesystem to true, and mount an emptyDir where it writes.",
		References: []string{"OWASP MCP05:2025", "CoSAI MCP-T6", "CIS Kubernetes 5.7.3", "NSA/CISA: immutable container file systems"},
		pod: eachContainer(func(_ *corev1.PodSecurityContext, c *podContainer) string {
			return unless(isTrue(c.context().ReadOnlyRootFilesystem), "its root file system can be written to")
		}),
	},
	{
		ID: "POD-04", Title: "All capabilities are dropped and none is added", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "A capability is a part of root's power: NET_RAW forges packets, SYS_ADMIN is nearly all of it.",
		Remedy:     remedyPod,
		Fix:        "Set securityContext.capabilities to drop [ALL], and add none.",
		References: []string{"PSS restricted", "OWASP MCP02:2025", "CIS Kubernetes 5.2.9", "CIS Kubernetes 5.2.10", "NSA/CISA: Kubernetes Pod security"},
		pod: eachContainer(func(_ *corev1.PodSecurityContext, c *podContainer) string {
			capabilities := c.context().Capabilities
			switch {
			case capabilities == nil || !slices.Contains(capabilities.Drop, "ALL"):
				return "it does not drop all capabilities"
			case len(capabilities.Add) > 0:
				return fmt.Sprintf("it adds capabilities %v", capabilities.Add)
			}
			return ""
		}),
	},
	{
		ID: "POD-05", Title: "No container is privileged or can gain privileges", Severity: v1alpha1.SeverityCritical, Reads: "live pods",
		Rationale:  "A privileged container is root on its node, and from a node an attacker reaches every pod and secret on it.",
		Remedy:     remedyPod,
		Fix:        "Set securityContext.allowPrivilegeEscalation to false, and leave privileged out.",
		References: []string{"PSS baseline", "PSS restricted", "OWASP MCP02:2025", "CIS Kubernetes 5.2.2", "CIS Kubernetes 5.2.6", "NSA/CISA: Kubernetes Pod security"},
		pod: eachContainer(func(_ *corev1.PodSecurityContext, c *podContainer) string {
			switch context := c.context(); {
			case isTrue(context.Privileged):
				return "it is privileged"
			case !isFalse(context.AllowPrivilegeEscalation):
				return "it can gain privileges (allowPrivilegeEscalation is not false)"
			}
			return ""
		}),
	},
	{
		ID: "POD-06", Title: "System calls are filtered", Severity: v1alpha1.SeverityMedium, Reads: "live pods",
		Rationale:  "Without the runtime's seccomp profile every system call of the kernel is open to whoever takes the server over.",
		Remedy:     remedyPod,
		Fix:        "Set securityContext.seccompProfile.type to RuntimeDefault.",
		References: []string{"PSS restricted", "CIS Kubernetes 5.7.2", "NSA/CISA: hardening container environments"},
		pod: eachContainer(func(pod *corev1.PodSecurityContext, c *podContainer) string {
			profile := c.context().SeccompProfile
			if profile == nil {
				profile = pod.SeccompProfile
			}
			return unless(profile != nil && (profile.Type == corev1.SeccompProfileTypeRuntimeDefault || profile.Type == corev1.SeccompProfileTypeLocalhost),
				"no seccomp profile filters its system calls")
		}),
	},
	{
		ID: "POD-07", Title: "The pods hold no credential for the API server", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "An MCP server runs what a model asks for; a token in its pod lets that reach the cluster's API.",
		Remedy:     remedyPod,
		Fix:        "Set automountServiceAccountToken to false, and project no token.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T1", "CIS Kubernetes 5.1.6", "NSA/CISA: protecting Pod service account tokens"},
		pod:        noToken,
	},
	{
		ID: "POD-08", Title: "The environment does not list the namespace's Services", Severity: v1alpha1.SeverityLow, Reads: "live pods",
		Rationale:  "Service links tell whoever takes the server over what else there is to attack, and where.",
		Remedy:     remedyPod,
		Fix:        "Set enableServiceLinks to false.",
		References: []string{"OWASP MCP10:2025", "CoSAI MCP-T5"},
		pod: func(pod *corev1.Pod, report reportFunc) {
			if !isFalse(pod.Spec.EnableServiceLinks) {
				report("spec.enableServiceLinks", " gets the addresses of Services in its environment (enableServiceLinks is not false)")
			}
		},
	},
	{
		ID: "POD-09", Title: "The pods use no namespace or port of their node, and their containers none of each other's", Severity: v1alpha1.SeverityCritical, Reads: "live pods",
		Rationale:  "In the node's network no NetworkPolicy applies; in its process or IPC namespace a server can read and end what is not its own.",
		Remedy:     remedyPod,
		Fix:        "Leave hostNetwork, hostPID, hostIPC, shareProcessNamespace and hostPort out.",
		References: []string{"PSS baseline", "OWASP MCP02:2025", "CoSAI MCP-T8", "CIS Kubernetes 5.2.3", "CIS Kubernetes 5.2.4", "CIS Kubernetes 5.2.5", "CIS Kubernetes 5.2.13"},
		pod:        noHostNamespaces,
	},
	{
		ID: "POD-10", Title: "The pods mount what is planned and nothing else", Severity: v1alpha1.SeverityCritical, Reads: "live pods; Deployment",
		Rationale:  "A path of the node, a Secret of somebody else or a device in a server's pod is one that the server can read or change.",
		Remedy:     remedyPod,
		Fix:        "Mount ConfigMaps, Secrets, claims or empty folders, and no path or device of the node.",
		References: []string{"PSS restricted", "OWASP MCP10:2025", "CoSAI MCP-T9", "CIS Kubernetes 5.2.12"},
		live:       onlyPlannedVolumes,
		workload:   ordinaryVolumes.workload,
	},
	{
		ID: "POD-11", Title: "CPU, memory and storage are bounded", Severity: v1alpha1.SeverityMedium, Reads: "live pods",
		Rationale:  "A server without limits can take its node down, and with it every other pod there.",
		Remedy:     remedyPod,
		Fix:        "Set resources.limits for cpu, memory and ephemeral-storage, and sizeLimit of every emptyDir.",
		References: []string{"CoSAI MCP-T10", "NSA/CISA: resource policies"},
		pod:        resourcesBounded,
	},
	{
		ID: "POD-12", Title: "No sysctl, proc mount, AppArmor or SELinux setting lowers the floor", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "Each of these opens a part of the kernel that a container is shut out of by default.",
		Remedy:     remedyPod,
		Fix:        "Leave sysctls, procMount, hostProcess and options of AppArmor and SELinux at their defaults.",
		References: []string{"PSS baseline", "CIS Kubernetes 5.2.11", "CIS Kubernetes 5.7.3", "NSA/CISA: hardening container environments"},
		pod:        noOverrides,
	},
	{
		ID: "POD-13", Title: "Every pod is one of the server's Deployment", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "A pod that carries the server's labels gets its requests and its way out, whatever it runs.",
		Remedy:     "Delete the pod, and see who may create pods in the namespace.",
		References: []string{"OWASP MCP09:2025", "CoSAI MCP-T11", "CIS Kubernetes 5.1.4"},
		live: func(in *Input, live *Live) Outcome {
			return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
				if isLabelled(in.Server, pod) && !isChild(in.Server, pod) {
					out.fail("pod %s carries the server's labels and is not of its Deployment: delete it, and see who made it", pod.Name)
				}
			})
		},
	},
	{
		ID: "POD-14", Title: "Nothing else runs under the server's account", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "A pod of the server that lost its labels is one that no NetworkPolicy of the server's selects; another pod has no business with its account.",
		Remedy:     "Delete the pod, or give it an account of its own.",
		References: []string{"OWASP MCP09:2025", "CoSAI MCP-T1", "NSA/CISA: authentication and authorization"},
		live: func(in *Input, live *Live) Outcome {
			return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
				if !isLabelled(in.Server, pod) {
					out.fail("pod %s runs under the server's account and does not carry its labels, so that its NetworkPolicy does not apply: delete it, or give it another account", pod.Name)
				}
			})
		},
	},
	{
		ID: "POD-15", Title: "Pods run in a user namespace where policy demands it", Severity: v1alpha1.SeverityMedium, Reads: "spec.filesystem.data; live pods; policies", Enforced: true,
		Rationale:  "In a user namespace the pod's users mean nothing on the node, so that who breaks out is nobody there.",
		Remedy:     "Run the server on nodes that support user namespaces, and mount ConfigMaps instead of claims: with a claim the operator gives none.",
		Fix:        "Set hostUsers to false.",
		References: []string{"OWASP MCP02:2025", "CoSAI MCP-T9", "NSA/CISA: non-root containers"},
		declared:   canHaveUserNamespace,
		live: func(in *Input, live *Live) Outcome {
			return eachPodUnderPolicy(in, live, func(p *v1alpha1.MCPPolicySpec, pod *corev1.Pod) string {
				return unless(p.Pods == nil || !p.Pods.RequireUserNamespace || isFalse(pod.Spec.HostUsers),
					"does not run in a user namespace: see that every node that it may run on supports them, then change the spec or restart the rollout")
			})
		},
		workload: userNamespaceDemanded,
	},
	{
		ID: "POD-16", Title: "The runtime class is one that policy allows", Severity: v1alpha1.SeverityMedium, Reads: "spec.scheduling.runtimeClassName; live pods; policies", Enforced: true,
		Rationale:  "A sandboxed runtime keeps the node's kernel out of reach of a server that runs untrusted code.",
		Remedy:     "Set spec.scheduling.runtimeClassName to one of pods.allowedRuntimeClassNames.",
		Fix:        "Set runtimeClassName to one of pods.allowedRuntimeClassNames.",
		References: []string{"OWASP MCP05:2025", "CoSAI MCP-T9", "NSA/CISA: hardening container environments"},
		declared: func(in *Input) Outcome {
			return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
				wrong := runtimeClassProblem(p, runtimeClassOf(in.Server))
				return violation("spec.scheduling.runtimeClassName", wrong), p.Pods != nil && len(p.Pods.AllowedRuntimeClassNames) > 0
			})
		},
		live: func(in *Input, live *Live) Outcome {
			return eachPodUnderPolicy(in, live, func(p *v1alpha1.MCPPolicySpec, pod *corev1.Pod) string {
				name := ""
				if pod.Spec.RuntimeClassName != nil {
					name = *pod.Spec.RuntimeClassName
				}
				return runtimeClassProblem(p, name)
			})
		},
		workload: runtimeClassAllowed,
		saysFix:  true,
	},
	{
		ID: "POD-17", Title: "The limits are within those of policy", Severity: v1alpha1.SeverityMedium, Reads: "spec.resources; live pods; policies", Enforced: true,
		Rationale:  "Limits that are too great let one server use up what was meant for all.",
		Remedy:     "Lower spec.resources.limits to what pods.maxResources allows; what is left out has a default.",
		Fix:        "Lower resources.limits to what pods.maxResources allows.",
		References: []string{"CoSAI MCP-T10", "NSA/CISA: resource policies"},
		declared: func(in *Input) Outcome {
			limits := plan.EffectiveResources(&in.Server.Spec).Limits
			return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
				var out Outcome
				for _, r := range exceeding(p, limits.CPU, limits.Memory, limits.EphemeralStorage) {
					out.blame("spec.resources.limits."+r.name, "%s is more than pods.maxResources allows (%s): lower it", r.have, r.most)
				}
				return out.Violations, p.Pods != nil && p.Pods.MaxResources != nil
			})
		},
		live: func(in *Input, live *Live) Outcome {
			return eachPodUnderPolicy(in, live, func(p *v1alpha1.MCPPolicySpec, pod *corev1.Pod) string {
				limits := serverContainer(&pod.Spec).Resources.Limits
				for _, r := range exceeding(p, limits.Cpu(), limits.Memory(), limits.StorageEphemeral()) {
					return fmt.Sprintf("has a limit of %s for %s, which is more than pods.maxResources allows (%s): %s", r.have, r.name, r.most, replacePod)
				}
				return ""
			})
		},
		workload: limitsWithinPolicy,
	},
	{
		ID: "POD-18", Title: "The pods run the declared processes", Severity: v1alpha1.SeverityHigh, Reads: "live pods; Deployment",
		Rationale:  "A changed command, hook or variable (LD_PRELOAD, NODE_OPTIONS) runs other code in an image that is trusted; without its first container a pod proves nothing.",
		Remedy:     remedyPod,
		References: []string{"OWASP MCP05:2025", "CoSAI MCP-T6", "CoSAI MCP-T11"},
		live:       declaredProcesses,
	},
}

func isTrue(b *bool) bool  { return b != nil && *b }
func isFalse(b *bool) bool { return b != nil && !*b }

// unless says what is wrong where something does not hold.
func unless(holds bool, wrong string) string {
	if holds {
		return ""
	}
	return wrong
}

func violation(field, wrong string) []Violation {
	if wrong == "" {
		return nil
	}
	return []Violation{{Field: field, Message: wrong}}
}

// helperContainers are the init containers that a plan may have.
var helperContainers = []string{probe.InitContainerName, plan.GatewayContainerName, plan.GatewayCopyContainerName}

// onlyPlannedContainers knows the server's container and its helpers, where they are planned. A pod of the revision before may
// have a helper that the plan has not any more.
func onlyPlannedContainers(in *Input, live *Live) Outcome {
	planned := plannedHelpers(in, live)
	return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		for _, c := range containersOf(pod) {
			switch isHelper := c.kind == kindInit && slices.Contains(helperContainers, c.Name); {
			case c.kind == kindContainer && c.Name == plan.ContainerName, isHelper && slices.Contains(planned, c.Name):
			case isHelper && !isSettled(live):
				out.unsure("pod %s has the init container %s, which is not planned any more: it may be of the revision before", pod.Name, c.Name)
			default:
				out.fail("pod %s, %s: it is not planned: %s", pod.Name, &c, replacePod)
			}
		}
	})
}

// plannedHelpers are the init containers that are planned and, since the plan may not be applied, those of the live Deployment.
func plannedHelpers(in *Input, live *Live) []string {
	var out []string
	if in.Plan != nil {
		out = slices.Clone(in.Plan.InitContainers)
	}
	if live.Deployment != nil {
		for i := range live.Deployment.Spec.Template.Spec.InitContainers {
			out = append(out, live.Deployment.Spec.Template.Spec.InitContainers[i].Name)
		}
	}
	return out
}

// eachContainersUser excuses nobody because of a user namespace.
func eachContainersUser(pod *corev1.Pod, report reportFunc) {
	eachContainer(func(pod *corev1.PodSecurityContext, c *podContainer) string {
		own := c.context()
		user, group, nonRoot := either(own.RunAsUser, pod.RunAsUser), either(own.RunAsGroup, pod.RunAsGroup), either(own.RunAsNonRoot, pod.RunAsNonRoot)
		switch {
		case user == nil:
			return "its user is left to the image (no runAsUser)"
		case *user == 0:
			return "it runs as root (runAsUser 0)"
		case group == nil || *group == 0:
			return "it runs in root's group, or the one that the image names"
		case !isTrue(nonRoot):
			return "nothing keeps it from running as root (runAsNonRoot is not true)"
		}
		return ""
	})(pod, report)
	context := contextOf(pod)
	if slices.Contains(context.SupplementalGroups, 0) || context.FSGroup != nil && *context.FSGroup == 0 {
		report("spec.securityContext", " has root's group (supplementalGroups or fsGroup 0)")
	}
}

func either[T any](first, second *T) *T {
	if first != nil {
		return first
	}
	return second
}

func noToken(pod *corev1.Pod, report reportFunc) {
	if !isFalse(pod.Spec.AutomountServiceAccountToken) {
		report("spec.automountServiceAccountToken", " is given a token of its account (automountServiceAccountToken is not false)")
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.ServiceAccountToken != nil || s.PodCertificate != nil
		}) {
			report(volumeField(&v), ": volume "+v.Name+" holds a token or a certificate of its account")
		}
	}
}

func volumeField(v *corev1.Volume) string { return "spec.volumes[" + v.Name + "]" }

func noHostNamespaces(pod *corev1.Pod, report reportFunc) {
	for _, n := range []struct {
		field string
		used  bool
	}{
		{"hostNetwork", pod.Spec.HostNetwork}, {"hostPID", pod.Spec.HostPID}, {"hostIPC", pod.Spec.HostIPC},
		{"shareProcessNamespace", isTrue(pod.Spec.ShareProcessNamespace)},
	} {
		if n.used {
			report("spec."+n.field, " has "+n.field)
		}
	}
	for _, c := range containersOf(pod) {
		if slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 }) {
			report(c.field("ports"), fmt.Sprintf(", %s: it takes a port of its node (hostPort)", &c))
		}
	}
}

// onlyPlannedVolumes refuses kinds of volumes that no plan has whatever the revision, and compares the rest with the
// template.
func onlyPlannedVolumes(in *Input, live *Live) Outcome {
	out := asTemplate(in, live, func(pod *corev1.Pod, template *corev1.PodSpec) []string {
		var wrong []string
		for _, v := range pod.Spec.Volumes {
			if isPlannedKind(&v) && !slices.ContainsFunc(template.Volumes, func(t corev1.Volume) bool { return equality.Semantic.DeepEqual(t, v) }) {
				wrong = append(wrong, "volume "+v.Name+" is not as planned")
			}
		}
		containers := containersOf(pod)
		for _, want := range containersOf(&corev1.Pod{Spec: *template}) {
			at := slices.IndexFunc(containers, func(c podContainer) bool { return c.kind == want.kind && c.Name == want.Name })
			if at >= 0 && !equality.Semantic.DeepEqual(containers[at].VolumeMounts, want.VolumeMounts) {
				wrong = append(wrong, "the mounts of "+want.String()+" are not as planned")
			}
		}
		return wrong
	})
	if live.Pods.Unknown != "" {
		return out
	}
	for _, pod := range running(live) {
		volumesOfKinds(isPlannedKind)(pod, func(_, said string) { out.fail("pod %s%s: %s", pod.Name, said, replacePod) })
	}
	return out
}

// volumesOfKinds refuses every other kind of volume, and devices.
func volumesOfKinds(isMeant func(*corev1.Volume) bool) podCheck {
	return func(pod *corev1.Pod, report reportFunc) {
		for _, v := range pod.Spec.Volumes {
			if !isMeant(&v) {
				report(volumeField(&v), ": volume "+v.Name+" is of a kind that no server has")
			}
		}
		if len(pod.Spec.ResourceClaims) > 0 || slices.ContainsFunc(containersOf(pod), func(c podContainer) bool { return len(c.VolumeDevices) > 0 }) {
			report("spec.resourceClaims", " is given a device")
		}
	}
}

// ordinaryVolumes are the kinds that a plan may have, and those that do the same: a workload's author names them. Tokens in projected
// volumes are the matter of POD-07. Inline CSI volumes may be anything that a driver makes of them.
// A volume that names a second kind is the API server's to refuse, and not to be taken for the first.
var ordinaryVolumes = volumesOfKinds(func(v *corev1.Volume) bool {
	rest := v.VolumeSource
	rest.EmptyDir, rest.PersistentVolumeClaim, rest.Ephemeral, rest.Image = nil, nil, nil, nil
	rest.ConfigMap, rest.Secret, rest.DownwardAPI, rest.Projected = nil, nil, nil, nil
	return rest == corev1.VolumeSource{}
})

// isPlannedKind tells the kinds of volumes that a plan may have: empty folders, claims, ConfigMaps, images (the gateway's) and files
// of Secrets.
func isPlannedKind(v *corev1.Volume) bool {
	if v.Projected != nil {
		return !slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return !equality.Semantic.DeepEqual(s, corev1.VolumeProjection{Secret: s.Secret})
		})
	}
	return v.EmptyDir != nil || v.PersistentVolumeClaim != nil || v.ConfigMap != nil || v.Image != nil
}

func resourcesBounded(pod *corev1.Pod, report reportFunc) {
	for _, c := range containersOf(pod) {
		if c.kind == kindEphemeral {
			continue // it can have none, and none is planned
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			if limit, ok := c.Resources.Limits[name]; !ok || limit.Sign() <= 0 {
				report(c.field("resources.limits."+string(name)), fmt.Sprintf(", %s: it has no limit for %s", &c, name))
			}
		}
	}
	for _, v := range pod.Spec.Volumes {
		if v.EmptyDir != nil && (v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.Sign() <= 0) {
			report(volumeField(&v), ": volume "+v.Name+" has no sizeLimit")
		}
	}
}

// lowPortSysctl lets a server without capabilities listen on a port below 1024, in its own network.
const lowPortSysctl = "net.ipv4.ip_unprivileged_port_start"

// selinuxTypes are those that the Pod Security Standards allow.
var selinuxTypes = []string{"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}

func noOverrides(pod *corev1.Pod, report reportFunc) {
	eachContainer(func(pod *corev1.PodSecurityContext, c *podContainer) string {
		context := c.context()
		switch windows := either(context.WindowsOptions, pod.WindowsOptions); {
		case context.ProcMount != nil && *context.ProcMount != corev1.DefaultProcMount:
			return "its /proc is not masked (procMount)"
		case isUnconfined(either(context.AppArmorProfile, pod.AppArmorProfile)):
			return "AppArmor does not confine it"
		case !isUsualSELinux(either(context.SELinuxOptions, pod.SELinuxOptions)):
			return "it has SELinux options that the Pod Security Standards forbid"
		case windows != nil && isTrue(windows.HostProcess):
			return "it is a process of its node (hostProcess)"
		}
		return ""
	})(pod, report)
	for _, s := range contextOf(pod).Sysctls {
		if s.Name != lowPortSysctl {
			report("spec.securityContext.sysctls", " sets the sysctl "+s.Name)
		}
	}
}

func isUnconfined(profile *corev1.AppArmorProfile) bool {
	return profile != nil && profile.Type == corev1.AppArmorProfileTypeUnconfined
}

func isUsualSELinux(options *corev1.SELinuxOptions) bool {
	return options == nil || options.User == "" && options.Role == "" && slices.Contains(selinuxTypes, options.Type)
}

// canHaveUserNamespace finds what keeps the operator from giving one whatever the nodes support.
func canHaveUserNamespace(in *Input) Outcome {
	return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
		if p.Pods == nil || !p.Pods.RequireUserNamespace {
			return nil, false
		}
		var out Outcome
		if files := in.Server.Spec.Filesystem; files != nil {
			for i := range files.Data {
				if files.Data[i].ClaimName != "" {
					out.blame(fmt.Sprintf("spec.filesystem.data[%d].claimName", i), "a pod that mounts a claim gets no user namespace, which pods.requireUserNamespace demands: mount a ConfigMap, or have the server exempted")
				}
			}
		}
		return out.Violations, true
	})
}

// eachPodUnderPolicy asks of every pod that runs and every policy what is wrong.
func eachPodUnderPolicy(in *Input, live *Live, ask func(*v1alpha1.MCPPolicySpec, *corev1.Pod) string) Outcome {
	return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		for i := range in.Policies {
			if wrong := ask(&in.Policies[i].Spec, pod); wrong != "" {
				out.Violations = append(out.Violations, Violation{Policy: in.Policies[i].Name, Message: "pod " + pod.Name + " " + wrong})
			}
		}
	})
}

func runtimeClassOf(server *v1alpha1.MCPServer) string {
	if server.Spec.Scheduling == nil {
		return ""
	}
	return string(server.Spec.Scheduling.RuntimeClassName)
}

func runtimeClassProblem(p *v1alpha1.MCPPolicySpec, name string) string {
	if p.Pods == nil || len(p.Pods.AllowedRuntimeClassNames) == 0 || slices.Contains(p.Pods.AllowedRuntimeClassNames, v1alpha1.ObjectName(name)) {
		return ""
	}
	return fmt.Sprintf("runtime class %q is not among pods.allowedRuntimeClassNames: choose one of those", name)
}

// excess is a limit that is greater than allowed.
type excess struct {
	name       string
	have, most *resource.Quantity
}

func exceeding(p *v1alpha1.MCPPolicySpec, cpu, memory, storage *resource.Quantity) []excess {
	if p.Pods == nil || p.Pods.MaxResources == nil {
		return nil
	}
	most := p.Pods.MaxResources
	return slices.DeleteFunc([]excess{{"cpu", cpu, most.CPU}, {"memory", memory, most.Memory}, {"ephemeral-storage", storage, most.EphemeralStorage}},
		func(e excess) bool {
			return e.most == nil || e.have != nil && e.have.Sign() > 0 && e.have.Cmp(*e.most) <= 0
		})
}

// declaredProcesses compares what every planned container runs with the template, and how the pod finds names; values of
// variables by their digests.
func declaredProcesses(in *Input, live *Live) Outcome {
	return asTemplate(in, live, func(pod *corev1.Pod, template *corev1.PodSpec) []string {
		var wrong []string
		containers := containersOf(pod)
		for _, want := range containersOf(&corev1.Pod{Spec: *template}) {
			at := slices.IndexFunc(containers, func(c podContainer) bool { return c.kind == want.kind && c.Name == want.Name })
			if at < 0 {
				wrong = append(wrong, want.String()+" is missing")
				continue
			}
			for _, difference := range processDifferences(&containers[at].Container, &want.Container) {
				wrong = append(wrong, want.String()+": "+difference)
			}
		}
		if pod.Spec.DNSPolicy != template.DNSPolicy || !equality.Semantic.DeepEqual(pod.Spec.DNSConfig, template.DNSConfig) ||
			!equality.Semantic.DeepEqual(pod.Spec.HostAliases, template.HostAliases) {
			wrong = append(wrong, "it looks names up in another way than planned (dnsPolicy, dnsConfig, hostAliases)")
		}
		return wrong
	})
}

func processDifferences(have, want *corev1.Container) []string {
	var wrong []string
	if !slices.Equal(have.Command, want.Command) || !slices.Equal(have.Args, want.Args) || have.WorkingDir != want.WorkingDir {
		wrong = append(wrong, "command, args or working directory are not the declared ones")
	}
	if !equality.Semantic.DeepEqual(have.Lifecycle, want.Lifecycle) || !equality.Semantic.DeepEqual(have.RestartPolicy, want.RestartPolicy) {
		wrong = append(wrong, "its lifecycle hooks or its restart policy are not the planned ones")
	}
	if have.Stdin || have.TTY {
		wrong = append(wrong, "it takes input from who attaches to it (stdin, tty)")
	}
	if !slices.EqualFunc(have.Env, want.Env, isSameVariable) || len(have.EnvFrom) > 0 {
		wrong = append(wrong, "its variables are not the declared ones")
	}
	return wrong
}

func isSameVariable(a, b corev1.EnvVar) bool {
	return a.Name == b.Name && masked(a.Value) == masked(b.Value) && equality.Semantic.DeepEqual(a.ValueFrom, b.ValueFrom)
}
