//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// TestAServerStartsOnceItsValuesCan gives servers sources that are not there or that no variable can
// carry: each says so and how to fix it, starts no pod, and starts when that is done.
func TestAServerStartsOnceItsValuesCan(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	binary := string([]byte{0xff, 0xfe, 0x00, 0x80}) + random()
	for name, c := range map[string]struct {
		values map[string]string // nil for no Secret
		reason string
		says   []string
	}{
		"no-secret": {nil, v1alpha1.ReasonSourceNotFound, []string{"Secret no-secret does not exist", "create it with the key token"}},
		"no-key":    {map[string]string{"another": secretly("another")}, v1alpha1.ReasonSourceNotFound, []string{"Secret no-key has no key token", "add it, or name another key"}},
		"empty":     {map[string]string{"token": ""}, v1alpha1.ReasonInvalidValue, []string{"Key token of Secret empty is empty", "put the value in"}},
		"binary":    {map[string]string{"token": binary}, v1alpha1.ReasonInvalidValue, []string{"Key token of Secret binary is binary", "spec.secretFiles", "base64"}},
		"nul":       {map[string]string{"token": secretly("nul") + "\x00" + random()}, v1alpha1.ReasonInvalidValue, []string{"is binary", "spec.secretFiles"}},
		"not-utf8":  {map[string]string{"token": secretly("latin") + "\xe9" + random()}, v1alpha1.ReasonInvalidValue, []string{"is binary", "spec.secretFiles"}},
		"mebibyte":  {map[string]string{"token": long(1 << 20)}, v1alpha1.ReasonInvalidValue, []string{"has 1048576 bytes", "at most", "spec.secretFiles"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var secret *corev1.Secret
			if c.values != nil {
				secret = newSecret(t, ns, name, c.values)
			}
			server := newServer(t, ns, name, looksAt(fromSecret("TOKEN", name, "token")))
			message := waitSecrets(t, server, c.reason).Message
			says(t, message, c.says...)
			t.Log(message)
			if err := k8s.Get(t.Context(), client.ObjectKeyFromObject(server), &appsv1.Deployment{}); !apierrors.IsNotFound(err) {
				t.Errorf("a Deployment was made for a server that cannot start: %v", err)
			}
			value := secretly("fixed")
			if secret == nil {
				newSecret(t, ns, name, map[string]string{"token": value})
			} else {
				write(t, secret, "token", value)
			}
			waitReason(t, server, v1alpha1.ReasonServing)
			waitSecrets(t, server, v1alpha1.ReasonCurrent)
			same(t, "the variable", variable(t, podOf(t, server), "TOKEN"), value)
		})
	}
}

// long is a text of a length, which differs from place to place.
func long(length int) string {
	raw := make([]byte, length/2+1)
	_, _ = rand.Read(raw) // never fails
	return fmt.Sprintf("%x", raw)[:length]
}

// TestWhatIsNoVariableCanBeAFileOrMapped reads values of any bytes and keys of any name.
func TestWhatIsNoVariableCanBeAFileOrMapped(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	raw := make([]byte, 4096)
	_, _ = rand.Read(raw)
	values := map[string]string{
		"binary": string(raw), "longest": long(1<<17 - len("LONGEST=") - 1), "db.pass-word.1": secretly("mapped"), "UPPER_lower.9": secretly("odd"),
	}
	newSecret(t, ns, "odd", values)
	huge := newSecret(t, ns, "huge", map[string]string{"mebibyte": long(1 << 20)})
	server := newServer(t, ns, "odd", func(s *v1alpha1.MCPServerSpec) {
		looksAt(fromSecret("TOKEN", "odd", "db.pass-word.1"), fromSecret("odd.name-1", "odd", "UPPER_lower.9"), fromSecret("LONGEST", "odd", "longest"))(s)
		s.SecretFiles = []v1alpha1.SecretFile{
			{MountPath: "/run/secrets/odd", SecretRef: v1alpha1.SecretKeys{Name: "odd", Keys: []v1alpha1.DataKey{"binary", "db.pass-word.1"}}},
			{MountPath: "/run/secrets/huge", SecretRef: v1alpha1.SecretKeys{Name: "huge", Keys: []v1alpha1.DataKey{"mebibyte"}}},
		}
	})
	waitReason(t, server, v1alpha1.ReasonServing)
	waitSecrets(t, server, v1alpha1.ReasonCurrent)
	pod := podOf(t, server)
	same(t, "TOKEN", variable(t, pod, "TOKEN"), values["db.pass-word.1"])
	same(t, "odd.name-1", variable(t, pod, "odd.name-1"), values["UPPER_lower.9"])
	same(t, "LONGEST", variable(t, pod, "LONGEST"), values["longest"])
	same(t, "the binary file", file(t, pod, "/run/secrets/odd/binary"), values["binary"])
	same(t, "the file with dots", file(t, pod, "/run/secrets/odd/db.pass-word.1"), values["db.pass-word.1"])
	same(t, "the file of 1 MiB", file(t, pod, "/run/secrets/huge/mebibyte"), string(huge.Data["mebibyte"]))
	fails(t, pod, "file", "/run/secrets/odd/longest") // a key that no file was asked for
	fails(t, pod, "write", "/run/secrets/odd/binary")
	if environ := succeeds(t, pod, "read", "/proc/1/environ"); strings.Contains(environ, "binary=") {
		t.Error("a key reached the server that no variable names")
	}
	for _, secret := range snapshotsOf(t, server) {
		if len(secret.Data) != 3 {
			t.Errorf("snapshot %s has %d keys, want the three that are named", secret.Name, len(secret.Data))
		}
	}
}

