// The gateway stands in a server's pod between the server and its clients. Package gateway says how it is used.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"github.com/mcpwarden/mcp-warden/internal/gateway"
	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
	"github.com/mcpwarden/mcp-warden/internal/gateway/stdio"
	"github.com/mcpwarden/mcp-warden/internal/gateway/upstream"
	"github.com/mcpwarden/mcp-warden/internal/version"
)

func main() {
	if version.Asked("gateway", os.Args[1:], os.Stdout) {
		return
	}
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], log)
	stop()
	if err != nil {
		log.Error("The gateway stopped", "error", err)
		os.Exit(1)
	}
}

type options struct {
	transport, upstream, path           string
	listen, adminListen                 string
	allowedHosts, certFile, keyFile     string
	handshakeInterval, drain, stopGrace time.Duration
	children, pool                      int
	limits                              gateway.Limits
	memory                              int64
	install                             string
	command                             []string
}

func parse(args []string) (*options, error) {
	o := &options{limits: gateway.DefaultLimits()}
	defaults := stdio.DefaultLimits(o.limits)
	flags := flag.NewFlagSet("gateway", flag.ContinueOnError)
	flags.StringVar(&o.transport, "transport", "http", `How the server speaks: "http", or "stdio", which starts the command after "--".`)
	flags.StringVar(&o.upstream, "upstream", "http://127.0.0.1:8080/mcp", "With -transport=http: the server's MCP endpoint.")
	flags.StringVar(&o.listen, "listen", ":8443", "Address for clients.")
	flags.StringVar(&o.path, "path", "/mcp", "Path of the MCP endpoint for clients.")
	flags.StringVar(&o.allowedHosts, "allowed-hosts", "", "Names that clients call the gateway by, separated by commas; localhost and addresses are always allowed.")
	flags.StringVar(&o.certFile, "tls-cert", "", "File with the certificate; without, there is no TLS. It is read again when it changes.")
	flags.StringVar(&o.keyFile, "tls-key", "", "File with the certificate's key.")
	flags.StringVar(&o.adminListen, "admin-listen", ":8081", "Address of /healthz, /readyz, /metrics and /inventory.")
	flags.DurationVar(&o.handshakeInterval, "handshake-interval", 2*time.Minute, "How often the server is asked for its tools, and by that whether it works.")
	flags.DurationVar(&o.drain, "drain", 10*time.Second, "How long what is open may go on after SIGTERM.")
	flags.IntVar(&o.limits.MessageBytes, "max-message-bytes", o.limits.MessageBytes, "How many bytes one message may have.")
	flags.Int64Var(&o.limits.BufferedBytes, "max-buffered-bytes", o.limits.BufferedBytes, "How many bytes of messages may be held at once.")
	flags.IntVar(&o.limits.Requests, "max-requests", o.limits.Requests, "How many requests may be open.")
	flags.IntVar(&o.limits.Streams, "max-streams", o.limits.Streams, "How many streams may be open that clients have opened by GET.")
	flags.DurationVar(&o.limits.AnswerTime, "answer-timeout", o.limits.AnswerTime, "How long a server may be silent on a request.")
	flags.IntVar(&o.children, "max-processes", defaults.Children, "With -transport=stdio: how many processes of the server may run, which is about how many sessions may be open.")
	flags.IntVar(&o.pool, "pool", defaults.Pool, "With -transport=stdio: how many of them serve requests without a session. More than 1 is for servers that keep nothing in memory between requests.")
	flags.DurationVar(&o.stopGrace, "stop-grace", defaults.StopGrace, "With -transport=stdio: how long a process may take to end when its input has, and again after SIGTERM.")
	flags.Int64Var(&o.memory, "memory-limit", 0, "Bytes of memory above which the gateway collects garbage all the time; 0: no bound. The server's processes have none of it.")
	flags.StringVar(&o.install, "install", "", "Copy this program to a path, and end.")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o.command = flags.Args()
	switch {
	case o.transport != "http" && o.transport != "stdio":
		return nil, errors.New("-transport: must be http or stdio")
	case o.transport == "http" && len(o.command) > 0:
		return nil, errors.New("a command is for -transport=stdio only")
	case (o.certFile == "") != (o.keyFile == ""):
		return nil, errors.New("-tls-cert and -tls-key: one is nothing without the other")
	case o.memory < 0:
		return nil, errors.New("-memory-limit: must not be negative")
	case o.handshakeInterval <= 0:
		return nil, errors.New("-handshake-interval: must be positive")
	}
	return o, nil
}

