package controllers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/scope"
)

// limitedPrefix keeps the account of a limited operator, and its roles, apart from those of the other.
const limitedPrefix = "limited-"

// limitedRights are the roles and bindings of an install that is limited to namespaces.
func limitedRights(t *testing.T, namespaces ...string) []client.Object {
	t.Helper()
	manifests, err := configFiles("rbac/role.yaml", "rbac/role_binding.yaml", "manager/deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(namespaces)
	limited, err := scope.Limit([]byte(manifests), namespaces)
	if err != nil {
		t.Fatal(err)
	}
	var out []client.Object
	err = eachObject(strings.ReplaceAll(string(limited), "name: mcp-warden", "name: "+limitedPrefix+"mcp-warden"), func(obj client.Object) error {
		if _, ok := obj.(*appsv1.Deployment); !ok {
			out = append(out, obj)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// grantLimited gives these rights until the test ends, and leaves those as they are that are there.
func grantLimited(t *testing.T, namespaces ...string) {
	t.Helper()
	for _, obj := range limitedRights(t, namespaces...) {
		if err := admin.Create(t.Context(), obj); apierrors.IsAlreadyExists(err) {
			continue
		} else if err != nil {
			t.Fatalf("create %T %s: %v", obj, obj.GetName(), err)
		}
		removeLater(t, obj)
	}
}

func startLimited(t *testing.T, namespaces ...string) *operator {
	t.Helper()
	if shared != nil {
		t.Fatal("a parallel test ran first: its operator would do the work of this one")
	}
	o, err := startOperatorAs(limitedPrefix+operatorAccount, namespaces...)
	if err != nil {
		t.Fatalf("start operator: %v", err)
	}
	t.Cleanup(o.cancel)
	return o
}

// elsewhere are requests of an operator about namespaces that are not listed.
func (r *recorder) elsewhere(listed ...string) []string {
	var out []string
	for _, req := range r.in("", func(req request) bool { return !slices.Contains(listed, req.namespace) }) {
		out = append(out, req.verb+" "+req.resource+" "+req.namespace)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestLimitedToNamespaces(t *testing.T) {
	dnsService(t)
	near, far, other := newNamespace(t), newNamespace(t), newNamespace(t)
	grantLimited(t, near, far)
	o := startLimited(t, near, far)
	t.Cleanup(func() {
		if err := o.stop(); err != nil {
			t.Errorf("stop operator: %v", err)
		}
	})
	for _, namespace := range []string{far, other} {
		create(t, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "postgres"}, Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "postgres"}, Ports: []corev1.ServicePort{{Port: 5432}}}})
	}

	for _, namespace := range []string{far, other} {
		create(t, secretOf(namespace, "shared", map[string]string{"token": "one", "user": "one"}))
	}

	// A server calls another namespace that is listed, and one that is not; a second one has secrets.
	server, second, ignored := example(near, "web"), withToken(far, "web", "shared", "token"), withToken(other, "web", "shared", "token")
	second.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets/shared", SecretRef: v1alpha1.SecretKeys{Name: "shared", Keys: []v1alpha1.DataKey{"user"}}}}
	server.Spec.Replicas = new(int32(2))
	server.Spec.Network = &v1alpha1.Network{Egress: []v1alpha1.EgressRule{
		{To: v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Namespace: far, Name: "postgres"}}, Ports: []int32{5432}},
		{To: v1alpha1.EgressTarget{Service: &v1alpha1.ServiceReference{Namespace: other, Name: "postgres"}}, Ports: []int32{5432}},
	}}
	create(t, ignored)
	settled(t, o, second)
	create(t, server)
	c := waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonEgressTargetNotFound)
	want := "spec.network.egress[1].to.service: Service " + other + "/postgres lies outside the namespaces that MCP Warden is limited to here"
	if !strings.Contains(c.Message, want) || strings.Contains(c.Message, "egress[0]") {
		t.Errorf("message %q, want %q and nothing of the first rule", c.Message, want)
	}
	if ports := egressPorts(t, server); !slices.Equal(ports, []string{"5432"}) {
		t.Errorf("open ports %v, want that of the Service that may be read", ports)
	}
	for _, child := range children(server) {
		get(t, child)
	}

	rotatesSecrets(t, second)

	// What it made is kept so, and cleaned up, with the rights of a namespace.
	edit(t, &networkingv1.NetworkPolicy{ObjectMeta: named(server)}, func(p *networkingv1.NetworkPolicy) { p.Spec.Egress = nil })
	eventually(t, func() string {
		if ports := egressPorts(t, server); len(ports) != 1 {
			return fmt.Sprintf("open ports %v: the NetworkPolicy is not put right", ports)
		}
		return ""
	})
	remove(t, server)
	eventually(t, func() string {
		if exists(t, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: near, Name: plan.BaselineName}}) {
			return "the baseline of a namespace without servers is there"
		}
		return ""
	})
	o.calm(t, far)
	if repairs := eventsOf(t, second, "Repaired"); len(repairs) > 0 {
		t.Errorf("a rotation is told as a repair: %s", repairs[0].Note)
	}

	get(t, ignored)
	if len(ignored.Status.Conditions) > 0 || exists(t, &appsv1.Deployment{ObjectMeta: named(ignored)}) {
		t.Error("a server outside the namespaces was managed")
	}
	wantElsewhere := []string{
		"create secrets " + operatorNamespace, "get secrets " + operatorNamespace, // the key of the digests
		"list configmaps " + operatorNamespace, "list endpointslices default", "list nodes ", "list pods " + operatorNamespace,
		"list services default", "list services kube-system", "list services " + operatorNamespace,
		"get namespaces ", "list clusterrolebindings ", "list mcppolicies ", "list namespaces ", "watch clusterrolebindings ", "watch mcppolicies ", "watch namespaces ",
		"watch configmaps " + operatorNamespace, "watch endpointslices default", "watch nodes ", "watch pods " + operatorNamespace,
		"watch services default", "watch services kube-system", "watch services " + operatorNamespace,
	}
	for _, got := range o.elsewhere(near, far) {
		if !slices.Contains(wantElsewhere, got) {
			t.Errorf("outside its namespaces the operator asked to %s", got)
		}
	}
	if len(o.denied) > 0 {
		t.Errorf("the operator asked for what it has no right to: %v", o.denied)
	}
	checked := o.resources(near, "list")
	for _, resource := range o.resources(near, "watch") {
		if !slices.Contains(checked, resource) {
			t.Errorf("the operator watches %s and does not look first whether it may read them (newAccess)", resource)
		}
	}
}

