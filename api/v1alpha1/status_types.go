package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions of an MCPServer. They follow kstatus: Reconciling is True while work is under way,
// Stalled is True for what waiting cannot cure.
const (
	// ConditionReady is True when the server is in its desired state.
	ConditionReady = "Ready"
	// ConditionReconciling is True while the cluster moves towards the spec.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True when the spec cannot be met without somebody's help.
	ConditionStalled = "Stalled"
	// ConditionSecretsCurrent is True when the pods have the values that the Secrets hold, and none of
	// those is too old.
	ConditionSecretsCurrent = "SecretsCurrent"
	// ConditionNoLiteralCredentials is True when env, args and command spell out no credential.
	ConditionNoLiteralCredentials = "NoLiteralCredentials"
	// ConditionNetworkPolicyEnforced is True when every node on which the server may run was seen to
	// enforce NetworkPolicies, False when one was seen not to, and Unknown otherwise.
	ConditionNetworkPolicyEnforced = "NetworkPolicyEnforced"
	// ConditionToolsObserved is True when the server's gateway has told which tools the server has, False when it
	// could not be asked or says what it cannot, and Unknown where there is nobody to ask, or not yet.
	ConditionToolsObserved = "ToolsObserved"
	// ConditionPolicyCompliant is False when a control fails that is of severity Critical or High or that a
	// policy demands, Unknown when it cannot be told of one, and True otherwise.
	ConditionPolicyCompliant = "PolicyCompliant"
)

// Reasons of the conditions of an MCPServer.
const (
	// ReasonServing: enough pods are ready.
	ReasonServing = "Serving"
	// ReasonStopped: no pod runs, as asked.
	ReasonStopped = "Stopped"
	// ReasonQuarantined: its NetworkPolicies open nothing and nothing is rolled out, as asked.
	ReasonQuarantined = "Quarantined"
	// ReasonStopping: pods are still there.
	ReasonStopping = "Stopping"
	// ReasonProgressing: pods are being started or replaced.
	ReasonProgressing = "Progressing"
	// ReasonReplicasUnavailable: fewer pods are ready than are wanted.
	ReasonReplicasUnavailable = "ReplicasUnavailable"
	// ReasonRolloutFailed: the Deployment exceeded its progress deadline.
	ReasonRolloutFailed = "RolloutFailed"
	// ReasonEgressTargetNotFound: a Service named by an egress rule, or one of its ports, is not there yet.
	ReasonEgressTargetNotFound = "EgressTargetNotFound"
	// ReasonEgressProxyNotReady: the egress proxy of the namespace, which host rules need, does not serve.
	ReasonEgressProxyNotReady = "EgressProxyNotReady"
	// ReasonInvalidSpec: the spec passed admission but cannot be met.
	ReasonInvalidSpec = "InvalidSpec"
	// ReasonNameConflict: an object of a name that the server needs belongs to somebody else.
	ReasonNameConflict = "NameConflict"
	// ReasonRejected: the API server refused an object of the server.
	ReasonRejected = "Rejected"
	// ReasonReconcileError: the API server could not be asked or told; it is tried again.
	ReasonReconcileError = "ReconcileError"
	// ReasonNoneFound: env, args and command hold no literal credential that any rule knows.
	ReasonNoneFound = "NoneFound"
	// ReasonLiteralCredentialFound: env, args or command hold a credential that belongs into a Secret.
	ReasonLiteralCredentialFound = "LiteralCredentialFound"
	// ReasonNotAllChecked: env, args and command are too large to be looked at with every rule.
	ReasonNotAllChecked = "NotAllChecked"
	// ReasonProven: isolation was proven by experiment, and still is.
	ReasonProven = "Proven"
	// ReasonNotEnforced: a pod reached what no NetworkPolicy opens to it.
	ReasonNotEnforced = "NotEnforced"
	// ReasonNotProven: isolation could not be proven, so that nobody can tell whether there is any.
	ReasonNotProven = "NotProven"
	// ReasonCompliant: no control fails that counts.
	ReasonCompliant = "Compliant"
	// ReasonControlsFailed: a control fails; the message says which and what to do.
	ReasonControlsFailed = "ControlsFailed"
	// ReasonControlsUnknown: it cannot be told of a control whether it holds.
	ReasonControlsUnknown = "ControlsUnknown"
	// ReasonPolicyViolation: a policy with action Enforce forbids the spec, and nothing of it is rolled out.
	ReasonPolicyViolation = "PolicyViolation"
	// ReasonReconciled: nothing is left to do.
	ReasonReconciled = "Reconciled"
)

