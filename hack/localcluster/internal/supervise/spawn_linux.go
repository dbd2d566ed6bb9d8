package supervise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// spawner starts processes from one thread that lives as long as the
// supervisor. The kernel sends the parent-death signal when the thread that
// started a process ends, and Go ends threads when it likes; and a thread of
// its own can enter another network namespace without disturbing anybody.
type spawner struct {
	jobs chan func()

	// mu is held while a process is started, so that the reaper never meets a
	// child that is not yet known as ours.
	mu   sync.Mutex
	ours map[int]bool
}

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func()), ours: map[int]bool{}}
	go func() {
		runtime.LockOSThread()
		for job := range s.jobs {
			job()
		}
	}()
	if os.Getpid() == 1 {
		go s.reap()
	}
	return s
}

func (s *spawner) start(cmd *exec.Cmd, netns int) error {
	done := make(chan error)
	s.jobs <- func() { done <- s.startOnThread(cmd, netns) }
	return <-done
}

func (s *spawner) startOnThread(cmd *exec.Cmd, netns int) (err error) {
	if netns != 0 {
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		defer func() { _ = home.Close() }()
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		defer func() {
			// A thread that cannot come home would start the rest in the wrong
			// place: nothing sensible is left to do.
			if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
				panic(fmt.Sprintf("leave network namespace: %v", err))
			}
		}()
	}
	// A supervisor that is killed takes its processes with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	s.ours[cmd.Process.Pid] = true
	return nil
}

func (s *spawner) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	s.mu.Lock()
	delete(s.ours, cmd.Process.Pid)
	s.mu.Unlock()
	return err
}

// reap collects the orphans that fall to us as process 1 of a PID namespace,
// such as containerd's shims. Our own children are left to wait.
func (s *spawner) reap() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-died:
		case <-tick.C:
		}
		for s.reapOne() {
		}
	}
}

// reapOne reports whether there may be more to reap. It looks at the next dead
// child without taking it, and takes it only if it is an orphan. If it is one of
// ours, orphans behind it are met at the next signal or tick.
func (s *spawner) reapOne() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, err := deadChild()
	if errors.Is(err, unix.EINTR) {
		return true
	}
	if err != nil || pid == 0 || s.ours[pid] {
		return false
	}
	_, err = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	return err == nil
}

// childInfo is the kernel's siginfo_t for a child, up to the process id.
type childInfo struct {
	signo, errno, code, _ int32
	pid                   int32
	_                     [128 - 5*4]byte
}

func deadChild() (int, error) {
	var info childInfo
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(info.pid), nil
}
