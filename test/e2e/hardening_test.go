//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func TestServerIsHardened(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newServer(t, ns, "hardened", func(s *v1alpha1.MCPServerSpec) {
		s.Filesystem = &v1alpha1.Filesystem{WritablePaths: []v1alpha1.WritablePath{{Path: "/var/cache/app", SizeLimit: new(resource.MustParse("8Mi"))}}}
	})
	waitReason(t, server, v1alpha1.ReasonServing)
	pod := podOf(t, server)

	t.Run("process", func(t *testing.T) { processIsConfined(t, pod) })
	t.Run("files", func(t *testing.T) { filesAreReadOnly(t, pod) })
	t.Run("tmp is bounded", func(t *testing.T) { tmpIsBounded(t, pod) })
	t.Run("writable path is bounded", func(t *testing.T) { writablePathIsBounded(t, server, pod) })
}

// processIsConfined looks at what the kernel says of a process in the pod, and tries to get more.
func processIsConfined(t *testing.T, pod *corev1.Pod) {
	said := succeeds(t, pod, "status")
	for _, want := range []string{
		"Uid: 65532 65532 65532 65532", "Gid: 65532 65532 65532 65532", "Groups: 65532",
		"CapInh: 0000000000000000", "CapPrm: 0000000000000000", "CapEff: 0000000000000000", "CapBnd: 0000000000000000", "CapAmb: 0000000000000000",
		"NoNewPrivs: 1", "Seccomp: 2",
	} {
		if !containsLine(said, want) {
			t.Errorf("want the line %q in:\n%s", want, said)
		}
	}
	fails(t, pod, "setuid", "0")
	fails(t, pod, "userns")
	fails(t, pod, "mount", "/tmp")
	fails(t, pod, "mknod", "/tmp/null")
	for _, token := range []string{"/var/run/secrets/kubernetes.io/serviceaccount/token", "/run/secrets/kubernetes.io/serviceaccount/token"} {
		fails(t, pod, "read", token)
	}
	if pod.Spec.HostUsers == nil || *pod.Spec.HostUsers {
		t.Error("the node supports user namespaces and the pod runs in none")
	}
	if uids := succeeds(t, pod, "read", "/proc/self/uid_map"); strings.HasPrefix(strings.Join(strings.Fields(uids), " "), "0 0 ") {
		t.Errorf("user ids of the pod are those of the node: %s", uids)
	}
}

func containsLine(text, want string) bool {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == want {
			return true
		}
	}
	return false
}

// filesAreReadOnly writes where a server has no business, and where it has.
func filesAreReadOnly(t *testing.T, pod *corev1.Pod) {
	for _, dir := range []string{"/", "/etc", "/var", "/var/cache", "/run", "/proc", "/proc/sys/kernel", "/sys", "/sys/fs/cgroup", "/dev"} {
		fails(t, pod, "write", strings.TrimSuffix(dir, "/")+"/e2e")
	}
	if said := fails(t, pod, "write", "/writable"); !strings.Contains(said, "read-only file system") {
		t.Errorf("everybody may write this file but for the read-only root file system: %s", said)
	}
	fails(t, pod, "write", "/proc/sys/kernel/core_pattern")
	succeeds(t, pod, "write", "/tmp/e2e")
	succeeds(t, pod, "write", "/var/cache/app/e2e")
}

// tmpIsBounded fills /tmp up to its bound, which costs the server nothing but the space.
func tmpIsBounded(t *testing.T, pod *corev1.Pod) {
	said := fails(t, pod, "fill", "/tmp/fill", "256")
	match := regexp.MustCompile(`(\d+) bytes fitted: .*no space left on device`).FindStringSubmatch(said)
	if match == nil {
		t.Fatalf("want /tmp to be full: %s", said)
	}
	fitted, err := strconv.Atoi(match[1])
	if err != nil {
		t.Fatal(err)
	}
	if mib := fitted >> 20; mib < 60 || mib > 64 {
		t.Errorf("%d MiB fitted into a /tmp of 64", mib)
	}
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(pod), pod); err != nil {
		t.Fatal(err)
	}
	if restarts := pod.Status.ContainerStatuses[0].RestartCount; restarts != 0 {
		t.Errorf("a full /tmp restarted the server %d times", restarts)
	}
}

// writablePathIsBounded exceeds a path on disk: the kubelet evicts the pod, and another takes its place.
func writablePathIsBounded(t *testing.T, server *v1alpha1.MCPServer, pod *corev1.Pod) {
	succeeds(t, pod, "fill", "/var/cache/app/fill", "32")
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return client.IgnoreNotFound(err)
		}
		if pod.Status.Reason != "Evicted" {
			return fmt.Errorf("pod %s with 32 MiB in a path of 8 is not evicted: %s", pod.Name, pod.Status.Phase)
		}
		return nil
	})
	waitReason(t, server, v1alpha1.ReasonServing)
}
