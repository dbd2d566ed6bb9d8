//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/probe"
)

func requireProof(s *v1alpha1.MCPServerSpec) {
	s.Network = &v1alpha1.Network{Enforcement: v1alpha1.EnforcementRequire}
}

// waitProof waits until the status of a server says so of its isolation, and returns how long that took.
func waitProof(t *testing.T, server *v1alpha1.MCPServer, want probe.Result) time.Duration {
	t.Helper()
	start := time.Now()
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		c := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionNetworkPolicyEnforced)
		status := map[probe.Result]metav1.ConditionStatus{probe.Proven: metav1.ConditionTrue, probe.NotEnforced: metav1.ConditionFalse, probe.Unknown: metav1.ConditionUnknown}[want]
		if c == nil || server.Status.Network == nil || string(server.Status.Network.Proof) != string(want) || c.Status != status {
			return fmt.Errorf("MCPServer %s: network %+v, %+v; want %s", server.Name, server.Status.Network, c, want)
		}
		return nil
	})
	return time.Since(start)
}

// isHeld asserts that a server has all that isolates it, and nothing that runs.
func isHeld(t *testing.T, server *v1alpha1.MCPServer, reason string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		if c := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Status != metav1.ConditionFalse || c.Reason != reason {
			return fmt.Errorf("MCPServer %s is not held back for %s: %+v", server.Name, reason, c)
		}
		return nil
	})
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(server), &appsv1.Deployment{}); !apierrors.IsNotFound(err) {
		t.Errorf("MCPServer %s requires a proof and has a Deployment without one: %v", server.Name, err)
	}
}

// findingOf returns what the init container of a server's pod found.
func findingOf(t *testing.T, server *v1alpha1.MCPServer) probe.Finding {
	t.Helper()
	pod := podOf(t, server)
	for _, c := range pod.Status.InitContainerStatuses {
		if c.Name == probe.InitContainerName && c.State.Terminated != nil {
			finding, err := probe.ParseFinding(c.State.Terminated.Message)
			if err != nil {
				t.Errorf("pod %s: %v", pod.Name, err)
			}
			return finding
		}
	}
	t.Fatalf("pod %s has no init container %s that ended", pod.Name, probe.InitContainerName)
	return probe.Finding{}
}

