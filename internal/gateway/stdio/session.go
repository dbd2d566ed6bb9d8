package stdio

import (
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// maxAsked bounds the requests of a server that its client has not answered yet.
const maxAsked = 1024

// session is one client's, with a process of its own.
type session struct {
	backend *Backend
	id      string
	child   *child
	buffer  *buffer
	alone   *stream // of what belongs to no request

	// Under the backend's lock.
	used time.Time
	open int // exchanges

	mu      sync.Mutex
	last    int                // number of the newest stream
	pending map[string]*stream // by the key of the request's id
	tokens  map[string]*stream // by that of the progress token
	newest  *stream            // of those that are pending
	asked   map[string]bool    // keys of the ids of requests of the server's
	version string             // of the protocol; empty until it is known
	ended   bool
}

// close ends a session: what waits for an answer gets an error.
func (s *session) close() {
	s.fail()
	s.buffer.close()
	s.child.stop()
}

// end is called when the process has ended.
func (s *session) end() {
	s.backend.mu.Lock()
	delete(s.backend.sessions, s.id)
	s.backend.mu.Unlock()
	s.fail()
	s.buffer.close()
}

// fail answers what is pending with an error.
func (s *session) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for id, stream := range s.pending {
		if !stream.offer(gateway.AppendError(nil, []byte(id), gone()), true) {
			stream.end()
		}
	}
	clear(s.pending)
	clear(s.tokens)
}

// handle routes what the process says.
func (s *session) handle(m *message.Message) {
	if to := s.route(m); to != nil {
		to.add(m.Raw, m.Kind == message.Response)
		return
	}
	s.backend.metrics.dropped.Inc()
}

// route tells to which stream a message belongs; nil where to none.
func (s *session) route(m *message.Message) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m.Kind {
	case message.Response:
		to := s.pending[message.Key(m.ID)]
		s.settle(message.Key(m.ID), to)
		return to
	case message.Request:
		if len(s.asked) >= maxAsked {
			return nil
		}
		s.asked[message.Key(m.ID)] = true
	case message.Notification:
		switch m.Method {
		case "notifications/progress":
			return s.tokens[message.Key(m.Params.ProgressToken)]
		case "notifications/cancelled": // the server has given up what it asked
			delete(s.asked, message.Key(m.Params.RequestID))
		}
		if m.Method == "notifications/resources/updated" || strings.HasSuffix(m.Method, "/list_changed") {
			return s.alone // of no request
		}
	}
	// The protocol does not say on stdio what request this is about.
	switch {
	case len(s.pending) == 0, len(s.pending) > 1 && s.alone.owned():
		return s.alone
	default:
		return s.newest
	}
}

// settle takes out a request that was answered.
func (s *session) settle(id string, of *stream) {
	delete(s.pending, id)
	for token, stream := range s.tokens {
		if stream == of {
			delete(s.tokens, token)
		}
	}
	if s.newest == of {
		s.newest = nil
		for _, stream := range s.pending {
			if s.newest == nil || stream.number > s.newest.number {
				s.newest = stream
			}
		}
	}
}

// request sends a request to the process, and its answer to the client.
func (s *session) request(x *gateway.Exchange, reply *gateway.Reply) *gateway.Refusal {
	m := x.Message
	stream, refusal := s.register(m)
	if refusal != nil {
		return refusal
	}
	owner, _ := stream.take(-1)
	defer stream.leave(owner)
	if err := s.child.send(m.Raw); err != nil {
		s.forget(m, stream)
		return gone()
	}
	limits := s.backend.limits
	how := relay{ids: true, prime: s.atLeast("2025-11-25"), single: limits.StreamAfter, status: func([]byte) int { return http.StatusOK }}
	if m.Method == "initialize" {
		how.whole, how.single = true, limits.AnswerTime
	}
	err := how.send(x.Request.Context(), stream, owner, reply, limits.AnswerTime)
	switch {
	case err == nil && reply.Began():
		if reply.Header().Get("Content-Type") == "application/json" {
			stream.drop() // no id was told by which it could be resumed
		}
		return nil
	case err == nil: // the session was closed
		return gone()
	}
	refusal = fromRelay(x.Request.Context(), err)
	if refusal.Reason != gateway.ClientGone || !reply.Began() {
		s.forget(m, stream)
	}
	// Otherwise a client that goes has not cancelled: it may come back for the answer.
	return refusal
}

