package v1alpha1

// Network says who may reach the server and what it may reach. All else is closed, both ways.
type Network struct {
	// ingress are the pods that may reach the server, on its transport port only. Empty: nobody.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Ingress []PodPeer `json:"ingress,omitempty"`

	// egress is what the server may reach, over TCP. Empty: nowhere, not even DNS.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Egress []EgressRule `json:"egress,omitempty"`

	// enforcement says what becomes of a server whose isolation is not proven, because the cluster's CNI
	// does not enforce NetworkPolicies or nobody can tell. Report (the default) says so in the status.
	// Require starts no pod before its isolation is proven; one that runs is left alone.
	// +optional
	Enforcement Enforcement `json:"enforcement,omitempty"`
}

// Enforcement says what becomes of a server whose isolation is not proven.
// +kubebuilder:validation:Enum=Report;Require
type Enforcement string

const (
	// EnforcementReport says in the status what is known.
	EnforcementReport Enforcement = "Report"
	// EnforcementRequire starts no pod before its isolation is proven.
	EnforcementRequire Enforcement = "Require"
)

// PodPeer selects pods, as a NetworkPolicy peer does.
// +kubebuilder:validation:XValidation:rule="has(self.namespaceSelector) || has(self.podSelector)",message="set namespaceSelector, podSelector or both: podSelector alone means pods of the server's own namespace, {} means all"
type PodPeer struct {
	// namespaceSelector selects namespaces; {} all of them. Left out: the server's own.
	// +optional
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`

	// podSelector selects pods in those namespaces; {} or left out: all of them.
	// +optional
	PodSelector *LabelSelector `json:"podSelector,omitempty"`
}

// EgressRule opens one target on some ports.
// +kubebuilder:validation:XValidation:rule="!has(self.encryptedClientHello) || has(self.to.host)",message="encryptedClientHello is about TLS to a host: set it only where to.host is set"
type EgressRule struct {
	// to is the target.
	// +required
	To EgressTarget `json:"to"`

	// ports are the TCP ports that are opened: of the Service for a service target, else of the
	// peer itself.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:Minimum=1
	// +kubebuilder:validation:items:Maximum=65535
	Ports []int32 `json:"ports"`

	// encryptedClientHello says what becomes of TLS connections to a host that hide the name they
	// ask for (RFC 9849): Refuse (the default) or Allow. For host targets only. Allow it only where
	// a client insists: what is hidden cannot be compared with the host.
	// +optional
	EncryptedClientHello EncryptedClientHello `json:"encryptedClientHello,omitempty"`
}

// EncryptedClientHello says what becomes of TLS connections that hide the name they ask for.
// +kubebuilder:validation:Enum=Refuse;Allow
type EncryptedClientHello string

const (
	// EncryptedClientHelloRefuse refuses them.
	EncryptedClientHelloRefuse EncryptedClientHello = "Refuse"
	// EncryptedClientHelloAllow lets them pass where the name that is not hidden is the host's.
	EncryptedClientHelloAllow EncryptedClientHello = "Allow"
)

// EgressTarget is exactly one of its fields.
// +kubebuilder:validation:XValidation:rule="[has(self.host), has(self.cidr), has(self.service), has(self.pods)].filter(x, x).size() == 1",message="set exactly one of host, cidr, service and pods"
type EgressTarget struct {
	// host is a DNS name outside the cluster, such as api.github.com, or *.githubusercontent.com for
	// every name below githubusercontent.com, itself not among them. It is reached through the egress
	// proxy of the namespace, by TLS or plain HTTP, with no DNS of the server's own.
	// +optional
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^([*][.])?([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?[.])+[a-z]([-a-z0-9]{0,61}[a-z0-9])?$')",message="must be a DNS name of at least two labels in lower case, such as api.github.com, or one after '*.', such as *.githubusercontent.com: no trailing dot, no scheme, no port, no address, and international names in their xn-- form"
	Host string `json:"host,omitempty"`

	// cidr is an address range outside the cluster. Link-local and metadata addresses, pods, nodes
	// and the API server are always carved out of it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=49
	// +kubebuilder:validation:XValidation:rule="isCIDR(self) && cidr(self) == cidr(self).masked()",message="must be an address range in its normal form, such as 203.0.113.0/24 or 2001:db8::/32, with no bit set beyond the prefix; for one address use /32 or /128"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || !['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '255.255.255.255/32', '100.100.100.200/32', '168.63.129.16/32', '192.0.0.192/32', '::/127', '64:ff9b::a9fe:0/112', 'fe80::/10', 'ff00::/8', '64:ff9b:1::/48', 'fd00:ec2::/32', 'fd00:42::42/128', 'fd00:c1::a9fe:a9fe/128', 'fd20:ce::254/128'].exists(c, cidr(c).containsCIDR(self))",message="lies wholly within loopback, link-local, multicast or cloud metadata addresses, which no rule opens: name another range"
	CIDR string `json:"cidr,omitempty"`

	// service is a Service in the cluster, which must have a selector. DNS is opened with it.
	// +optional
	Service *ServiceReference `json:"service,omitempty"`

	// pods are pods in the cluster. DNS is opened with them.
	// +optional
	Pods *PodPeer `json:"pods,omitempty"`
}

// ServiceReference names a Service.
type ServiceReference struct {
	// name of the Service.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be the name of a Service: lower-case letters, digits and '-'; the namespace goes into service.namespace"
	Name string `json:"name"`

	// namespace of the Service; the server's own when left out.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be the name of a namespace: lower-case letters, digits and '-'"
	Namespace string `json:"namespace,omitempty"`
}

// LabelSelector selects objects by label, as metav1.LabelSelector does, with every part bounded.
type LabelSelector struct {
	// matchLabels are labels that must all be there.
	// +optional
	// +kubebuilder:validation:MaxProperties=8
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.size() <= 317 && k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$') && k.matches('^([^/]{1,253}/)?[^/]{1,63}$'))",message="every key must be a label key such as role or example.com/role: at most 63 letters, digits, '-', '_' and '.' after an optional DNS prefix"
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`

	// matchExpressions are requirements that must all hold.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelValue is the value of a label.
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:XValidation:rule="self.matches('^([a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?)?$')",message="must be a label value: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit"
type LabelValue string

// LabelKey is the key of a label, with an optional DNS prefix.
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=317
// +kubebuilder:validation:XValidation:rule="self.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$') && self.matches('^([^/]{1,253}/)?[^/]{1,63}$')",message="must be a label key such as role or example.com/role: at most 63 letters, digits, '-', '_' and '.' after an optional DNS prefix"
type LabelKey string

// LabelSelectorOperator relates a label to a set of values.
// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist
type LabelSelectorOperator string

// LabelSelectorRequirement is one requirement of a LabelSelector.
// +kubebuilder:validation:XValidation:rule="self.operator in ['In', 'NotIn'] ? (has(self.values) && self.values.size() > 0) : (!has(self.values) || self.values.size() == 0)",message="In and NotIn need values; Exists and DoesNotExist take none"
type LabelSelectorRequirement struct {
	// key of the label.
	// +required
	Key LabelKey `json:"key"`

	// operator relates the label to the values.
	// +required
	Operator LabelSelectorOperator `json:"operator"`

	// values that the operator compares with.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Values []LabelValue `json:"values,omitempty"`
}
