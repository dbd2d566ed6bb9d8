//go:build !linux

package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// processes finds the supervisor and the components by their command lines, also
// those that lost their supervisor: nothing but `down` and the next `up` ends
// these here.
func (m *Manager) processes() ([]int, error) {
	cfg, err := m.Cluster.LoadConfig()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	out, err := exec.Command("ps", "-A", "-ww", "-o", "pid=", "-o", "command=").Output()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for line := range strings.Lines(string(out)) {
		id, command, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !m.owns(strings.TrimSpace(command), cfg.Cache) {
			continue
		}
		pid, err := strconv.Atoi(id)
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// owns knows the supervisor by how it is started, and a component by where it
// was built and by the state folder, which every one gets files from.
func (m *Manager) owns(command, cache string) bool {
	supervisor := strings.Join(append([]string{"localcluster"}, Supervision{Cluster: m.Cluster}.Args()...), " ")
	return command == supervisor || strings.HasPrefix(command, supervisor+" ") ||
		cache != "" && strings.HasPrefix(command, filepath.Join(cache, "builds")+"/") && strings.Contains(command, "="+m.Cluster.Root+"/")
}

// clearNode has nothing to do: what outlives processes are a node's cgroups.
func clearNode(string) error { return nil }
