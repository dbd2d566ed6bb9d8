package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// Support says what is known of a node.
type Support int

const (
	// SupportUnknown of a node that does not say, or not yet: it may be starting, or no kubelet's at all.
	SupportUnknown Support = iota
	// Unsupported by a node that says so.
	Unsupported
	// Supported by a node that says so.
	Supported
)

// features that the pods of a server get: those that every eligible node supports. Where a
// Deployment is up, a node that comes or goes must not roll it: a feature it was given is dropped only
// when an eligible node says that it cannot run it, and one it lacks is taken up with the next change of
// the spec. What it was given is in the status, not in the Deployment, which others may edit.
func features(server *v1alpha1.MCPServer, facts Facts) []v1alpha1.PodFeature {
	isNew := facts.Live == nil || server.Status.ObservedGeneration != server.Generation
	out := supported(&server.Spec, facts.Nodes, !isNew)
	if !isNew {
		out = slices.DeleteFunc(out, func(feature v1alpha1.PodFeature) bool { return !slices.Contains(server.Status.PodFeatures, feature) })
	}
	if slices.Contains(out, v1alpha1.PodFeatureUserNamespace) { // kernels fail to map an image volume into one
		out = slices.DeleteFunc(out, func(feature v1alpha1.PodFeature) bool { return feature == v1alpha1.PodFeatureImageVolume })
	}
	return out
}

// hasImageVolume tells whether the gateway comes to a server on stdio by an image volume.
func (b builder) hasImageVolume() bool {
	return slices.Contains(b.features, v1alpha1.PodFeatureImageVolume)
}

// supported are the features that every eligible node supports; unknown is what counts where a node
// does not say, and where there is no eligible node.
func supported(spec *v1alpha1.MCPServerSpec, nodes []Node, unknown bool) []v1alpha1.PodFeature {
	scheduling := spec.Scheduling
	if scheduling == nil {
		scheduling = &v1alpha1.Scheduling{}
	}
	able := func(s Support) bool { return s == Supported || (s == SupportUnknown && unknown) }
	userNamespace, strictGroups, imageVolume, eligible := true, true, spec.Transport.Type == v1alpha1.TransportStdio, false
	for i := range nodes {
		node := &nodes[i]
		if !selects(scheduling.NodeSelector, node.Labels) || isForeignOS(node) {
			continue
		}
		eligible = true
		handler := node.DefaultUserNamespaces
		if scheduling.RuntimeClassName != "" {
			handler = node.UserNamespaces
		}
		userNamespace = userNamespace && able(handler)
		strictGroups = strictGroups && able(node.StrictGroups)
		imageVolume = imageVolume && able(node.ImageVolumes)
	}
	var out []v1alpha1.PodFeature
	if !eligible && !unknown {
		return out
	}
	if userNamespace && !mountsClaim(spec) {
		out = append(out, v1alpha1.PodFeatureUserNamespace)
	}
	if strictGroups {
		out = append(out, v1alpha1.PodFeatureStrictSupplementalGroups)
	}
	if imageVolume {
		out = append(out, v1alpha1.PodFeatureImageVolume)
	}
	return out
}

// isForeignOS tells nodes on which no server of a Linux image can run.
func isForeignOS(node *Node) bool {
	os, ok := node.Labels[corev1.LabelOSStable]
	return ok && os != string(corev1.Linux)
}

func selects(selector map[string]v1alpha1.LabelValue, labels map[string]string) bool {
	for key, value := range selector {
		if got, ok := labels[key]; !ok || got != string(value) {
			return false
		}
	}
	return true
}

// mountsClaim tells whether the pod mounts a claim: whether its file system can be mapped into a
// user namespace is not known before a pod tries.
func mountsClaim(spec *v1alpha1.MCPServerSpec) bool {
	if spec.Filesystem == nil {
		return false
	}
	for i := range spec.Filesystem.Data {
		if spec.Filesystem.Data[i].ClaimName != "" {
			return true
		}
	}
	return false
}
