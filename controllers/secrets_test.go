package controllers_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// secretOf makes a Secret with text values.
func secretOf(namespace, name string, values map[string]string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, StringData: values}
}

// setKey changes one key of a Secret.
func setKey(t *testing.T, secret *corev1.Secret, key, value string) {
	t.Helper()
	edit(t, secret, func(s *corev1.Secret) { s.Data[key] = []byte(value) })
}

// withToken is a server whose variable TOKEN comes from a Secret, rolled out as soon as it changes.
func withToken(namespace, name, secret, key string) *v1alpha1.MCPServer {
	server := example(namespace, name)
	server.Spec.Env = []v1alpha1.EnvVar{fromSecret("TOKEN", secret, key)}
	server.Spec.Rotation = &v1alpha1.Rotation{Debounce: &metav1.Duration{}}
	server.Spec.Replicas = new(int32(2))
	return server
}

func fromSecret(variable, secret, key string) v1alpha1.EnvVar {
	return v1alpha1.EnvVar{Name: variable, ValueFrom: &v1alpha1.EnvVarSource{
		SecretKeyRef: &v1alpha1.KeyReference{Name: v1alpha1.ObjectName(secret), Key: key}}}
}

// runPods plays the kubelet for a namespace until the test ends: a pod whose TOKEN begins with "bad"
// ends again and again, all others become ready.
func runPods(t *testing.T, namespace string) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { stop(); <-done })
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * glance)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			pods := &corev1.PodList{}
			if err := admin.List(ctx, pods, client.InNamespace(namespace)); err != nil {
				continue
			}
			for i := range pods.Items {
				runPod(ctx, &pods.Items[i])
			}
		}
	}()
}

func runPod(ctx context.Context, pod *corev1.Pod) {
	token, err := tokenOf(ctx, pod)
	bad := strings.HasPrefix(token, "bad")
	if err != nil || pod.DeletionTimestamp != nil || len(pod.Status.ContainerStatuses) > 0 {
		return
	}
	ready, restarts := corev1.ConditionTrue, int32(0)
	if bad {
		ready, restarts = corev1.ConditionFalse, 3
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: plan.ContainerName, Ready: !bad, RestartCount: restarts}}
	_ = admin.Status().Update(ctx, pod) // a conflict is tried again with the next tick
}

// tokenOf is the value that a pod would start with.
func tokenOf(ctx context.Context, pod *corev1.Pod) (string, error) {
	for _, env := range pod.Spec.Containers[0].Env {
		if env.Name != "TOKEN" {
			continue
		}
		ref, secret := env.ValueFrom.SecretKeyRef, &corev1.Secret{}
		if err := admin.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: ref.Name}, secret); err != nil {
			return "", err
		}
		value, ok := secret.Data[ref.Key]
		if !ok {
			return "", fmt.Errorf("no key %s", ref.Key)
		}
		return string(value), nil
	}
	return "", nil
}

// waitTokens waits until all pods of a server are ready and have a value.
func waitTokens(t *testing.T, server *v1alpha1.MCPServer, want string) {
	t.Helper()
	eventually(t, func() string {
		pods := &corev1.PodList{}
		if err := admin.List(t.Context(), pods, client.InNamespace(server.Namespace), client.MatchingLabels(plan.SelectorLabels(server.Name))); err != nil {
			t.Fatal(err)
		}
		if len(pods.Items) != int(*server.Spec.Replicas) {
			return fmt.Sprintf("%d pods", len(pods.Items))
		}
		for i := range pods.Items {
			if got, err := tokenOf(t.Context(), &pods.Items[i]); err != nil || got != want {
				return fmt.Sprintf("a pod has another value (error: %v)", err)
			}
		}
		return ""
	})
}

func deploymentOf(t *testing.T, server *v1alpha1.MCPServer) *appsv1.Deployment {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: named(server)}
	get(t, d)
	return d
}

// revision of the Deployment: how many pod templates it has had.
func revision(t *testing.T, server *v1alpha1.MCPServer) string {
	t.Helper()
	return deploymentOf(t, server).Annotations["deployment.kubernetes.io/revision"]
}

