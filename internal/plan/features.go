package plan

import (
	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// Features of a pod that harden it further but that not every node can give.
type Features struct {
	// UserNamespace runs the pod in a user namespace (hostUsers: false, KEP-127).
	UserNamespace bool
	// StrictGroups ignores the groups that an image's /etc/group gives (supplementalGroupsPolicy: Strict, KEP-3619).
	StrictGroups bool
}

// features that the pods of a server get: those that every eligible node supports. Where a
// Deployment is up, a node that comes or goes must not roll it: a feature it has is dropped only when
// an eligible node could not run it, and one it lacks is taken up with the next change of the spec.
func features(server *v1alpha1.MCPServer, facts Facts) Features {
	able := supported(&server.Spec, facts.Nodes)
	if facts.Live == nil || server.Status.ObservedGeneration != server.Generation {
		return able
	}
	return Features{
		UserNamespace: able.UserNamespace && facts.Live.Features.UserNamespace,
		StrictGroups:  able.StrictGroups && facts.Live.Features.StrictGroups,
	}
}

func supported(spec *v1alpha1.MCPServerSpec, nodes []Node) Features {
	var selector map[string]v1alpha1.LabelValue
	runtimeClass := false
	if spec.Scheduling != nil {
		selector, runtimeClass = spec.Scheduling.NodeSelector, spec.Scheduling.RuntimeClassName != ""
	}
	out, eligible := Features{UserNamespace: !mountsClaim(spec), StrictGroups: true}, 0
	for _, node := range nodes {
		if !selects(selector, node.Labels) {
			continue
		}
		eligible++
		if runtimeClass {
			out.UserNamespace = out.UserNamespace && node.UserNamespaces
		} else {
			out.UserNamespace = out.UserNamespace && node.DefaultUserNamespaces
		}
		out.StrictGroups = out.StrictGroups && node.StrictGroups
	}
	if eligible == 0 {
		return Features{}
	}
	return out
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
