package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/mcpwarden/mcp-warden/internal/gateway/gatewaytest"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "serve" {
		_ = gatewaytest.Server().Run(context.Background(), &mcp.StdioTransport{})
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// free returns an address that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func get(url string) (int, string) {
	response, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// The gateway becomes ready when the server behind it works, serves clients, tells what it sees, and ends when it is told to.
func TestRun(t *testing.T) {
	origin := httptest.NewServer(mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return gatewaytest.Server() }, &mcp.StreamableHTTPOptions{Stateless: true}))
	defer origin.Close()
	for name, args := range map[string][]string{
		"http":  {"-upstream", origin.URL},
		"stdio": {"-transport=stdio", "--", os.Args[0], "serve"},
	} {
		t.Run(name, func(t *testing.T) {
			clients, admin := free(t), "http://"
			adminAddr := free(t)
			admin += adminAddr
			var out bytes.Buffer
			var mu sync.Mutex
			log := slog.New(slog.NewJSONHandler(writer(func(p []byte) { mu.Lock(); out.Write(p); mu.Unlock() }), nil))
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				ended <- run(ctx, append([]string{"-listen", clients, "-admin-listen", adminAddr}, args...), log)
			}()
			tick, limit := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
			defer tick.Stop()
			for ready := false; !ready; {
				select {
				case <-tick.C:
					status, _ := get(admin + "/readyz")
					ready = status == http.StatusOK
				case err := <-ended:
					t.Fatalf("it ended: %v", err)
				case <-limit:
					t.Fatal("it does not become ready")
				}
			}
			for _, version := range []string{"2025-11-25", "2026-07-28"} {
				session := gatewaytest.Client(t, "http://"+clients+"/mcp", version, http.DefaultTransport, nil)
				if answer, err := gatewaytest.Call(t.Context(), session, "echo", "hello"); err != nil || answer != "hello" {
					t.Errorf("%s: %q, %v", version, answer, err)
				}
				if err := session.Close(); err != nil {
					t.Error(err)
				}
			}
			for path, want := range map[string]string{
				"/healthz": "ok", "/inventory": `"protocol":"2026-07-28"`, "/metrics": `mcp_warden_gateway_operation_duration_seconds_count{error_type="",mcp_method_name="tools/call"} 2`,
			} {
				// A request is counted once its answer is out, which the client may have before.
				status, body := get(admin + path)
				for late := time.After(20 * time.Second); status != http.StatusOK || !strings.Contains(body, want); status, body = get(admin + path) {
					select {
					case <-tick.C:
						continue
					case <-late:
					}
					t.Errorf("%s: %d %s", path, status, body)
					break
				}
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if n := strings.Count(out.String(), `"gen_ai.tool.name":"echo"`); n != 2 {
				t.Errorf("%d audit lines in %s", n, out.String())
			}
		})
	}
}

type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-transport=tcp"}, {"command"}, {"-tls-cert=x"}, {"-handshake-interval=0"}, {"-transport=stdio"}, {"-transport=stdio", "/no/such/server"},
		{"-upstream=https://elsewhere"}, {"-max-requests=0"}, {"-path=mcp"}, {"-tls-cert=/no", "-tls-key=/no", "-listen=127.0.0.1:0", "-admin-listen=127.0.0.1:0"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // it must not come so far
		if err := run(ctx, args, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

// The program copies itself to where a container without it finds it, again and again, and the copy runs.
func TestInstall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway")
	for range 2 {
		if err := run(t.Context(), []string{"-install", path}, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o555 {
		t.Fatalf("%v, %v; want a program that everybody can run and nobody can write", info, err)
	}
	if out, err := exec.Command(path, "-test.list", "TestInstall").CombinedOutput(); err != nil || !strings.Contains(string(out), "TestInstall") {
		t.Errorf("the copy does not run: %v: %s", err, out)
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
