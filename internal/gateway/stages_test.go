package gateway

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

func exchange(t *testing.T, body string, headers ...string) *Exchange {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "http://github.agents.svc/mcp", strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	x := &Exchange{ID: "x", Request: r, Client: netip.MustParseAddr("10.0.0.7"), Received: len(body), Status: 200}
	var err error
	if x.Headers, err = decodeHeaders(r.Header); err != nil {
		t.Fatal(err)
	}
	if x.Message, err = message.Parse([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if x.Version = x.Headers.Version; x.Version == "" && x.Message.Params.Meta.ProtocolVersion != nil {
		x.Version, _ = message.Text(x.Message.Params.Meta.ProtocolVersion)
	}
	return x
}

func TestAgreement(t *testing.T) {
	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}`
	const call = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fetch",` + meta + `}}`
	const old = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fetch"}}`
	for name, test := range map[string]struct {
		body    string
		headers []string
		refused string // empty: it passes
	}{
		"agrees":            {call, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "fetch"}, ""},
		"agrees, encoded":   {call, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "=?base64?ZmV0Y2g=?="}, ""},
		"no version":        {call, []string{"Mcp-Method", "tools/call", "Mcp-Name", "fetch"}, "Version"},
		"older version":     {call, []string{"MCP-Protocol-Version", "2025-11-25", "Mcp-Method", "tools/call", "Mcp-Name", "fetch"}, "Version"},
		"newer version":     {call, []string{"MCP-Protocol-Version", "2027-01-01", "Mcp-Method", "tools/call", "Mcp-Name", "fetch"}, "Version"},
		"no method":         {call, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Name", "fetch"}, "Mcp-Method is missing"},
		"other method":      {call, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/list", "Mcp-Name", "fetch"}, "Mcp-Method is not"},
		"no name":           {call, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call"}, "Mcp-Name is missing"},
		"other name":        {call, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "Fetch"}, "Mcp-Name is not"},
		"a name in no body": {`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{` + meta + `}}`, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", ""}, "Mcp-Name is not"},
		"uri":               {`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///a","name":"b",` + meta + `}}`, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "resources/read", "Mcp-Name", "b"}, "Mcp-Name is not"},
		"name of its own":   {`{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"7",` + meta + `}}`, []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tasks/get", "Mcp-Name", "7"}, ""},
		"old, without":      {old, []string{"MCP-Protocol-Version", "2025-11-25"}, ""},
		"old, nothing":      {old, nil, ""},
		"old, lies":         {old, []string{"MCP-Protocol-Version", "2025-06-18", "Mcp-Method", "tools/list"}, "Mcp-Method is not"},
		"old, name lies":    {old, []string{"Mcp-Name", "other"}, "Mcp-Name is not"},
		"notification":      {`{"jsonrpc":"2.0","method":"notifications/x"}`, []string{"MCP-Protocol-Version", "2026-07-28"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			refusal := agreementStage{}.Request(exchange(t, test.body, test.headers...))
			switch {
			case test.refused == "" && refusal != nil:
				t.Errorf("refused: %+v", refusal)
			case test.refused != "" && (refusal == nil || refusal.Status != http.StatusBadRequest || refusal.Code != -32020 || !strings.Contains(refusal.Text, test.refused)):
				t.Errorf("got %+v, want a refusal that says %q", refusal, test.refused)
			}
		})
	}
}

func TestHost(t *testing.T) {
	stage := newHostStage([]string{"github.agents.svc", "GitHub.Example.com."})
	for name, test := range map[string]struct {
		host    string
		origins []string
		want    Reason
	}{
		"service":                    {host: "github.agents.svc:8080"},
		"other case, final dot":      {host: "GITHUB.agents.svc.:8080"},
		"address":                    {host: "10.1.2.3:8080"},
		"address of six":             {host: "[fd00::1]:8080"},
		"localhost":                  {host: "localhost:9999"},
		"another name":               {host: "attacker.example", want: BadHost},
		"a name that looks like one": {host: "github.agents.svc.attacker.example", want: BadHost},
		"none":                       {host: "", want: BadHost},
		"own origin":                 {host: "github.example.com", origins: []string{"https://github.example.com"}},
		"allowed origin":             {host: "github.agents.svc", origins: []string{"https://github.example.com:444"}},
		"local page":                 {host: "localhost:8080", origins: []string{"http://127.0.0.1:6274"}},
		"local page, service":        {host: "github.agents.svc", origins: []string{"http://localhost:6274"}, want: BadOrigin},
		"page of an address":         {host: "github.agents.svc", origins: []string{"http://203.0.113.9"}, want: BadOrigin},
		"another site":               {host: "localhost:8080", origins: []string{"http://attacker.example"}, want: BadOrigin},
		"null":                       {host: "localhost:8080", origins: []string{"null"}, want: BadOrigin},
		"no web page":                {host: "localhost:8080", origins: []string{"file://localhost"}, want: BadOrigin},
		"two":                        {host: "localhost:8080", origins: []string{"http://localhost:8080", "http://attacker.example"}, want: BadOrigin},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/mcp", nil)
			r.Host, r.Header["Origin"] = test.host, test.origins
			refusal := stage.Request(&Exchange{Request: r})
			if got := reason(refusal); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if refusal != nil && refusal.Status != http.StatusForbidden {
				t.Errorf("status %d", refusal.Status)
			}
		})
	}
}

