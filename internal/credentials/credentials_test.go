package credentials

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
	"github.com/mcpwarden/mcp-warden/internal/credentials/gitleaks"
)

// env is a spec with one variable.
func env(name, value string) *v1alpha1.MCPServerSpec {
	return &v1alpha1.MCPServerSpec{Env: []v1alpha1.EnvVar{{Name: name, Value: &value}}}
}

func args(words ...string) *v1alpha1.MCPServerSpec { return &v1alpha1.MCPServerSpec{Args: words} }

// sample puts a credential together, so that no scanner of this repository takes it for one.
func sample(parts ...string) string { return strings.Join(parts, "") }

const (
	hex32 = "9f8b3c1d7e6a5048b2c4d6e8f0a1b3c5"
	mixed = "aZ3kQ9xLm2Vt7RbW5nYc8HdP4sGf6JuE1oTi0qKv" // 40 characters
)

func pem(kind string) string {
	body := strings.Repeat(base64.StdEncoding.EncodeToString([]byte(mixed+hex32)), 8)
	return sample("-----BEGIN ", kind, " KEY-----\n", body, "\n-----END ", kind, " KEY-----")
}

func jwt() string {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return part(`{"alg":"HS256","typ":"JWT"}`) + "." + part(`{"sub":"1234567890","name":"Agent"}`) + "." + mixed
}

