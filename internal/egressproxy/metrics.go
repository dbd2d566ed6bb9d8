package egressproxy

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a proxy. No label grows with servers, hosts or pods.
type metrics struct {
	decisions   *prometheus.CounterVec
	ends        *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	connect     prometheus.Histogram
	listLoads   *prometheus.CounterVec
	listCurrent prometheus.Gauge
	listServers prometheus.Gauge
}

func newMetrics(registry prometheus.Registerer, p *Proxy) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "mcp_warden_egress_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "mcp_warden_egress_" + name, Help: help})
	}
	live := func(name, help string, value func() int) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "mcp_warden_egress_" + name, Help: help}, func() float64 { return float64(value()) })
	}
	m := &metrics{
		decisions: counter("decisions_total", "Requests that were decided, by decision and reason.", "decision", "reason"),
		ends:      counter("ends_total", "Allowed connections that ended, by cause.", "cause"),
		bytes:     counter("bytes_total", "Bytes that passed, up to the hosts and down from them.", "direction"),
		connect: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "mcp_warden_egress_connect_seconds", Help: "Time to look a host up and to connect to it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		listLoads:   counter("access_list_loads_total", "Access lists that were read, by result.", "result"),
		listCurrent: gauge("access_list_current", "1 where the access list in force is the one in the file."),
		listServers: gauge("access_list_servers", "Servers in the access list in force."),
	}
	registry.MustRegister(m.decisions, m.ends, m.bytes, m.connect, m.listLoads, m.listCurrent, m.listServers,
		live("tunnels", "Connections to hosts that are open or being opened.", p.flows.count),
		live("pending_connections", "Connections from servers that have not shown yet what they want.", p.pending.count))
	return m
}
