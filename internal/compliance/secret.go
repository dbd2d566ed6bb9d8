package compliance

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/owners"
	"github.com/mcpwarden/mcp-warden/internal/plan"
	"github.com/mcpwarden/mcp-warden/internal/rotation"
)

// secretControls are about the values that a server gets.
var secretControls = []Control{
	{
		ID: "SEC-01", Title: "No credential is spelt out in env, args or command", Severity: v1alpha1.SeverityHigh, Reads: "spec.env; spec.args; spec.command", Enforced: true,
		Rationale:  "A literal credential is known to whoever may read MCPServers, Deployments, pods, or the repository that they come from.",
		Remedy:     "Put it into a Secret, name that by env[].valueFrom.secretKeyRef or secretFiles, and replace what stood there at its issuer.",
		Fix:        "Put it into a Secret, name that by env[].valueFrom.secretKeyRef, and replace what stood there at its issuer.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T5", "CIS Kubernetes 5.4.1", "NSA/CISA: secrets"},
		declared:   noLiteralCredential,
		workload:   noLiteralInTemplate,
		saysFix:    true,
	},
	{
		ID: "SEC-02", Title: "The variables are ones that policy approves", Severity: v1alpha1.SeverityMedium, Reads: "spec.env; policies", Enforced: true,
		Rationale:  "A variable that nobody approved may switch a server's protections off, or hand it a credential it must not have.",
		Remedy:     "Take the variable out of spec.env, or have its name added to secrets.allowedEnvNames.",
		References: []string{"OWASP MCP02:2025", "OWASP MCP10:2025", "CoSAI MCP-T9"},
		declared:   variablesApproved,
	},
	{
		ID: "SEC-03", Title: "No value is older than the server or policy allows", Severity: v1alpha1.SeverityMedium, Reads: "spec.rotation.maxAge; policies; the ages of the Secrets' values",
		Rationale:  "A credential that leaked works until it is replaced.",
		Remedy:     "Renew the value at its issuer and write the new one to the Secret.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T1", "CoSAI MCP-T5"},
		declared: func(in *Input) Outcome {
			bounds := maxAges(in)
			return Outcome{
				NotApplicable: !hasSecrets(in.Server) || len(bounds) == 0 && in.PoliciesUnknown == "", Unknown: in.PoliciesUnknown,
				Demanded: in.PoliciesUnknown != "" || slices.ContainsFunc(bounds, func(b bound) bool { return b.policy != "" }),
			}
		},
		live: youngEnough,
	},
	{
		ID: "SEC-04", Title: "No value is past the end of its validity, as far as its issuer says", Severity: v1alpha1.SeverityHigh, Reads: "the Secrets' certificates, and their Certificates",
		Rationale:  "What has expired is refused, or, worse, is accepted by a peer that does not check.",
		Remedy:     "Renew it at its issuer and write the new value to the Secret.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T1", "CoSAI MCP-T7"},
		declared:   needsSecrets,
		live: func(in *Input, live *Live) Outcome {
			return aged(in, live, func(out *Outcome, sources []rotation.Dated) {
				for i := range sources {
					sources[i].Changed = in.Now
				}
				verdict, _ := rotation.Age(sources, 0, in.Now)
				out.addVerdict("", verdict)
			})
		},
	},
	{
		ID: "SEC-05", Title: "The pods have the values that the Secrets hold now", Severity: v1alpha1.SeverityMedium, Reads: "condition SecretsCurrent",
		Rationale:  "A credential that was replaced because it leaked goes on being used, and stops working when it is revoked.",
		Remedy:     "See condition SecretsCurrent for what keeps the values from being rolled out.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T5"},
		declared:   needsSecrets,
		live:       secretsDeployed,
	},
	{
		ID: "SEC-06", Title: "The snapshots of the values are untouched", Severity: v1alpha1.SeverityHigh, Reads: "condition SecretsCurrent; drift",
		Rationale:  "Who may write a snapshot decides which credentials and addresses the server works with.",
		Remedy:     "See who may write Secrets in the namespace; the operator makes lost snapshots again from their sources.",
		References: []string{"OWASP MCP01:2025", "CoSAI MCP-T6", "CIS Kubernetes 5.1.2"},
		declared:   needsSecrets,
		live:       snapshotsUntouched,
	},
	{
		ID: "SEC-07", Title: "No value is used outside of the namespaces of its policy", Severity: v1alpha1.SeverityHigh, Reads: "policies; keyed digests of the values of all servers",
		Rationale:  "A credential that production shares with a test environment is only as safe as the test environment.",
		Remedy:     "Have the issuer make a credential for each environment, and write them to their Secrets.",
		References: []string{"OWASP MCP01:2025", "OWASP MCP10:2025", "CoSAI MCP-T1", "CIS Kubernetes 5.7.1"},
		declared: func(in *Input) Outcome {
			if !hasSecrets(in.Server) {
				return Outcome{NotApplicable: true}
			}
			return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) { return nil, KeepsApart(p) })
		},
		live: noTwins,
	},
	{
		ID: "SEC-08", Title: "The pods take values from nothing but the server's own snapshots", Severity: v1alpha1.SeverityHigh, Reads: "live pods",
		Rationale:  "A pod can be given any Secret of its namespace: what another application was trusted with ends in an MCP server.",
		Remedy:     remedyPod,
		References: []string{"OWASP MCP01:2025", "OWASP MCP10:2025", "CoSAI MCP-T9", "CIS Kubernetes 5.1.2"},
		live:       onlyOwnSecrets,
	},
}

