package compliance

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// Seen is something that was looked for in the cluster.
type Seen[T any] struct {
	// Value as it was found.
	Value T
	// Unknown says why it could not be looked at; then the value says nothing.
	Unknown string
}

// Live is what is live. Its values are read only.
type Live struct {
	// Deployment of the server; nil where there is none.
	Deployment *appsv1.Deployment
	// Pods that carry the server's labels, and those that run under its account without them, as TrimPod leaves them.
	Pods Seen[[]corev1.Pod]
	// NetworkPolicies of the server's namespace, whoever made them.
	NetworkPolicies Seen[[]networkingv1.NetworkPolicy]
	// OtherPolicies are network policies of other kinds that apply to the server's namespace.
	OtherPolicies Seen[[]OtherPolicy]
	// Services of the server's namespace.
	Services Seen[[]corev1.Service]
	// Ingresses of the server's namespace.
	Ingresses Seen[[]networkingv1.Ingress]
	// Routes of the Gateway API, of whatever namespace, that name a Service of the server's namespace.
	Routes Seen[[]Route]
	// NamespaceLabels are those of the server's namespace.
	NamespaceLabels Seen[map[string]string]
	// Bindings that give rights to the server's account, by its name or by a group that it is in, without those that
	// Kubernetes itself makes for every account.
	Bindings Seen[[]Binding]
	// Account is the server's ServiceAccount; nil where there is none.
	Account Seen[*corev1.ServiceAccount]
	// Drift are objects of the plan, and Secrets with values for its pods, that are not as planned after the operator put
	// right what it could.
	Drift Seen[[]Drift]
	// Repairs are what somebody changed and the operator has put right.
	Repairs []Repair
	// Secrets is what the condition SecretsCurrent says of the values that the server gets.
	Secrets SecretsVerdict
	// Twins are servers elsewhere that get a value that this one gets.
	Twins Seen[[]Twin]
	// Isolation is what is known of the enforcement of NetworkPolicies; nil where that could not be found out.
	Isolation *probe.Verdict
}

// OtherPolicy is a network policy that is no NetworkPolicy, such as a CiliumNetworkPolicy.
type OtherPolicy struct {
	Kind, Name string
	// Selects tells whether the policy applies to a pod with some labels.
	Selects func(labels map[string]string) bool
	// OpensIngress and OpensEgress say whether it allows anything, either way.
	OpensIngress, OpensEgress bool
}

// Route is a route of the Gateway API.
type Route struct {
	Kind, Namespace, Name string
	// Services of the server's namespace that it sends requests to.
	Services []string
}

// Binding is a RoleBinding or a ClusterRoleBinding.
type Binding struct {
	Kind, Name string
	// Role that it gives, as Role/name or ClusterRole/name.
	Role string
	// Subject through which the server's account has it.
	Subject string
}

// Drift is an object of the plan that is not as planned.
type Drift struct {
	Kind, Name string
	// Path of the first field that differs; empty where the object is missing.
	Path string
}

// Repair is an object of the plan, or a Secret with values for the pods, that somebody changed and the operator put right.
type Repair struct {
	Drift
	Time time.Time
}

// repairShown is how long a verdict tells of what was put right: long enough to be noticed.
const repairShown = 5 * time.Second

// Shown tells whether the verdict still tells of a repair.
func (r *Repair) Shown(now time.Time) bool { return now.Before(r.Time.Add(repairShown)) }

func (r *Repair) how() string {
	if r.Path == "" {
		return "removed, or its labels were"
	}
	return "changed at " + r.Path
}

// SecretsVerdict is a condition without its bookkeeping.
type SecretsVerdict struct {
	// Status is True, False or Unknown; empty where nobody could look.
	Status, Reason, Message string
	// Sources are the keys that the spec names, with their ages.
	Sources []v1alpha1.SecretSource
	// Desired and Deployed are the digests of the values that the sources hold, and that new pods get; empty for none.
	Desired, Deployed string
}

// Twin is a server that gets the same value.
type Twin struct {
	// Server as namespace/name.
	Namespace, Name string
	// Source of the value there and here, as Secret/key.
	Theirs, Ours string
	// Policies that select the other server's namespace, by name.
	Policies []string
}

// count says how many of something there are.
func count(n int, what string) string { return fmt.Sprintf("%d %s", n, what) }
