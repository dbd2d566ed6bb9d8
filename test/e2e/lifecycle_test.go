//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// TestQuarantineAndStopAreReversible cuts a serving server off, stops it, and brings it back.
func TestQuarantineAndStopAreReversible(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newServer(t, ns, "suspect", allowAgents)
	agent := newPod(t, ns, "agent", map[string]string{"role": "agent"}, "/toolbox", "serve", ":7000")
	waitReason(t, server, v1alpha1.ReasonServing)
	mayCall(t, agent, server)
	before := podOf(t, server)

	change(t, server, func(s *v1alpha1.MCPServerSpec) {
		s.DesiredState = v1alpha1.StateQuarantined
		s.Env = []v1alpha1.EnvVar{{Name: "CHANGED", Value: new("meanwhile")}} // must not roll the evidence away
	})
	waitReason(t, server, v1alpha1.ReasonQuarantined)
	mayNotCall(t, agent, server)
	if pod := podOf(t, server); pod.UID != before.UID {
		t.Error("the pod under quarantine was replaced")
	}
	if server.Status.Endpoint != "" {
		t.Errorf("an endpoint is shown for a server that nobody reaches: %s", server.Status.Endpoint)
	}

	change(t, server, func(s *v1alpha1.MCPServerSpec) { s.DesiredState = v1alpha1.StateStopped })
	waitReason(t, server, v1alpha1.ReasonStopped)

	change(t, server, func(s *v1alpha1.MCPServerSpec) { s.DesiredState = v1alpha1.StateRunning })
	waitReason(t, server, v1alpha1.ReasonServing)
	mayCall(t, agent, server)
}

// TestRolloutRestartAndReplicasSurvive does what people and autoscalers do to a Deployment.
func TestRolloutRestartAndReplicasSurvive(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newServer(t, ns, "scaled", nil)
	waitReason(t, server, v1alpha1.ReasonServing)
	before := podOf(t, server)

	deployment := &appsv1.Deployment{}
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(server), deployment); err != nil {
		t.Fatal(err)
	}
	base := deployment.DeepCopy()
	deployment.Spec.Template.Annotations = map[string]string{"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}
	if err := k8s.Patch(t.Context(), deployment, client.MergeFrom(base)); err != nil {
		t.Fatal(err)
	}
	base = deployment.DeepCopy()
	deployment.Spec.Replicas = new(int32(2))
	if err := k8s.SubResource("scale").Patch(t.Context(), deployment, client.RawPatch(client.MergeFrom(base).Type(), []byte(`{"spec":{"replicas":2}}`))); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		if server.Status.ReadyReplicas != 2 || !meta.IsStatusConditionFalse(server.Status.Conditions, v1alpha1.ConditionReconciling) {
			return fmt.Errorf("want 2 ready pods and a finished rollout: %+v", server.Status)
		}
		return nil
	})
	if podOf(t, server).UID == before.UID {
		t.Error("kubectl rollout restart replaced no pod")
	}
}

// TestStatusTellsWhatKeepsAServerFromRunning breaks a server in the usual ways.
func TestStatusTellsWhatKeepsAServerFromRunning(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	missing, _, _ := strings.Cut(os.Getenv("SERVER_IMAGE"), "@")
	for name, c := range map[string]struct {
		change func(*v1alpha1.MCPServerSpec)
		reason string
		want   string
	}{
		"no-image": {func(s *v1alpha1.MCPServerSpec) { s.Image = missing + ":no-such-tag" }, v1alpha1.ReasonReplicasUnavailable, "the image cannot be pulled"},
		"no-secret": {func(s *v1alpha1.MCPServerSpec) {
			s.Env = []v1alpha1.EnvVar{{Name: "TOKEN", ValueFrom: &v1alpha1.EnvVarSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "no-such-secret", Key: "token"}}}}
		}, v1alpha1.ReasonSourceNotFound, "Secret no-such-secret does not exist: create it with the key token"},
		"exits":     {func(s *v1alpha1.MCPServerSpec) { s.Args = []string{"-no-such-flag"} }, v1alpha1.ReasonReplicasUnavailable, "the server exited with code 2"},
		"no-binary": {func(s *v1alpha1.MCPServerSpec) { s.Command = []string{"/no-such-program"} }, v1alpha1.ReasonReplicasUnavailable, "no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newServer(t, ns, name, c.change)
			eventually(t, func(ctx context.Context) error {
				if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
					return err
				}
				ready := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionReady)
				if ready == nil || ready.Reason != c.reason || !strings.Contains(ready.Message, c.want) {
					return fmt.Errorf("want %s with %q in the message of Ready: %+v", c.reason, c.want, ready)
				}
				return nil
			})
		})
	}
}

// TestABadChangeLeavesTheOldPodsServing rolls a broken image out over a server that works.
func TestABadChangeLeavesTheOldPodsServing(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	server := newServer(t, ns, "kept", allowAgents)
	agent := newPod(t, ns, "agent", map[string]string{"role": "agent"}, "/toolbox", "serve", ":7000")
	waitReason(t, server, v1alpha1.ReasonServing)
	change(t, server, func(s *v1alpha1.MCPServerSpec) { s.Args = []string{"-no-such-flag"} })
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		c := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionReconciling)
		if c == nil || !strings.Contains(c.Message, "the server exited with code 2") {
			return fmt.Errorf("want the failing rollout in Reconciling: %+v", c)
		}
		return nil
	})
	if !meta.IsStatusConditionTrue(server.Status.Conditions, v1alpha1.ConditionReady) {
		t.Errorf("the old pod still serves, and Ready says otherwise: %+v", server.Status.Conditions)
	}
	mayCall(t, agent, server)
}

// TestDataIsMountedAsDeclared gives a server a ConfigMap, one of its keys, and no way to change it.
func TestDataIsMountedAsDeclared(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	config := &corev1.ConfigMap{Data: map[string]string{"one": "first", "two": "second"}}
	config.Namespace, config.Name = ns, "settings"
	if err := k8s.Create(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	server := newServer(t, ns, "data", func(s *v1alpha1.MCPServerSpec) {
		s.Filesystem = &v1alpha1.Filesystem{Data: []v1alpha1.DataMount{
			{MountPath: "/data/all", ConfigMapName: "settings"},
			{MountPath: "/data/one", ConfigMapName: "settings", SubPath: "one"},
		}}
		s.Env = []v1alpha1.EnvVar{{Name: "TWO", ValueFrom: &v1alpha1.EnvVarSource{ConfigMapKeyRef: &v1alpha1.KeyReference{Name: "settings", Key: "two"}}}}
	})
	waitReason(t, server, v1alpha1.ReasonServing)
	pod := podOf(t, server)
	for path, want := range map[string]string{"/data/all/two": "second", "/data/one": "first"} {
		if got := succeeds(t, pod, "read", path); got != want {
			t.Errorf("%s holds %q, want %q", path, got, want)
		}
	}
	if environ := succeeds(t, pod, "read", "/proc/1/environ"); !strings.Contains(environ, "TWO=second") {
		t.Errorf("the variable from the ConfigMap is missing: %q", environ)
	}
	fails(t, pod, "write", "/data/all/three")
	fails(t, pod, "write", "/data/one")
}
