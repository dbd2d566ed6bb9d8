//go:build e2e

// Package flux shows, on a local cluster, that Flux's own controllers sync docs/examples/gitops: in order, to health, and
// without a fight with the operator. run.sh runs it.
package flux

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	namespace = "agents"
	fluxes    = "flux-system"
	deadline  = 4 * time.Minute
	example   = "../../docs/examples/gitops"
	digest    = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
)

// cluster is what the steps of the test share.
type cluster struct {
	client.Client
	sets *kubernetes.Clientset
	repo string // a clone with a work tree, pushed to what Flux reads
}

// One repository's life, step by step: each stands on the one before.
func TestFluxSyncsTheExample(t *testing.T) {
	c := connect(t)
	c.externalSecretsKind(t)
	c.repository(t)
	c.startSync(t)

	step(t, "namespaces, then policies, then servers, which wait for health", func(t *testing.T) {
		c.waitReady(t, "mcp-namespaces")
		c.waitReady(t, "mcp-policies") // it selects no server yet, and they wait for it
		// The credential is not there: Flux has applied all, and must not call it done.
		server := &v1alpha1.MCPServer{}
		c.eventually(t, func(ctx context.Context) error {
			if err := c.Get(ctx, key("github"), server); err != nil {
				return err
			}
			return hasCondition(server, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonSourceNotFound)
		})
		c.eventually(t, func(ctx context.Context) error { return c.serving(ctx, "docs") })
		c.eventually(t, func(context.Context) error {
			if ready, _, message := c.ready(t, "mcp-servers"); ready != "Unknown" || !strings.Contains(message, "in progress") {
				return fmt.Errorf("Flux does not wait for the server that has no credential: Ready is %q: %s", ready, message)
			}
			return nil
		})
		// What External Secrets would write.
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "github-token", Namespace: namespace}, StringData: map[string]string{"token": "of-the-test"}}
		if err := c.Create(t.Context(), secret); err != nil { // it goes with its namespace
			t.Fatal(err)
		}
		c.waitReady(t, "mcp-servers")
		for _, name := range []string{"docs", "github"} {
			if err := c.serving(t.Context(), name); err != nil {
				t.Errorf("Flux calls the servers ready: %v", err)
			}
		}
	})

	step(t, "syncing again changes nothing", func(t *testing.T) {
		before, since := c.versions(t), metav1.Now()
		for range 10 {
			c.sync(t, "mcp-servers")
			c.sync(t, "mcp-policies")
		}
		after := c.versions(t)
		for name, version := range before {
			if after[name] != version {
				t.Errorf("%s: %s before ten syncs, %s after", name, version, after[name])
			}
		}
		log := c.log(t, since)
		if strings.Count(log, "server-side apply completed") < 20 {
			t.Errorf("Flux did not apply twenty times:\n%s", log)
		}
		for _, word := range []string{`"configured"`, `"created"`} {
			if strings.Contains(log, word) {
				t.Errorf("Flux logged %s, with nothing to correct:\n%s", word, log)
			}
		}
	})

	step(t, "a changed spec is rolled out", func(t *testing.T) {
		c.edit(t, "servers/base/docs.yaml", "  network:\n", "  env:\n  - {name: LOG_LEVEL, value: debug}\n  network:\n")
		revision := c.push(t, "docs logs more")
		c.waitRevision(t, revision)
		deployment := &appsv1.Deployment{}
		c.docs(t, deployment)
		if !strings.Contains(fmt.Sprint(deployment.Spec.Template.Spec.Containers), "LOG_LEVEL") {
			t.Error("the Deployment has no LOG_LEVEL")
		}
		if s := deployment.Status; s.UpdatedReplicas != 2 || s.ReadyReplicas != 2 || s.Replicas != 2 {
			t.Errorf("Flux calls the change done while the rollout is not: %+v", s)
		}
	})

	step(t, "drift of the spec is put back", func(t *testing.T) {
		server := &v1alpha1.MCPServer{}
		c.docs(t, server)
		base := server.DeepCopy()
		server.Spec.DesiredState, server.Spec.Env[0].Value = v1alpha1.StateQuarantined, new("trace")
		if err := c.Patch(t.Context(), server, client.MergeFrom(base)); err != nil {
			t.Fatal(err)
		}
		c.sync(t, "mcp-servers")
		c.docs(t, server)
		if got := *server.Spec.Env[0].Value; got != "debug" {
			t.Errorf("LOG_LEVEL is %q after a sync, want what git says", got)
		}
		// Git says nothing of desiredState, so that a quarantine by hand outlives syncs.
		if server.Spec.DesiredState != v1alpha1.StateQuarantined {
			t.Errorf("a sync released the server from quarantine: %q", server.Spec.DesiredState)
		}
		base = server.DeepCopy()
		server.Spec.DesiredState = ""
		if err := c.Patch(t.Context(), server, client.MergeFrom(base)); err != nil {
			t.Fatal(err)
		}
	})

	step(t, "quarantine from git, and release", func(t *testing.T) {
		c.edit(t, "servers/base/docs.yaml", "spec:\n", "spec:\n  desiredState: Quarantined\n")
		c.waitRevision(t, c.push(t, "docs into quarantine"))
		server := &v1alpha1.MCPServer{}
		c.docs(t, server)
		if err := hasCondition(server, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonQuarantined); err != nil {
			t.Error(err)
		}
		c.edit(t, "servers/base/docs.yaml", "desiredState: Quarantined", "desiredState: Running")
		c.waitRevision(t, c.push(t, "docs runs again"))
		if err := c.serving(t.Context(), "docs"); err != nil {
			t.Error(err)
		}
	})

	step(t, "what the policy forbids is refused as a whole", func(t *testing.T) {
		c.edit(t, "servers/base/docs.yaml", "{name: LOG_LEVEL, value: debug}", "{name: LD_PRELOAD, value: /tmp/x.so}")
		c.push(t, "docs preloads")
		c.waitFailed(t, "mcp-servers", "LD_PRELOAD")
		c.revert(t)
		c.waitRevision(t, c.push(t, "revert"))
	})

	step(t, "a server that is stalled fails the sync", func(t *testing.T) {
		taken := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "taken", Namespace: namespace}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
		if err := c.Create(t.Context(), taken); err != nil {
			t.Fatal(err)
		}
		c.write(t, "servers/production/taken.yaml", taking())
		c.edit(t, "servers/production/kustomization.yaml", "resources:\n", "resources:\n- taken.yaml\n")
		c.push(t, "a server whose name is taken")
		began := time.Now()
		c.waitFailed(t, "mcp-servers", "MCPServer/agents/taken")
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("that took %s: Flux waited for what waiting cannot cure", took)
		}
		if err := c.Delete(t.Context(), taken); err != nil {
			t.Fatal(err)
		}
		c.eventually(t, func(ctx context.Context) error { return c.serving(ctx, "taken") })
		c.sync(t, "mcp-servers")
	})

	step(t, "a removed file prunes the server and all its objects", func(t *testing.T) {
		if n := len(c.owned(t, "taken")); n < 4 {
			t.Fatalf("the server has %d objects", n)
		}
		if err := os.Remove(filepath.Join(c.repo, "servers/production/taken.yaml")); err != nil {
			t.Fatal(err)
		}
		c.edit(t, "servers/production/kustomization.yaml", "- taken.yaml\n", "")
		c.waitRevision(t, c.push(t, "no such server any more"))
		if err := c.Get(t.Context(), key("taken"), &v1alpha1.MCPServer{}); !apierrors.IsNotFound(err) {
			t.Errorf("the MCPServer is still there: %v", err)
		}
		c.eventually(t, func(context.Context) error {
			if left := c.owned(t, "taken"); len(left) > 0 {
				return fmt.Errorf("still there: %v", left)
			}
			return nil
		})
		if err := c.serving(t.Context(), "docs"); err != nil {
			t.Errorf("the others go on: %v", err)
		}
	})
}

