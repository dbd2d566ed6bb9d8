// Package admission tests, on a real API server, what config/admission refuses there.
package admission

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

const (
	patience = 60 * time.Second
	glance   = 50 * time.Millisecond
)

var (
	// config reaches the API server with every right.
	config *rest.Config
	scheme = runtime.NewScheme()
	// admin does so, too.
	admin client.Client
)

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	server, err := apiserver.Start(context.Background(), "admission", "kube-scheduler")
	if err != nil {
		fmt.Fprintln(os.Stderr, "start API server:", err)
		return 1
	}
	defer func() {
		if err := server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop API server:", err)
		}
	}()
	config = server.Config
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if admin, err = client.New(config, client.Options{Scheme: scheme}); err != nil {
		fmt.Fprintln(os.Stderr, "make client:", err)
		return 1
	}
	if err := install(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "install config/admission:", err)
		return 1
	}
	return m.Run()
}

// install applies what an install has beside the operator itself, and waits until the API server heeds it.
func install(ctx context.Context) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "mcp-warden-system"}}
	if err := admin.Create(ctx, namespace); err != nil {
		return err
	}
	for _, folder := range []string{"rbac", "admission"} {
		objects, err := kustomized(folder)
		if err != nil {
			return err
		}
		for _, object := range objects {
			if err := admin.Create(ctx, object); err != nil {
				return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
			}
		}
	}
	return inForce(ctx)
}

// kustomized are the objects of a folder of config.
func kustomized(folder string) ([]*unstructured.Unstructured, error) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(apiserver.Root(), "config", folder))
	if err != nil {
		return nil, fmt.Errorf("build config/%s: %w", folder, err)
	}
	var out []*unstructured.Unstructured
	for _, resource := range built.Resources() {
		object, err := resource.Map()
		if err != nil {
			return nil, err
		}
		out = append(out, &unstructured.Unstructured{Object: object})
	}
	return out, nil
}

// inForce returns once the API server heeds every policy that was written before, parameters included: it learns of
// them in the order in which they were written.
func inForce(ctx context.Context) error {
	sentinel := &v1alpha1.MCPPolicy{ObjectMeta: metav1.ObjectMeta{GenerateName: "sentinel-"}, Spec: v1alpha1.MCPPolicySpec{
		NamespaceSelector: v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{corev1.LabelMetadataName: metav1.NamespaceDefault}},
		Action:            v1alpha1.PolicyEnforce,
		Images:            &v1alpha1.ImagePolicy{AllowedRepositories: []v1alpha1.RepositoryPattern{"sentinel.example/none"}},
	}}
	if err := admin.Create(ctx, sentinel); err != nil {
		return err
	}
	server := &v1alpha1.MCPServer{ObjectMeta: metav1.ObjectMeta{Name: "sentinel", Namespace: metav1.NamespaceDefault}, Spec: v1alpha1.MCPServerSpec{
		Image: "sentinel.example/some", Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(8080))},
	}}
	last := error(nil)
	err := wait.PollUntilContextTimeout(ctx, glance, patience, true, func(ctx context.Context) (bool, error) {
		last = admin.Create(ctx, server.DeepCopy(), client.DryRunAll)
		return last != nil && strings.Contains(last.Error(), "policy "+sentinel.Name+": IMG-01"), nil
	})
	if err != nil {
		return fmt.Errorf("wait for policy %s to be heeded: %w; last answer: %w", sentinel.Name, err, last)
	}
	return admin.Delete(ctx, sentinel)
}

// must reports an error that ends the test.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// enact makes a policy that ends with the test: each one costs every write of a server something.
func enact(t *testing.T, policy *v1alpha1.MCPPolicy) {
	t.Helper()
	must(t, admin.Create(t.Context(), policy))
	t.Cleanup(func() { must(t, admin.Delete(context.Background(), policy)) })
}

// newNamespace makes a namespace of a test's own, with labels.
func newNamespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-", Labels: labels}}
	must(t, admin.Create(t.Context(), namespace))
	return namespace.Name
}

// warnings are those that the API server sends with its answers.
type warnings struct{ lines []string }

func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.lines = append(w.lines, text)
}

// about tells whether one holds some words.
func (w *warnings) about(words string) bool {
	return slices.ContainsFunc(w.lines, func(line string) bool { return strings.Contains(line, words) })
}

// clientWith is an administrator's that keeps the warnings.
func clientWith(t *testing.T, w *warnings) client.Client {
	t.Helper()
	own := rest.CopyConfig(config)
	own.WarningHandlerWithContext = w
	out, err := client.New(own, client.Options{Scheme: scheme})
	must(t, err)
	return out
}

// decode reads YAML strictly.
func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// refusalOf is the message with which a ValidatingAdmissionPolicy refused; empty for no error. Any other error ends
// the test, and so does a policy that could not be evaluated.
func refusalOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	status := apierrors.APIStatus(nil)
	if !errors.As(err, &status) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy") || !apierrors.IsForbidden(err) {
		t.Fatalf("not refused by a policy: %v", err)
	}
	if strings.Contains(err.Error(), "resulted in error") || strings.Contains(err.Error(), "failed to configure") || strings.Contains(err.Error(), "failed expression") {
		t.Fatalf("the policy itself failed: %v", err)
	}
	return err.Error()
}

// TestPoliciesAreSound: the API server's own type checker has nothing to say of any expression.
func TestPoliciesAreSound(t *testing.T) {
	policies := &admissionv1.ValidatingAdmissionPolicyList{}
	err := wait.PollUntilContextTimeout(t.Context(), glance, patience, true, func(ctx context.Context) (bool, error) {
		if err := admin.List(ctx, policies); err != nil {
			return false, err
		}
		for _, p := range policies.Items {
			if p.Status.ObservedGeneration != p.Generation || p.Status.TypeChecking == nil {
				return false, nil
			}
		}
		return len(policies.Items) > 0, nil
	})
	must(t, err)
	for _, p := range policies.Items {
		for _, w := range p.Status.TypeChecking.ExpressionWarnings {
			t.Errorf("%s: %s: %s", p.Name, w.FieldRef, w.Warning)
		}
	}
}
