package v1alpha1

import "k8s.io/apimachinery/pkg/api/resource"

// Filesystem says where the server may write and which data it may see.
// +kubebuilder:validation:XValidation:rule="!has(self.writablePaths) || !has(self.data) || self.writablePaths.all(w, self.data.all(d, d.mountPath != w.path && !d.mountPath.startsWith(w.path + '/') && !w.path.startsWith(d.mountPath + '/')))",message="a writablePaths path and a data mountPath must not be equal or lie inside one another: choose separate folders"
type Filesystem struct {
	// writablePaths are empty folders that the server may write to, one set for each pod and gone
	// with it. /tmp is always one of them; list it to change its size.
	// +optional
	// +listType=map
	// +listMapKey=path
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.all(b, a.path == b.path || !a.path.startsWith(b.path + '/')))",message="writable paths must not lie inside one another: list only the outer one"
	// +kubebuilder:validation:XValidation:rule="self.all(p, !p.path.startsWith('/tmp/'))",message="/tmp is writable already: leave out paths inside it, or list /tmp itself to change its size"
	WritablePaths []WritablePath `json:"writablePaths,omitempty"`

	// data are the persistent volume claims and ConfigMaps that the server may see.
	// +optional
	// +listType=map
	// +listMapKey=mountPath
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(a, self.all(b, a.mountPath == b.mountPath || !a.mountPath.startsWith(b.mountPath + '/')))",message="data mount paths must not lie inside one another: choose separate folders"
	// +kubebuilder:validation:XValidation:rule="self.all(d, d.mountPath != '/tmp' && !d.mountPath.startsWith('/tmp/'))",message="/tmp is a writable folder of its own: mount data elsewhere"
	Data []DataMount `json:"data,omitempty"`
}

// MountPath is a folder inside the server's container.
// +kubebuilder:validation:MinLength=2
// +kubebuilder:validation:MaxLength=256
// +kubebuilder:validation:XValidation:rule="self.matches('^(/[-a-zA-Z0-9._@+]+)+$') && !self.matches('/[.][.]?(/|$)')",message="must be an absolute path such as /var/cache/app, of letters, digits and -._@+, with no '.', '..' or empty element and no trailing '/'"
// +kubebuilder:validation:XValidation:rule="!self.matches('^/(proc|sys|dev)(/|$)') && !self.startsWith('/var/run/secrets/kubernetes.io') && !self.startsWith('/run/secrets/kubernetes.io')",message="/proc, /sys, /dev and the service account folder belong to the runtime: choose another folder"
type MountPath string

// WritablePath is a folder that the server may write to.
type WritablePath struct {
	// path of the folder.
	// +required
	Path MountPath `json:"path"`

	// sizeLimit bounds the folder, from 64Ki to 1Ti; 64Mi when left out. /tmp lives in memory and
	// counts towards the memory limit, of which it gets at most half when left out: a write over its
	// bound fails. Other paths live on the
	// node's disk: the kubelet evicts a pod that exceeds the bound.
	// +optional
	// +kubebuilder:validation:XValidation:rule="[string(self)].all(s, s.size() <= 16 && [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12].all(i, i + 3 >= s.size() || !(s.charAt(i) in ['e', 'E'])) && [quantity(s)].all(q, q.compareTo(quantity('64Ki')) >= 0 && q.compareTo(quantity('1Ti')) <= 0))",message="must be an amount of storage from 64Ki to 1Ti, such as 128Mi"
	SizeLimit *resource.Quantity `json:"sizeLimit,omitempty"`
}

// AccessMode says what a server may do with data.
// +kubebuilder:validation:Enum=ReadOnly;ReadWrite
type AccessMode string

const (
	// AccessReadOnly mounts data read-only.
	AccessReadOnly AccessMode = "ReadOnly"
	// AccessReadWrite lets the server change the data.
	AccessReadWrite AccessMode = "ReadWrite"
)

// DataMount is a claim or a ConfigMap that the server may see.
// +kubebuilder:validation:XValidation:rule="has(self.claimName) != has(self.configMapName)",message="set exactly one of claimName and configMapName"
// +kubebuilder:validation:XValidation:rule="!has(self.configMapName) || !has(self.access) || self.access == 'ReadOnly'",message="a ConfigMap can only be read: leave access out, or use a claim"
// +kubebuilder:validation:XValidation:rule="!has(self.configMapName) || !has(self.subPath) || !self.subPath.contains('/')",message="subPath of a ConfigMap is one of its keys, which has no '/'"
type DataMount struct {
	// mountPath is the folder inside the container.
	// +required
	MountPath MountPath `json:"mountPath"`

	// claimName names a PersistentVolumeClaim in the server's namespace.
	// +optional
	ClaimName ObjectName `json:"claimName,omitempty"`

	// configMapName names a ConfigMap in the server's namespace.
	// +optional
	ConfigMapName ObjectName `json:"configMapName,omitempty"`

	// subPath mounts one folder of the claim, or one key of the ConfigMap, and nothing else of it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-a-zA-Z0-9._@+]+(/[-a-zA-Z0-9._@+]+)*$') && !self.matches('(^|/)[.][.]?(/|$)')",message="must be a relative path such as docs/public, of letters, digits and -._@+, with no '.' or '..' element"
	SubPath string `json:"subPath,omitempty"`

	// access is ReadOnly (the default) or ReadWrite.
	// +optional
	Access AccessMode `json:"access,omitempty"`
}
