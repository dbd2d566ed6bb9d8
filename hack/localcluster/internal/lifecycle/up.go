// Package lifecycle starts, watches and removes clusters.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Options are what `up` was asked for.
type Options struct {
	// CNI is empty for a control plane without a node.
	CNI     string
	Without []string
	// Foreground keeps the cluster only as long as the caller.
	Foreground bool
}

// Manager does what the commands ask for, to one cluster.
type Manager struct {
	Cluster  state.Cluster
	Progress func(format string, args ...any)
}

// ErrCannot marks what this machine or user cannot do at all, so that callers
// can fall back to something else.
var ErrCannot = errors.New("this machine cannot run a node")

var errNotLinux = fmt.Errorf("%w: a node needs Linux; use --control-plane-only", ErrCannot)

// Up brings the cluster up, whatever it is in the middle of, and returns once it
// is ready. In the foreground it returns once the cluster is gone again: when
// the context ends or input is at its end.
func (m *Manager) Up(ctx context.Context, opts Options, input io.Reader, ready func(kubeconfig string)) error {
	if err := m.preflight(opts); err != nil {
		return err
	}
	if opts.Foreground {
		return m.foreground(ctx, opts, input, ready)
	}
	_, err := m.ensure(ctx, opts)
	if err == nil {
		ready(m.Cluster.Kubeconfig())
	}
	return err
}

// ensure brings the cluster up, or waits for one that is on its way. ended is
// nil in the latter case.
func (m *Manager) ensure(ctx context.Context, opts Options) (ended <-chan error, err error) {
	lock, err := m.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { lock.Release(!m.Cluster.Exists()) }()
	running, err := m.adopt(opts)
	if err != nil {
		return nil, err
	}
	if running {
		err := m.await(ctx, m.watchSupervisor(ctx))
		if !errors.Is(err, errSupervisorEnded) {
			return nil, err
		}
		m.Progress("its supervisor has ended meanwhile")
	}
	return m.start(ctx, opts)
}

// errSupervisorEnded says that there is nothing to wait for any more.
var errSupervisorEnded = errors.New("the supervisor ended")

func (m *Manager) supervisorEnded(cause error) error {
	if cause == nil {
		cause = errors.New("nobody knows why")
	}
	return fmt.Errorf("%w: %w; its log ends:\n%s", errSupervisorEnded, cause, m.logTail("supervisor"))
}

// watchSupervisor tells when a supervisor that somebody else started ends.
func (m *Manager) watchSupervisor(ctx context.Context) <-chan error {
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if pid, err := m.Cluster.SupervisorPID(); err != nil || pid == 0 {
					ended <- err
					return
				}
			}
		}
	}()
	return ended
}

func (m *Manager) preflight(opts Options) error {
	if opts.CNI != "" && runtime.GOOS != "linux" {
		return errNotLinux
	}
	if opts.CNI != "" && os.Geteuid() != 0 {
		return fmt.Errorf("%w: a node needs root; run as root, or use --control-plane-only", ErrCannot)
	}
	return nil
}

func (m *Manager) lock(ctx context.Context) (*state.Lock, error) {
	return m.Cluster.Lock(ctx, func() {
		m.Progress("waiting for another command that works on cluster %q", m.Cluster.Name)
	})
}

// adopt deals with a cluster that exists already: it refuses one that was made
// otherwise, and reports whether its supervisor runs.
func (m *Manager) adopt(opts Options) (running bool, err error) {
	cfg, err := m.Cluster.LoadConfig()
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if cfg.CNI != opts.CNI || !slices.Equal(cfg.Without, opts.Without) {
		return false, fmt.Errorf("cluster %q exists with other options (%s): remove it with `down --name %s` first, or choose another --name",
			m.Cluster.Name, describe(cfg), m.Cluster.Name)
	}
	pid, err := m.Cluster.SupervisorPID()
	if err != nil || pid == 0 {
		return false, err
	}
	if opts.Foreground {
		return false, fmt.Errorf("cluster %q runs already: remove it with `down --name %s` first, or choose another --name", m.Cluster.Name, m.Cluster.Name)
	}
	m.Progress("cluster %q runs already (%s)", m.Cluster.Name, cfg.Mode())
	return true, nil
}

func describe(cfg state.Config) string {
	if len(cfg.Without) == 0 {
		return cfg.Mode()
	}
	return cfg.Mode() + " without " + strings.Join(cfg.Without, ", ")
}

// start starts the supervisor and waits for the cluster. ended gets the error of
// the supervisor when it ends.
func (m *Manager) start(ctx context.Context, opts Options) (ended <-chan error, err error) {
	cfg, err := m.prepare(ctx, opts)
	if err != nil {
		return nil, err
	}
	ended, err = m.launch(cfg, opts.Foreground)
	if err != nil {
		return nil, err
	}
	return ended, m.await(ctx, ended)
}

// prepare builds what is missing, clears away what a dead supervisor left, and
// writes the configuration.
func (m *Manager) prepare(ctx context.Context, opts Options) (state.Config, error) {
	cfg, err := m.Cluster.LoadConfig()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return cfg, err
	}
	cfg.ID, cfg.CNI, cfg.Without = m.Cluster.ID(), opts.CNI, opts.Without
	builder, err := build.New(m.Progress)
	if err != nil {
		return cfg, err
	}
	components, err := build.Select(cluster.Components(cfg)...)
	if err != nil {
		return cfg, err
	}
	if cfg.Builds, err = builder.Ensure(ctx, components); err != nil {
		return cfg, err
	}
	cfg.Cache = builder.Cache
	if err := build.EnsureDebian(ctx, m.Progress, cluster.DebianPackages(cfg)...); err != nil {
		return cfg, err
	}
	if err := m.stop(ctx); err != nil {
		return cfg, err
	}
	if err := os.MkdirAll(m.Cluster.Path("logs"), 0o755); err != nil {
		return cfg, err
	}
	if err := m.Cluster.SaveConfig(cfg); err != nil {
		return cfg, err
	}
	return cfg, cluster.EnsureIdentities(m.Cluster)
}

