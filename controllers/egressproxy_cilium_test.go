package controllers_test

import (
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/mcpwarden/mcp-warden/controllers"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// serveCilium has the API server serve Cilium's kind of policy until the test ends.
func serveCilium(t *testing.T) {
	t.Helper()
	serve(t, apiextensionsv1.NamespaceScoped, plan.CiliumNetworkPolicyKind, "ciliumnetworkpolicies")
}

// serve has the API server serve a kind that is not ours until the test ends.
func serve(t *testing.T, scope apiextensionsv1.ResourceScope, gvk schema.GroupVersionKind, plural string) {
	t.Helper()
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + "." + gvk.Group, Annotations: map[string]string{"api-approved.kubernetes.io": "unapproved, for a test"}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: gvk.Group, Scope: scope,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: gvk.Kind, ListKind: gvk.Kind + "List", Plural: plural, Singular: strings.ToLower(gvk.Kind)},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: gvk.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: new(true)}}}},
		},
	}
	opts := envtest.CRDInstallOptions{CRDs: []*apiextensionsv1.CustomResourceDefinition{crd}, MaxTime: patience}
	if _, err := envtest.InstallCRDs(cluster.Config, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := envtest.UninstallCRDs(cluster.Config, opts); err != nil {
			t.Error(err)
		}
	})
}

// exclusiveWith starts an operator of some backend for one test, which must not be parallel.
func exclusiveWith(t *testing.T, account, backend string) (*operator, error) {
	t.Helper()
	if shared != nil {
		t.Fatal("a parallel test ran first: its operator would do the work of this one")
	}
	o, err := startOperatorWith(account, func(o *controllers.Options) { o.CNIBackend = backend })
	if err == nil {
		t.Cleanup(func() {
			if err := o.stop(); err != nil {
				t.Errorf("stop operator: %v", err)
			}
		})
	}
	return o, err
}

func ciliumPolicy(namespace string) *unstructured.Unstructured {
	out := &unstructured.Unstructured{}
	out.SetGroupVersionKind(plan.CiliumNetworkPolicyKind)
	out.SetNamespace(namespace)
	out.SetName(plan.EgressProxyName)
	return out
}

func TestCiliumBacksTheProxyUp(t *testing.T) {
	if _, err := exclusiveWith(t, operatorAccount, "calico"); err == nil || !strings.Contains(err.Error(), "must be auto, none or cilium") {
		t.Errorf("an unknown backend: %v", err)
	}
	if _, err := exclusiveWith(t, operatorAccount, controllers.CNIBackendCilium); err == nil || !strings.Contains(err.Error(), "CiliumNetworkPolicy") {
		t.Errorf("the kind is not served and the operator started: %v", err)
	}
	serveCilium(t)
	if _, err := exclusiveWith(t, "nobody", controllers.CNIBackendCilium); err == nil || !strings.Contains(err.Error(), "may not") {
		t.Errorf("the operator may not write the kind and started: %v", err)
	}
	o, err := exclusiveWith(t, operatorAccount, controllers.CNIBackendAuto)
	if err != nil {
		t.Fatal(err)
	}
	server := caller(newNamespace(t), "web", "api.example.com")
	settledCaller(t, o, server)
	policy := ciliumPolicy(server.Namespace)
	get(t, policy)
	was := policy.DeepCopy()
	if spec, _ := policy.MarshalJSON(); !strings.Contains(string(spec), `"matchName":"api.example.com"`) {
		t.Errorf("the policy does not name the host: %s", spec)
	}
	// Policies add up: what the NetworkPolicy opened would be open.
	network := &networkingv1.NetworkPolicy{ObjectMeta: proxyObjects(server.Namespace)[0].(*networkingv1.NetworkPolicy).ObjectMeta}
	get(t, network)
	if len(network.Spec.Egress) > 0 {
		t.Errorf("the NetworkPolicy opens %+v", network.Spec.Egress)
	}
	for name, tamper := range map[string]func(*unstructured.Unstructured){
		"rule added": func(u *unstructured.Unstructured) {
			u.Object["spec"].(map[string]any)["egress"] = append(u.Object["spec"].(map[string]any)["egress"].([]any), map[string]any{"toEntities": []any{"all"}})
		},
		"field added": func(u *unstructured.Unstructured) {
			u.Object["spec"].(map[string]any)["enableDefaultDeny"] = map[string]any{"egress": false}
		},
		"second spec": func(u *unstructured.Unstructured) {
			u.Object["specs"] = []any{map[string]any{"endpointSelector": map[string]any{}, "egress": []any{map[string]any{"toEntities": []any{"all"}}}}}
		},
		"unlabelled": func(u *unstructured.Unstructured) { u.SetLabels(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			edit(t, policy, tamper)
			eventually(t, func() string {
				get(t, policy)
				if policy.Object["specs"] != nil {
					return "the second spec is still there"
				}
				return notEqual(policy.Object["spec"], was.Object["spec"]) + notEqual(policy.GetLabels(), was.GetLabels())
			})
		})
	}
	remove(t, policy)
	eventually(t, func() string {
		if !exists(t, policy) {
			return "it is not recreated"
		}
		return ""
	})
	remove(t, server)
	waitGone(t, policy)
	for _, obj := range proxyObjects(server.Namespace) {
		waitGone(t, obj)
	}
}

func notEqual(got, want any) string {
	return differs(asJSON(got), asJSON(want))
}
