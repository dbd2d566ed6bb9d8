package egressproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// Resolver looks the addresses of a name up. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	// stagger is how long an address may take before the next is tried beside it (RFC 8305).
	stagger = 250 * time.Millisecond
	// maxAddresses of a name that are tried.
	maxAddresses = 8
)

// KeepAlive is what finds out that an end of a connection is gone, and keeps what lies between from forgetting it; how
// often and for how long is left to the kernel.
var KeepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: -1, Count: -1}

// errForbidden says that an address is one that the proxy never connects to.
var errForbidden = errors.New("forbidden address")

// resolve looks a name up, once, and checks every address of the answer: one that is forbidden
// refuses them all, since a name that also leads inside is not one to trust. The name is absolute, so that
// no search list makes another of it.
func (p *Proxy) resolve(ctx context.Context, st *state, to target) ([]netip.AddrPort, error) {
	answer, err := p.resolver.LookupNetIP(ctx, "ip", to.host+".")
	if err != nil {
		return nil, err
	}
	var v4, v6 []netip.AddrPort
	for _, addr := range answer {
		addr = addr.Unmap()
		if p.forbids(st, addr) {
			return []netip.AddrPort{netip.AddrPortFrom(addr, to.port)}, errForbidden
		}
		if addr.Is4() {
			v4 = append(v4, netip.AddrPortFrom(addr, to.port))
		} else {
			v6 = append(v6, netip.AddrPortFrom(addr, to.port))
		}
	}
	if len(v4)+len(v6) == 0 {
		return nil, errors.New("no address")
	}
	return interleave(v6, v4), nil
}

// interleave takes from both in turn, and keeps as many as are tried.
func interleave(a, b []netip.AddrPort) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(a)+len(b))
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out[:min(len(out), maxAddresses)]
}

// dial connects to the first address that answers. The next one is tried when one fails or takes
// long.
func (p *Proxy) dial(ctx context.Context, addrs []netip.AddrPort) (*net.TCPConn, error) {
	if len(addrs) == 1 {
		return p.dialOne(untilDeadline{ctx}, addrs[0])
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn *net.TCPConn
		err  error
	}
	results, over := make(chan result), make(chan struct{})
	defer close(over)
	try := func(addr netip.AddrPort) {
		conn, err := p.dialOne(ctx, addr)
		select {
		case results <- result{conn, err}:
		case <-over:
			if conn != nil {
				_ = conn.Close()
			}
		}
	}
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for started := 0; ; {
		select {
		case <-next.C:
			go try(addrs[started])
			if started++; started < len(addrs) {
				next.Reset(stagger)
			}
		case r := <-results:
			if r.err == nil {
				return r.conn, nil
			}
			if errs = append(errs, r.err); len(errs) == len(addrs) {
				return nil, errors.Join(errs...)
			}
			if started < len(addrs) {
				next.Reset(0)
			}
		}
	}
}

// dialOne connects to exactly this address, which is checked once more by what the kernel is asked for.
func (p *Proxy) dialOne(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
	dialer := net.Dialer{KeepAliveConfig: KeepAlive, Control: func(_, address string, _ syscall.RawConn) error {
		asked, err := netip.ParseAddrPort(address)
		if err != nil || asked != addr || p.forbids(p.state.Load(), asked.Addr()) {
			return fmt.Errorf("%w: %s", errForbidden, address)
		}
		return nil
	}}
	conn, err := dialer.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// untilDeadline is a context that ends at its deadline and no sooner: net's dialer then needs no goroutine that
// watches over it.
type untilDeadline struct{ context.Context }

func (untilDeadline) Done() <-chan struct{} { return nil }
