//go:build linux

package supervise

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// ReservePorts finds a free loopback port per name and keeps it from everybody
// else for as long as this process lives: it binds each without listening, and
// with port sharing, so that only a server that shares ports on purpose (as the
// Kubernetes servers and etcd can) gets it too. wanted are ports to prefer.
func ReservePorts(names []string, wanted map[string]int) (map[string]int, error) {
	ports := make(map[string]int, len(names))
	for _, n := range names {
		port, err := reserve(wanted[n])
		if err != nil && wanted[n] != 0 {
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
	// The first bind is exclusive, so that a port that another cluster shares
	// with its own server is not taken for free.
	addr := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(fd, addr); err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return 0, err
	}
	got, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return got.(*unix.SockaddrInet4).Port, nil
}
