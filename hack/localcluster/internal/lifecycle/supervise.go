package lifecycle

import (
	"context"
	"log/slog"
	"os"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/supervise"
)

// Supervision is how a supervisor is started.
type Supervision struct {
	Cluster state.Cluster
	// Attached says that the supervisor is to die with the process that started
	// it.
	Attached bool
	// Inside says that the surroundings of a node are there already.
	Inside bool
}

// Args are the arguments that start it.
func (s Supervision) Args() []string {
	args := []string{"supervise", "--name", s.Cluster.Name, "--root", s.Cluster.Root}
	if s.Attached {
		args = append(args, "--attached")
	}
	if s.Inside {
		args = append(args, "--inside")
	}
	return args
}

// Run supervises the cluster until the context ends.
func (s Supervision) Run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := s.run(ctx, log); err != nil {
		log.Error("the supervisor ends", "error", err)
		return err
	}
	return nil
}

func (s Supervision) run(ctx context.Context, log *slog.Logger) error {
	cfg, err := s.Cluster.LoadConfig()
	if err != nil {
		return err
	}
	if cfg.HasNode() && !s.Inside {
		return s.enterNode(cfg)
	}
	mark, err := s.Cluster.HoldSupervisor()
	if err != nil {
		return err
	}
	defer func() { _ = mark.Close() }()
	ctx, err = s.tied(ctx)
	if err != nil {
		return err
	}
	if cfg.HasNode() {
		return superviseNode(ctx, s.Cluster, cfg, log)
	}
	return superviseControlPlane(ctx, s.Cluster, cfg, log)
}

func superviseControlPlane(ctx context.Context, c state.Cluster, cfg state.Config, log *slog.Logger) error {
	ports, err := supervise.ReservePorts(ctx, cluster.ControlPlanePorts(), cfg.Ports)
	if err != nil {
		return err
	}
	cfg.Ports = ports
	layout := cluster.HostLayout(c, cfg)
	if err := publish(layout); err != nil {
		return err
	}
	supervisor, err := supervise.New(c, log, layout.ControlPlane())
	if err != nil {
		return err
	}
	return supervisor.Run(ctx)
}

// publish tells the host what the supervisor has chosen.
func publish(l cluster.Layout) error {
	if err := l.Cluster.SaveConfig(l.Config); err != nil {
		return err
	}
	if err := l.WriteKubeconfigs(); err != nil {
		return err
	}
	return state.WriteFile(l.Cluster.Path("prepared"), nil, 0o644)
}
