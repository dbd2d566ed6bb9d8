// The probe shows whether the cluster enforces NetworkPolicies: as the canary that answers, as the
// prober on every node, and as the init container of every server.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/mcpwarden/mcp-warden/internal/probe"
	"github.com/mcpwarden/mcp-warden/internal/probe/agent"
	"github.com/mcpwarden/mcp-warden/internal/version"
)

// terminationLog is where the kubelet takes a container's last words from.
const terminationLog = "/dev/termination-log"

func main() {
	if version.Asked("probe", os.Args[1:], os.Stdout) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	if len(args) == 0 {
		args = []string{""}
	}
	flags := flag.NewFlagSet("probe "+args[0], flag.ExitOnError)
	var err error
	switch args[0] {
	case "canary":
		_ = flags.Parse(args[1:])
		err = agent.Canary(ctx, "")
	case "prober":
		restricted := flags.Bool("restricted", false, "Be restricted as a server is: reach one port of the canary, and not the other.")
		addresses := flags.String("addresses", probe.AddressesPath, "File with the addresses of the canary.")
		listen := flags.String("listen", ":8081", "Address of /started and /ready.")
		_ = flags.Parse(args[1:])
		err = prober(ctx, agent.NewProber(*restricted, *addresses, log), *listen)
	case "server":
		require := flags.Bool("require", false, "Let the server start only once isolation is proven.")
		_ = flags.Parse(args[1:])
		return server(ctx, agent.NewServer(*require, os.Getenv(probe.AddressesEnv)), log)
	default:
		err = fmt.Errorf("say what to be: canary, prober or server")
	}
	if err == nil {
		return 0
	}
	log.Error("The probe ended", "error", err)
	if reached := (*agent.ReachedError)(nil); errors.As(err, &reached) {
		lastWords(log, reached.Detail)
		return probe.ExitReached
	}
	return 1
}

// prober probes and answers the kubelet until either ends.
func prober(ctx context.Context, p *agent.Prober, listen string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, listen) }()
	probed := make(chan error, 1)
	go func() { probed <- p.Run(ctx) }()
	select {
	case err := <-served:
		return err
	case err := <-probed:
		return err
	}
}

// server leaves its finding behind, and holds the server back where it must.
func server(ctx context.Context, s *agent.Server, log *slog.Logger) int {
	finding, start := s.Run(ctx)
	log.Info("Probed", "result", finding.Result, "addresses", finding.Addresses, "detail", finding.Detail, "start", start)
	raw, err := json.Marshal(finding)
	if err == nil {
		lastWords(log, string(raw))
	}
	if !start || err != nil {
		return 1
	}
	return 0
}

func lastWords(log *slog.Logger, message string) {
	if err := os.WriteFile(terminationLog, []byte(message), 0o600); err != nil {
		log.Error("Leave last words", "error", err)
	}
}
