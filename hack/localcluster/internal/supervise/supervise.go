// Package supervise runs the processes of a cluster and restarts those that
// die.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Process is one component.
type Process struct {
	Name string
	Path string
	Args []string
	Env  []string
	// After names processes that must be ready before this one starts.
	After []string
	// Ready asks whether the process does its work; nil if running is enough.
	Ready func(context.Context) error
	// NetNS is an open network namespace to start in; 0 is the supervisor's own.
	NetNS int
}

// Supervisor runs processes and tells their state.
type Supervisor struct {
	cluster   state.Cluster
	log       *slog.Logger
	spawner   *spawner
	processes []Process
	ready     map[string]chan struct{}

	mu         sync.Mutex
	components []state.Component
}

// New makes a supervisor of processes that writes its status and their logs into
// the cluster's state folder.
func New(cluster state.Cluster, log *slog.Logger, processes []Process) (*Supervisor, error) {
	s := &Supervisor{
		cluster:   cluster,
		log:       log,
		spawner:   newSpawner(),
		processes: processes,
		ready:     map[string]chan struct{}{},
	}
	for _, p := range processes {
		for _, dep := range p.After {
			// It would wait for ever.
			if s.ready[dep] == nil {
				return nil, fmt.Errorf("%s is to start after %s, which is not listed before it", p.Name, dep)
			}
		}
		s.ready[p.Name] = make(chan struct{})
		s.components = append(s.components, state.Component{Name: p.Name, State: state.StateWaiting})
	}
	return s, nil
}

// Run keeps the processes running until the context ends; then it kills them
// and returns when they are gone.
func (s *Supervisor) Run(ctx context.Context) error {
	for _, p := range s.processes {
		if err := rotate(s.cluster.Log(p.Name)); err != nil {
			return err
		}
	}
	s.save()
	var wg sync.WaitGroup
	for _, p := range s.processes {
		wg.Go(func() { s.keep(ctx, p) })
	}
	wg.Wait()
	return nil
}

// Await returns once each named process has been ready for the first time.
func (s *Supervisor) Await(ctx context.Context, names ...string) error {
	for _, n := range names {
		select {
		case <-s.ready[n]:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

const (
	minBackoff = 250 * time.Millisecond
	maxBackoff = 10 * time.Second
	// stableAfter is how long a process must have run for its next restart to
	// count as the first one again.
	stableAfter = 30 * time.Second
)

func (s *Supervisor) keep(ctx context.Context, p Process) {
	if s.Await(ctx, p.After...) != nil {
		return
	}
	backoff := minBackoff
	for {
		start := time.Now()
		err := s.runOnce(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > stableAfter {
			backoff = minBackoff
		}
		s.log.Warn("component ended", "component", p.Name, "error", err, "restart_in", backoff)
		s.update(p.Name, func(c *state.Component) {
			c.State, c.PID, c.Problem = state.StateFailed, 0, fmt.Sprint(err)
			c.Restarts++
		})
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// runOnce starts the process, watches its readiness and returns why it ended.
func (s *Supervisor) runOnce(ctx context.Context, p Process) error {
	logFile, err := os.OpenFile(s.cluster.Log(p.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = logFile.Close() }()

	cmd := exec.CommandContext(ctx, p.Path, p.Args...)
	cmd.Env = p.Env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if err := s.spawner.start(cmd, p.NetNS); err != nil {
		return err
	}
	s.update(p.Name, func(c *state.Component) {
		c.State, c.PID, c.Started, c.Problem = state.StateStarting, cmd.Process.Pid, time.Now(), ""
	})
	watchCtx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.watch(watchCtx, p) })
	err = s.spawner.wait(cmd)
	stop()
	wg.Wait()
	if err == nil {
		err = errors.New("exited with status 0")
	}
	return err
}

// watch asks for readiness, often while the process starts, seldom later.
func (s *Supervisor) watch(ctx context.Context, p Process) {
	const starting, steady, limit = 100 * time.Millisecond, 2 * time.Second, 5 * time.Second
	for {
		interval := starting
		err := error(nil)
		if p.Ready != nil {
			probeCtx, cancel := context.WithTimeout(ctx, limit)
			err = p.Ready(probeCtx)
			cancel()
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			interval = steady
		}
		s.report(p.Name, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

func (s *Supervisor) report(name string, err error) {
	s.update(name, func(c *state.Component) {
		if err != nil {
			c.State, c.Problem = state.StateStarting, err.Error()
			return
		}
		c.State, c.Problem = state.StateReady, ""
		select {
		case <-s.ready[name]:
		default:
			close(s.ready[name])
		}
	})
}

// update changes a component and writes the status if that changed anything.
func (s *Supervisor) update(name string, change func(*state.Component)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.components {
		if c := &s.components[i]; c.Name == name {
			before := *c
			change(c)
			if *c != before {
				s.saveLocked()
			}
		}
	}
}

func (s *Supervisor) save() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saveLocked()
}

func (s *Supervisor) saveLocked() {
	if err := s.cluster.SaveStatus(state.Status{Components: s.components}); err != nil {
		s.log.Error("cannot write status", "error", err)
	}
}

// rotate keeps the log of the supervisor's last run beside the new one.
func rotate(path string) error {
	err := os.Rename(path, strings.TrimSuffix(path, ".log")+".previous.log")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("rotate log: %w", err)
	}
	return nil
}
