package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// AnnotationQuarantineReason on an MCPServer says why it was put in quarantine, for people. The operator does
// not read it.
const AnnotationQuarantineReason = "mcpwarden.io/quarantine-reason"

// MCPServer is one Model Context Protocol server that the operator runs as a hardened Deployment,
// cut off from every network peer that its spec does not name.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,categories=mcp
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Compliant",type=string,JSONPath=`.status.conditions[?(@.type=="PolicyCompliant")].status`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.status.endpoint`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Pods",type=integer,priority=1,JSONPath=`.status.readyReplicas`
// +kubebuilder:printcolumn:name="State",type=string,priority=1,JSONPath=`.spec.desiredState`
// +kubebuilder:printcolumn:name="Image",type=string,priority=1,JSONPath=`.spec.image`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name becomes the name of a Service: use at most 63 lower-case letters, digits and '-', and start with a letter"
// +kubebuilder:validation:XValidation:rule="!self.metadata.name.startsWith('mcp-warden-')",message="metadata.name begins with mcp-warden-, as do the names of what the operator makes for a whole namespace: choose another name"
// +kubebuilder:validation:XValidation:rule="self.metadata.name != 'default'",message="metadata.name is the name of every namespace's own ServiceAccount: choose another name"
type MCPServer struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the user wants. The operator never writes to it.
	// +required
	Spec MCPServerSpec `json:"spec"`
	// status is what the operator observed. It begins as one of no spec at all, so that whoever waits for the server by kstatus
	// does not take one that the operator has yet to see for one that is done.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status MCPServerStatus `json:"status,omitempty"`
}

// MCPServerList is a list of MCPServers.
//
// +kubebuilder:object:root=true
type MCPServerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []MCPServer `json:"items"`
}

// MCPServerSpec declares an MCP server. There is no pod template, no securityContext and no raw
// volume in it: the hardening is a floor, not a default to be overridden.
// +kubebuilder:validation:XValidation:rule="!has(self.env) || !has(self.network) || !has(self.network.egress) || !self.network.egress.exists(e, has(e.to.host)) || !self.env.exists(v, v.name in ['HTTP_PROXY', 'http_proxy', 'HTTPS_PROXY', 'https_proxy', 'NO_PROXY', 'no_proxy', 'NODE_USE_ENV_PROXY', 'MCP_WARDEN_EGRESS_TOKEN'])",fieldPath=".env",message="env must not set the variables of a proxy beside a host rule (HTTP_PROXY, HTTPS_PROXY and NO_PROXY in upper or lower case, NODE_USE_ENV_PROXY, MCP_WARDEN_EGRESS_TOKEN): they are set for the server"
// +kubebuilder:validation:XValidation:rule="self.transport.type != 'Stdio' || (has(self.command) && self.command.size() > 0)",fieldPath=".command",message="command is required for transport.type Stdio: name the program that the image starts (its ENTRYPOINT, then its CMD), because the gateway starts it in the image's place"
type MCPServerSpec struct {
	// image is the container image of the MCP server, best pinned by digest (name@sha256:...).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^(([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?([.][a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?)*|[[][a-fA-F0-9:]+[]])(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?/)?[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$')",message="must be an image reference such as registry.example/team/server:v1.2.0 or registry.example/team/server@sha256:<64 hex digits>, with no scheme and no white space"
	// +kubebuilder:validation:XValidation:rule="self.matches('^.{1,255}(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?$')",message="must have at most 255 characters before the tag and the digest: no registry accepts more"
	Image string `json:"image"`

	// imagePullSecrets are Secrets of type kubernetes.io/dockerconfigjson in the server's namespace.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	ImagePullSecrets []LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// command replaces the image's entrypoint. For transport.type Stdio it is required: the gateway starts it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.size() == 0 || self[0].size() > 0",message="the first element is the program to run and must not be empty"
	// +kubebuilder:validation:XValidation:rule="self.all(s, !s.contains('\\x00'))",message="must not contain a NUL character: no process can be given one"
	Command []string `json:"command,omitempty"`

	// args replaces the image's arguments.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="self.all(s, !s.contains('\\x00'))",message="must not contain a NUL character: no process can be given one"
	Args []string `json:"args,omitempty"`

	// transport says how the server speaks MCP.
	// +required
	Transport Transport `json:"transport"`

	// env are the variables of the server's process. Only what is named here reaches it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:XValidation:rule="self.map(e, has(e.value) ? e.value.size() : 0).sum() <= 262144",message="the values must not exceed 256 KiB in all: move large ones to a ConfigMap and mount it with filesystem.data"
	Env []EnvVar `json:"env,omitempty"`

	// secretFiles are Secrets that the server reads as files. A value that changes arrives in place,
	// with no restart: for servers that read the file again.
	// +optional
	// +listType=map
	// +listMapKey=mountPath
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(a, a.mountPath != '/tmp' && !a.mountPath.startsWith('/tmp/') && self.all(b, a.mountPath == b.mountPath || !a.mountPath.startsWith(b.mountPath + '/')))",message="secretFiles must be mounted outside /tmp and not inside one another: choose separate folders, such as /run/secrets/db"
	SecretFiles []SecretFile `json:"secretFiles,omitempty"`

	// rotation says what happens when a value changes that env names by secretKeyRef. Left out: it
	// is rolled out 30 seconds later.
	// +optional
	Rotation *Rotation `json:"rotation,omitempty"`

	// filesystem says where the server may write and which data it may see. Its root file system
	// is read-only; /tmp is always writable and bounded.
	// +optional
	Filesystem *Filesystem `json:"filesystem,omitempty"`

	// network says who may reach the server and what it may reach. Left out: nobody and nothing.
	// +optional
	Network *Network `json:"network,omitempty"`

	// resources are the requests and limits of the server's container. What is left out is
	// defaulted and shown in status.resources; no server runs without limits.
	// +optional
	Resources *ResourceRequirements `json:"resources,omitempty"`

	// replicas is the number of pods. Left out, it is left to an autoscaler that targets the
	// Deployment of the same name, and is 1 without one.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Replicas *int32 `json:"replicas,omitempty"`

	// scheduling says on which nodes the pods run, and how.
	// +optional
	Scheduling *Scheduling `json:"scheduling,omitempty"`

	// desiredState is Running (the default), Stopped (no pods) or Quarantined (the pods are kept
	// as they are and cut off from everything).
	// +optional
	DesiredState DesiredState `json:"desiredState,omitempty"`
}

