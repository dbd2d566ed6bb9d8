// Package egressproxy is the proxy through which servers reach hosts by name: HTTP CONNECT for TLS,
// and plain HTTP. Every decision is made here, on what the access list says now.
//
// It is built on the standard library, x/net/idna and cryptobyte. The proxies in Go that exist (goproxy,
// smokescreen on a fork of it, martian) start from net/http's server, and would have to be got around at each of
// the points that matter here: the strict reading of a request before anything is made of it,
// the hello that is looked at before anything is forwarded, the address that is dialled being the one that was checked, and
// an idle tunnel that costs two small stacks and no buffer. What is left of them is less than a page.
package egressproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go4.org/netipx"
)

// Limits bound what servers can make the proxy hold. Each must be positive.
type Limits struct {
	// HeadBytes and HeadTime bound the head of a request.
	HeadBytes int
	HeadTime  time.Duration
	// HelloBytes and HelloTime bound the ClientHello of a tunnel.
	HelloBytes int
	HelloTime  time.Duration
	// ConnectTime bounds looking a host up and connecting to it.
	ConnectTime time.Duration
	// Pending bounds the connections that have not yet shown a credential and an allowed target, and
	// PendingPerClient those of one address.
	Pending, PendingPerClient int
	// Tunnels bounds what is open or being opened to hosts, plain HTTP too, and TunnelsPerServer that of
	// one server.
	Tunnels, TunnelsPerServer int
	// TunnelBytes bounds what one may carry both ways, TunnelLifetime how long one may last, and Idle how
	// long nothing may pass. They are looked at every second.
	TunnelBytes    int64
	TunnelLifetime time.Duration
	Idle           time.Duration
}

// DefaultLimits are generous to servers, and keep the proxy within some hundred MiB.
func DefaultLimits() Limits {
	return Limits{
		HeadBytes: 16 << 10, HeadTime: 10 * time.Second,
		HelloBytes: 16 << 10, HelloTime: 10 * time.Second,
		ConnectTime: 10 * time.Second,
		Pending:     4096, PendingPerClient: 256,
		Tunnels: 8192, TunnelsPerServer: 1024,
		TunnelBytes: 64 << 30, TunnelLifetime: 24 * time.Hour, Idle: time.Hour,
	}
}

// Validate tells which limit is not positive.
func (l *Limits) Validate() error {
	for name, value := range map[string]int64{
		"HeadBytes": int64(l.HeadBytes), "HeadTime": int64(l.HeadTime), "HelloBytes": int64(l.HelloBytes), "HelloTime": int64(l.HelloTime),
		"ConnectTime": int64(l.ConnectTime), "Pending": int64(l.Pending), "PendingPerClient": int64(l.PendingPerClient),
		"Tunnels": int64(l.Tunnels), "TunnelsPerServer": int64(l.TunnelsPerServer),
		"TunnelBytes": l.TunnelBytes, "TunnelLifetime": int64(l.TunnelLifetime), "Idle": int64(l.Idle),
	} {
		if value <= 0 {
			return fmt.Errorf("limit %s: must be positive", name)
		}
	}
	return nil
}

// Config of a proxy. All is required.
type Config struct {
	// ListPath is the file with the access list.
	ListPath string
	Limits   Limits
	Resolver Resolver
	// Log gets the audit lines and what happens to the proxy itself.
	Log *slog.Logger
	// Registry gets the metrics.
	Registry prometheus.Registerer
}

// Proxy lets servers out to where the access list says.
type Proxy struct {
	limits   Limits
	listPath string
	resolver Resolver
	log      *slog.Logger
	metrics  *metrics
	now      func() time.Time
	exempt   *netipx.IPSet // what tests may connect to although it is forbidden; nil in production

	state     atomic.Pointer[state] // nil until an access list was read
	listError atomic.Pointer[error]
	listMu    sync.Mutex
	listRead  bool // what follows is what the file said last
	listData  []byte

	conns    chan *net.TCPConn // to goroutines that wait for one
	idle     chan struct{}     // a place for each of them
	pending  pending
	flows    *flows
	plain    *plainServer
	work     sync.WaitGroup // connections being handled, and flows
	stopping atomic.Bool
}

// New makes a proxy, and reads the access list for the first time: without a good one it refuses everything
// until there is one.
func New(config Config) (*Proxy, error) {
	if err := config.Limits.Validate(); err != nil {
		return nil, err
	}
	p := &Proxy{
		limits: config.Limits, listPath: config.ListPath, resolver: config.Resolver, log: config.Log, now: time.Now,
		conns: make(chan *net.TCPConn), idle: make(chan struct{}, maxIdle),
		pending: pending{perClient: map[netip.Addr]int{}}, flows: newFlows(),
	}
	p.metrics = newMetrics(config.Registry, p)
	p.plain = newPlainServer(p)
	p.reload()
	return p, nil
}

// Serve takes connections until the context ends. Then it takes no more, and gives those that are open the
// time to end by themselves before it ends them.
func (p *Proxy) Serve(ctx context.Context, listener net.Listener, drain time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var background sync.WaitGroup
	defer background.Wait()
	running, stopRunning := context.WithCancel(context.Background())
	defer stopRunning()
	background.Go(func() { p.watchList(running) })
	background.Go(func() { p.watchFlows(running) })
	background.Go(p.plain.run)
	defer p.plain.stop()

	stopped := context.AfterFunc(ctx, func() {
		p.stopping.Store(true)
		_ = listener.Close()
	})
	defer stopped()
	err := p.accept(ctx, listener)
	p.stopping.Store(true)
	p.drain(drain)
	return err
}

func (p *Proxy) accept(ctx context.Context, listener net.Listener) error {
	const pause = 20 * time.Millisecond
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			p.work.Add(1)
			select {
			case p.conns <- conn.(*net.TCPConn):
			default: // nobody waits for one
				go p.handleAll(ctx, conn.(*net.TCPConn))
			}
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		default: // such as no file descriptor left
			p.log.Error("Cannot accept a connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
}

// maxIdle is how many goroutines wait for connections, with stacks that have grown: growing one is a twentieth of
// the processor time that opening a tunnel takes.
const maxIdle = 64

// handleAll deals with a connection, and then with those that come.
func (p *Proxy) handleAll(ctx context.Context, conn *net.TCPConn) {
	for {
		p.handle(conn)
		select {
		case p.idle <- struct{}{}:
		default:
			return // enough are waiting
		}
		select {
		case conn = <-p.conns:
			<-p.idle
		case <-ctx.Done():
			return
		}
	}
}

// drain waits for what is open, and ends it where that takes too long.
func (p *Proxy) drain(limit time.Duration) {
	done := make(chan struct{})
	go func() {
		p.work.Wait()
		close(done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return
	case <-timer.C:
	}
	p.log.Info("Ending what is still open", "tunnels", p.flows.count())
	p.flows.stopIf(ProxyStopped, func(*flow) bool { return true })
	timer.Reset(time.Second)
	select {
	case <-done:
	case <-timer.C: // what is left has not shown yet what it wants
	}
}

// watchFlows sweeps until the context ends.
func (p *Proxy) watchFlows(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.sweep(now)
		}
	}
}

func (p *Proxy) sweep(now time.Time) {
	up, down := p.flows.sweep(now, &p.limits)
	p.metrics.bytes.WithLabelValues("up").Add(float64(up))
	p.metrics.bytes.WithLabelValues("down").Add(float64(down))
}

// HealthHandler serves /healthz and /readyz.
func (p *Proxy) HealthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := p.Ready(); err != nil {
			http.Error(w, bounded(err.Error()), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}
