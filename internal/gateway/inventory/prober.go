package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	// probeTime bounds one handshake with its listing.
	probeTime = 30 * time.Second
	// firstRetry is how soon a handshake that failed is repeated; each further one takes twice as long, up to the interval.
	firstRetry = time.Second
	// tolerated is how many handshakes in a row may fail before a server that was ready is not any more.
	tolerated = 2
)

// Prober takes the inventory again and again, and knows by that whether the server is ready.
type Prober struct {
	dial     Dial
	interval time.Duration
	log      *slog.Logger
	now      func() time.Time
	found    func(*Inventory)

	mu       sync.Mutex
	last     *Inventory
	observed time.Time // when it was taken
	changed  time.Time // when it last differed from the one before; zero if it never did
	failures int       // since then
	err      error     // of the newest attempt
}

// NewProber makes a prober. Found is called with every inventory that was taken.
func NewProber(dial Dial, interval time.Duration, log *slog.Logger, found func(*Inventory)) *Prober {
	return &Prober{dial: dial, interval: interval, log: log, now: time.Now, found: found, err: errors.New("no handshake yet")}
}

// Run probes until the context ends.
func (p *Prober) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		limited, cancel := context.WithTimeout(ctx, probeTime)
		inventory, err := Take(limited, p.dial)
		cancel()
		if ctx.Err() == nil {
			timer.Reset(p.note(inventory, err))
		}
	}
}

// note takes a result in, and tells how long to wait for the next.
func (p *Prober) note(inventory *Inventory, err error) time.Duration {
	if err != nil {
		p.log.Warn("The handshake with the server failed", "error", err)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.err = err
		p.failures++
		return min(firstRetry<<min(p.failures-1, 16), p.interval)
	}
	p.found(inventory)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.observed = p.now()
	if p.last == nil || p.last.SHA256 != inventory.SHA256 {
		if p.last != nil {
			p.changed = p.observed
		}
		p.log.Info("The server's tools", "protocol", inventory.Protocol, "count", inventory.Count, "sha256", inventory.SHA256)
	}
	p.last, p.err, p.failures = inventory, nil, 0
	return p.interval
}

// Ready tells why the server is not ready; nil where it is.
func (p *Prober) Ready() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil && (p.last == nil || p.failures > tolerated) {
		return fmt.Errorf("the handshake with the server failed: %w", p.err)
	}
	return nil
}

// ServeHTTP serves the newest inventory, with the times of its observation and of its last change, if this
// process has seen one. Its tag is the digest of the tools, so that who knows them need not be told again.
func (p *Prober) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	body := struct {
		*Inventory
		Observed time.Time `json:"observed"`
		Changed  time.Time `json:"changed,omitzero"`
	}{p.last, p.observed.UTC(), p.changed.UTC()}
	p.mu.Unlock()
	if body.Inventory == nil {
		http.Error(w, "no inventory yet", http.StatusServiceUnavailable)
		return
	}
	tag := `"` + body.SHA256 + `"`
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}
