package cli

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// maxReason is how many characters a reason may have.
const maxReason = 512

func newQuarantine(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine NAME --reason TEXT",
		Short: "Cut a server off from everything, and keep its pods as evidence",
		Long: `Cut a server off from everything, and keep its pods as evidence.

Its NetworkPolicies are closed both ways, nothing is rolled out, and no new pod can get its values. The reason is kept in the annotation
` + v1alpha1.AnnotationQuarantineReason + `. No policy stands in the way. kubectl warden release undoes it.`,
		Example: `  # Cut off the server github
  kubectl warden quarantine github -n agents --reason "calls to an unknown host, incident 4711"`,
	}
	e := editOf(cmd, streams)
	reason := ""
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever finds the server later (required)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		reason = strings.TrimSpace(printable(reason))
		if reason == "" {
			return errors.New("say why with --reason")
		}
		if n := utf8.RuneCountInString(reason); n > maxReason {
			return fmt.Errorf("--reason has %d characters, and may have %d", n, maxReason)
		}
		server, err := e.apply(cmd.Context(), args[0], func(*v1alpha1.MCPServer) (map[string]any, string, error) {
			patch := annotate(v1alpha1.AnnotationQuarantineReason, reason)
			patch["spec"] = map[string]any{"desiredState": v1alpha1.StateQuarantined}
			return patch, "is being cut off: see kubectl warden report " + args[0], nil
		})
		if err == nil {
			noteEngine(streams, server)
		}
		return err
	}
	return cmd
}

func newRelease(streams Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release NAME",
		Short: "Let a server out of quarantine",
		Long: `Let a server out of quarantine.

It runs as its spec says. A policy with action Enforce that the server violates refuses that: put the spec right first, in the same change.`,
		Example: `  # Let the server github run again
  kubectl warden release github -n agents`,
	}
	e := editOf(cmd, streams)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		server, err := e.apply(cmd.Context(), args[0], func(server *v1alpha1.MCPServer) (map[string]any, string, error) {
			if server.Spec.DesiredState != v1alpha1.StateQuarantined {
				return nil, "", errors.New("is not in quarantine")
			}
			patch := annotate(v1alpha1.AnnotationQuarantineReason, nil)
			patch["spec"] = map[string]any{"desiredState": v1alpha1.StateRunning}
			return patch, "is released", nil
		})
		if err == nil {
			noteEngine(streams, server)
		}
		return err
	}
	return cmd
}

// engines are those that write a server's spec from elsewhere, by what they leave on it.
var engines = map[string]string{
	"argocd.argoproj.io/tracking-id":   "Argo CD",
	"kustomize.toolkit.fluxcd.io/name": "Flux",
	"helm.toolkit.fluxcd.io/name":      "Flux",
}

// noteEngine warns where somebody else may set desiredState back.
func noteEngine(streams Streams, server *v1alpha1.MCPServer) {
	for key, engine := range engines {
		if _, annotated := server.Annotations[key]; annotated || server.Labels[key] != "" {
			fmt.Fprintf(streams.Err, "Note: %s manages this server and may set spec.desiredState back: change it at its source, too.\n", engine)
			return
		}
	}
}
