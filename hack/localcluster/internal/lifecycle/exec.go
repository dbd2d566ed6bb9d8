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
