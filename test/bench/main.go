// Bench measures the operator against a real API server: how long it takes until every Deployment
// exists, beside the floor, which is the same objects written directly by the same kind of client at
// the same concurrency; what it asks of the API server; and what it costs in CPU and memory.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/mcpwarden/mcp-warden/test/apiserver"
)

// options of a run.
type options struct {
	sizes       []int
	repetitions int
	workers     int
	rest        time.Duration
	timeout     time.Duration
	output      string
}

func main() {
	opts, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, opts)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var opts options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	sizes := flags.String("sizes", "500,2000", "How many servers, one measurement for each.")
	flags.IntVar(&opts.repetitions, "repetitions", 3, "How often the floor and the operator take turns; the median counts.")
	flags.IntVar(&opts.workers, "workers", 10, "Concurrency of the operator, of the floor and of what creates the MCPServers.")
	flags.DurationVar(&opts.rest, "rest", time.Minute, "How long writes at rest are counted.")
	flags.DurationVar(&opts.timeout, "timeout", 15*time.Minute, "When to give up.")
	flags.StringVar(&opts.output, "o", "text", "Output: text or json.")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	for _, size := range strings.Split(*sizes, ",") {
		n, err := strconv.Atoi(size)
		if err != nil || n < 1 {
			return opts, fmt.Errorf("-sizes %q: must be numbers of servers, such as 500,2000", *sizes)
		}
		opts.sizes = append(opts.sizes, n)
	}
	if opts.output != "text" && opts.output != "json" {
		return opts, fmt.Errorf("-o %q: must be text or json", opts.output)
	}
	if opts.repetitions < 1 || opts.workers < 1 {
		return opts, fmt.Errorf("-repetitions and -workers must be at least 1")
	}
	return opts, nil
}

func run(ctx context.Context, opts options) error {
	ctx, cancel := context.WithTimeout(ctx, opts.timeout)
	defer cancel()
	log.SetLogger(logr.Discard())
	dir, err := os.MkdirTemp("", "mcp-warden-bench-")
	if err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // a folder of our own that nobody reads any more
	binary := filepath.Join(dir, "manager")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/manager")
	build.Dir, build.Stderr, build.Env = apiserver.Root(), os.Stderr, append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the operator: %w", err)
	}
	var results []result
	for _, size := range opts.sizes {
		r, err := measure(ctx, opts, binary, size)
		if err != nil {
			return fmt.Errorf("%d servers: %w", size, err)
		}
		results = append(results, r)
	}
	return print(os.Stdout, opts, results)
}

// measure lets the floor and the operator take turns, each on an API server of its own.
func measure(ctx context.Context, opts options, binary string, size int) (result, error) {
	out := result{Servers: size}
	for i := range opts.repetitions {
		fmt.Fprintf(os.Stderr, "%d servers, repetition %d of %d\n", size, i+1, opts.repetitions)
		err := onCluster(ctx, func(c *cluster) error {
			seconds, err := c.floor(ctx, opts, size)
			out.FloorSeconds = append(out.FloorSeconds, seconds)
			return err
		})
		if err != nil {
			return out, fmt.Errorf("floor: %w", err)
		}
		last := i == opts.repetitions-1
		if err := onCluster(ctx, func(c *cluster) error { return c.operator(ctx, opts, binary, size, last, &out) }); err != nil {
			return out, fmt.Errorf("operator: %w", err)
		}
	}
	return out, nil
}

// onCluster runs a function on a control plane of its own, without what would compete for the processor.
func onCluster(ctx context.Context, f func(*cluster) error) error {
	server, err := apiserver.Start(ctx, "bench", "kube-controller-manager", "kube-scheduler")
	if err != nil {
		return err
	}
	c, err := newCluster(server)
	if err == nil {
		err = f(c)
	}
	if stopErr := server.Stop(); err == nil {
		err = stopErr
	}
	return err
}
