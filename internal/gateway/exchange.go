package gateway

import (
	"net/http"
	"net/netip"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// Modern is the first revision of the protocol that has no sessions: each request says which version it speaks.
// Revisions are named by their dates, and compare as text.
const Modern = "2026-07-28"

// JSON-RPC error codes that the gateway answers with, beside those of package message.
const (
	CodeInvalidParams      = -32602
	CodeInternal           = -32603
	CodeHeaderMismatch     = -32020
	CodeUnsupportedVersion = -32022
)

// Exchange is one HTTP request, and what became of it.
type Exchange struct {
	// ID tells this exchange from all others, in logs.
	ID      string
	Client  netip.Addr
	Request *http.Request
	Headers Headers
	// Message is what a POST brought; nil for other methods.
	Message *message.Message
	// Version of the protocol as header or body say; empty where neither does.
	Version string
	TraceID string // of the trace that the client is in; empty if in none

	began time.Time
	// What became of it. They are complete when Stage.Done is called.
	Refused    *Refusal
	Status     int // of the HTTP response; 0 if there was none
	ErrorCode  int // of the JSON-RPC response
	ToolFailed bool
	Received   int // bytes of the message
	Sent       int64
	Duration   time.Duration
}

// Modern tells whether the exchange is of a revision without sessions.
func (x *Exchange) Modern() bool { return x.Version >= Modern }

// Stage is one concern of the pipeline. All stages see every request, in their order, and then every message that comes back, in
// the same order. An embedded Pass stands in for what a stage does not look at.
type Stage interface {
	// Request looks at what a client sent. A refusal ends the exchange: nothing was forwarded.
	Request(x *Exchange) *Refusal
	// Response looks at a message on its way to the client, and returns it, or another one in its place. A refusal
	// takes its place where it answers a request, and drops it where it does not.
	Response(x *Exchange, m *message.Message) (*message.Message, *Refusal)
	// Done is called once, at the end of every exchange, also of one that another stage has refused.
	Done(x *Exchange)
}

// Pass is a stage that lets everything pass.
type Pass struct{}

// Request lets pass.
func (Pass) Request(*Exchange) *Refusal { return nil }

// Response lets pass.
func (Pass) Response(_ *Exchange, m *message.Message) (*message.Message, *Refusal) { return m, nil }

// Done does nothing.
func (Pass) Done(*Exchange) {}

// Backend is the server that exchanges are forwarded to.
type Backend interface {
	// Serve answers an exchange that all stages have let pass. It returns when the answer is complete, or
	// the context of the request has ended.
	Serve(x *Exchange, reply *Reply)
}

// Reason of a refusal, for metrics and logs.
type Reason string

// The reasons.
const (
	BadPath          Reason = "BadPath"
	BadMethod        Reason = "BadMethod"
	BadMediaType     Reason = "BadMediaType"
	BadMessage       Reason = "BadMessage"
	BadHeader        Reason = "BadHeader"
	HeaderMismatch   Reason = "HeaderMismatch"
	BadHost          Reason = "BadHost"
	BadOrigin        Reason = "BadOrigin"
	TooLarge         Reason = "TooLarge"
	TooSlow          Reason = "TooSlow"
	Busy             Reason = "Busy"
	BadSession       Reason = "BadSession"
	BadVersion       Reason = "BadVersion"
	Cancelled        Reason = "Cancelled"
	BadAnswer        Reason = "BadAnswer"
	ServerGone       Reason = "ServerGone"
	ServerSlow       Reason = "ServerSlow"
	Stopping         Reason = "Stopping"
	ClientGone       Reason = "ClientGone"
	NothingToResume  Reason = "NothingToResume"
	DuplicateRequest Reason = "DuplicateRequest"
)

// Refusal is why the gateway answers in the server's stead. Its text holds nothing of what the client or the
// server has said.
type Refusal struct {
	Status int // of HTTP
	Code   int // of JSON-RPC
	Reason Reason
	Text   string
	Data   string // JSON, for the error's data; empty for none
	// Retry tells a client how long to wait before it tries again; 0 says nothing.
	Retry time.Duration
}