// snapshotsOf lists the snapshots of a server, by name.
func snapshotsOf(t *testing.T, server *v1alpha1.MCPServer) []string {
	t.Helper()
	list := &corev1.SecretList{}
	if err := admin.List(t.Context(), list, client.InNamespace(server.Namespace), client.MatchingLabels(plan.SelectorLabels(server.Name)), client.HasLabels{plan.LabelSnapshot}); err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range list.Items {
		out = append(out, list.Items[i].Name)
	}
	return slices.Sorted(slices.Values(out))
}

func TestOneKeyRollsWhoNamesItOnce(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	secret := secretOf(namespace, "shared", map[string]string{"token": "one", "other": "x"})
	create(t, secret)
	servers := []*v1alpha1.MCPServer{withToken(namespace, "a", "shared", "token"), withToken(namespace, "b", "shared", "token"), withToken(namespace, "c", "shared", "other")}
	for _, server := range servers {
		create(t, server)
	}
	for _, server := range servers {
		waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
		waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonServing)
		waitReason(t, server, v1alpha1.ConditionReconciling, v1alpha1.ReasonReconciled) // each pod that gets ready is a write
	}
	waitTokens(t, servers[0], "one")
	waitTokens(t, servers[2], "x")

	o.calm(t, namespace)
	before := len(o.writes(namespace))
	edit(t, secret, func(s *corev1.Secret) { s.Labels = map[string]string{"a": "b"} })
	setKey(t, secret, "unused", "new")
	setKey(t, secret, "token", "one")
	o.calm(t, namespace)
	if writes := o.writes(namespace); len(writes) != before {
		t.Errorf("a label, an unused key and the same value made %d writes: %v", len(writes)-before, writes[before:])
	}

	setKey(t, secret, "token", "two")
	for _, server := range servers[:2] {
		waitTokens(t, server, "two")
		waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	}
	o.calm(t, namespace)
	for i, want := range []string{"2", "2", "1"} {
		if got := revision(t, servers[i]); got != want {
			t.Errorf("server %s: revision %s, want %s", servers[i].Name, got, want)
		}
	}
	if got := eventsOf(t, servers[0], rotation.EventStarted); len(got) != 1 {
		t.Errorf("%d events of a start, want 1", len(got))
	}
	for range 3 { // what old ReplicaSets had goes with them
		setKey(t, secret, "token", fmt.Sprintf("value-%d", time.Now().UnixNano()))
		eventually(t, func() string {
			return differs(condition(servers[0], v1alpha1.ConditionSecretsCurrent).Reason, v1alpha1.ReasonCurrent)
		})
		o.calm(t, namespace)
		waitReason(t, servers[0], v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	}
	eventually(t, func() string {
		if got := snapshotsOf(t, servers[0]); len(got) > 3 {
			return fmt.Sprintf("snapshots %v: more than the present one and those of two old ReplicaSets", got)
		}
		return ""
	})
}

func TestMissingSecretsHoldTheStart(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	server := withToken(namespace, "web", "later", "token")
	server.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets/db", SecretRef: v1alpha1.SecretKeys{Name: "files", Keys: []v1alpha1.DataKey{"password"}}}}
	create(t, server)
	if c := waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonSourceNotFound); !strings.Contains(c.Message, "Secret later does not exist: create it with the key token") {
		t.Errorf("message %q", c.Message)
	}
	o.calm(t, namespace)
	if exists(t, &appsv1.Deployment{ObjectMeta: named(server)}) {
		t.Error("there is a Deployment")
	}
	secret := secretOf(namespace, "later", map[string]string{"wrong": "x"})
	create(t, secret)
	eventually(t, func() string {
		get(t, server)
		if c := condition(server, v1alpha1.ConditionSecretsCurrent); !strings.Contains(c.Message, "Secret later has no key token") {
			return c.Message
		}
		return ""
	})
	for _, bad := range []struct{ value, message string }{
		{"", "is empty"}, {"a\x00b", "is binary"}, {"\xff\xfe", "is binary"}, {strings.Repeat("x", 131072), "can hold at most 131065"},
	} {
		setKey(t, secret, "token", bad.value)
		eventually(t, func() string {
			get(t, server)
			if c := condition(server, v1alpha1.ConditionReady); c.Reason != v1alpha1.ReasonSourceNotFound || !strings.Contains(c.Message, bad.message) {
				return c.Reason + ": " + c.Message
			}
			return ""
		})
	}
	setKey(t, secret, "token", "good")
	create(t, secretOf(namespace, "files", map[string]string{"password": "\xff\x00binary"}))
	waitTokens(t, server, "good")
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonServing)
}

