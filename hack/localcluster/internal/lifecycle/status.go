//go:build linux

package lifecycle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Report is the health of a cluster.
type Report struct {
	SupervisorPID int
	Components    []state.Component
	Endpoints     []Endpoint
	// Problems is empty for a healthy cluster.
	Problems []string
}

// Endpoint is where something of the cluster can be reached.
type Endpoint struct{ Name, Address string }

// Status looks at the cluster as it is now.
func (m *Manager) Status(ctx context.Context, cfg state.Config) (Report, error) {
	pid, err := m.Cluster.SupervisorPID()
	if err != nil {
		return Report{}, err
	}
	report := Report{SupervisorPID: pid}
	for _, use := range []string{cluster.PortAPIServer, cluster.PortRegistry} {
		if port := cfg.Ports[use]; port != 0 {
			report.Endpoints = append(report.Endpoints, Endpoint{use, fmt.Sprintf("127.0.0.1:%d", port)})
		}
	}
	if pid == 0 {
		report.Problems = append(report.Problems, fmt.Sprintf("it is not running: start it with `up --name %s`", m.Cluster.Name))
		return report, nil
	}
	status, err := m.Cluster.LoadStatus()
	if err != nil {
		report.Problems = append(report.Problems, "it is starting")
		return report, nil
	}
	if report.Components, err = hostPIDs(status.Components, pid); err != nil {
		return report, err
	}
	report.Problems = m.problems(ctx, cfg)
	return report, nil
}

func (m *Manager) problems(ctx context.Context, cfg state.Config) []string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	layout := cluster.HostLayout(m.Cluster, cfg)
	client, err := layout.HostClient()
	if err != nil {
		return []string{err.Error()}
	}
	defer client.Close()
	var problems []string
	for _, c := range layout.Conditions(client, m.dial) {
		if err := c.Check(ctx); err != nil {
			problems = append(problems, fmt.Sprintf("%s: %v (see `logs %s --name %s`)", c.Waiting, err, c.Log, m.Cluster.Name))
		}
	}
	return problems
}

// hostPIDs replaces the process ids that the supervisor knows by those that the
// host knows the processes by.
func hostPIDs(components []state.Component, supervisor int) ([]state.Component, error) {
	home, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	inside, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", supervisor))
	if err != nil || inside == home {
		// One that we may not look at is not in a namespace of its own either:
		// only root starts those.
		return components, nil
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	known := map[int]int{}
	for _, dir := range dirs {
		if ns, err := os.Readlink(dir + "/ns/pid"); err != nil || ns != inside {
			continue
		}
		if host, inner, ok := namespacedPID(dir); ok {
			known[inner] = host
		}
	}
	components = slices.Clone(components)
	for i := range components {
		components[i].PID = known[components[i].PID]
	}
	return components, nil
}

// namespacedPID reads a process's id here and in its own namespace.
func namespacedPID(dir string) (host, inner int, ok bool) {
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return 0, 0, false
	}
	for line := range strings.Lines(string(status)) {
		list, found := strings.CutPrefix(line, "NSpid:")
		if !found {
			continue
		}
		ids := strings.Fields(list)
		if len(ids) < 2 {
			return 0, 0, false
		}
		host, errHost := strconv.Atoi(ids[0])
		inner, errInner := strconv.Atoi(ids[len(ids)-1])
		return host, inner, errHost == nil && errInner == nil
	}
	return 0, 0, false
}
