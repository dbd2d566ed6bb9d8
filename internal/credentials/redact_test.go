package credentials

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

func server(spec *v1alpha1.MCPServerSpec) *v1alpha1.MCPServer {
	out := &v1alpha1.MCPServer{Spec: *spec}
	out.Name, out.Namespace = "github", "agents"
	return out
}

func TestRedact(t *testing.T) {
	const planted = `q7"w\x<&>` + "\n" + `tail-of-the-value`
	quoted, _ := json.Marshal(planted)
	for _, tc := range []struct {
		name, message string
		spec          *v1alpha1.MCPServerSpec
		want          string
	}{
		{"a refused value", `Deployment.apps "github" is invalid: spec.env[0].value: Invalid value: "hunter2hunter2": too bad`, env("A", "hunter2hunter2"),
			`Deployment.apps "github" is invalid: spec.env[0].value: Invalid value: "[redacted]": too bad`},
		{"as Go quotes it", "Invalid value: " + strconv.Quote(planted) + ": no", env("A", planted), `Invalid value: "[redacted]": no`},
		{"as JSON quotes it", "Invalid value: " + string(quoted) + ": no", env("A", planted), `Invalid value: "[redacted]": no`},
		{"cut off", "policy: A is hunter2hun...", env("A", "hunter2hunter2"), "policy: A is [redacted]..."},
		{"a part from the middle", "policy: ends in er2hunter2", env("A", "hunter2hunter2"), "policy: ends in [redacted]"},
		{"the value of a flag", "policy: refuses hunter2", args("--password=hunter2"), "policy: refuses [redacted]"},
		{"a value that is assigned in an argument", "policy: refuses hunter2.", args("PASSWORD=hunter2"), "policy: refuses [redacted]."},
		{"the password of a URL", "policy: refuses hunter2", env("A", "postgres://app:hunter2@db"), "policy: refuses [redacted]"},
		{"twice", "hunter2 is not hunter2", env("A", "hunter2"), "[redacted] is not [redacted]"},
		{"a short value in quotes", `value "abc" of abc`, env("A", "abc"), `value "[redacted]" of abc`},
		{"a short value in a word", "in the information of info", env("A", "info"), "in the information of [redacted]"},
		{"an argument", "exec: \"--serve-it-all\": stat --serve-it-all: no such file", args("--serve-it-all"), "exec: \"[redacted]\": stat [redacted]: no such file"},
		{"the program", `exec: "/usr/bin/server": no such file`, &v1alpha1.MCPServerSpec{Command: []string{"/usr/bin/server", "--all"}}, `exec: "/usr/bin/server": no such file`},
		{"a program that is a credential", "exec: --password=hunter2hunter2", &v1alpha1.MCPServerSpec{Command: []string{"--password=hunter2hunter2"}}, "exec: --password=[redacted]"},
		{"the name of a variable", "spec.env[GITHUB_TOKEN]: is missing", args("--token=$(GITHUB_TOKEN)"), "spec.env[GITHUB_TOKEN]: is missing"},
		{"the server's own name", `Deployment "github" in "agents"`, args("github", "agents"), `Deployment "github" in "agents"`},
		{"nothing of the spec", "the API server is away", env("A", "hunter2"), "the API server is away"},
		{"no message", "", env("A", "hunter2"), ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Redact(server(tc.spec), tc.message); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("hunter2hunter2", "refused: ", ": too bad")
	f.Add("a\"b\\c\x00d<e>", "x", "y")
	f.Add("ääääääää", "ä", "ä")
	f.Fuzz(func(t *testing.T, value, before, after string) {
		if len(value) < fragment || strings.Contains(value, "$(") || !utf8.ValidString(value) || value == "github" || strings.Contains(redacted, value) {
			t.Skip("a shorter one, and a reference, may stay")
		}
		marshalled, _ := json.Marshal(value)
		for _, quoted := range []string{value, strconv.Quote(value), string(marshalled), fmt.Sprintf("%#v", value)} {
			message := before + quoted + after
			got := Redact(server(env("A", value)), message)
			if strings.Contains(got, value) && !strings.Contains(before+redacted+after, value) {
				t.Errorf("%q is still in %q", value, got)
			}
			if !utf8.ValidString(got) {
				t.Errorf("%q is not valid UTF-8", got)
			}
		}
	})
}

func BenchmarkRedact(b *testing.B) {
	s := server(hostile())
	message := strings.Repeat(`spec.template.spec.containers[0].env[3].value: Invalid value: "x": must be something else; `, 50)
	for b.Loop() {
		Redact(s, message)
	}
}
