package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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

// dial connects from inside the node.
func (m *Manager) dial(ctx context.Context, network, address string) (net.Conn, error) {
	pid, err := m.Cluster.SupervisorPID()
	if err != nil {
		return nil, err
	}
	netns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	defer func() { _ = netns.Close() }()
	var conn net.Conn
	err = node.Inside(netns, func() (err error) {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// enter puts the calling thread into the cluster's network and gives it the
// cluster's names. Everything else stays the host's.
func enter(c state.Cluster, internet bool) error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root")
	}
	pid, err := c.SupervisorPID()
	if err != nil {
		return err
	}
	if pid == 0 {
		return fmt.Errorf("it is not running: start it with `up --name %s`", c.Name)
	}
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	if internet {
		path = node.InternetNetNS(pid)
	}
	netns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = netns.Close() }()
	if err := bindResolver(pid); err != nil {
		return fmt.Errorf("set up name resolution: %w", err)
	}
	return unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET)
}

// bindResolver covers the host's resolv.conf with the cluster's, for this thread
// and what it executes.
func bindResolver(pid int) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	// The cluster's own file lies in a mount that can be seen but not bound.
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/etc/resolv.conf", pid))
	if err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "localcluster-resolv")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(content)
	err = errors.Join(err, file.Chmod(0o644), file.Close())
	if err != nil {
		return err
	}
	return unix.Mount(file.Name(), target, "", unix.MS_BIND, "")
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