// step is a part of the test without which the next ones have nothing to stand on.
func step(t *testing.T, name string, f func(*testing.T)) {
	t.Helper()
	if !t.Run(name, f) {
		t.FailNow()
	}
}

// taking is a server whose Service has the name of somebody else's.
func taking() string {
	return `apiVersion: mcpwarden.io/v1alpha1
kind: MCPServer
metadata: {name: taken, namespace: agents}
spec:
  image: ` + os.Getenv("SERVER_IMAGE") + `
  args: [-http, ":8080"]
  transport: {type: StreamableHTTP, port: 8080, path: /}
`
}

func connect(t *testing.T) *cluster {
	t.Helper()
	for _, name := range []string{"KUBECONFIG", "E2E_LOCALCLUSTER", "E2E_CLUSTER", "E2E_GITSERVER", "SERVER_IMAGE"} {
		if os.Getenv(name) == "" {
			t.Fatalf("%s is not set: run test/flux/run.sh", name)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{Client: c, sets: kubernetes.NewForConfigOrDie(config)}
}

// externalSecretsKind makes the kind that the example's secret is of; its controller does not run here.
func (c *cluster) externalSecretsKind(t *testing.T) {
	t.Helper()
	crd := object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "externalsecrets.external-secrets.io")
	crd.Object["spec"] = map[string]any{
		"group": "external-secrets.io", "scope": "Namespaced",
		"names": map[string]any{"kind": "ExternalSecret", "plural": "externalsecrets", "singular": "externalsecret"},
		"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true,
			"schema": map[string]any{"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
	}
	c.create(t, crd)
}

// repository makes a git repository of the example, with an image that this cluster has, and serves it where the cluster is.
func (c *cluster) repository(t *testing.T) {
	t.Helper()
	root := t.TempDir()
	c.repo = filepath.Join(root, "work")
	image := os.Getenv("SERVER_IMAGE")
	repository, _, _ := strings.Cut(image, "@")
	replace := strings.NewReplacer(
		"registry.example/mcp/docs:v1.4.0"+digest, image,
		"registry.example/mcp/github:v1.2.0"+digest, image,
		"registry.example/mcp/*", repository)
	err := filepath.WalkDir(example, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target, _ := filepath.Rel(example, path)
		c.write(t, target, replace.Replace(string(raw)))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(root, "served", "mcp-servers.git")
	git(t, "", "init", "-q", "--bare", "-b", "main", bare)
	git(t, c.repo, "init", "-q", "-b", "main")
	git(t, c.repo, "remote", "add", "origin", bare)
	c.commit(t, "the example")
}

// startSync applies what the example tells Flux, as flux bootstrap would. The operator is there already, from this checkout.
func (c *cluster) startSync(t *testing.T) {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(example, "clusters/production/flux"))
	if err != nil {
		t.Fatal(err)
	}
	url := c.serve(t, filepath.Join(filepath.Dir(c.repo), "served"))
	for _, r := range resources.Resources() {
		if r.GetName() == "mcp-operator" {
			continue
		}
		u := object("", "", "", "")
		raw, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal(raw, &u.Object); err != nil {
			t.Fatal(err)
		}
		switch u.GetName() {
		case "mcp-servers":
			if u.GetKind() == "GitRepository" {
				set(t, u, url+"/mcp-servers.git", "spec", "url")
			}
		case "mcp-policies":
			if err := unstructured.SetNestedSlice(u.Object, []any{map[string]any{"name": "mcp-namespaces"}}, "spec", "dependsOn"); err != nil {
				t.Fatal(err)
			}
		}
		c.create(t, u)
	}
	t.Cleanup(func() { // before what they need is gone: each prunes what it made
		for _, name := range []string{"mcp-servers", "mcp-policies", "mcp-namespaces"} {
			c.remove(t, object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", fluxes, name))
		}
		c.remove(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}) // which they may not prune
	})
}

// serve serves a folder of repositories at the node's address.
func (c *cluster) serve(t *testing.T, folder string) string {
	t.Helper()
	nodes := &corev1.NodeList{}
	if err := c.List(t.Context(), nodes); err != nil || len(nodes.Items) == 0 {
		t.Fatalf("no node: %v", err)
	}
	address := ""
	for _, a := range nodes.Items[0].Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			address = a.Address
		}
	}
	cmd := exec.Command(os.Getenv("E2E_LOCALCLUSTER"), "exec", "--name", os.Getenv("E2E_CLUSTER"), "--", os.Getenv("E2E_GITSERVER"), "--root", folder, "--listen", address+":0")
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
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	return "http://" + strings.TrimSpace(strings.TrimPrefix(line, "listening "))
}

