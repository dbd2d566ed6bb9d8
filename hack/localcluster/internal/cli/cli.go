// Package cli is the command line of localcluster.
package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/lifecycle"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// The exit codes beside 0.
const (
	exitError  = 1
	exitCannot = 3
)

// Run runs the command line and returns the exit code.
func Run(ctx context.Context, args []string) int {
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintln(os.Stderr, "localcluster:", err)
	}
	if errors.Is(err, lifecycle.ErrCannot) {
		return exitCannot
	}
	return exitError
}

// errReported ends a command whose output already says what is wrong.
var errReported = errors.New("reported")

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "localcluster",
		Short: "A real Kubernetes node from Go modules and Debian packages",
		Long: `Localcluster builds Kubernetes, containerd, CoreDNS and Cilium from their Go
modules and runs them on this machine: a control plane alone, which needs no root,
or a whole node with a small internet of its own, in namespaces of its own.`,
		Example: `  localcluster up                        # a node with Cilium, as root
  localcluster up --control-plane-only   # no root, ready in seconds
  export KUBECONFIG=$(localcluster kubeconfig --path)
  localcluster exec -- kubectl get pods -A
  localcluster down`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().String("name", "default", "name of the cluster")
	root.AddCommand(
		upCommand(), downCommand(), statusCommand(), kubeconfigCommand(), loadCommand(),
		execCommand(), logsCommand(), buildCommand(), superviseCommand(),
	)
	return root
}

// open returns the cluster that --name names.
func open(cmd *cobra.Command) (state.Cluster, error) {
	name, err := cmd.Flags().GetString("name")
	if err != nil {
		return state.Cluster{}, err
	}
	return state.Open(name)
}

// openExisting is open for commands that need a configured cluster.
func openExisting(cmd *cobra.Command) (state.Cluster, state.Config, error) {
	c, err := open(cmd)
	if err != nil {
		return c, state.Config{}, err
	}
	cfg, err := c.LoadConfig()
	if errors.Is(err, os.ErrNotExist) {
		return c, cfg, fmt.Errorf("there is no cluster %q: create it with `up --name %s`%s", c.Name, c.Name, others())
	}
	return c, cfg, err
}

func others() string {
	names, err := state.Names()
	if err != nil || len(names) == 0 {
		return ""
	}
	return fmt.Sprintf(" (there are: %v)", names)
}

func manager(cmd *cobra.Command) (*lifecycle.Manager, error) {
	c, err := open(cmd)
	if err != nil {
		return nil, err
	}
	return &lifecycle.Manager{Cluster: c, Progress: progress(cmd)}, nil
}

// progress writes to stderr: stdout is for what scripts read.
func progress(cmd *cobra.Command) func(string, ...any) {
	return func(format string, args ...any) {
		fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
	}
}
