package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/probe"
)

const loopback = "127.0.0.1"

// The canary answers on both ports, and only its own greeting counts.
func TestReach(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Canary(ctx, loopback) }()
	address := netip.MustParseAddr(loopback)
	for _, port := range []uint16{probe.AllowedPort, probe.DeniedPort} {
		target := netip.AddrPortFrom(address, port)
		got := probe.Blocked
		for deadline := time.Now().Add(10 * time.Second); got != probe.Reached && time.Now().Before(deadline); {
			got = reach(ctx, target)
		}
		if got != probe.Reached {
			t.Errorf("%s was %s", target, got)
		}
	}
	pairs := reachPairs(ctx, []netip.Addr{address}, reach)
	if len(pairs) != 1 || pairs[0] != (probe.Pair{Address: address, Allowed: probe.Reached, Denied: probe.Reached}) {
		t.Errorf("%+v", pairs)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := reach(t.Context(), netip.AddrPortFrom(address, probe.DeniedPort)); got != probe.Blocked {
		t.Errorf("a canary that ended was %s", got)
	}
}

// A canary that has one port and not the other would make every closed port look closed by policy.
func TestCanaryNeedsBothPorts(t *testing.T) {
	taken, err := net.Listen("tcp", net.JoinHostPort(loopback, "29002"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	if err := Canary(t.Context(), loopback); err == nil {
		t.Error("it runs without its second port")
	}
}

// An attempt that was never made shows nothing.
func TestReachThatFails(t *testing.T) {
	for err, want := range map[error]probe.Attempt{
		syscall.ECONNREFUSED: probe.Blocked, syscall.EHOSTUNREACH: probe.Blocked, syscall.EPERM: probe.Blocked, os.ErrDeadlineExceeded: probe.Blocked,
		syscall.EMFILE: probe.Odd, syscall.ENOBUFS: probe.Odd, syscall.EADDRNOTAVAIL: probe.Odd, context.Canceled: probe.Odd,
	} {
		if got := failed(&net.OpError{Op: "dial", Err: err}); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := reach(ended, netip.MustParseAddrPort("127.0.0.1:1")); got != probe.Odd {
		t.Errorf("a probe that was told to end: %s", got)
	}
}

// What accepts a connection and is not the canary was not the canary.
func TestReachOfAnother(t *testing.T) {
	for name, greeting := range map[string]string{
		"says nothing": "", "says something else": "HTTP/1.1 400 Bad Request\r\n\r\n and more of it", "is the other port": probe.Greeting(probe.AllowedPort),
	} {
		listener, err := net.Listen("tcp", net.JoinHostPort(loopback, "0"))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(conn, greeting)
				_ = conn.Close()
			}
		}()
		if got := reach(t.Context(), netip.MustParseAddrPort(listener.Addr().String())); got != probe.Odd {
			t.Errorf("one that %s was %s", name, got)
		}
		_ = listener.Close()
	}
}

// world is a network and a clock that tests turn.
type world struct {
	mu              sync.Mutex
	now             time.Time
	allowed, denied probe.Attempt
	// tick is called after each wait, with the time since the start.
	tick func(*world, time.Duration)
}

func (w *world) try(_ context.Context, target netip.AddrPort) probe.Attempt {
	w.mu.Lock()
	defer w.mu.Unlock()
	if target.Port() == probe.AllowedPort {
		return w.allowed
	}
	return w.denied
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (w *world) wait(_ context.Context, d time.Duration) {
	w.mu.Lock()
	w.now = w.now.Add(d)
	since := w.now.Sub(epoch)
	w.mu.Unlock()
	w.tick(w, since)
}

func (w *world) set(allowed, denied probe.Attempt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowed, w.denied = allowed, denied
}

func newWorld(allowed, denied probe.Attempt) *world {
	return &world{now: epoch, allowed: allowed, denied: denied, tick: func(*world, time.Duration) {}}
}

func newTestProber(t *testing.T, w *world, restricted bool, addresses string) *Prober {
	t.Helper()
	path := filepath.Join(t.TempDir(), "addresses")
	if addresses != "" {
		if err := os.WriteFile(path, []byte(addresses), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := NewProber(restricted, path, slog.New(slog.DiscardHandler))
	p.try, p.wait, p.now = w.try, w.wait, w.clock
	return p
}

func (p *Prober) answers(path string) bool {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code == http.StatusOK
}

// run lets a prober run for so long and tells when it first was ready, and how it ended.
func run(t *testing.T, w *world, p *Prober, length time.Duration) (readyAfter time.Duration, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	readyAfter = -1
	p.wait = func(ctx context.Context, d time.Duration) {
		since := w.clock().Sub(epoch)
		if readyAfter < 0 && p.answers("/ready") {
			readyAfter = since
		}
		if since >= length {
			cancel()
		}
		w.wait(ctx, d)
	}
	return readyAfter, p.Run(ctx)
}

func TestProberFindsAllAsItMustBe(t *testing.T) {
	for name, tc := range map[string]struct {
		restricted      bool
		allowed, denied probe.Attempt
		ready           bool
	}{
		"restricted":                            {true, probe.Reached, probe.Blocked, true},
		"restricted, the canary is down":        {true, probe.Blocked, probe.Blocked, false},
		"restricted, somebody else answers":     {true, probe.Reached, probe.Odd, false},
		"unrestricted":                          {false, probe.Blocked, probe.Reached, true},
		"unrestricted, the canary is down":      {false, probe.Blocked, probe.Blocked, false},
		"unrestricted, somebody else answers":   {false, probe.Reached, probe.Odd, false},
		"unrestricted, where nothing is closed": {false, probe.Reached, probe.Reached, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(tc.allowed, tc.denied)
			p := newTestProber(t, w, tc.restricted, "10.96.0.9")
			after, err := run(t, w, p, time.Minute)
			if err != nil || (after >= 0) != tc.ready || p.answers("/ready") != tc.ready || !p.answers("/started") {
				t.Errorf("ready after %s, ready now %v, started %v, error %v", after, p.answers("/ready"), p.answers("/started"), err)
			}
			if tc.ready && after > 2*again {
				t.Errorf("ready after %s", after)
			}
		})
	}
}

func TestProberWithoutAddress(t *testing.T) {
	for name, addresses := range map[string]string{"no file": "", "no address": " ", "no sense": "canary", "a book": strings.Repeat("1", maxAddressFile+1)} {
		for _, restricted := range []bool{true, false} {
			w := newWorld(probe.Reached, probe.Blocked)
			if !restricted {
				w.set(probe.Reached, probe.Reached)
			}
			p := newTestProber(t, w, restricted, addresses)
			if after, err := run(t, w, p, time.Minute); after >= 0 || err != nil {
				t.Errorf("%s, restricted %v: ready after %s, error %v", name, restricted, after, err)
			}
		}
	}
}

// A prober that reaches what it must not ends within seconds and was never ready.
func TestProberThatReachesTooMuch(t *testing.T) {
	w := newWorld(probe.Reached, probe.Reached)
	p := newTestProber(t, w, true, "10.96.0.9")
	after, err := run(t, w, p, time.Minute)
	if reached := (*ReachedError)(nil); !errors.As(err, &reached) || !strings.Contains(reached.Detail, "10.96.0.9:29002 reached") {
		t.Errorf("ended with %v", err)
	}
	if after >= 0 || p.answers("/started") {
		t.Errorf("ready after %s, started %v: the finding before would not count any more", after, p.answers("/started"))
	}
	if lasted := w.clock().Sub(epoch); lasted < settling || lasted > settling+round {
		t.Errorf("it took %s, want about %s: the policies of a new pod may come late", lasted, settling)
	}
}

// A CNI that puts the policies of a new pod into force late is no CNI that does not enforce.
func TestProberOfALateCNI(t *testing.T) {
	w := newWorld(probe.Reached, probe.Reached)
	w.tick = func(w *world, since time.Duration) {
		if since >= 3*time.Second {
			w.set(probe.Reached, probe.Blocked)
		}
	}
	p := newTestProber(t, w, true, "10.96.0.9")
	if after, err := run(t, w, p, time.Minute); err != nil || after < 3*time.Second || after > 3*time.Second+2*again {
		t.Errorf("ready after %s, error %v", after, err)
	}
}

// Enforcement that is turned off under a prober that runs is told within seconds.
func TestProberWhenEnforcementEnds(t *testing.T) {
	w := newWorld(probe.Reached, probe.Blocked)
	w.tick = func(w *world, since time.Duration) {
		if since >= time.Minute {
			w.set(probe.Reached, probe.Reached)
		}
	}
	p := newTestProber(t, w, true, "10.96.0.9")
	_, err := run(t, w, p, time.Hour)
	if reached := (*ReachedError)(nil); !errors.As(err, &reached) {
		t.Fatalf("ended with %v", err)
	}
	if lasted := w.clock().Sub(epoch); lasted > time.Minute+2*round || p.answers("/ready") {
		t.Errorf("told after %s, ready %v", lasted, p.answers("/ready"))
	}
}

// A finding holds for a while and no longer.
func TestProberWhenTheCanaryDies(t *testing.T) {
	w := newWorld(probe.Reached, probe.Blocked)
	var lost time.Duration
	p := newTestProber(t, w, true, "10.96.0.9")
	w.tick = func(w *world, since time.Duration) {
		if since >= time.Minute {
			w.set(probe.Blocked, probe.Blocked)
		}
		if lost == 0 && since > time.Minute && !p.answers("/ready") {
			lost = since
		}
	}
	if _, err := run(t, w, p, 2*time.Minute); err != nil {
		t.Fatal(err)
	}
	if lost == 0 || lost > time.Minute+fresh+round {
		t.Errorf("not ready after %s, want within %s of the minute", lost, fresh+round)
	}
}

func TestServer(t *testing.T) {
	for name, tc := range map[string]struct {
		require         bool
		addresses       string
		allowed, denied probe.Attempt
		want            probe.Result
		start           bool
		within          time.Duration
	}{
		"proven":                        {false, "10.96.0.9", probe.Reached, probe.Blocked, probe.Proven, true, 0},
		"proven, required":              {true, "10.96.0.9", probe.Reached, probe.Blocked, probe.Proven, true, 0},
		"not enforced":                  {false, "10.96.0.9", probe.Reached, probe.Reached, probe.NotEnforced, true, glance},
		"not enforced, required":        {true, "10.96.0.9", probe.Reached, probe.Reached, probe.NotEnforced, false, settling},
		"no canary answers":             {false, "10.96.0.9", probe.Blocked, probe.Blocked, probe.Unknown, true, glance},
		"no canary answers, required":   {true, "10.96.0.9", probe.Blocked, probe.Blocked, probe.Unknown, false, patience},
		"another answers, required":     {true, "10.96.0.9", probe.Odd, probe.Blocked, probe.Unknown, false, patience},
		"no address":                    {false, "", probe.Reached, probe.Blocked, probe.Unknown, true, 0},
		"no address, required":          {true, "", probe.Reached, probe.Blocked, probe.Unknown, false, 0},
		"no sense in it":                {false, "canary", probe.Reached, probe.Blocked, probe.Unknown, true, 0},
		"no sense in it, required":      {true, "canary", probe.Reached, probe.Blocked, probe.Unknown, false, 0},
		"both families, required":       {true, "10.96.0.9,fd00::9", probe.Reached, probe.Blocked, probe.Proven, true, 0},
		"the canary answers odd things": {false, "10.96.0.9", probe.Reached, probe.Odd, probe.Unknown, true, glance},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(tc.allowed, tc.denied)
			s := NewServer(tc.require, tc.addresses)
			s.try, s.wait, s.now = w.try, w.wait, w.clock
			finding, start := s.Run(t.Context())
			if finding.Result != tc.want || start != tc.start {
				t.Errorf("%+v, start %v", finding, start)
			}
			if lasted := w.clock().Sub(epoch); lasted > tc.within+again {
				t.Errorf("it took %s, want at most %s", lasted, tc.within)
			}
		})
	}
}

// Where a proof is required, a server is held back until there is one.
func TestServerIsHeldBack(t *testing.T) {
	w := newWorld(probe.Blocked, probe.Blocked)
	w.tick = func(w *world, since time.Duration) {
		if since >= 5*time.Minute {
			w.set(probe.Reached, probe.Blocked)
		}
	}
	s := NewServer(true, "10.96.0.9")
	s.try, s.wait, s.now = w.try, w.wait, w.clock
	finding, start := s.Run(t.Context())
	if lasted := w.clock().Sub(epoch); !start || finding.Result != probe.Proven || lasted < 5*time.Minute || lasted > 5*time.Minute+again {
		t.Errorf("%+v, start %v after %s", finding, start, lasted)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.set(probe.Blocked, probe.Blocked)
	if _, start := s.Run(ctx); start {
		t.Error("a server starts when its probe is told to end")
	}
}
