package plan

import (
	"fmt"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	accorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// configMapMode of the files of a ConfigMap: readable, by the pod's group too.
const configMapMode = 0o444

// writablePaths are the folders that a server may write to, /tmp first, each with its bound.
func writablePaths(spec *v1alpha1.MCPServerSpec) []v1alpha1.WritablePath {
	out := []v1alpha1.WritablePath{{Path: tmpPath, SizeLimit: new(resource.MustParse(defaultSizeLimit))}}
	if spec.Filesystem == nil {
		return out
	}
	for _, path := range spec.Filesystem.WritablePaths {
		if path.SizeLimit == nil {
			path.SizeLimit = new(resource.MustParse(defaultSizeLimit))
		}
		if path.Path == tmpPath {
			out[0] = path
			continue
		}
		out = append(out, path)
	}
	return out
}

// volumes of the pod and their mounts in the server's container, in the order of the spec.
func volumes(spec *v1alpha1.MCPServerSpec) ([]*accorev1.VolumeApplyConfiguration, []*accorev1.VolumeMountApplyConfiguration) {
	var vols []*accorev1.VolumeApplyConfiguration
	var mounts []*accorev1.VolumeMountApplyConfiguration
	for i, path := range writablePaths(spec) {
		name := "tmp"
		medium := corev1.StorageMediumMemory
		if path.Path != tmpPath {
			name, medium = "writable-"+strconv.Itoa(i-1), corev1.StorageMediumDefault
		}
		vols = append(vols, accorev1.Volume().WithName(name).WithEmptyDir(emptyDir(medium, *path.SizeLimit)))
		mounts = append(mounts, accorev1.VolumeMount().WithName(name).WithMountPath(string(path.Path)))
	}
	if spec.Filesystem == nil {
		return vols, mounts
	}
	for i := range spec.Filesystem.Data {
		data, name := &spec.Filesystem.Data[i], fmt.Sprintf("data-%d", i)
		vols = append(vols, dataVolume(name, data))
		mounts = append(mounts, dataMount(name, data))
	}
	return vols, mounts
}

func emptyDir(medium corev1.StorageMedium, size resource.Quantity) *accorev1.EmptyDirVolumeSourceApplyConfiguration {
	dir := accorev1.EmptyDirVolumeSource().WithSizeLimit(size)
	if medium != corev1.StorageMediumDefault {
		dir.WithMedium(medium)
	}
	return dir
}

func readOnly(data *v1alpha1.DataMount) bool {
	return data.Access != v1alpha1.AccessReadWrite
}

// dataVolume opens a claim read-only as a whole where that is all the server may do, so that the
// kubelet leaves the ownership of its files alone.
func dataVolume(name string, data *v1alpha1.DataMount) *accorev1.VolumeApplyConfiguration {
	volume := accorev1.Volume().WithName(name)
	if data.ConfigMapName != "" {
		return volume.WithConfigMap(accorev1.ConfigMapVolumeSource().
			WithName(string(data.ConfigMapName)).WithDefaultMode(configMapMode))
	}
	claim := accorev1.PersistentVolumeClaimVolumeSource().WithClaimName(string(data.ClaimName))
	if readOnly(data) {
		claim.WithReadOnly(true)
	}
	return volume.WithPersistentVolumeClaim(claim)
}

func dataMount(name string, data *v1alpha1.DataMount) *accorev1.VolumeMountApplyConfiguration {
	mount := accorev1.VolumeMount().WithName(name).WithMountPath(string(data.MountPath))
	if readOnly(data) {
		mount.WithReadOnly(true)
	}
	if data.SubPath != "" {
		mount.WithSubPath(data.SubPath)
	}
	return mount
}
