package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Lock serialises the commands that change a cluster. The lock file lies beside
// the state folder, because `down` removes that folder while it holds the lock.
type Lock struct{ file *os.File }

// Lock waits for the lock; waiting is called once if another command holds it.
func (c Cluster) Lock(ctx context.Context, waiting func()) (*Lock, error) {
	path := filepath.Join(filepath.Dir(c.Root), "."+c.Name+".lock")
	return LockFile(ctx, path, waiting)
}

// LockFile locks a file that any number of processes may lock and remove.
func LockFile(ctx context.Context, path string, waiting func()) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		lock, err := tryLock(path)
		if lock != nil || err != nil {
			return lock, err
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

// tryLock returns nil and no error if somebody else holds the lock.
func tryLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil && sameFile(f, path) {
		return &Lock{file: f}, nil
	}
	_ = f.Close()
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return nil, nil
}

// sameFile tells a lock that still counts from one on a file that its last
// holder has removed.
func sameFile(f *os.File, path string) bool {
	a, errA := f.Stat()
	b, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// Release lets others in. remove also removes the lock file.
func (l *Lock) Release(remove bool) {
	if remove {
		_ = os.Remove(l.file.Name())
	}
	_ = l.file.Close()
}

// HoldSupervisor marks this process as the cluster's supervisor until it ends.
// The kernel keeps the mark: it cannot go stale as a file with a process id can,
// and it tells the process id in the reader's own PID namespace. The file must
// stay open and must not be opened again by this process.
func (c Cluster) HoldSupervisor() (*os.File, error) {
	f, err := os.OpenFile(c.Path("supervisor.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("mark supervisor: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("mark supervisor: another one runs already: %w", err)
	}
	return f, nil
}

// SupervisorPID returns 0 if no supervisor runs.
func (c Cluster) SupervisorPID() (int, error) {
	f, err := os.Open(c.Path("supervisor.lock"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find supervisor: %w", err)
	}
	defer func() { _ = f.Close() }()
	// A read lock collides with the supervisor's write lock, and needs no more
	// than a file that is open for reading.
	lock := unix.Flock_t{Type: unix.F_RDLCK, Whence: 0}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return 0, fmt.Errorf("find supervisor: %w", err)
	}
	if lock.Type == unix.F_UNLCK {
		return 0, nil
	}
	return int(lock.Pid), nil
}
