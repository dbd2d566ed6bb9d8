package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// verdict is what is reported of a server.
type verdict struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Compliant is the status of the condition PolicyCompliant, and Unknown where that is about an older spec.
	Compliant  metav1.ConditionStatus     `json:"compliant"`
	Message    string                     `json:"message,omitempty"`
	State      v1alpha1.DesiredState      `json:"state"`
	Reason     string                     `json:"quarantineReason,omitempty"`
	Compliance *v1alpha1.ComplianceStatus `json:"compliance,omitempty"`
	Quarantine *v1alpha1.QuarantineStatus `json:"quarantine,omitempty"`
}

func newReport(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report [NAME]",
		Short: "Show the verdict over the servers of a cluster, as the operator found it",
		Long: `Show the verdict over the servers of a cluster, as the operator found it.

Without a name, one line for each server; with one, every control of it that does not pass. Ends with 0 where every server that is shown is
compliant, and with 1 where one is not or it cannot be told.`,
		Example: `  # The servers of all namespaces
  kubectl warden report -A

  # What is wrong with the server github, and how to fix it
  kubectl warden report github -n agents`,
		Args: cobra.MaximumNArgs(1),
	}
	c := clusterOf(cmd)
	var all bool
	var output string
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "the servers of all namespaces")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json or yaml")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all && len(args) > 0 {
			return errors.New("a name goes with one namespace: leave out -A")
		}
		api, namespace, err := c.connect()
		if err != nil {
			return err
		}
		servers := &v1alpha1.MCPServerList{}
		switch {
		case len(args) > 0:
			servers.Items = make([]v1alpha1.MCPServer, 1)
			err = api.Get(cmd.Context(), client.ObjectKey{Namespace: namespace, Name: args[0]}, &servers.Items[0])
		case all:
			err = api.List(cmd.Context(), servers)
		default:
			err = api.List(cmd.Context(), servers, client.InNamespace(namespace))
		}
		if err != nil {
			return fmt.Errorf("read MCPServers: %w", err)
		}
		return report(streams, servers.Items, output, len(args) > 0)
	}
	return cmd
}

// report writes the verdicts over some servers, or over one in full.
func report(streams Streams, servers []v1alpha1.MCPServer, output string, full bool) error {
	verdicts := make([]verdict, len(servers))
	for i := range servers {
		verdicts[i] = verdictOf(&servers[i])
	}
	var err error
	switch {
	case output == "json" || output == "yaml":
		err = writeVerdicts(streams, verdicts, output)
	case output != "text":
		return fmt.Errorf("-o is text, json or yaml, not %q", output)
	case len(verdicts) == 0:
		_, err = fmt.Fprintln(streams.Err, "No MCPServers found.")
	case full:
		err = writeControls(streams, &verdicts[0])
	default:
		err = listVerdicts(streams, verdicts)
	}
	if err != nil {
		return err
	}
	for i := range verdicts {
		if verdicts[i].Compliant != metav1.ConditionTrue {
			return errViolations
		}
	}
	return nil
}

func verdictOf(server *v1alpha1.MCPServer) verdict {
	out := verdict{Namespace: server.Namespace, Name: server.Name, Compliant: metav1.ConditionUnknown, State: server.Spec.DesiredState,
		Reason: server.Annotations[v1alpha1.AnnotationQuarantineReason], Compliance: server.Status.Compliance, Quarantine: server.Status.Quarantine}
	if out.State == "" {
		out.State = v1alpha1.StateRunning
	}
	condition := meta.FindStatusCondition(server.Status.Conditions, v1alpha1.ConditionPolicyCompliant)
	switch {
	case condition == nil:
		out.Message = "the operator has not judged it yet: see that it runs (kubectl get pods --all-namespaces -l app.kubernetes.io/name=mcp-warden)"
	case condition.ObservedGeneration != server.Generation:
		out.Message = fmt.Sprintf("the verdict is about generation %d of the spec, which is at %d by now", condition.ObservedGeneration, server.Generation)
	default:
		out.Compliant, out.Message = condition.Status, condition.Message
	}
	return out
}

func writeVerdicts(streams Streams, verdicts []verdict, output string) error {
	raw, err := json.MarshalIndent(map[string]any{"servers": verdicts}, "", "  ")
	if err == nil && output == "yaml" {
		raw, err = yaml.JSONToYAML(raw)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(streams.Out, strings.TrimSuffix(string(raw), "\n"))
	return err
}

func listVerdicts(streams Streams, verdicts []verdict) error {
	table := tabwriter.NewWriter(streams.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAMESPACE\tNAME\tCOMPLIANT\tPASSED\tFAILED\tUNKNOWN\tEXEMPTED\tSTATE")
	for i := range verdicts {
		v := &verdicts[i]
		counts := v.Compliance
		if counts == nil {
			counts = &v1alpha1.ComplianceStatus{}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", v.Namespace, v.Name, v.Compliant, counts.Passed, counts.Failed, counts.Unknown, counts.Exempted, v.State)
	}
	return table.Flush()
}

// colours of the results that are no pass.
var colours = map[v1alpha1.ControlResult]string{v1alpha1.ControlFail: red, v1alpha1.ControlUnknown: yellow, v1alpha1.ControlExempted: yellow}

func writeControls(streams Streams, v *verdict) error {
	p := painterFor(streams.Out)
	var out strings.Builder
	fmt.Fprintf(&out, "%s  compliant: %s  state: %s\n", p.in(bold, v.Namespace+"/"+v.Name), v.Compliant, v.State)
	if v.Message != "" {
		fmt.Fprintf(&out, "%s\n", printable(v.Message))
	}
	if v.Quarantine != nil {
		fmt.Fprintf(&out, "cut off since %s, with %d pods", v.Quarantine.Since.UTC().Format("2006-01-02T15:04:05Z"), len(v.Quarantine.Pods))
		if v.Reason != "" {
			fmt.Fprintf(&out, ": %s", printable(v.Reason))
		}
		out.WriteString("\n")
	}
	if v.Compliance != nil {
		fmt.Fprintf(&out, "%d passed, %d failed, %d unknown, %d exempted\n", v.Compliance.Passed, v.Compliance.Failed, v.Compliance.Unknown, v.Compliance.Exempted)
		for _, c := range v.Compliance.Controls {
			if c.Result != v1alpha1.ControlPass {
				fmt.Fprintf(&out, "%s  %s  %-8s  %s\n", c.ID, p.in(colours[c.Result], fmt.Sprintf("%-8s", c.Result)), c.Severity, printable(c.Message))
			}
		}
	}
	_, err := fmt.Fprint(streams.Out, out.String())
	return err
}
