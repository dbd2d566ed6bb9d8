package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// operator measures the operator as a process of its own. In the last repetition it also measures
// the rest and a restart.
func (c *cluster) operator(ctx context.Context, opts options, binary string, size int, last bool, out *result) error {
	if err := c.createNamespaces(ctx); err != nil {
		return err
	}
	p, err := c.start(ctx, opts, binary)
	if err != nil {
		return err
	}
	defer func() { _ = p.stop() }() // a no-op but after an error, which says more
	if err := c.warmUp(ctx); err != nil {
		return err
	}
	before, err := c.calm(ctx)
	if err != nil {
		return err
	}
	wait, err := c.watchDeployments(ctx, size)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := c.createServers(ctx, opts.workers, size, nil); err != nil {
		return err
	}
	if err := wait(); err != nil {
		return err
	}
	out.OperatorSeconds = append(out.OperatorSeconds, time.Since(start).Seconds())
	settled, err := c.calm(ctx)
	if err != nil {
		return err
	}
	out.Requests = settled.since(before)
	if out.CPUSeconds, err = p.cpuSeconds(); err != nil {
		return err
	}
	if !last {
		return p.stop()
	}
	return c.restAndRestart(ctx, opts, binary, p, out)
}

func (c *cluster) restAndRestart(ctx context.Context, opts options, binary string, p *process, out *result) error {
	before, err := c.requests(ctx)
	if err != nil {
		return err
	}
	rest := time.NewTimer(opts.rest)
	defer rest.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-rest.C:
	}
	after, err := c.requests(ctx)
	if err != nil {
		return err
	}
	out.AtRest = after.since(before)
	if out.ResidentMiB, out.PeakMiB, err = p.memory(); err != nil {
		return err
	}
	if err := p.stop(); err != nil {
		return err
	}
	again, err := c.start(ctx, opts, binary)
	if err != nil {
		return err
	}
	defer func() { _ = again.stop() }() // a no-op but after an error, which says more
	restarted, err := c.calm(ctx)
	if err != nil {
		return err
	}
	out.OnRestart = restarted.since(after)
	if out.ResidentRestartMiB, _, err = again.memory(); err != nil {
		return err
	}
	return again.stop()
}

// warmUp waits until the operator has served a server, so that its start is not measured.
func (c *cluster) warmUp(ctx context.Context) error {
	server := example(0)
	server.Name = "warm-up"
	w, err := c.client.Watch(ctx, &v1alpha1.MCPServerList{}, client.InNamespace(server.Namespace))
	if err != nil {
		return fmt.Errorf("watch MCPServers: %w", err)
	}
	defer w.Stop()
	if err := c.client.Create(ctx, server); err != nil {
		return fmt.Errorf("create MCPServer: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the operator did nothing: %w", ctx.Err())
		case event, open := <-w.ResultChan():
			if !open {
				return errors.New("the watch of MCPServers ended")
			}
			if server, ok := event.Object.(*v1alpha1.MCPServer); ok && len(server.Status.Conditions) > 0 {
				return nil
			}
		}
	}
}

// process is the operator.
type process struct {
	cmd *exec.Cmd
}

func (c *cluster) start(ctx context.Context, opts options, binary string) (*process, error) {
	cmd := exec.CommandContext(ctx, binary, "--health-probe-bind-address=0", "--workers="+strconv.Itoa(opts.workers), "--zap-log-level=error")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the operator: %w", err)
	}
	return &process{cmd: cmd}, nil
}

// stop ends the operator as a cluster would; a second time it does nothing.
func (p *process) stop() error {
	if p.cmd.ProcessState != nil {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop the operator: %w", err)
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("the operator ended: %w", err)
	}
	return nil
}

func (p *process) file(name string) (string, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), name))
	if err != nil {
		return "", fmt.Errorf("read what the operator uses: %w", err)
	}
	return string(raw), nil
}

// cpuSeconds that the operator has used, in user and in kernel mode.
func (p *process) cpuSeconds() (float64, error) {
	const ticksPerSecond = 100 // USER_HZ, the same on every Linux that Go runs on
	stat, err := p.file("stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]) // from the third field on: see proc(5)
	user, err := strconv.ParseFloat(fields[11], 64)
	if err != nil {
		return 0, fmt.Errorf("read utime: %w", err)
	}
	system, err := strconv.ParseFloat(fields[12], 64)
	if err != nil {
		return 0, fmt.Errorf("read stime: %w", err)
	}
	return (user + system) / ticksPerSecond, nil
}

// memory that the operator has in use, and the most it ever had, in MiB.
func (p *process) memory() (resident, peak float64, err error) {
	status, err := p.file("status")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(status) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(fields[1], 64) // the two lines that are read hold numbers
		switch fields[0] {
		case "VmRSS:":
			resident = kib / 1024
		case "VmHWM:":
			peak = kib / 1024
		}
	}
	return resident, peak, nil
}
