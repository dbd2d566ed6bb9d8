// Package argodiff shows by Argo CD's own engine that what it synced does not differ from git once the operator has worked on it.
package argodiff

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/tracing"
	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

const (
	root     = "../../.."
	manager  = "argocd-controller" // the field manager of Argo CD
	tracking = "argocd.argoproj.io/tracking-id"
	rounds   = 10
	patience = 2 * time.Minute
)

// modes are the ways in which Argo CD compares: by default, with the sync option ServerSideApply, and with the compare option ServerSideDiff.
var modes = []string{"three-way", "structured-merge", "server-side"}

func TestNoDriftAfterClientSideApply(t *testing.T) { noDrift(t, false) }

func TestNoDriftAfterServerSideApply(t *testing.T) { noDrift(t, true) }

// noDrift syncs the installation, the samples and the example of a repository, and compares ten times while the operator works on them.
func noDrift(t *testing.T, serverSide bool) {
	e := start(t)
	git := e.git(t)
	for _, object := range git {
		e.apply(t, object, serverSide)
	}
	e.operator(t)
	e.compare(t, "as synced", git)
	for round := range rounds {
		e.reconcileAgain(t)
		e.compare(t, fmt.Sprintf("after %d more reconciles of each server", round+1), git)
	}
	e.adoptsNothing(t)
	e.noticesWhatGitChanged(t, git)
	e.leavesAQuarantineAlone(t, git)
	e.noticesWhatWasChangedInTheCluster(t, git)
}

// engine is Argo CD's, before an API server.
type engine struct {
	kubectl    *kube.KubectlCmd
	config     *rest.Config
	kubeconfig string
	operations kube.ResourceOperations
	dryRuns    diff.ServerSideDryRunner
	parser     *managedfields.GvkParser
}

func start(t *testing.T) *engine {
	t.Helper()
	e := &engine{kubectl: &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}}, kubeconfig: controlPlane(t)}
	config, err := clientcmd.BuildConfigFromFlags("", e.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	e.config = config
	e.discover(t)
	return e
}

// discover finds out anew which kinds are served, as Argo CD does with each sync.
func (e *engine) discover(t *testing.T) {
	t.Helper()
	operations, cleanup, err := e.kubectl.ManageResources(e.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cleanup)
	dryRuns, cleanup, err := e.kubectl.ManageServerSideDiffDryRuns(e.config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cleanup)
	e.operations, e.dryRuns = operations, diff.NewK8sServerSideDryRunner(dryRuns)
}

// controlPlane starts an API server for this test; the path of its kubeconfig.
func controlPlane(t *testing.T) string {
	t.Helper()
	name := fmt.Sprintf("test-argodiff-%d", os.Getpid())
	cmd := exec.Command("go", "-C", root+"/hack/localcluster", "run", ".", "up", "--control-plane-only", "--foreground", "--name", name)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("stop the control plane: %v", err)
		}
	})
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		if path, found := strings.CutPrefix(scanner.Text(), "ready KUBECONFIG="); found {
			return path
		}
	}
	t.Fatal("the control plane ended before it was ready")
	return ""
}

// git holds what a repository would, with what Argo CD adds to each object.
func (e *engine) git(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	out = append(out, externalSecrets())
	for _, folder := range []string{"config/default", "docs/examples/gitops/namespaces", "docs/examples/gitops/policies/production", "docs/examples/gitops/servers/production"} {
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(root, folder))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := resources.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, objects(t, raw)...)
	}
	sample, err := os.ReadFile(filepath.Join(root, "config/samples/everything.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects(t, sample) {
		if object.GetKind() == "MCPServer" { // as the policy of the example demands of a server
			set(t, object, "registry.example/mcp/everything@sha256:"+strings.Repeat("0", 64), "spec", "image")
			set(t, object, []any{map[string]any{"name": "GITHUB_TOKEN", "valueFrom": map[string]any{"secretKeyRef": map[string]any{"name": "everything", "key": "token"}}}}, "spec", "env")
		}
		out = append(out, object)
	}
	for _, object := range out {
		annotations := object.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		gvk := object.GroupVersionKind()
		annotations[tracking] = fmt.Sprintf("mcp:%s/%s:%s/%s", gvk.Group, gvk.Kind, object.GetNamespace(), object.GetName())
		object.SetAnnotations(annotations)
	}
	return out
}

func objects(t *testing.T, raw []byte) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	for _, document := range strings.Split(string(raw), "\n---\n") {
		object := &unstructured.Unstructured{}
		asJSON, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			t.Fatal(err)
		}
		if err := object.UnmarshalJSON(asJSON); err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
		out = append(out, object)
	}
	return out
}

