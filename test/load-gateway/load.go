package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// load is what happens in one run.
type load struct {
	address string
	client  *http.Client
	until   time.Time

	requests, answers, left, reopened, kills, crossed, improper atomic.Int64

	mu     sync.Mutex
	errors map[string]int // proper ones, by what they say
	wrong  []string
}

// pause is how long a client waits between two requests, on average.
const pause = time.Second

func run(transport string, sessions int, duration time.Duration) error {
	children := sessions + sessions/2
	upstream, server := "", (*process)(nil)
	var err error
	if transport == "http" {
		if server, err = launch("server", "127.0.0.1:0"); err != nil {
			return err
		}
		defer func() { server.stop() }()
		upstream = server.printed[0]
	}
	g, err := launch("gateway", upstream, fmt.Sprint(children))
	if err != nil {
		return err
	}
	defer g.stop()
	l := &load{
		address: g.printed[0] + "/mcp", until: time.Now().Add(duration), errors: map[string]int{},
		// Idle connections end here before they do there, as with every client that knows HTTP: else a request may meet the end of one.
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: sessions, IdleConnTimeout: time.Minute, DisableCompression: true}},
	}
	l.once("0 of client first") // what is there once and for all
	before, err := measure(g, true)
	if err != nil {
		return err
	}
	kill := func() error { return killChild(g.cmd.Process.Pid) }
	every := time.Second
	if server != nil {
		every = 15 * time.Second // with it go all sessions
		kill = func() (err error) {
			_ = server.cmd.Process.Kill()
			server.stop()
			server, err = launch("server", strings.TrimPrefix(upstream, "http://"))
			return err
		}
	}
	peak, err := l.storm(sessions, g, every, kill)
	if err != nil {
		return err
	}
	l.client.CloseIdleConnections()
	after, err := settle(g, before)
	l.report(transport, sessions, duration, before, peak, after)
	return errors.Join(err, l.verdict())
}

// storm lets all clients call until the time is over, and kills meanwhile. It returns the most that was measured.
func (l *load) storm(sessions int, g *process, every time.Duration, kill func() error) (figures, error) {
	var clients sync.WaitGroup
	for i := range sessions {
		clients.Go(func() { l.session(i) })
	}
	for i := range sessions/100 + 1 {
		clients.Go(func() { l.stateless(i) })
	}
	var peak figures
	for now := time.Now(); now.Before(l.until); now = time.Now() {
		time.Sleep(min(every, time.Until(l.until)))
		if time.Until(l.until) > every { // what is killed last has the time to come back
			if err := kill(); err != nil {
				return peak, err
			}
			l.kills.Add(1)
		}
		f, err := measure(g, false)
		if err != nil {
			return peak, err
		}
		peak = peak.most(f)
	}
	clients.Wait()
	return peak, nil
}

// session is one client: in a session it calls, now and then it goes away in the midst of a request, and comes back to the session or
// makes another.
func (l *load) session(number int) {
	id := ""
	time.Sleep(rand.N(5 * time.Second)) // a thousand processes do not start at once
	for call := 0; time.Now().Before(l.until); call++ {
		time.Sleep(rand.N(2 * pause))
		if id == "" {
			if id = l.open(); id == "" {
				continue
			}
		}
		tool := []string{"echo", "echo", "steps", "slow"}[rand.IntN(4)]
		ctx, goAway := context.WithCancel(context.Background())
		leaves := rand.IntN(50) == 0
		if leaves {
			time.AfterFunc(rand.N(100*time.Millisecond), goAway)
		}
		status := l.call(ctx, tool, fmt.Sprintf("%d of client %d", call, number), "Mcp-Session-Id", id, "Mcp-Protocol-Version", "2025-11-25")
		goAway()
		switch {
		case status == http.StatusNotFound: // its process or its server was killed
			l.reopened.Add(1)
			id = ""
		case leaves && rand.IntN(4) == 0: // nobody comes back to it
			id = ""
		}
	}
	if id != "" {
		request, _ := http.NewRequest(http.MethodDelete, l.address, nil)
		request.Header = http.Header{"Mcp-Session-Id": {id}, "Mcp-Protocol-Version": {"2025-11-25"}}
		if response, err := l.client.Do(request); err == nil {
			_ = response.Body.Close()
		}
	}
}

