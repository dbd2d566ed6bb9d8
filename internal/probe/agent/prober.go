package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/probe"
)

const (
	// round is how often a prober probes.
	round = 5 * time.Second
	// fresh is how long a finding holds: longer than two rounds in which every attempt times out.
	fresh = 20 * time.Second
	// again is how soon a finding that is new is looked at again, and confirmations in how many rounds
	// one after the other what must be closed has to be reached, or not to be reached, to be believed.
	again         = time.Second
	confirmations = 2
	// settling is how long a CNI is given to put the policies of a new pod into force.
	settling = 10 * time.Second
	// maxAddressFile bounds what is read of the file of addresses, in bytes.
	maxAddressFile = 4096
)

// ReachedError says what a prober reached that it must not.
type ReachedError struct{ Detail string }

func (e *ReachedError) Error() string { return "reached what no NetworkPolicy opens: " + e.Detail }

// Prober probes from one node, again and again, and answers /started once it has made a round and
// /ready while its newest finding says that all is as it must be.
type Prober struct {
	// Restricted probers must reach one port of the canary and not the other; the others must reach both.
	Restricted bool
	// Addresses of the canary: a file, as a mounted ConfigMap keeps it up to date.
	Addresses string
	// Log of findings that differ from the one before.
	Log *slog.Logger

	try  reacher
	wait func(context.Context, time.Duration)
	now  func() time.Time
	// ready is until when, in Unix nanoseconds.
	ready atomic.Int64
	// started says that a first finding is there that is not the worst.
	started atomic.Bool
	// last is what was logged last.
	last string
}

// NewProber returns a prober for the real network and clock.
func NewProber(restricted bool, addresses string, log *slog.Logger) *Prober {
	return &Prober{Restricted: restricted, Addresses: addresses, Log: log, try: reach, wait: wait, now: time.Now}
}

// Run probes until the context ends, or until what must be closed was reached, which is a *ReachedError: the
// code with which the process ends then tells the operator, which no readiness could. A container that is
// not ready may just as well be one that does not run.
func (p *Prober) Run(ctx context.Context) error {
	start, same, before := p.now(), 0, probe.Result("")
	for ctx.Err() == nil {
		result, detail := p.look(ctx)
		p.note(result, detail)
		if same++; result != before {
			same, before = 1, result
		}
		settled := p.started.Load() || p.now().Sub(start) >= settling
		switch {
		case result == probe.NotEnforced && same >= confirmations && settled:
			return &ReachedError{detail}
		case result == probe.NotEnforced:
			p.ready.Store(0)
		case result == probe.Proven && same >= confirmations:
			p.ready.Store(p.now().Add(fresh).UnixNano())
			p.started.Store(true)
		case result == probe.Unknown && settled:
			p.started.Store(true)
		}
		if same < confirmations || !p.started.Load() {
			p.wait(ctx, again)
		} else {
			p.wait(ctx, round)
		}
	}
	return nil
}

// look makes one round.
func (p *Prober) look(ctx context.Context) (probe.Result, string) {
	addresses, err := readAddresses(p.Addresses)
	if err != nil {
		return probe.Unknown, err.Error()
	}
	if p.Restricted {
		return probe.Judge(reachPairs(ctx, addresses, p.try))
	}
	if len(addresses) == 0 {
		return probe.Unknown, "the address of the canary is not known"
	}
	for _, address := range addresses {
		target := netip.AddrPortFrom(address, probe.DeniedPort)
		if attempt := p.try(ctx, target); attempt != probe.Reached {
			return probe.Unknown, fmt.Sprintf("%s %s", target, attempt)
		}
	}
	return probe.Proven, "the canary answers"
}

// note logs what differs from the round before.
func (p *Prober) note(result probe.Result, detail string) {
	if said := string(result) + detail; said != p.last {
		p.last = said
		p.Log.Info("Probed", "result", result, "detail", detail)
	}
}

// ServeHTTP answers the kubelet.
func (p *Prober) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ok := false
	switch r.URL.Path {
	case "/started":
		ok = p.started.Load()
	case "/ready":
		ok = p.now().UnixNano() < p.ready.Load()
	}
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// Serve answers the kubelet until the context ends.
func (p *Prober) Serve(ctx context.Context, address string) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: p, ReadTimeout: attemptTimeout, WriteTimeout: attemptTimeout, IdleTimeout: fresh, MaxHeaderBytes: maxAddressFile}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// readAddresses reads the file that the kubelet keeps up to date; one that is not there has none yet.
func readAddresses(path string) ([]netip.Addr, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("addresses of the canary: %w", err)
	case info.Size() > maxAddressFile:
		return nil, fmt.Errorf("addresses of the canary: %s has more than %d bytes", path, maxAddressFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("addresses of the canary: %w", err)
	}
	return probe.ParseAddresses(string(raw))
}

// wait until the time is over or the context ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
