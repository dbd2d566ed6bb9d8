package egressproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// reloadEvery is how often the access list is read. Reading it costs less than to trust that every way
// of replacing a file is noticed.
const reloadEvery = 500 * time.Millisecond

// state is what decisions depend on. It is replaced as a whole.
type state struct {
	policy *access.Policy
	own    map[netip.Addr]bool // the proxy's own addresses
}

// watchList reads the access list again and again until the context ends.
func (p *Proxy) watchList(ctx context.Context) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.reload()
		}
	}
}

// reload reads the access list. A list that cannot be read changes nothing but the readiness: what was
// agreed last stays in force.
func (p *Proxy) reload() {
	p.listMu.Lock()
	defer p.listMu.Unlock()
	data, err := readList(p.listPath)
	if err == nil && p.listRead && bytes.Equal(data, p.listData) {
		return
	}
	p.listRead, p.listData = err == nil, data
	var st *state
	if err == nil {
		st, err = newState(data)
	}
	p.use(st, err)
}

// use puts a new state in force and stops what it no longer allows; or tells that there is none.
func (p *Proxy) use(st *state, err error) {
	if err != nil {
		if old := p.listError.Swap(&err); old == nil || (*old).Error() != err.Error() {
			p.metrics.listLoads.WithLabelValues("error").Inc()
			p.log.Error("The access list cannot be used: what was agreed last stays in force", "error", bounded(err.Error()), "inForce", p.state.Load() != nil)
		}
		p.metrics.listCurrent.Set(0)
		return
	}
	p.state.Store(st)
	p.listError.Store(nil)
	p.metrics.listLoads.WithLabelValues("ok").Inc()
	p.metrics.listCurrent.Set(1)
	p.metrics.listServers.Set(float64(st.policy.Servers()))
	p.log.Info("The access list is in force", "servers", st.policy.Servers())
	p.flows.stopIf(RuleWithdrawn, func(f *flow) bool { return !p.stillAllows(st, f) })
}

func readList(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read access list: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, access.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read access list: %w", err)
	}
	return data, nil
}

func newState(data []byte) (*state, error) {
	policy, err := access.Parse(data)
	if err != nil {
		return nil, err
	}
	own, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	return &state{policy: policy, own: own}, nil
}

func ownAddresses() (map[netip.Addr]bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the proxy's own addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, addr := range addrs {
		prefix, err := netip.ParsePrefix(addr.String())
		if err != nil {
			return nil, fmt.Errorf("list the proxy's own addresses: %w", err)
		}
		own[prefix.Addr().Unmap().WithZone("")] = true
	}
	return own, nil
}

// forbids holds for an address that nobody is connected to.
func (p *Proxy) forbids(st *state, addr netip.Addr) bool {
	addr = addr.Unmap()
	if p.exempt != nil && p.exempt.Contains(addr) {
		return false
	}
	return st.own[addr] || st.policy.Forbids(addr)
}

// stillAllows holds where a flow would be allowed if it were opened now.
func (p *Proxy) stillAllows(st *state, f *flow) bool {
	grants := st.policy.Current(f.grants)
	if grants == nil {
		return false
	}
	verdict := grants.Judge(f.to.host, f.to.port)
	addr := f.addr.Load()
	return verdict.Port && (verdict.ECH || !f.ech.Load()) && (addr == nil || !p.forbids(st, addr.Addr()))
}

// errNoList is why the proxy is not ready before it has read an access list.
var errNoList = errors.New("no access list was read yet")

// Ready tells why the proxy should get no connections; nil where it should.
func (p *Proxy) Ready() error {
	switch err := p.listError.Load(); {
	case p.stopping.Load():
		return errors.New("stopping")
	case err != nil:
		return *err
	case p.state.Load() == nil:
		return errNoList
	}
	return nil
}
