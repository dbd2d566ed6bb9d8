//go:build linux

package lifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/supervise"
)

// Supervise is the supervisor of a cluster. attached says that it is to die with
// the process that started it.
func Supervise(ctx context.Context, c state.Cluster, attached bool) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	mark, err := c.HoldSupervisor()
	if err != nil {
		return err
	}
	defer func() { _ = mark.Close() }()
	if !attached {
		// Marked, we can be found: from here on we may outlive our parent.
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("detach: %w", err)
		}
	}
	cfg, err := c.LoadConfig()
	if err != nil {
		return err
	}
	if err := superviseControlPlane(ctx, c, cfg, log); err != nil {
		log.Error("supervisor ends", "error", err)
		return err
	}
	return nil
}

func superviseControlPlane(ctx context.Context, c state.Cluster, cfg state.Config, log *slog.Logger) error {
	ports, err := supervise.ReservePorts(cluster.ControlPlanePorts(), cfg.Ports)
	if err != nil {
		return err
	}
	cfg.Ports = ports
	if err := c.SaveConfig(cfg); err != nil {
		return err
	}
	layout := cluster.HostLayout(c, cfg)
	if err := layout.WriteKubeconfigs(); err != nil {
		return err
	}
	if err := state.WriteFile(c.Path("prepared"), nil, 0o644); err != nil {
		return err
	}
	return supervise.New(c, log).Run(ctx, layout.ControlPlane())
}
