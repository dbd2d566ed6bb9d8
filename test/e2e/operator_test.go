//go:build e2e

package e2e

import (
	"context"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestOperatorRunsUnderTheSameHardening looks at the operator's pods as they run. That its rights
// suffice is what every other test of this package shows.
func TestOperatorRunsUnderTheSameHardening(t *testing.T) {
	t.Parallel()
	deployment := &appsv1.Deployment{}
	if err := k8s.Get(t.Context(), client.ObjectKey{Namespace: "mcp-warden-system", Name: "mcp-warden"}, deployment); err != nil {
		t.Fatal(err)
	}
	namespace := &corev1.Namespace{}
	if err := k8s.Get(t.Context(), client.ObjectKey{Name: "mcp-warden-system"}, namespace); err != nil {
		t.Fatal(err)
	}
	if got := namespace.Labels["pod-security.kubernetes.io/enforce"]; got != "restricted" {
		t.Errorf("the operator's namespace enforces %q", got)
	}
	pods := &corev1.PodList{}
	selector := client.MatchingLabels{"app.kubernetes.io/name": "mcp-warden"}
	if err := k8s.List(t.Context(), pods, client.InNamespace("mcp-warden-system"), selector, client.HasLabels{"pod-template-hash"}); err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != int(*deployment.Spec.Replicas) {
		t.Errorf("%d pods of the operator, want %d", len(pods.Items), *deployment.Spec.Replicas)
	}
	for i := range pods.Items {
		c := &pods.Items[i].Spec.Containers[0]
		if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
			t.Error("the operator can write to its root file system")
		}
		if *c.SecurityContext.RunAsUser == 0 || len(c.Resources.Limits) != 3 {
			t.Errorf("the operator runs as %d with limits %v", *c.SecurityContext.RunAsUser, c.Resources.Limits)
		}
		for _, c := range pods.Items[i].Status.ContainerStatuses {
			if c.RestartCount != 0 {
				t.Errorf("pod %s of the operator was restarted %d times", pods.Items[i].Name, c.RestartCount)
			}
		}
	}
}

// TestOperatorIsIsolated puts a pod under the operator's own NetworkPolicy, which opens the ports of
// an API server and nothing else.
func TestOperatorIsIsolated(t *testing.T) {
	t.Parallel()
	found := find(t)
	pod := newPod(t, "mcp-warden-system", "stand-in", map[string]string{"app.kubernetes.io/name": "mcp-warden"}, "/toolbox", "serve", ":7000")
	t.Cleanup(func() {
		if err := k8s.Delete(context.Background(), pod, client.GracePeriodSeconds(0)); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
	succeeds(t, pod, "dial", "tcp", found.apiServer)
	fails(t, pod, "lookup", "udp", found.dns, clusterName)
	fails(t, pod, "get", "http://"+outside+"/")
	fails(t, pod, "dial", "tcp", outside+":9000")
	fails(t, pod, "get", "http://"+metadata+"/")
	fails(t, pod, "dial", "tcp", found.node+":10250")
	stranger := newPod(t, newNamespace(t), "stranger", nil, "/toolbox", "serve", ":7000")
	fails(t, stranger, "dial", "tcp", pod.Status.PodIP+":7000")
}