// externalSecrets is the kind of the example's credential, as far as it matters here.
func externalSecrets() *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": "externalsecrets.external-secrets.io"},
		"spec": map[string]any{
			"group": "external-secrets.io", "scope": "Namespaced",
			"names": map[string]any{"kind": "ExternalSecret", "listKind": "ExternalSecretList", "plural": "externalsecrets", "singular": "externalsecret"},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true,
				"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
		},
	}}
}

// apply an object as Argo CD's sync does. A kind that was just declared may not be served yet.
func (e *engine) apply(t *testing.T, object *unstructured.Unstructured, serverSide bool) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		_, err := e.operations.ApplyResource(ctx, object.DeepCopy(), cmdutil.DryRunNone, false, true, serverSide, manager)
		if err != nil {
			e.discover(t)
		}
		return err
	})
}

// operator runs the operator until the test ends, and waits until it has seen everything.
func (e *engine) operator(t *testing.T) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "manager")
	if out, err := exec.Command("go", "-C", root, "build", "-o", binary, "./cmd/manager").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "manager.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--health-probe-bind-address=0")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+e.kubeconfig)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if raw, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("the operator's log:\n%s", raw)
		}
	})
	for _, name := range []string{"docs", "everything"} {
		eventually(t, func(ctx context.Context) error {
			if _, err := e.get(ctx, deployments, name, "agents"); err != nil {
				return err
			}
			return e.seen(ctx, servers, name, "agents")
		})
	}
	eventually(t, func(ctx context.Context) error { return e.seen(ctx, servers, "github", "agents") })
	eventually(t, func(ctx context.Context) error { return e.seen(ctx, policies, "servers", "") })
	eventually(t, func(context.Context) error { // the schemas of the kinds, by which Argo CD merges
		_, parser, err := e.kubectl.LoadOpenAPISchema(e.config)
		if err != nil {
			return err
		}
		if parser.Type(servers) == nil || parser.Type(policies) == nil {
			return errors.New("the API server does not tell the schemas yet")
		}
		e.parser = parser
		return nil
	})
}

var (
	servers     = schema.GroupVersionKind{Group: "mcpwarden.io", Version: "v1alpha1", Kind: "MCPServer"}
	policies    = schema.GroupVersionKind{Group: "mcpwarden.io", Version: "v1alpha1", Kind: "MCPPolicy"}
	deployments = schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}
)

func (e *engine) get(ctx context.Context, gvk schema.GroupVersionKind, name, namespace string) (*unstructured.Unstructured, error) {
	return e.kubectl.GetResource(ctx, e.config, gvk, name, namespace)
}

// seen says whether the operator has told of an object's present spec.
func (e *engine) seen(ctx context.Context, gvk schema.GroupVersionKind, name, namespace string) error {
	object, err := e.get(ctx, gvk, name, namespace)
	if err != nil {
		return err
	}
	if observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration"); observed != object.GetGeneration() {
		return fmt.Errorf("the operator has not seen %s %s yet", gvk.Kind, name)
	}
	return nil
}

// reconcileAgain makes the operator work on its servers: what it made for them is deleted, and is there again.
func (e *engine) reconcileAgain(t *testing.T) {
	t.Helper()
	for _, name := range []string{"docs", "everything"} {
		before, err := e.get(t.Context(), deployments, name, "agents")
		if err != nil {
			t.Fatal(err)
		}
		if err := e.kubectl.DeleteResource(t.Context(), e.config, deployments, name, "agents", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(ctx context.Context) error {
			after, err := e.get(ctx, deployments, name, "agents")
			if apierrors.IsNotFound(err) || err == nil && after.GetUID() == before.GetUID() {
				return fmt.Errorf("Deployment %s is not made again yet", name)
			}
			return err
		})
	}
}

// compare wants no difference, in any mode.
func (e *engine) compare(t *testing.T, when string, git []*unstructured.Unstructured) {
	t.Helper()
	for _, object := range git {
		for _, mode := range modes {
			if result := e.diff(t, mode, object); result.Modified {
				t.Errorf("%s, %s: %s %s differs\nlive      %s\npredicted %s", when, mode, object.GetKind(), object.GetName(), result.NormalizedLive, result.PredictedLive)
			}
		}
	}
}

