//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// concurrentRotations is how many rotations the operator has in flight at most.
const concurrentRotations = 10

// TestAHundredServersRollTogether changes the one value that a hundred servers share, while each of them is
// called over and over. It has the cluster for itself: the machine is busy with a hundred starts.
func TestAHundredServersRollTogether(t *testing.T) {
	const count = 100
	ns := newNamespace(t)
	secret := newSecret(t, ns, "shared", map[string]string{"token": secretly("h1")})
	servers := make([]*v1alpha1.MCPServer, count)
	start := time.Now()
	for i := range servers {
		servers[i] = newServer(t, ns, fmt.Sprintf("server-%d", i), looksAt(fromSecret("TOKEN", "shared", "token")))
	}
	for _, server := range servers {
		within(t, 10*time.Minute, func(ctx context.Context) error { return hasReason(ctx, server, v1alpha1.ReasonServing) })
	}
	t.Logf("%d servers serve after %s", count, time.Since(start).Round(time.Second))
	calls := newCaller(t, servers...)
	before := calls.tally(t).Calls
	seen := watchRotations(t, ns)

	start = time.Now()
	value := secretly("h2")
	write(t, secret, "token", value)
	for _, server := range servers {
		within(t, 15*time.Minute, func(ctx context.Context) error {
			if err := hasReason(ctx, server, v1alpha1.ReasonServing); err != nil {
				return err
			}
			if versions := seen.of(server); len(versions) < 2 || server.Status.Secrets.DesiredDigest != deployed(server) ||
				server.Status.Secrets.LastRotationTime == nil {
				return fmt.Errorf("MCPServer %s has not rolled: %v", server.Name, versions)
			}
			return nil
		})
	}
	took := time.Since(start)
	for _, server := range servers {
		if deployment := atRest(t, server); revisionOf(deployment) != "2" || len(seen.of(server)) != 2 || len(replicaSetsOf(t, server)) != 2 {
			t.Errorf("%s was rolled to revision %s: %v", server.Name, revisionOf(deployment), seen.of(server))
		}
	}
	same(t, "a server", variable(t, podOf(t, servers[count-1]), "TOKEN"), value)
	if seen.most > concurrentRotations || seen.most < 2 {
		t.Errorf("%d rotations were in flight at the same time, want several and no more than %d", seen.most, concurrentRotations)
	}
	if len(seen.down) > 0 {
		t.Errorf("servers without an available pod at a moment: %v", seen.down)
	}
	calls.sawNoFailure(t)
	t.Logf("%d servers rolled in %s, with at most %d in flight; %d calls meanwhile", count, took.Round(time.Second), seen.most, calls.tally(t).Calls-before)
}
