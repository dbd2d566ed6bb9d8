// Bench-egress measures the egress proxy beside squid, tinyproxy and a proxy that does nothing but
// CONNECT, all with the same clients and the same host, taking turns: tunnels opened per second, throughput, latency, and what
// an open tunnel costs. Each proxy asks for a password and allows one host, so far as it can; only ours looks
// at the ClientHello. It needs root, and Debian's squid and tinyproxy, which it installs where they are missing.
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
	"syscall"
	"time"
)

// options of a run.
type options struct {
	rounds  int
	seconds time.Duration
	workers int
	tunnels int
	output  string
	inside  string // the folder of the run, where this is the process inside the network
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "bare" {
		fmt.Fprintln(os.Stderr, "bare:", runBare(os.Args[2]))
		os.Exit(1)
	}
	opts, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if opts.inside != "" {
		err = measureAll(ctx, opts)
	} else {
		err = outside(ctx, opts)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-egress:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var opts options
	flags := flag.NewFlagSet("bench-egress", flag.ContinueOnError)
	flags.IntVar(&opts.rounds, "rounds", 5, "How often the proxies take turns; the median counts.")
	flags.DurationVar(&opts.seconds, "time", 3*time.Second, "How long each measurement takes.")
	flags.IntVar(&opts.workers, "workers", 16, "How many clients open tunnels at the same time.")
	flags.IntVar(&opts.tunnels, "tunnels", 1000, "How many tunnels are held open for the memory.")
	flags.StringVar(&opts.output, "o", "text", "Output: text or json.")
	flags.StringVar(&opts.inside, "inside", "", "For the benchmark itself.")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	if opts.rounds < 1 || opts.workers < 1 || opts.tunnels < 1 || opts.seconds <= 0 || (opts.output != "text" && opts.output != "json") {
		return opts, fmt.Errorf("-rounds, -time, -workers and -tunnels must be positive, and -o text or json")
	}
	return opts, nil
}

// outside builds the proxy, makes a network and runs the benchmark in it: two namespaces, the clients and the host
// in one, the proxies in the other, because our proxy goes to no address of its own or of loopback.
func outside(ctx context.Context, opts options) error {
	if os.Getuid() != 0 {
		return fmt.Errorf("needs root for its network namespaces: run it as root, on Linux")
	}
	dir, err := os.MkdirTemp("", "bench-egress-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o777); err != nil { // squid and tinyproxy give up root
		return err
	}
	if err := install(ctx); err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "egress-proxy"), "./cmd/egress-proxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := run(build); err != nil {
		return err
	}
	network := newNetwork()
	defer network.remove()
	if err := network.create(ctx); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := network.in(ctx, network.clients, self, "-inside", dir, "-rounds", strconv.Itoa(opts.rounds), "-time", opts.seconds.String(),
		"-workers", strconv.Itoa(opts.workers), "-tunnels", strconv.Itoa(opts.tunnels), "-o", opts.output)
	cmd.Env = append(os.Environ(), "BENCH_EGRESS_PROXIES="+network.proxies)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("see above: %w", err)
	}
	return nil
}

func install(ctx context.Context) error {
	var missing []string
	for _, name := range []string{"squid", "tinyproxy"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"install", "-y", "--no-install-recommends"}, missing...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1") // do not start them as services
	return run(cmd)
}

// run a command; its output is in the error.
func run(cmd *exec.Cmd) error {
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, output)
	}
	return nil
}
