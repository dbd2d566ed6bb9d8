package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

const (
	// operatorNamespace is where the operator is installed.
	operatorNamespace = "mcp-warden-system"
	// operatorAccount is the name of its account there.
	operatorAccount = "mcp-warden"
)

// recorders of every operator that a test started.
var recorders []*recorder

// neededElsewhere are rights that these tests do not use, with the reason.
var neededElsewhere = map[string]string{
	"create leases": "leader election, which the end-to-end tests run",
	"get leases":    "leader election",
	"update leases": "leader election",
	"patch events":  "an event that repeats becomes a series",
}

// installRights gives the operator under test the rights that an install gives it, and no others:
// every test shows that they suffice.
func installRights(ctx context.Context) error {
	if err := admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: operatorNamespace}}); err != nil {
		return err
	}
	return eachRightsObject(func(obj client.Object) error { return admin.Create(ctx, obj) })
}

// as reaches the API server under an account of the operator's namespace.
func as(account string, config *rest.Config) *rest.Config {
	out := rest.CopyConfig(config)
	out.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + operatorNamespace + ":" + account}
	return out
}

// eachRightsObject decodes the roles and bindings of config/rbac.
func eachRightsObject(do func(client.Object) error) error {
	manifests, err := configFiles("rbac/role.yaml", "rbac/role_binding.yaml")
	if err != nil {
		return err
	}
	return eachObject(manifests, do)
}

// configFiles are manifests of config, put together.
func configFiles(names ...string) (string, error) {
	var out strings.Builder
	for _, name := range names {
		raw, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", filepath.FromSlash(name)))
		if err != nil {
			return "", err
		}
		out.WriteString("\n---\n" + string(raw))
	}
	return out.String(), nil
}

func eachObject(manifests string, do func(client.Object) error) error {
	decoder := serializer.NewCodecFactory(admin.Scheme()).UniversalDeserializer()
	for document := range strings.SplitSeq("\n"+manifests, "\n---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		obj, _, err := decoder.Decode([]byte(document), nil, nil)
		if err != nil {
			return fmt.Errorf("decode %s: %w", document, err)
		}
		if err := do(obj.(client.Object)); err != nil {
			return fmt.Errorf("%T %s: %w", obj, obj.(client.Object).GetName(), err)
		}
	}
	return nil
}

// unusedRights are the rights that an install gives and that no request of any test needed, and those that
// are too wide to tell.
func unusedRights() ([]string, error) {
	used := map[string]bool{}
	for _, r := range recorders {
		for _, req := range r.in("", func(request) bool { return true }) {
			used[req.verb+" "+req.resource] = true
			switch req.verb {
			case "patch":
				used["create "+req.resource] = true // an apply creates what is not there
			case "watch":
				used["list "+req.resource] = true // an API server that cannot stream a list is asked for one
			}
		}
	}
	unused := map[string]bool{}
	err := eachRightsObject(func(obj client.Object) error {
		for _, rule := range rulesOf(obj) {
			for _, verb := range rule.Verbs {
				for _, resource := range rule.Resources {
					right := verb + " " + resource
					if strings.Contains(right, "*") || (!used[right] && neededElsewhere[right] == "") {
						unused[right] = true
					}
				}
			}
		}
		return nil
	})
	return slices.Sorted(maps.Keys(unused)), err
}

func rulesOf(obj client.Object) []rbacv1.PolicyRule {
	switch obj := obj.(type) {
	case *rbacv1.ClusterRole:
		return obj.Rules
	case *rbacv1.Role:
		return obj.Rules
	}
	return nil
}
