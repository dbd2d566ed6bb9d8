package compliance

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// imageControls are about what runs.
var imageControls = []Control{
	{
		ID: "IMG-01", Title: "The image is from a repository that policy allows", Severity: v1alpha1.SeverityHigh, Reads: "spec.image; policies", Enforced: true,
		Rationale:  "Whoever can make a cluster run an image of their own choice runs their own code with the server's credentials.",
		Remedy:     "Use an image of a repository in images.allowedRepositories, or have it added there.",
		Fix:        "Use an image of a repository in images.allowedRepositories.",
		References: []string{"OWASP MCP04:2025", "CoSAI MCP-T11", "CIS Kubernetes 5.5.1"},
		declared:   repositoryAllowed,
		workload:   templateImages(repositoryAllowed),
		saysFix:    true,
	},
	{
		ID: "IMG-02", Title: "The image is pinned by digest", Severity: v1alpha1.SeverityMedium, Reads: "spec.image; policies", Enforced: true,
		Rationale:  "A tag can be moved: what was reviewed is not what the next pod pulls.",
		Remedy:     "Write the image as name@sha256:..., with the digest that status.image.digest shows.",
		Fix:        "Write the image as name@sha256:...; without a policy that demands it a workload need not.",
		References: []string{"OWASP MCP03:2025", "OWASP MCP04:2025", "CoSAI MCP-T6", "CoSAI MCP-T11"},
		declared:   digestPinned,
		workload:   templateImages(digestDemanded),
		saysFix:    true,
	},
	{
		ID: "IMG-03", Title: "Every pod runs the declared image", Severity: v1alpha1.SeverityHigh, Reads: "spec.image; live pods; Deployment",
		Rationale:  "Whoever swaps an image on its way to the node runs their own code with the server's credentials.",
		Remedy:     remedyPod,
		References: []string{"OWASP MCP04:2025", "OWASP MCP09:2025", "CoSAI MCP-T6", "CoSAI MCP-T11"},
		live:       declaredImage,
	},
	{
		ID: "IMG-04", Title: "All pods run the same contents", Severity: v1alpha1.SeverityMedium, Reads: "live pods",
		Rationale:  "Where one tag stands for two contents, somebody moved it: one of them is not what was reviewed.",
		Remedy:     "Pin the image by the digest that was reviewed.",
		References: []string{"OWASP MCP04:2025", "CoSAI MCP-T6", "CoSAI MCP-T11"},
		live:       oneDigest,
	},
	{
		ID: "IMG-05", Title: "The pods pull with the declared credentials", Severity: v1alpha1.SeverityMedium, Reads: "live pods; Deployment",
		Rationale:  "A pull secret that the spec does not name gives the pod's node access to a registry that nobody meant.",
		Remedy:     "Take imagePullSecrets off the server's ServiceAccount, and name those that are needed in spec.imagePullSecrets.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T11"},
		live: func(in *Input, live *Live) Outcome {
			return asTemplate(in, live, func(pod *corev1.Pod, template *corev1.PodSpec) []string {
				if slices.Equal(pod.Spec.ImagePullSecrets, template.ImagePullSecrets) {
					return nil
				}
				return []string{"its imagePullSecrets are not the declared ones"}
			})
		},
	},
}

// byTag is what is wrong with an image that is not pinned.
const byTag = "is named by a tag, which can be moved: pin it by digest (name@sha256:...)"

// digestPinned is what the catalogue recommends and a policy may demand.
func digestPinned(in *Input) Outcome {
	if strings.Contains(in.Server.Spec.Image, "@sha256:") {
		return Outcome{}
	}
	out := digestDemanded(in)
	if len(out.Violations) == 0 {
		out.blame("spec.image", byTag)
	}
	out.NotApplicable = false
	return out
}

// digestDemanded is what policies demand.
func digestDemanded(in *Input) Outcome {
	pinned := strings.Contains(in.Server.Spec.Image, "@sha256:")
	return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
		demands := p.Images != nil && p.Images.RequireDigest
		return violation("spec.image", unless(!demands || pinned, byTag)), demands
	})
}

// declaredImage compares every container that the template has, and the template with the spec.
func declaredImage(in *Input, live *Live) Outcome {
	out := asTemplate(in, live, func(pod *corev1.Pod, template *corev1.PodSpec) []string {
		var wrong []string
		planned := containersOf(&corev1.Pod{Spec: *template})
		for _, c := range containersOf(pod) {
			at := slices.IndexFunc(planned, func(p podContainer) bool { return p.kind == c.kind && p.Name == c.Name })
			if at >= 0 && planned[at].Image != c.Image {
				wrong = append(wrong, c.String()+" runs another image than the declared one, "+c.Image)
			}
		}
		return wrong
	})
	if d := live.Deployment; d != nil && isToRun(in.Server) && serverContainer(&d.Spec.Template.Spec).Image != in.Server.Spec.Image {
		out.unsure("the declared image is not rolled out: the Deployment still has another one")
	}
	return out
}

// oneDigest compares what the nodes' runtimes say of pods with the same image.
func oneDigest(in *Input, live *Live) Outcome {
	first := map[string]string{}
	return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		image, digest := serverContainer(&pod.Spec).Image, digestOf(pod)
		if digest == "" {
			out.unsure("pod %s has not told yet which contents it runs", pod.Name)
			return
		}
		switch known, ok := first[image]; {
		case !ok:
			first[image] = digest
		case known == digest:
		case isSettled(live):
			out.fail("pod %s runs other contents (%s) than another pod (%s) under the same name: pin the image by digest", pod.Name, digest, known)
		default:
			out.unsure("pod %s runs other contents than another one under the same name, and a rollout is under way", pod.Name)
		}
	})
}

// digestOf is what the node's runtime says that the server's container runs; empty before it runs.
func digestOf(pod *corev1.Pod) string {
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; s.Name == plan.ContainerName {
			if _, digest, ok := strings.Cut(s.ImageID, "@"); ok {
				return digest
			}
			return s.ImageID
		}
	}
	return ""
}

func repositoryAllowed(in *Input) Outcome {
	return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
		if p.Images == nil || len(p.Images.AllowedRepositories) == 0 {
			return nil, false
		}
		repository := repositoryOf(in.Server.Spec.Image)
		for _, pattern := range p.Images.AllowedRepositories {
			if repositoryMatches(repository, pattern) {
				return nil, true
			}
		}
		return []Violation{{Field: "spec.image", Message: repository + " is not among images.allowedRepositories: use an image from there, or have it added"}}, true
	})
}

func repositoryMatches(repository string, pattern v1alpha1.RepositoryPattern) bool {
	prefix, below := strings.CutSuffix(string(pattern), "*")
	return repository == string(pattern) || below && strings.HasPrefix(repository, prefix)
}

// repositoryOf is the repository of an image with its registry, in the form in which policies name it.
func repositoryOf(image string) string {
	name, _, _ := strings.Cut(image, "@")
	if slash, colon := strings.LastIndex(name, "/"), strings.LastIndex(name, ":"); colon > slash {
		name = name[:colon]
	}
	first, _, hasFolder := strings.Cut(name, "/")
	switch {
	case !hasFolder:
		return "docker.io/library/" + name
	case !strings.ContainsAny(first, ".:") && strings.ToLower(first) == first && first != "localhost":
		return "docker.io/" + name // a name in capitals can only be that of a registry
	case first == "index.docker.io":
		return strings.TrimPrefix(name, "index.")
	}
	return name
}
