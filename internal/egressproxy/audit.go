package egressproxy

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"time"
	"unicode"
)

// maxDetail bounds what is logged of texts that come from outside, in bytes.
const maxDetail = 256

// bounded is a text that comes from outside as it may be logged: of a bounded length, and without what would
// steer the terminal that shows it.
func bounded(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s[:min(len(s), maxDetail)])
}

// decision is what one audit line tells. It never holds a credential.
type decision struct {
	client netip.Addr
	// server is known once the credential was found to be its own; until then claimed is what was said.
	server, claimed string
	method          string
	host            string // in its normal form, or as it was sent where it has none
	port            uint16
	addr            netip.AddrPort
	reason          Reason
	detail          string
}

// decided writes the audit line of a decision. What came from outside is bounded and quoted, so that no name can make
// a line of its own.
func (p *Proxy) decided(d *decision) {
	verdict, level := "Denied", slog.LevelWarn
	if d.reason == Listed {
		verdict, level = "Allowed", slog.LevelInfo
	}
	p.metrics.decisions.WithLabelValues(verdict, string(d.reason)).Inc()
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs, slog.String("decision", verdict), slog.String("reason", string(d.reason)), slog.String("client", d.client.String()))
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, bounded(value)))
		}
	}
	text("server", d.server)
	if d.server == "" {
		text("claimedServer", d.claimed)
	}
	text("method", d.method)
	text("host", d.host)
	if d.port != 0 {
		attrs = append(attrs, slog.Int("port", int(d.port)))
	}
	if d.addr.IsValid() {
		attrs = append(attrs, slog.String("address", d.addr.Addr().String()))
	}
	text("detail", d.detail)
	p.log.LogAttrs(context.Background(), level, "decision", attrs...)
}

// finish takes a flow out, and writes the audit line of its end where it had been allowed.
func (p *Proxy) finish(f *flow) {
	up, down := p.flows.remove(f)
	p.metrics.bytes.WithLabelValues("up").Add(float64(up))
	p.metrics.bytes.WithLabelValues("down").Add(float64(down))
	if f.open.Load() {
		cause := f.ended()
		p.metrics.ends.WithLabelValues(string(cause)).Inc()
		addr := ""
		if at := f.addr.Load(); at != nil {
			addr = at.Addr().String()
		}
		p.log.LogAttrs(context.Background(), slog.LevelInfo, "end",
			slog.String("cause", string(cause)), slog.String("client", f.client.String()), slog.String("server", f.grants.Server),
			slog.String("method", f.method), slog.String("host", f.to.host), slog.Int("port", int(f.to.port)), slog.String("address", addr),
			slog.Int64("bytesUp", f.up.Load()), slog.Int64("bytesDown", f.down.Load()),
			slog.Float64("seconds", p.now().Sub(f.opened).Round(time.Millisecond).Seconds()))
	}
	p.work.Done()
}
