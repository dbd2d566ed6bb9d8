package plan

import (
	"fmt"
	"strings"

	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// validate finds what the CRD's own rules cannot tell: the keys of maps, and what depends on defaults.
func validate(spec *v1alpha1.MCPServerSpec, resources v1alpha1.ResourceRequirements) field.ErrorList {
	root := field.NewPath("spec")
	errs := validateTmp(spec, resources, root.Child("filesystem", "writablePaths"))
	errs = append(errs, validateSecretFiles(spec, root.Child("secretFiles"))...)
	if scheduling := spec.Scheduling; scheduling != nil {
		errs = append(errs, validateScheduling(scheduling, root.Child("scheduling"))...)
	}
	if network := spec.Network; network != nil {
		for i := range network.Ingress {
			errs = append(errs, validatePeer(&network.Ingress[i], root.Child("network", "ingress").Index(i))...)
		}
		for i := range network.Egress {
			if pods := network.Egress[i].To.Pods; pods != nil {
				errs = append(errs, validatePeer(pods, root.Child("network", "egress").Index(i).Child("to", "pods"))...)
			}
		}
	}
	return errs
}

func validateTmp(spec *v1alpha1.MCPServerSpec, resources v1alpha1.ResourceRequirements, path *field.Path) field.ErrorList {
	tmp := tmpSize(spec, *resources.Limits.Memory)
	if tmp.Cmp(*resources.Limits.Memory) < 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Key(tmpPath).Child("sizeLimit"), tmp.String(), fmt.Sprintf(
		"/tmp lives in memory and must be smaller than the memory limit, which is %s: lower it, or raise spec.resources.limits.memory", resources.Limits.Memory))}
}

// validateSecretFiles finds folders of secret files that lie in, or around, a folder of something else.
func validateSecretFiles(spec *v1alpha1.MCPServerSpec, path *field.Path) field.ErrorList {
	if spec.Filesystem == nil {
		return nil
	}
	var others []v1alpha1.MountPath
	for i := range spec.Filesystem.WritablePaths {
		others = append(others, spec.Filesystem.WritablePaths[i].Path)
	}
	for i := range spec.Filesystem.Data {
		others = append(others, spec.Filesystem.Data[i].MountPath)
	}
	var errs field.ErrorList
	for i := range spec.SecretFiles {
		mount := spec.SecretFiles[i].MountPath
		for _, other := range others {
			if isWithin(mount, other) || isWithin(other, mount) {
				errs = append(errs, field.Invalid(path.Index(i).Child("mountPath"), mount,
					fmt.Sprintf("must not be equal to, within or around %s, which spec.filesystem has: choose separate folders", other)))
			}
		}
	}
	return errs
}

func isWithin(inner, outer v1alpha1.MountPath) bool {
	return inner == outer || strings.HasPrefix(string(inner), string(outer)+"/")
}

func validateScheduling(scheduling *v1alpha1.Scheduling, path *field.Path) field.ErrorList {
	errs := validateKeys(scheduling.NodeSelector, path.Child("nodeSelector"))
	affinity := scheduling.Affinity
	if affinity == nil {
		return errs
	}
	for name, pods := range map[string]*v1alpha1.PodAffinity{"podAffinity": affinity.PodAffinity, "podAntiAffinity": affinity.PodAntiAffinity} {
		if pods == nil {
			continue
		}
		path := path.Child("affinity", name)
		for i := range pods.RequiredDuringSchedulingIgnoredDuringExecution {
			errs = append(errs, validateTerm(&pods.RequiredDuringSchedulingIgnoredDuringExecution[i],
				path.Child("requiredDuringSchedulingIgnoredDuringExecution").Index(i))...)
		}
		for i := range pods.PreferredDuringSchedulingIgnoredDuringExecution {
			errs = append(errs, validateTerm(&pods.PreferredDuringSchedulingIgnoredDuringExecution[i].PodAffinityTerm,
				path.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("podAffinityTerm"))...)
		}
	}
	return errs
}

func validateTerm(term *v1alpha1.PodAffinityTerm, path *field.Path) field.ErrorList {
	errs := validateKeys(term.LabelSelector.MatchLabels, path.Child("labelSelector", "matchLabels"))
	if term.NamespaceSelector != nil {
		errs = append(errs, validateKeys(term.NamespaceSelector.MatchLabels, path.Child("namespaceSelector", "matchLabels"))...)
	}
	return errs
}

func validatePeer(peer *v1alpha1.PodPeer, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if peer.NamespaceSelector != nil {
		errs = append(errs, validateKeys(peer.NamespaceSelector.MatchLabels, path.Child("namespaceSelector", "matchLabels"))...)
	}
	if peer.PodSelector != nil {
		errs = append(errs, validateKeys(peer.PodSelector.MatchLabels, path.Child("podSelector", "matchLabels"))...)
	}
	return errs
}

func validateKeys(labels map[string]v1alpha1.LabelValue, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for key := range labels {
		errs = append(errs, metav1validation.ValidateLabelName(key, path.Key(key))...)
	}
	return errs
}
