package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions and reasons of an MCPPolicy.
const (
	// ReasonInForce: the policy is applied to every server that it selects.
	ReasonInForce = "InForce"
	// ReasonSelectsNothing: no MCPServer lies in a namespace that the policy selects.
	ReasonSelectsNothing = "SelectsNothing"
	// ReasonContradiction: no server can satisfy this policy and another one that selects the same namespaces.
	ReasonContradiction = "Contradiction"
)

// MCPPolicy is what an admin demands of the MCPServers of some namespaces. A server must satisfy every
// policy that selects it, so the strictest wins.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=mcp
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Servers",type=integer,JSONPath=`.status.servers`
// +kubebuilder:printcolumn:name="Violating",type=integer,JSONPath=`.status.violating`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type MCPPolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the admin demands. The operator never writes to it.
	// +required
	Spec MCPPolicySpec `json:"spec"`
	// status is what the operator observed.
	// +optional
	Status MCPPolicyStatus `json:"status,omitempty"`
}

// MCPPolicyList is a list of MCPPolicies.
//
// +kubebuilder:object:root=true
type MCPPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MCPPolicy `json:"items"`
}

// MCPPolicySpec is what an admin demands. What is left out demands nothing; the hardening that every
// server gets stands whatever a policy says.
type MCPPolicySpec struct {
	// namespaceSelector selects the namespaces whose MCPServers must satisfy the policy; {} all of them.
	// +required
	NamespaceSelector LabelSelector `json:"namespaceSelector"`

	// action is Enforce (a change that violates the policy is refused at admission and never rolled out),
	// Warn (who makes it is warned) or Audit (the verdict alone tells). Under each the verdict turns, and
	// none ends a server that runs.
	// +required
	Action PolicyAction `json:"action"`

	// images says which images may run.
	// +optional
	Images *ImagePolicy `json:"images,omitempty"`

	// egress says what servers may reach.
	// +optional
	Egress *EgressPolicy `json:"egress,omitempty"`

	// secrets says which values servers may get, and how old they may become.
	// +optional
	Secrets *SecretPolicy `json:"secrets,omitempty"`

	// pods says how pods may run.
	// +optional
	Pods *PodPolicy `json:"pods,omitempty"`

	// exemptions excuse servers from controls, each for a reason and until a time. What this policy demands,
	// only its own exemptions excuse from.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	Exemptions []Exemption `json:"exemptions,omitempty"`
}

// PolicyAction says what becomes of a change that violates a policy.
// +kubebuilder:validation:Enum=Enforce;Warn;Audit
type PolicyAction string

const (
	// PolicyEnforce refuses it, and never rolls it out.
	PolicyEnforce PolicyAction = "Enforce"
	// PolicyWarn warns who makes it.
	PolicyWarn PolicyAction = "Warn"
	// PolicyAudit lets the verdict alone tell.
	PolicyAudit PolicyAction = "Audit"
)

// ImagePolicy says which images may run.
type ImagePolicy struct {
	// allowedRepositories are repositories with their registry, such as ghcr.io/github/github-mcp-server, or
	// all below one, such as ghcr.io/github/*. Left out or empty: any. An image without a registry is one of
	// docker.io, and without a folder there one of docker.io/library.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	AllowedRepositories []RepositoryPattern `json:"allowedRepositories,omitempty"`

	// requireDigest demands that images be pinned by digest (name@sha256:...).
	// +optional
	RequireDigest bool `json:"requireDigest,omitempty"`
}

// RepositoryPattern is a repository with its registry, or a prefix of some that ends in /*.
// +kubebuilder:validation:MinLength=3
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(/[*])?$') && self.contains('/')",message="must be a repository with its registry, such as ghcr.io/github/github-mcp-server, or all below one, such as ghcr.io/github/*, with no tag and no digest"
type RepositoryPattern string

// EgressPolicy says what servers may reach.
type EgressPolicy struct {
	// allowedHosts are the names that host rules may open: exact, or *. and what all of them end in. A rule
	// for *.a.example is allowed by *.a.example and by *.example. Left out: any; empty lists are not accepted.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	AllowedHosts []HostPattern `json:"allowedHosts,omitempty"`

	// deniedCIDRs are ranges that no cidr rule may overlap.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	DeniedCIDRs []CIDR `json:"deniedCIDRs,omitempty"`

	// allowedPorts are the ports that rules may open. Left out: any.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=65535
	AllowedPorts []int32 `json:"allowedPorts,omitempty"`

	// requireProof demands network.enforcement: Require, so that no pod starts before its isolation is proven.
	// +optional
	RequireProof bool `json:"requireProof,omitempty"`
}

