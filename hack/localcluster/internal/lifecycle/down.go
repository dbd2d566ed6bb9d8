package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Down removes the cluster, whatever state it is in.
func (m *Manager) Down(ctx context.Context) error {
	lock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer lock.Release(true)
	existed := m.Cluster.Exists()
	if err := m.remove(ctx); err != nil {
		return err
	}
	if !existed {
		m.Progress("cluster %q does not exist; nothing to remove", m.Cluster.Name)
		return nil
	}
	m.Progress("cluster %q is removed", m.Cluster.Name)
	return nil
}

func (m *Manager) remove(ctx context.Context) error {
	if err := m.stop(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(m.Cluster.Root); err != nil {
		return fmt.Errorf("remove the state of cluster %q: %w", m.Cluster.Name, err)
	}
	return nil
}

const stopTimeout = 30 * time.Second

// stop ends every process of the cluster and waits until they are gone. Its data
// stay. With the processes go their namespaces, and with those every mount and
// network device.
func (m *Manager) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, stopTimeout, errors.New("they do not end"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pids, err := m.processes()
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return m.clean()
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("stop process %d of cluster %q: %w", pid, m.Cluster.Name, err)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("stop processes %v of cluster %q: %w", pids, m.Cluster.Name, context.Cause(ctx))
		}
	}
}

// clean removes what outlives the processes and is not in the state folder.
func (m *Manager) clean() error {
	if err := clearNode(m.Cluster.ID()); err != nil {
		return err
	}
	for _, f := range []string{"prepared", "status.json"} {
		if err := os.Remove(m.Cluster.Path(f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