// Reasons of the condition ToolsObserved, and of the event when tools change.
const (
	// ReasonObserved: the status lists the server's tools as they are.
	ReasonObserved = "Observed"
	// ReasonNotObserved: no pod has told yet.
	ReasonNotObserved = "NotObserved"
	// ReasonInventoryUnreadable: the gateway does not answer, or not with a list of tools.
	ReasonInventoryUnreadable = "InventoryUnreadable"
	// ReasonNoGateway: no gateway stands in front of the server.
	ReasonNoGateway = "NoGateway"
	// ReasonToolsChanged: tools came or went, or are described in another way.
	ReasonToolsChanged = "ToolsChanged"
)

// Reasons of the condition SecretsCurrent.
const (
	// ReasonCurrent: the pods run with the newest values.
	ReasonCurrent = "Current"
	// ReasonNoSecrets: the server names no secret.
	ReasonNoSecrets = "NoSecrets"
	// ReasonSourceNotFound: a Secret or a key that the spec names is not there.
	ReasonSourceNotFound = "SourceNotFound"
	// ReasonSourceUnreadable: it cannot be told at present.
	ReasonSourceUnreadable = "SourceUnreadable"
	// ReasonInvalidValue: a value cannot be that of an environment variable.
	ReasonInvalidValue = "InvalidValue"
	// ReasonRotationPending: new values are rolled out once they stay the same for a while.
	ReasonRotationPending = "RotationPending"
	// ReasonRotationQueued: new values are rolled out once fewer other servers are in a rotation.
	ReasonRotationQueued = "RotationQueued"
	// ReasonRotating: pods are being replaced by ones with the newest values.
	ReasonRotating = "Rotating"
	// ReasonManualRotationPending: new values wait for a request.
	ReasonManualRotationPending = "ManualRotationPending"
	// ReasonRotationRolledBack: the newest values failed, and the server runs with those before.
	ReasonRotationRolledBack = "RotationRolledBack"
	// ReasonRotationFailed: the pods do not become ready, and there is no version to go back to.
	ReasonRotationFailed = "RotationFailed"
	// ReasonRotationThrottled: the values changed too often.
	ReasonRotationThrottled = "RotationThrottled"
	// ReasonSnapshotLost: the snapshot in use is gone, and no pod can be started.
	ReasonSnapshotLost = "SnapshotLost"
	// ReasonTooOld: a value was not changed for longer than allowed.
	ReasonTooOld = "TooOld"
	// ReasonExpired: a value is past the end of its validity.
	ReasonExpired = "Expired"
)

