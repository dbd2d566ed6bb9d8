//go:build !linux

package supervise

import (
	"os/exec"
	"syscall"
)

// spawner starts processes. Nothing ends them with a supervisor that is killed:
// whoever starts or removes the cluster next does.
type spawner struct{}

func newSpawner() *spawner { return &spawner{} }

func (*spawner) start(cmd *exec.Cmd, _ int) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

func (*spawner) wait(cmd *exec.Cmd) error { return cmd.Wait() }
