package controllers_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

// An operator that dies between any two of its first writes leaves nothing that the next cannot
// finish, and no workload without its isolation.
func TestCrashBetweenAnyTwoWrites(t *testing.T) {
	const writes = 7 // baseline, NetworkPolicy, where the canary is, ServiceAccount, Service, PodDisruptionBudget, Deployment; then the status
	for n := range writes + 1 {
		t.Run(fmt.Sprintf("after %d", n), func(t *testing.T) {
			server := example(newNamespace(t), "web")
			server.Spec.Replicas = new(int32(2))
			crashAfter(t, server, n)
			present := 0
			for _, child := range append(children(server), baselineOf(server.Namespace), canaryOf(server.Namespace)) {
				if exists(t, child) {
					present++
				}
			}
			if present != n {
				t.Errorf("%d objects exist after %d writes", present, n)
			}
			isolated := exists(t, children(server)[0]) && exists(t, baselineOf(server.Namespace))
			if exists(t, children(server)[4]) && !isolated {
				t.Error("the workload came before its isolation")
			}
			o := exclusive(t)
			waitReason(t, server, v1alpha1.ConditionReady, v1alpha1.ReasonReplicasUnavailable)
			o.calm(t, server.Namespace)
			for _, child := range children(server) {
				get(t, child)
				if !plan.IsOwnedBy(child, server) {
					t.Errorf("%s: owners %v", kindOf(child), child.GetOwnerReferences())
				}
			}
			for _, reason := range []string{"Repaired", "Recreated"} {
				if events := eventsOf(t, server, reason); len(events) > 0 {
					t.Errorf("%s: %s", reason, events[0].Note)
				}
			}
		})
	}
}

// crashAfter runs an operator that is cut off after so many writes about a new server, and then killed.
func crashAfter(t *testing.T, server *v1alpha1.MCPServer, n int) {
	t.Helper()
	o, err := startOperator()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.cancel) // where the test fails: two operators would confuse those after it
	namespace, cut := server.Namespace, make(chan struct{})
	var done, closed atomic.Int32
	o.before(func(req request) error {
		if req.namespace != namespace || !req.writes() {
			return nil
		}
		if int(done.Add(1)) <= n {
			return nil
		}
		if closed.Add(1) == 1 {
			close(cut)
		}
		return errCut
	})
	create(t, server)
	<-cut
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestRestartWritesNothing(t *testing.T) {
	const servers = 200
	o, err := startOperator()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.cancel) // where the test fails: two operators would confuse those after it
	namespace := newNamespace(t)
	var creators sync.WaitGroup
	for first := range 4 {
		creators.Go(func() {
			for i := first; i < servers; i += 4 {
				server := example(namespace, fmt.Sprintf("server-%d", i))
				server.Spec.DesiredState = v1alpha1.StateStopped // so that no pods take part
				if err := admin.Create(t.Context(), server); err != nil {
					t.Errorf("create server: %v", err)
				}
			}
		})
	}
	creators.Wait()
	eventually(t, func() string {
		list := &v1alpha1.MCPServerList{}
		if err := admin.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		ready := slices.DeleteFunc(list.Items, func(s v1alpha1.MCPServer) bool {
			return condition(&s, v1alpha1.ConditionReady).Reason != v1alpha1.ReasonStopped
		})
		return differs(len(ready), servers)
	})
	o.calm(t, namespace)
	if err := o.stop(); err != nil {
		t.Fatal(err)
	}
	again := exclusive(t)
	again.calm(t, "")
	if writes := again.writes(namespace); len(writes) > 0 {
		t.Errorf("%d writes, the first is %s", len(writes), writes[0])
	}
	reads := again.in("", func(r request) bool { return r.verb == "get" || r.verb == "list" })
	if len(reads) > 20 {
		t.Errorf("%d reads, want no more than the lists of the caches: the last is %s", len(reads), reads[len(reads)-1])
	}
	t.Logf("a restart with %d servers: 0 writes, %d reads beside the watches: %v", servers, len(reads), reads)
}
