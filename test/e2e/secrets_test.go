//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// secretly makes a value up that begins with hint, and that must be said nowhere.
func secretly(hint string) string {
	value := hint + "." + random()
	heard.plant([]byte(value))
	return value
}

// newSecret makes a Secret whose values must be said nowhere.
func newSecret(t *testing.T, namespace, name string, values map[string]string) *corev1.Secret {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Data: map[string][]byte{}}
	for key, value := range values {
		secret.Data[key] = []byte(value)
		if value != "" {
			heard.plant(secret.Data[key])
		}
	}
	if err := k8s.Create(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	return secret
}

// edit changes a Secret, all at once.
func edit(t *testing.T, secret *corev1.Secret, f func(*corev1.Secret)) {
	t.Helper()
	base := secret.DeepCopy()
	f(secret)
	for key, value := range secret.Data {
		if len(value) > 0 && !bytes.Equal(value, base.Data[key]) {
			heard.plant(value)
		}
	}
	if err := k8s.Patch(t.Context(), secret, client.MergeFrom(base)); err != nil {
		t.Fatal(err)
	}
}

// write changes one value of a Secret.
func write(t *testing.T, secret *corev1.Secret, key, value string) {
	t.Helper()
	edit(t, secret, func(s *corev1.Secret) { s.Data[key] = []byte(value) })
}

// fromSecret is a variable with the value of a Secret's key.
func fromSecret(variable, secret, key string) v1alpha1.EnvVar {
	return v1alpha1.EnvVar{Name: variable, ValueFrom: &v1alpha1.EnvVarSource{
		SecretKeyRef: &v1alpha1.KeyReference{Name: v1alpha1.ObjectName(secret), Key: key}}}
}

// looksAt makes a server look at its variable TOKEN before it serves: with a value that begins with
// bad-exit it ends, with bad-hang it never listens. It is small, and its new values roll at once.
func looksAt(env ...v1alpha1.EnvVar) func(*v1alpha1.MCPServerSpec) {
	return func(s *v1alpha1.MCPServerSpec) {
		s.Command = []string{"/toolbox", "credential", "TOKEN", "/everything-server"}
		s.Env = env
		s.Rotation = &v1alpha1.Rotation{Debounce: new(metav1.Duration{})}
		s.Resources = &v1alpha1.ResourceRequirements{
			Requests: &v1alpha1.ResourceAmounts{CPU: new(resource.MustParse("1m")), Memory: new(resource.MustParse("8Mi"))},
			Limits:   &v1alpha1.ResourceAmounts{CPU: new(resource.MustParse("500m")), Memory: new(resource.MustParse("64Mi"))},
		}
		allowAgents(s)
	}
}

// waitSecrets waits until SecretsCurrent has a reason for the present spec, and returns it.
func waitSecrets(t *testing.T, server *v1alpha1.MCPServer, reason string) metav1.Condition {
	t.Helper()
	var found metav1.Condition
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		c := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionSecretsCurrent)
		if c == nil || c.Reason != reason || c.ObservedGeneration != server.Generation {
			return fmt.Errorf("want SecretsCurrent with reason %s of MCPServer %s: %+v", reason, server.Name, server.Status.Conditions)
		}
		found = *c
		return nil
	})
	want := metav1.ConditionFalse
	if reason == v1alpha1.ReasonCurrent {
		want = metav1.ConditionTrue
	}
	if found.Status != want {
		t.Errorf("MCPServer %s: SecretsCurrent is %s for the reason %s: %s", server.Name, found.Status, reason, found.Message)
	}
	return found
}

// says asserts that a message holds every word, the way out of trouble among them.
func says(t *testing.T, message string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(message, word) {
			t.Errorf("want %q in %q", word, message)
		}
	}
}

// waitRolled waits until a rotation away from a digest is complete.
func waitRolled(t *testing.T, server *v1alpha1.MCPServer, from string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if err := k8s.Get(ctx, client.ObjectKeyFromObject(server), server); err != nil {
			return err
		}
		if deployed(server) == from || !meta.IsStatusConditionTrue(server.Status.Conditions, v1alpha1.ConditionSecretsCurrent) ||
			!meta.IsStatusConditionFalse(server.Status.Conditions, v1alpha1.ConditionReconciling) {
			return fmt.Errorf("MCPServer %s has not rolled: %+v %+v", server.Name, server.Status.Secrets, server.Status.Conditions)
		}
		return nil
	})
}

// deployed is the digest that the status of a server gives.
func deployed(server *v1alpha1.MCPServer) string {
	if server.Status.Secrets == nil {
		return ""
	}
	return server.Status.Secrets.DeployedDigest
}