func reason(f *Refusal) Reason {
	if f == nil {
		return ""
	}
	return f.Reason
}

func TestTrace(t *testing.T) {
	const id = "0af7651916cd43dd8448eb211c80319c"
	const body = `{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"traceparent":"00-` + id + `-00f067aa0ba902b7-01"}}}`
	for name, test := range map[string]struct{ header, body, want string }{
		"header":         {"00-" + id + "-00f067aa0ba902b7-01", `{"jsonrpc":"2.0","id":1,"method":"m"}`, id},
		"body":           {"", body, id},
		"header first":   {"00-1" + id[1:] + "-00f067aa0ba902b7-01", body, "1" + id[1:]},
		"no trace":       {"", `{"jsonrpc":"2.0","id":1,"method":"m"}`, ""},
		"zeroes":         {"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", `{"jsonrpc":"2.0","id":1,"method":"m"}`, ""},
		"upper case":     {"00-" + strings.ToUpper(id) + "-00f067aa0ba902b7-01", `{"jsonrpc":"2.0","id":1,"method":"m"}`, ""},
		"more than four": {"00-" + id + "-00f067aa0ba902b7-01-x", `{"jsonrpc":"2.0","id":1,"method":"m"}`, ""},
		"later version":  {"01-" + id + "-00f067aa0ba902b7-01-x", `{"jsonrpc":"2.0","id":1,"method":"m"}`, id},
		"a log line":     {"00-\n", `{"jsonrpc":"2.0","id":1,"method":"m"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var headers []string
			if test.header != "" {
				headers = []string{"Traceparent", test.header}
			}
			x := exchange(t, test.body, headers...)
			if (traceStage{}).Request(x); x.TraceID != test.want {
				t.Errorf("got %q, want %q", x.TraceID, test.want)
			}
		})
	}
}

// The audit line says who asked for what and what became of it; of parameters, sessions and credentials in addresses it
// says nothing.
func TestAudit(t *testing.T) {
	var out bytes.Buffer
	stage := newAuditStage(slog.New(slog.NewJSONHandler(&out, nil)))
	line := func(x *Exchange) map[string]any {
		t.Helper()
		out.Reset()
		stage.Done(x)
		if strings.Contains(out.String(), "hunter2") {
			t.Errorf("a secret is in the log: %s", out.String())
		}
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
			t.Fatalf("not one line of JSON: %v: %s", err, out.String())
		}
		return got
	}
	x := exchange(t, `{"jsonrpc":"2.0","id":"seven","method":"tools/call","params":{"name":"log\nin","arguments":{"password":"hunter2"}}}`,
		"Mcp-Session-Id", "hunter2", "MCP-Protocol-Version", "2025-11-25", "Authorization", "Bearer hunter2")
	x.Duration, x.Sent, x.ErrorCode = 1500*time.Microsecond, 42, -32601
	got := line(x)
	for key, want := range map[string]any{
		"decision": "Allowed", "client.address": "10.0.0.7", "mcp.method.name": "tools/call", "gen_ai.tool.name": "log\ufffdin",
		"mcp.protocol.version": "2025-11-25", "jsonrpc.request.id": "seven", "rpc.response.status_code": -32601.0, "error.type": "rpc_error",
		"bytesIn": float64(x.Received), "bytesOut": 42.0, "seconds": 0.0015, "exchange": "x",
	} {
		if got[key] != want {
			t.Errorf("%s is %v, want %v", key, got[key], want)
		}
	}
	again := line(exchange(t, `{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"log\nin","arguments":{"password":"hunter2"}}}`))
	other := line(exchange(t, `{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"log\nin","arguments":{"password":"hunter3"}}}`))
	if got["params"] == nil || got["params"] != again["params"] || got["params"] == other["params"] {
		t.Errorf("digests of params: %v, %v, %v", got["params"], again["params"], other["params"])
	}
	for uri, want := range map[string]string{
		"postgres://me:hunter2@db/t?password=hunter2#hunter2": "postgres://db/t", "file:///a/b": "file:///a/b", "mailto:hunter2": "mailto:...", "%zz://hunter2": "unreadable",
	} {
		x := exchange(t, `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"`+uri+`"}}`)
		if got := line(x)["mcp.resource.uri"]; got != want {
			t.Errorf("%s became %v, want %s", uri, got, want)
		}
	}
	x = exchange(t, `{"jsonrpc":"2.0","id":1,"method":"ping"}`)
	x.Refused, x.Status = &Refusal{Reason: BadHost, Text: "No"}, 403
	if got := line(x); got["decision"] != "Refused" || got["reason"] != "BadHost" || got["level"] != "WARN" {
		t.Errorf("a refusal: %v", got)
	}
}

func TestMetricsDoNotGrow(t *testing.T) {
	stage := newMetricsStage(prometheus.NewRegistry(), &Gateway{})
	for i := range 100 {
		x := exchange(t, `{"jsonrpc":"2.0","id":1,"method":"x/`+strings.Repeat("y", i)+`"}`)
		x.ErrorCode = -i
		stage.Done(x)
	}
	if got := testutil.CollectAndCount(stage.duration); got != 2 { // with an error and without
		t.Errorf("%d series", got)
	}
}
