package stdio

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Many clients at once, in sessions and without, while processes are killed at random: each answer is to its own request, each request
// is answered, by the server or by a proper error, and in the end nothing is left.
func TestManyClientsAndKills(t *testing.T) {
	before := runtime.NumGoroutine()
	files := openFiles(t)
	t.Run("storm", func(t *testing.T) { // so that what belongs to it is cleaned up before it is counted
		f := start(t, "sdk", func(l *Limits) { l.Children, l.Pool = 40, 3 })
		storm := &storm{f: f, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
		defer storm.client.CloseIdleConnections()
		const sessions, without, calls = 16, 8, 40
		var clients sync.WaitGroup
		for i := range sessions + without {
			clients.Go(func() { storm.run(t, i, calls, i < sessions) })
		}
		clients.Wait()
		t.Logf("%d answers, %d errors, %d kills, %d sessions made anew", storm.answers.Load(), storm.errors.Load(), storm.kills.Load(), storm.reopened.Load())
		if storm.answers.Load() < (sessions+without)*calls/2 || storm.kills.Load() == 0 || storm.reopened.Load() == 0 {
			t.Error("this was no test")
		}
		if storm.answers.Load()+storm.errors.Load() != (sessions+without)*calls {
			t.Error("not every request was answered")
		}
	})
	http.DefaultClient.CloseIdleConnections()
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+2 }) // the reaper and its signals stay
	waitFor(t, func() bool { return openFiles(t) <= files })
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

type storm struct {
	f                                       fixture
	client                                  *http.Client
	count, answers, errors, kills, reopened atomic.Int64
}

func (s *storm) run(t *testing.T, number, calls int, inSession bool) {
	session := ""
	for call := 0; call < calls; {
		if inSession && session == "" {
			if session = s.open(t); session == "" {
				continue // it was killed at once
			}
		}
		token := fmt.Sprintf("%d of client %d", call, number)
		body := fmt.Sprintf(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"%s","arguments":{"text":"%s"},"_meta":{"progressToken":"same"`, []string{"echo", "steps"}[call%2], token)
		headers := []string{"Mcp-Session-Id", session}
		if !inSession {
			body += `,"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}`
			headers = []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", []string{"echo", "steps"}[call%2]}
		}
		status, answer, _ := s.post(t, body+"}}}", headers...)
		if status == http.StatusNotFound && inSession {
			session = ""
			s.reopened.Add(1)
			continue
		}
		s.check(t, status, answer, token)
		call++
		if s.count.Add(1)%50 == 0 {
			s.kill()
		}
	}
}

// check tells whether an answer is to the request with a token: all that it says, progress too, must be.
func (s *storm) check(t *testing.T, status int, answer, token string) {
	rest := answer
	for range strings.Count(answer, " of client ") {
		before, after, _ := strings.Cut(rest, " of client ")
		from, _, _ := strings.Cut(after, `"`)
		if !strings.HasSuffix(`"`+token, before[strings.LastIndex(before, `"`):]+" of client "+from) {
			t.Errorf("for %q: %s", token, answer)
		}
		rest = after
	}
	last := answer
	if i := strings.LastIndex(answer, "data: "); i >= 0 {
		last = answer[i+len("data: "):]
	}
	var m struct {
		ID     int
		Result any
		Error  *struct{ Code int }
	}
	if err := json.Unmarshal([]byte(last), &m); err != nil || m.ID != 7 {
		t.Errorf("for %q: %d %s", token, status, answer)
		return
	}
	switch {
	case m.Error != nil && (m.Error.Code == -32603):
		s.errors.Add(1)
	case status == http.StatusOK && strings.Contains(last, token):
		s.answers.Add(1)
	default:
		t.Errorf("for %q: %d %s", token, status, answer)
	}
}

func (s *storm) open(t *testing.T) string {
	_, _, id := s.post(t, `{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	if id != "" {
		s.post(t, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, "Mcp-Session-Id", id)
	}
	return id
}

func (s *storm) post(t *testing.T, body string, headers ...string) (status int, answer, session string) {
	r, err := http.NewRequest(http.MethodPost, s.f.url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Error(err)
		return 0, "", ""
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := s.client.Do(r)
	if err != nil {
		t.Error(err)
		return 0, "", ""
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Errorf("%v after %s", err, raw)
	}
	return response.StatusCode, string(raw), response.Header.Get("Mcp-Session-Id")
}

// kill kills one of the processes.
func (s *storm) kill() {
	spawner := s.f.backend.spawner
	spawner.mu.Lock()
	skip := rand.IntN(len(spawner.running) + 1)
	var victim *child
	for c := range spawner.running {
		if skip--; c.heard.Load() { // others would be taken for servers that cannot start
			if victim = c; skip < 0 {
				break
			}
		}
	}
	spawner.mu.Unlock()
	if victim != nil {
		s.kills.Add(1)
		theReaper().signal(victim.pid, syscall.SIGKILL)
	}
}
