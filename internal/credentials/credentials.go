// Package credentials finds literal credentials in the environment, the arguments and the command of
// an MCPServer, and keeps literal values out of messages. It is pure. Values come in; only field
// paths and the names of rules go out: never a value, a part of one, its length or a hash.
//
// The rules are gitleaks' (package gitleaks) and a few of our own for what has no shape that gitleaks
// could know: a password in a URL, in a variable or setting that is named so, and an Authorization
// header. Where only a credential can stand, whatever stands there is one, "changeme" too: the server
// logs in with it. References such as $(NAME), and what stands for a value, such as <password>, are none.
package credentials

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/credentials/gitleaks"
)

const (
	// maxFindings is how many findings a report names one by one.
	maxFindings = 16
	// maxWork bounds what one spec may cost, in bytes that a rule looks at (see gitleaks.Find): about half
	// a second. The 256 KiB that env can hold pass with the keywords of eight rules in every variable.
	maxWork = 2 << 20
)

// Finding is a field that holds a literal credential.
type Finding struct {
	// Field of the spec, such as spec.env[TOKEN].value or spec.args[3].
	Field string
	// Rule that found it: the id of one of gitleaks', or of ours.
	Rule string
	// Description of what the rule finds, in a few words.
	Description string
}

// Report says what was found in a spec.
type Report struct {
	// Findings, one for a field, in the order of the spec; of many, the first.
	Findings []Finding
	// More is the number of fields with a credential that are not among the findings.
	More int
	// Unchecked are fields that were not looked at with every rule, because all of it would have taken
	// too long; of many, the first.
	Unchecked []string
}

// value is a literal of the spec with the name that the spec gives it, which may be empty.
type value struct {
	field, name, text string
}

// Find looks for literal credentials in a spec.
func Find(spec *v1alpha1.MCPServerSpec) *Report { return find(spec, maxWork) }

func find(spec *v1alpha1.MCPServerSpec, left int) *Report {
	report := &Report{}
	for _, v := range literals(spec) {
		finding, done := v.find(&left)
		switch {
		case finding == nil && !done && len(report.Unchecked) < maxFindings:
			report.Unchecked = append(report.Unchecked, v.field)
		case finding != nil && len(report.Findings) < maxFindings:
			report.Findings = append(report.Findings, *finding)
		case finding != nil:
			report.More++
		}
	}
	return report
}

// literals are the values that a spec spells out. The word that follows a flag has the flag for its name:
// --token abc says what --token=abc does.
func literals(spec *v1alpha1.MCPServerSpec) []value {
	var out []value
	for _, env := range spec.Env {
		if env.Value != nil && *env.Value != "" {
			out = append(out, value{fmt.Sprintf("spec.env[%s].value", env.Name), env.Name, *env.Value})
		}
	}
	flag := ""
	word := func(field, text string) {
		v := value{field: field, text: text}
		name, assigned, isAssignment := strings.Cut(text, "=")
		switch isFlag := strings.HasPrefix(text, "-") && !strings.ContainsAny(name, " \t\n"); {
		case isFlag && isAssignment:
			v.name, v.text, flag = name, assigned, ""
		case isFlag:
			flag = text
		default:
			v.name, flag = flag, ""
		}
		out = append(out, v)
	}
	for i, text := range spec.Command {
		word(fmt.Sprintf("spec.command[%d]", i), text)
	}
	for i, text := range spec.Args {
		word(fmt.Sprintf("spec.args[%d]", i), text)
	}
	return out
}

// find returns nil where nothing was found; then done says whether every rule looked.
func (v value) find(left *int) (finding *Finding, done bool) {
	found, done := gitleaks.Find(v.assignment(), left)
	found = slices.DeleteFunc(found, func(f gitleaks.Finding) bool { return isPublic(f.Rule) })
	if len(found) > 0 && found[0].Rule == genericRule && v.namesNoSecret() {
		found, done = gitleaks.Find(v.text, left) // it may be the name alone that made it look like one
	}
	if len(found) > 0 {
		return &Finding{v.field, found[0].Rule, found[0].Description}, true
	}
	for _, r := range ours {
		if r.holds(v) {
			return &Finding{v.field, r.id, r.description}, true
		}
	}
	return nil, done
}

// assignment is what rules look at: many know a credential by the name of what it is assigned to.
func (v value) assignment() string {
	if v.name == "" {
		return v.text
	}
	return v.name + "=" + v.text
}

// genericRule of gitleaks finds whatever is random enough and is assigned to something with "key",
// "token", "auth" or the like in its name.
const genericRule = "generic-api-key"

// namesNoSecret tells whether the last word of the name says that the value is none: KEY_VAULT_TENANT_ID,
// AUTH_ISSUER_URL, TOKENIZER_MODEL.
func (v value) namesNoSecret() bool {
	name := strings.ToLower(v.name)
	last := name[strings.LastIndexAny(name, "_.-")+1:]
	return slices.Contains(ordinaryWords, last)
}

var ordinaryWords = []string{
	"alias", "algorithm", "arn", "audience", "authority", "bucket", "class", "database", "db", "dir", "directory", "domain",
	"email", "encoding", "endpoint", "engine", "expiry", "file", "format", "header", "host", "hostname", "id", "ids", "issuer",
	"issuers", "limit", "location", "method", "mode", "model", "name", "namespace", "origin", "origins", "path", "prefix", "profile", "provider",
	"realm", "ref", "region", "resource", "role", "schema", "scope", "scopes", "server", "suffix", "table", "tenant", "timeout", "ttl",
	"type", "uri", "url", "urls", "user", "username", "vault", "version", "zone",
}

// isPublic tells rules that find what their services publish: identifiers, and the public half of a pair.
func isPublic(rule string) bool {
	for _, suffix := range []string{"-client-id", "-access-id", "-api-id", "-public-key", "-pub-key", "-pub-api-key"} {
		if strings.HasSuffix(rule, suffix) {
			return true
		}
	}
	return false
}