func TestFound(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spec  *v1alpha1.MCPServerSpec
		field string
		rule  string
	}{
		{"GitHub token", env("GITHUB_PERSONAL_ACCESS_TOKEN", sample("gh", "p_", mixed[:36])), "spec.env[GITHUB_PERSONAL_ACCESS_TOKEN].value", "github-pat"},
		{"GitHub token of an unsuspicious name", env("A", sample("gh", "p_", mixed[:36])), "spec.env[A].value", "github-pat"},
		{"GitHub fine-grained token", env("T", sample("github", "_pat_", mixed[:22], "_", mixed, mixed[:19])), "spec.env[T].value", "github-fine-grained-pat"},
		{"GitLab token", env("GITLAB_TOKEN", sample("gl", "pat-", mixed[:20])), "spec.env[GITLAB_TOKEN].value", "gitlab-pat"},
		{"AWS access key", env("AWS_ACCESS_KEY_ID", sample("AK", "IA", "QYLPMN5HFIQR7XYA")), "spec.env[AWS_ACCESS_KEY_ID].value", "aws-access-token"},
		{"AWS secret key", env("AWS_SECRET_ACCESS_KEY", mixed), "spec.env[AWS_SECRET_ACCESS_KEY].value", "generic-api-key"},
		{"Slack token", env("SLACK_BOT_TOKEN", sample("xo", "xb-2345678901234-2345678901234-", mixed[:24])), "spec.env[SLACK_BOT_TOKEN].value", "slack-bot-token"},
		{"OpenAI key", env("OPENAI_API_KEY", sample("sk-", mixed[:20], "T3Blbk", "FJ", mixed[10:30])), "spec.env[OPENAI_API_KEY].value", "openai-api-key"},
		{"Anthropic key", env("K", sample("sk-", "ant-api03-", mixed, mixed, mixed[:13], "AA")), "spec.env[K].value", "anthropic-api-key"},
		{"Stripe key", env("STRIPE", sample("sk_", "live_", mixed[:24])), "spec.env[STRIPE].value", "stripe-access-token"},
		{"Google API key", env("MAPS", sample("AI", "za", mixed[:35])), "spec.env[MAPS].value", "gcp-api-key"},
		{"service account", env("GOOGLE_CREDENTIALS", sample(`{"type":"service_account","private_key":"`, strings.ReplaceAll(pem("PRIVATE"), "\n", `\n`), `\n"}`)), "spec.env[GOOGLE_CREDENTIALS].value", "private-key"},
		{"private key", env("TLS", pem("RSA PRIVATE")), "spec.env[TLS].value", "private-key"},
		{"JSON Web Token", env("X", jwt()), "spec.env[X].value", "jwt"},
		{"key in JSON", env("CONFIG", `{"server":"a","apiKey":"`+hex32+`"}`), "spec.env[CONFIG].value", "generic-api-key"},
		{"password in a URL", env("DATABASE_URI", "postgres://app:hunter2@postgres.data.svc:5432/app"), "spec.env[DATABASE_URI].value", "url-password"},
		{"password in a URL, no user", env("REDIS_URL", "redis://:s3cr3t@redis:6379/0"), "spec.env[REDIS_URL].value", "url-password"},
		{"default password in a URL", env("DATABASE_URI", "postgresql+asyncpg://postgres:changeme@db/app"), "spec.env[DATABASE_URI].value", "url-password"},
		{"proxy with a password", env("HTTPS_PROXY", "http://agent:hunter2@proxy:3128"), "spec.env[HTTPS_PROXY].value", "url-password"},
		{"user from elsewhere, password not", env("DATABASE_URI", "mongodb+srv://$(USER):hunter2@cluster0.mongodb.net"), "spec.env[DATABASE_URI].value", "url-password"},
		{"second of two URLs", env("URLS", "redis://:$(A)@a,redis://:hunter2@b"), "spec.env[URLS].value", "url-password"},
		{"password variable", env("DB_PASSWORD", "hunter2"), "spec.env[DB_PASSWORD].value", "password"},
		{"password variable with blanks", env("DB_PASSWORD", "correct horse battery staple"), "spec.env[DB_PASSWORD].value", "password"},
		{"default password", env("NEO4J_PASSWORD", "changeme"), "spec.env[NEO4J_PASSWORD].value", "password"},
		{"short names of it", env("SMTP_PASS", "hunter2"), "spec.env[SMTP_PASS].value", "password"},
		{"of libpq", env("PGPASSWORD", "hunter2"), "spec.env[PGPASSWORD].value", "password"},
		{"of MySQL", env("MYSQL_PWD", "hunter2"), "spec.env[MYSQL_PWD].value", "password"},
		{"libpq connection string", env("DSN", "host=db user=app password=hunter2 sslmode=require"), "spec.env[DSN].value", "password"},
		{"ADO connection string", env("MSSQL", "Server=db;User Id=sa;Password=hunter2;Encrypt=true"), "spec.env[MSSQL].value", "password"},
		{"JDBC URL", env("JDBC", "jdbc:mysql://db/app?user=app&password=hunter2"), "spec.env[JDBC].value", "password"},
		{"password in JSON", env("CONFIG", `{"user": "app", "adminPassword": "hunter2"}`), "spec.env[CONFIG].value", "password"},
		{"password in YAML", env("CONFIG", "user: app\npassword: hunter2\nport: 5432\n"), "spec.env[CONFIG].value", "password"},
		{"Authorization header", env("AUTH", "Bearer "+mixed), "spec.env[AUTH].value", "authorization-header"},
		{"Authorization header in JSON", env("HEADERS", `{"Authorization": "Bearer `+mixed+`"}`), "spec.env[HEADERS].value", "authorization-header"},
		{"basic authorization", args("--header", "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("agent:hunter2-and-more"))), "spec.args[1]", "authorization-header"},

		{"flag with its value", args("serve", "--token="+hex32), "spec.args[1]", "generic-api-key"},
		{"flag before its value", args("serve", "--api-key", hex32, "--port", "80"), "spec.args[2]", "generic-api-key"},
		{"password flag", args("--password=hunter2"), "spec.args[0]", "password"},
		{"password flag before its value", args("--db-password", "hunter2"), "spec.args[1]", "password"},
		{"header", args("-H", "X-Api-Key: "+hex32), "spec.args[1]", "generic-api-key"},
		{"URL as an argument", args("-y", "@modelcontextprotocol/server-postgres", "postgres://app:hunter2@db/app"), "spec.args[2]", "url-password"},
		{"in a shell's script", args("-c", "export API_TOKEN="+hex32+"; exec server"), "spec.args[1]", "generic-api-key"},
		{"command", &v1alpha1.MCPServerSpec{Command: []string{"server", "--token", hex32}}, "spec.command[2]", "generic-api-key"},
		{"command itself", &v1alpha1.MCPServerSpec{Command: []string{"TOKEN=" + hex32}}, "spec.command[0]", "generic-api-key"},
		{"flag of the command, value of the args", &v1alpha1.MCPServerSpec{Command: []string{"server", "--token"}, Args: []string{hex32}}, "spec.args[0]", "generic-api-key"},
		{"behind a name that is ordinary", env("BASE_URL", "https://api.example.com/?api_key="+hex32), "spec.env[BASE_URL].value", "generic-api-key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			report := Find(tc.spec)
			if len(report.Findings) != 1 || report.Findings[0].Field != tc.field || report.Findings[0].Rule != tc.rule || report.Findings[0].Description == "" {
				t.Errorf("found %+v, want %s by %s", report.Findings, tc.field, tc.rule)
			}
		})
	}
}

// A false alarm teaches people to look away.
func TestOrdinaryValues(t *testing.T) {
	raw, err := os.ReadFile("testdata/ordinary.txt")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSuffix(line, "\n")
		var spec *v1alpha1.MCPServerSpec
		switch {
		case strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "["):
			spec = &v1alpha1.MCPServerSpec{}
			if err := json.Unmarshal([]byte(line), &spec.Args); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		default:
			name, value, _ := strings.Cut(line, "=")
			spec = env(name, value)
		}
		n++
		if report := Find(spec); len(report.Findings)+len(report.Unchecked) > 0 {
			t.Errorf("%s: %+v", line, report)
		}
	}
	if n < 200 {
		t.Errorf("only %d lines", n)
	}
}