func noLiteralCredential(in *Input) Outcome {
	var out Outcome
	if in.Literals == nil {
		out.unsure("nobody looked for credentials in env, args and command")
		return out
	}
	for _, f := range in.Literals.Findings {
		out.blame(f.Field, "holds a credential (%s, rule %s): put it into a Secret and replace it at its issuer", f.Description, f.Rule)
	}
	if in.Literals.More > 0 {
		out.fail("%d more fields hold credentials", in.Literals.More)
	}
	if len(in.Literals.Unchecked) > 0 {
		out.unsure("too large to be looked at with every rule: %s; move large values to a ConfigMap", strings.Join(in.Literals.Unchecked, ", "))
	}
	return out
}

func variablesApproved(in *Input) Outcome {
	return eachPolicy(in, func(p *v1alpha1.MCPPolicySpec) ([]Violation, bool) {
		if p.Secrets == nil || len(p.Secrets.AllowedEnvNames) == 0 {
			return nil, false
		}
		var out Outcome
		for i := range in.Server.Spec.Env {
			name := in.Server.Spec.Env[i].Name
			if !slices.ContainsFunc(p.Secrets.AllowedEnvNames, func(pattern v1alpha1.EnvNamePattern) bool {
				prefix, begins := strings.CutSuffix(string(pattern), "*")
				return name == string(pattern) || begins && strings.HasPrefix(name, prefix)
			}) {
				out.blame("spec.env["+name+"]", "is not among secrets.allowedEnvNames: take it out, or have it added")
			}
		}
		return out.Violations, true
	})
}

func hasSecrets(server *v1alpha1.MCPServer) bool { return len(plan.SecretsOf(&server.Spec)) > 0 }

func needsSecrets(in *Input) Outcome { return Outcome{NotApplicable: !hasSecrets(in.Server)} }

// bound is an age that somebody allows.
type bound struct {
	// policy that does; empty for the server itself.
	policy string
	maxAge time.Duration
}