// MCPServerStatus is what the operator observed.
type MCPServerStatus struct {
	// conditions of the server, such as Ready, Reconciling, Stalled and PolicyCompliant.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty" patchMergeKey:"type" patchStrategy:"merge"`

	// observedGeneration is the generation of the spec that the status is about; -1 until the operator has seen the server.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// endpoint is the URL at which allowed clients in the cluster reach the server; empty while it
	// is stopped or quarantined, and while an error keeps a new spec from being applied.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Endpoint string `json:"endpoint,omitempty"`

	// image is what the pods run.
	// +optional
	Image *ImageStatus `json:"image,omitempty"`

	// replicas is the number of pods that are wanted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Replicas int32 `json:"replicas,omitempty"`

	// readyReplicas is the number of pods that are ready.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ReadyReplicas int32 `json:"readyReplicas,omitempty"`

	// podFeatures are the hardening features that depend on the nodes and that the pods have: decided
	// with each change of the spec, and dropped only when a node says that it cannot run them.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	PodFeatures []PodFeature `json:"podFeatures,omitempty"`

	// gatewayImage is the image of the gateway in front of the server: taken up with each change of the spec, so that
	// an upgrade of the operator restarts no server; empty where there is no gateway.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	GatewayImage string `json:"gatewayImage,omitempty"`

	// tools are those that the server offered when its gateway last looked; kept while nobody can look.
	// +optional
	Tools *ToolsStatus `json:"tools,omitempty"`

	// secrets tells of the values that the server gets from Secrets; left out where it gets none.
	// +optional
	Secrets *SecretsStatus `json:"secrets,omitempty"`

	// network says whether the server's isolation was proven.
	// +optional
	Network *NetworkStatus `json:"network,omitempty"`

	// resources are the requests and limits in force, defaults included.
	// +optional
	Resources *ResourceRequirements `json:"resources,omitempty"`

	// quarantine is what was found when the server was cut off; left out where it is not.
	// +optional
	Quarantine *QuarantineStatus `json:"quarantine,omitempty"`

	// compliance is the verdict over the server, control by control.
	// +optional
	Compliance *ComplianceStatus `json:"compliance,omitempty"`
}

// ToolsStatus tells which tools a server offers. All of it is what the server says of itself.
type ToolsStatus struct {
	// count of the tools.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Count int32 `json:"count"`

	// digest is SHA-256, in hex, over the names and digests of all tools: it changes when any tool does.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Digest string `json:"digest"`

	// lastChangedTime is when this list was first seen.
	// +required
	LastChangedTime metav1.Time `json:"lastChangedTime"`

	// items are the tools by name, the first 256 of them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Items []ToolStatus `json:"items,omitempty"`

	// truncated says that there are more tools than items.
	// +optional
	Truncated bool `json:"truncated,omitempty"`
}

// ToolStatus is one tool of a server.
type ToolStatus struct {
	// name of the tool; what cannot be printed is replaced, and what is longer is cut.
	// +required
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name"`

	// digest is SHA-256, in hex, over the canonical form (RFC 8785) of the tool's definition.
	// +required
	// +kubebuilder:validation:MaxLength=64
	Digest string `json:"digest"`
}

// QuarantineStatus is the evidence of a quarantine, kept until the server is released.
type QuarantineStatus struct {
	// since is when the operator cut the server off.
	// +required
	Since metav1.Time `json:"since"`

	// pods are those that were there when the server was cut off, or came later, and are told of even when they are gone.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=100
	Pods []QuarantinedPod `json:"pods,omitempty"`
}

// QuarantinedPod is a pod of a server under quarantine, as it was when it was first seen there.
type QuarantinedPod struct {
	// name of the pod.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// uid of the pod, by which the kubelet's and the API server's logs name it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`

	// node on which it runs.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Node string `json:"node,omitempty"`

	// imageID is what the node's runtime says that the server's container runs.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	ImageID string `json:"imageID,omitempty"`

	// containerID is the runtime's own name of the server's container, for whoever freezes or copies it.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	ContainerID string `json:"containerID,omitempty"`

	// restarts of the server's container.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Restarts int32 `json:"restarts,omitempty"`
}

// ComplianceStatus is the verdict over a server. Controls that do not apply to it are left out.
type ComplianceStatus struct {
	// passed is the number of controls that hold.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Passed int32 `json:"passed"`

	// failed is the number of controls that do not hold.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed int32 `json:"failed"`

	// unknown is the number of controls of which it cannot be told.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Unknown int32 `json:"unknown"`

	// exempted is the number of controls that do not hold and that a policy excuses the server from.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Exempted int32 `json:"exempted"`

	// controls are the results, in the order of the catalogue.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=128
	Controls []ControlStatus `json:"controls,omitempty"`
}

