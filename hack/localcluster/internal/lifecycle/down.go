//go:build linux

package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/node"
)

// Down removes the cluster, whatever state it is in.
func (m *Manager) Down(ctx context.Context) error {
	lock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Release(true)
	existed := m.Cluster.Exists()
	if err := m.remove(ctx); err != nil {
		return err
	}
	if !existed {
		m.Progress("cluster %q does not exist; nothing to remove", m.Cluster.Name)
		return nil
	}
	m.Progress("cluster %q is removed", m.Cluster.Name)
	return nil
}

func (m *Manager) remove(ctx context.Context) error {
	if err := m.stop(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(m.Cluster.Root); err != nil {
		return fmt.Errorf("remove the state of cluster %q: %w", m.Cluster.Name, err)
	}
	return nil
}

const stopTimeout = 30 * time.Second

// stop ends every process of the cluster and waits until they are gone. Its data
// stay. With the processes go their namespaces, and with those every mount and
// network device.
func (m *Manager) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, errors.New("they do not end"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := m.processes()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return m.clean()
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("stop process %d of cluster %q: %w", pid, m.Cluster.Name, err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("stop processes %v of cluster %q: %w", pids, m.Cluster.Name, context.Cause(ctx))
		}
	}
}

// clean removes what outlives the processes and is not in the state folder.
func (m *Manager) clean() error {
	if err := node.RemoveCgroups(m.Cluster.ID()); err != nil {
		return err
	}
	for _, f := range []string{"prepared", "status.json"} {
		if err := os.Remove(m.Cluster.Path(f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// processes finds the supervisor and everything that carries the cluster's
// marker or is in its cgroups, also what lost its supervisor. Processes that we descend from are left
// out: `exec -- make test` may well end with `down`.
func (m *Manager) processes() ([]int, error) {
	inside, err := node.Processes(m.Cluster.ID())
	if err != nil {
		return nil, err
	}
	marker := []byte(cluster.Marker + "=" + m.Cluster.ID())
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	ancestors := ancestors()
	var pids []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || ancestors[pid] {
			continue
		}
		// A process that ended meanwhile, or is not ours to see, is not ours.
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && hasVariable(env, marker) || slices.Contains(inside, pid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func hasVariable(environ, variable []byte) bool {
	for v := range bytes.SplitSeq(environ, []byte{0}) {
		if bytes.Equal(v, variable) {
			return true
		}
	}
	return false
}

// ancestors are this process, its parent and so on.
func ancestors() map[int]bool {
	found := map[int]bool{}
	for pid := os.Getpid(); pid > 0; {
		found[pid] = true
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			break
		}
		// The command name, in parentheses, may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 {
			break
		}
		if pid, err = strconv.Atoi(string(fields[1])); err != nil {
			break
		}
	}
	return found
}