// TestARunningServerKeepsItsValues takes a server's source away, in part and as a whole.
func TestARunningServerKeepsItsValues(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	value := secretly("kept")
	secret := newSecret(t, ns, "source", map[string]string{"token": value, "other": secretly("other")})
	server := newServer(t, ns, "kept", looksAt(fromSecret("TOKEN", "source", "token")))
	waitReason(t, server, v1alpha1.ReasonServing)
	waitSecrets(t, server, v1alpha1.ReasonCurrent)
	before := atRest(t, server)
	pod := podOf(t, server)
	restartsWith := func() { // a pod that is rescheduled starts from the snapshot
		t.Helper()
		old := podOf(t, server)
		if err := k8s.Delete(t.Context(), old, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
		started := startedPod(t, server, func(p *corev1.Pod) bool { return p.UID != old.UID })
		same(t, "TOKEN of the new pod", variable(t, started, "TOKEN"), value)
		waitReason(t, server, v1alpha1.ReasonServing)
	}

	edit(t, secret, func(s *corev1.Secret) { delete(s.Data, "token") })
	says(t, waitSecrets(t, server, v1alpha1.ReasonSourceNotFound).Message, "Secret source has no key token", "add it")
	if podOf(t, server).UID != pod.UID {
		t.Error("the pod was replaced because a key is gone")
	}
	waitReason(t, server, v1alpha1.ReasonServing)
	restartsWith()
	write(t, secret, "token", "")
	says(t, waitSecrets(t, server, v1alpha1.ReasonInvalidValue).Message, "is empty")
	write(t, secret, "token", value)
	waitSecrets(t, server, v1alpha1.ReasonCurrent)

	if err := k8s.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	message := waitSecrets(t, server, v1alpha1.ReasonSourceNotFound).Message
	says(t, message, "Secret source does not exist", "create it")
	restartsWith()
	newSecret(t, ns, "source", map[string]string{"token": value})
	waitSecrets(t, server, v1alpha1.ReasonCurrent)
	if got := atRest(t, server); got.Generation != before.Generation {
		t.Errorf("the server was rolled to generation %d though its value is the same", got.Generation)
	}
}

// TestImmutableSourcesAreReplaced replaces a Secret that cannot be changed by one of the same name.
func TestImmutableSourcesAreReplaced(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	secret := newSecret(t, ns, "source", map[string]string{"token": secretly("i1")})
	edit(t, secret, func(s *corev1.Secret) { s.Immutable = new(true) })
	server := newServer(t, ns, "replaced", looksAt(fromSecret("TOKEN", "source", "token")))
	waitReason(t, server, v1alpha1.ReasonServing)
	waitSecrets(t, server, v1alpha1.ReasonCurrent)
	before := deployed(server)
	if err := k8s.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	value := secretly("i2")
	replaced := newSecret(t, ns, "source", map[string]string{"token": value})
	edit(t, replaced, func(s *corev1.Secret) { s.Immutable = new(true) })
	waitRolled(t, server, before)
	if got := revisionOf(atRest(t, server)); got != "2" {
		t.Errorf("the server was rolled to revision %s, want one roll", got)
	}
	same(t, "TOKEN", variable(t, podOf(t, server), "TOKEN"), value)
}

// TestSnapshotsAreGuarded changes or deletes the snapshot of a server behind the operator's back.
func TestSnapshotsAreGuarded(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	forge := func(t *testing.T, snapshot *corev1.Secret) { // the same name and labels, but another value
		t.Helper()
		forged := snapshot.DeepCopy()
		forged.ResourceVersion, forged.UID = "", ""
		forged.Data["TOKEN"] = []byte(secretly("forged"))
		eventually(t, func(ctx context.Context) error { // the operator is quick
			if err := k8s.Delete(ctx, snapshot.DeepCopy()); client.IgnoreNotFound(err) != nil {
				return err
			}
			return k8s.Create(ctx, forged.DeepCopy())
		})
	}
	strip := func(t *testing.T, snapshot *corev1.Secret) {
		t.Helper()
		edit(t, snapshot, func(s *corev1.Secret) { s.Labels, s.Annotations, s.OwnerReferences = nil, nil, nil })
	}
	for name, meddle := range map[string]func(*testing.T, *corev1.Secret){"deleted": func(t *testing.T, s *corev1.Secret) { remove(t, s) }, "forged": forge, "stripped": strip} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			value := secretly(name)
			newSecret(t, ns, name, map[string]string{"token": value})
			server := newServer(t, ns, name, func(s *v1alpha1.MCPServerSpec) {
				looksAt(fromSecret("TOKEN", name, "token"))(s)
				s.Rotation.Strategy = v1alpha1.RotationManual // to be put right is no rotation
			})
			waitReason(t, server, v1alpha1.ReasonServing)
			waitSecrets(t, server, v1alpha1.ReasonCurrent)
			before := atRest(t, server)
			snapshot := onlySnapshot(t, server)
			meddle(t, snapshot.DeepCopy())
			eventually(t, func(context.Context) error {
				found := snapshotsOf(t, server)
				if len(found) != 1 || found[0].Name != snapshot.Name || !bytes.Equal(found[0].Data["TOKEN"], []byte(value)) ||
					found[0].Immutable == nil || !*found[0].Immutable || !plan.IsOwnedBy(&found[0], server) {
					return errors.New("the snapshot is not as it was")
				}
				return nil
			})
			waitSecrets(t, server, v1alpha1.ReasonCurrent)
			if after := atRest(t, server); after.Generation != before.Generation {
				t.Errorf("the server was rolled though its values are the same: from %s to %s", stateOf(t, before).Encode(), stateOf(t, after).Encode())
			}
			old := podOf(t, server)
			remove(t, old)
			same(t, "TOKEN of a new pod", variable(t, startedPod(t, server, func(p *corev1.Pod) bool { return p.UID != old.UID }), "TOKEN"), value)
		})
		t.Run(name+", and other values by now", func(t *testing.T) {
			t.Parallel()
			name := name + "-changed"
			secret := newSecret(t, ns, name, map[string]string{"token": secretly(name)})
			server := newServer(t, ns, name, func(s *v1alpha1.MCPServerSpec) {
				looksAt(fromSecret("TOKEN", name, "token"))(s)
				s.Rotation.Strategy = v1alpha1.RotationManual
			})
			waitReason(t, server, v1alpha1.ReasonServing)
			waitSecrets(t, server, v1alpha1.ReasonCurrent)
			before, digest := podOf(t, server), deployed(server)
			snapshot := onlySnapshot(t, server)
			value := secretly("newer")
			write(t, secret, "token", value)
			says(t, waitSecrets(t, server, v1alpha1.ReasonManualRotationPending).Message, v1alpha1.AnnotationRotateRequestedAt)
			if podOf(t, server).UID != before.UID {
				t.Error("a server with the strategy Manual was rolled")
			}
			meddle(t, snapshot)
			message := waitSecrets(t, server, v1alpha1.ReasonSnapshotLost).Message
			says(t, message, "running pods go on", v1alpha1.AnnotationRotateRequestedAt)
			if podOf(t, server).UID != before.UID {
				t.Error("the pod that runs was replaced")
			}
			request(t, server)
			waitRolled(t, server, digest)
			same(t, "TOKEN", variable(t, podOf(t, server), "TOKEN"), value)
		})
	}
}

