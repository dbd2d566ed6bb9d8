package cli

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mcpwarden/mcp-warden/internal/compliance"
)

func newExplain(streams Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "explain [CONTROL]",
		Short: "Say what a control is about, or list all of them",
		Example: `  # All controls
  kubectl warden explain

  # What NET-03 is about, and how to fix what it finds
  kubectl warden explain NET-03`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeControls,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listControls(streams)
			}
			return explain(streams, args[0])
		},
	}
}

func completeControls(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, c := range compliance.Catalogue() {
		out = append(out, string(c.ID)+"\t"+c.Title)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func listControls(streams Streams) error {
	table := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CONTROL\tSEVERITY\tWHAT HOLDS")
	for _, c := range compliance.Catalogue() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.ID, c.Severity, c.Title)
	}
	return table.Flush()
}

func explain(streams Streams, id string) error {
	catalogue := compliance.Catalogue()
	at := slices.IndexFunc(catalogue, func(c compliance.Control) bool { return strings.EqualFold(string(c.ID), id) })
	if at < 0 {
		return fmt.Errorf("%q is no control: kubectl warden explain lists them", id)
	}
	c := &catalogue[at]
	where := "manifests (kubectl warden lint) and the cluster"
	if c.IsLive() {
		where = "the cluster; offline it is Unknown unless what is declared violates it"
	}
	blocks := "no"
	if c.Enforced {
		blocks = "yes, by a policy with action Enforce"
	}
	p := painterFor(streams.Out)
	_, err := fmt.Fprintf(streams.Out, "%s  %s\n\n%s\n\nSeverity:    %s\nReads:       %s\nDecided by:  %s\nBlocks:      %s\nRemedy:      %s\nReferences:  %s\n",
		p.in(bold, string(c.ID)), c.Title, c.Rationale, c.Severity, c.Reads, where, blocks, c.Remedy, strings.Join(c.References, ", "))
	return err
}
