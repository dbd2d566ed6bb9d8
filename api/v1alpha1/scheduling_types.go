package v1alpha1

// Scheduling says on which nodes the pods run, and how. Its parts mean what the fields of the same
// names mean in a Pod; every part is bounded.
type Scheduling struct {
	// nodeSelector are labels that a node must have.
	// +optional
	// +kubebuilder:validation:MaxProperties=8
	// +kubebuilder:validation:XValidation:rule="self.all(k, k.size() <= 317 && k.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$') && k.matches('^([^/]{1,253}/)?[^/]{1,63}$'))",message="every key must be a label key such as role or example.com/role: at most 63 letters, digits, '-', '_' and '.' after an optional DNS prefix"
	NodeSelector map[string]LabelValue `json:"nodeSelector,omitempty"`

	// tolerations of node taints.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Tolerations []Toleration `json:"tolerations,omitempty"`

	// affinity to nodes and pods.
	// +optional
	Affinity *Affinity `json:"affinity,omitempty"`

	// topologySpreadConstraints replace the default, which spreads over nodes and zones where it can.
	// +optional
	// +listType=map
	// +listMapKey=topologyKey
	// +listMapKey=whenUnsatisfiable
	// +kubebuilder:validation:MaxItems=8
	TopologySpreadConstraints []TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`

	// priorityClassName names a PriorityClass; the classes of the system are refused.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('system-')",message="system-* classes are for the cluster's own pods: name another PriorityClass"
	PriorityClassName ObjectName `json:"priorityClassName,omitempty"`

	// runtimeClassName names a RuntimeClass, such as one for a sandboxed runtime.
	// +optional
	RuntimeClassName ObjectName `json:"runtimeClassName,omitempty"`
}

// Toleration lets pods run on nodes with a matching taint.
// +kubebuilder:validation:XValidation:rule="!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value.size() == 0",message="operator Exists takes no value: remove value, or use operator Equal"
// +kubebuilder:validation:XValidation:rule="has(self.key) || (has(self.operator) && self.operator == 'Exists')",message="without a key the operator must be Exists"
// +kubebuilder:validation:XValidation:rule="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",message="tolerationSeconds goes with effect NoExecute only"
type Toleration struct {
	// key of the taint.
	// +optional
	Key LabelKey `json:"key,omitempty"`
	// operator is Equal (the default) or Exists.
	// +optional
	// +kubebuilder:validation:Enum=Equal;Exists
	Operator string `json:"operator,omitempty"`
	// value of the taint.
	// +optional
	Value LabelValue `json:"value,omitempty"`
	// effect of the taint; left out: all effects.
	// +optional
	// +kubebuilder:validation:Enum=NoSchedule;PreferNoSchedule;NoExecute
	Effect string `json:"effect,omitempty"`
	// tolerationSeconds is how long a NoExecute taint is tolerated, in seconds.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	TolerationSeconds *int64 `json:"tolerationSeconds,omitempty"`
}

// Affinity to nodes and pods.
type Affinity struct {
	// nodeAffinity to nodes.
	// +optional
	NodeAffinity *NodeAffinity `json:"nodeAffinity,omitempty"`
	// podAffinity to pods.
	// +optional
	PodAffinity *PodAffinity `json:"podAffinity,omitempty"`
	// podAntiAffinity to pods.
	// +optional
	PodAntiAffinity *PodAffinity `json:"podAntiAffinity,omitempty"`
}

// NodeAffinity says which nodes are required and which are preferred.
type NodeAffinity struct {
	// requiredDuringSchedulingIgnoredDuringExecution must hold when a pod is placed.
	// +optional
	RequiredDuringSchedulingIgnoredDuringExecution *NodeSelector `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`
	// preferredDuringSchedulingIgnoredDuringExecution is weighed when a pod is placed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	PreferredDuringSchedulingIgnoredDuringExecution []PreferredSchedulingTerm `json:"preferredDuringSchedulingIgnoredDuringExecution,omitempty"`
}

// NodeSelector is a list of terms of which one must match.
type NodeSelector struct {
	// nodeSelectorTerms of which one must match.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	NodeSelectorTerms []NodeSelectorTerm `json:"nodeSelectorTerms"`
}

// PreferredSchedulingTerm is a term with a weight.
type PreferredSchedulingTerm struct {
	// weight from 1 to 100.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight"`
	// preference is the term.
	// +required
	Preference NodeSelectorTerm `json:"preference"`
}