func TestBadValuesAreRolledBack(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	secret := secretOf(namespace, "token", map[string]string{"token": "good"})
	create(t, secret)
	server := withToken(namespace, "web", "token", "token")
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)

	setKey(t, secret, "token", "bad")
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonRotationRolledBack)
	waitTokens(t, server, "good")
	o.calm(t, namespace)
	if got := len(eventsOf(t, server, rotation.EventStarted)); got != 1 {
		t.Errorf("%d starts: values that failed were tried again", got)
	}
	if got := len(eventsOf(t, server, rotation.EventRolledBack)); got != 1 {
		t.Errorf("%d events of going back, want 1", got)
	}
	setKey(t, secret, "token", "better")
	waitTokens(t, server, "better")
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
}

func TestManualWaitsForARequest(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	secret := secretOf(namespace, "token", map[string]string{"token": "one", "file": "f1"})
	create(t, secret)
	server := withToken(namespace, "web", "token", "token")
	server.Spec.Rotation.Strategy = v1alpha1.RotationManual
	server.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets/db", SecretRef: v1alpha1.SecretKeys{Name: "token", Keys: []v1alpha1.DataKey{"file"}}}}
	create(t, server)
	waitTokens(t, server, "one")
	edit(t, secret, func(s *corev1.Secret) { s.Data["token"], s.Data["file"] = []byte("two"), []byte("f2") })
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonManualRotationPending)
	o.calm(t, namespace)
	waitTokens(t, server, "one")
	if got := fileOf(t, server, "token", "file"); got != "f1" {
		t.Errorf("the file was changed without a request")
	}
	edit(t, server, func(s *v1alpha1.MCPServer) {
		s.Annotations = map[string]string{v1alpha1.AnnotationRotateRequestedAt: "now"}
	})
	waitTokens(t, server, "two")
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	if got := fileOf(t, server, "token", "file"); got != "f2" {
		t.Errorf("the file was not changed on request")
	}
}

// fileOf is what the server reads as a file.
func fileOf(t *testing.T, server *v1alpha1.MCPServer, source, key string) string {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace, Name: plan.FilesName(server.Name, source)}}
	get(t, secret)
	return string(secret.Data[key])
}

// notNudged tells of a pod whose kubelet was not told for good to look at what it mounts.
func notNudged(pods []corev1.Pod) string {
	for _, p := range pods {
		if told := p.Annotations["mcpwarden.io/nudged"]; told == "" || strings.Contains(told, " ") {
			return fmt.Sprintf("the kubelet of pod %s was not told for good: %q", p.Name, told)
		}
	}
	return ""
}

func TestFilesFollowInPlace(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	secret := secretOf(namespace, "db", map[string]string{"user": "u1", "password": "p1", "admin": "hidden"})
	create(t, secret)
	server := example(namespace, "web")
	server.Spec.Replicas = new(int32(1))
	server.Spec.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets/db", SecretRef: v1alpha1.SecretKeys{Name: "db", Keys: []v1alpha1.DataKey{"user", "password"}}}}
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonServing)
	o.calm(t, namespace)
	before := deploymentOf(t, server).Generation
	setKey(t, secret, "password", "p2")
	eventually(t, func() string { return differs(fileOf(t, server, "db", "password"), "p2") })
	pods := &corev1.PodList{}
	eventually(t, func() string {
		if err := admin.List(t.Context(), pods, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		return notNudged(pods.Items)
	})
	edit(t, &pods.Items[0], func(p *corev1.Pod) { p.Annotations = nil }) // as if the operator had ended before it told the kubelet
	eventually(t, func() string {
		get(t, &pods.Items[0])
		return notNudged(pods.Items)
	})
	copied := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: plan.FilesName("web", "db")}}
	get(t, copied)
	if got := slices.Sorted(maps.Keys(copied.Data)); !slices.Equal(got, []string{"password", "user"}) {
		t.Errorf("the copy holds %v", got)
	}
	edit(t, copied, func(s *corev1.Secret) { s.Data["password"] = []byte("evil") })
	eventually(t, func() string { return differs(fileOf(t, server, "db", "password"), "p2") })
	o.calm(t, namespace)
	if got := deploymentOf(t, server).Generation; got != before {
		t.Errorf("the Deployment went from generation %d to %d", before, got)
	}
	remove(t, secret)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonSourceNotFound)
	if c := condition(server, v1alpha1.ConditionReady); c.Status != metav1.ConditionTrue {
		t.Errorf("a server that runs is held: %s", c.Message)
	}
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.SecretFiles = nil })
	eventually(t, func() string {
		if exists(t, copied) {
			return "the copy is still there"
		}
		return ""
	})
}