// server is a server as the gateway sees it.
type server struct {
	backend gateway.Backend
	dial    inventory.Dial
	found   func(*inventory.Inventory)
	close   func()
}

func (o *options) server(log *slog.Logger, registry prometheus.Registerer) (*server, error) {
	if o.transport == "http" {
		u, err := upstream.New(o.upstream, o.limits)
		if err != nil {
			return nil, err
		}
		return &server{u, u.Dial, func(*inventory.Inventory) {}, func() {}}, nil
	}
	limits := stdio.DefaultLimits(o.limits)
	limits.Children, limits.Pool, limits.StopGrace = o.children, o.pool, o.stopGrace
	b, err := stdio.New(o.command, limits, log, registry)
	if err != nil {
		return nil, err
	}
	return &server{b, b.Dial, b.Found, b.Close}, nil
}

func run(ctx context.Context, args []string, log *slog.Logger) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.install != "" {
		return install(o.install)
	}
	if o.memory > 0 {
		debug.SetMemoryLimit(o.memory)
	}
	// The server may run as the same user. It must not look into the gateway, which sees what every client says.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("close the gateway's memory to others: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	server, err := o.server(log, registry)
	if err != nil {
		return err
	}
	defer server.close()
	var hosts []string
	if o.allowedHosts != "" {
		hosts = strings.Split(o.allowedHosts, ",")
	}
	g, err := gateway.New(gateway.Config{Path: o.path, AllowedHosts: hosts, Limits: o.limits, Backend: server.backend, Log: log, Registry: registry})
	if err != nil {
		return err
	}
	prober := inventory.NewProber(server.dial, o.handshakeInterval, log, server.found)
	admin, err := serveAdmin(ctx, o.adminListen, prober, registry, log)
	if err != nil {
		return err
	}
	defer admin.Close()
	var probing sync.WaitGroup
	probing.Go(func() { prober.Run(ctx) })
	defer probing.Wait()
	return o.serve(ctx, g, log)
}

// install copies the program, so that it can be the command of a container whose image does not have it. A copy that is there and may
// run is replaced, not written to.
func install(path string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	defer from.Close()
	to, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return fmt.Errorf("install: %w", err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Chmod(0o555), to.Close()); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if err := os.Rename(to.Name(), path); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	return nil
}

func (o *options) serve(ctx context.Context, g *gateway.Gateway, log *slog.Logger) error {
	var certificates *gateway.Certificates
	if o.certFile != "" {
		var err error
		if certificates, err = gateway.NewCertificates(o.certFile, o.keyFile, log); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	log.Info("The gateway is up", "listen", listener.Addr().String(), "transport", o.transport, "tls", certificates != nil)
	return gateway.NewServer(g, certificates, log).Serve(ctx, listener, o.drain)
}

// serveAdmin serves what the kubelet and the operator ask. When the context has ended the gateway is not ready any more.
func serveAdmin(ctx context.Context, addr string, prober *inventory.Prober, registry *prometheus.Registry, log *slog.Logger) (*http.Server, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := prober.Ready()
		if ctx.Err() != nil {
			err = errors.New("the gateway is stopping")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /inventory", prober)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for health checks: %w", err)
	}
	const patience = 10 * time.Second
	server := &http.Server{Handler: mux, ReadTimeout: patience, WriteTimeout: patience, MaxHeaderBytes: 16 << 10}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("The admin port broke down", "error", err)
		}
	}()
	return server, nil
}
