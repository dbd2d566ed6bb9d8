package compliance

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// Selecting are the policies that select a namespace with some labels, sorted by name. An error says that a selector is
// not valid: what it selects nobody knows.
func Selecting(policies []v1alpha1.MCPPolicy, namespaceLabels map[string]string) ([]v1alpha1.MCPPolicy, error) {
	var out []v1alpha1.MCPPolicy
	for i := range policies {
		selects, err := Selects(&policies[i], namespaceLabels)
		if err != nil {
			return nil, err
		}
		if selects {
			out = append(out, policies[i])
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.MCPPolicy) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Selects tells whether a policy selects a namespace with some labels. A policy that is being deleted does, to its end.
func Selects(policy *v1alpha1.MCPPolicy, namespaceLabels map[string]string) (bool, error) {
	in := &policy.Spec.NamespaceSelector
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{}}
	for key, value := range in.MatchLabels {
		selector.MatchLabels[key] = string(value)
	}
	for _, e := range in.MatchExpressions {
		requirement := metav1.LabelSelectorRequirement{Key: string(e.Key), Operator: metav1.LabelSelectorOperator(e.Operator)}
		for _, value := range e.Values {
			requirement.Values = append(requirement.Values, string(value))
		}
		selector.MatchExpressions = append(selector.MatchExpressions, requirement)
	}
	compiled, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return false, fmt.Errorf("policy %s: spec.namespaceSelector: %w", policy.Name, err)
	}
	return compiled.Matches(labels.Set(namespaceLabels)), nil
}

// Contradiction says why no server can satisfy two policies that select the same namespace; empty where one could.
func Contradiction(a, b *v1alpha1.MCPPolicySpec) string {
	if a.Images != nil && b.Images != nil && len(a.Images.AllowedRepositories) > 0 && len(b.Images.AllowedRepositories) > 0 &&
		!anyPair(a.Images.AllowedRepositories, b.Images.AllowedRepositories, repositoriesOverlap) {
		return "they have no repository in common (images.allowedRepositories)"
	}
	if a.Pods != nil && b.Pods != nil && len(a.Pods.AllowedRuntimeClassNames) > 0 && len(b.Pods.AllowedRuntimeClassNames) > 0 &&
		!anyPair(a.Pods.AllowedRuntimeClassNames, b.Pods.AllowedRuntimeClassNames, func(a, b v1alpha1.ObjectName) bool { return a == b }) {
		return "they have no runtime class in common (pods.allowedRuntimeClassNames)"
	}
	return ""
}

func anyPair[T any](as, bs []T, match func(a, b T) bool) bool {
	for _, a := range as {
		for _, b := range bs {
			if match(a, b) {
				return true
			}
		}
	}
	return false
}

func repositoriesOverlap(a, b v1alpha1.RepositoryPattern) bool {
	return repositoryMatches(string(a), b) || repositoryMatches(string(b), a)
}
