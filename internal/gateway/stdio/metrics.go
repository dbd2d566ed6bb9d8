package stdio

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	starts     prometheus.Counter
	ends       *prometheus.CounterVec
	unreadable prometheus.Counter
	dropped    prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, b *Backend) *metrics {
	const prefix = "mcp_warden_gateway_"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
	}
	live := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + name, Help: help}, func() float64 { return float64(value()) })
	}
	m := &metrics{
		starts:     counter("process_starts_total", "Processes of the server that were started."),
		ends:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "process_ends_total", Help: "Processes of the server that ended, by cause."}, []string{"cause"}),
		unreadable: counter("unreadable_lines_total", "Lines on a server's stdout that are not messages of MCP."),
		dropped:    counter("dropped_messages_total", "Messages of a server that belong to no client."),
	}
	registry.MustRegister(m.starts, m.ends, m.unreadable, m.dropped,
		live("processes", "Processes of the server that run.", func() int { return b.spawner.count() }),
		live("sessions", "Sessions that are open.", b.count))
	return m
}