func (c *cluster) write(t *testing.T, path, content string) {
	t.Helper()
	path = filepath.Join(c.repo, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// edit replaces what must be there once in a file of the repository.
func (c *cluster) edit(t *testing.T, path, old, replacement string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(c.repo, path))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(raw), old) != 1 {
		t.Fatalf("%s does not hold %q once:\n%s", path, old, raw)
	}
	c.write(t, path, strings.Replace(string(raw), old, replacement, 1))
}

// commit commits all and pushes it; the new revision, as Flux names it.
func (c *cluster) commit(t *testing.T, message string) string {
	t.Helper()
	git(t, c.repo, "add", "-A")
	git(t, c.repo, "-c", "user.name=test", "-c", "user.email=test@example.test", "commit", "-q", "-m", message)
	git(t, c.repo, "push", "-q", "origin", "main")
	return "main@sha1:" + git(t, c.repo, "rev-parse", "HEAD")
}

// revert takes the last commit back in the work tree.
func (c *cluster) revert(t *testing.T) {
	t.Helper()
	git(t, c.repo, "checkout", "-q", "HEAD~1", "--", ".")
}

// push commits all and tells Flux, as a webhook of the forge would.
func (c *cluster) push(t *testing.T, message string) string {
	t.Helper()
	revision := c.commit(t, message)
	c.request(t, object("source.toolkit.fluxcd.io/v1", "GitRepository", fluxes, "mcp-servers"))
	return revision
}

