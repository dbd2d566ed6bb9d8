package controllers

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"

	build "github.com/mcpwarden/mcp-warden/internal/version"
)

// NewBuildInfo returns mcp_warden_build_info, which is always 1: its labels say what runs.
func NewBuildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "mcp_warden_build_info",
		Help:        "Always 1; the labels say which version of MCP Warden runs, and which Go built it.",
		ConstLabels: prometheus.Labels{"version": build.Version, "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}
