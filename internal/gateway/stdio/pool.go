package stdio

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// pool are the processes that serve requests without a session.
type pool struct {
	spawner *spawner
	limits  Limits

	mu      sync.Mutex
	workers []*worker
	last    int64 // the newest id that a process was given; not used twice, so that a late answer meets nobody
}

// worker is a process of the pool.
type worker struct {
	pool  *pool
	child *child

	// Under the pool's lock.
	calls map[string]*call // by the id that the process knows
}

// call is one request that a process works on.
type call struct {
	worker *worker
	stream *stream
	// own is the id, and the token and the subscription, towards the process; id and token are the client's.
	own, id, token []byte
	logs           bool // it has asked for log messages
	gone           bool // its client has gone, the process may not know it yet
}

func newPool(s *spawner, limits Limits) *pool { return &pool{spawner: s, limits: limits} }

// open finds a process for a request, the one with the least to do, and starts one where there may be more.
func (p *pool) open(m *message.Message) (*call, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var least *worker
	for _, w := range p.workers {
		if least == nil || len(w.calls) < len(least.calls) {
			least = w
		}
	}
	if least == nil || (len(least.calls) > 0 && len(p.workers) < p.limits.Pool) {
		w, err := p.start()
		if err == nil {
			least = w
		} else if least == nil {
			return nil, err
		}
	}
	if len(least.calls) >= p.limits.InFlight {
		return nil, errBusy
	}
	p.last++
	c := &call{worker: least, own: strconv.AppendInt(nil, p.last, 10), id: m.ID, token: m.Params.Meta.ProgressToken, logs: m.Params.Meta.LogLevel != nil}
	c.stream = newBuffer(p.limits.BufferBytes).open(1)
	least.calls[string(c.own)] = c
	return c, nil
}

var errBusy = errors.New("the server has as many requests to answer as it may")

func (p *pool) start() (*worker, error) {
	w := &worker{pool: p, calls: map[string]*call{}}
	ready := make(chan struct{}) // the child is known to its handler
	var err error
	w.child, err = p.spawner.start(func(m *message.Message) {
		<-ready
		w.handle(m)
	}, w.end)
	close(ready)
	if err != nil {
		return nil, err
	}
	p.workers = append(p.workers, w)
	// It has shown that it can start once it answers to this: what a client sends next may make it crash, and must not hold back the
	// next process.
	if err := w.child.send([]byte(discover)); err != nil {
		return nil, err
	}
	return w, nil
}

