package cli

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/plan"
)

func newRotate(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Roll changed Secrets out to a server now",
		Long: `Roll changed Secrets out to a server now.

A rotation that waits (for strategy Manual, the debounce or the budget) goes on, and one is tried again that was rolled back.
Where the Secrets hold what the server has, nothing happens: write the new values to their source first.`,
		Example: `  # Give the server github the values that its Secrets hold now
  kubectl warden rotate github -n agents`,
	}
	e := editOf(cmd, streams)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		_, err := e.apply(cmd.Context(), args[0], func(server *v1alpha1.MCPServer) (map[string]any, string, error) {
			if len(plan.SecretsOf(&server.Spec)) == 0 {
				return nil, "", errors.New("gets no value from a Secret: there is nothing to rotate")
			}
			return annotate(v1alpha1.AnnotationRotateRequestedAt, time.Now().UTC().Format(time.RFC3339Nano)), "is asked to rotate: see kubectl warden report " + server.Name, nil
		})
		return err
	}
	return cmd
}

// annotate is a patch that sets an annotation; nil takes it away.
func annotate(key string, value any) map[string]any {
	return map[string]any{"metadata": map[string]any{"annotations": map[string]any{key: value}}}
}
