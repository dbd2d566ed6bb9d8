package stdio

import (
	"context"
	"sync"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// Dial starts a process for a handshake of the gateway's own. One more may run than for clients: a server that serves as
// many as it may is ready nevertheless.
func (b *Backend) Dial(context.Context) (inventory.Conn, error) {
	c := &conn{answers: make(chan *message.Message, 1), over: make(chan struct{})}
	c.starting.Lock()
	defer c.starting.Unlock()
	var err error
	c.child, err = b.spawner.startSpare(c.handle, func() {})
	return c, err
}

// Found notes what a handshake has shown: to a server that does not speak a revision without sessions, nothing is sent in one; and
// what arguments clients repeat in headers.
func (b *Backend) Found(i *inventory.Inventory) {
	b.onlyLegacy.Store(!i.Modern())
	params := map[string][]inventory.Param{}
	for _, tool := range i.Tools {
		if len(tool.Params) > 0 {
			params[tool.Name] = tool.Params
		}
	}
	b.params.Store(&params)
}

// conn is a process that only the gateway talks to.
type conn struct {
	starting sync.Mutex
	child    *child
	answers  chan *message.Message
	over     chan struct{}
}

func (c *conn) handle(m *message.Message) {
	switch m.Kind {
	case message.Response:
		select {
		case c.answers <- m:
		case <-c.over:
		}
	case message.Request: // it would wait for ever
		c.starting.Lock() // until the child is known
		child := c.child
		c.starting.Unlock()
		_ = child.send(gateway.AppendError(nil, m.ID, &gateway.Refusal{Code: -32601, Text: "The gateway can do nothing for a server"}))
	}
}

// Call sends a request, and waits for the response.
func (c *conn) Call(ctx context.Context, request []byte) (*message.Message, error) {
	sent, err := message.Parse(request)
	if err != nil {
		return nil, err
	}
	if err := c.child.send(request); err != nil {
		return nil, err
	}
	for {
		select {
		case m := <-c.answers:
			if string(m.ID) == string(sent.ID) { // or it comes too late
				return m, nil
			}
		case <-c.child.gone:
			return nil, errGone
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Notify sends a notification.
func (c *conn) Notify(_ context.Context, notification []byte) error {
	return c.child.send(notification)
}

// Close ends the process, and returns when it has ended: the next one does not run beside it.
func (c *conn) Close() {
	close(c.over)
	c.child.stop()
	<-c.child.gone
}