// maxAges are the ages that the server and its policies allow: each must hold, so that the shortest counts.
func maxAges(in *Input) []bound {
	var out []bound
	add := func(policy string, age *metav1.Duration) {
		if age != nil && age.Duration > 0 {
			out = append(out, bound{policy, age.Duration})
		}
	}
	if in.Server.Spec.Rotation != nil {
		add("", in.Server.Spec.Rotation.MaxAge)
	}
	for i := range in.Policies {
		if s := in.Policies[i].Spec.Secrets; s != nil {
			add(in.Policies[i].Name, s.MaxAge)
		}
	}
	return out
}

func youngEnough(in *Input, live *Live) Outcome {
	return aged(in, live, func(out *Outcome, sources []rotation.Dated) {
		for i := range sources {
			sources[i].Expires = time.Time{}
		}
		for _, b := range maxAges(in) {
			verdict, _ := rotation.Age(sources, b.maxAge, in.Now)
			out.addVerdict(b.policy, verdict)
		}
	})
}

// aged judges the keys that the spec names. One of which nothing is known is one that nobody can judge.
func aged(in *Input, live *Live, judge func(*Outcome, []rotation.Dated)) Outcome {
	var out Outcome
	if live.Secrets.Status == "" {
		out.unsure("the Secrets could not be looked at")
		return out
	}
	sources := dated(live)
	for _, name := range namedKeys(in.Server) {
		if !slices.ContainsFunc(sources, func(d rotation.Dated) bool { return d.Secret+"/"+d.Key == name }) {
			out.unsure("nothing is known of the value of %s", name)
		}
	}
	judge(&out, sources)
	return out
}

func dated(live *Live) []rotation.Dated {
	out := make([]rotation.Dated, len(live.Secrets.Sources))
	for i := range live.Secrets.Sources {
		s := &live.Secrets.Sources[i]
		out[i] = rotation.Dated{Secret: s.Name, Key: s.Key, Expires: owners.Expires(s)}
		if s.ChangedTime != nil {
			out[i].Changed = s.ChangedTime.Time
		}
	}
	return out
}

// namedKeys are the keys that a spec names, as Secret/key.
func namedKeys(server *v1alpha1.MCPServer) []string {
	var out []string
	for _, ref := range plan.ReferencesOf(&server.Spec) {
		out = append(out, ref.Secret+"/"+ref.Key)
	}
	files := plan.FileKeysOf(&server.Spec)
	for _, secret := range slices.Sorted(maps.Keys(files)) {
		for _, key := range files[secret] {
			out = append(out, secret+"/"+key)
		}
	}
	return out
}

func (o *Outcome) addVerdict(policy string, v rotation.Verdict) {
	switch message := strings.TrimSuffix(v.Message, "."); v.Status {
	case metav1.ConditionTrue:
	case metav1.ConditionFalse:
		o.Violations = append(o.Violations, Violation{Policy: policy, Message: message})
	default:
		o.unsure("%s", message)
	}
}

// nextAge is when a value becomes too old, or ends to be valid; zero for never.
func nextAge(in *Input) time.Time {
	if in.Live == nil || in.Live.Secrets.Status == "" {
		return time.Time{}
	}
	var next time.Time
	for _, b := range append(maxAges(in), bound{}) { // the last for the end of validity alone
		if _, after := rotation.Age(dated(in.Live), b.maxAge, in.Now); after > 0 && (next.IsZero() || in.Now.Add(after).Before(next)) {
			next = in.Now.Add(after)
		}
	}
	return next
}

