// Package stdio runs a server that speaks stdio, and serves it as Streamable HTTP.
//
// Where the protocol has sessions, each has a process of its own: what one client does to it no other can see. Where it has none (2026-07-28
// and later), all requests share a bounded pool of processes, by default of one: requests are told apart by ids that the gateway gives
// them towards the process, and takes away again on the way back; so are progress tokens and subscriptions. More
// than one process is right only for a server that keeps nothing in memory between two requests.
//
// Bytes pass unchanged but for these ids, for spaces around a message, which go, and for line ends between tokens, which become spaces,
// since on stdio a message is a line.
package stdio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// Limits bound what clients can make the gateway run and hold. Each must be positive.
type Limits struct {
	// Children bounds the server's processes, Pool those of them that serve requests without a session.
	Children, Pool int
	// InFlight bounds the requests that one process has not answered yet.
	InFlight int
	// MessageBytes bounds a message, and BufferBytes what is held for the client of one session or of one request without one; a single message may
	// be larger.
	MessageBytes, BufferBytes int
	// SessionIdle is how long a session may be unused until it is ended. Where no more processes may run, a new session takes the place of the
	// one that is unused the longest, if that is for longer than SessionRest.
	SessionIdle, SessionRest time.Duration
	// AnswerTime bounds how long a server may be silent on a request; WriteTime how long it may not read.
	AnswerTime, WriteTime time.Duration
	// StreamAfter is how long an answer may take until it becomes a stream.
	StreamAfter time.Duration
	// StopGrace is how long a process may take to end when its input has, and once more when a signal has asked it to.
	StopGrace time.Duration
}

// DefaultLimits go with a gateway's limits.
func DefaultLimits(g gateway.Limits) Limits {
	return Limits{
		Children: 64, Pool: 1, InFlight: 256, MessageBytes: g.MessageBytes, BufferBytes: 1 << 20,
		SessionIdle: 30 * time.Minute, SessionRest: time.Minute,
		AnswerTime: g.AnswerTime, WriteTime: g.WriteTime, StreamAfter: 3 * time.Second, StopGrace: 5 * time.Second,
	}
}

// Validate tells which limit is not positive.
func (l *Limits) Validate() error {
	for name, value := range map[string]int64{
		"Children": int64(l.Children), "Pool": int64(l.Pool), "InFlight": int64(l.InFlight), "MessageBytes": int64(l.MessageBytes),
		"BufferBytes": int64(l.BufferBytes), "SessionIdle": int64(l.SessionIdle), "SessionRest": int64(l.SessionRest),
		"AnswerTime": int64(l.AnswerTime), "WriteTime": int64(l.WriteTime), "StreamAfter": int64(l.StreamAfter), "StopGrace": int64(l.StopGrace),
	} {
		if value <= 0 {
			return fmt.Errorf("limit %s: must be positive", name)
		}
	}
	return nil
}

// Backend runs the server.
type Backend struct {
	limits  Limits
	spawner *spawner
	metrics *metrics
	pool    *pool
	now     func() time.Time
	stop    chan struct{}
	// onlyLegacy is known once a handshake has shown that the server speaks no revision without sessions.
	onlyLegacy atomic.Bool
	// params of each tool that clients repeat in headers, as the last handshake has shown them.
	params atomic.Pointer[map[string][]inventory.Param]

	mu       sync.Mutex
	sessions map[string]*session
	closed   bool
}

// New makes a backend that runs a command. Nothing is started before the first request.
func New(command []string, limits Limits, log *slog.Logger, registry prometheus.Registerer) (*Backend, error) {
	if err := limits.Validate(); err != nil {
		return nil, err
	}
	b := &Backend{limits: limits, now: time.Now, sessions: map[string]*session{}, stop: make(chan struct{})}
	b.metrics = newMetrics(registry, b)
	spawner, err := newSpawner(command, limits, log, b.metrics)
	if err != nil {
		return nil, err
	}
	b.spawner, b.pool = spawner, newPool(spawner, limits)
	go b.watch()
	return b, nil
}