// discoverID is the id of the gateway's own request to a process; those of clients' requests are numbers.
const (
	discoverID = `"mcp-warden"`
	discover   = `{"jsonrpc":"2.0","id":` + discoverID + `,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"` +
		gateway.Modern + `","io.modelcontextprotocol/clientInfo":{"name":"mcp-warden","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
)

// end is called when a process has ended: what it has not answered gets an error.
func (w *worker) end() {
	w.pool.mu.Lock()
	calls := w.calls
	w.calls = map[string]*call{}
	w.pool.workers = slices.DeleteFunc(w.pool.workers, func(other *worker) bool { return other == w })
	w.pool.mu.Unlock()
	for _, c := range calls {
		c.finish(gateway.AppendError(nil, c.id, gone()))
	}
}

// handle sends what a process says to the request that it is about. What is about none that is open, or may be about another,
// goes to nobody.
func (w *worker) handle(m *message.Message) {
	if m.Kind == message.Request { // this revision has none, and a server that waits for an answer gets one
		refusal := &gateway.Refusal{Code: message.CodeInvalidRequest, Text: "A server has no requests in this revision of the protocol"}
		_ = w.child.send(gateway.AppendError(nil, m.ID, refusal))
		return
	}
	if string(m.ID) == discoverID {
		return
	}
	w.pool.mu.Lock()
	c, change := w.find(m)
	if c != nil && m.Kind == message.Response {
		delete(w.calls, string(c.own))
	}
	nobody := c == nil || c.gone
	w.pool.mu.Unlock()
	switch {
	case nobody:
		w.pool.spawner.metrics.dropped.Inc()
	case m.Kind == message.Response:
		c.finish(m.With(change))
	case m.Method == "notifications/cancelled": // the server has ended a subscription
		w.drop(c)
		c.stream.end()
	case !c.stream.offer(m.With(change), false): // the others must not wait for a client that is slow
		c.cancel()
		c.finish(gateway.AppendError(nil, c.id, &gateway.Refusal{Code: gateway.CodeInternal, Text: "The client does not take what the server says"}))
	}
}

// find tells what call a message is about, and what of it to change back. The pool is locked.
func (w *worker) find(m *message.Message) (*call, message.Change) {
	byID := func(part []byte) (*call, message.Change) {
		c := w.calls[string(part)]
		if c == nil {
			return nil, message.Change{}
		}
		return c, message.Change{Part: part, New: c.id}
	}
	switch {
	case m.Kind == message.Response:
		return byID(m.ID)
	case m.Params.Meta.SubscriptionID != nil:
		return byID(m.Params.Meta.SubscriptionID)
	case m.Method == "notifications/cancelled":
		return byID(m.Params.RequestID)
	case m.Method == "notifications/progress":
		c, change := byID(m.Params.ProgressToken)
		if c == nil || c.token == nil {
			return nil, change
		}
		change.New = c.token
		return c, change
	}
	return w.only(m.Method == "notifications/message"), message.Change{}
}

// only is the one call that a message can be about that says of none; nil where there may be two. Log messages go only
// to those that have asked for them.
func (w *worker) only(log bool) *call {
	var found *call
	for _, c := range w.calls {
		if log && !c.logs {
			continue
		}
		if found != nil {
			return nil
		}
		found = c
	}
	return found
}

// finish ends a call with an answer.
func (c *call) finish(answer []byte) {
	if !c.stream.offer(answer, true) {
		c.stream.end()
	}
}

func (w *worker) drop(c *call) {
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	delete(w.calls, string(c.own))
}

// logsAfter is how long log messages of a request may come after it was cancelled.
const logsAfter = 10 * time.Second

// cancel tells the process that nobody waits for an answer. A call that has asked for log messages stays for a while, so that
// none of them can be taken for another's.
func (c *call) cancel() {
	w := c.worker
	w.pool.mu.Lock()
	open := w.calls[string(c.own)] == c
	c.gone = true
	if open && !c.logs {
		delete(w.calls, string(c.own))
	} else if open {
		time.AfterFunc(logsAfter, func() { w.drop(c) })
	}
	w.pool.mu.Unlock()
	if open {
		_ = w.child.send(fmt.Appendf(nil, `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%s,"reason":"the client is gone"}}`, c.own))
	}
}

// stateless serves a request that has no session.
func (b *Backend) stateless(x *gateway.Exchange, reply *gateway.Reply) *gateway.Refusal {
	m := x.Message
	if m.Kind == message.Notification { // the protocol has none from clients over HTTP, and no process that one is for
		reply.Empty(http.StatusAccepted)
		return nil
	}
	c, err := b.pool.open(m)
	if err != nil {
		refusal := notStarted(err)
		if errors.Is(err, errBusy) {
			refusal.Reason, refusal.Text = gateway.Busy, "The server has as many requests to answer as it may"
		}
		return refusal
	}
	owner, _ := c.stream.take(-1)
	own := m.With(message.Change{Part: m.ID, New: c.own}, message.Change{Part: c.token, New: c.own})
	if err := c.worker.child.send(own); err != nil {
		c.worker.drop(c)
		return gone()
	}
	how := relay{single: b.limits.StreamAfter, status: modernStatus}
	limit := b.limits.AnswerTime
	if m.Method == "subscriptions/listen" {
		limit = 0 // it is silent until something changes
	}
	err = how.send(x.Request.Context(), c.stream, owner, reply, limit)
	if err == nil && reply.Began() {
		return nil
	}
	c.cancel()
	if err == nil { // the server has ended a subscription before it said anything
		return gone()
	}
	return fromRelay(x.Request.Context(), err)
}

// modernStatus is the HTTP status that goes with an answer since 2026-07-28.
func modernStatus(raw []byte) int {
	if !bytes.Contains(raw, []byte(`"error"`)) {
		return http.StatusOK
	}
	m, err := message.Parse(raw)
	if err != nil {
		return http.StatusOK
	}
	const missingCapability = -32021
	switch m.ErrorCode {
	case -32601:
		return http.StatusNotFound
	case gateway.CodeInvalidParams, gateway.CodeHeaderMismatch, missingCapability, gateway.CodeUnsupportedVersion:
		return http.StatusBadRequest
	}
	return http.StatusOK
}
