//go:build e2e

// Package e2e shows, on a real node with a CNI that enforces, what MCP Warden promises: by acting
// inside the pods of a real MCP server. hack/e2e.sh runs it.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

const (
	serverPort = 8080
	// operatorNamespace is where the operator is installed.
	operatorNamespace = "mcp-warden-system"
	// deadline of everything that is waited for, on a machine that has much else to do.
	deadline = 5 * time.Minute
)

// k8s reaches the cluster as an administrator.
var k8s client.WithWatch

// restConfig is what it reaches it with.
var restConfig *rest.Config

func TestMain(m *testing.M) {
	config, err := connect()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: run hack/e2e.sh, which brings the cluster up:", err)
		os.Exit(1)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // tests mostly wait
		panic(err)
	}
	restConfig = config
	os.Exit(listened(config, m.Run))
}

func connect() (*rest.Config, error) {
	for _, name := range []string{"KUBECONFIG", "E2E_LOCALCLUSTER", "E2E_CLUSTER", "TESTBED_IMAGE", "SERVER_IMAGE", "E2E_MANAGER"} {
		if os.Getenv(name) == "" {
			return nil, fmt.Errorf("%s is not set", name)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	k8s, err = client.NewWithWatch(config, client.Options{Scheme: scheme})
	return config, err
}

// newNamespace makes a namespace that enforces the restricted Pod Security Standard, for one test.
func newNamespace(t *testing.T) string {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}}
	if err := k8s.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k8s.Delete(context.Background(), ns); err != nil {
			t.Error(err)
		}
	})
	return ns.Name
}

// newServer declares the real MCP server of the tests; change adapts its spec.
func newServer(t *testing.T, namespace, name string, change func(*v1alpha1.MCPServerSpec)) *v1alpha1.MCPServer {
	t.Helper()
	server := &v1alpha1.MCPServer{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: v1alpha1.MCPServerSpec{
			Image:     os.Getenv("TESTBED_IMAGE"),
			Args:      []string{"-http", fmt.Sprintf(":%d", serverPort)},
			Transport: v1alpha1.Transport{Type: v1alpha1.TransportStreamableHTTP, Port: new(int32(serverPort)), Path: "/"},
		},
	}
	if change != nil {
		change(&server.Spec)
	}
	if err := k8s.Create(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	return server
}

// change updates the spec of a server.
func change(t *testing.T, server *v1alpha1.MCPServer, f func(*v1alpha1.MCPServerSpec)) {
	t.Helper()
	base := server.DeepCopy()
	f(&server.Spec)
	if err := k8s.Patch(t.Context(), server, client.MergeFrom(base)); err != nil {
		t.Fatal(err)
	}
}

// waitReason waits until Ready is True for this reason and about this spec, and nothing is under way.
func waitReason(t *testing.T, server *v1alpha1.MCPServer, reason string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error { return hasReason(ctx, server, reason) })
}

func hasReason(ctx context.Context, server *v1alpha1.MCPServer, reason string) error {
	if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
		return err
	}
	ready := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Status != metav1.ConditionTrue || ready.Reason != reason || ready.ObservedGeneration != server.Generation ||
		!meta.IsStatusConditionFalse(server.Status.Conditions, v1alpha1.ConditionReconciling) {
		return fmt.Errorf("MCPServer %s is not %s: %+v", server.Name, reason, server.Status.Conditions)
	}
	return nil
}

// eventually repeats a check until it passes or the deadline is over.
func eventually(t *testing.T, check func(context.Context) error) {
	t.Helper()
	within(t, deadline, check)
}

// within repeats a check until it passes or patience is over.
func within(t *testing.T, patience time.Duration, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 250*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := check(ctx)
		if last == nil || ctx.Err() == nil { // that the time is up says nothing of what it was waited for
			last = err
		}
		return err == nil, nil
	})
	if err != nil {
		t.Fatalf("%v: %v", err, last)
	}
}

// podOf returns a running pod of a server.
func podOf(t *testing.T, server *v1alpha1.MCPServer) *corev1.Pod {
	t.Helper()
	pods := &corev1.PodList{}
	if err := k8s.List(t.Context(), pods, client.InNamespace(server.Namespace), client.MatchingLabels{"mcpwarden.io/server": server.Name}); err != nil {
		t.Fatal(err)
	}
	for i := range pods.Items {
		if pods.Items[i].DeletionTimestamp == nil && pods.Items[i].Status.Phase == corev1.PodRunning {
			return &pods.Items[i]
		}
	}
	t.Fatalf("MCPServer %s has no running pod", server.Name)
	return nil
}

// newPod makes a pod of the testbed that nothing restricts, and waits until it is ready.
func newPod(t *testing.T, namespace, name string, labels map[string]string, command ...string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: labels},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: new(false),
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: new(true), RunAsUser: new(int64(65532)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "testbed", Image: os.Getenv("TESTBED_IMAGE"), Command: command,
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
	if err := k8s.Create(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Status.PodIP == "" || len(pod.Status.ContainerStatuses) == 0 || !pod.Status.ContainerStatuses[0].Ready {
			return fmt.Errorf("pod %s is not ready: %s", name, pod.Status.Phase)
		}
		return nil
	})
	return pod
}

// in runs a program inside a pod and returns what it printed, and an error where it failed.
func in(t *testing.T, pod *corev1.Pod, command ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	return inContext(ctx, pod, command...)
}

func inContext(ctx context.Context, pod *corev1.Pod, command ...string) (string, error) {
	cmd := inside(ctx, pod, command...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// inside is a program to be run in the first container of a pod.
func inside(ctx context.Context, pod *corev1.Pod, command ...string) *exec.Cmd {
	args := []string{"exec", "--name", os.Getenv("E2E_CLUSTER"), "--", "kubectl", "-n", pod.Namespace, "exec", pod.Name, "-c", pod.Spec.Containers[0].Name, "--"}
	return exec.CommandContext(ctx, os.Getenv("E2E_LOCALCLUSTER"), append(args, command...)...)
}

// toolbox makes an attempt inside a pod. It is a test failure where the attempt could not be made at all.
func toolbox(t *testing.T, pod *corev1.Pod, args ...string) (said string, ok bool) {
	t.Helper()
	said, err := in(t, pod, append([]string{"/toolbox"}, args...)...)
	if err != nil && !strings.HasPrefix(said, "failed: ") {
		t.Fatalf("toolbox %v in pod %s could not be run: %v: %s", args, pod.Name, err, said)
	}
	return said, err == nil
}

// succeeds asserts that an attempt succeeds.
func succeeds(t *testing.T, pod *corev1.Pod, args ...string) string {
	t.Helper()
	said, ok := toolbox(t, pod, args...)
	if !ok {
		t.Errorf("pod %s: %v should succeed: %s", pod.Name, args, said)
	}
	return said
}

// fails asserts that an attempt fails.
func fails(t *testing.T, pod *corev1.Pod, args ...string) string {
	t.Helper()
	said, ok := toolbox(t, pod, args...)
	if ok {
		t.Errorf("pod %s: %v should fail: %s", pod.Name, args, said)
	}
	return said
}
