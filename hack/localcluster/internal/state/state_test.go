package state

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestOpenChecksTheName(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for _, name := range []string{"default", "a", "lc-1"} {
		if _, err := Open(name); err != nil {
			t.Errorf("Open(%q): %v", name, err)
		}
	}
	for _, name := range []string{"", "../x", "A", "-a", "a-", "a_b", "a234567890123456789012345678901"} {
		if _, err := Open(name); err == nil {
			t.Errorf("Open(%q) succeeds", name)
		}
	}
}

func TestIDTellsClustersApart(t *testing.T) {
	a, b := Cluster{Name: "x", Root: "/a/x"}, Cluster{Name: "x", Root: "/b/x"}
	if a.ID() == b.ID() {
		t.Error("clusters of one name in two places have one id")
	}
	if a.ID() != (Cluster{Name: "x", Root: "/a/x"}).ID() {
		t.Error("a cluster's id changes")
	}
}

func TestConfigRoundTrip(t *testing.T) {
	c := Cluster{Name: "x", Root: filepath.Join(t.TempDir(), "x")}
	if _, err := c.LoadConfig(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LoadConfig of nothing: %v, want ErrNotExist", err)
	}
	want := Config{ID: "x-1", CNI: CNICilium, Ports: map[string]int{"a": 1}}
	if err := c.SaveConfig(want); err != nil {
		t.Fatal(err)
	}
	got, err := c.LoadConfig()
	if err != nil || got.CNI != want.CNI || got.Ports["a"] != 1 {
		t.Errorf("LoadConfig = %+v, %v; want %+v", got, err, want)
	}
	names, err := filepath.Glob(c.Path(".*"))
	if err != nil || len(names) > 0 {
		t.Errorf("temporary files stay: %v, %v", names, err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := LockFile(context.Background(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	waited := false
	if _, err := LockFile(ctx, path, func() { waited = true }); !errors.Is(err, context.DeadlineExceeded) || !waited {
		t.Errorf("second lock: %v, waited %v; want it to wait in vain", err, waited)
	}

	// Whoever waits must not end up with the file that the holder removes.
	got := make(chan *Lock)
	waiting := make(chan struct{})
	go func() {
		l, err := LockFile(context.Background(), path, func() { close(waiting) })
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	<-waiting
	first.Release(true)
	second := <-got
	if !sameFile(second.file, path) {
		t.Error("the lock is on a file that is gone")
	}
	second.Release(true)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lock file stays: %v", err)
	}
}
