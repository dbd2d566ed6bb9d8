// Package agent runs the parts of the proof that NetworkPolicies are enforced: the canary, the probers
// and the init container. Package probe says what they show.
package agent

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// attemptTimeout bounds an attempt, from the first packet to the greeting. A packet that a policy drops is
// not answered, so that this is also how long it takes to see that a port is closed. The first packet is
// sent again after a second: one that was lost does not look like one that was dropped.
const attemptTimeout = 1500 * time.Millisecond

// reacher makes an attempt at one port.
type reacher func(ctx context.Context, target netip.AddrPort) probe.Attempt

// reach connects to a port of the canary and reads its greeting.
func reach(ctx context.Context, target netip.AddrPort) probe.Attempt {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", target.String())
	if err != nil {
		return failed(err)
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return probe.Odd
	}
	want := probe.Greeting(int(target.Port()))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		return probe.Odd
	}
	return probe.Reached
}

// failed tells what a policy may have done to an attempt from one that was never made: a pod that is out of
// memory or of files is not isolated.
func failed(err error) probe.Attempt {
	if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
		return probe.Blocked
	}
	for _, answer := range []syscall.Errno{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, answer) {
			return probe.Blocked
		}
	}
	return probe.Odd
}

// reachPairs tries every address at the same time, and of each the port that is opened last: the canary
// was still there when the other one did not answer.
func reachPairs(ctx context.Context, addresses []netip.Addr, try reacher) []probe.Pair {
	out := make([]probe.Pair, len(addresses))
	var wg sync.WaitGroup
	for i, address := range addresses {
		out[i].Address = address
		allowed, denied := netip.AddrPortFrom(address, probe.AllowedPort), netip.AddrPortFrom(address, probe.DeniedPort)
		wg.Go(func() {
			out[i].Denied = try(ctx, denied)
			out[i].Allowed = try(ctx, allowed)
		})
	}
	wg.Wait()
	return out
}
