package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/internal/plan"
)

func newRender(streams Streams) *cobra.Command {
	var in inputFlags
	cmd := &cobra.Command{
		Use:   "render -f FILE",
		Short: "Show the objects that the operator makes of an MCPServer, without a cluster",
		Long: `Show the objects that the operator makes of an MCPServer, without a cluster.

What a cluster would tell is assumed, and the output says what. Service targets of egress rules are looked for
in the input. It is for reading, not for applying: the operator's own objects carry more.`,
		Example: `  kubectl warden render -f server.yaml

  # What the NetworkPolicy of each server says
  kubectl warden render -f deploy/ | yq 'select(.kind == "NetworkPolicy")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			docs, err := readAll(in.files, streams.In)
			if err != nil {
				return err
			}
			found, err := sortOut(cmd.Context(), docs, in.namespace, false)
			if err != nil {
				return err
			}
			return found.render(streams)
		},
	}
	in.add(cmd)
	return cmd
}

func (m *manifests) render(streams Streams) error {
	if len(m.servers) > 0 {
		fmt.Fprintln(streams.Out, "# Assumed, in place of what a cluster would tell:")
		for _, assumption := range assumptions {
			fmt.Fprintf(streams.Out, "# - %s\n", assumption)
		}
	}
	for _, server := range m.servers {
		planned, errs := m.planFor(server.value)
		if len(errs) > 0 {
			m.refuse(server.document, errs)
			continue
		}
		if err := renderPlan(streams.Out, server.value.Namespace+"/"+server.value.Name, planned); err != nil {
			return err
		}
	}
	for _, i := range m.problems() {
		fmt.Fprintf(streams.Err, "%s: invalid: %s: %s\n", i.place, i.Object, withField(i.Field, i.Message))
	}
	if len(m.invalid) > 0 {
		return errViolations
	}
	return nil
}

func renderPlan(out io.Writer, name string, planned *plan.Plan) error {
	fmt.Fprintf(out, "---\n# MCPServer %s\n", name)
	if planned.Endpoint != "" {
		fmt.Fprintf(out, "# Endpoint: %s\n", planned.Endpoint)
	}
	for _, err := range planned.Pending {
		fmt.Fprintf(out, "# Closed for now: %s: %s\n", err.Field, err.Detail)
	}
	if planned.Held != nil {
		fmt.Fprintf(out, "# No Deployment: %s\n", planned.Held.Message)
	}
	for i, o := range planned.Objects {
		raw, err := sigsyaml.Marshal(o.Config)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprintln(out, "---")
		}
		if _, err := out.Write(raw); err != nil {
			return err
		}
	}
	return nil
}
