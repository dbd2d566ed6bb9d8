package controllers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// An image volume from which no program could be run would keep every server on stdio of the node from starting.
func TestImageVolumes(t *testing.T) {
	for _, tc := range []struct {
		kubelet, runtime string
		want             plan.Support
	}{
		{"v1.36.3", "containerd://2.2.1", plan.Supported},
		{"v1.36.0-eks-1a2b3c", "containerd://2.1.0", plan.Supported},
		{"v1.35.2", "containerd://2.2.1", plan.Unsupported},
		{"v1.36.3", "containerd://2.0.5", plan.Unsupported},
		{"v1.36.3", "containerd://1.7.27", plan.Unsupported},
		{"v1.36.3", "cri-o://1.36.0", plan.Unsupported},
		{"v1.36.3", "", plan.Unsupported},
		{"v1.36.3", "containerd://unknown", plan.Unsupported},
		{"", "", plan.SupportUnknown},
	} {
		node, err := transformNode(&corev1.Node{Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{KubeletVersion: tc.kubelet, ContainerRuntimeVersion: tc.runtime}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := nodeFact(node.(*corev1.Node)).ImageVolumes; got != tc.want {
			t.Errorf("kubelet %q with %q: %v, want %v", tc.kubelet, tc.runtime, got, tc.want)
		}
	}
}
