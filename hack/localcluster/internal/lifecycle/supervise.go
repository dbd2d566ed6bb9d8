//go:build linux

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/internet"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/node"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/pki"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/registry"
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
	if !s.Attached {
		// Marked, we can be found: from here on we may outlive our parent.
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0); err != nil {
			return fmt.Errorf("detach: %w", err)
		}
	}
	if cfg.HasNode() {
		return superviseNode(ctx, s.Cluster, cfg, log)
	}
	return superviseControlPlane(ctx, s.Cluster, cfg, log)
}

// enterNode makes the surroundings of a node and executes the supervisor in
// them. Some belong to a thread at first: executing makes them the process's.
func (s Supervision) enterNode(cfg state.Config) error {
	if err := node.Enter(s.Cluster, cfg); err != nil {
		return err
	}
	s.Cluster.Root, s.Inside = node.StateRoot, true
	args := append([]string{"localcluster"}, s.Args()...)
	if err := syscall.Exec("/proc/self/exe", args, os.Environ()); err != nil {
		return fmt.Errorf("execute the supervisor: %w", err)
	}
	return nil
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

func superviseNode(ctx context.Context, c state.Cluster, cfg state.Config, log *slog.Logger) error {
	layout := cluster.Layout{Cluster: c, Config: cfg, Cache: node.CacheRoot}
	outside, err := node.SetUpNetwork()
	if err != nil {
		return err
	}
	defer func() { _ = outside.Close() }()
	if err := layout.Internet().Ensure(makeCA); err != nil {
		return err
	}
	if err := openToHost(ctx, &layout, log); err != nil {
		return err
	}
	images, err := layout.PushImages(ctx, registryAddress)
	if err != nil {
		return err
	}
	if err := layout.WriteNodeFiles(images.Pause); err != nil {
		return err
	}
	if err := publish(layout); err != nil {
		return err
	}
	processes := append(layout.ControlPlane(), layout.Node(int(outside.Fd()))...)
	supervisor, err := supervise.New(c, log, processes)
	if err != nil {
		return err
	}
	go serveInternet(ctx, layout, outside, log)
	go bootstrap(ctx, layout, images, supervisor, log)
	return supervisor.Run(ctx)
}

func makeCA(base string) error {
	ca, err := pki.NewCA("localcluster internet")
	if err != nil {
		return err
	}
	return ca.WriteFiles(base)
}

func serveInternet(ctx context.Context, l cluster.Layout, outside *os.File, log *slog.Logger) {
	ca, err := pki.LoadCA(l.Internet().CA())
	if err == nil {
		err = internet.Serve(ctx, func(network, address string) (net.Listener, error) {
			return node.Listen(outside, network, address)
		}, ca, log)
	}
	if err != nil {
		log.Error("the internet is down", "error", err)
	}
}

// bootstrap puts into the API server what the cluster itself needs, until that
// succeeds.
func bootstrap(ctx context.Context, l cluster.Layout, images cluster.Images, s *supervise.Supervisor, log *slog.Logger) {
	if s.Await(ctx, cluster.APIServer) != nil {
		return
	}
	for {
		err := l.Apply(ctx, images)
		if err == nil || ctx.Err() != nil {
			return
		}
		log.Warn("bootstrap failed; trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// registryAddress is the registry's inside the node.
const registryAddress = "127.0.0.1:5000"

// openToHost serves the registry to node and host, and makes the API server
// reachable from the host's loopback.
func openToHost(ctx context.Context, l *cluster.Layout, log *slog.Logger) error {
	hostNet := os.NewFile(node.HostNetFD, "host's network namespace")
	defer func() { _ = hostNet.Close() }()
	handler, err := registry.New(l.Cluster.Path("registry"))
	if err != nil {
		return err
	}
	inside, err := net.Listen("tcp", ":5000")
	if err != nil {
		return err
	}
	images, err := listenOnHost(hostNet, l.Config.Ports[cluster.PortRegistry])
	if err != nil {
		return err
	}
	api, err := listenOnHost(hostNet, l.Config.Ports[cluster.PortAPIServer])
	if err != nil {
		return err
	}
	l.Config.Ports = map[string]int{
		cluster.PortRegistry:  images.Addr().(*net.TCPAddr).Port,
		cluster.PortAPIServer: api.Addr().(*net.TCPAddr).Port,
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	for _, listener := range []net.Listener{inside, images} {
		go func() {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				log.Error("the registry is down", "address", listener.Addr(), "error", err)
			}
		}()
	}
	go node.Forward(ctx, api, l.InsideAPIServer(), log)
	return nil
}

// listenOnHost prefers a port, so that kubeconfigs stay good over restarts.
func listenOnHost(hostNet *os.File, port int) (net.Listener, error) {
	l, err := node.Listen(hostNet, "tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil && port != 0 {
		return node.Listen(hostNet, "tcp4", "127.0.0.1:0")
	}
	return l, err
}