// rotatesSecrets changes the values of a Secret that a server has in a variable and in a file.
func rotatesSecrets(t *testing.T, server *v1alpha1.MCPServer) {
	t.Helper()
	deployment := &appsv1.Deployment{ObjectMeta: named(server)}
	get(t, deployment)
	before := deployment.Spec.Template.Labels[plan.LabelSnapshot]
	edit(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: "shared"}}, func(s *corev1.Secret) {
		s.Data["token"], s.Data["user"] = []byte("two"), []byte("two")
	})
	eventually(t, func() string {
		get(t, deployment)
		label := deployment.Spec.Template.Labels[plan.LabelSnapshot]
		if label == "" || label == before {
			return "the new value is not rolled out"
		}
		snapshot := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: plan.SnapshotName(server.Name, label)}}
		files := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: plan.FilesName(server.Name, "shared")}}
		get(t, snapshot)
		get(t, files)
		if got := string(snapshot.Data["TOKEN"]) + " " + string(files.Data["user"]); got != "two two" {
			return "the pods are given " + got
		}
		return ""
	})
}

// resources of the requests about a namespace with a verb.
func (r *recorder) resources(namespace, verb string) []string {
	var out []string
	for _, req := range r.in(namespace, func(req request) bool { return req.verb == verb }) {
		out = append(out, req.resource)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A namespace that was deleted, or whose administrator took the operator's rights away, must not stop
// it for the others.
func TestNamespaceThatMayNotBeRead(t *testing.T) {
	listed, lost := newNamespace(t), newNamespace(t)
	grantLimited(t, listed)
	if o, err := startOperatorAs(limitedPrefix+operatorAccount, lost); err == nil {
		t.Error("an operator that may read none of its namespaces runs")
		_ = o.stop()
	} else if !strings.Contains(err.Error(), "may read none of "+lost) {
		t.Errorf("without any namespace: %v", err)
	}

	o := startLimited(t, listed, lost)
	server := example(listed, "web")
	settled(t, o, server)
	late := example(lost, "web")
	create(t, late)
	if got := o.in(lost, request.writes); len(got) > 0 {
		t.Errorf("wrote to a namespace that it may not read: %v", got)
	}

	// With its rights the namespace is managed: the operator ends, and is started again.
	grantLimited(t, lost)
	if err := <-o.done; err == nil || !strings.Contains(err.Error(), "may be read now: "+lost) {
		t.Errorf("the operator ended with %v", err)
	}
	o = startLimited(t, listed, lost)
	waitReason(t, late, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
	if len(o.denied) > 0 {
		t.Errorf("the operator asked for what it has no right to: %v", o.denied)
	}
	if err := o.stop(); err != nil {
		t.Errorf("stop operator: %v", err)
	}
}

// What a limited install gives by Role lies in a namespace, and what it gives by ClusterRole in none: a real
// API server tells.
func TestLimitedRightsLieWhereTheyBelong(t *testing.T) {
	t.Parallel()
	client, err := discovery.NewDiscoveryClientForConfig(cluster.Config)
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	namespaced := map[string]bool{}
	for _, list := range lists {
		for i := range list.APIResources {
			group, _, found := strings.Cut(list.GroupVersion, "/")
			if !found {
				group = ""
			}
			namespaced[group+"/"+list.APIResources[i].Name] = list.APIResources[i].Namespaced
		}
	}
	for _, obj := range limitedRights(t, "agents") {
		_, isRole := obj.(*rbacv1.Role)
		for _, rule := range rulesOf(obj) {
			for _, resource := range rule.Resources {
				name := rule.APIGroups[0] + "/" + resource
				lies, served := namespaced[name]
				switch {
				case !served:
					t.Logf("%s is not served here: where it lies, this test cannot tell", name)
				case lies != isRole:
					t.Errorf("%T %s gives rights to %s: correct clusterScoped of internal/scope", obj, obj.GetName(), name)
				}
			}
		}
	}
}
