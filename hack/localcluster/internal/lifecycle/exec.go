//go:build linux

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/node"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Exec replaces this process with a command that runs where the cluster is. It
// is called on the main thread, whose namespaces become the command's.
func Exec(c state.Cluster, cfg state.Config, internet bool, args []string) error {
	bin := cluster.HostLayout(c, cfg).Build(build.ControlPlane)
	if err := os.Setenv("PATH", bin+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	if internet && !cfg.HasNode() {
		return fmt.Errorf("cluster %q has no internet: it is a control plane only", c.Name)
	}
	kubeconfig := c.Kubeconfig()
	if cfg.HasNode() {
		if err := enter(c, internet); err != nil {
			return fmt.Errorf("enter cluster %q: %w", c.Name, err)
		}
		// In there the host's loopback is out of reach, the API server's is not.
		kubeconfig = c.Path("kubeconfigs", "admin")
	}
	if err := os.Setenv("KUBECONFIG", kubeconfig); err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return fmt.Errorf("run %s: %w", args[0], err)
	}
	if err := syscall.Exec(path, args, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", strings.Join(args, " "), err)
	}
	return nil
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
