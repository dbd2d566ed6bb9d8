package egressproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// client is one connection from a server, with the one request that it may make: whatever comes behind
// a request, or behind a refusal, is never read as another one.
type client struct {
	*Proxy
	conn      *net.TCPConn
	isPending bool
	decision  decision
}

// handle deals with a connection until it is refused, or relayed by others.
func (p *Proxy) handle(conn *net.TCPConn) {
	defer p.work.Done()
	addr, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	c := &client{Proxy: p, conn: conn, decision: decision{client: addr.Addr().Unmap()}}
	if !p.pending.add(c.decision.client, &p.limits) {
		c.decision.reason = TooManyConnections
		p.decided(&c.decision)
		_ = conn.Close()
		return
	}
	c.isPending = true
	defer c.settled()
	_ = conn.SetDeadline(p.now().Add(p.limits.HeadTime))
	buf := headBuffers.Get().(*[firstBuffer]byte)
	data, end, reason := readHead(conn, buf[:0], p.limits.HeadBytes)
	if len(data) == 0 && reason != HeadTimeout {
		_ = conn.Close() // opened and closed, as a check of the port does: nothing was asked for
		return
	}
	if reason != "" {
		c.refuse(reason)
		return
	}
	h, ok := parseHead(data[:end])
	if !ok {
		c.refuse(BadRequest)
		return
	}
	f, reason := c.decide(h)
	if reason != "" {
		c.refuse(reason)
		return
	}
	c.serve(f, h, data, end)
	if h.method == http.MethodConnect { // else another goroutine has it now
		headBuffers.Put(buf)
	}
}

var headBuffers = sync.Pool{New: func() any { return new([firstBuffer]byte) }}

// settled takes the connection out of those that are pending.
func (c *client) settled() {
	if c.isPending {
		c.isPending = false
		c.pending.remove(c.decision.client)
	}
}

// decide on all that the head of a request tells. The flow it returns is counted, and bound to what the
// access list says from now on.
func (c *client) decide(h *head) (*flow, Reason) {
	c.decision.method = h.method
	st := c.state.Load()
	if st == nil {
		return nil, NoAccessList
	}
	server, password, reason := h.credential()
	if reason != "" {
		return nil, reason
	}
	grants := st.policy.Grants(server, password)
	if grants == nil {
		if st.policy.Has(server) { // else it may be anything, such as a password in the wrong place
			c.decision.claimed = server
		}
		return nil, CredentialWrong
	}
	c.decision.server = grants.Server
	if h.method == http.MethodTrace {
		return nil, MethodRefused
	}
	to, authority, reason := h.destination()
	c.decision.host = authority
	if reason != "" {
		return nil, reason
	}
	c.decision.host, c.decision.port = to.host, to.port
	if h.method != http.MethodConnect {
		switch {
		case !h.hostHeaderFits(to):
			return nil, HostHeaderMismatch
		case h.upgrades():
			return nil, UpgradeRefused
		}
	}
	switch verdict := grants.Judge(to.host, to.port); {
	case !verdict.Host:
		return nil, HostNotListed
	case !verdict.Port:
		return nil, PortNotListed
	}
	f := &flow{grants: grants, client: c.decision.client, method: h.method, to: to, opened: c.now()}
	if !c.flows.add(f, &c.limits) {
		return nil, TooManyTunnels
	}
	c.work.Add(1)
	return f, ""
}

// serve connects a flow to its host and hands it on.
func (c *client) serve(f *flow, h *head, data []byte, end int) {
	c.settled()
	origin, reason := c.connect(f)
	if reason != "" {
		c.refuse(reason)
		f.stop(Failed)
		c.finish(f)
		return
	}
	if h.method != http.MethodConnect {
		c.allow(f)
		_ = c.conn.SetDeadline(time.Time{})
		c.plain.hand(c.conn, data, f, origin)
		return
	}
	_ = c.conn.SetDeadline(c.now().Add(c.limits.HelloTime))
	if reason := c.openTunnel(f, origin, data[end:]); reason != "" {
		_ = origin.Close()
		c.hangUp(reason)
		f.stop(HelloRefused)
		c.finish(f)
		return
	}
	_ = c.conn.SetDeadline(time.Time{})
	_ = origin.SetDeadline(time.Time{})
	relay(f, c.conn, origin, func() { c.finish(f) })
}

// connect looks the host up, checks what comes back, and connects. It is done before a CONNECT is answered, so that
// the answer can tell what went wrong.
func (c *client) connect(f *flow) (*net.TCPConn, Reason) {
	st := c.state.Load()
	if !c.stillAllows(st, f) {
		return nil, Revoked // the access list changed before the flow was counted
	}
	began := c.now()
	ctx, cancel := context.WithTimeout(context.Background(), c.limits.ConnectTime)
	defer cancel()
	addrs, err := c.resolve(ctx, st, f.to)
	switch {
	case errors.Is(err, errForbidden):
		c.decision.addr = addrs[0]
		return nil, AddressForbidden
	case err != nil:
		c.decision.detail = err.Error()
		return nil, ResolveFailed
	}
	c.decision.addr = addrs[0]
	origin, err := c.dial(ctx, addrs)
	switch {
	case errors.Is(err, errForbidden):
		return nil, AddressForbidden
	case err != nil:
		c.decision.detail = err.Error()
		return nil, ConnectFailed
	}
	c.metrics.connect.Observe(c.now().Sub(began).Seconds())
	addr := origin.RemoteAddr().(*net.TCPAddr).AddrPort()
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	c.decision.addr = addr
	f.addr.Store(&addr)
	if !f.attach(origin) {
		return nil, Revoked
	}
	if !c.stillAllows(c.state.Load(), f) { // such as the address, which no change of the list could have seen
		_ = origin.Close()
		return nil, Revoked
	}
	return origin, ""
}

