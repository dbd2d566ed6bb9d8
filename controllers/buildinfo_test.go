package controllers_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/mcpwarden/mcp-warden/controllers"
	"github.com/mcpwarden/mcp-warden/internal/version"
)

func TestBuildInfo(t *testing.T) {
	version.Version = "v1.2.3"
	t.Cleanup(func() { version.Version = "dev" })
	want := `# HELP mcp_warden_build_info Always 1; the labels say which version of MCP Warden runs, and which Go built it.
# TYPE mcp_warden_build_info gauge
mcp_warden_build_info{goversion="` + runtime.Version() + `",version="v1.2.3"} 1
`
	if err := testutil.CollectAndCompare(controllers.NewBuildInfo(), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
