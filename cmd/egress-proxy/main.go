// The egress proxy lets the servers of a namespace out to the hosts that their rules list.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mcpwarden/mcp-warden/internal/egressproxy"
	"github.com/mcpwarden/mcp-warden/internal/version"
)

func main() {
	if version.Asked("egress-proxy", os.Args[1:], os.Stdout) {
		return
	}
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	if err := run(log); err != nil {
		log.Error("The egress proxy stopped", "error", err)
		os.Exit(1)
	}
}

// gcPercent trades memory, which GOMEMLIMIT bounds, for a little CPU: what opening a tunnel makes is gone at once.
const gcPercent = 200

func run(log *slog.Logger) error {
	var (
		limits       = egressproxy.DefaultLimits()
		listen       = flag.String("listen", ":3128", "Address of the proxy.")
		healthListen = flag.String("health-listen", ":8081", "Address of /healthz, /readyz and /metrics.")
		accessList   = flag.String("access-list", "/etc/mcp-warden/egress/access.json", "File with the access list; it is read again within a second of a change.")
		drain        = flag.Duration("drain", 25*time.Second, "How long what is open may go on after SIGTERM.")
	)
	flag.IntVar(&limits.Tunnels, "max-tunnels", limits.Tunnels, "How many connections to hosts may be open.")
	flag.IntVar(&limits.TunnelsPerServer, "max-tunnels-per-server", limits.TunnelsPerServer, "How many of them may be one server's.")
	flag.Int64Var(&limits.TunnelBytes, "max-tunnel-bytes", limits.TunnelBytes, "How many bytes one connection may carry, both ways together.")
	flag.DurationVar(&limits.TunnelLifetime, "max-tunnel-lifetime", limits.TunnelLifetime, "How long one connection may last.")
	flag.DurationVar(&limits.Idle, "idle-timeout", limits.Idle, "How long nothing may pass on a connection.")
	flag.Parse()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	proxy, err := egressproxy.New(egressproxy.Config{
		ListPath: *accessList, Limits: limits, Resolver: &net.Resolver{PreferGo: true}, Log: log, Registry: registry,
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := (&net.ListenConfig{KeepAliveConfig: egressproxy.KeepAlive}).Listen(ctx, "tcp", *listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	health, err := serveHealth(*healthListen, proxy, registry, log)
	if err != nil {
		return err
	}
	defer health.Close()
	log.Info("The egress proxy is up", "listen", listener.Addr().String())
	return proxy.Serve(ctx, listener, *drain)
}

func serveHealth(addr string, proxy *egressproxy.Proxy, registry *prometheus.Registry, log *slog.Logger) (*http.Server, error) {
	mux := http.NewServeMux()
	mux.Handle("/", proxy.HealthHandler())
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for health checks: %w", err)
	}
	const patience = 10 * time.Second
	server := &http.Server{Handler: mux, ReadTimeout: patience, WriteTimeout: patience, MaxHeaderBytes: 16 << 10}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("The health port broke down", "error", err)
		}
	}()
	return server, nil
}
