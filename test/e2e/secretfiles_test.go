//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// TestSecretFilesRotateInPlace changes two keys together, time and again, while the server's process
// goes on and a reader in its pod looks at both files a thousand times a second.
func TestSecretFilesRotateInPlace(t *testing.T) {
	t.Parallel()
	const changes, pause = 20, 2 * time.Second
	ns := newNamespace(t)
	version := func(i int) map[string]string {
		return map[string]string{"user": secretly(fmt.Sprintf("v%d", i)), "password": secretly(fmt.Sprintf("v%d", i))}
	}
	secret := newSecret(t, ns, "db", version(0))
	server := newServer(t, ns, "rereads", func(s *v1alpha1.MCPServerSpec) {
		s.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets/db", SecretRef: v1alpha1.SecretKeys{Name: "db", Keys: []v1alpha1.DataKey{"user", "password"}}}}
	})
	waitReason(t, server, v1alpha1.ReasonServing)
	waitSecrets(t, server, v1alpha1.ReasonCurrent)
	pod, before := podOf(t, server), atRest(t, server)
	same(t, "the file", file(t, pod, "/run/secrets/db/user"), string(secret.Data["user"]))

	said := make(chan string)
	go func() {
		seconds := strconv.Itoa(int((changes * pause).Seconds()) + 30)
		out, _ := inContext(t.Context(), pod, "/toolbox", "follow", seconds, "/run/secrets/db", "user", "password")
		said <- out
	}()
	written := make([]time.Time, changes+1)
	ticks := time.NewTicker(pause)
	defer ticks.Stop()
	var last map[string]string
	for i := 1; i <= changes; i++ {
		<-ticks.C
		last = version(i)
		written[i] = time.Now()
		edit(t, secret, func(s *corev1.Secret) {
			for key, value := range last {
				s.Data[key] = []byte(value)
			}
		})
	}
	eventually(t, func(context.Context) error {
		if file(t, pod, "/run/secrets/db/user") != last["user"] {
			return fmt.Errorf("the last value has not arrived")
		}
		return nil
	})

	var delays []time.Duration
	for line := range strings.Lines(<-said) {
		at, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if what == "mixed" {
			t.Error("a reader saw one file of a version and one of another")
		}
		i, err := strconv.Atoi(strings.TrimPrefix(what, "v"))
		if err != nil || i == 0 {
			continue // the first version, and the number of reads
		}
		millis, err := strconv.ParseInt(at, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		delays = append(delays, time.UnixMilli(millis).Sub(written[i]))
	}
	slices.Sort(delays)
	if len(delays) < changes/2 {
		t.Fatalf("%d of %d changes were seen: %v", len(delays), changes, delays)
	}
	t.Logf("%d of %d changes were seen as files after %s at the fastest, %s in the middle, %s at the slowest",
		len(delays), changes, delays[0], delays[len(delays)/2], delays[len(delays)-1])
	if middle := delays[len(delays)/2]; middle > 10*time.Second {
		t.Errorf("a change arrives after %s: the kubelet is not told to look at once", middle)
	}

	after := podOf(t, server)
	if after.UID != pod.UID || after.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Error("the server was restarted")
	}
	if got := deploymentOf(t, server); got.Generation != before.Generation {
		t.Errorf("the Deployment was changed: generation %d, want %d", got.Generation, before.Generation)
	}
	if c := waitSecrets(t, server, v1alpha1.ReasonCurrent); c.Status != metav1.ConditionTrue {
		t.Errorf("%+v", c)
	}
}

// TestSecretFilesWithoutTheirSource keeps files while their source is gone, for new pods too.
func TestSecretFilesWithoutTheirSource(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	value := secretly("file")
	secret := newSecret(t, ns, "db", map[string]string{"password": value, "other": secretly("other")})
	server := newServer(t, ns, "kept", func(s *v1alpha1.MCPServerSpec) {
		s.SecretFiles = []v1alpha1.SecretFile{{MountPath: "/run/secrets/db", SecretRef: v1alpha1.SecretKeys{Name: "db", Keys: []v1alpha1.DataKey{"password"}}}}
	})
	waitReason(t, server, v1alpha1.ReasonServing)
	waitSecrets(t, server, v1alpha1.ReasonCurrent)
	if err := k8s.Delete(t.Context(), secret); err != nil {
		t.Fatal(err)
	}
	says(t, waitSecrets(t, server, v1alpha1.ReasonSourceNotFound).Message, "Secret db does not exist", "create it")
	old := podOf(t, server)
	if err := k8s.Delete(t.Context(), old, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	pod := startedPod(t, server, func(p *corev1.Pod) bool { return p.UID != old.UID })
	same(t, "the file of a new pod", file(t, pod, "/run/secrets/db/password"), value)
	fails(t, pod, "file", "/run/secrets/db/other")
}
