package gateway

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// decode reads a request into its exchange. Nothing of it is shown to a stage before all of it is known to be well-formed.
func (g *Gateway) decode(x *Exchange, reply *Reply) *Refusal {
	r := x.Request
	if r.URL.Path != g.path {
		return &Refusal{Status: http.StatusNotFound, Code: message.CodeInvalidRequest, Reason: BadPath, Text: "Nothing is here: the MCP endpoint has another path"}
	}
	headers, err := decodeHeaders(r.Header)
	if err != nil {
		return &Refusal{Status: http.StatusBadRequest, Code: CodeHeaderMismatch, Reason: BadHeader, Text: "Header mismatch: " + err.Error()}
	}
	x.Headers, x.Version = headers, headers.Version
	switch r.Method {
	case http.MethodGet, http.MethodDelete:
		return nil
	case http.MethodPost:
	default:
		return &Refusal{Status: http.StatusMethodNotAllowed, Code: message.CodeInvalidRequest, Reason: BadMethod, Text: "The MCP endpoint has POST, GET and DELETE only"}
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" || len(r.Header["Content-Type"]) != 1 || len(r.Header["Content-Encoding"]) > 0 {
		return &Refusal{Status: http.StatusUnsupportedMediaType, Code: message.CodeInvalidRequest, Reason: BadMediaType, Text: "The body must be application/json, without an encoding"}
	}
	body, refusal := g.readBody(x, reply)
	if refusal != nil {
		return refusal
	}
	x.Received = len(body)
	m, err := message.Parse(body)
	var problem *message.Error
	if errors.As(err, &problem) {
		return &Refusal{Status: http.StatusBadRequest, Code: problem.Code, Reason: BadMessage, Text: "Not a message of MCP: " + problem.Error()}
	}
	x.Message = m
	if x.Version == "" && m.Params.Meta.ProtocolVersion != nil {
		x.Version, _ = message.Text(m.Params.Meta.ProtocolVersion)
	}
	return nil
}

// readBody reads a body that is bounded in bytes, of its own and with all the others, and in time.
func (g *Gateway) readBody(x *Exchange, reply *Reply) ([]byte, *Refusal) {
	r := x.Request
	_ = reply.control.SetReadDeadline(g.now().Add(g.limits.ReadTime))
	body, err := reply.Hold(r.Body, r.ContentLength)
	switch {
	case err == nil:
		_ = reply.control.SetReadDeadline(noDeadline)
		return body, nil
	case errors.Is(err, ErrTooLarge):
		return nil, &Refusal{Status: http.StatusRequestEntityTooLarge, Code: message.CodeInvalidRequest, Reason: TooLarge, Text: "The message is larger than the gateway takes"}
	case errors.Is(err, ErrNoBudget):
		return nil, busy()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Refusal{Status: http.StatusRequestTimeout, Code: message.CodeInvalidRequest, Reason: TooSlow, Text: "The message took too long to arrive"}
	default:
		return nil, &Refusal{Status: http.StatusBadRequest, Code: message.CodeInvalidRequest, Reason: ClientGone, Text: "The message did not arrive in full"}
	}
}

func busy() *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Code: CodeInternal, Reason: Busy, Text: "The gateway holds as much as it may", Retry: 1e9}
}

// What is read may be too much.
var (
	ErrTooLarge = errors.New("more bytes than one message may have")
	ErrNoBudget = errors.New("more bytes than all messages together may have")
)

// Hold reads all of from, of which size tells the length, or is -1. What it returns counts as held until the
// exchange ends. The error is ErrTooLarge or ErrNoBudget where it is more than may be held.
func (r *Reply) Hold(from io.Reader, size int64) ([]byte, error) {
	limit := r.gateway.limits.MessageBytes
	if size > int64(limit) {
		return nil, ErrTooLarge
	}
	const first = 4 << 10
	capacity := first
	if size >= 0 {
		capacity = int(size) + 1 // the one lets the end be seen without growing
	}
	var body []byte
	for {
		if len(body) == cap(body) {
			grown := max(capacity, min(2*cap(body), limit+1))
			if !r.keep(grown - cap(body)) {
				return nil, ErrNoBudget
			}
			bigger := make([]byte, len(body), grown)
			copy(bigger, body)
			body = bigger
		}
		n, err := from.Read(body[len(body):cap(body)])
		if body = body[:len(body)+n]; len(body) > limit {
			return nil, ErrTooLarge
		}
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}
