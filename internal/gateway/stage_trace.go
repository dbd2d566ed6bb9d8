package gateway

import (
	"strings"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// traceStage finds the trace that a client is in (W3C Trace Context), so that the audit log can name it. Headers and
// _meta pass on as they are: the gateway adds no span of its own.
type traceStage struct{ Pass }

// Request notes the trace.
func (traceStage) Request(x *Exchange) *Refusal {
	if values := x.Request.Header["Traceparent"]; len(values) == 1 {
		x.TraceID = traceID(values[0])
	}
	if x.TraceID == "" && x.Message != nil && x.Message.Params.Meta.Traceparent != nil {
		if text, err := message.Text(x.Message.Params.Meta.Traceparent); err == nil {
			x.TraceID = traceID(text)
		}
	}
	return nil
}

// traceID is the trace that a traceparent tells; empty where it is malformed.
func traceID(parent string) string {
	const version, trace, span, flags = 2, 32, 16, 2
	parts := strings.SplitN(parent, "-", 5)
	if len(parts) < 4 || len(parts[0]) != version || len(parts[1]) != trace || len(parts[2]) != span || len(parts[3]) != flags ||
		parts[0] == "ff" || (parts[0] == "00" && len(parts) > 4) {
		return ""
	}
	for _, part := range parts[:4] {
		if strings.Trim(part, "0123456789abcdef") != "" {
			return ""
		}
	}
	if strings.Trim(parts[1], "0") == "" || strings.Trim(parts[2], "0") == "" {
		return ""
	}
	return parts[1]
}