// diff is Argo CD's. It is given no ignoreDifferences and no normalizer, which could only hide something. Where the operator writes
// between the two looks that a comparison takes, at the live object and at what a dry run makes of it, it is taken anew.
func (e *engine) diff(t *testing.T, mode string, object *unstructured.Unstructured) *diff.DiffResult {
	t.Helper()
	look := func() *unstructured.Unstructured {
		live, err := e.get(t.Context(), object.GroupVersionKind(), object.GetName(), object.GetNamespace())
		if err != nil {
			t.Fatal(err)
		}
		return live
	}
	var result *diff.DiffResult
	eventually(t, func(context.Context) error {
		live := look()
		var err error
		result, err = diff.Diff(object.DeepCopy(), live, diff.WithLogr(logr.Discard()), diff.WithGVKParser(e.parser), diff.WithManager(manager),
			diff.WithStructuredMergeDiff(mode == "structured-merge"), diff.WithServerSideDiff(mode == "server-side"), diff.WithServerSideDryRunner(e.dryRuns))
		if err != nil {
			t.Fatalf("%s: %s %s: %v", mode, object.GetKind(), object.GetName(), err)
		}
		if result.Modified && look().GetResourceVersion() != live.GetResourceVersion() {
			return fmt.Errorf("%s %s is written all the time", object.GetKind(), object.GetName())
		}
		return nil
	})
	return result
}

// adoptsNothing: what the operator makes does not carry on what Argo CD tells its own objects by, so that it never prunes it.
func (e *engine) adoptsNothing(t *testing.T) {
	t.Helper()
	deployment, err := e.get(t.Context(), deployments, "docs", "agents")
	if err != nil {
		t.Fatal(err)
	}
	if id := deployment.GetAnnotations()[tracking]; id != "" {
		t.Errorf("the Deployment has the tracking id %s", id)
	}
}

// leavesAQuarantineAlone: git says nothing of desiredState, and whoever cuts a server off by hand must not be overruled.
func (e *engine) leavesAQuarantineAlone(t *testing.T, git []*unstructured.Unstructured) {
	t.Helper()
	e.patch(t, `{"spec":{"desiredState":"Quarantined"}}`)
	eventually(t, func(ctx context.Context) error { return e.seen(ctx, servers, "docs", "agents") })
	e.compare(t, "in quarantine by hand", git)
}

// patch changes a server by hand.
func (e *engine) patch(t *testing.T, patch string) {
	t.Helper()
	if _, err := e.kubectl.PatchResource(t.Context(), e.config, servers, "docs", "agents", types.MergePatchType, []byte(patch)); err != nil {
		t.Fatal(err)
	}
}

// noticesWhatGitChanged shows that the comparison can fail.
func (e *engine) noticesWhatGitChanged(t *testing.T, git []*unstructured.Unstructured) {
	t.Helper()
	for _, change := range []struct {
		kind, name string
		value      any
		path       []string
	}{
		{"MCPServer", "docs", int64(3), []string{"spec", "replicas"}},
		{"MCPServer", "everything", "Stopped", []string{"spec", "desiredState"}},
		{"MCPPolicy", "servers", "Warn", []string{"spec", "action"}},
		{"Namespace", "agents", "other", []string{"metadata", "labels", "team"}},
		{"CustomResourceDefinition", "mcpservers.mcpwarden.io", []any{"other"}, []string{"spec", "names", "shortNames"}},
		{"ClusterRole", "mcp-warden", "other", []string{"metadata", "labels", "team"}},
	} {
		changed := find(t, git, change.kind, change.name).DeepCopy()
		set(t, changed, change.value, change.path...)
		for _, mode := range modes {
			if !e.diff(t, mode, changed).Modified {
				t.Errorf("%s: %s %s with another %s in git: no difference", mode, change.kind, change.name, strings.Join(change.path, "."))
			}
		}
	}
}

func (e *engine) noticesWhatWasChangedInTheCluster(t *testing.T, git []*unstructured.Unstructured) {
	t.Helper()
	e.patch(t, `{"spec":{"args":["-http",":8080","-debug"]}}`)
	for _, mode := range modes {
		if !e.diff(t, mode, find(t, git, "MCPServer", "docs")).Modified {
			t.Errorf("%s: a server was changed by hand: no difference", mode)
		}
	}
}

func find(t *testing.T, git []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, object := range git {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	t.Fatalf("no %s %s", kind, name)
	return nil
}

func set(t *testing.T, object *unstructured.Unstructured, value any, path ...string) {
	t.Helper()
	if err := unstructured.SetNestedField(object.Object, value, path...); err != nil {
		t.Fatal(err)
	}
}

// eventually repeats a check until it passes or patience is over.
func eventually(t *testing.T, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatal(errors.Join(err, last))
	}
}
