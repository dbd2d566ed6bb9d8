package stdio

import (
	"net/http"
	"testing"

	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
)

func TestAgrees(t *testing.T) {
	param := inventory.Param{Path: []string{"where", "region"}, Header: "Region"}
	for name, test := range map[string]struct {
		arguments string
		header    []string
		want      bool
	}{
		"text":             {`{"where":{"region":"eu"}}`, []string{"eu"}, true},
		"text, encoded":    {`{"where":{"region":"\u00e9"}}`, []string{"=?base64?w6k=?="}, true},
		"other text":       {`{"where":{"region":"eu"}}`, []string{"us"}, false},
		"bad encoding":     {`{"where":{"region":"eu"}}`, []string{"=?base64?!?="}, false},
		"raw bytes":        {`{"where":{"region":"é"}}`, []string{"é"}, false},
		"two":              {`{"where":{"region":"eu"}}`, []string{"eu", "us"}, false},
		"missing":          {`{"where":{"region":"eu"}}`, nil, false},
		"number":           {`{"where":{"region":42}}`, []string{"42.0"}, true},
		"other number":     {`{"where":{"region":42}}`, []string{"43"}, false},
		"large, the same":  {`{"where":{"region":9007199254740993}}`, []string{"9007199254740993"}, true},
		"large, not quite": {`{"where":{"region":9007199254740993}}`, []string{"9007199254740992"}, false},
		"truth":            {`{"where":{"region":true}}`, []string{"true"}, true},
		"no truth":         {`{"where":{"region":true}}`, []string{"false"}, false},
		"null":             {`{"where":{"region":null}}`, nil, true},
		"null, a header":   {`{"where":{"region":null}}`, []string{"null"}, false},
		"none":             {`{}`, nil, true},
		"none, a header":   {`{"region":"eu"}`, []string{"eu"}, false},
		"no arguments":     {``, nil, true},
		"an object":        {`{"where":{"region":{}}}`, []string{"{}"}, false},
		"other case":       {`{"Where":{"region":"eu"}}`, []string{"eu"}, false},
	} {
		if got := agrees(http.Header{"Mcp-Param-Region": test.header}, param, []byte(test.arguments)); got != test.want && (test.header != nil) {
			t.Errorf("%s: %v", name, got)
		}
		if test.header == nil && agrees(http.Header{}, param, []byte(test.arguments)) != test.want {
			t.Errorf("%s: not %v", name, test.want)
		}
	}
}

// The server is not asked what a client says in one place only, or differently in two.
func TestModernIsChecked(t *testing.T) {
	f := start(t, "script", nil)
	f.backend.Found(&inventory.Inventory{Protocol: "2026-07-28", Tools: []inventory.Tool{{Name: "query", Params: []inventory.Param{{Path: []string{"region"}, Header: "Region"}}}}})
	call, headers := modern("1", "tools/call", `"name":"query","arguments":{"region":"eu"}`)
	headers = append(headers, "Mcp-Name", "query")
	for value, want := range map[string]int{"eu": http.StatusOK, "us": http.StatusBadRequest} {
		if status, body := f.post(t, "", call, append(headers, "Mcp-Param-Region", value)...); status != want {
			t.Errorf("%s: %d %s", value, status, body)
		}
	}
	if status, body := f.post(t, "", call, headers...); status != http.StatusBadRequest {
		t.Errorf("no header: %d %s", status, body)
	}
	if status, body := f.post(t, "", `{"jsonrpc":"2.0","id":1,"method":"x"}`, "MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "x"); status != http.StatusBadRequest {
		t.Errorf("no _meta: %d %s", status, body)
	}
}
