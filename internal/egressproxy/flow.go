package egressproxy

import (
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// halfIdle is how long nothing may pass once one end sends no more: a client that went away looks like that.
const halfIdle = time.Minute

// flow is one connection of a server to a host: a tunnel, or an exchange in plain HTTP.
type flow struct {
	grants *access.Grants
	client netip.Addr
	method string
	to     target
	opened time.Time
	addr   atomic.Pointer[netip.AddrPort] // nil until one is connected
	ech    atomic.Bool                    // depends on a rule that allows an encrypted hello
	up     atomic.Int64                   // bytes to the host
	down   atomic.Int64                   // bytes from it
	half   atomic.Bool                    // one end sends no more
	open   atomic.Bool                    // was allowed: its end is told

	mu    sync.Mutex
	conns []io.Closer // both ends, as far as they are there
	cause Cause       // of the end; empty while it is open

	// What the last sweep saw.
	seenUp, seenDown int64
	activeAt         time.Time
}

// attach lets a connection end with the flow; false, and it is closed, where the flow has ended.
func (f *flow) attach(conn io.Closer) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cause != "" {
		_ = conn.Close()
		return false
	}
	f.conns = append(f.conns, conn)
	return true
}

// stop ends a flow, for the first cause that is given.
func (f *flow) stop(cause Cause) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cause != "" {
		return
	}
	f.cause = cause
	for _, conn := range f.conns {
		_ = conn.Close() // it is over, however it ends
	}
	f.conns = nil
}

// ended is the cause of the end; empty while the flow is open.
func (f *flow) ended() Cause {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

// flows are all that are open, from before the name is looked up, so that none slips through a change of the
// access list.
type flows struct {
	mu        sync.Mutex
	all       map[*flow]struct{}
	perServer map[string]int
}

func newFlows() *flows {
	return &flows{all: map[*flow]struct{}{}, perServer: map[string]int{}}
}

// add takes a flow in, unless there are too many.
func (s *flows) add(f *flow, limits *Limits) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.all) >= limits.Tunnels || s.perServer[f.grants.Server] >= limits.TunnelsPerServer {
		return false
	}
	s.all[f] = struct{}{}
	s.perServer[f.grants.Server]++
	return true
}

// remove takes a flow out. Bytes that no sweep has counted are returned.
func (s *flows) remove(f *flow) (up, down int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, f)
	if s.perServer[f.grants.Server]--; s.perServer[f.grants.Server] <= 0 {
		delete(s.perServer, f.grants.Server)
	}
	return f.up.Load() - f.seenUp, f.down.Load() - f.seenDown
}

// count of open flows.
func (s *flows) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// sweep stops what is over its limits, and returns the bytes that passed since the last one.
func (s *flows) sweep(now time.Time, limits *Limits) (up, down int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.all {
		nowUp, nowDown := f.up.Load(), f.down.Load()
		if nowUp != f.seenUp || nowDown != f.seenDown || f.activeAt.IsZero() {
			f.activeAt = now
		}
		up, down = up+nowUp-f.seenUp, down+nowDown-f.seenDown
		f.seenUp, f.seenDown = nowUp, nowDown
		idle := limits.Idle
		if f.half.Load() {
			idle = min(idle, halfIdle)
		}
		switch {
		case nowUp+nowDown > limits.TunnelBytes:
			f.stop(TooManyBytes)
		case now.Sub(f.opened) > limits.TunnelLifetime:
			f.stop(OpenTooLong)
		case now.Sub(f.activeAt) > idle:
			f.stop(IdleTooLong)
		}
	}
	return up, down
}

// stopIf stops the flows that a question holds for.
func (s *flows) stopIf(cause Cause, holds func(*flow) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.all {
		if holds(f) {
			f.stop(cause)
		}
	}
}
