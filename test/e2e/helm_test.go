//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// chartsFolder is where the charts are.
const chartsFolder = "../../charts"

// helm is a version of Helm, which reaches the cluster as an administrator.
type helm struct{ version string }

func (h helm) String() string { return h.version }

// try runs a command of it.
func (h helm) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join("../../bin", h.version, "helm"), append(args, "--namespace", operatorNamespace)...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	t.Logf("%s %s: %s", h.version, strings.Join(args, " "), time.Since(start).Round(100*time.Millisecond))
	return out.String(), err
}

func (h helm) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.try(t, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", h.version, args, err, out)
	}
	return out
}

// release are the arguments that install or upgrade the operator with an image, which is named by digest.
func release(verb, image string, more ...string) []string {
	repository, digest, _ := strings.Cut(image, "@")
	return append([]string{verb, "mcp-warden", filepath.Join(chartsFolder, "mcp-warden"), "--wait", "--timeout", "5m",
		"--set", "image.repository=" + repository, "--set", "image.digest=" + digest}, more...)
}

// runsImage asserts that every pod of the operator runs an image, and that it works: it takes up a change.
func runsImage(t *testing.T, image string, probe *v1alpha1.MCPServer) {
	t.Helper()
	pods := &corev1.PodList{}
	eventually(t, func(ctx context.Context) error {
		if err := k8s.List(ctx, pods, client.InNamespace(operatorNamespace), client.MatchingLabels{"app.kubernetes.io/name": "mcp-warden"}, client.HasLabels{"pod-template-hash"}); err != nil {
			return err
		}
		ready := 0
		for i := range pods.Items {
			if got := pods.Items[i].Spec.Containers[0].Image; got != image {
				return fmt.Errorf("pod %s runs %s, want %s", pods.Items[i].Name, got, image)
			}
			if s := pods.Items[i].Status.ContainerStatuses; len(s) == 1 && s[0].Ready {
				ready++
			}
		}
		if ready != 2 {
			return fmt.Errorf("%d pods of the operator are ready, want 2", ready)
		}
		return nil
	})
	change(t, probe, func(s *v1alpha1.MCPServerSpec) {
		if s.Scheduling = nil; probe.Generation%2 == 1 {
			s.Scheduling = &v1alpha1.Scheduling{NodeSelector: map[string]v1alpha1.LabelValue{"kubernetes.io/os": "linux"}}
		}
	})
	waitReason(t, probe, v1alpha1.ReasonServing)
}

// bystanders are servers whose pods nobody may touch.
type bystanders struct {
	servers []*v1alpha1.MCPServer
	pods    map[types.UID]string
}

func newBystanders(t *testing.T, namespace string, count int) *bystanders {
	t.Helper()
	b := &bystanders{pods: map[types.UID]string{}}
	for i := range count {
		b.servers = append(b.servers, newServer(t, namespace, fmt.Sprintf("server-%d", i), looksAt(fromSecret("TOKEN", "shared", "token"))))
	}
	for _, server := range b.servers {
		within(t, 10*time.Minute, func(ctx context.Context) error { return hasReason(ctx, server, v1alpha1.ReasonServing) })
		for _, pod := range podsOf(t, server) {
			b.pods[pod.UID] = pod.Name
		}
	}
	return b
}

// untouched asserts that the pods are those that they were, and that no container of them was started again.
func (b *bystanders) untouched(t *testing.T, when string) {
	t.Helper()
	n := 0
	for _, server := range b.servers {
		for _, pod := range podsOf(t, server) {
			n++
			if b.pods[pod.UID] == "" {
				t.Errorf("%s: pod %s is new", when, pod.Name)
			}
			for _, s := range append(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses...) {
				if s.RestartCount > 0 {
					t.Errorf("%s: container %s of pod %s was started again %d times", when, s.Name, pod.Name, s.RestartCount)
				}
			}
		}
	}
	if n != len(b.pods) {
		t.Errorf("%s: %d pods, want the %d that there were", when, n, len(b.pods))
	}
}

// callOut lets a server call a host by its egress proxy over and over until stop is called, which asserts that every call succeeded.
func callOut(t *testing.T, pod *corev1.Pod) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	var calls int
	var failures []string
	done.Go(func() {
		for ; ctx.Err() == nil; calls++ {
			if said, err := inContext(ctx, pod, "/toolbox", "fetch", "https://"+listed+"/"); err != nil && ctx.Err() == nil {
				failures = append(failures, fmt.Sprintf("%s: %v: %s", time.Now().UTC().Format("15:04:05.000"), err, said))
			}
		}
	})
	return func() {
		t.Helper()
		cancel()
		done.Wait()
		if calls < 10 || len(failures) > 0 {
			t.Errorf("%d of %d calls by the egress proxy failed: %s", len(failures), calls, strings.Join(failures, "\n"))
		}
		t.Logf("%d calls by the egress proxy, %d failed", calls, len(failures))
	}
}

