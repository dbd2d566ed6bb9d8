// Package gatewaytest is what tests and benchmarks of the gateway talk to: an MCP server by the official SDK, which knows nothing of a
// gateway, and a client that talks to it. Only tests import it.
package gatewaytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// Text is what the tools take.
type Text struct {
	Text string `json:"text"`
}

func text(s string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: s}}}
}

// Server has tools that answer (echo), report progress and log before (steps), ask the client's user (ask), never answer (hang, which says on stderr when it begins and when it was cancelled), and make
// the process end (crash). It speaks the revisions that are named, or all.
func Server(versions ...string) *mcp.Server {
	server := mcp.NewServer(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ServerOptions{SupportedProtocolVersions: versions})
	add := func(name string, do func(context.Context, *mcp.CallToolRequest, string) (*mcp.CallToolResult, error)) {
		mcp.AddTool(server, &mcp.Tool{Name: name}, func(ctx context.Context, r *mcp.CallToolRequest, in Text) (*mcp.CallToolResult, any, error) {
			result, err := do(ctx, r, in.Text)
			return result, nil, err
		})
	}
	add("echo", func(_ context.Context, _ *mcp.CallToolRequest, in string) (*mcp.CallToolResult, error) {
		return text(in), nil
	})
	add("steps", func(ctx context.Context, r *mcp.CallToolRequest, in string) (*mcp.CallToolResult, error) {
		for i := range 3 {
			if err := r.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
				ProgressToken: r.Params.GetProgressToken(), Progress: float64(i), Message: in,
			}); err != nil {
				return nil, err
			}
		}
		return text(in), nil
	})
	add("ask", func(ctx context.Context, r *mcp.CallToolRequest, in string) (*mcp.CallToolResult, error) {
		answer, err := r.Session.Elicit(ctx, &mcp.ElicitParams{Message: in, RequestedSchema: map[string]any{"type": "object", "properties": map[string]any{}}})
		if err != nil {
			return nil, err
		}
		return text(in + ": " + answer.Action), nil
	})
	add("hang", func(ctx context.Context, _ *mcp.CallToolRequest, in string) (*mcp.CallToolResult, error) {
		fmt.Fprintln(os.Stderr, "hangs", in)
		<-ctx.Done()
		fmt.Fprintln(os.Stderr, "cancelled", in)
		return nil, ctx.Err()
	})
	add("crash", func(context.Context, *mcp.CallToolRequest, string) (*mcp.CallToolResult, error) {
		os.Exit(3)
		return nil, nil
	})
	return server
}

// Client connects to an MCP endpoint, to speak one revision of the protocol. It answers what it is asked.
func Client(t *testing.T, url, version string, through http.RoundTripper, progress func(*mcp.ProgressNotificationParams)) *mcp.ClientSession {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, &mcp.ClientOptions{
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{}}, nil
		},
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			if progress != nil {
				progress(r.Params)
			}
		},
	})
	transport := &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: through}, MaxRetries: -1}
	session, err := client.Connect(t.Context(), transport, &mcp.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		t.Fatalf("connect by %s: %v", version, err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

// Call calls a tool, and returns the text of its result.
func Call(ctx context.Context, session *mcp.ClientSession, tool, text string) (string, error) {
	params := &mcp.CallToolParams{Name: tool, Arguments: Text{Text: text}}
	params.SetProgressToken("token of " + text)
	result, err := session.CallTool(ctx, params)
	if err != nil {
		return "", err
	}
	out := new(strings.Builder)
	for _, content := range result.Content {
		if part, ok := content.(*mcp.TextContent); ok {
			out.WriteString(part.Text)
		}
	}
	if result.IsError {
		return "", fmt.Errorf("the tool failed: %s", out)
	}
	return out.String(), nil
}

// Recorder is a round tripper that notes, of each exchange, what MCP makes of it.
type Recorder struct {
	http.RoundTripper
	mu        sync.Mutex
	exchanges []*recorded
}

type recorded struct {
	request, head string
	session       string
	body          bytes.Buffer
}

// RoundTrip notes the exchange.
func (r *Recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	note := new(recorded)
	var body []byte
	if request.Body != nil {
		body, _ = io.ReadAll(request.Body)
		request.Body = io.NopCloser(bytes.NewReader(body))
	}
	names := []string{"Accept", "Content-Type", "Mcp-Protocol-Version", "Mcp-Method", "Mcp-Name", "Last-Event-Id"}
	note.request = request.Method + " " + headers(request.Header, names) + " " + string(body)
	note.session = request.Header.Get("Mcp-Session-Id")
	response, err := r.RoundTripper.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if own := response.Header.Get("Mcp-Session-Id"); own != "" {
		note.session = own
	}
	note.head = fmt.Sprint(response.StatusCode, " ", headers(response.Header, []string{"Content-Type", "Cache-Control", "Allow", "X-Accel-Buffering"}))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exchanges = append(r.exchanges, note)
	response.Body = &tee{ReadCloser: response.Body, recorder: r, to: note}
	return response, nil
}

type tee struct {
	io.ReadCloser
	recorder *Recorder
	to       *recorded
}

func (t *tee) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.recorder.mu.Lock()
	defer t.recorder.mu.Unlock()
	t.to.body.Write(p[:n])
	return n, err
}

func headers(h http.Header, names []string) string {
	out := map[string]string{}
	for _, name := range names {
		if values := h.Values(name); len(values) > 0 {
			out[name] = strings.Join(values, "|")
		}
	}
	text, _ := json.Marshal(out)
	return string(text)
}

// Exchanges are what was noted, in an order that does not depend on what came first. Session ids are left out, and so is what
// depends on when the client closes its session: streams that it opens by GET.
func (r *Recorder) Exchanges() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, note := range r.exchanges {
		if strings.HasPrefix(note.request, http.MethodGet) {
			continue
		}
		whole := note.request + "\n" + note.head + "\n" + note.body.String()
		if note.session != "" {
			whole = strings.ReplaceAll(whole, note.session, "SESSION") + "\nin a session"
		}
		out = append(out, whole)
	}
	slices.Sort(out)
	return out
}