// launch starts the supervisor as a session of its own. Until the supervisor has
// marked itself it dies with us, so that there is never one that `down` cannot
// find; in the foreground it stays so.
func (m *Manager) launch(cfg state.Config, foreground bool) (<-chan error, error) {
	logFile, err := os.OpenFile(m.Cluster.Log("supervisor"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() { _ = logFile.Close() }()

	program, err := self()
	if err != nil {
		return nil, err
	}
	supervision := Supervision{Cluster: m.Cluster, Attached: foreground}
	cmd := exec.Command(program, supervision.Args()...)
	cmd.Args[0] = "localcluster"
	cmd.Env = append(os.Environ(), cluster.Marker+"="+cfg.ID)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := tie(cmd, cfg.HasNode()); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	started := make(chan error)
	go func() {
		// The kernel sends the parent-death signal when this thread ends.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	return ended, nil
}

// foreground runs the cluster until the context ends, the input ends or the
// supervisor ends, and removes it in any case. An error without a supervisor is
// from before anything was started, perhaps about somebody else's cluster.
func (m *Manager) foreground(ctx context.Context, opts Options, input io.Reader, ready func(string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, input)
		cancel()
	}()
	ended, err := m.ensure(ctx, opts)
	if ended == nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		err = nil // told to end before it was ready: that is no failure
	case err == nil:
		ready(m.Cluster.Kubeconfig())
		select {
		case <-ctx.Done():
		case cause := <-ended:
			err = m.supervisorEnded(cause)
		}
	}
	return errors.Join(err, m.Down(context.WithoutCancel(ctx)))
}

const (
	pollInterval = 100 * time.Millisecond
	readyTimeout = 5 * time.Minute
	noteInterval = 10 * time.Second
)

// await waits for each condition in turn, as long as the supervisor has not
// ended.
func (m *Manager) await(ctx context.Context, ended <-chan error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("gave up after %s", readyTimeout))
	defer cancel()
	w := waiter{Manager: m, ended: ended, start: time.Now()}
	for i := 0; ; i++ {
		conditions, err := w.conditions(ctx)
		if err != nil {
			return err
		}
		if i >= len(conditions) {
			m.Progress("ready after %s", time.Since(w.start).Round(100*time.Millisecond))
			return nil
		}
		if err := w.wait(ctx, conditions[i]); err != nil {
			return err
		}
	}
}

// waiter is one wait for a cluster.
type waiter struct {
	*Manager
	ended  <-chan error
	start  time.Time
	client *cluster.Client
	known  []cluster.Condition
}

// conditions are known only once the supervisor has written the ports that it
// could get.
func (w *waiter) conditions(ctx context.Context) ([]cluster.Condition, error) {
	if w.known != nil {
		return w.known, nil
	}
	err := w.wait(ctx, cluster.Condition{
		Waiting: "the supervisor",
		Log:     "supervisor",
		Check: func(context.Context) error {
			pid, err := w.Cluster.SupervisorPID()
			if err == nil && pid == 0 {
				err = errors.New("it does not run")
			}
			if err != nil {
				return err
			}
			if _, err := os.Stat(w.Cluster.Path("prepared")); err != nil {
				return errors.New("it is preparing")
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	cfg, err := w.Cluster.LoadConfig()
	if err != nil {
		return nil, err
	}
	layout := cluster.HostLayout(w.Cluster, cfg)
	if w.client, err = layout.HostClient(); err != nil {
		return nil, err
	}
	w.known = layout.Conditions(w.client, w.dial)
	return w.known, nil
}

func (w *waiter) wait(ctx context.Context, c cluster.Condition) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	note := time.Now().Add(noteInterval / 2)
	for {
		err := c.Check(ctx)
		if err == nil {
			return nil
		}
		if time.Now().After(note) {
			w.Progress("waiting for %s (%s): %v", c.Waiting, time.Since(w.start).Round(time.Second), err)
			note = time.Now().Add(noteInterval)
		}
		select {
		case <-tick.C:
		case cause := <-w.ended:
			return w.supervisorEnded(cause)
		case <-ctx.Done():
			return w.failure(ctx, c, err)
		}
	}
}

func (w *waiter) failure(ctx context.Context, c cluster.Condition, last error) error {
	if cause := context.Cause(ctx); errors.Is(cause, context.Canceled) {
		return fmt.Errorf("interrupted while waiting for %s; run `up` again to go on, or `down` to remove the cluster", c.Waiting)
	}
	return fmt.Errorf("%w waiting for %s: %w\nsee `logs %s --name %s`; its last lines:\n%s",
		context.Cause(ctx), c.Waiting, last, c.Log, w.Cluster.Name, w.logTail(c.Log))
}

// logTail returns the end of a log, indented.
func (m *Manager) logTail(component string) string {
	const lines = 15
	b, err := os.ReadFile(m.Cluster.Log(component))
	if err != nil {
		return "  (no log yet)"
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}
