package stdio

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// reaper waits for every process that ends: for the children, and for what they leave behind, of which the gateway is the
// parent then. Waiting is a matter of the whole process, so there is one.
type reaper struct {
	mu       sync.Mutex
	children map[int]func(syscall.WaitStatus)
}

var theReaper = sync.OnceValue(func() *reaper {
	r := &reaper{children: map[int]func(syscall.WaitStatus){}}
	// As PID 1 it is so by itself; as any other process it has to ask for the orphans.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			r.sweep()
		}
	}()
	return r
})

// start starts a process in a group of its own. Its end is told once, from another goroutine; by then nothing is left of the group.
func (r *reaper) start(path string, args []string, attr *os.ProcAttr, ended func(syscall.WaitStatus)) (int, error) {
	// The server must not outlive the gateway: nobody could talk to it.
	attr.Sys = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r.mu.Lock() // a process that ends at once is not swept before it is known
	defer r.mu.Unlock()
	process, err := os.StartProcess(path, args, attr)
	if err != nil {
		return 0, fmt.Errorf("start the server: %w", err)
	}
	pid := process.Pid
	r.children[pid] = ended
	return pid, process.Release()
}

// signal signals the group of a child that has not ended.
func (r *reaper) signal(pid int, sig syscall.Signal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.children[pid] != nil {
		_ = syscall.Kill(-pid, sig)
	}
}

// sweep takes in every process that has ended.
func (r *reaper) sweep() {
	for {
		r.mu.Lock()
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		ended := r.children[pid]
		if ended != nil {
			delete(r.children, pid)
			// Under the lock: no child of ours can have got the same number meanwhile.
			_ = syscall.Kill(-pid, syscall.SIGKILL)
		}
		r.mu.Unlock()
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if ended != nil {
			go ended(status)
		}
	}
}