// ControlStatus is the result of one control.
type ControlStatus struct {
	// id of the control, such as NET-03.
	// +required
	ID ControlID `json:"id"`

	// result is Pass, Fail, Unknown or Exempted.
	// +required
	Result ControlResult `json:"result"`

	// severity is Critical, High, Medium or Low.
	// +required
	Severity ControlSeverity `json:"severity"`

	// message says what is wrong, where, and how to fix it; empty for Pass.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// ControlResult is what became of a control.
// +kubebuilder:validation:Enum=Pass;Fail;Unknown;Exempted
type ControlResult string

const (
	// ControlPass says that the control holds.
	ControlPass ControlResult = "Pass"
	// ControlFail says that it does not.
	ControlFail ControlResult = "Fail"
	// ControlUnknown says that it cannot be told.
	ControlUnknown ControlResult = "Unknown"
	// ControlExempted says that it does not hold, and a policy excuses the server from it.
	ControlExempted ControlResult = "Exempted"
)

// ControlSeverity says how much a control matters.
// +kubebuilder:validation:Enum=Critical;High;Medium;Low
type ControlSeverity string

const (
	// SeverityCritical is that of a control without which a server can take over others, or the cluster.
	SeverityCritical ControlSeverity = "Critical"
	// SeverityHigh is that of a control without which a server can reach, or be reached by, what it must not.
	SeverityHigh ControlSeverity = "High"
	// SeverityMedium is that of a control without which an attack is easier, or harder to notice.
	SeverityMedium ControlSeverity = "Medium"
	// SeverityLow is that of a control without which a defence in depth is missing.
	SeverityLow ControlSeverity = "Low"
)

// NetworkStatus says whether the server's isolation was proven, over the nodes on which it may run or
// runs. It holds no time of the newest probe: to keep it would take a write for each.
type NetworkStatus struct {
	// proof is Proven, NotEnforced or Unknown; condition NetworkPolicyEnforced says why.
	// +optional
	Proof NetworkProof `json:"proof,omitempty"`

	// nodesProven is the number of nodes on which NetworkPolicies were seen to be enforced.
	// +optional
	// +kubebuilder:validation:Minimum=0
	NodesProven int32 `json:"nodesProven,omitempty"`

	// nodesTotal is the number of nodes on which the server may run, or runs.
	// +optional
	// +kubebuilder:validation:Minimum=0
	NodesTotal int32 `json:"nodesTotal,omitempty"`

	// probeImage is the image of the pods' init container isolation-probe: taken up with each change of
	// the spec, so that an upgrade of the operator restarts no server.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	ProbeImage string `json:"probeImage,omitempty"`
}

// NetworkProof says what is known of the enforcement of NetworkPolicies.
// +kubebuilder:validation:Enum=Proven;NotEnforced;Unknown
type NetworkProof string

// ImageStatus is what the pods run.
type ImageStatus struct {
	// reference as the pods carry it.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Reference string `json:"reference,omitempty"`

	// digest that the node's runtime reports for the running container (sha256:...); empty until a
	// container runs, and while pods run different ones.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Digest string `json:"digest,omitempty"`
}

// PodFeature hardens a pod further, where the nodes support it.
// +kubebuilder:validation:Enum=UserNamespace;StrictSupplementalGroups;ImageVolume
type PodFeature string

const (
	// PodFeatureUserNamespace runs the pod in a user namespace (hostUsers: false, KEP-127).
	PodFeatureUserNamespace PodFeature = "UserNamespace"
	// PodFeatureStrictSupplementalGroups ignores the groups that an image's /etc/group gives
	// (supplementalGroupsPolicy: Strict, KEP-3619).
	PodFeatureStrictSupplementalGroups PodFeature = "StrictSupplementalGroups"
	// PodFeatureImageVolume brings the gateway to a server on stdio by a volume that is an image (KEP-4639), of which
	// there is no copy that could be changed.
	PodFeatureImageVolume PodFeature = "ImageVolume"
)