func remove(t *testing.T, o client.Object) {
	t.Helper()
	if err := k8s.Delete(t.Context(), o, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
}

func onlySnapshot(t *testing.T, server *v1alpha1.MCPServer) *corev1.Secret {
	t.Helper()
	found := snapshotsOf(t, server)
	if len(found) != 1 {
		t.Fatalf("MCPServer %s has %d snapshots, want 1", server.Name, len(found))
	}
	return &found[0]
}

// TestSnapshotsGoWithTheirVersions rotates more often than versions are kept.
func TestSnapshotsGoWithTheirVersions(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	secret := newSecret(t, ns, "source", map[string]string{"token": secretly("g1")})
	server := newServer(t, ns, "collected", looksAt(fromSecret("TOKEN", "source", "token")))
	waitReason(t, server, v1alpha1.ReasonServing)
	waitSecrets(t, server, v1alpha1.ReasonCurrent)
	for range 4 {
		before := deployed(server)
		write(t, secret, "token", secretly("g"))
		waitRolled(t, server, before)
	}
	atRest(t, server)
	onlySnapshotsInUse(t, server)
	if err := k8s.Delete(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(context.Context) error {
		if left := snapshotsOf(t, server); len(left) > 0 {
			return fmt.Errorf("%d snapshots outlive their server", len(left))
		}
		return nil
	})
}
