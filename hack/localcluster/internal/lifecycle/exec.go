//go:build linux

package lifecycle

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Exec replaces this process with a command that runs where the cluster is.
func Exec(c state.Cluster, cfg state.Config, internet bool, args []string) error {
	bin := cluster.HostLayout(c, cfg).Build(build.ControlPlane)
	if err := os.Setenv("PATH", bin+":"+os.Getenv("PATH")); err != nil {
		return err
	}
	if err := os.Setenv("KUBECONFIG", c.Kubeconfig()); err != nil {
		return err
	}
	path, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	if internet && !cfg.HasNode() {
		return fmt.Errorf("cluster %q has no internet: it is a control plane only", c.Name)
	}
	if err := syscall.Exec(path, args, os.Environ()); err != nil {
		return fmt.Errorf("run %s: %w", strings.Join(args, " "), err)
	}
	return nil
}
