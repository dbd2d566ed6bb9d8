package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/compliance"
	"github.com/mcpwarden/mcp-warden/internal/status"
)

// judge gives the verdict over a server, from what is live. obs is nil where not even the operator's own objects
// could be read, for the reason that err gives.
func (r *MCPServerReconciler) judge(ctx context.Context, server *v1alpha1.MCPServer, obs *observation, in status.Input, err error) *compliance.Report {
	policies, unknown := r.policiesOf(ctx, server.Namespace)
	report := compliance.Evaluate(compliance.Input{
		Now: in.Now, Server: server, Plan: in.Plan, Literals: in.Literals, Policies: policies, PoliciesUnknown: unknown,
		Live: r.live(ctx, server, obs, in, policies, err),
	})
	return &report
}

// live gathers what verdicts read.
func (r *MCPServerReconciler) live(ctx context.Context, server *v1alpha1.MCPServer, obs *observation, in status.Input, policies []v1alpha1.MCPPolicy, err error) *compliance.Live {
	out := &compliance.Live{Isolation: in.Isolation}
	if obs == nil {
		out.Pods.Unknown = "the server could not be looked at: " + err.Error()
	} else {
		out.Deployment, out.Pods.Value = obs.deployment, slices.Clone(obs.pods)
	}
	around, namespace := r.surroundings, client.InNamespace(server.Namespace)
	strangers := &corev1.PodList{}
	if why := around.list(ctx, kindPod, strangers, namespace); why != "" {
		out.Pods.Unknown = why
	}
	for i := range strangers.Items {
		if strangers.Items[i].Spec.ServiceAccountName == server.Name {
			out.Pods.Value = append(out.Pods.Value, strangers.Items[i])
		}
	}
	r.liveNetworkPolicies(ctx, server.Namespace, out)
	services := &corev1.ServiceList{}
	out.Services = seenAs(&services.Items, cmpOr(around.unread(kindService), func() string { return errorText(r.Client.List(ctx, services, namespace, client.UnsafeDisableDeepCopy)) }))
	ingresses := &networkingv1.IngressList{}
	out.Ingresses = seenAs(&ingresses.Items, around.list(ctx, kindIngress, ingresses, namespace))
	out.OtherPolicies = r.otherPolicies(ctx, server.Namespace)
	out.Routes = r.routes(ctx, server.Namespace)
	out.NamespaceLabels = r.namespaceLabels(ctx, server.Namespace)
	out.Bindings = r.bindings(ctx, server)
	out.Account = r.account(ctx, server)
	out.Drift = r.drift(in, err)
	out.Repairs = r.inPlaceOf(server).repairs
	out.Secrets = secretsVerdict(in)
	if obs != nil && obs.unread != nil {
		out.Secrets.Message = "the Secrets cannot be looked at: " + redactedFor(server, obs.unread).Error()
	}
	out.Twins = r.twins(ctx, server, policies)
	inOrder(out)
	return out
}

