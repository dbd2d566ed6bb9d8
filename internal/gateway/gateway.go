// Package gateway is the data plane in a server's pod: an HTTP endpoint that speaks MCP, between the clients and one server.
//
// A request is decoded, goes through the stages, is forwarded, and what comes back goes through the same stages and is encoded:
//
//	decode -> stages -> forward (Backend) -> stages -> encode (Reply)
//
// Bytes pass unchanged. What the gateway owns is what the protocol makes it own: hop-by-hop headers, Host and Origin, which it
// checks and the server behind it does not see, and, in front of a server on stdio (package stdio), the sessions and the event
// streams. In front of a server that speaks HTTP (package upstream) these are the server's.
//
// # What the operator has to know
//
// The binary is cmd/gateway; `gateway -help` lists every flag with its meaning and default. With -transport=http (the default) it
// is a sidecar: the server listens at -upstream, on loopback, and clients come in by -listen only. With -transport=stdio it is the
// container's command, and the server's command follows "--":
//
//	/mcp-warden/gateway -transport=stdio -listen=:8080 -allowed-hosts=github,github.agents,github.agents.svc -- /server stdio
//
// The server inherits the environment but for the gateway's own, MCP_WARDEN_GATEWAY_*, of which there is none so far. It runs with the
// user and the group of the gateway, and needs no shell. The gateway needs no right in the API server, no writable path, and no capability.
//
// The admin port (-admin-listen, :8081) serves /healthz (the gateway's own liveness), /readyz (a real MCP handshake has
// succeeded, not long ago), /metrics, and /inventory (what tools the server has, as JSON: see package inventory). It
// is for the kubelet and the operator, and no NetworkPolicy should let clients there. Termination takes up to -drain, and in front of stdio up to
// two -stop-grace more: terminationGracePeriodSeconds must be above the sum, which by default is 20 seconds.
//
// -tls-cert and -tls-key name files as a Secret mounted has them; they are read again when they change.
package gateway

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Limits bound what clients and the server can make the gateway hold. Each must be positive.
type Limits struct {
	// MessageBytes bounds one message, both ways, and BufferedBytes all that are held at once.
	MessageBytes  int
	BufferedBytes int64
	// Requests bounds the POSTs that are open at once, and Streams the GETs.
	Requests, Streams int
	// Connections bounds the connections from clients, and HeaderBytes the head of a request.
	Connections, HeaderBytes int
	// ReadTime bounds how long a client may take to send a head, and a body; WriteTime how long to take what was written to it.
	ReadTime, WriteTime time.Duration
	// AnswerTime bounds how long a server may take until it answers, or begins to stream.
	AnswerTime time.Duration
}

// DefaultLimits keep the gateway within some 128 MiB.
func DefaultLimits() Limits {
	return Limits{
		MessageBytes: 4 << 20, BufferedBytes: 64 << 20,
		Requests: 2048, Streams: 2048, Connections: 8192, HeaderBytes: 32 << 10,
		ReadTime: 20 * time.Second, WriteTime: 20 * time.Second, AnswerTime: 10 * time.Minute,
	}
}

// Validate tells which limit is not positive.
func (l *Limits) Validate() error {
	for name, value := range map[string]int64{
		"MessageBytes": int64(l.MessageBytes), "BufferedBytes": l.BufferedBytes, "Requests": int64(l.Requests), "Streams": int64(l.Streams),
		"Connections": int64(l.Connections), "HeaderBytes": int64(l.HeaderBytes),
		"ReadTime": int64(l.ReadTime), "WriteTime": int64(l.WriteTime), "AnswerTime": int64(l.AnswerTime),
	} {
		if value <= 0 {
			return fmt.Errorf("limit %s: must be positive", name)
		}
	}
	return nil
}

// Config of a gateway. All is required but AllowedHosts.
type Config struct {
	// Path of the MCP endpoint, such as /mcp. Nothing else is served.
	Path string
	// AllowedHosts are the names that clients may call the gateway by, beside localhost and IP addresses.
	AllowedHosts []string
	Limits       Limits
	Backend      Backend
	// Log gets the audit lines.
	Log *slog.Logger
	// Registry gets the metrics.
	Registry prometheus.Registerer
}

// Gateway is the HTTP handler of the MCP endpoint.
type Gateway struct {
	path    string
	limits  Limits
	backend Backend
	stages  []Stage
	now     func() time.Time

	budget   budget
	requests atomic.Int64
	streams  atomic.Int64
	stopping atomic.Bool
}

// New makes a gateway.
func New(config Config) (*Gateway, error) {
	if err := config.Limits.Validate(); err != nil {
		return nil, err
	}
	if len(config.Path) == 0 || config.Path[0] != '/' {
		return nil, fmt.Errorf("path: must begin with a slash")
	}
	g := &Gateway{path: config.Path, limits: config.Limits, backend: config.Backend, now: time.Now}
	g.budget.max = config.Limits.BufferedBytes
	// Those that only look come first: they see the rest refuse.
	g.stages = []Stage{traceStage{}, newAuditStage(config.Log), newMetricsStage(config.Registry, g), newHostStage(config.AllowedHosts), agreementStage{}}
	return g, nil
}

// Stop refuses what comes from now on.
func (g *Gateway) Stop() { g.stopping.Store(true) }

// ServeHTTP serves one exchange.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &Exchange{ID: rand.Text(), Request: r, Client: clientAddr(r), began: g.now()}
	reply := newReply(g, x, w)
	defer func() {
		reply.release()
		x.Duration = g.now().Sub(x.began)
		for _, stage := range g.stages {
			stage.Done(x)
		}
	}()
	open, limit := &g.requests, g.limits.Requests
	if r.Method == http.MethodGet {
		open, limit = &g.streams, g.limits.Streams
	}
	defer open.Add(-1)
	if open.Add(1) > int64(limit) {
		reply.Refuse(&Refusal{Status: http.StatusServiceUnavailable, Code: CodeInternal, Reason: Busy, Text: "Too many requests are open", Retry: time.Second})
		return
	}
	if refusal := g.look(x, reply); refusal != nil {
		reply.Refuse(refusal)
		return
	}
	g.backend.Serve(x, reply)
}

// look decodes what came in, and shows it to the stages.
func (g *Gateway) look(x *Exchange, reply *Reply) *Refusal {
	if g.stopping.Load() {
		return &Refusal{Status: http.StatusServiceUnavailable, Code: CodeInternal, Reason: Stopping, Text: "The gateway is stopping", Retry: time.Second}
	}
	if refusal := g.decode(x, reply); refusal != nil {
		return refusal
	}
	for _, stage := range g.stages {
		if refusal := stage.Request(x); refusal != nil {
			return refusal
		}
	}
	return nil
}

func clientAddr(r *http.Request) netip.Addr {
	addr, _ := netip.ParseAddrPort(r.RemoteAddr)
	return addr.Addr().Unmap()
}

// budget is how many bytes may be held. It never waits: what does not fit is refused.
type budget struct {
	max  int64
	held atomic.Int64
}

func (b *budget) take(n int) bool {
	if b.held.Add(int64(n)) > b.max {
		b.held.Add(-int64(n))
		return false
	}
	return true
}

func (b *budget) give(n int) { b.held.Add(-int64(n)) }
