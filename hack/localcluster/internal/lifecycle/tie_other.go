//go:build !linux

package lifecycle

import (
	"context"
	"io"
	"os"
	"os/exec"
	"syscall"
)

func self() (string, error) { return os.Executable() }

// tie makes the supervisor a session of its own. Its input is a pipe that nobody
// writes to: however this process ends, the pipe ends with it.
func tie(cmd *exec.Cmd, _ bool) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	_, err := cmd.StdinPipe()
	return err
}

// tied ends the context of an attached supervisor with the process that started
// it.
func (s Supervision) tied(ctx context.Context) (context.Context, error) {
	if !s.Attached {
		return ctx, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx, nil
}