// TestHelm takes an operator that kustomize installed over with each version of Helm: it upgrades it, rolls it back, limits it, uninstalls
// it and installs it anew, under fifty servers that are called all the time, and none of it may touch them.
// It changes what every other test needs, so that hack/e2e.sh runs it by itself, after them.
func TestHelm(t *testing.T) {
	const count = 50
	image, next := imageFrom(t, "OPERATOR_IMAGE"), imageFrom(t, "OPERATOR_IMAGE_NEXT")
	ns := newNamespace(t)
	newSecret(t, ns, "shared", map[string]string{"token": secretly("helm")})
	servers := newBystanders(t, ns, count)
	caller := newCaller(t, servers.servers...)
	probe := newServer(t, ns, "probe", looksAt(fromSecret("TOKEN", "shared", "token")))
	waitReason(t, probe, v1alpha1.ReasonServing)
	out := newCallingServer(t, newNamespace(t), "calls-out", hostRule(listed, 443, 80))
	waitReason(t, out, v1alpha1.ReasonServing)
	reachesListed(t, "before Helm", podOf(t, out))
	calledOut := callOut(t, podOf(t, out))
	quiet := func(when string) {
		t.Helper()
		servers.untouched(t, when)
		caller.sawNoFailure(t)
	}

	for i, h := range []helm{{"helm3"}, {"helm4"}} {
		var takeOver []string
		if i == 0 {
			said, err := h.try(t, release("install", image)...)
			if err == nil || !strings.Contains(said, "invalid ownership metadata") {
				t.Fatalf("%s installed over what kustomize had installed: %v\n%s", h, err, said)
			}
			takeOver = []string{"--take-ownership"}
		}
		h.run(t, append([]string{"install", "mcp-warden-crds", filepath.Join(chartsFolder, "mcp-warden-crds"), "--wait"}, takeOver...)...)
		start := time.Now()
		h.run(t, release("install", image, takeOver...)...)
		fresh := newServer(t, ns, "fresh-"+h.version, looksAt(fromSecret("TOKEN", "shared", "token")))
		waitReason(t, fresh, v1alpha1.ReasonServing)
		t.Logf("%s: from helm install to the first Ready server %s", h, time.Since(start).Round(time.Second))
		runsImage(t, image, probe)
		quiet(h.version + " install")

		h.run(t, release("upgrade", next)...)
		runsImage(t, next, probe)
		quiet(h.version + " upgrade")

		h.run(t, "rollback", "mcp-warden", "1", "--wait", "--timeout", "5m")
		runsImage(t, image, probe)
		quiet(h.version + " rollback")

		h.run(t, release("upgrade", image, "--set", "namespaces={"+ns+"}")...)
		runsImage(t, image, probe)
		limitedTo(t, ns, true)
		h.run(t, release("upgrade", image)...)
		runsImage(t, image, probe)
		limitedTo(t, ns, false)
		quiet(h.version + " limited to a namespace, and not")

		h.run(t, "uninstall", "mcp-warden", "--wait")
		h.run(t, "uninstall", "mcp-warden-crds", "--wait")
		uninstalled(t)
		for _, server := range servers.servers {
			if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(server), server); err != nil {
				t.Errorf("%s uninstall: %v", h, err)
			}
		}
		quiet(h.version + " uninstall")
	}
	calledOut()
	// The servers of this test go with their namespace, and somebody must close behind them.
	helm{"helm4"}.run(t, "install", "mcp-warden-crds", filepath.Join(chartsFolder, "mcp-warden-crds"), "--wait")
	helm{"helm4"}.run(t, release("install", image)...)
}

// limitedTo asserts where the operator may read Secrets.
func limitedTo(t *testing.T, namespace string, limited bool) {
	t.Helper()
	role := &rbacv1.ClusterRole{}
	if err := k8s.Get(t.Context(), client.ObjectKey{Name: "mcp-warden"}, role); err != nil {
		t.Fatal(err)
	}
	everywhere := false
	for _, rule := range role.Rules {
		for _, resource := range rule.Resources {
			everywhere = everywhere || resource == "secrets"
		}
	}
	err := k8s.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "mcp-warden-servers"}, &rbacv1.Role{})
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	if there := err == nil; everywhere == limited || there != limited {
		t.Errorf("limited to %s: %t; Secrets of the whole cluster: %t; a Role there: %t", namespace, limited, everywhere, there)
	}
}

// uninstalled asserts that nothing of a release is left but the kinds.
func uninstalled(t *testing.T) {
	t.Helper()
	gone := map[client.Object]client.ObjectKey{
		&appsv1.Deployment{}:         {Namespace: operatorNamespace, Name: "mcp-warden"},
		&appsv1.DaemonSet{}:          {Namespace: operatorNamespace, Name: "mcp-warden-restricted-prober"},
		&rbacv1.ClusterRole{}:        {Name: "mcp-warden"},
		&rbacv1.ClusterRoleBinding{}: {Name: "mcp-warden"},
		&corev1.ServiceAccount{}:     {Namespace: operatorNamespace, Name: "mcp-warden"},
	}
	for object, key := range gone {
		if err := k8s.Get(t.Context(), key, object); !apierrors.IsNotFound(err) {
			t.Errorf("%T %s was left: %v", object, key, err)
		}
	}
	for _, kind := range []string{"MCPServerList", "MCPPolicyList"} {
		list, err := k8s.Scheme().New(schema.GroupVersionKind{Group: v1alpha1.GroupVersion.Group, Version: v1alpha1.GroupVersion.Version, Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		if err := k8s.List(t.Context(), list.(client.ObjectList)); err != nil {
			t.Errorf("the kind of %s went with the release: %v", kind, err)
		}
	}
}
