package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// tally is what a loop has seen so far. A server counts from its first answer on: until then it may be
// that its Service is not known on the node yet.
type tally struct {
	mu sync.Mutex
	// Servers that have answered.
	Servers int `json:"servers"`
	// Calls is how many there were, and Least how many of the server with the fewest.
	Calls int `json:"calls"`
	Least int `json:"least"`
	// Failures, and the first of them.
	Failures int      `json:"failures"`
	Said     []string `json:"said,omitempty"`
	// SlowestMillis is how long the slowest call took.
	SlowestMillis int64 `json:"slowestMillis"`

	calls map[string]int
}

// loop calls every server over and over, each in turn with its pause, and tells at address what came of it.
func loop(address string, timeout, pause time.Duration, endpoints []string) error {
	t := &tally{calls: map[string]int{}}
	for i, endpoint := range endpoints {
		go func() {
			time.Sleep(pause * time.Duration(i) / time.Duration(len(endpoints))) // not all at once
			for {
				t.call(endpoint, timeout)
				time.Sleep(pause)
			}
		}()
	}
	return http.ListenAndServe(address, t)
}

func (t *tally) call(endpoint string, timeout time.Duration) {
	start := time.Now()
	err := session(endpoint, timeout)
	took := time.Since(start)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls[endpoint] == 0 && err != nil {
		return
	}
	t.calls[endpoint]++
	t.Calls++
	t.SlowestMillis = max(t.SlowestMillis, took.Milliseconds())
	if err == nil {
		return
	}
	said := fmt.Sprintf("%s after %s: %s: %v", start.UTC().Format("15:04:05.000"), took.Round(time.Millisecond), endpoint, err)
	fmt.Println(said)
	if t.Failures++; len(t.Said) < 5 {
		t.Said = append(t.Said, said)
	}
}

// session is what a client does that calls now and then: it initializes a session on a connection of
// its own, lists the tools and calls one. Nothing is tried again.
func session(endpoint string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := mcp.NewClient(&mcp.Implementation{Name: "mcp-warden-test-client", Version: "1"}, nil)
	s, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: endpoint, MaxRetries: -1, DisableStandaloneSSE: true, HTTPClient: &http.Client{Transport: transport}}, nil)
	if err != nil {
		return fmt.Errorf("initialize: %w", err)
	}
	defer s.Close()
	if _, err := s.ListTools(ctx, nil); err != nil {
		return fmt.Errorf("tools/list: %w", err)
	}
	result, err := s.CallTool(ctx, &mcp.CallToolParams{Name: "test_simple_text"})
	if err != nil {
		return fmt.Errorf("tools/call: %w", err)
	}
	if result.IsError {
		return fmt.Errorf("tools/call: the tool says that it failed")
	}
	return nil
}

func (t *tally) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Servers, t.Least = len(t.calls), t.Calls
	for _, n := range t.calls {
		t.Least = min(t.Least, n)
	}
	_ = json.NewEncoder(w).Encode(t)
}
