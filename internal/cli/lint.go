package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// formats are the ways in which lint writes what it found.
var formats = map[string]func(io.Writer, *lintVerdict) error{
	"text":  writeText,
	"json":  writeJSON,
	"yaml":  writeYAML,
	"sarif": writeSARIF,
}

// inputFlags are those of the commands that read manifests.
type inputFlags struct {
	files     []string
	namespace string
}

func (f *inputFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.files, "filename", "f", nil, "file, folder, or - for standard input, with MCPServers; can be repeated (required)")
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "default", "namespace of the objects that name none")
	_ = cmd.MarkFlagRequired("filename") // fails for a flag that there is not
	_ = cmd.MarkFlagFilename("filename", "yaml", "yml", "json")
}

func newLint(streams Streams) *cobra.Command {
	var in inputFlags
	var policies []string
	var format string
	var workloads bool
	cmd := &cobra.Command{
		Use:   "lint -f FILE... [--policy FILE]",
		Short: "Judge manifests, without a cluster",
		Long: `Judge manifests, without a cluster.

Every MCPServer and MCPPolicy is checked as the API server would, and every MCPServer is judged by the controls that
its spec and the policies decide. Other kinds are skipped, but for Namespaces, whose labels say which policies select
them, and Services. What only a live cluster can tell is Unknown, and never a pass.

With --workloads every Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob and Pod is judged, too, by the controls that
apply to any pod, and by the NetworkPolicies and Namespaces of the same input. Where one differs on purpose, its annotation
lint.mcpwarden.io/exempt-POD-07: "reason" says so; the output shows both. Nothing of an MCPServer is exempted that way.

It fails (exit code 1) for an object that is not valid, and for a control that fails and is of severity Critical or High
or demanded by a policy: those that turn the condition PolicyCompliant. Others that fail are warnings.`,
		Example: `  # A folder, by the policies of another
  kubectl warden lint -f deploy/ --policy policies/

  # The Deployments beside the servers, too
  kubectl warden lint -f deploy/ --workloads

  # What kustomize or Helm write
  kubectl kustomize overlays/prod | kubectl warden lint -f -
  helm template ./chart | kubectl warden lint -f - -o sarif > warden.sarif`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, ok := formats[format]
			if !ok {
				return fmt.Errorf("--output %s: must be one of json, sarif, text, yaml", format)
			}
			if slices.Contains(in.files, "-") && slices.Contains(policies, "-") {
				return fmt.Errorf("standard input (-) can be read once: name a file for --filename or for --policy")
			}
			docs, err := readAll(append(slices.Clone(in.files), policies...), streams.In)
			if err != nil {
				return err
			}
			found, err := sortOut(cmd.Context(), docs, in.namespace, workloads)
			if err != nil {
				return err
			}
			verdict := found.judge(time.Now())
			if err := write(streams.Out, &verdict); err != nil {
				return err
			}
			if verdict.fails() {
				return errViolations
			}
			return nil
		},
	}
	in.add(cmd)
	cmd.Flags().StringArrayVar(&policies, "policy", nil, "file, folder, or - for standard input, with MCPPolicies; can be repeated")
	cmd.Flags().BoolVar(&workloads, "workloads", false, "judge Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Pods, too")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "json, sarif, text or yaml")
	_ = cmd.MarkFlagFilename("policy", "yaml", "yml", "json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"json", "sarif", "text", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// writeText writes a line for everything that is wrong, as compilers do, and one for each server and workload.
func writeText(out io.Writer, v *lintVerdict) error {
	p := painterFor(out)
	var b strings.Builder
	for _, i := range v.Invalid {
		fmt.Fprintf(&b, "%s: %s: %s: %s\n", i.place, p.in(red, "invalid"), i.Object, withField(i.Field, i.Message))
	}
	for _, j := range v.all() {
		writeJudged(&b, p, &j)
	}
	for _, note := range v.Notes {
		fmt.Fprintf(&b, "Note: %s.\n", note)
	}
	if len(v.all()) == 0 && len(v.Invalid) == 0 {
		b.WriteString("No MCPServer was found.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func writeJudged(b *strings.Builder, p paint, s *judged) {
	count := map[v1alpha1.ControlResult]int{}
	for _, r := range s.Results {
		count[r.Result]++
		level := p.in(yellow, "warning")
		switch {
		case r.Result == v1alpha1.ControlExempted:
			level = "exempted"
		case r.Result != v1alpha1.ControlFail:
			continue
		case r.Counts:
			level = p.in(red, "error")
		}
		for _, f := range r.Findings {
			fmt.Fprintf(b, "%s: %s: %s (%s) %s%s\n", f.place, level, r.ID, r.Severity, f.text(), r.excuse())
		}
	}
	fmt.Fprintf(b, "%s %d passed, %d failed, %d exempted, %d take a cluster to tell\n", p.in(bold, cmp.Or(s.Kind, "MCPServer")+" "+s.Namespace+"/"+s.Name+":"),
		count[v1alpha1.ControlPass], count[v1alpha1.ControlFail], count[v1alpha1.ControlExempted], count[v1alpha1.ControlUnknown])
}

// excuse is the reason that a workload gives.
func (r *controlResult) excuse() string {
	if r.Reason == "" {
		return ""
	}
	return " [exempted: " + printable(r.Reason) + "]"
}

// text of a finding names the policy and the field.
func (f *finding) text() string {
	out := withField(f.Field, f.Message)
	if f.Policy != "" {
		out = "policy " + f.Policy + ": " + out
	}
	return out
}

func withField(field, message string) string {
	if field == "" {
		return message
	}
	return field + ": " + message
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

func writeJSON(out io.Writer, v *lintVerdict) error { return encodeJSON(out, v) }

func encodeJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func writeYAML(out io.Writer, v *lintVerdict) error {
	raw, err := sigsyaml.Marshal(v)
	if err != nil {
		return err
	}
	_, err = out.Write(raw)
	return err
}
