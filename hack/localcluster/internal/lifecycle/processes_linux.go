package lifecycle

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/node"
)

// processes finds the supervisor and everything that carries the cluster's
// marker or is in its cgroups, also what lost its supervisor. A supervisor counts
// until it has let go of its mark: one that is dying shows no environment before
// its files are closed. Processes that we descend from are left out: `exec --
// make test` may well end with `down`.
func (m *Manager) processes() ([]int, error) {
	inside, err := node.Processes(m.Cluster.ID())
	if err != nil {
		return nil, err
	}
	supervisor, err := m.Cluster.SupervisorPID()
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
		if err == nil && hasVariable(env, marker) || pid == supervisor || slices.Contains(inside, pid) {
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

// clearNode removes what outlives a node's processes.
func clearNode(id string) error { return node.RemoveCgroups(id) }
