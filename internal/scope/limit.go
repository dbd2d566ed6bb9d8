package scope

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	// operator is the name of the operator's ClusterRole, of its binding and of its Deployment.
	operator = "mcp-warden"
	// serversRole is the Role, and its binding, in every namespace that a limited install manages.
	serversRole = "mcp-warden-servers"
	// servicesRole is the Role, and its binding, for one Service of a namespace that it does not manage.
	servicesRole = "mcp-warden-services"
	// LabelLimited marks the Roles and bindings that only a limited install has. Its value tells those of one
	// list of namespaces from what another list left behind.
	LabelLimited = "mcpwarden.io/limited-install"

	namespacesFlag, clusterDNSFlag = "namespaces", "cluster-dns-service"
)

// clusterScoped are the kinds, as GROUP/RESOURCE, that lie in no namespace. One that is missing here
// ends up in a Role, where it gives nothing: a test asks a real API server.
var clusterScoped = []string{
	"/namespaces", "/nodes", "/persistentvolumes",
	"apiextensions.k8s.io/customresourcedefinitions",
	"cilium.io/ciliumclusterwidenetworkpolicies",
	"mcpwarden.io/mcppolicies",
	"node.k8s.io/runtimeclasses",
	"rbac.authorization.k8s.io/clusterrolebindings",
	"scheduling.k8s.io/priorityclasses",
}

// unlimitedOnly are the resources, as GROUP/RESOURCE, whose rights a limited install does not give: the status of
// an MCPPolicy tells of all namespaces, and an operator that sees some of them cannot write it.
var unlimitedOnly = []string{"mcpwarden.io/mcppolicies/status"}

// reading verbs are all that the operator may do with what lies in no namespace.
var reading = []string{"get", "list", "watch"}

// Limit turns the manifests of an install for all namespaces into those of one that is limited to
// some: the ClusterRole keeps what lies in no namespace, for reading; every other rule of it moves into a Role in each
// namespace; the operator is told to look nowhere else. All other manifests stay as they are.
func Limit(manifests []byte, namespaces []string) ([]byte, error) {
	if len(namespaces) == 0 {
		return nil, fmt.Errorf("there is no namespace to limit the install to")
	}
	documents, err := read(manifests)
	if err != nil {
		return nil, err
	}
	found := map[string]*unstructured.Unstructured{}
	for _, d := range documents {
		if d.object.GetName() == operator {
			found[d.object.GetKind()] = d.object
		}
	}
	for _, kind := range []string{"ClusterRole", "ClusterRoleBinding", "Deployment"} {
		if found[kind] == nil {
			return nil, fmt.Errorf("the manifests hold no %s %s", kind, operator)
		}
	}
	dns, err := limitDeployment(found["Deployment"], namespaces)
	if err != nil {
		return nil, fmt.Errorf("limit Deployment %s: %w", operator, err)
	}
	roles, err := limitRole(found["ClusterRole"], found["ClusterRoleBinding"], namespaces, dns)
	if err != nil {
		return nil, fmt.Errorf("limit ClusterRole %s: %w", operator, err)
	}
	var out bytes.Buffer
	for _, d := range documents {
		objects := []any{d.object.Object}
		switch d.object {
		case found["ClusterRole"]:
			objects = append(objects, roles...) // the rights first: the operator starts with them
		case found["Deployment"]:
		default:
			fmt.Fprintf(&out, "---\n%s\n", strings.TrimSpace(d.text))
			continue
		}
		for _, object := range objects {
			raw, err := yaml.Marshal(object)
			if err != nil {
				return nil, err
			}
			fmt.Fprintf(&out, "---\n%s", raw)
		}
	}
	return out.Bytes(), nil
}

// document is one manifest, as it was written and as what it means.
type document struct {
	text   string
	object *unstructured.Unstructured
}

func read(manifests []byte) ([]document, error) {
	var out []document
	for text := range strings.SplitSeq("\n"+string(manifests), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(text), &o.Object); err != nil {
			return nil, fmt.Errorf("read manifests: %w", err)
		}
		if len(o.Object) > 0 {
			out = append(out, document{text, o})
		}
	}
	return out, nil
}

// limitDeployment tells the operator its namespaces, and returns its DNS Service.
func limitDeployment(deployment *unstructured.Unstructured, namespaces []string) (dns string, err error) {
	containers, _, err := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	if err != nil {
		return "", err
	}
	if len(containers) == 0 {
		return "", fmt.Errorf("it has no containers")
	}
	manager, ok := containers[0].(map[string]any)
	if !ok || manager["name"] != "manager" {
		return "", fmt.Errorf("its first container is not the manager")
	}
	args, _, err := unstructured.NestedStringSlice(manager, "args")
	if err != nil {
		return "", err
	}
	args, _ = takeFlag(args, namespacesFlag)
	_, dns = takeFlag(args, clusterDNSFlag)
	if dns == "" {
		dns = DefaultClusterDNS
	}
	args = append(args, "--"+namespacesFlag+"="+strings.Join(namespaces, ","))
	if err := unstructured.SetNestedStringSlice(manager, args, "args"); err != nil {
		return "", err
	}
	return dns, unstructured.SetNestedSlice(deployment.Object, containers, "spec", "template", "spec", "containers")
}

