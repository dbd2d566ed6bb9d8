//go:build !linux

package lifecycle

import (
	"context"
	"log/slog"
	"net"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Up does not make a node here, so that none of these is reached but with state
// that comes from another machine.

func (s Supervision) enterNode(state.Config) error { return errNotLinux }

func superviseNode(context.Context, state.Cluster, state.Config, *slog.Logger) error {
	return errNotLinux
}

func enter(state.Cluster, bool) error { return errNotLinux }

func (m *Manager) dial(context.Context, string, string) (net.Conn, error) { return nil, errNotLinux }

// hostPIDs has nothing to do without PID namespaces.
func hostPIDs(components []state.Component, _ int) ([]state.Component, error) { return components, nil }
