package controllers

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	build "github.com/mcpwarden/mcp-warden/internal/version"
)

// NewBuildInfo returns mcp_warden_build_info, which is always 1: its labels say what runs.
func NewBuildInfo() prometheus.Collector {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "mcp_warden_build_info",
		Help: "Always 1; the labels say which version of MCP Warden runs, and which Go built it.",
	}, []string{"version", "goversion"})
	info.WithLabelValues(build.Version, runtime.Version()).Set(1)
	return info
}