// NodeSelectorTerm matches a node when all its expressions do.
// +kubebuilder:validation:XValidation:rule="has(self.matchExpressions) && self.matchExpressions.size() > 0",message="a term without matchExpressions matches no node: add one"
type NodeSelectorTerm struct {
	// matchExpressions over the node's labels.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	MatchExpressions []NodeSelectorRequirement `json:"matchExpressions,omitempty"`
}

// NodeSelectorRequirement relates a node's label to values.
// +kubebuilder:validation:XValidation:rule="self.operator in ['Exists', 'DoesNotExist'] ? (!has(self.values) || self.values.size() == 0) : (has(self.values) && self.values.size() > 0)",message="In, NotIn, Gt and Lt need values; Exists and DoesNotExist take none"
// +kubebuilder:validation:XValidation:rule="!(self.operator in ['Gt', 'Lt']) || (has(self.values) && self.values.size() == 1 && self.values[0].matches('^-?[0-9]{1,18}$'))",message="Gt and Lt take exactly one value, a whole number"
type NodeSelectorRequirement struct {
	// key of the label.
	// +required
	Key LabelKey `json:"key"`
	// operator relates the label to the values.
	// +required
	// +kubebuilder:validation:Enum=In;NotIn;Exists;DoesNotExist;Gt;Lt
	Operator string `json:"operator"`
	// values that the operator compares with.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Values []LabelValue `json:"values,omitempty"`
}

// PodAffinity says near which pods, or away from which, the server's pods are placed.
type PodAffinity struct {
	// requiredDuringSchedulingIgnoredDuringExecution must hold when a pod is placed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	RequiredDuringSchedulingIgnoredDuringExecution []PodAffinityTerm `json:"requiredDuringSchedulingIgnoredDuringExecution,omitempty"`
	// preferredDuringSchedulingIgnoredDuringExecution is weighed when a pod is placed.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=4
	PreferredDuringSchedulingIgnoredDuringExecution []WeightedPodAffinityTerm `json:"preferredDuringSchedulingIgnoredDuringExecution,omitempty"`
}

// WeightedPodAffinityTerm is a term with a weight.
type WeightedPodAffinityTerm struct {
	// weight from 1 to 100.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight"`
	// podAffinityTerm is the term.
	// +required
	PodAffinityTerm PodAffinityTerm `json:"podAffinityTerm"`
}

// PodAffinityTerm selects pods and says what counts as the same place.
type PodAffinityTerm struct {
	// labelSelector selects pods.
	// +required
	LabelSelector LabelSelector `json:"labelSelector"`
	// namespaceSelector selects their namespaces; left out: the server's own.
	// +optional
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
	// topologyKey is the node label whose value is a place.
	// +required
	TopologyKey LabelKey `json:"topologyKey"`
}

// TopologySpreadConstraint spreads the server's pods over places.
type TopologySpreadConstraint struct {
	// maxSkew is by how many pods two places may differ.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxSkew int32 `json:"maxSkew"`
	// topologyKey is the node label whose value is a place.
	// +required
	TopologyKey LabelKey `json:"topologyKey"`
	// whenUnsatisfiable says whether a pod that cannot be placed so waits or is placed anyway.
	// +required
	// +kubebuilder:validation:Enum=DoNotSchedule;ScheduleAnyway
	WhenUnsatisfiable string `json:"whenUnsatisfiable"`
}
