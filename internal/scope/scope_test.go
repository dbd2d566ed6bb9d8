package scope

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

func TestParseNamespaces(t *testing.T) {
	var many []string
	for i := range MaxNamespaces + 1 {
		many = append(many, fmt.Sprintf("n%d", i))
	}
	for _, tc := range []struct {
		list, want, problem string
	}{
		{"", "[]", ""},
		{"b, a,b", "[a b]", ""},
		{",", "", `"" is no name`},
		{"a,,b", "", `"" is no name`},
		{"*", "", `"*" is no name`},
		{"Agents", "", `"Agents" is no name`},
		{"a/b", "", `"a/b" is no name`},
		{strings.Join(many[1:], ","), "", ""},
		{strings.Join(many, ","), "", "101 namespaces are more than 100"},
	} {
		got, err := ParseNamespaces(tc.list)
		switch {
		case tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)):
			t.Errorf("%q: error %v, want %s", tc.list, err, tc.problem)
		case tc.problem == "" && (err != nil || (tc.want != "" && fmt.Sprint(got) != tc.want)):
			t.Errorf("%q: %v, %v; want %s", tc.list, got, err, tc.want)
		}
	}
}

func TestParseClusterDNS(t *testing.T) {
	if namespace, name, err := ParseClusterDNS(DefaultClusterDNS); err != nil || namespace != "kube-system" || name != "kube-dns" {
		t.Errorf("%s/%s, %v", namespace, name, err)
	}
	for _, text := range []string{"", "kube-dns", "/kube-dns", "kube-system/", "a/b/c", "kube-system/*"} {
		if _, _, err := ParseClusterDNS(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// manifests are those parts of an install that Limit looks at, and one that it does not.
func manifests(t *testing.T) string {
	t.Helper()
	var out strings.Builder
	for _, path := range []string{"rbac/service_account.yaml", "rbac/role.yaml", "rbac/role_binding.yaml", "rbac/user_roles.yaml", "manager/deployment.yaml"} {
		raw, err := os.ReadFile(filepath.Join("..", "..", "config", filepath.FromSlash(path)))
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("\n---\n" + string(raw))
	}
	return out.String()
}

// install is what a set of manifests gives the operator.
type install struct {
	clusterRoles map[string]rbacv1.ClusterRole
	roles        map[string]rbacv1.Role // by namespace and name
	bindings     map[string]rbacv1.RoleBinding
	args         []string
	kinds        []string // of all documents, in their order
}

func parse(t *testing.T, text string) install {
	t.Helper()
	in := install{clusterRoles: map[string]rbacv1.ClusterRole{}, roles: map[string]rbacv1.Role{}, bindings: map[string]rbacv1.RoleBinding{}}
	documents, err := read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	into := func(text string, to any) {
		if err := yaml.UnmarshalStrict([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range documents {
		key := d.object.GetNamespace() + "/" + d.object.GetName()
		in.kinds = append(in.kinds, d.object.GetKind())
		switch d.object.GetKind() {
		case "ClusterRole":
			var role rbacv1.ClusterRole
			into(d.text, &role)
			in.clusterRoles[role.Name] = role
		case "Role":
			var role rbacv1.Role
			into(d.text, &role)
			in.roles[key] = role
		case "RoleBinding":
			var binding rbacv1.RoleBinding
			into(d.text, &binding)
			in.bindings[key] = binding
		case "Deployment":
			var deployment appsv1.Deployment
			into(d.text, &deployment)
			in.args = deployment.Spec.Template.Spec.Containers[0].Args
		}
	}
	return in
}

func limited(t *testing.T, text string, namespaces ...string) install {
	t.Helper()
	out, err := Limit([]byte(text), namespaces)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(out))
}

// rights of rules, one line each.
func rights(rules []rbacv1.PolicyRule) []string {
	var out []string
	for _, rule := range rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				out = append(out, strings.Join([]string{verb, rule.APIGroups[0], resource, strings.Join(rule.ResourceNames, ",")}, " "))
			}
		}
	}
	slices.Sort(out)
	return out
}

// Whatever rights the operator is given, an install for all namespaces and a limited one give the same ones;
// the limited one gives those about what lies in a namespace there only.
func TestLimitMovesEveryRight(t *testing.T) {
	wide := parse(t, manifests(t))
	narrow := limited(t, manifests(t), "agents", "tools")
	everywhere := rights(narrow.clusterRoles[operator].Rules)
	want := []string{
		"get  namespaces ", "list  namespaces ", "list  nodes ", "list cilium.io ciliumclusterwidenetworkpolicies ", "list mcpwarden.io mcppolicies ",
		"list rbac.authorization.k8s.io clusterrolebindings ", "watch  namespaces ", "watch  nodes ", "watch cilium.io ciliumclusterwidenetworkpolicies ",
		"watch mcpwarden.io mcppolicies ", "watch rbac.authorization.k8s.io clusterrolebindings ",
	}
	if !slices.Equal(everywhere, want) {
		t.Errorf("everywhere the operator may %q, want %q: is it right that a limited operator reads that?", everywhere, want)
	}
	for _, namespace := range []string{"agents", "tools"} {
		role := narrow.roles[namespace+"/"+serversRole]
		together := append(rights(role.Rules), everywhere...)
		slices.Sort(together)
		wholly := slices.DeleteFunc(rights(wide.clusterRoles[operator].Rules), func(right string) bool {
			return right == "patch mcpwarden.io mcppolicies/status " // its counts are over all namespaces
		})
		if !slices.Equal(together, wholly) {
			t.Errorf("in %s the operator may %q, want %q", namespace, together, wholly)
		}
	}
	for key, role := range narrow.roles {
		binding := narrow.bindings[key]
		if binding.RoleRef.Kind != "Role" || binding.RoleRef.Name != role.Name || !slices.Equal(binding.Subjects, wide.bindings["default/mcp-warden"].Subjects) {
			t.Errorf("Role %s is bound by %+v", key, binding)
		}
	}
	for key, role := range wide.roles {
		if !reflect.DeepEqual(role, narrow.roles[key]) {
			t.Errorf("Role %s changed", key)
		}
	}
	for _, name := range []string{"mcp-warden-mcpserver-editor", "mcp-warden-mcpserver-viewer"} {
		if !reflect.DeepEqual(wide.clusterRoles[name], narrow.clusterRoles[name]) {
			t.Errorf("ClusterRole %s, which people get, changed", name)
		}
	}
	if slices.Index(narrow.kinds, "Deployment") != len(narrow.kinds)-1 {
		t.Errorf("the operator comes before its rights: %v", narrow.kinds)
	}
}

func TestLimitTellsTheOperator(t *testing.T) {
	text := strings.Replace(manifests(t), "- --leader-elect\n", "- --leader-elect\n        - --namespaces=old\n        - -namespaces\n        - older\n", 1)
	before, after := parse(t, manifests(t)), limited(t, text, "agents", "tools")
	if want := slices.Concat(before.args, []string{"--namespaces=agents,tools"}); !slices.Equal(after.args, want) {
		t.Errorf("arguments %q, want %q", after.args, want)
	}
}

// Outside of its namespaces the operator reads two Services, by name.
func TestLimitLeavesTwoServicesReadable(t *testing.T) {
	own := strings.Replace(manifests(t), "- --leader-elect\n", "- --leader-elect\n        - --cluster-dns-service=dns/resolver\n", 1)
	for _, tc := range []struct {
		name, manifests string
		namespaces      []string
		want            map[string]string
	}{
		{"usual", manifests(t), []string{"agents"}, map[string]string{"default": "kubernetes", "kube-system": "kube-dns"}},
		{"the API server's namespace is listed", manifests(t), []string{"default"}, map[string]string{"kube-system": "kube-dns"}},
		{"the DNS's namespace is listed", manifests(t), []string{"kube-system"}, map[string]string{"default": "kubernetes"}},
		{"a DNS of one's own", own, []string{"agents"}, map[string]string{"default": "kubernetes", "dns": "resolver"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := map[string]string{}
			for key, role := range limited(t, tc.manifests, tc.namespaces...).roles {
				if role.Name != servicesRole {
					continue
				}
				got[role.Namespace] = role.Rules[0].ResourceNames[0]
				if want := []string{"list  services " + got[role.Namespace], "watch  services " + got[role.Namespace]}; !slices.Equal(rights(role.Rules), want) {
					t.Errorf("Role %s gives %q", key, rights(role.Rules))
				}
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("readable %v, want %v", got, tc.want)
			}
		})
	}
}

// hack/install.sh finds by the label what another list of namespaces left behind.
func TestLimitMarksWhatItAdds(t *testing.T) {
	marks := map[string]bool{}
	for _, namespaces := range [][]string{{"a"}, {"a", "b"}, {"b"}} {
		in := limited(t, manifests(t), namespaces...)
		for key, role := range in.roles {
			mark, binding := role.Labels[LabelLimited], in.bindings[key]
			if added := role.Name != operator; added != (mark != "") || mark != binding.Labels[LabelLimited] {
				t.Errorf("%s: labels %v and %v", key, role.Labels, binding.Labels)
			}
			marks[mark] = true
		}
	}
	if len(marks) != 4 { // with ""
		t.Errorf("marks %v, want one for each list", marks)
	}
}

func TestLimitRefuses(t *testing.T) {
	all := manifests(t)
	changed := func(old, by string) string {
		t.Helper()
		out := strings.Replace(all, old, by, 1)
		if out == all {
			t.Fatalf("the manifests hold no %q", old)
		}
		return out
	}
	for _, tc := range []struct {
		name, manifests, problem string
		namespaces               []string
	}{
		{"no namespace", all, "no namespace", nil},
		{"no operator", changed("kind: Deployment", "kind: DaemonSet"), "no Deployment mcp-warden", []string{"a"}},
		{"no binding", changed("kind: ClusterRoleBinding", "kind: Binding"), "no ClusterRoleBinding mcp-warden", []string{"a"}},
		{"a wildcard of verbs", changed("rules:\n", "rules:\n- {apiGroups: [''], resources: [pods], verbs: ['*']}\n"), "cannot give", []string{"a"}},
		{"a wildcard of kinds", changed("rules:\n", "rules:\n- {apiGroups: [''], resources: ['*'], verbs: [get]}\n"), "cannot give", []string{"a"}},
		{"a wildcard of groups", changed("rules:\n", "rules:\n- {apiGroups: ['*'], resources: [pods], verbs: [get]}\n"), "cannot give", []string{"a"}},
		{"a URL", changed("rules:\n", "rules:\n- {nonResourceURLs: [/metrics], verbs: [get]}\n"), "cannot give", []string{"a"}},
		{"writing to nodes", changed("rules:\n", "rules:\n- {apiGroups: [''], resources: [pods, nodes], verbs: [get, patch]}\n"), "may only read", []string{"a"}},
		{"a DNS beside the API server", changed("- --leader-elect\n", "- --cluster-dns-service=default/dns\n"), "list namespace default too", []string{"a"}},
		{"a DNS without a namespace", changed("- --leader-elect\n", "- --cluster-dns-service=dns\n"), "must be NAMESPACE/NAME", []string{"a"}},
		{"a container before the manager", changed("- name: manager", "- name: other"), "not the manager", []string{"a"}},
		{"no YAML", all + "\n---\n{", "read manifests", []string{"a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out, err := Limit([]byte(tc.manifests), tc.namespaces); err == nil || !strings.Contains(err.Error(), tc.problem) {
				t.Errorf("%v, want %q; wrote %d bytes", err, tc.problem, len(out))
			}
		})
	}
}
