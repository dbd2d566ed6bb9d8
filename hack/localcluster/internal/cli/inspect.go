package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/lifecycle"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the components and whether the cluster is healthy",
		Long:    "Show the components, the endpoints and what is wrong. The exit code is 0 only if all is healthy.",
		Example: `  localcluster status --name plain`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, cfg, err := openExisting(cmd)
			if err != nil {
				return err
			}
			m := &lifecycle.Manager{Cluster: c, Progress: progress(cmd)}
			report, err := m.Status(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			printReport(cmd.OutOrStdout(), c, cfg, report)
			if len(report.Problems) > 0 {
				return errReported
			}
			return nil
		},
	}
}

func printReport(out io.Writer, c state.Cluster, cfg state.Config, r lifecycle.Report) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	defer func() { _ = w.Flush() }()
	health := "healthy"
	if len(r.Problems) > 0 {
		health = "NOT healthy"
	}
	fmt.Fprintf(w, "cluster\t%s: %s, %s\n", c.Name, cfg.Mode(), health)
	fmt.Fprintf(w, "state\t%s\n", c.Root)
	fmt.Fprintf(w, "kubeconfig\t%s\n", c.Kubeconfig())
	for _, e := range r.Endpoints {
		fmt.Fprintf(w, "%s\t%s\n", e.Name, e.Address)
	}
	if r.SupervisorPID != 0 {
		fmt.Fprintf(w, "supervisor\tpid %d\n", r.SupervisorPID)
	}
	if len(r.Components) > 0 {
		fmt.Fprintln(w, "\nCOMPONENT\tSTATE\tPID\tUPTIME\tRESTARTS")
	}
	for _, p := range r.Components {
		pid, uptime := "-", "-"
		if p.PID != 0 {
			pid = fmt.Sprint(p.PID)
			uptime = time.Since(p.Started).Round(time.Second).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", p.Name, p.State, pid, uptime, p.Restarts)
	}
	for i, p := range r.Problems {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "problem: %s\n", p)
	}
}

func kubeconfigCommand() *cobra.Command {
	var path bool
	cmd := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print the administrator's kubeconfig, or where it lies",
		Example: `  export KUBECONFIG=$(localcluster kubeconfig --path)
  localcluster kubeconfig > kubeconfig.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := openExisting(cmd)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(c.Kubeconfig())
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cluster %q has no kubeconfig yet: finish `up --name %s`", c.Name, c.Name)
			}
			if err != nil {
				return err
			}
			if path {
				b = []byte(c.Kubeconfig() + "\n")
			}
			_, err = cmd.OutOrStdout().Write(b)
			return err
		},
	}
	cmd.Flags().BoolVar(&path, "path", false, "print the path of the file, not its content")
	return cmd
}

func logsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs COMPONENT",
		Short: "Print the log of a component",
		Example: `  localcluster logs kube-apiserver
  localcluster logs kubelet -f`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := openExisting(cmd)
			if err != nil {
				return err
			}
			known, err := logNames(c)
			if err != nil {
				return err
			}
			if !slices.Contains(known, args[0]) {
				return fmt.Errorf("no log of %q: choose from %s", args[0], strings.Join(known, ", "))
			}
			return printLog(cmd.Context(), cmd.OutOrStdout(), c.Log(args[0]), follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on printing what is added")
	return cmd
}

func logNames(c state.Cluster) ([]string, error) {
	files, err := filepath.Glob(c.Log("*"))
	if err != nil {
		return nil, err
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".log")
	}
	return files, nil
}

func printLog(ctx context.Context, out io.Writer, path string, follow bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := io.Copy(out, f); err != nil || !follow {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func buildCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "build [COMPONENT...]",
		Short: "Build components into the cache and print their folders",
		Long: `Build components into the cache, all of them if none is named, and print the folder
of each.

Components: ` + strings.Join(build.Names(), ", "),
		Example: `  localcluster build
  localcluster build etcd kube-control-plane`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && runtime.GOOS != "linux" {
				args = cluster.Components(state.Config{}) // the rest is for a node
			}
			components, err := build.Select(args...)
			if err != nil {
				return err
			}
			builder, err := build.New(progress(cmd))
			if err != nil {
				return err
			}
			keys, err := builder.Ensure(cmd.Context(), components)
			if err != nil {
				return err
			}
			for _, c := range components {
				fmt.Fprintln(cmd.OutOrStdout(), builder.Dir(keys[c.Name]))
			}
			return nil
		},
	}
}