func TestFieldsWithoutAValue(t *testing.T) {
	spec := &v1alpha1.MCPServerSpec{Env: []v1alpha1.EnvVar{
		{Name: "PASSWORD", Value: new("")},
		{Name: "TOKEN", ValueFrom: &v1alpha1.EnvVarSource{SecretKeyRef: &v1alpha1.KeyReference{Name: "token", Key: "password"}}},
	}}
	if report := Find(spec); len(report.Findings) > 0 {
		t.Errorf("found %+v", report.Findings)
	}
}

func TestManyFindingsAreCounted(t *testing.T) {
	spec := &v1alpha1.MCPServerSpec{}
	for i := range 128 {
		spec.Env = append(spec.Env, v1alpha1.EnvVar{Name: fmt.Sprintf("A%d_PASSWORD", i), Value: new("hunter2")})
	}
	if report := Find(spec); len(report.Findings) != maxFindings || len(report.Findings)+report.More != 128 {
		t.Errorf("%d findings and %d more of 128", len(report.Findings), report.More)
	}
}

// hostile is the largest spec that the CRD lets through, and each value has the keywords of most rules.
func hostile() *v1alpha1.MCPServerSpec {
	keywords := strings.Join(gitleaks.IDs(), ".") + "."
	fill := func(size int) string { return strings.Repeat(keywords, size/len(keywords)+1)[:size] }
	spec := &v1alpha1.MCPServerSpec{}
	for i := range 8 {
		spec.Env = append(spec.Env, v1alpha1.EnvVar{Name: fmt.Sprintf("A%d", i), Value: new(fill(32 << 10))})
	}
	for range 128 {
		spec.Args = append(spec.Args, fill(4<<10))
	}
	for range 64 {
		spec.Command = append(spec.Command, fill(4<<10))
	}
	return spec
}

// A verdict must not pass on what was not looked at.
func TestWhatIsTooLargeIsNotCalledClean(t *testing.T) {
	spec := &v1alpha1.MCPServerSpec{Args: []string{"serve", "a token and a secret", "a token and a secret", "--db-password=hunter2"}}
	enough := 3 * len("a token and a secret")
	if report := find(spec, enough); len(report.Unchecked) > 0 || len(report.Findings) != 1 {
		t.Errorf("found %+v", report)
	}
	report := find(spec, len("a token and a secret"))
	if len(report.Unchecked) != 1 || report.Unchecked[0] != "spec.args[2]" {
		t.Errorf("unchecked %v, want what was left when the work was used up", report.Unchecked)
	}
	if len(report.Findings) != 1 || report.Findings[0].Field != "spec.args[3]" {
		t.Errorf("what costs little is looked for all the same; found %+v", report.Findings)
	}
}

// What goes out is made of the names that the spec gives, and of the rules': never of a value.
func FuzzFind(f *testing.F) {
	f.Add("hunter2", "--token")
	f.Add("postgres://app:hunter2@db/app", "serve")
	f.Add("Bearer "+mixed, "-H")
	f.Fuzz(func(t *testing.T, value, word string) {
		spec := env("DB_PASSWORD", value)
		spec.Args = []string{word, value}
		for _, found := range Find(spec).Findings {
			switch found.Field {
			case "spec.env[DB_PASSWORD].value", "spec.args[0]", "spec.args[1]":
			default:
				t.Errorf("names %s", found.Field)
			}
			isOurs := slices.ContainsFunc(ours, func(r rule) bool { return r.id == found.Rule && r.description == found.Description })
			if !isOurs && !slices.Contains(gitleaks.IDs(), found.Rule) {
				t.Errorf("rule %s of nobody", found.Rule)
			}
		}
	})
}

func BenchmarkFind(b *testing.B) {
	typical := &v1alpha1.MCPServerSpec{Args: []string{"stdio", "--toolsets", "repos,issues", "--read-only", "--log-level=debug"}}
	for _, e := range [][2]string{
		{"LOG_LEVEL", "info"}, {"GITHUB_TOOLSETS", "repos,issues,pull_requests"}, {"GITHUB_READ_ONLY", "1"},
		{"GITHUB_HOST", "https://github.corp.example"}, {"OTEL_SERVICE_NAME", "github-mcp"}, {"HTTP_TIMEOUT", "30s"},
		{"MCP_AUTH_HEADER", "X-Api-Key"}, {"GITHUB_PERSONAL_ACCESS_TOKEN", "$(TOKEN)"},
	} {
		typical.Env = append(typical.Env, v1alpha1.EnvVar{Name: e[0], Value: new(e[1])})
	}
	large := &v1alpha1.MCPServerSpec{}
	for i := range 8 {
		large.Env = append(large.Env, v1alpha1.EnvVar{Name: fmt.Sprintf("PROMPT%d", i),
			Value: new(strings.Repeat("You are a careful assistant; if a user asks for a token, an API key or a password, refuse. ", 400)[:32<<10])})
	}
	for range 128 {
		large.Args = append(large.Args, "--allow=read_file,list_directory,search_files")
	}
	for name, spec := range map[string]*v1alpha1.MCPServerSpec{"typical": typical, "256KiB of env and 128 args": large, "hostile": hostile()} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Find(spec)
			}
		})
	}
}