// Close ends all sessions and all processes, and returns when they have ended.
func (b *Backend) Close() {
	b.mu.Lock()
	closed := b.closed
	b.closed = true
	all := b.sessions
	b.sessions = map[string]*session{}
	b.mu.Unlock()
	if !closed {
		close(b.stop)
	}
	for _, s := range all {
		s.close()
	}
	b.spawner.close()
}

// watch ends the sessions that nobody uses.
func (b *Backend) watch() {
	tick := time.NewTicker(min(b.limits.SessionIdle, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			b.expire(b.limits.SessionIdle, math.MaxInt)
		case <-b.stop:
			return
		}
	}
}

// expire ends at most n sessions that were not used for some time, the longest first, and returns them.
func (b *Backend) expire(unused time.Duration, n int) []*session {
	b.mu.Lock()
	var old []*session
	for _, s := range b.sessions {
		if s.open == 0 && b.now().Sub(s.used) > unused {
			old = append(old, s)
		}
	}
	slices.SortFunc(old, func(x, y *session) int { return x.used.Compare(y.used) })
	old = old[:min(n, len(old))]
	for _, s := range old {
		delete(b.sessions, s.id)
	}
	b.mu.Unlock()
	for _, s := range old {
		s.close()
	}
	return old
}

// Serve answers an exchange.
func (b *Backend) Serve(x *gateway.Exchange, reply *gateway.Reply) {
	if refusal := b.serve(x, reply); refusal != nil {
		reply.Refuse(refusal)
	}
}

func (b *Backend) serve(x *gateway.Exchange, reply *gateway.Reply) *gateway.Refusal {
	if refusal := checkAccept(x.Request); refusal != nil {
		return refusal
	}
	m := x.Message
	switch {
	case x.Modern() && (m == nil || m.Kind == message.Response):
		return &gateway.Refusal{Status: http.StatusMethodNotAllowed, Code: message.CodeInvalidRequest, Reason: gateway.BadMethod, Text: "This revision of the protocol has requests and notifications by POST only"}
	case x.Modern() && b.onlyLegacy.Load():
		return unsupported(`["2025-11-25","2025-06-18","2025-03-26"]`)
	case x.Modern():
		if refusal := b.checkModern(x); refusal != nil {
			return refusal
		}
		return b.stateless(x, reply)
	case !legacy[x.Headers.Version] && (m == nil || m.Method != "initialize"):
		return unsupported(`["2026-07-28","2025-11-25","2025-06-18","2025-03-26"]`)
	case x.Headers.Session != "":
		return b.inSession(x, reply)
	case m != nil && m.Kind == message.Request && m.Method == "initialize":
		return b.newSession(x, reply)
	}
	return &gateway.Refusal{Status: http.StatusBadRequest, Code: message.CodeInvalidRequest, Reason: gateway.BadSession, Text: "The header Mcp-Session-Id is missing"}
}

// legacy are the revisions with sessions. None is said by clients of those before there was a header for it, and by those that know that the
// server remembers.
var legacy = map[string]bool{"": true, "2025-03-26": true, "2025-06-18": true, "2025-11-25": true}

func unsupported(supported string) *gateway.Refusal {
	return &gateway.Refusal{
		Status: http.StatusBadRequest, Code: gateway.CodeUnsupportedVersion, Reason: gateway.BadVersion, Text: "Unsupported protocol version",
		Data: `{"supported":` + supported + `}`,
	}
}

// checkAccept tells whether a client takes what it may get.
func checkAccept(r *http.Request) *gateway.Refusal {
	want := []string{"text/event-stream"}
	switch r.Method {
	case http.MethodDelete:
		return nil
	case http.MethodPost:
		want = append(want, "application/json")
	}
	accept := strings.ToLower(strings.Join(r.Header["Accept"], ","))
	for _, media := range want {
		kind, _, _ := strings.Cut(media, "/")
		if accept != "" && !strings.Contains(accept, media) && !strings.Contains(accept, kind+"/*") && !strings.Contains(accept, "*/*") {
			return &gateway.Refusal{Status: http.StatusNotAcceptable, Code: message.CodeInvalidRequest, Reason: gateway.BadMediaType, Text: "The client must accept application/json and text/event-stream, or with GET the latter"}
		}
	}
	return nil
}