func deploymentOf(t *testing.T, server *v1alpha1.MCPServer) *appsv1.Deployment {
	t.Helper()
	out := &appsv1.Deployment{}
	if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(server), out); err != nil {
		t.Fatal(err)
	}
	return out
}

// stateOf is what the operator keeps of a server's rotation.
func stateOf(t *testing.T, deployment *appsv1.Deployment) rotation.State {
	t.Helper()
	state, err := rotation.Decode(deployment.Annotations[plan.AnnotationRotation])
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// revisionOf is how many versions of its template a Deployment has had.
func revisionOf(deployment *appsv1.Deployment) string {
	return deployment.Annotations["deployment.kubernetes.io/revision"]
}

// replicaSetsOf lists the versions of a server that are kept.
func replicaSetsOf(t *testing.T, server *v1alpha1.MCPServer) []appsv1.ReplicaSet {
	t.Helper()
	sets := &appsv1.ReplicaSetList{}
	if err := k8s.List(t.Context(), sets, client.InNamespace(server.Namespace), client.MatchingLabels{plan.LabelServer: server.Name}); err != nil {
		t.Fatal(err)
	}
	return sets.Items
}

// podsOf lists the pods of a server that are not about to end.
func podsOf(t *testing.T, server *v1alpha1.MCPServer) []corev1.Pod {
	t.Helper()
	pods := &corev1.PodList{}
	if err := k8s.List(t.Context(), pods, client.InNamespace(server.Namespace), client.MatchingLabels{plan.LabelServer: server.Name}); err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// snapshotsOf lists the snapshots of a server.
func snapshotsOf(t *testing.T, server *v1alpha1.MCPServer) []corev1.Secret {
	t.Helper()
	secrets := &corev1.SecretList{}
	if err := k8s.List(t.Context(), secrets, client.InNamespace(server.Namespace), client.MatchingLabels{plan.LabelServer: server.Name}, client.HasLabels{plan.LabelSnapshot}); err != nil {
		t.Fatal(err)
	}
	return secrets.Items
}

// snapshotNamesInUse are those that a server's Deployment, its versions, its pods and its state refer to.
func snapshotNamesInUse(t *testing.T, server *v1alpha1.MCPServer) []string {
	t.Helper()
	names := map[string]bool{}
	deployment := deploymentOf(t, server)
	state := stateOf(t, deployment)
	names[state.Deployed.Snapshot] = true
	if state.Good != nil {
		names[state.Good.Snapshot] = true
	}
	labels := []string{deployment.Spec.Template.Labels[plan.LabelSnapshot]}
	for _, set := range replicaSetsOf(t, server) {
		labels = append(labels, set.Spec.Template.Labels[plan.LabelSnapshot])
	}
	for _, pod := range podsOf(t, server) {
		labels = append(labels, pod.Labels[plan.LabelSnapshot])
	}
	for _, label := range labels {
		names[plan.SnapshotName(server.Name, label)] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// onlySnapshotsInUse waits until a server has the snapshots that something refers to, and no other.
func onlySnapshotsInUse(t *testing.T, server *v1alpha1.MCPServer) {
	t.Helper()
	eventually(t, func(context.Context) error {
		var names []string
		for _, snapshot := range snapshotsOf(t, server) {
			names = append(names, snapshot.Name)
		}
		slices.Sort(names)
		if want := snapshotNamesInUse(t, server); !slices.Equal(names, want) {
			return fmt.Errorf("snapshots %v are there, and %v in use", names, want)
		}
		return nil
	})
}

// variable reads a variable of the process that serves in a pod.
func variable(t *testing.T, pod *corev1.Pod, name string) string {
	t.Helper()
	return decode(t, succeeds(t, pod, "env", name))
}

// file reads a file in a pod.
func file(t *testing.T, pod *corev1.Pod, path string) string {
	t.Helper()
	return decode(t, succeeds(t, pod, "file", path))
}

func decode(t *testing.T, encoded string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatalf("%d bytes that are no base64: %v", len(encoded), err)
	}
	return string(raw)
}

// same compares values without saying them.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s has %d bytes that are not the %d wanted", what, len(got), len(want))
	}
}

// request asks for a rotation now.
func request(t *testing.T, server *v1alpha1.MCPServer) {
	t.Helper()
	base := server.DeepCopy()
	server.Annotations = map[string]string{v1alpha1.AnnotationRotateRequestedAt: time.Now().Format(time.RFC3339Nano)}
	if err := k8s.Patch(t.Context(), server, client.MergeFrom(base)); err != nil {
		t.Fatal(err)
	}
}
