package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/lifecycle"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

func upCommand() *cobra.Command {
	var (
		cni              string
		controlPlaneOnly bool
		opts             lifecycle.Options
	)
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring a cluster up and wait until it is ready",
		Long: `Bring a cluster up and wait until it is ready. What is missing is built first, once
per machine. On a cluster that runs, up only checks; on one whose processes died, it
starts them again with their data.

When ready it prints "ready KUBECONFIG=<path>" on stdout. Exit code 3 means that this
machine or user cannot run a node at all.`,
		Example: `  localcluster up
  localcluster up --name plain --cni=bridge
  localcluster up --name unit --control-plane-only --foreground --without=kube-scheduler`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOptions(&opts, cni, controlPlaneOnly, cmd.Flags().Changed("cni")); err != nil {
				return err
			}
			m, err := manager(cmd)
			if err != nil {
				return err
			}
			return m.Up(cmd.Context(), opts, os.Stdin, func(kubeconfig string) {
				fmt.Fprintf(cmd.OutOrStdout(), "ready KUBECONFIG=%s\n", kubeconfig)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&cni, "cni", state.CNICilium, "CNI of the node: cilium enforces NetworkPolicy, bridge does not")
	flags.BoolVar(&controlPlaneOnly, "control-plane-only", false, "no node and no root: etcd, API server, controller-manager and scheduler on loopback")
	flags.BoolVar(&opts.Foreground, "foreground", false, "run until SIGINT, SIGTERM or the end of stdin, then remove the cluster")
	flags.StringSliceVar(&opts.Without, "without", nil, "components to leave out: "+strings.Join(cluster.Optional(), ", ")+" (with --control-plane-only)")
	return cmd
}

func checkOptions(opts *lifecycle.Options, cni string, controlPlaneOnly, cniGiven bool) error {
	slices.Sort(opts.Without)
	opts.Without = slices.Compact(opts.Without)
	for _, w := range opts.Without {
		if !slices.Contains(cluster.Optional(), w) {
			return fmt.Errorf("--without=%s: only %s can be left out", w, strings.Join(cluster.Optional(), " and "))
		}
	}
	if controlPlaneOnly {
		if cniGiven {
			return fmt.Errorf("--cni needs a node: leave out --control-plane-only")
		}
		return nil
	}
	if len(opts.Without) > 0 {
		return fmt.Errorf("--without: a node needs every component; add --control-plane-only")
	}
	if cni != state.CNICilium && cni != state.CNIBridge {
		return fmt.Errorf("--cni=%s: choose %s or %s", cni, state.CNICilium, state.CNIBridge)
	}
	opts.CNI = cni
	return nil
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove a cluster with everything that belongs to it",
		Long: `Remove a cluster: its processes, namespaces, mounts, cgroups and state. The builds
stay in the cache. A cluster that is half started, was killed or does not exist is no
error.`,
		Example: `  localcluster down --name plain`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := manager(cmd)
			if err != nil {
				return err
			}
			return m.Down(cmd.Context())
		},
	}
}

func superviseCommand() *cobra.Command {
	var s lifecycle.Supervision
	var root string
	cmd := &cobra.Command{
		Use:    "supervise",
		Short:  "Run the components (started by up)",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := open(cmd)
			if err != nil {
				return err
			}
			c.Root = root
			s.Cluster = c
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "state folder")
	cmd.Flags().BoolVar(&s.Attached, "attached", false, "end with the process that started this")
	cmd.Flags().BoolVar(&s.Inside, "inside", false, "the surroundings of a node are made")
	return cmd
}