// scaleCanary takes the canary away or brings it back.
func scaleCanary(t *testing.T, replicas int32) {
	t.Helper()
	canary := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "mcp-warden-system", Name: probe.CanaryName}}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"replicas":`+strconv.Itoa(int(replicas))+`}}`))
	if err := k8s.Patch(context.Background(), canary, patch); err != nil {
		t.Fatal(err)
	}
}

// enforce turns Cilium's enforcement of all policies on or off, under everything that runs.
func enforce(t *testing.T, mode string) {
	t.Helper()
	command := append(strings.Fields(os.Getenv("E2E_CILIUM")), "config", "PolicyEnforcement="+mode)
	if out, err := exec.CommandContext(context.Background(), command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
}

// TestProofFollowsTheCluster is not parallel: while it runs, nothing is isolated for a while.
func TestProofFollowsTheCluster(t *testing.T) {
	if os.Getenv("E2E_CNI") == "bridge" || os.Getenv("E2E_CILIUM") == "" {
		t.Skip("needs a CNI whose enforcement can be turned off: hack/e2e.sh says how (E2E_CILIUM)")
	}
	ns := newNamespace(t)
	reported, guarded := newServer(t, ns, "reported", nil), newServer(t, ns, "guarded", requireProof)
	for _, server := range []*v1alpha1.MCPServer{reported, guarded} {
		waitProof(t, server, probe.Proven)
		waitReason(t, server, v1alpha1.ReasonServing)
		if n := server.Status.Network; n.NodesProven != 1 || n.NodesTotal != 1 {
			t.Errorf("%s: %+v", server.Name, n)
		}
	}
	if finding := findingOf(t, guarded); finding.Result != probe.Proven {
		t.Errorf("the pod itself found %+v", finding)
	}
	pod, canary := podOf(t, guarded), findingOf(t, guarded).Addresses
	succeeds(t, pod, "dial", "tcp", net.JoinHostPort(canary, strconv.Itoa(probe.AllowedPort)))
	fails(t, pod, "dial", "tcp", net.JoinHostPort(canary, strconv.Itoa(probe.DeniedPort)))

	t.Run("without the canary nobody can tell", func(t *testing.T) {
		t.Cleanup(func() { scaleCanary(t, 2) })
		scaleCanary(t, 0)
		t.Logf("Unknown %s after the canary went", waitProof(t, reported, probe.Unknown).Round(time.Second))
		late, carefree := newServer(t, ns, "late", requireProof), newServer(t, ns, "carefree", nil)
		isHeld(t, late, v1alpha1.ReasonNotProven)
		waitReason(t, carefree, v1alpha1.ReasonServing)
		scaleCanary(t, 2)
		t.Logf("Proven %s after it came back", waitProof(t, reported, probe.Proven).Round(time.Second))
		waitReason(t, late, v1alpha1.ReasonServing)
	})
	t.Run("enforcement is turned off", func(t *testing.T) {
		t.Cleanup(func() { enforce(t, "default") })
		enforce(t, "never")
		t.Logf("NotEnforced %s after enforcement was turned off", waitProof(t, reported, probe.NotEnforced).Round(time.Second))
		waitProof(t, guarded, probe.NotEnforced)
		if again := podOf(t, guarded); again.Name != pod.Name {
			t.Errorf("a server that ran was replaced: pod %s became %s", pod.Name, again.Name)
		}
		later := newServer(t, ns, "later", requireProof)
		isHeld(t, later, v1alpha1.ReasonNotEnforced)
		enforce(t, "default")
		t.Logf("Proven %s after it was turned on", waitProof(t, reported, probe.Proven).Round(time.Second))
		waitReason(t, later, v1alpha1.ReasonServing)
	})
}

// TestProofWithoutEnforcement runs on a cluster of its own, whose CNI takes every NetworkPolicy and enforces none.
func TestProofWithoutEnforcement(t *testing.T) {
	if os.Getenv("E2E_CNI") != "bridge" {
		t.Skip("needs a cluster that enforces nothing: hack/e2e.sh runs it on one with --cni=bridge")
	}
	ns := newNamespace(t)
	reported, guarded := newServer(t, ns, "reported", nil), newServer(t, ns, "guarded", requireProof)
	for _, server := range []*v1alpha1.MCPServer{reported, guarded} {
		waitProof(t, server, probe.NotEnforced)
		if n := server.Status.Network; n.NodesProven != 0 || n.NodesTotal != 1 {
			t.Errorf("%s: %+v", server.Name, n)
		}
	}
	isHeld(t, guarded, v1alpha1.ReasonNotEnforced)
	waitReason(t, reported, v1alpha1.ReasonServing)
	if finding := findingOf(t, reported); finding.Result != probe.NotEnforced {
		t.Errorf("the pod itself found %+v", finding)
	}
	// The control: what the verdict says is so.
	pods := &corev1.PodList{}
	if err := k8s.List(t.Context(), pods, client.InNamespace("mcp-warden-system"), client.MatchingLabels{probe.LabelComponent: probe.ComponentCanary}); err != nil {
		t.Fatal(err)
	}
	succeeds(t, podOf(t, reported), "dial", "tcp", net.JoinHostPort(pods.Items[0].Status.PodIP, strconv.Itoa(probe.DeniedPort)))
	change(t, guarded, func(s *v1alpha1.MCPServerSpec) { s.Network.Enforcement = v1alpha1.EnforcementReport })
	waitReason(t, guarded, v1alpha1.ReasonServing)
}
