package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// AnnotationRotateRequestedAt on an MCPServer asks for a rotation now: each new value moves a
// rotation that waits (for Manual, the debounce or the budget), and tries one again that was rolled back.
const AnnotationRotateRequestedAt = "mcpwarden.io/rotate-requested-at"

// SecretFile is a folder of files with the values of a Secret's keys, for servers that read a
// credential again when they need it: what changes arrives in place, with no restart.
type SecretFile struct {
	// mountPath is the folder inside the container. It holds one read-only file for each key, named
	// like the key.
	// +required
	MountPath MountPath `json:"mountPath"`

	// secretRef names the Secret and its keys.
	// +required
	SecretRef SecretKeys `json:"secretRef"`
}

// SecretKeys names keys of a Secret in the server's namespace.
type SecretKeys struct {
	// name of the Secret.
	// +required
	Name ObjectName `json:"name"`

	// keys in its data. No other key ever reaches the server.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Keys []DataKey `json:"keys"`
}

// DataKey is a key in the data of a Secret.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="must be a data key of letters, digits, '-', '_' and '.', not '.' and not starting with '..'"
type DataKey string

// Rotation says what happens when a value changes that env names by secretKeyRef.
type Rotation struct {
	// strategy is Rolling (the default): pods are replaced one after another, each once the one before
	// is ready; or Manual: nothing changes until the annotation mcpwarden.io/rotate-requested-at does.
	// +optional
	Strategy RotationStrategy `json:"strategy,omitempty"`

	// maxAge is the age at which a value is too old, from 1m to 87600h (ten years), such as 2160h. It
	// turns the condition SecretsCurrent and stops nothing. Left out: no age is too old.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,8}(h|m|s))+$') && duration(self) >= duration('1m') && duration(self) <= duration('87600h')",message="must be a duration from 1m to 87600h, of hours, minutes and seconds, such as 2160h for 90 days"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// debounce is how long a changed value must stay the same before it is rolled out, from 0s to 1h;
	// 30s when left out.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,8}(h|m|s))+$') && duration(self) <= duration('1h')",message="must be a duration from 0s to 1h, of hours, minutes and seconds, such as 30s"
	Debounce *metav1.Duration `json:"debounce,omitempty"`

	// progressDeadlineSeconds is how long new pods may take to become ready before the server goes
	// back to the values that worked, from 10 to 3600; 300 when left out. It holds for every rollout.
	// +optional
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=3600
	ProgressDeadlineSeconds *int32 `json:"progressDeadlineSeconds,omitempty"`
}

// RotationStrategy says what moves a rotation.
// +kubebuilder:validation:Enum=Rolling;Manual
type RotationStrategy string

const (
	// RotationRolling rolls a changed value out once it has stayed the same for the debounce.
	RotationRolling RotationStrategy = "Rolling"
	// RotationManual waits for the annotation mcpwarden.io/rotate-requested-at.
	RotationManual RotationStrategy = "Manual"
)

// SecretsStatus tells of the values that the server gets from Secrets. Digests are HMACs under a key
// of the installation: equal values have equal digests, and nothing can be guessed from one.
type SecretsStatus struct {
	// desiredDigest of the values that the sources hold now; empty while one cannot be read.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	DesiredDigest string `json:"desiredDigest,omitempty"`

	// desiredSince is when desiredDigest was first seen.
	// +optional
	DesiredSince *metav1.Time `json:"desiredSince,omitempty"`

	// deployedDigest of the values that the Deployment gives to new pods.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	DeployedDigest string `json:"deployedDigest,omitempty"`

	// lastRotationTime is when a rotation was last begun.
	// +optional
	LastRotationTime *metav1.Time `json:"lastRotationTime,omitempty"`

	// sources are the keys that the spec names.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +listMapKey=key
	// +kubebuilder:validation:MaxItems=384
	Sources []SecretSource `json:"sources,omitempty"`
}

// AgeSource says where the time of a change is from.
// +kubebuilder:validation:Enum=Observed;Creation
type AgeSource string

const (
	// AgeObserved means that the operator saw the value change.
	AgeObserved AgeSource = "Observed"
	// AgeCreation means that the value has not changed since it was first seen; it is taken to be as old
	// as the Secret.
	AgeCreation AgeSource = "Creation"
)

// SecretSource is one key of a Secret that the spec names.
type SecretSource struct {
	// name of the Secret.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// key in its data.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Key string `json:"key"`

	// digest of the value when it was last read.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Digest string `json:"digest,omitempty"`

	// changedTime is when the value last changed, whoever fetched it how often since.
	// +optional
	ChangedTime *metav1.Time `json:"changedTime,omitempty"`

	// ageSource says where changedTime is from.
	// +optional
	AgeSource AgeSource `json:"ageSource,omitempty"`

	// notAfter is until when the certificate is valid that the key tls.crt of a Secret of type
	// kubernetes.io/tls holds.
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`

	// owner is who fills the Secret; left out where nobody is known to.
	// +optional
	Owner *SecretOwner `json:"owner,omitempty"`
}

// SecretOwner is an object that fills a Secret, such as an ExternalSecret or a Certificate. Of these
// two it also says how fresh they are, as of the last few minutes.
type SecretOwner struct {
	// apiVersion of the object.
	// +required
	// +kubebuilder:validation:MaxLength=512
	APIVersion string `json:"apiVersion"`

	// kind of the object.
	// +required
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	// name of the object, in the server's namespace.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// ready is the status of the object's condition Ready: True, False or Unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Ready string `json:"ready,omitempty"`

	// refreshTime is when an ExternalSecret last fetched the value, changed or not.
	// +optional
	RefreshTime *metav1.Time `json:"refreshTime,omitempty"`

	// notAfter is until when the certificate of a Certificate is valid.
	// +optional
	NotAfter *metav1.Time `json:"notAfter,omitempty"`

	// renewalTime is when a Certificate is to be renewed.
	// +optional
	RenewalTime *metav1.Time `json:"renewalTime,omitempty"`
}