func TestSnapshotsAreGuarded(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	secret := secretOf(namespace, "token", map[string]string{"token": "one"})
	create(t, secret)
	server := withToken(namespace, "web", "token", "token")
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	name := snapshotsOf(t, server)[0]
	snapshot := func() *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	}
	restored := func() string {
		s := snapshot()
		if err := admin.Get(t.Context(), client.ObjectKeyFromObject(s), s); err != nil {
			return err.Error()
		}
		return differs(fmt.Sprintf("%s %t %s %d", s.Data["TOKEN"], s.Immutable != nil && *s.Immutable, s.Labels[plan.LabelServer], len(s.OwnerReferences)), "one true web 1")
	}
	eventually(t, restored)
	s := snapshot()
	get(t, s)
	s.Data["TOKEN"] = []byte("evil")
	if err := admin.Update(t.Context(), s); !apierrors.IsInvalid(err) {
		t.Errorf("the snapshot could be changed: %v", err)
	}
	remove(t, snapshot())
	eventually(t, restored)
	remove(t, snapshot())
	evil := secretOf(namespace, name, map[string]string{"TOKEN": "evil"})
	evil.Labels, evil.OwnerReferences = s.Labels, s.OwnerReferences
	if err := admin.Create(t.Context(), evil); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	eventually(t, restored)
	s = snapshot()
	edit(t, s, func(s *corev1.Secret) { s.Labels, s.OwnerReferences = nil, nil })
	eventually(t, restored)
	o.calm(t, namespace)
	if got := revision(t, server); got != "1" {
		t.Errorf("revision %s: guarding the snapshot replaced pods", got)
	}
	edit(t, deploymentOf(t, server), func(d *appsv1.Deployment) { delete(d.Annotations, plan.AnnotationRotation) })
	remove(t, snapshot()) // both at once: nothing says what the snapshot held
	eventually(t, restored)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	if got := revision(t, server); got != "1" {
		t.Errorf("revision %s: losing the state replaced pods", got)
	}
	remove(t, secret) // the pods keep what they have
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonSourceNotFound)
	remove(t, snapshot())
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonSnapshotLost)
}

// A new key makes every digest another, and no server may be rolled for that.
func TestALostKeyRollsNothing(t *testing.T) {
	namespace := newNamespace(t)
	runPods(t, namespace)
	secret := secretOf(namespace, "token", map[string]string{"token": "one"})
	create(t, secret)
	server := withToken(namespace, "web", "token", "token")
	first, err := startOperator()
	if err != nil {
		t.Fatal(err)
	}
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	first.calm(t, namespace)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	get(t, server)
	old := server.Status.Secrets
	remove(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "mcp-warden-digest-key"}})
	o := exclusive(t)
	eventually(t, func() string {
		get(t, server)
		if server.Status.Secrets.DesiredDigest == old.DesiredDigest {
			return "the digest is the same under another key"
		}
		return ""
	})
	o.calm(t, namespace)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	if got := revision(t, server); got != "1" {
		t.Errorf("revision %s: a lost key replaced pods", got)
	}
	if got := server.Status.Secrets.Sources[0].ChangedTime; !got.Equal(old.Sources[0].ChangedTime) {
		t.Errorf("the age of the value was %s and is %s", old.Sources[0].ChangedTime, got)
	}
	setKey(t, secret, "token", "two")
	waitTokens(t, server, "two")
}

