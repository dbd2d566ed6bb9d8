package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// caller makes one request, and returns when it is answered.
type caller func() error

// target is what is measured.
type target struct {
	name  string
	open  func(connections int) ([]caller, error)
	calls []caller
	taken []time.Duration // by each request
	spent time.Duration   // in all turns
}

func request(id int) []byte {
	return fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"search","arguments":{"query":"%s"},"_meta":{"progressToken":%d}}}`, id, strings.Repeat("what to look for ", 10), id)
}

// opener opens connections to an HTTP endpoint: each with a session of its own, or all without.
func opener(address string, oneSession bool) func(int) ([]caller, error) {
	return func(connections int) ([]caller, error) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}}
		session := ""
		if oneSession {
			response, err := post(client, address, "", []byte(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}`))
			if err != nil {
				return nil, err
			}
			session = response.Get("Mcp-Session-Id")
		}
		calls := make([]caller, connections)
		for i := range calls {
			body := request(i + 1)
			calls[i] = func() error {
				_, err := post(client, address, session, body)
				return err
			}
		}
		return calls, nil
	}
}

func post(client *http.Client, address, session string, body []byte) (http.Header, error) {
	r, err := http.NewRequest(http.MethodPost, address+"/mcp", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	r.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Mcp-Protocol-Version": {"2025-11-25"}}
	if session != "" {
		r.Header["Mcp-Session-Id"] = []string{session}
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"result"`)) {
		return nil, fmt.Errorf("request: %d %s %w", response.StatusCode, answer, err)
	}
	return response.Header, nil
}

// pipe is a process on stdio that many callers speak to at once.
type pipe struct {
	mu      sync.Mutex
	in      *os.File
	waiting map[string]chan struct{}
}

func newPipe() (*pipe, func(), error) {
	cmd := exec.Command(os.Args[0], "stdio")
	read, in, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	cmd.Stdin = read
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("pipe: %w", err)
	}
	_ = read.Close()
	p := &pipe{in: in, waiting: map[string]chan struct{}{}}
	go func() {
		for lines := bufio.NewReader(out); ; {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			if m, err := message.Parse(line); err == nil {
				p.mu.Lock()
				answered := p.waiting[string(m.ID)]
				p.mu.Unlock()
				answered <- struct{}{}
			}
		}
	}()
	return p, func() { _ = in.Close(); _ = cmd.Wait() }, nil
}

func (p *pipe) open(connections int) ([]caller, error) {
	calls := make([]caller, connections)
	for i := range calls {
		line := append(request(i+1), '\n')
		answered := make(chan struct{}, 1)
		p.waiting[fmt.Sprint(i+1)] = answered
		calls[i] = func() error {
			p.mu.Lock()
			_, err := p.in.Write(line)
			p.mu.Unlock()
			if err != nil {
				return fmt.Errorf("pipe: %w", err)
			}
			<-answered
			return nil
		}
	}
	return calls, nil
}

// measure lets the targets take turns.
func measure(targets []target, connections, rounds int, turn time.Duration) error {
	for i := range targets {
		var err error
		if targets[i].calls, err = targets[i].open(connections); err != nil {
			return fmt.Errorf("%s: %w", targets[i].name, err)
		}
		if err := targets[i].turn(turn / 4); err != nil { // to warm up
			return fmt.Errorf("%s: %w", targets[i].name, err)
		}
		targets[i].taken, targets[i].spent = nil, 0
	}
	for range rounds {
		for i := range targets {
			if err := targets[i].turn(turn); err != nil {
				return fmt.Errorf("%s: %w", targets[i].name, err)
			}
		}
	}
	return nil
}

// turn calls by all connections at once, each as soon as its last call was answered.
func (t *target) turn(length time.Duration) error {
	var all sync.WaitGroup
	taken, errs := make([][]time.Duration, len(t.calls)), make([]error, len(t.calls))
	began := time.Now()
	for i, call := range t.calls {
		all.Go(func() {
			for now := time.Now(); now.Sub(began) < length; {
				if errs[i] = call(); errs[i] != nil {
					return
				}
				after := time.Now()
				taken[i] = append(taken[i], after.Sub(now))
				now = after
			}
		})
	}
	all.Wait()
	t.spent += time.Since(began)
	for i := range taken {
		if errs[i] != nil {
			return errs[i]
		}
		t.taken = append(t.taken, taken[i]...)
	}
	return nil
}

func (t *target) quantile(q float64) time.Duration {
	return t.taken[min(int(q*float64(len(t.taken))), len(t.taken)-1)]
}

func (t *target) perSecond() float64 { return float64(len(t.taken)) / t.spent.Seconds() }

// report prints what was measured, and tells whether the gateway is where it should be: a median of at most the bare proxy's plus 100
// microseconds, and 90 % of its throughput.
func report(targets []target, connections int) bool {
	fmt.Printf("\n%d connections\n%-16s %12s %12s %12s\n", connections, "", "p50", "p99", "requests/s")
	for i := range targets {
		t := &targets[i]
		slices.Sort(t.taken)
		fmt.Printf("%-16s %12v %12v %12.0f\n", t.name, t.quantile(.5).Round(time.Microsecond), t.quantile(.99).Round(time.Microsecond), t.perSecond())
	}
	bare, ours := &targets[1], &targets[2]
	slower, share := ours.quantile(.5)-bare.quantile(.5), ours.perSecond()/bare.perSecond()
	const most, least = 100 * time.Microsecond, .9
	met := slower <= most && share >= least
	fmt.Printf("gateway to ReverseProxy: p50 %+v, throughput %.0f %%: %s\n", slower.Round(time.Microsecond), 100*share, map[bool]string{true: "met", false: "MISSED"}[met])
	return met
}
