package lifecycle

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

func TestHasVariable(t *testing.T) {
	environ := []byte("A=1\x00MARK=x-1\x00B=2\x00")
	if !hasVariable(environ, []byte("MARK=x-1")) {
		t.Error("a variable is not found")
	}
	for _, other := range []string{"MARK=x", "MARK=x-12", "ARK=x-1"} {
		if hasVariable(environ, []byte(other)) {
			t.Errorf("%s is found", other)
		}
	}
}

func TestAncestors(t *testing.T) {
	found := ancestors()
	if !found[os.Getpid()] || !found[os.Getppid()] {
		t.Errorf("ancestors are %v; want this process and its parent", found)
	}
}

const holdsMark = "LOCALCLUSTER_TEST_HOLDS_MARK"

// TestMain makes the test binary hold the mark of a supervisor, without the
// cluster's marker, until its input ends.
func TestMain(m *testing.M) {
	root := os.Getenv(holdsMark)
	if root == "" {
		os.Exit(m.Run())
	}
	mark, err := state.Cluster{Name: "x", Root: root}.HoldSupervisor()
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString("held\n")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = mark.Close()
}

// A process that is dying shows no environment any more while it still has its
// files open, and so its mark.
func TestASupervisorWithoutEnvironmentIsFound(t *testing.T) {
	m := &Manager{Cluster: state.Cluster{Name: "x", Root: t.TempDir()}}
	holder := exec.CommandContext(t.Context(), "/proc/self/exe")
	holder.Env = []string{holdsMark + "=" + m.Cluster.Root}
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if pids, err := m.processes(); err != nil || !slices.Equal(pids, []int{holder.Process.Pid}) {
		t.Errorf("processes = %v, %v; want the supervisor, %d", pids, err, holder.Process.Pid)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := holder.Wait(); err != nil {
		t.Fatal(err)
	}
	if pids, err := m.processes(); err != nil || len(pids) != 0 {
		t.Errorf("processes = %v, %v; want none", pids, err)
	}
}