// DesiredState is what should become of the server's pods.
// +kubebuilder:validation:Enum=Running;Stopped;Quarantined
type DesiredState string

const (
	// StateRunning runs the server.
	StateRunning DesiredState = "Running"
	// StateStopped scales the server to zero.
	StateStopped DesiredState = "Stopped"
	// StateQuarantined keeps the pods for forensics, rolls nothing out and closes the network both ways.
	StateQuarantined DesiredState = "Quarantined"
)

// LocalObjectReference names an object in the server's namespace.
type LocalObjectReference struct {
	// name of the object.
	// +required
	Name ObjectName `json:"name"`
}

// ObjectName is the name of an object in the server's namespace (RFC 1123 subdomain).
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",message="must be an object name: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit"
type ObjectName string

// TransportType names an MCP transport.
// +kubebuilder:validation:Enum=StreamableHTTP;Stdio
type TransportType string

const (
	// TransportStreamableHTTP is MCP's Streamable HTTP transport. The gateway stands in front of the server, in its pod.
	TransportStreamableHTTP TransportType = "StreamableHTTP"
	// TransportStdio is MCP's stdio transport. The gateway starts the server and serves it as Streamable HTTP.
	TransportStdio TransportType = "Stdio"
)

// Transport says how the server speaks. Clients speak Streamable HTTP to its gateway, whatever it is.
// +kubebuilder:validation:XValidation:rule="self.type != 'StreamableHTTP' || !has(self.port) || !(self.port in [29010, 29011])",fieldPath=".port",message="transport.port must not be 29010 or 29011, on which the gateway in front of the server listens: let the server listen on another port"
// +kubebuilder:validation:XValidation:rule="self.type != 'StreamableHTTP' || has(self.port)",message="transport.port is required for type StreamableHTTP: name the TCP port that the server listens on"
type Transport struct {
	// type is the MCP transport that the server speaks.
	// +required
	Type TransportType `json:"type"`

	// port is the TCP port that the server listens on, and the one of its Service. For type Stdio it is
	// the Service's alone, and 8080 when left out.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port *int32 `json:"port,omitempty"`

	// path is the URL path of the MCP endpoint; /mcp when left out.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^/[-a-zA-Z0-9._~/]*$') && !self.matches('//|/[.][.]?(/|$)')",message="must be an absolute URL path such as /mcp, of letters, digits and -._~/ only, with no '//', no '.' or '..' element, no query and no fragment"
	Path string `json:"path,omitempty"`

	// tls makes the gateway speak HTTPS to clients; the endpoint then begins with https.
	// +optional
	TLS *TransportTLS `json:"tls,omitempty"`
}

// TransportTLS says what the gateway shows to clients that connect by TLS 1.3 or 1.2.
type TransportTLS struct {
	// secretName is a Secret of the server's namespace with the keys tls.crt and tls.key, such as one of type
	// kubernetes.io/tls. The certificate must be for NAME.NAMESPACE.svc. What is renewed is taken up with no restart.
	// +required
	SecretName ObjectName `json:"secretName"`
}

// EnvVar is one variable of the server's process.
// +kubebuilder:validation:XValidation:rule="!has(self.valueFrom) || self.name.size() <= 253",message="a variable with valueFrom can have a name of at most 253 characters: it becomes a key of a Secret"
// +kubebuilder:validation:XValidation:rule="has(self.value) != has(self.valueFrom)",message="set exactly one of value and valueFrom"
type EnvVar struct {
	// name of the variable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-zA-Z_.-][a-zA-Z0-9_.-]*$') && self != '.' && !self.startsWith('..')",message="must be a variable name of letters, digits, '_', '-' and '.', not starting with a digit and neither '.' nor starting with '..'"
	Name string `json:"name"`

	// value is a literal. Never put a credential here: use valueFrom.secretKeyRef.
	// +optional
	// +kubebuilder:validation:MaxLength=32768
	// +kubebuilder:validation:XValidation:rule="!self.contains('\\x00')",message="must not contain a NUL character: no process can be given one"
	Value *string `json:"value,omitempty"`

	// valueFrom reads the value from a Secret or a ConfigMap.
	// +optional
	ValueFrom *EnvVarSource `json:"valueFrom,omitempty"`
}

