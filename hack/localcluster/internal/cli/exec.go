package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/lifecycle"
)

func execCommand() *cobra.Command {
	var internet bool
	cmd := &cobra.Command{
		Use:   "exec -- COMMAND [ARG...]",
		Short: "Run a command where the cluster is, with kubectl and KUBECONFIG",
		Long: `Run a command in the cluster's network namespace, with the cluster's kubectl on PATH
and KUBECONFIG set. Its exit code is passed on.`,
		Example: `  localcluster exec -- kubectl get pods -A
  localcluster exec --internet -- curl http://10.244.0.5:8080/`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("say what to run, for example `exec -- kubectl get nodes`")
			}
			c, cfg, err := openExisting(cmd)
			if err != nil {
				return err
			}
			return lifecycle.Exec(c, cfg, internet, args)
		},
	}
	cmd.Flags().BoolVar(&internet, "internet", false, "run in the namespace that plays the internet")
	return cmd
}