// A key that is damaged keeps the verdict open, and nothing else.
func TestADamagedKeyKeepsNothingOpen(t *testing.T) {
	namespace := newNamespace(t)
	runPods(t, namespace)
	create(t, secretOf(namespace, "token", map[string]string{"token": "one"}))
	server := withToken(namespace, "web", "token", "token")
	first, err := startOperator()
	if err != nil {
		t.Fatal(err)
	}
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	first.calm(t, namespace)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	key := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: operatorNamespace, Name: "mcp-warden-digest-key"}}
	get(t, key)
	damaged := key.DeepCopy()
	damaged.ResourceVersion, damaged.Data = "", map[string][]byte{"key": []byte("short")}
	remove(t, key)
	create(t, damaged)
	t.Cleanup(func() {
		key.ResourceVersion, key.UID = "", ""
		for _, do := range []func() error{
			func() error { return admin.Delete(context.Background(), damaged) }, func() error { return admin.Create(context.Background(), key) },
		} {
			if err := do(); err != nil {
				t.Errorf("restore the key: %v", err)
			}
		}
	})
	exclusive(t)
	if c := waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonSourceUnreadable); c.Status != metav1.ConditionUnknown {
		t.Errorf("SecretsCurrent is %s", c.Status)
	}
	if c := waitReason(t, server, v1alpha1.ConditionReconciling, v1alpha1.ReasonReconcileError); !strings.Contains(c.Message, "restore it, or delete the Secret") {
		t.Errorf("message %q", c.Message)
	}
	openUp(t, server)
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.DesiredState = v1alpha1.StateStopped })
	eventually(t, func() string { return differs(*deploymentOf(t, server).Spec.Replicas, 0) })
	if got := revision(t, server); got != "1" {
		t.Errorf("revision %s", got)
	}
}

// No list and no watch ever brings a value of a Secret, and a write does not bring it back.
func TestSecretsAreWatchedByMetadata(t *testing.T) {
	o := parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	create(t, secretOf(namespace, "token", map[string]string{"token": "one"}))
	create(t, secretOf(namespace, "bystander", map[string]string{"token": "x"}))
	server := withToken(namespace, "web", "token", "token")
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	about := func(req request) bool { return req.resource == "secrets" }
	seen := o.in("", func(req request) bool { return about(req) && (req.verb == "list" || req.verb == "watch") })
	if len(seen) == 0 {
		t.Error("Secrets are not watched at all")
	}
	for _, req := range append(seen, o.in(namespace, about)...) {
		switch {
		case req.name == "bystander":
			t.Errorf("%s: no server names it", req)
		case !req.metadata && req.verb != "get":
			t.Errorf("%s brings values", req)
		}
	}
	reads := len(o.in(namespace, func(req request) bool { return about(req) && req.verb == "get" }))
	edit(t, server, func(s *v1alpha1.MCPServer) { s.Spec.Args = []string{"--verbose"} })
	waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonServing)
	if now := len(o.in(namespace, func(req request) bool { return about(req) && req.verb == "get" })); now != reads {
		t.Errorf("%d reads of Secrets that did not change", now-reads)
	}
}

// A server that runs for weeks must not need an event for its verdict to turn.
func TestAgeTurnsByItself(t *testing.T) {
	parallel(t)
	namespace := newNamespace(t)
	runPods(t, namespace)
	create(t, secretOf(namespace, "token", map[string]string{"token": "one"}))
	server := withToken(namespace, "web", "token", "token")
	server.Spec.Rotation.MaxAge = &metav1.Duration{Duration: time.Minute}
	create(t, server)
	waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonCurrent)
	if c := waitReason(t, server, v1alpha1.ConditionSecretsCurrent, v1alpha1.ReasonTooOld); !strings.Contains(c.Message, `key "token" of Secret "token"`) {
		t.Errorf("message %q", c.Message)
	}
}
