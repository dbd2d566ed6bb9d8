package stdio

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/sse"
)

// buffer holds what a server has said until clients have taken it, and for a while longer, so that a client whose connection broke can
// resume. Its bytes are bounded: beyond, what clients have taken goes, then what nobody is there to take, and then
// the server has to wait.
type buffer struct {
	max int

	mu      sync.Mutex
	bytes   int
	streams []*stream // the oldest first
	closed  bool
	room    chan struct{} // there may be some
}

// maxStreams bounds the streams that are kept for clients to resume.
const maxStreams = 64

// stream is what a server has said to one request, or, as number 0, to none. Its fields are under the buffer's lock.
type stream struct {
	buffer *buffer
	number int
	first  int      // number of events[0]
	events [][]byte // messages
	sent   int      // up to here a client has taken them
	done   bool     // nothing more comes
	lone   bool     // the answer was all there ever was
	owner  int      // who sends it to a client; it changes when another takes over, and is negative when nobody does
	owners int
	wake   chan struct{} // something has changed
}

func newBuffer(max int) *buffer { return &buffer{max: max, room: make(chan struct{}, 1)} }

func (b *buffer) open(number int) *stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &stream{buffer: b, number: number, first: 1, sent: 1, owner: -1, wake: make(chan struct{}, 1)}
	b.streams = append(b.streams, s)
	for i := 0; len(b.streams) > maxStreams && i < len(b.streams); {
		if old := b.streams[i]; old.done && old.owner < 0 {
			b.forget(old)
		} else {
			i++
		}
	}
	return s
}

// drop forgets a stream: nobody can resume it.
func (s *stream) drop() {
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	s.buffer.forget(s)
}

func (b *buffer) forget(s *stream) {
	for _, event := range s.events {
		b.bytes -= len(event)
	}
	s.first, s.events = s.first+len(s.events), nil
	b.streams = slices.DeleteFunc(b.streams, func(other *stream) bool { return other == s })
	poke(b.room)
}

// add adds a message, and waits for room. The last one ends the stream.
func (s *stream) add(raw []byte, last bool) {
	b := s.buffer
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && !s.done && b.bytes > 0 && b.bytes+len(raw) > b.max {
		if b.evict() {
			continue
		}
		b.mu.Unlock()
		<-b.room
		b.mu.Lock()
	}
	if s.done || b.closed {
		return
	}
	s.put(raw, last)
}

func (s *stream) put(raw []byte, last bool) {
	s.events = append(s.events, raw)
	s.buffer.bytes += len(raw)
	s.done, s.lone = last, last && s.first == 1 && len(s.events) == 1
	poke(s.wake)
}

// offer is add, for who cannot wait: it tells whether there was room.
func (s *stream) offer(raw []byte, last bool) bool {
	b := s.buffer
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.bytes > 0 && b.bytes+len(raw) > b.max {
		if !b.evict() {
			return false
		}
	}
	if !s.done {
		s.put(raw, last)
	}
	return true
}

// evict makes room by one message; false where all there is waits for a client that is there.
func (b *buffer) evict() bool {
	for _, s := range b.streams {
		if len(s.events) > 0 && (s.sent > s.first || s.owner < 0) {
			b.bytes -= len(s.events[0])
			s.events[0] = nil
			s.events = s.events[1:]
			s.first++
			s.sent = max(s.sent, s.first)
			return true
		}
	}
	return false
}

// end ends a stream without a message.
func (s *stream) end() {
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	s.done = true
	poke(s.wake)
	poke(s.buffer.room)
}

// close ends all streams, with what they hold; nothing is added any more.
func (b *buffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, s := range b.streams {
		s.done = true
		poke(s.wake)
	}
	poke(b.room)
}

// take makes the caller the one who sends a stream to a client, from an event on. A negative one stands for what no client has
// taken yet. It fails where that event is no longer held.
func (s *stream) take(from int) (owner int, ok bool) {
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	if from < 0 {
		from = s.sent
	}
	if from < s.first || from > s.first+len(s.events) {
		return 0, false
	}
	s.owners++
	s.owner, s.sent = s.owners, from
	poke(s.wake) // whoever had it
	return s.owner, true
}

// leave is the end of take.
func (s *stream) leave(owner int) {
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	if s.owner == owner {
		s.owner = -1
		poke(s.buffer.room)
	}
}