// request asks Flux to reconcile an object now; the request's name.
func (c *cluster) request(t *testing.T, u *unstructured.Unstructured) string {
	t.Helper()
	token := time.Now().Format(time.RFC3339Nano)
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"reconcile.fluxcd.io/requestedAt":%q}}}`, token)
	if err := c.Patch(t.Context(), u, client.RawPatch("application/merge-patch+json", patch)); err != nil {
		t.Fatal(err)
	}
	return token
}

// sync has a Kustomization reconciled once, to its end.
func (c *cluster) sync(t *testing.T, name string) {
	t.Helper()
	token := c.request(t, object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", fluxes, name))
	c.eventually(t, func(ctx context.Context) error {
		u, err := c.kustomization(ctx, name)
		if err != nil {
			return err
		}
		if handled, _, _ := unstructured.NestedString(u.Object, "status", "lastHandledReconcileAt"); handled != token {
			return fmt.Errorf("Kustomization %s was not reconciled yet", name)
		}
		return isReady(u)
	})
}

func (c *cluster) kustomization(ctx context.Context, name string) (*unstructured.Unstructured, error) {
	u := object("kustomize.toolkit.fluxcd.io/v1", "Kustomization", fluxes, name)
	return u, c.Get(ctx, client.ObjectKeyFromObject(u), u)
}

func (c *cluster) ready(t *testing.T, name string) (status, reason, message string) {
	t.Helper()
	u, err := c.kustomization(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return readyOf(u)
}

func readyOf(u *unstructured.Unstructured) (status, reason, message string) {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, item := range conditions {
		if condition := item.(map[string]any); condition["type"] == "Ready" {
			return fmt.Sprint(condition["status"]), fmt.Sprint(condition["reason"]), fmt.Sprint(condition["message"])
		}
	}
	return "", "", ""
}

func isReady(u *unstructured.Unstructured) error {
	status, reason, message := readyOf(u)
	observed, _, _ := unstructured.NestedInt64(u.Object, "status", "observedGeneration")
	if status != "True" || observed != u.GetGeneration() {
		return fmt.Errorf("Kustomization %s: Ready is %q, %s: %s", u.GetName(), status, reason, message)
	}
	return nil
}

func (c *cluster) waitReady(t *testing.T, name string) {
	t.Helper()
	c.eventually(t, func(ctx context.Context) error {
		u, err := c.kustomization(ctx, name)
		if err != nil {
			return err
		}
		return isReady(u)
	})
}

// waitRevision waits until the servers are synced to a revision, and ready.
func (c *cluster) waitRevision(t *testing.T, revision string) {
	t.Helper()
	const name = "mcp-servers"
	c.eventually(t, func(ctx context.Context) error {
		u, err := c.kustomization(ctx, name)
		if err != nil {
			return err
		}
		if applied, _, _ := unstructured.NestedString(u.Object, "status", "lastAppliedRevision"); applied != revision {
			_, reason, message := readyOf(u)
			return fmt.Errorf("Kustomization %s is at %s, want %s; %s: %s", name, applied, revision, reason, message)
		}
		return isReady(u)
	})
}

// waitFailed waits until a Kustomization is not Ready, for a reason whose message names something.
func (c *cluster) waitFailed(t *testing.T, name, part string) {
	t.Helper()
	c.eventually(t, func(context.Context) error {
		if status, reason, message := c.ready(t, name); status != "False" || !strings.Contains(message, part) {
			return fmt.Errorf("Kustomization %s: Ready is %q, %s: %s", name, status, reason, message)
		}
		return nil
	})
	_, reason, message := c.ready(t, name)
	t.Logf("%s: %s", reason, message)
}

// serving says whether a server is Ready about its present spec.
func (c *cluster) serving(ctx context.Context, name string) error {
	server := &v1alpha1.MCPServer{}
	if err := c.Get(ctx, key(name), server); err != nil {
		return err
	}
	return hasCondition(server, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonServing)
}

func hasCondition(server *v1alpha1.MCPServer, condition string, status metav1.ConditionStatus, reason string) error {
	got := meta.FindStatusCondition(server.Status.Conditions, condition)
	if got == nil || got.Status != status || got.Reason != reason || got.ObservedGeneration != server.Generation {
		return fmt.Errorf("MCPServer %s is not %s: %+v", server.Name, reason, server.Status.Conditions)
	}
	return nil
}

// versions of what Flux applied and of what the operator made of it.
func (c *cluster) versions(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, list := range []client.ObjectList{&v1alpha1.MCPServerList{}, &v1alpha1.MCPPolicyList{}, &appsv1.DeploymentList{}, &corev1.ServiceList{}, &networkingv1.NetworkPolicyList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{}} {
		options := []client.ListOption{client.InNamespace(namespace)}
		if _, policies := list.(*v1alpha1.MCPPolicyList); policies {
			options = nil
		}
		if err := c.List(t.Context(), list, options...); err != nil {
			t.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			o := item.(client.Object)
			out[fmt.Sprintf("%T %s", o, o.GetName())] = fmt.Sprintf("generation %d, version %s", o.GetGeneration(), o.GetResourceVersion())
		}
	}
	if len(out) < 10 {
		t.Fatalf("too few objects to compare: %v", out)
	}
	return out
}

// owned names the objects of a server, whatever their kind.
func (c *cluster) owned(t *testing.T, server string) []string {
	t.Helper()
	var out []string
	for _, list := range []client.ObjectList{&appsv1.DeploymentList{}, &corev1.ServiceList{}, &networkingv1.NetworkPolicyList{}, &corev1.SecretList{}, &corev1.ServiceAccountList{}, &corev1.PodList{}} {
		if err := c.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			if o := item.(client.Object); o.GetName() == server || strings.HasPrefix(o.GetName(), server+"-") {
				out = append(out, fmt.Sprintf("%T %s", o, o.GetName()))
			}
		}
	}
	return out
}

// log of the kustomize-controller since a time.
func (c *cluster) log(t *testing.T, since metav1.Time) string {
	t.Helper()
	pods, err := c.sets.CoreV1().Pods(fluxes).List(t.Context(), metav1.ListOptions{LabelSelector: "app=kustomize-controller"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("not one kustomize-controller: %v", err)
	}
	raw, err := c.sets.CoreV1().Pods(fluxes).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{SinceTime: &since}).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// docs reads the server docs, or an object of its name.
func (c *cluster) docs(t *testing.T, into client.Object) {
	t.Helper()
	if err := c.Get(t.Context(), key("docs"), into); err != nil {
		t.Fatal(err)
	}
}

// create makes an object, which goes with the test.
func (c *cluster) create(t *testing.T, o client.Object) {
	t.Helper()
	if err := c.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.remove(t, o) })
}

// remove deletes an object and waits until it is gone.
func (c *cluster) remove(t *testing.T, o client.Object) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	if err := client.IgnoreNotFound(c.Delete(ctx, o)); err != nil {
		t.Error(err)
		return
	}
	err := wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(o), o)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	if err != nil {
		t.Errorf("%T %s is not gone: %v", o, o.GetName(), err)
	}
}

// eventually repeats a check until it passes or the deadline is over.
func (c *cluster) eventually(t *testing.T, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, deadline, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatal(errors.Join(err, last))
	}
}

func key(name string) client.ObjectKey { return client.ObjectKey{Namespace: namespace, Name: name} }

func object(apiVersion, kind, namespace, name string) *unstructured.Unstructured {
	out := &unstructured.Unstructured{Object: map[string]any{}}
	out.SetAPIVersion(apiVersion)
	out.SetKind(kind)
	out.SetNamespace(namespace)
	out.SetName(name)
	return out
}

func set(t *testing.T, u *unstructured.Unstructured, value string, path ...string) {
	t.Helper()
	if err := unstructured.SetNestedField(u.Object, value, path...); err != nil {
		t.Fatal(err)
	}
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}