// newSession starts a process, and lets it answer to initialize.
func (b *Backend) newSession(x *gateway.Exchange, reply *gateway.Reply) *gateway.Refusal {
	s := &session{
		backend: b, id: rand.Text(), buffer: newBuffer(b.limits.BufferBytes), used: b.now(), open: 1,
		pending: map[string]*stream{}, tokens: map[string]*stream{}, asked: map[string]bool{},
	}
	s.alone = s.buffer.open(0)
	if err := b.start(x.Request.Context(), s); err != nil {
		return notStarted(err)
	}
	defer b.leave(s)
	reply.Header().Set("Mcp-Session-Id", s.id)
	refusal := s.request(x, reply)
	if refusal != nil || x.ErrorCode != 0 {
		b.remove(s)
	}
	return refusal
}

// start starts a session's process, in the place of an unused one's if need be.
func (b *Backend) start(ctx context.Context, s *session) (err error) {
	if s.child, err = b.spawner.start(s.handle, s.end); errors.Is(err, errTooMany) {
		for _, old := range b.expire(b.limits.SessionRest, 1) {
			select {
			case <-old.child.gone:
			case <-ctx.Done():
			}
			s.child, err = b.spawner.start(s.handle, s.end)
		}
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.sessions[s.id] = s
	}
	b.mu.Unlock()
	if closed {
		s.close()
		return errGone
	}
	return nil
}

func notStarted(err error) *gateway.Refusal {
	refusal := &gateway.Refusal{Status: http.StatusServiceUnavailable, Code: gateway.CodeInternal, Reason: gateway.ServerGone, Text: "The server cannot be started", Retry: 5 * time.Second}
	switch {
	case errors.Is(err, errTooMany):
		refusal.Reason, refusal.Text = gateway.Busy, "As many sessions are open as may be"
	case errors.Is(err, errCrashes):
		refusal.Text = "The server ends as soon as it is started"
	}
	return refusal
}

// inSession serves what belongs to a session.
func (b *Backend) inSession(x *gateway.Exchange, reply *gateway.Reply) *gateway.Refusal {
	b.mu.Lock()
	s := b.sessions[x.Headers.Session]
	if s != nil {
		s.open++
		s.used = b.now()
	}
	b.mu.Unlock()
	if s == nil {
		return &gateway.Refusal{Status: http.StatusNotFound, Code: message.CodeInvalidRequest, Reason: gateway.BadSession, Text: "There is no such session, or no longer"}
	}
	defer b.leave(s)
	s.speaks(x.Headers.Version)
	switch {
	case x.Request.Method == http.MethodDelete:
		b.remove(s)
		reply.Empty(http.StatusNoContent)
		return nil
	case x.Request.Method == http.MethodGet:
		return s.listen(x, reply)
	case x.Message.Kind == message.Request:
		return s.request(x, reply)
	default:
		return s.tell(x, reply)
	}
}

func (b *Backend) leave(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.open--
	s.used = b.now()
}

// remove ends a session.
func (b *Backend) remove(s *session) {
	b.mu.Lock()
	delete(b.sessions, s.id)
	b.mu.Unlock()
	s.close()
}

func (b *Backend) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions)
}

// fromRelay is what a client is told of an answer that was not sent to its end.
func fromRelay(ctx context.Context, err error) *gateway.Refusal {
	refusal := &gateway.Refusal{Status: http.StatusBadGateway, Code: gateway.CodeInternal, Reason: gateway.ClientGone, Text: "The client is gone"}
	switch {
	case errors.Is(err, gateway.ErrBadAnswer):
		refusal.Reason, refusal.Text = gateway.BadAnswer, "The server's answer is no message of MCP"
	case errors.Is(err, errSlow) && ctx.Err() == nil:
		refusal.Status, refusal.Reason, refusal.Text = http.StatusGatewayTimeout, gateway.ServerSlow, "The server did not answer in time"
	}
	return refusal
}

// gone is the answer to a request that a process took with it.
func gone() *gateway.Refusal {
	return &gateway.Refusal{Status: http.StatusBadGateway, Code: gateway.CodeInternal, Reason: gateway.ServerGone, Text: "The server ended before it answered"}
}