// EnvVarSource names where a variable's value comes from.
// +kubebuilder:validation:XValidation:rule="has(self.secretKeyRef) != has(self.configMapKeyRef)",message="set exactly one of secretKeyRef and configMapKeyRef"
type EnvVarSource struct {
	// secretKeyRef names a key of a Secret in the server's namespace.
	// +optional
	SecretKeyRef *KeyReference `json:"secretKeyRef,omitempty"`

	// configMapKeyRef names a key of a ConfigMap in the server's namespace.
	// +optional
	ConfigMapKeyRef *KeyReference `json:"configMapKeyRef,omitempty"`
}

// KeyReference names one key of a Secret or a ConfigMap in the server's namespace.
type KeyReference struct {
	// name of the Secret or ConfigMap.
	// +required
	Name ObjectName `json:"name"`

	// key in its data.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",message="must be a data key of letters, digits, '-', '_' and '.', not '.' and not starting with '..'"
	Key string `json:"key"`
}

// ResourceRequirements are the requests and limits of the server's container.
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || !has(self.requests.cpu) || !has(self.limits.cpu) || [string(self.requests.cpu), string(self.limits.cpu)].exists(s, s.size() > 32 || s.matches('[eE]...') || !isQuantity(s)) || quantity(string(self.requests.cpu)).compareTo(quantity(string(self.limits.cpu))) <= 0",message="requests.cpu must not be greater than limits.cpu: lower the request or raise the limit"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || !has(self.requests.memory) || !has(self.limits.memory) || [string(self.requests.memory), string(self.limits.memory)].exists(s, s.size() > 32 || s.matches('[eE]...') || !isQuantity(s)) || quantity(string(self.requests.memory)).compareTo(quantity(string(self.limits.memory))) <= 0",message="requests.memory must not be greater than limits.memory: lower the request or raise the limit"
// +kubebuilder:validation:XValidation:rule="!has(self.requests) || !has(self.limits) || !has(self.requests.ephemeral__dash__storage) || !has(self.limits.ephemeral__dash__storage) || [string(self.requests.ephemeral__dash__storage), string(self.limits.ephemeral__dash__storage)].exists(s, s.size() > 32 || s.matches('[eE]...') || !isQuantity(s)) || quantity(string(self.requests.ephemeral__dash__storage)).compareTo(quantity(string(self.limits.ephemeral__dash__storage))) <= 0",message="requests.ephemeral-storage must not be greater than limits.ephemeral-storage: lower the request or raise the limit"
type ResourceRequirements struct {
	// requests are what the scheduler reserves.
	// +optional
	Requests *ResourceAmounts `json:"requests,omitempty"`

	// limits are what the server cannot exceed.
	// +optional
	Limits *ResourceAmounts `json:"limits,omitempty"`
}

// ResourceAmounts are amounts of the resources that every server has bounds for. Their rules look at
// length and exponent first: to compare 1e999999999 would keep the API server busy for minutes.
type ResourceAmounts struct {
	// cpu in cores, from 1m to 1024.
	// +optional
	// +kubebuilder:validation:XValidation:rule="[string(self)].all(s, s.size() <= 32 && !s.matches('[eE]...') && isQuantity(s) && [quantity(s)].all(q, q.compareTo(quantity('1m')) >= 0 && q.compareTo(quantity('1024')) <= 0))",message="must be an amount of cpu from 1m to 1024, such as 500m or 2"
	CPU *resource.Quantity `json:"cpu,omitempty"`

	// memory in bytes, from 4Mi to 16Ti.
	// +optional
	// +kubebuilder:validation:XValidation:rule="[string(self)].all(s, s.size() <= 32 && !s.matches('[eE]...') && isQuantity(s) && [quantity(s)].all(q, q.compareTo(quantity('4Mi')) >= 0 && q.compareTo(quantity('16Ti')) <= 0))",message="must be an amount of memory from 4Mi to 16Ti, such as 256Mi or 1Gi"
	Memory *resource.Quantity `json:"memory,omitempty"`

	// ephemeral-storage in bytes, from 1Mi to 16Ti: logs, the container's own layer and the
	// writable paths that are kept on disk.
	// +optional
	// +kubebuilder:validation:XValidation:rule="[string(self)].all(s, s.size() <= 32 && !s.matches('[eE]...') && isQuantity(s) && [quantity(s)].all(q, q.compareTo(quantity('1Mi')) >= 0 && q.compareTo(quantity('16Ti')) <= 0))",message="must be an amount of storage from 1Mi to 16Ti, such as 256Mi or 1Gi"
	EphemeralStorage *resource.Quantity `json:"ephemeral-storage,omitempty"`
}
