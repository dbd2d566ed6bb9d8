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

// tmpSize is the bound of /tmp: what the spec says, or a default that leaves the server at least
// half of its memory.
func tmpSize(spec *v1alpha1.MCPServerSpec, memoryLimit resource.Quantity) resource.Quantity {
	if spec.Filesystem != nil {
		for _, path := range spec.Filesystem.WritablePaths {
			if path.Path == tmpPath && path.SizeLimit != nil {
				return *path.SizeLimit
			}
		}
	}
	return smaller(resource.MustParse(defaultSizeLimit), *resource.NewQuantity(memoryLimit.Value()/2, resource.BinarySI))
}

// diskPaths are the folders beside /tmp that a server may write to, each with its bound.
func diskPaths(spec *v1alpha1.MCPServerSpec) []v1alpha1.WritablePath {
	if spec.Filesystem == nil {
		return nil
	}
	var out []v1alpha1.WritablePath
	for _, path := range spec.Filesystem.WritablePaths {
		if path.Path == tmpPath {
			continue
		}
		if path.SizeLimit == nil {
			path.SizeLimit = new(resource.MustParse(defaultSizeLimit))
		}
		out = append(out, path)
	}
	return out
}

// volumes of the pod and their mounts in the server's container, in the order of the spec.
func volumes(spec *v1alpha1.MCPServerSpec, memoryLimit resource.Quantity) ([]*accorev1.VolumeApplyConfiguration, []*accorev1.VolumeMountApplyConfiguration) {
	vols := []*accorev1.VolumeApplyConfiguration{accorev1.Volume().WithName("tmp").WithEmptyDir(
		accorev1.EmptyDirVolumeSource().WithMedium(corev1.StorageMediumMemory).WithSizeLimit(tmpSize(spec, memoryLimit)))}
	mounts := []*accorev1.VolumeMountApplyConfiguration{accorev1.VolumeMount().WithName("tmp").WithMountPath(tmpPath)}
	for i, path := range diskPaths(spec) {
		name := "writable-" + strconv.Itoa(i)
		vols = append(vols, accorev1.Volume().WithName(name).WithEmptyDir(accorev1.EmptyDirVolumeSource().WithSizeLimit(*path.SizeLimit)))
		mounts = append(mounts, accorev1.VolumeMount().WithName(name).WithMountPath(string(path.Path)))
	}
	if spec.Filesystem == nil {
		return vols, mounts
	}
	dataVols, dataMounts := dataVolumes(spec.Filesystem.Data)
	return append(vols, dataVols...), append(mounts, dataMounts...)
}

// dataVolumes has one volume for each claim and ConfigMap, however often it is mounted: the kubelet
// waits for ever for the second volume of the same claim.
func dataVolumes(data []v1alpha1.DataMount) (vols []*accorev1.VolumeApplyConfiguration, mounts []*accorev1.VolumeMountApplyConfiguration) {
	type source struct{ claim, configMap v1alpha1.ObjectName }
	writable, names := map[source]bool{}, map[source]string{}
	for i := range data {
		from := source{data[i].ClaimName, data[i].ConfigMapName}
		writable[from] = writable[from] || !readOnly(&data[i])
	}
	for i := range data {
		from := source{data[i].ClaimName, data[i].ConfigMapName}
		if names[from] == "" {
			names[from] = fmt.Sprintf("data-%d", len(names))
			vols = append(vols, dataVolume(names[from], &data[i], writable[from]))
		}
		mounts = append(mounts, dataMount(names[from], &data[i]))
	}
	return vols, mounts
}

func readOnly(data *v1alpha1.DataMount) bool {
	return data.Access != v1alpha1.AccessReadWrite
}

// dataVolume opens a claim read-only as a whole where that is all the server may do with any part
// of it, so that the kubelet leaves the ownership of its files alone.
func dataVolume(name string, data *v1alpha1.DataMount, writable bool) *accorev1.VolumeApplyConfiguration {
	volume := accorev1.Volume().WithName(name)
	if data.ConfigMapName != "" {
		return volume.WithConfigMap(accorev1.ConfigMapVolumeSource().
			WithName(string(data.ConfigMapName)).WithDefaultMode(configMapMode))
	}
	claim := accorev1.PersistentVolumeClaimVolumeSource().WithClaimName(string(data.ClaimName))
	if !writable {
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