func (s *session) register(m *message.Message) (*stream, *gateway.Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := message.Key(m.ID)
	switch {
	case s.ended:
		return nil, &gateway.Refusal{Status: http.StatusNotFound, Code: message.CodeInvalidRequest, Reason: gateway.BadSession, Text: "There is no such session, or no longer"}
	case m.Method == "initialize" && s.last > 0:
		return nil, &gateway.Refusal{Status: http.StatusBadRequest, Code: message.CodeInvalidRequest, Reason: gateway.BadSession, Text: "The session is initialized already"}
	case s.pending[id] != nil:
		return nil, &gateway.Refusal{Status: http.StatusBadRequest, Code: message.CodeInvalidRequest, Reason: gateway.DuplicateRequest, Text: "A request with this id is open already"}
	case len(s.pending) >= s.backend.limits.InFlight:
		return nil, &gateway.Refusal{Status: http.StatusServiceUnavailable, Code: gateway.CodeInternal, Reason: gateway.Busy, Text: "Too many requests are open in this session", Retry: time.Second}
	}
	s.last++
	stream := s.buffer.open(s.last)
	s.pending[id], s.newest = stream, stream
	if token := m.Params.Meta.ProgressToken; token != nil {
		s.tokens[message.Key(token)] = stream
	}
	return stream, nil
}

// forget takes out a request whose answer nobody can get any more.
func (s *session) forget(m *message.Message, stream *stream) {
	s.mu.Lock()
	if s.pending[message.Key(m.ID)] == stream {
		s.settle(message.Key(m.ID), stream)
	}
	s.mu.Unlock()
	stream.end()
	stream.drop()
}

// atLeast tells whether the session speaks a revision of the protocol, or a later one.
func (s *session) atLeast(version string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version >= version
}

// speaks notes the revision that the client says; empty where it says none.
func (s *session) speaks(version string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version != "" {
		s.version = version
	}
}

// tell sends a notification or a response to the process.
func (s *session) tell(x *gateway.Exchange, reply *gateway.Reply) *gateway.Refusal {
	m := x.Message
	s.mu.Lock()
	if m.Kind == message.Response {
		if !s.asked[message.Key(m.ID)] {
			s.mu.Unlock()
			return &gateway.Refusal{Status: http.StatusBadRequest, Code: message.CodeInvalidRequest, Reason: gateway.BadMessage, Text: "The server has not asked this"}
		}
		delete(s.asked, message.Key(m.ID))
	}
	s.mu.Unlock()
	if err := s.child.send(m.Raw); err != nil {
		return gone()
	}
	if m.Method == "notifications/cancelled" && m.Params.RequestID != nil {
		s.cancel(message.Key(m.Params.RequestID))
	}
	reply.Empty(http.StatusAccepted)
	return nil
}

// cancel answers a request that its client has given up: the server will not.
func (s *session) cancel(id string) {
	s.mu.Lock()
	stream := s.pending[id]
	if stream != nil {
		s.settle(id, stream)
	}
	s.mu.Unlock()
	if stream != nil && !stream.offer(gateway.AppendError(nil, []byte(id), &gateway.Refusal{Code: gateway.CodeInternal, Text: "The request was cancelled"}), true) {
		stream.end()
	}
}

// listen sends a client what belongs to no request, or what it has missed of a stream.
func (s *session) listen(x *gateway.Exchange, reply *gateway.Reply) *gateway.Refusal {
	stream, from := s.alone, -1
	if id := x.Headers.LastEventID; id != "" {
		number, event, ok := parseEventID(id)
		if ok {
			stream, from = s.buffer.find(number), event+1
		}
		if !ok || stream == nil {
			return nothingToResume()
		}
	}
	owner, ok := stream.take(from)
	if !ok {
		return nothingToResume()
	}
	defer stream.leave(owner)
	err := relay{ids: true, single: -1}.send(x.Request.Context(), stream, owner, reply, 0)
	if err != nil && !reply.Began() {
		return fromRelay(x.Request.Context(), err)
	}
	return nil
}

func nothingToResume() *gateway.Refusal {
	return &gateway.Refusal{Status: http.StatusBadRequest, Code: message.CodeInvalidRequest, Reason: gateway.NothingToResume, Text: "What comes after the event that Last-Event-ID names is not held"}
}

func (s *stream) owned() bool {
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	return s.owner >= 0
}

// find returns a stream that is still held; nil where there is none.
func (b *buffer) find(number int) *stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.streams {
		if s.number == number {
			return s
		}
	}
	return nil
}
