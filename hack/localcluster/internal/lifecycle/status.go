package lifecycle

import (
	"context"
	"fmt"
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
