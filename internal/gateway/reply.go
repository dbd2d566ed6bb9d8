package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
	"github.com/mcpwarden/mcp-warden/internal/gateway/sse"
)

var noDeadline time.Time

// ErrBadAnswer is the error for what a server has sent that is not a message of MCP.
var ErrBadAnswer = errors.New("the server sent what is not a message of MCP")

// Reply is the way back to a client: what a backend hands to it goes through the stages and is written. It is
// for one goroutine at a time.
type Reply struct {
	gateway  *Gateway
	exchange *Exchange
	w        http.ResponseWriter
	control  *http.ResponseController
	deadline time.Time // of writing
	held     int
	began    bool
}

func newReply(g *Gateway, x *Exchange, w http.ResponseWriter) *Reply {
	return &Reply{gateway: g, exchange: x, w: w, control: http.NewResponseController(w)}
}

// Header is what the response's head will hold.
func (r *Reply) Header() http.Header { return r.w.Header() }

// Began tells whether the head was written: what follows can no longer be refused.
func (r *Reply) Began() bool { return r.began }

// keep counts bytes as held, until the exchange ends.
func (r *Reply) keep(n int) bool {
	if !r.gateway.budget.take(n) {
		return false
	}
	r.held += n
	return true
}

func (r *Reply) release() {
	r.gateway.budget.give(r.held)
	r.held = 0
}

// Refuse answers in the server's stead: with a JSON-RPC error, to the request that the exchange brought, if any.
func (r *Reply) Refuse(f *Refusal) {
	r.exchange.Refused = f
	body := AppendError(nil, r.requestID(), f)
	if r.began {
		if r.requestID() != nil {
			_ = r.write(sse.Append(nil, "", body))
		}
		return
	}
	clear(r.Header()) // of what a server may have said that is refused now
	if f.Status == http.StatusMethodNotAllowed {
		r.Header().Set("Allow", "GET, POST, DELETE")
	}
	if f.Retry > 0 {
		r.Header().Set("Retry-After", strconv.Itoa(int((f.Retry+time.Second-1)/time.Second)))
	}
	r.Header().Set("Content-Type", "application/json")
	r.Header().Set("Content-Length", strconv.Itoa(len(body)))
	r.begin(f.Status)
	_ = r.write(body)
}

// requestID is the id of the request that waits for an answer; nil where there is none.
func (r *Reply) requestID() []byte {
	if m := r.exchange.Message; m != nil && m.Kind == message.Request {
		return m.ID
	}
	return nil
}

// Empty answers with a head alone.
func (r *Reply) Empty(status int) {
	r.begin(status)
}

// Message answers with one message. The error is ErrBadAnswer where it is not one; nothing was written then.
func (r *Reply) Message(status int, raw []byte) error {
	out, err := r.stages(raw)
	if err != nil {
		return err
	}
	r.Header().Set("Content-Length", strconv.Itoa(len(out)))
	r.begin(status)
	return r.write(out)
}

// Stream begins a stream of events.
func (r *Reply) Stream(status int) error {
	r.Header().Del("Content-Length")
	r.begin(status)
	return r.flush()
}

// Event sends an event. The error is ErrBadAnswer where its data is not a message.
func (r *Reply) Event(e *sse.Event) error {
	raw := e.Raw
	if e.Message() {
		out, err := r.stages(e.Data)
		if err != nil || out == nil {
			return err
		}
		if &out[0] != &e.Data[0] {
			raw = sse.Append(nil, e.ID, out)
		}
	}
	return r.write(raw)
}

// Pass answers with a body that is no message, such as the text of an HTTP error.
func (r *Reply) Pass(status int, body []byte) error {
	r.Header().Set("Content-Length", strconv.Itoa(len(body)))
	r.begin(status)
	return r.write(body)
}

// stages shows a message to the stages, and returns what to send: raw itself where none has changed it, and nil where it was dropped.
func (r *Reply) stages(raw []byte) ([]byte, error) {
	m, err := message.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadAnswer, err)
	}
	out := m
	for _, stage := range r.gateway.stages {
		next, refusal := stage.Response(r.exchange, out)
		if refusal != nil {
			r.exchange.Refused = refusal
			if m.Kind != message.Response {
				return nil, nil
			}
			return AppendError(nil, m.ID, refusal), nil
		}
		out = next
	}
	if id := r.requestID(); id != nil && out.Kind == message.Response && message.Key(id) == message.Key(out.ID) {
		r.exchange.ErrorCode, r.exchange.ToolFailed = out.ErrorCode, out.ToolFailed
	}
	return out.Raw, nil
}

func (r *Reply) begin(status int) {
	r.began = true
	r.exchange.Status = status
	r.extend()
	r.w.WriteHeader(status)
}

// extend gives the client its time to take what is written next. The server's own deadline is fresh when a request comes.
func (r *Reply) extend() {
	const fresh = time.Second
	now := r.gateway.now()
	if r.deadline.IsZero() {
		r.deadline = r.exchange.began.Add(r.gateway.limits.WriteTime)
	}
	if r.deadline.Sub(now) < r.gateway.limits.WriteTime-fresh {
		r.deadline = now.Add(r.gateway.limits.WriteTime)
		_ = r.control.SetWriteDeadline(r.deadline)
	}
}

func (r *Reply) write(b []byte) error {
	r.extend()
	n, err := r.w.Write(b)
	r.exchange.Sent += int64(n)
	if err != nil {
		return fmt.Errorf("write to the client: %w", err)
	}
	if r.Header().Get("Content-Length") == "" {
		return r.flush()
	}
	return nil
}

func (r *Reply) flush() error {
	r.extend()
	if err := r.control.Flush(); err != nil {
		return fmt.Errorf("write to the client: %w", err)
	}
	return nil
}

// AppendError appends the JSON-RPC error that says a refusal, to the request with an id; nil for none.
func AppendError(dst, id []byte, f *Refusal) []byte {
	dst = append(dst, `{"jsonrpc":"2.0",`...)
	if id != nil {
		dst = append(append(append(dst, `"id":`...), id...), ',')
	}
	dst = strconv.AppendInt(append(dst, `"error":{"code":`...), int64(f.Code), 10)
	dst = strconv.AppendQuote(append(dst, `,"message":`...), f.Text)
	if f.Data != "" {
		dst = append(append(dst, `,"data":`...), f.Data...)
	}
	return append(dst, "}}"...)
}
