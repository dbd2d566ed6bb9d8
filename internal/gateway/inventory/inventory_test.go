package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// server is one in a test: it answers by what is said of a method. "silent" says nothing, and "break" breaks the connection.
type server struct {
	answers map[string]string
	pages   []string // of tools/list
	said    []string
	dialled int
	open    int
	broken  bool
}

func (s *server) dial(context.Context) (Conn, error) {
	s.dialled++
	s.open++
	s.broken = false
	return s, nil
}

func (s *server) Call(ctx context.Context, request []byte) (*message.Message, error) {
	m, err := message.Parse(request)
	if err != nil {
		return nil, err
	}
	s.said = append(s.said, m.Method)
	answer, ok := s.answers[m.Method]
	if m.Method == "tools/list" && len(s.pages) > 0 {
		answer, ok = s.pages[0], true
		if s.pages = s.pages[1:]; !strings.Contains(string(request), "cursor") != (len(s.said) < 2 || s.said[len(s.said)-2] != "tools/list") {
			return nil, errors.New("the cursor is not where it belongs")
		}
	}
	switch {
	case s.broken || answer == "break":
		s.broken = true
		return nil, errors.New("broken")
	case answer == "silent":
		<-ctx.Done()
		return nil, ctx.Err()
	case !ok:
		answer = `"error":{"code":-32601,"message":"unknown"}`
	}
	return message.Parse(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":%s,%s}`, m.ID, answer))
}

func (s *server) Notify(_ context.Context, notification []byte) error {
	m, err := message.Parse(notification)
	s.said = append(s.said, m.Method)
	return err
}

func (s *server) Close() { s.open-- }

const (
	discovers   = `"result":{"supportedVersions":["2025-11-25","2026-07-28"],"capabilities":{"tools":{}}}`
	initializes = `"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}}}`
)

func TestTake(t *testing.T) {
	const one = `"result":{"tools":[{"name":"b","inputSchema":{"type":"object"}}],"nextCursor":"more\""}`
	const two = `"result":{"tools":[{"name":"a"}]}`
	for name, test := range map[string]struct {
		server   server
		protocol string
		tools    string
		said     string
		err      string
	}{
		"modern":                {server: server{answers: map[string]string{"server/discover": discovers}, pages: []string{one, two}}, protocol: "2026-07-28", tools: "a b", said: "server/discover tools/list tools/list"},
		"legacy":                {server: server{answers: map[string]string{"initialize": initializes}, pages: []string{one, two}}, protocol: "2025-06-18", tools: "a b", said: "server/discover initialize notifications/initialized tools/list tools/list"},
		"breaks on discover":    {server: server{answers: map[string]string{"server/discover": "break", "initialize": initializes}, pages: []string{two}}, protocol: "2025-06-18", tools: "a", said: "server/discover initialize notifications/initialized tools/list"},
		"modern, but not ours":  {server: server{answers: map[string]string{"server/discover": `"result":{"supportedVersions":["2027-01-01"]}`, "initialize": initializes}, pages: []string{two}}, protocol: "2025-06-18", tools: "a", said: "server/discover initialize notifications/initialized tools/list"},
		"no tools":              {server: server{answers: map[string]string{"initialize": `"result":{"protocolVersion":"2025-11-25","capabilities":{}}`}}, protocol: "2025-11-25", said: "server/discover initialize notifications/initialized"},
		"not initialized":       {server: server{}, err: "initialize: the server answers with error -32601"},
		"no version":            {server: server{answers: map[string]string{"initialize": `"result":{}`}}, err: "does not say what it speaks"},
		"dead":                  {server: server{answers: map[string]string{"server/discover": "break", "initialize": "break"}}, err: "initialize: broken"},
		"list fails":            {server: server{answers: map[string]string{"server/discover": discovers}}, err: "tools/list: the server answers with error -32601"},
		"no list":               {server: server{answers: map[string]string{"server/discover": discovers, "tools/list": `"result":{}`}}, err: "no list of tools"},
		"a tool without a name": {server: server{answers: map[string]string{"server/discover": discovers, "tools/list": `"result":{"tools":[{}]}`}}, err: "no name"},
		"a name that is long":   {server: server{answers: map[string]string{"server/discover": discovers, "tools/list": `"result":{"tools":[{"name":"` + strings.Repeat("x", maxName+1) + `"}]}`}}, err: "too long"},
		"many tools":            {server: server{answers: map[string]string{"server/discover": discovers, "tools/list": `"result":{"tools":[` + strings.Repeat(`{"name":"a"},`, MaxTools) + `{"name":"b"}]}`}}, err: "more tools"},
	} {
		t.Run(name, func(t *testing.T) {
			inventory, err := Take(t.Context(), test.server.dial)
			if test.server.open != 0 {
				t.Errorf("%d connections are left open", test.server.open)
			}
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("got %v, want an error that says %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, tool := range inventory.Tools {
				names = append(names, tool.Name)
			}
			if inventory.Protocol != test.protocol || strings.Join(names, " ") != test.tools || inventory.Count != len(names) {
				t.Errorf("got %+v", inventory)
			}
			if said := strings.Join(test.server.said, " "); said != test.said {
				t.Errorf("it was told %s", said)
			}
		})
	}
	endless := &server{answers: map[string]string{"server/discover": discovers, "tools/list": `"result":{"tools":[],"nextCursor":"again"}`}}
	if _, err := Take(t.Context(), endless.dial); err == nil || len(endless.said) > maxPages+1 {
		t.Errorf("pages without end: %v after %d", err, len(endless.said))
	}
}

// A digest changes with any change of a definition, and with none of how it is written.
func TestDigest(t *testing.T) {
	take := func(tool string) string {
		t.Helper()
		s := &server{answers: map[string]string{"server/discover": discovers, "tools/list": `"result":{"tools":[` + tool + `]}`}}
		inventory, err := Take(t.Context(), s.dial)
		if err != nil {
			t.Fatal(err)
		}
		if inventory.SHA256 == inventory.Tools[0].SHA256 {
			t.Error("the digest of all is that of one")
		}
		return inventory.Tools[0].SHA256
	}
	const tool = `{"name":"a","description":"é","inputSchema":{"type":"object","maximum":10},"_meta":{"x":[1,2]}}`
	want := take(tool)
	// Made by hand by the rules of RFC 8785.
	if by := digest([]byte(`{"_meta":{"x":[1,2]},"description":"é","inputSchema":{"maximum":10,"type":"object"},"name":"a"}`)); want != by {
		t.Errorf("got %s, want %s", want, by)
	}
	if got := take(`{ "inputSchema":{"maximum":1.0e1,"type":"object"},"_meta":{"x":[1, 2]},"description":"\u00e9","name":"\u0061"}`); got != want {
		t.Error("it changes with how it is written")
	}
	for _, other := range []string{
		strings.Replace(tool, "é", "e", 1), strings.Replace(tool, "[1,2]", "[2,1]", 1), strings.Replace(tool, "10", "11", 1), strings.Replace(tool, "}}", `},"unknown":null}`, 1),
	} {
		if take(other) == want {
			t.Errorf("it is the same for %s", other)
		}
	}
	take(`{"name":"a","description":"\ud800"}`) // half of a pair, as careless truncation leaves it
}

func TestParams(t *testing.T) {
	tools, _, err := appendPage(nil, []byte(`{"tools":[{"name":"a","inputSchema":{"properties":{"region":{"type":"string","x-mcp-header":"Region"},"odd":true,"x":{"x-mcp-header":7},
		"deep":{"properties":{"er":{"x-mcp-header":"Deeper"}},"items":{"x-mcp-header":"No"}}}}},{"name":"b","inputSchema":[]},{"name":"c"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(tools[0].Params, tools[1].Params, tools[2].Params); got != "[{[deep er] Deeper} {[region] Region}] [] []" {
		t.Errorf("got %s", got)
	}
}

func TestProber(t *testing.T) {
	s := &server{answers: map[string]string{"server/discover": discovers, "tools/list": `"result":{"tools":[{"name":"a"}]}`}}
	var found *Inventory
	p := NewProber(s.dial, time.Minute, slog.New(slog.DiscardHandler), func(i *Inventory) { found = i })
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	p.now = func() time.Time { now = now.Add(time.Minute); return now }
	get := func() (status int, body map[string]any) {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("GET", "/inventory", nil))
		raw, _ := io.ReadAll(w.Body)
		_ = json.Unmarshal(raw, &body)
		return w.Code, body
	}
	if status, _ := get(); status != 503 || p.Ready() == nil {
		t.Error("ready before the first handshake")
	}
	var waits []time.Duration
	fail := func() { waits = append(waits, p.note(nil, errors.New("broken"))) }
	for range 9 {
		fail()
	}
	if p.Ready() == nil || waits[0] != time.Second || waits[1] != 2*time.Second || waits[8] != time.Minute {
		t.Errorf("after failures: %v, %v", p.Ready(), waits)
	}
	take := func() {
		inventory, err := Take(t.Context(), s.dial)
		if wait := p.note(inventory, err); wait != time.Minute || p.Ready() != nil || found != inventory {
			t.Errorf("after a success: %v, %v", wait, p.Ready())
		}
	}
	take()
	if status, body := get(); status != 200 || body["count"] != 1.0 || body["protocol"] != "2026-07-28" || body["observed"] != "2026-11-21T00:01:00Z" || body["changed"] != nil {
		t.Errorf("the first: %d %v", status, body)
	}
	take()
	s.answers["tools/list"] = `"result":{"tools":[{"name":"a","description":"new"}]}`
	take()
	take()
	if _, body := get(); body["changed"] != "2026-11-21T00:03:00Z" || body["observed"] != "2026-11-21T00:04:00Z" {
		t.Errorf("after a change: %v", body)
	}
	for tag, want := range map[string]int{`"` + found.SHA256 + `"`: 304, found.SHA256: 200, `""`: 200, "*": 200} {
		request, w := httptest.NewRequest("GET", "/inventory", nil), httptest.NewRecorder()
		request.Header.Set("If-None-Match", tag)
		if p.ServeHTTP(w, request); w.Code != want || (w.Body.Len() == 0) != (want == 304) || w.Header().Get("ETag") != `"`+found.SHA256+`"` {
			t.Errorf("who knows %s is told %d %v", tag, w.Code, w.Header())
		}
	}
	fail()
	fail()
	if err := p.Ready(); err != nil {
		t.Errorf("not ready after two failures: %v", err)
	}
	fail()
	if p.Ready() == nil {
		t.Error("ready after three failures")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan bool)
	p.found = func(*Inventory) { cancel() }
	go func() { p.Run(ctx); close(ran) }()
	<-ran
}
