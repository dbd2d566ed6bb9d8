package supervise

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

func newCluster(t *testing.T) state.Cluster {
	t.Helper()
	c := state.Cluster{Name: "test", Root: t.TempDir()}
	if err := os.Mkdir(filepath.Join(c.Root, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	return c
}

// start runs a supervisor until the test ends.
func start(t *testing.T, c state.Cluster, processes ...Process) *Supervisor {
	t.Helper()
	s, err := New(c, slog.New(slog.DiscardHandler), processes)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// eventually polls until the component is as wanted.
func eventually(t *testing.T, c state.Cluster, name, what string, ok func(state.Component) bool) state.Component {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	var last state.Component
	for {
		select {
		case <-deadline:
			t.Fatalf("%s never %s; it is %+v", name, what, last)
		case <-tick.C:
		}
		status, err := c.LoadStatus()
		if err != nil {
			continue // not written yet
		}
		for _, comp := range status.Components {
			if comp.Name == name {
				last = comp
			}
		}
		if ok(last) {
			return last
		}
	}
}

func isReady(c state.Component) bool { return c.State == state.StateReady && c.PID != 0 }

func TestRestartsWhatDies(t *testing.T) {
	c := newCluster(t)
	start(t, c, Process{Name: "sleeper", Path: "/bin/sleep", Args: []string{"1000"}})
	first := eventually(t, c, "sleeper", "ready", isReady)
	if err := unix.Kill(first.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := eventually(t, c, "sleeper", "restarted", func(c state.Component) bool { return isReady(c) && c.Restarts == 1 })
	if second.PID == first.PID {
		t.Error("the restarted process has the same id")
	}
}

func TestStartsInOrder(t *testing.T) {
	c := newCluster(t)
	flag := filepath.Join(t.TempDir(), "flag")
	s := start(t, c,
		Process{Name: "first", Path: "/bin/sleep", Args: []string{"1000"}, Ready: func(context.Context) error {
			_, err := os.Stat(flag)
			return err
		}},
		Process{Name: "second", Path: "/bin/sleep", Args: []string{"1000"}, After: []string{"first"}},
	)
	eventually(t, c, "first", "says why it is not ready", func(c state.Component) bool { return c.Problem != "" })
	second := eventually(t, c, "second", "known", func(c state.Component) bool { return c.Name != "" })
	if second.State != state.StateWaiting {
		t.Errorf("second is %s before first is ready", second.State)
	}
	if err := os.WriteFile(flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Await(t.Context(), "first", "second"); err != nil {
		t.Fatal(err)
	}
}

func TestLogsAndFailures(t *testing.T) {
	c := newCluster(t)
	if err := os.WriteFile(c.Log("talker"), []byte("old\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, c, Process{Name: "talker", Path: "/bin/sh", Args: []string{"-c", "echo out; echo err >&2; exit 3"}})
	got := eventually(t, c, "talker", "failed", func(c state.Component) bool { return c.Restarts > 0 && c.State == state.StateFailed })
	if !strings.Contains(got.Problem, "3") {
		t.Errorf("problem is %q, want the exit status", got.Problem)
	}
	log, err := os.ReadFile(c.Log("talker"))
	if err != nil || !strings.HasPrefix(string(log), "out\nerr\n") {
		t.Errorf("log is %q, %v", log, err)
	}
	old, err := os.ReadFile(c.Log("talker.previous"))
	if err != nil || string(old) != "old\n" {
		t.Errorf("previous log is %q, %v", old, err)
	}
}

func TestRefusesAnOrderThatCannotBe(t *testing.T) {
	_, err := New(newCluster(t), slog.New(slog.DiscardHandler), []Process{{Name: "a", After: []string{"b"}}, {Name: "b"}})
	if err == nil {
		t.Error("New succeeds")
	}
}
