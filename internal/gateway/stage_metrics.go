package gateway

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
)

// methods that are a label's value as they are; all others are "other", so that no client can make metrics grow.
var methods = func() map[string]bool {
	known := map[string]bool{}
	for _, method := range []string{
		"initialize", "server/discover", "ping", "tools/list", "tools/call", "resources/list", "resources/templates/list", "resources/read",
		"resources/subscribe", "resources/unsubscribe", "prompts/list", "prompts/get", "completion/complete", "logging/setLevel",
		"subscriptions/listen", "notifications/initialized", "notifications/cancelled", "notifications/progress",
		"notifications/roots/list_changed",
	} {
		known[method] = true
	}
	return known
}()

// metricsStage counts. Labels are named as OpenTelemetry's conventions name the attributes.
type metricsStage struct {
	Pass
	duration *prometheus.HistogramVec
	refusals *prometheus.CounterVec
	bytes    *prometheus.CounterVec
}

func newMetricsStage(registry prometheus.Registerer, g *Gateway) *metricsStage {
	const prefix = "mcp_warden_gateway_"
	s := &metricsStage{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "operation_duration_seconds", Help: "Time from a request to the end of its answer, by method and kind of failure.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300},
		}, []string{"mcp_method_name", "error_type"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "refusals_total", Help: "Requests that the gateway answered in the server's stead, by reason.",
		}, []string{"reason"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "bytes_total", Help: "Bytes of messages, in from the clients and out to them.",
		}, []string{"direction"}),
	}
	live := func(name, help string, value func() int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + name, Help: help}, func() float64 { return float64(value()) })
	}
	registry.MustRegister(s.duration, s.refusals, s.bytes,
		live("open_requests", "POSTs and DELETEs that are open.", g.requests.Load),
		live("open_streams", "GETs that are open.", g.streams.Load),
		live("buffered_bytes", "Bytes of messages that are held.", g.budget.held.Load))
	return s
}

// Done counts the exchange.
func (s *metricsStage) Done(x *Exchange) {
	method := "other"
	switch {
	case x.Message != nil && methods[x.Message.Method]:
		method = x.Message.Method
	case x.Message == nil && (x.Request.Method == http.MethodGet || x.Request.Method == http.MethodDelete):
		method = x.Request.Method
	}
	s.duration.WithLabelValues(method, errorType(x)).Observe(x.Duration.Seconds())
	if x.Refused != nil {
		s.refusals.WithLabelValues(string(x.Refused.Reason)).Inc()
	}
	s.bytes.WithLabelValues("in").Add(float64(x.Received))
	s.bytes.WithLabelValues("out").Add(float64(x.Sent))
}
