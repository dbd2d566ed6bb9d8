package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy/access"
)

// The server that asks.
const (
	user     = "bench"
	password = "not-a-secret-0123456789-0123456789"
)

// healthPort is where ours shows its metrics.
const healthPort = 8081

// contender is one of those that are measured.
type contender struct {
	name  string
	port  int // 0: without a proxy
	start func(ctx context.Context, dir string) (*exec.Cmd, error)
}

const (
	ours   = "mcp-warden"
	direct = "direct"
)

// contenders in the order in which they take turns.
var contenders = []contender{
	{name: direct},
	{name: "bare", port: 3001, start: startBare},
	{name: ours, port: 3002, start: startOurs},
	{name: "squid", port: 3003, start: startSquid},
	{name: "tinyproxy", port: 3004, start: startTinyproxy},
}

// inProxies is a command in the namespace of the proxies, with its output in a file.
func inProxies(ctx context.Context, dir, log string, command ...string) (*exec.Cmd, error) {
	file, err := os.OpenFile(filepath.Join(dir, log), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o666)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", os.Getenv("BENCH_EGRESS_PROXIES")}, command...)...)
	cmd.Stdout, cmd.Stderr = file, file
	return cmd, cmd.Start()
}

func startBare(ctx context.Context, dir string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return inProxies(ctx, dir, "bare.log", self, "bare", proxyAddr+":3001")
}

func startOurs(ctx context.Context, dir string) (*exec.Cmd, error) {
	list, err := access.Encode(access.List{Version: access.Version, Servers: []access.Server{{
		Name: user, CredentialSHA256: access.Digest(password),
		Rules: []access.Rule{{Host: originName, Ports: []int32{plainPort, tlsPort}}, {Host: "*.example.org", Ports: []int32{443}}},
	}}})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "access.json"), list, 0o644); err != nil {
		return nil, err
	}
	// With the one processor that the operator gives it.
	return inProxies(ctx, dir, ours+".log", "env", "GOMAXPROCS=1", filepath.Join(dir, "egress-proxy"), "--listen", proxyAddr+":3002",
		"--health-listen", fmt.Sprintf("%s:%d", proxyAddr, healthPort), "--access-list", filepath.Join(dir, "access.json"), "--max-tunnels-per-server", "8192")
}

func startSquid(ctx context.Context, dir string) (*exec.Cmd, error) {
	hash, err := exec.CommandContext(ctx, "openssl", "passwd", "-apr1", password).Output()
	if err != nil {
		return nil, fmt.Errorf("openssl passwd: %w", err)
	}
	config := fmt.Sprintf(`http_port %s:3003
auth_param basic program /usr/lib/squid/basic_ncsa_auth %s/passwd
auth_param basic children 2
auth_param basic credentialsttl 1 hour
acl known proxy_auth REQUIRED
acl listed dstdomain %s
acl tls port %d %d
http_access allow CONNECT known listed tls
http_access deny all
cache deny all
access_log stdio:%[2]s/squid-access.log
cache_log %[2]s/squid-cache.log
pid_filename %[2]s/squid.pid
coredump_dir %[2]s
max_filedescriptors 65535
shutdown_lifetime 0 seconds
`, proxyAddr, dir, originName, plainPort, tlsPort)
	for name, text := range map[string]string{"squid.conf": config, "passwd": user + ":" + string(hash)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return inProxies(ctx, dir, "squid.log", "squid", "-N", "-f", filepath.Join(dir, "squid.conf"))
}

func startTinyproxy(ctx context.Context, dir string) (*exec.Cmd, error) {
	config := fmt.Sprintf(`User nobody
Listen %s
Port 3004
Timeout 600
LogFile "%s/tinyproxy-access.log"
LogLevel Connect
MaxClients 5000
BasicAuth %s %s
ConnectPort %d
ConnectPort %d
Filter "%[2]s/tinyproxy.filter"
FilterExtended On
FilterDefaultDeny Yes
DisableViaHeader Yes
`, proxyAddr, dir, user, password, plainPort, tlsPort)
	for name, text := range map[string]string{"tinyproxy.conf": config, "tinyproxy.filter": "^origin\\.example\\.com$\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return inProxies(ctx, dir, "tinyproxy.log", "tinyproxy", "-d", "-c", filepath.Join(dir, "tinyproxy.conf"))
}

// running is a contender that was started.
type running struct {
	contender
	cmd *exec.Cmd
}

// up starts a contender and waits until a tunnel goes through it.
func (c contender) up(ctx context.Context, dir string) (*running, error) {
	r := &running{contender: c}
	if c.start == nil {
		return r, nil
	}
	var err error
	if r.cmd, err = c.start(ctx, dir); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	const patience = 20 * time.Second
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		conn, err := r.open()
		if err == nil {
			conn.Close()
			return r, nil
		}
		if time.Now().After(deadline) {
			r.down()
			said, _ := os.ReadFile(filepath.Join(dir, c.name+".log")) // without it there is nothing to add
			return nil, fmt.Errorf("%s does not work after %v: %w: it said %q", c.name, patience, err, said[max(0, len(said)-2000):])
		}
	}
}

func (r *running) down() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Signal(syscall.SIGKILL)
	_ = r.cmd.Wait()
}

// resident is how much memory the proxy holds, in KiB.
func (r *running) resident() (float64, error) {
	const key = "VmRSS:"
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("no %s of process %d", key, r.cmd.Process.Pid)
}

// cpu is how much processor time the proxy has used.
func (r *running) cpu() (time.Duration, error) {
	if r.cmd == nil {
		return 0, nil
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	const user, system, hertz = 11, 12, 100 // fields behind the name, and how they count
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, i := range []int{user, system} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / hertz, nil
}

// goMemory is what our proxy's runtime holds for heap and stacks, in KiB.
func goMemory(ctx context.Context) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/metrics", net.JoinHostPort(proxyAddr, strconv.Itoa(healthPort))), nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	var sum float64
	for line := range strings.Lines(string(text)) {
		for _, name := range []string{"go_memstats_heap_inuse_bytes ", "go_memstats_stack_inuse_bytes "} {
			if value, ok := strings.CutPrefix(line, name); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					return 0, err
				}
				sum += n / 1024
			}
		}
	}
	return sum, nil
}