// stateless is a client of the revision without sessions.
func (l *load) stateless(number int) {
	for call := 0; time.Now().Before(l.until); call++ {
		time.Sleep(rand.N(pause / 5))
		l.once(fmt.Sprintf("%d of client without %d", call, number))
	}
}

func (l *load) once(token string) {
	l.call(context.Background(), "steps", token, "Mcp-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "steps")
}

// open makes a session; empty where there is none, for which there must be a proper error.
func (l *load) open() string {
	header, status, text, err := l.post(context.Background(), `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"load","version":"1"}}}`)
	if err != nil {
		l.bad("initialize: %v", err)
		return ""
	}
	l.check(status, text, "1", "")
	return header.Get("Mcp-Session-Id")
}

// call makes one request, and looks at all that comes back.
func (l *load) call(ctx context.Context, tool, token string, headers ...string) (status int) {
	l.requests.Add(1)
	id, _, _ := strings.Cut(token, " ") // unique in a session, as the protocol demands, and the same as others'
	meta := ""
	if slices.Contains(headers, "2026-07-28") {
		meta = `,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}`
	}
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"%s","arguments":{"token":"%s"},"_meta":{"progressToken":%[1]s%[4]s}}}`, id, tool, token, meta)
	_, status, text, err := l.post(ctx, body, headers...)
	switch {
	case ctx.Err() != nil:
		l.left.Add(1) // what it still got may be cut off
	case err != nil:
		l.bad("%v after %q", err, text)
	default:
		l.check(status, text, id, token)
	}
	if n := strings.Count(text, ` of client `); n != strings.Count(text, `{"token":"`+token+`"`) && ctx.Err() == nil {
		l.crossed.Add(1)
		l.bad("for %q: %s", token, text)
	}
	return status
}

// check tells whether an answer is one, and to the request with this id: a result with its token, or an error.
func (l *load) check(status int, text, id, token string) {
	last := text
	if i := strings.LastIndex(text, "data: "); i >= 0 {
		last, _, _ = strings.Cut(text[i+len("data: "):], "\n")
	}
	var m struct {
		ID     json.RawMessage
		Result *struct{ StructuredContent struct{ Token string } }
		Error  *struct {
			Code    int
			Message string
		}
	}
	err := json.Unmarshal([]byte(last), &m)
	switch {
	case err != nil || string(m.ID) != id:
		l.bad("for %q: %d %s", token, status, text)
	case m.Error != nil && m.Error.Code != 0:
		l.mu.Lock()
		l.errors[fmt.Sprintf("%d %d %s", status, m.Error.Code, m.Error.Message)]++
		l.mu.Unlock()
	case m.Result != nil && m.Result.StructuredContent.Token == token:
		l.answers.Add(1)
	default:
		l.bad("for %q: %d %s", token, status, text)
	}
}

func (l *load) bad(format string, args ...any) {
	l.improper.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.wrong) < 10 {
		l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
	}
}

func (l *load) post(ctx context.Context, body string, headers ...string) (header http.Header, status int, text string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.address, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, 0, "", fmt.Errorf("request: %w", err)
	}
	request.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := l.client.Do(request)
	if err != nil {
		return nil, 0, "", fmt.Errorf("request: %w", err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		err = fmt.Errorf("read: %w", err)
	}
	return response.Header, response.StatusCode, string(raw), err
}

// killChild kills one of the processes that a gateway has started.
func killChild(gateway int) error {
	children, err := childrenOf(gateway)
	if err != nil {
		return err
	}
	if len(children) > 0 {
		err = syscall.Kill(children[rand.IntN(len(children))], syscall.SIGKILL)
	}
	if errors.Is(err, syscall.ESRCH) {
		return nil // it has ended by itself meanwhile
	}
	return err
}

func childrenOf(pid int) (out []int, err error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return nil, fmt.Errorf("children: %w", err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread is gone
		}
		if err != nil {
			return nil, fmt.Errorf("children: %w", err)
		}
		for _, field := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				out = append(out, child)
			}
		}
	}
	return out, nil
}
