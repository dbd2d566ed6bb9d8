//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// onStdio lets a server speak stdio.
func onStdio(s *v1alpha1.MCPServerSpec) {
	s.Command, s.Args = []string{"/everything-server"}, nil
	s.Transport = v1alpha1.Transport{Type: v1alpha1.TransportStdio, Path: "/mcp"}
	allowAgents(s)
}

// An image with nothing in it but a server that speaks stdio serves clients in the cluster, and those alone that are allowed.
func TestStdioServer(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newServer(t, ns, "stdio", func(s *v1alpha1.MCPServerSpec) {
		onStdio(s)
		s.Image = os.Getenv("SERVER_IMAGE")
	})
	agent := newPod(t, ns, "agent", map[string]string{"role": "agent"}, "/toolbox", "serve", ":7000")
	stranger := newPod(t, ns, "stranger", nil, "/toolbox", "serve", ":7000")
	waitReason(t, server, v1alpha1.ReasonServing)
	mayCall(t, agent, server)
	mayNotCall(t, stranger, server)
	fails(t, agent, "dial", "tcp", fmt.Sprintf("%s:%d", podOf(t, server).Status.PodIP, plan.GatewayAdminPort))
}

// What runs on stdio is hardened as every server is, and cannot change the program that starts it: neither a copy, nor an image volume, which
// a pod has that a claim keeps from having a user namespace.
func TestStdioServerIsHardened(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	copied := newServer(t, ns, "copied", onStdio)
	volume := newServer(t, ns, "volume", func(s *v1alpha1.MCPServerSpec) {
		onStdio(s)
		s.Filesystem = &v1alpha1.Filesystem{Data: []v1alpha1.DataMount{{MountPath: "/data", ClaimName: v1alpha1.ObjectName(newClaim(t, ns))}}}
	})
	for _, server := range []*v1alpha1.MCPServer{copied, volume} {
		t.Run(server.Name, func(t *testing.T) {
			waitReason(t, server, v1alpha1.ReasonServing)
			pod := podOf(t, server)
			hasCopy := slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == plan.GatewayCopyContainerName })
			hasVolume := slices.Contains(server.Status.PodFeatures, v1alpha1.PodFeatureImageVolume)
			if wantVolume := server == volume; hasVolume != wantVolume || hasCopy == wantVolume {
				t.Errorf("image volume %v, copy %v; features %v", hasVolume, hasCopy, server.Status.PodFeatures)
			}
			for _, path := range []string{"/mcp-warden/gateway", "/mcp-warden/other", "/e2e"} {
				fails(t, pod, "write", path)
			}
			for _, want := range []string{"Uid: 65532 65532 65532 65532", "CapEff: 0000000000000000", "NoNewPrivs: 1", "Seccomp: 2"} {
				if said := succeeds(t, pod, "status"); !containsLine(said, want) {
					t.Errorf("want the line %q in:\n%s", want, said)
				}
			}
			fails(t, pod, "read", "/proc/1/environ") // the gateway sees what every client says: no process looks into it
			if failed := failedControls(server); len(failed) > 0 {
				t.Errorf("failed: %v", failed)
			}
		})
	}
}

// failedControls are those that fail beside the ones that the tests' image and namespaces are to blame for.
func failedControls(server *v1alpha1.MCPServer) []string {
	var out []string
	for _, c := range server.Status.Compliance.Controls {
		if c.Result == v1alpha1.ControlFail && c.ID != "IMG-02" {
			out = append(out, string(c.ID)+": "+c.Message)
		}
	}
	return out
}

// newClaim makes a claim that is bound to an empty folder of the node.
func newClaim(t *testing.T, namespace string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}
	volume := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: namespace}, Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: folder}},
		ClaimRef:               &corev1.ObjectReference{Namespace: namespace, Name: "folder"},
	}}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "folder"}, Spec: corev1.PersistentVolumeClaimSpec{
		VolumeName: namespace, StorageClassName: new(""), AccessModes: volume.Spec.AccessModes, Resources: corev1.VolumeResourceRequirements{Requests: size},
	}}
	for _, obj := range []client.Object{volume, claim} {
		if err := k8s.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := k8s.Delete(context.Background(), volume); err != nil {
			t.Error(err)
		}
	})
	return claim.Name
}

// A server that listens and does not speak MCP at its path is not ready, and the status says so.
func TestReadyIsAHandshake(t *testing.T) {
	t.Parallel()
	server := newServer(t, newNamespace(t), "deaf", func(s *v1alpha1.MCPServerSpec) {
		s.Command, s.Args = []string{"/toolbox"}, []string{"serve", fmt.Sprintf(":%d", serverPort)}
	})
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		ready := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil || ready.Status != metav1.ConditionFalse || !strings.Contains(ready.Message, "does not answer the handshake of MCP") {
			return fmt.Errorf("Ready is %+v", ready)
		}
		return nil
	})
}

// The status lists the tools that a server really has, and an event names those that came and went: here with another image, whose server,
// as npm has it, speaks stdio too.
func TestToolsAreObserved(t *testing.T) {
	t.Parallel()
	server := newServer(t, newNamespace(t), "tools", func(s *v1alpha1.MCPServerSpec) {
		onStdio(s)
		s.Image = os.Getenv("SERVER_IMAGE")
	})
	hasTools := func(name string, count int32) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
				return err
			}
			tools := server.Status.Tools
			if tools == nil || !slices.ContainsFunc(tools.Items, func(item v1alpha1.ToolStatus) bool { return item.Name == name }) ||
				!meta.IsStatusConditionTrue(server.Status.Conditions, v1alpha1.ConditionToolsObserved) || tools.Count < count {
				return fmt.Errorf("no tool %s among %+v; %+v", name, tools, server.Status.Conditions)
			}
			return nil
		}
	}
	eventually(t, hasTools("test_simple_text", 10))
	before := server.Status.Tools.Digest
	change(t, server, func(s *v1alpha1.MCPServerSpec) {
		s.Image = imageFrom(t, "NODE_IMAGE")
		s.Command, s.Args = []string{"/usr/bin/node", "/app/node_modules/@modelcontextprotocol/server-everything/dist/index.js"}, []string{"stdio"}
	})
	eventually(t, hasTools("echo", 1))
	if server.Status.Tools.Digest == before {
		t.Error("other tools have the same digest")
	}
	eventually(t, func(ctx context.Context) error {
		events := &eventsv1.EventList{}
		if err := k8s.List(ctx, events, client.InNamespace(server.Namespace)); err != nil {
			return err
		}
		for i := range events.Items {
			if e := &events.Items[i]; e.Reason == v1alpha1.ReasonToolsChanged && strings.Contains(e.Note, `added "echo"`) && strings.Contains(e.Note, "removed") {
				return nil
			}
		}
		return fmt.Errorf("no event tells of the change")
	})
}