// secretsDeployed goes by the reason of SecretsCurrent, which is that of the worst it found. Where that is about age,
// the digests tell.
func secretsDeployed(in *Input, live *Live) Outcome {
	var out Outcome
	message := strings.TrimSuffix(live.Secrets.Message, ".")
	switch s := live.Secrets; s.Reason {
	case v1alpha1.ReasonCurrent, v1alpha1.ReasonNoSecrets:
	case v1alpha1.ReasonRotating, v1alpha1.ReasonRotationPending, v1alpha1.ReasonRotationQueued, v1alpha1.ReasonSourceUnreadable:
		out.unsure("%s", orElse(message, s.Reason))
	case v1alpha1.ReasonTooOld, v1alpha1.ReasonExpired:
		if s.Desired != s.Deployed || s.Desired == "" && len(plan.ReferencesOf(&in.Server.Spec)) > 0 {
			out.unsure("whether the newest values are rolled out is not known: %s", message)
		}
	case "":
		out.unsure("the Secrets could not be looked at")
	default:
		out.fail("%s", orElse(message, s.Reason))
	}
	return out
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func snapshotsUntouched(in *Input, live *Live) Outcome {
	out := noDrift(in, live, func(kind string) bool { return kind == "Secret" })
	switch live.Secrets.Reason {
	case "":
		out.unsure("the Secrets could not be looked at")
	case v1alpha1.ReasonSnapshotLost:
		out.fail("%s", orElse(strings.TrimSuffix(live.Secrets.Message, "."), "the snapshot in use is gone"))
	}
	return out
}

// KeepsApart tells whether a policy wants values to be used in its own namespaces alone.
func KeepsApart(p *v1alpha1.MCPPolicySpec) bool {
	return p.Secrets != nil && p.Secrets.Sharing == v1alpha1.SharingSelectedNamespaces
}

func noTwins(in *Input, live *Live) Outcome {
	var out Outcome
	if live.Twins.Unknown != "" {
		out.unsure("it cannot be told who else gets the same values: %s", live.Twins.Unknown)
		return out
	}
	for i := range in.Policies {
		if !KeepsApart(&in.Policies[i].Spec) {
			continue
		}
		for _, twin := range live.Twins.Value {
			if !slices.Contains(twin.Policies, in.Policies[i].Name) {
				out.Violations = append(out.Violations, Violation{Policy: in.Policies[i].Name, Message: fmt.Sprintf(
					"the value of %s is that of %s of MCPServer %s/%s, whose namespace the policy does not select: have a credential made for each", twin.Ours, twin.Theirs, twin.Namespace, twin.Name)})
			}
		}
	}
	return out
}

// ownSecret ends the names of the Secrets that the operator makes for a server.
var ownSecret = regexp.MustCompile(`^-(env|file)-[0-9a-f]{16}$`)

func isOwnSecret(server *v1alpha1.MCPServer, name string) bool {
	rest, ok := strings.CutPrefix(name, server.Name)
	return ok && ownSecret.MatchString(rest) || name == plan.CredentialName(server.Name)
}

func onlyOwnSecrets(in *Input, live *Live) Outcome {
	return eachPod(in, live, func(out *Outcome, pod *corev1.Pod) {
		for _, c := range containersOf(pod) {
			for _, env := range c.Env {
				if from := env.ValueFrom; from != nil && from.SecretKeyRef != nil && !isOwnSecret(in.Server, from.SecretKeyRef.Name) {
					out.fail("pod %s, %s: variable %s is from Secret %s, which is not the server's: %s", pod.Name, &c, env.Name, from.SecretKeyRef.Name, replacePod)
				}
			}
			for _, from := range c.EnvFrom {
				if from.SecretRef != nil {
					out.fail("pod %s, %s: it is given all of Secret %s: %s", pod.Name, &c, from.SecretRef.Name, replacePod)
				}
			}
		}
		for _, v := range pod.Spec.Volumes {
			for _, name := range secretsOfVolume(&v) {
				if !isOwnSecret(in.Server, name) {
					out.fail("pod %s: volume %s is of Secret %s, which is not the server's: %s", pod.Name, v.Name, name, replacePod)
				}
			}
		}
	})
}

func secretsOfVolume(v *corev1.Volume) []string {
	var out []string
	if v.Secret != nil {
		out = append(out, v.Secret.SecretName)
	}
	if v.Projected != nil {
		for _, s := range v.Projected.Sources {
			if s.Secret != nil {
				out = append(out, s.Secret.Name)
			}
		}
	}
	return out
}
