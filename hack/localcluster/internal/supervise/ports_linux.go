package supervise

import "golang.org/x/sys/unix"

// reserve binds a port without listening, and with port sharing, so that only a
// server that shares ports on purpose (as the Kubernetes servers and etcd can)
// gets it too. The socket stays open until the end of the process.
func reserve(port int) (got int, release func(), err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	got, err = bind(fd, port)
	if err != nil {
		_ = unix.Close(fd)
		return 0, nil, err
	}
	return got, func() {}, nil
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