// HostPattern is a DNS name, or *. and one.
// +kubebuilder:validation:MinLength=3
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^([*][.])?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)+$')",message="must be a DNS name in lower case, such as api.github.com, or *.github.com for every name below github.com"
type HostPattern string

// CIDR is an address range.
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self).masked() == cidr(self)",message="must be an address range such as 10.0.0.0/8 or fd00::/8, with no bit set behind its prefix"
type CIDR string

// SecretPolicy says which values servers may get.
type SecretPolicy struct {
	// maxAge is how old a value may become that a server gets from a Secret, such as 2160h. Of this and the
	// server's own rotation.maxAge the shorter counts.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,8}(h|m|s))+$') && duration(self) >= duration('1m') && duration(self) <= duration('87600h')",message="must be a duration from 1m to 87600h (ten years), of hours, minutes and seconds, such as 2160h"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`

	// allowedEnvNames are the names that env may set, from whatever source: exact, or the beginning of
	// some and *, such as GITHUB_*. Left out: any.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	AllowedEnvNames []EnvNamePattern `json:"allowedEnvNames,omitempty"`

	// sharing says whether a value may be used outside of the namespaces that the policy selects, too.
	// +optional
	Sharing SecretSharing `json:"sharing,omitempty"`
}

// EnvNamePattern is the name of a variable, or the beginning of some and *.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-zA-Z_.-][a-zA-Z0-9_.-]*[*]?$')",message="must be the name of a variable such as LOG_LEVEL, or the beginning of some and *, such as GITHUB_*"
type EnvNamePattern string

// SecretSharing says where else a value may be used.
// +kubebuilder:validation:Enum=Anywhere;SelectedNamespaces
type SecretSharing string

const (
	// SharingAnywhere demands nothing.
	SharingAnywhere SecretSharing = "Anywhere"
	// SharingSelectedNamespaces demands that no server outside of the selected namespaces gets the same value.
	SharingSelectedNamespaces SecretSharing = "SelectedNamespaces"
)

// PodPolicy says how pods may run.
type PodPolicy struct {
	// maxResources are the greatest limits that a server's container may have.
	// +optional
	MaxResources *ResourceAmounts `json:"maxResources,omitempty"`

	// allowedRuntimeClassNames are the runtime classes that a server must run under one of. Left out: any, or none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	AllowedRuntimeClassNames []ObjectName `json:"allowedRuntimeClassNames,omitempty"`

	// requireUserNamespace demands that pods run in a user namespace, which takes nodes that support it.
	// +optional
	RequireUserNamespace bool `json:"requireUserNamespace,omitempty"`
}

// Exemption excuses one server from some controls.
type Exemption struct {
	// namespace of the server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// name of the server.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// controls are the ids of the controls, such as NET-03.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Controls []ControlID `json:"controls"`

	// reason says why, for whoever reads the policy later.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Reason string `json:"reason"`

	// expiresAt is when the exemption ends, and the verdict turns with it.
	// +required
	ExpiresAt metav1.Time `json:"expiresAt"`
}

// ControlID names a control of the catalogue (docs/controls.md).
// +kubebuilder:validation:MaxLength=16
// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Z]{3}-[0-9]{2}$')",message="must be the id of a control, such as NET-03: see kubectl warden explain"
type ControlID string

// MCPPolicyStatus is what the operator observed.
type MCPPolicyStatus struct {
	// conditions of the policy: Ready is True while it is in force and selects servers.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +patchMergeKey=type
	// +patchStrategy=merge
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty" patchMergeKey:"type" patchStrategy:"merge"`

	// observedGeneration is the generation of the spec that the status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// namespaces is the number of namespaces that the policy selects.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Namespaces int32 `json:"namespaces"`

	// servers is the number of MCPServers in them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Servers int32 `json:"servers"`

	// violating is the number of those whose condition PolicyCompliant is False.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Violating int32 `json:"violating"`

	// unknown is the number of those of which it cannot be told.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Unknown int32 `json:"unknown"`

	// exempted is the number of those that an exemption of this policy excuses now.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Exempted int32 `json:"exempted"`
}