// openTunnel answers a CONNECT and waits for the ClientHello, of which nothing is forwarded before it was found
// to be for the host that was asked for. Where the host asks for another one, that is held to the same: a
// client could have provoked it.
func (c *client) openTunnel(f *flow, origin *net.TCPConn, early []byte) Reason {
	if _, err := io.WriteString(c.conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return HelloMissing
	}
	if !f.attach(c.conn) {
		return Revoked
	}
	hello, rest, reason := c.hello(f, early, false)
	if reason != "" {
		return reason
	}
	_ = origin.SetDeadline(c.now().Add(c.limits.HelloTime))
	n, err := origin.Write(hello)
	f.up.Add(int64(n))
	c.allow(f) // while the answer is on its way
	var answer []byte
	again := false
	if err == nil {
		answer, again, err = firstAnswer(origin, hello[:0])
	}
	if errors.Is(err, os.ErrDeadlineExceeded) { // whether it asks again is still open
		c.decision.detail = "the host does not answer the ClientHello"
		return HelloTimeout
	}
	n, _ = c.conn.Write(answer) // what breaks from here on will be found broken by those who relay
	f.down.Add(int64(n))
	if again {
		_ = c.conn.SetDeadline(c.now().Add(c.limits.HelloTime))
		if hello, rest, reason = c.hello(f, rest, true); reason != "" {
			return reason
		}
		rest = append(hello, rest...)
	}
	if len(rest) > 0 {
		n, _ = origin.Write(rest)
		f.up.Add(int64(n))
	}
	return ""
}

// hello reads a ClientHello and judges it. It returns the hello as it came, and what came behind it.
func (c *client) hello(f *flow, early []byte, again bool) (sent, rest []byte, reason Reason) {
	h, data, end, reason := readHello(c.conn, early, c.limits.HelloBytes, again)
	switch {
	case reason != "" && f.ended() == RuleWithdrawn:
		return nil, nil, Revoked
	case reason != "":
		return nil, nil, reason
	}
	return data[:end], slices.Clone(data[end:]), c.judgeHello(f, h)
}

// firstAnswer reads as much of a host's answer as tells whether it asks for another ClientHello.
func firstAnswer(origin net.Conn, buf []byte) (answer []byte, again bool, err error) {
	for {
		if len(buf) == cap(buf) {
			buf = grow(buf, 2*firstBuffer)
		}
		n, err := origin.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if again, decided := asksAgain(buf); decided || err != nil {
			return buf, again, err
		}
	}
}

// alertAccessDenied is what TLS says where access control stops a handshake.
var alertAccessDenied = []byte{21, 3, 1, 0, 2, 2, 49}

func (c *client) judgeHello(f *flow, h hello) Reason {
	switch {
	case h.serverName == "":
		return ServerNameMissing
	case !sameName(h.serverName, f.to.host):
		c.decision.detail = h.serverName
		return ServerNameMismatch
	case h.encrypted:
		f.ech.Store(true) // first: a change of the access list from here on stops the flow by itself
		if !c.stillAllows(c.state.Load(), f) {
			return EncryptedHello
		}
	}
	return ""
}

// allow writes down that a flow is let through.
func (c *client) allow(f *flow) {
	f.open.Store(true)
	c.decision.reason = Listed
	c.decided(&c.decision)
}

// refuse answers with why not, and nothing else.
func (c *client) refuse(reason Reason) {
	c.decision.reason = reason
	c.decided(&c.decision)
	r := refusals[reason]
	extra := ""
	if r.status == http.StatusProxyAuthRequired {
		extra = "Proxy-Authenticate: Basic realm=\"mcp-warden\"\r\n"
	}
	body := fmt.Sprintf("%s: %s\n", reason, r.text)
	c.last([]byte(fmt.Sprintf("HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		r.status, http.StatusText(r.status), extra, len(body), body)))
}

// hangUp ends a tunnel that was answered, but whose ClientHello does not pass. A client that speaks TLS is told in TLS.
func (c *client) hangUp(reason Reason) {
	c.decision.reason = reason
	c.decided(&c.decision)
	switch reason {
	case ServerNameMissing, ServerNameMismatch, EncryptedHello:
		c.last(alertAccessDenied)
	default:
		_ = c.conn.Close()
	}
}

// last sends the last words and closes. What the client is still sending is read for a moment: a connection
// that is closed over unread bytes takes the answer with it.
func (c *client) last(words []byte) {
	const drainTime, drainBytes = 500 * time.Millisecond, 256 << 10
	defer c.conn.Close()
	_ = c.conn.SetDeadline(c.now().Add(drainTime))
	if _, err := c.conn.Write(words); err == nil && c.conn.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c.conn, drainBytes)
	}
}