// takeFlag returns the arguments without a flag, and the flag's last value, in any form that Go's flags have.
func takeFlag(args []string, flag string) (rest []string, value string) {
	for i := 0; i < len(args); i++ {
		name, v, assigned := strings.Cut(args[i], "=")
		if name != "-"+flag && name != "--"+flag {
			rest = append(rest, args[i])
			continue
		}
		if value = v; !assigned && i+1 < len(args) {
			i++
			value = args[i]
		}
	}
	return rest, value
}

// limitRole takes out of the ClusterRole what lies in a namespace, and returns the Roles that give it, with their bindings.
func limitRole(clusterRole, clusterBinding *unstructured.Unstructured, namespaces []string, dns string) ([]any, error) {
	role, binding := &rbacv1.ClusterRole{}, &rbacv1.ClusterRoleBinding{}
	if err := convert(clusterRole, role); err != nil {
		return nil, err
	}
	if err := convert(clusterBinding, binding); err != nil {
		return nil, err
	}
	everywhere, inNamespace, err := split(role.Rules)
	if err != nil {
		return nil, err
	}
	outside, err := servicesOutside(namespaces, dns)
	if err != nil {
		return nil, err
	}
	g := grant{labels: map[string]string{"app.kubernetes.io/name": operator, LabelLimited: Mark(namespaces)}, to: binding.Subjects}
	var roles []any
	for _, namespace := range namespaces {
		roles = append(roles, g.role(namespace, serversRole, inNamespace), g.binding(namespace, serversRole))
	}
	for _, namespace := range slices.Sorted(maps.Keys(outside)) {
		rules := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"},
			ResourceNames: []string{outside[namespace]}, Verbs: []string{"list", "watch"}}}
		roles = append(roles, g.role(namespace, servicesRole, rules), g.binding(namespace, servicesRole))
	}
	role.Rules = everywhere
	raw, err := yaml.Marshal(role)
	if err != nil {
		return nil, err
	}
	return roles, yaml.Unmarshal(raw, &clusterRole.Object)
}

func convert(from *unstructured.Unstructured, to any) error {
	raw, err := yaml.Marshal(from.Object)
	if err != nil {
		return err
	}
	return yaml.UnmarshalStrict(raw, to)
}

// split tells the rules about what lies in no namespace from the others. What cannot be told apart, or would
// give more than reading outside of the namespaces, is refused.
func split(rules []rbacv1.PolicyRule) (everywhere, inNamespace []rbacv1.PolicyRule, err error) {
	for _, rule := range rules {
		all := slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs)
		if len(rule.NonResourceURLs) > 0 || slices.Contains(all, rbacv1.ResourceAll) || len(rule.APIGroups) != 1 {
			return nil, nil, fmt.Errorf("a limited install cannot give %s", rule.String())
		}
		outer, inner := rule, rule
		outer.Resources, inner.Resources = nil, nil
		for _, resource := range rule.Resources {
			if slices.Contains(unlimitedOnly, rule.APIGroups[0]+"/"+resource) {
				continue
			}
			kind, _, _ := strings.Cut(resource, "/")
			if slices.Contains(clusterScoped, rule.APIGroups[0]+"/"+kind) {
				outer.Resources = append(outer.Resources, resource)
			} else {
				inner.Resources = append(inner.Resources, resource)
			}
		}
		if len(inner.Resources) > 0 {
			inNamespace = append(inNamespace, inner)
		}
		if len(outer.Resources) == 0 {
			continue
		}
		if slices.ContainsFunc(rule.Verbs, func(verb string) bool { return !slices.Contains(reading, verb) }) {
			return nil, nil, fmt.Errorf("a limited install may only read what lies in no namespace: %s", rule.String())
		}
		everywhere = append(everywhere, outer)
	}
	return everywhere, inNamespace, nil
}

func servicesOutside(namespaces []string, dns string) (map[string]string, error) {
	namespace, name, err := ParseClusterDNS(dns)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", clusterDNSFlag, err)
	}
	return ServicesOutside(namespaces, namespace, name)
}

// Mark is the value of LabelLimited for a list of namespaces, as ParseNamespaces returns it.
func Mark(namespaces []string) string {
	const length = 16
	sum := sha256.Sum256([]byte(strings.Join(namespaces, ",")))
	return "list-" + hex.EncodeToString(sum[:])[:length] // with letters: YAML must not take it for a number
}

// grant makes Roles for the operator's account.
type grant struct {
	labels map[string]string
	to     []rbacv1.Subject
}

func (g grant) role(namespace, name string, rules []rbacv1.PolicyRule) *rbacv1.Role {
	return &rbacv1.Role{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "Role"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: g.labels}, Rules: rules,
	}
}

func (g grant) binding(namespace, name string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: g.labels}, Subjects: g.to,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	}
}
