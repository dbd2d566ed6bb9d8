//go:build linux

package supervise

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long to hope for ports that others hold, all together.
const patience = time.Second

// ReservePorts finds a free loopback port per name and keeps it from everybody
// else for as long as this process lives: it binds each without listening, and
// with port sharing, so that only a server that shares ports on purpose (as the
// Kubernetes servers and etcd can) gets it too. wanted are ports to prefer.
func ReservePorts(ctx context.Context, names []string, wanted map[string]int) (map[string]int, error) {
	ports := make(map[string]int, len(names))
	giveUp := time.Now().Add(patience)
	for _, n := range names {
		port, err := reserve(wanted[n])
		// A process that was just killed may not have let go of its port yet.
		for err != nil && wanted[n] != 0 && time.Now().Before(giveUp) {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(patience / 100):
			}
			port, err = reserve(wanted[n])
		}
		if err != nil {
			port, err = reserve(0)
		}
		if err != nil {
			return nil, fmt.Errorf("reserve a port for %s: %w", n, err)
		}
		ports[n] = port
	}
	return ports, nil
}

// reserve leaves its socket open: it is closed by the end of the process.
func reserve(port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	addr, err := bind(fd, port)
	if err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	return addr, nil
}

func bind(fd, port int) (int, error) {
	// A port that served before the last restart has connections that linger;
	// with this they do not stand in the way.
	reuse := 0
	if port != 0 {
		reuse = 1
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse); err != nil {
		return 0, err
	}
	addr := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(fd, addr); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0); err != nil {
		return 0, err
	}
	// Sharing is allowed only now: a bind that may share could take a port that
	// another cluster shares with its own servers.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, err
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return got.(*unix.SockaddrInet4).Port, nil
}
