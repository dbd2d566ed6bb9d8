package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
	"github.com/mcpwarden/mcp-warden/internal/gateway/sse"
)

// closeTime bounds how long a server may take to end a session.
const closeTime = 5 * time.Second

// Dial makes a connection for a handshake of the gateway's own.
func (u *Upstream) Dial(context.Context) (inventory.Conn, error) { return &conn{upstream: u}, nil }

// conn speaks to the server as a client does.
type conn struct {
	upstream *Upstream
	session  string
	version  string // that initialize has agreed on
}

// Call sends a request, and returns the response.
func (c *conn) Call(ctx context.Context, request []byte) (*message.Message, error) {
	sent, err := message.Parse(request)
	if err != nil {
		return nil, err
	}
	response, err := c.post(ctx, request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if id := response.Header.Get("Mcp-Session-Id"); id != "" {
		c.session = id
	}
	m, err := find(response, sent.ID, c.upstream.limits.MessageBytes)
	if err != nil && response.StatusCode >= http.StatusBadRequest {
		// A server says in HTTP alone that it does not know what it was asked.
		return &message.Message{Kind: message.Response, Error: []byte("{}"), ErrorCode: -response.StatusCode}, nil
	}
	if err == nil && sent.Method == "initialize" {
		var result struct{ ProtocolVersion string }
		_ = json.Unmarshal(m.Result, &result)
		c.version = result.ProtocolVersion
	}
	return m, err
}

// find is the response to a request, in what the server sent.
func find(response *http.Response, id []byte, bound int) (*message.Message, error) {
	media, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if media == "application/json" {
		raw, err := io.ReadAll(io.LimitReader(response.Body, int64(bound)+1))
		if err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		if len(raw) > bound {
			return nil, gateway.ErrTooLarge
		}
		return message.Parse(raw)
	}
	if media != "text/event-stream" {
		return nil, gateway.ErrBadAnswer
	}
	events := sse.NewReader(response.Body, bound)
	for {
		event, err := events.Next()
		if err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		if !event.Message() {
			continue
		}
		m, err := message.Parse(event.Data)
		if err != nil {
			return nil, err
		}
		if m.Kind == message.Response && bytes.Equal(m.ID, id) {
			return m, nil
		}
	}
}

// Notify sends a notification.
func (c *conn) Notify(ctx context.Context, notification []byte) error {
	response, err := c.post(ctx, notification)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("the server answers with HTTP status %d", response.StatusCode)
	}
	return nil
}

// Close ends the session, if there is one.
func (c *conn) Close() {
	if c.session == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	if response, err := c.send(ctx, http.MethodDelete, nil, nil); err == nil {
		_ = response.Body.Close()
	}
}

func (c *conn) post(ctx context.Context, raw []byte) (*http.Response, error) {
	m, err := message.Parse(raw)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/json"}}
	if version := m.Params.Meta.ProtocolVersion; version != nil {
		header.Set("Mcp-Method", m.Method)
		text, _ := message.Text(version)
		header.Set("Mcp-Protocol-Version", text)
	}
	return c.send(ctx, http.MethodPost, bytes.NewReader(raw), header)
}

func (c *conn) send(ctx context.Context, method string, body io.Reader, header http.Header) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.upstream.url, body)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	if header != nil {
		request.Header = header
	}
	request.Header.Set("Accept", "application/json, text/event-stream")
	if c.session != "" {
		request.Header.Set("Mcp-Session-Id", c.session)
	}
	if c.version != "" {
		request.Header.Set("Mcp-Protocol-Version", c.version)
	}
	response, err := c.upstream.transport.RoundTrip(request)
	if err != nil {
		return nil, errors.New("the server cannot be reached, or went away") // what it says may hold anything
	}
	return response, nil
}