// lump is what is to be sent next.
type lump struct {
	events     [][]byte
	first      int  // number of the first
	done, lone bool // the stream ends after them; and they are one answer
}

// next returns what is to be sent. It is false where another has taken over.
func (s *stream) next(owner int) (lump, bool) {
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	if s.owner != owner {
		poke(s.wake) // it was not for us
		return lump{}, false
	}
	return lump{slices.Clone(s.events[s.sent-s.first:]), s.sent, s.done, s.lone}, true
}

// took notes what a client has taken.
func (s *stream) took(owner, n int) {
	s.buffer.mu.Lock()
	defer s.buffer.mu.Unlock()
	if s.owner == owner {
		s.sent += n
		poke(s.buffer.room)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// eventID tells where in a session's streams an event is.
func eventID(number, event int) string { return strconv.Itoa(number) + "-" + strconv.Itoa(event) }

func parseEventID(id string) (number, event int, ok bool) {
	left, right, _ := strings.Cut(id, "-")
	number, err := strconv.Atoi(left)
	event, err2 := strconv.Atoi(right)
	return number, event, err == nil && err2 == nil && eventID(number, event) == id
}

// relay is how a stream is sent to a client.
type relay struct {
	ids   bool // events get ids, so that a client can resume
	prime bool // the stream begins with an event that only has an id
	whole bool // nothing is sent before all is there
	// single is how long to wait for a lone answer, which is sent as such and not as a stream; negative where a stream is asked for.
	single time.Duration
	// status is the HTTP status of a lone answer.
	status func(raw []byte) int
}

const keepAlive = 15 * time.Second

var (
	errNotMine = errors.New("another connection has taken the stream over")
	errClient  = errors.New("the client is gone")
	errSlow    = errors.New("the server does not answer")
)

// send sends a stream until it is done, and returns why not where it does not come so far. A stream in which a server is silent for
// longer than limit fails too, if limit is positive.
func (r relay) send(ctx context.Context, s *stream, owner int, reply *gateway.Reply, limit time.Duration) error {
	alone := time.NewTimer(max(r.single, 0))
	defer alone.Stop()
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	silent := time.NewTimer(limit)
	defer silent.Stop()
	if limit <= 0 {
		silent.Stop()
	}
	for {
		next, mine := s.next(owner)
		if !mine {
			return errNotMine
		}
		if next.done && r.single < 0 { // there may be nothing to send
			if err := r.begin(s, reply); err != nil {
				return err
			}
		}
		if next.lone && len(next.events) == 1 && !reply.Began() {
			reply.Header().Set("Content-Type", "application/json")
			err := reply.Message(r.status(next.events[0]), next.events[0])
			s.took(owner, 1)
			return err
		}
		if len(next.events) > 0 && (next.done || !r.whole) {
			if limit > 0 {
				silent.Reset(limit)
			}
			if err := r.events(s, owner, reply, next); err != nil {
				return err
			}
		}
		if next.done {
			return nil
		}
		select {
		case <-s.wake:
		case <-alone.C:
			if err := r.begin(s, reply); err != nil {
				return err
			}
		case <-alive.C:
			if reply.Began() {
				if err := reply.Event(&sse.Event{Raw: []byte(": keep-alive\n\n")}); err != nil {
					return err
				}
			}
		case <-silent.C:
			return errSlow
		case <-ctx.Done():
			return errClient
		}
	}
}

// begin writes the head of a stream.
func (r relay) begin(s *stream, reply *gateway.Reply) error {
	if reply.Began() {
		return nil
	}
	reply.Header().Set("Content-Type", "text/event-stream")
	reply.Header().Set("Cache-Control", "no-cache, no-transform")
	reply.Header().Set("X-Accel-Buffering", "no")
	if err := reply.Stream(200); err != nil {
		return err
	}
	if r.prime {
		return reply.Event(&sse.Event{Raw: sse.Append(nil, eventID(s.number, 0), nil)})
	}
	return nil
}

func (r relay) events(s *stream, owner int, reply *gateway.Reply, next lump) error {
	if err := r.begin(s, reply); err != nil {
		return err
	}
	for i, raw := range next.events {
		event := sse.Event{Data: raw}
		if r.ids {
			event.ID = eventID(s.number, next.first+i)
		}
		event.Raw = sse.Append(nil, event.ID, raw)
		if err := reply.Event(&event); err != nil {
			return err
		}
		s.took(owner, 1)
	}
	return nil
}
