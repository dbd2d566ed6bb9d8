package lifecycle

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// self is this program, whatever has become of its file.
func self() (string, error) { return "/proc/self/exe", nil }

// tie makes the supervisor a session of its own that dies with the thread that
// starts it, and gives it the namespaces of a node.
func tie(cmd *exec.Cmd, node bool) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if node {
		cmd.SysProcAttr.Cloneflags = nodeNamespaces
	}
	return nil
}

// nodeNamespaces are those that a node does not share with the host. Network
// and cgroup namespaces follow from within, once there is no more need of the
// host's.
const nodeNamespaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// tied is called by the supervisor once it is marked: then it can be found, and
// may outlive its parent unless it is attached.
func (s Supervision) tied(ctx context.Context) (context.Context, error) {
	if s.Attached {
		return ctx, nil
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("detach: %w", err)
	}
	return ctx, nil
}