// inOrder sorts what a cache lists in any order: the same must be told each time, or each telling is a write.
func inOrder(live *compliance.Live) {
	slices.SortFunc(live.Pods.Value, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(live.NetworkPolicies.Value, func(a, b networkingv1.NetworkPolicy) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(live.Services.Value, func(a, b corev1.Service) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(live.Ingresses.Value, func(a, b networkingv1.Ingress) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(live.OtherPolicies.Value, func(a, b compliance.OtherPolicy) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(live.Routes.Value, func(a, b compliance.Route) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(live.Bindings.Value, func(a, b compliance.Binding) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(live.Twins.Value, func(a, b compliance.Twin) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Ours, b.Ours))
	})
}

// seenAs is what a list brought, or why it brought nothing.
func seenAs[T any](items *[]T, unknown string) compliance.Seen[[]T] {
	if unknown != "" {
		return compliance.Seen[[]T]{Unknown: unknown}
	}
	return compliance.Seen[[]T]{Value: *items}
}

func cmpOr(first string, second func() string) string {
	if first != "" {
		return first
	}
	return second()
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// liveNetworkPolicies are ours, which the operator's own cache holds, and those of others.
func (r *MCPServerReconciler) liveNetworkPolicies(ctx context.Context, namespace string, out *compliance.Live) {
	ours, others := &networkingv1.NetworkPolicyList{}, &networkingv1.NetworkPolicyList{}
	unknown := r.surroundings.list(ctx, kindNetworkPolicy, others, client.InNamespace(namespace))
	if unknown == "" {
		unknown = errorText(r.Client.List(ctx, ours, client.InNamespace(namespace), client.UnsafeDisableDeepCopy))
	}
	all := slices.Concat(ours.Items, others.Items)
	out.NetworkPolicies = seenAs(&all, unknown)
}

// otherPolicies are those of Cilium that apply to a namespace.
func (r *MCPServerReconciler) otherPolicies(ctx context.Context, namespace string) compliance.Seen[[]compliance.OtherPolicy] {
	var out compliance.Seen[[]compliance.OtherPolicy]
	for _, kind := range []schema.GroupKind{kindCiliumPolicy, kindCiliumClusterwide} {
		list := &unstructured.UnstructuredList{}
		var opts []client.ListOption
		if kind == kindCiliumPolicy {
			opts = append(opts, client.InNamespace(namespace))
		}
		if out.Unknown = r.surroundings.list(ctx, kind, list, opts...); out.Unknown != "" {
			return out
		}
		for i := range list.Items {
			out.Value = append(out.Value, ciliumPolicies(&list.Items[i], namespace)...)
		}
	}
	return out
}

// ciliumPolicies are, for the pods of a namespace, the rules of a policy of Cilium's, each of which has a selector of its own. A selector that
// cannot be understood may select anything.
func ciliumPolicies(object *unstructured.Unstructured, namespace string) []compliance.OtherPolicy {
	var specs []any
	if spec, ok := object.Object["spec"]; ok {
		specs = append(specs, spec)
	}
	if more, ok := object.Object["specs"].([]any); ok {
		specs = append(specs, more...)
	}
	var out []compliance.OtherPolicy
	for _, spec := range specs {
		spec, ok := spec.(map[string]any)
		if !ok {
			continue
		}
		if _, ofNodes := spec["nodeSelector"]; ofNodes {
			continue
		}
		ingress, _ := spec["ingress"].([]any)
		egress, _ := spec["egress"].([]any)
		out = append(out, compliance.OtherPolicy{
			Kind: object.GetKind(), Name: object.GetName(), Selects: ciliumSelector(spec["endpointSelector"], namespace),
			OpensIngress: len(ingress) > 0, OpensEgress: len(egress) > 0,
		})
	}
	return out
}

// ciliumSelector understands labels of pods, with and without the prefix of their source, and the name of their
// namespace. What it does not understand selects everything.
func ciliumSelector(raw any, namespace string) func(map[string]string) bool {
	everything := func(map[string]string) bool { return true }
	fields, ok := raw.(map[string]any)
	if !ok {
		return everything
	}
	selector := labels.NewSelector()
	require := func(key string, operator selection.Operator, values ...string) {
		if requirement := ciliumRequirement(key, operator, values); requirement != nil {
			selector = selector.Add(*requirement)
		}
	}
	matchLabels, _ := fields["matchLabels"].(map[string]any)
	for key, value := range matchLabels {
		require(key, selection.In, fmt.Sprint(value))
	}
	expressions, _, _ := unstructured.NestedSlice(fields, "matchExpressions")
	for _, expression := range expressions {
		expression, _ := expression.(map[string]any)
		key, _ := expression["key"].(string)
		operator, _ := expression["operator"].(string)
		values, _, _ := unstructured.NestedStringSlice(expression, "values")
		require(key, map[string]selection.Operator{"In": selection.In, "NotIn": selection.NotIn, "Exists": selection.Exists}[operator], values...)
	}
	return func(of map[string]string) bool {
		all := maps.Clone(of)
		if all == nil {
			all = map[string]string{}
		}
		all[ciliumNamespace] = namespace
		return selector.Matches(labels.Set(all))
	}
}

// ciliumNamespace is the label by which Cilium names the namespace of a pod.
const ciliumNamespace = "io.kubernetes.pod.namespace"

// ciliumRequirement is nil for what may hold whatever the labels are. Not every label of a pod counts for Cilium, so that
// one which a pod has may be one that it has not.
func ciliumRequirement(key string, operator selection.Operator, values []string) *labels.Requirement {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "any:"), "k8s:")
	isOther := strings.HasPrefix(key, "io.kubernetes.pod.") || strings.HasPrefix(key, "io.cilium.") || strings.Contains(key, ":")
	switch {
	case key == ciliumNamespace && operator != "":
	case isOther || operator != selection.In && operator != selection.Exists:
		return nil
	}
	requirement, err := labels.NewRequirement(key, operator, values)
	if err != nil {
		return nil
	}
	return requirement
}

// routes of the Gateway API that send requests to Services of a namespace.
func (r *MCPServerReconciler) routes(ctx context.Context, namespace string) compliance.Seen[[]compliance.Route] {
	var out compliance.Seen[[]compliance.Route]
	for _, kind := range kindsOfRoute {
		list := &unstructured.UnstructuredList{}
		if out.Unknown = r.surroundings.list(ctx, kind, list); out.Unknown != "" {
			return out
		}
		for i := range list.Items {
			route := &list.Items[i]
			if services := backendsOf(route)[namespace]; len(services) > 0 {
				out.Value = append(out.Value, compliance.Route{Kind: route.GetKind(), Namespace: route.GetNamespace(), Name: route.GetName(), Services: services})
			}
		}
	}
	return out
}

// backendsOf are the Services that a route names, by namespace: as backends, or to mirror requests to.
func backendsOf(route *unstructured.Unstructured) map[string][]string {
	out := map[string][]string{}
	rules, _, _ := unstructured.NestedSlice(route.Object, "spec", "rules")
	collectBackends(rules, route.GetNamespace(), out)
	return out
}

func collectBackends(in any, namespace string, out map[string][]string) {
	switch in := in.(type) {
	case []any:
		for _, item := range in {
			collectBackends(item, namespace, out)
		}
	case map[string]any:
		refs, _ := in["backendRefs"].([]any)
		if ref, ok := in["backendRef"]; ok {
			refs = append(slices.Clone(refs), ref)
		}
		for _, ref := range refs {
			ref, ok := ref.(map[string]any)
			if !ok {
				continue
			}
			name, _ := ref["name"].(string)
			of, ok := ref["namespace"].(string)
			if !ok {
				of = namespace
			}
			out[of] = append(out[of], name)
		}
		for _, item := range in {
			collectBackends(item, namespace, out)
		}
	}
}

func namespacesOfRoute(o client.Object) []types.NamespacedName {
	route, ok := o.(*unstructured.Unstructured)
	if !ok {
		return []types.NamespacedName{{}}
	}
	var out []types.NamespacedName
	for namespace := range backendsOf(route) {
		out = append(out, types.NamespacedName{Namespace: namespace})
	}
	return out
}

// namespaceLabels are those of a namespace. The name label is the API server's own.
func (r *base) namespaceLabels(ctx context.Context, namespace string) compliance.Seen[map[string]string] {
	list := &metav1.PartialObjectMetadataList{}
	if why := r.surroundings.list(ctx, kindNamespace, list); why != "" {
		return compliance.Seen[map[string]string]{Unknown: why}
	}
	for i := range list.Items {
		if list.Items[i].Name == namespace {
			return compliance.Seen[map[string]string]{Value: list.Items[i].Labels}
		}
	}
	return compliance.Seen[map[string]string]{Unknown: "the namespace was not found"}
}

// bindings that give rights to a server's account.
func (r *MCPServerReconciler) bindings(ctx context.Context, server *v1alpha1.MCPServer) compliance.Seen[[]compliance.Binding] {
	var out compliance.Seen[[]compliance.Binding]
	roles, clusterRoles := &rbacv1.RoleBindingList{}, &rbacv1.ClusterRoleBindingList{}
	if out.Unknown = r.surroundings.list(ctx, kindRoleBinding, roles, client.InNamespace(server.Namespace)); out.Unknown != "" {
		return out
	}
	if out.Unknown = r.surroundings.list(ctx, kindClusterRoleBinding, clusterRoles); out.Unknown != "" {
		return out
	}
	for i := range roles.Items {
		b := &roles.Items[i]
		if subject := subjectOf(b.Subjects, server, b.Namespace); subject != "" {
			out.Value = append(out.Value, compliance.Binding{Kind: "RoleBinding", Name: b.Name, Role: b.RoleRef.Kind + "/" + b.RoleRef.Name, Subject: subject})
		}
	}
	for i := range clusterRoles.Items {
		b := &clusterRoles.Items[i]
		if isKubernetesOwn(b) {
			continue
		}
		if subject := subjectOf(b.Subjects, server, ""); subject != "" {
			out.Value = append(out.Value, compliance.Binding{Kind: "ClusterRoleBinding", Name: b.Name, Role: b.RoleRef.Kind + "/" + b.RoleRef.Name, Subject: subject})
		}
	}
	return out
}

// subjectOf is the subject through which a binding gives its role to a server's account; empty where none does.
func subjectOf(subjects []rbacv1.Subject, server *v1alpha1.MCPServer, namespace string) string {
	user := "system:serviceaccount:" + server.Namespace + ":" + server.Name
	groups := []string{"system:serviceaccounts:" + server.Namespace, "system:serviceaccounts", "system:authenticated"}
	for _, s := range subjects {
		switch {
		case s.Kind == rbacv1.ServiceAccountKind && s.Name == server.Name && (s.Namespace == server.Namespace || s.Namespace == "" && namespace == server.Namespace),
			s.Kind == rbacv1.UserKind && s.Name == user:
			return "ServiceAccount " + server.Name
		case s.Kind == rbacv1.GroupKind && slices.Contains(groups, s.Name):
			return "Group " + s.Name
		}
	}
	return ""
}

// isKubernetesOwn tells the bindings that the API server makes for everybody who is authenticated. The role of a
// binding cannot be changed.
func isKubernetesOwn(b *rbacv1.ClusterRoleBinding) bool {
	own := []string{"system:basic-user", "system:discovery", "system:public-info-viewer", "system:service-account-issuer-discovery"}
	return slices.Contains(own, b.Name) && b.RoleRef.Name == b.Name && b.Labels["kubernetes.io/bootstrapping"] == "rbac-defaults"
}

func (r *MCPServerReconciler) account(ctx context.Context, server *v1alpha1.MCPServer) compliance.Seen[*corev1.ServiceAccount] {
	if why := r.surroundings.unread(kindServiceAccount); why != "" {
		return compliance.Seen[*corev1.ServiceAccount]{Unknown: why}
	}
	account := &corev1.ServiceAccount{}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(server), account)
	switch {
	case apierrors.IsNotFound(err):
		return compliance.Seen[*corev1.ServiceAccount]{}
	case err != nil:
		return compliance.Seen[*corev1.ServiceAccount]{Unknown: err.Error()}
	}
	return compliance.Seen[*corev1.ServiceAccount]{Value: account}
}

// drift says what the operator could not put right.
func (r *MCPServerReconciler) drift(in status.Input, err error) compliance.Seen[[]compliance.Drift] {
	drift := (*driftError)(nil)
	switch {
	case errors.As(err, &drift):
		return compliance.Seen[[]compliance.Drift]{Value: []compliance.Drift{drift.Drift}}
	case err != nil:
		return compliance.Seen[[]compliance.Drift]{Unknown: "the plan was not applied: " + err.Error()}
	case in.Plan != nil && in.Plan.Held != nil:
		return compliance.Seen[[]compliance.Drift]{Unknown: "the Deployment is left as it is: " + in.Plan.Held.Message}
	}
	for _, kind := range kindsOfPlan {
		if why := r.surroundings.unread(kind); why != "" {
			return compliance.Seen[[]compliance.Drift]{Unknown: why}
		}
	}
	return compliance.Seen[[]compliance.Drift]{}
}

// secretsVerdict is what SecretsCurrent is going to say.
func secretsVerdict(in status.Input) compliance.SecretsVerdict {
	if in.Secrets == nil {
		return compliance.SecretsVerdict{}
	}
	v := in.Secrets.Verdict
	out := compliance.SecretsVerdict{Status: string(v.Status), Reason: v.Reason, Message: v.Message}
	if in.Secrets.Status != nil {
		out.Sources, out.Desired, out.Deployed = in.Secrets.Status.Sources, in.Secrets.Status.DesiredDigest, in.Secrets.Status.DeployedDigest
	}
	return out
}

// twins are the servers of other namespaces that get a value that this one gets. They are looked for only where a
// policy demands it.
func (r *MCPServerReconciler) twins(ctx context.Context, server *v1alpha1.MCPServer, policies []v1alpha1.MCPPolicy) compliance.Seen[[]compliance.Twin] {
	var out compliance.Seen[[]compliance.Twin]
	demanded := slices.ContainsFunc(policies, func(p v1alpha1.MCPPolicy) bool { return compliance.KeepsApart(&p.Spec) })
	if !demanded || server.Status.Secrets == nil {
		return out
	}
	if out.Unknown = r.surroundings.unread(kindSecret); out.Unknown != "" {
		return out
	}
	for _, ours := range server.Status.Secrets.Sources {
		if ours.Digest == "" {
			continue
		}
		servers := &v1alpha1.MCPServerList{}
		if err := r.Client.List(ctx, servers, client.MatchingFields{serverDigestIndex: ours.Digest}, client.UnsafeDisableDeepCopy, client.DisableReadYourWritesConsistency); err != nil {
			out.Unknown = "the other servers could not be read: " + err.Error()
			return out
		}
		for i := range servers.Items {
			other := &servers.Items[i]
			if other.Namespace == server.Namespace {
				continue
			}
			policies, unknown := r.policiesOf(ctx, other.Namespace)
			if unknown != "" {
				out.Unknown = unknown
				return out
			}
			twin := compliance.Twin{Namespace: other.Namespace, Name: other.Name, Ours: ours.Name + "/" + ours.Key, Theirs: sourceWith(other, ours.Digest)}
			for j := range policies {
				twin.Policies = append(twin.Policies, policies[j].Name)
			}
			out.Value = append(out.Value, twin)
		}
	}
	return out
}

func sourceWith(server *v1alpha1.MCPServer, digest string) string {
	for _, source := range server.Status.Secrets.Sources {
		if source.Digest == digest {
			return source.Name + "/" + source.Key
		}
	}
	return ""
}
