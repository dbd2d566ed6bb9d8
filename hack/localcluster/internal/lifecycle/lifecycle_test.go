package lifecycle

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

func newWaiter(t *testing.T, log string) *waiter {
	t.Helper()
	c := state.Cluster{Name: "x", Root: t.TempDir()}
	if err := os.MkdirAll(filepath.Dir(c.Log("etcd")), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Log("etcd"), []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &Manager{Cluster: c, Progress: t.Logf}
	return &waiter{Manager: m, start: time.Now()}
}

var never = cluster.Condition{
	Waiting: "etcd",
	Log:     "etcd",
	Check:   func(context.Context) error { return errors.New("no leader") },
}

func TestGivingUpNamesTheLogAndShowsItsEnd(t *testing.T) {
	w := newWaiter(t, strings.Repeat("old\n", 100)+"disk is full\n")
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errors.New("gave up after 1ms"))
	defer cancel()
	err := w.wait(ctx, never)
	if err == nil {
		t.Fatal("wait succeeds")
	}
	for _, want := range []string{"gave up", "etcd", "no leader", "logs etcd --name x", "disk is full"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
	if lines := strings.Count(err.Error(), "\n"); lines > 20 {
		t.Errorf("the error has %d lines", lines)
	}
}

func TestAnInterruptSaysHowToGoOn(t *testing.T) {
	w := newWaiter(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.wait(ctx, never); err == nil || !strings.Contains(err.Error(), "run `up` again") {
		t.Errorf("wait = %v", err)
	}
}

func TestWaitingEndsWithTheSupervisor(t *testing.T) {
	w := newWaiter(t, "")
	ended := make(chan error, 1)
	ended <- errors.New("signal: killed")
	w.ended = ended
	if err := w.wait(t.Context(), never); !errors.Is(err, errSupervisorEnded) || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("wait = %v", err)
	}
}

func TestAdoptRefusesOtherOptions(t *testing.T) {
	m := &Manager{Cluster: state.Cluster{Name: "x", Root: t.TempDir()}}
	if running, err := m.adopt(Options{}); running || err != nil {
		t.Errorf("adopt of nothing = %v, %v", running, err)
	}
	if err := m.Cluster.SaveConfig(state.Config{CNI: state.CNIBridge}); err != nil {
		t.Fatal(err)
	}
	if running, err := m.adopt(Options{CNI: state.CNIBridge}); running || err != nil {
		t.Errorf("adopt of a dead cluster = %v, %v", running, err)
	}
	if _, err := m.adopt(Options{CNI: state.CNICilium}); err == nil || !strings.Contains(err.Error(), "down --name x") {
		t.Errorf("adopt with another CNI = %v", err)
	}
}
