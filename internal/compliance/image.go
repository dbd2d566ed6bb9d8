package compliance

import (
	"strings"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// imageControls are about what runs.
var imageControls = []Control{
	{
		ID: "IMG-01", Title: "The image is from a repository that policy allows", Severity: v1alpha1.SeverityHigh, Reads: "spec.image; policies", Enforced: true,
		Rationale:  "Whoever can make a cluster run an image of their own choice runs their own code with the server's credentials.",
		Remedy:     "Use an image of a repository in images.allowedRepositories, or have it added there.",
		References: []string{"OWASP MCP04:2025", "CoSAI MCP-T11", "CIS Kubernetes 5.5.1"},
		declared:   repositoryAllowed,
	},
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
