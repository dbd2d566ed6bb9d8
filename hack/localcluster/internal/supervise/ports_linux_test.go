package supervise

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestReservedPorts(t *testing.T) {
	ports, err := ReservePorts(t.Context(), []string{"a", "b"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ports["a"] == ports["b"] {
		t.Fatalf("two uses share port %d", ports["a"])
	}
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ports["a"]}
	if l, err := net.ListenTCP("tcp", addr); err == nil {
		_ = l.Close()
		t.Error("anybody can take a reserved port")
	}
	other, err := ReservePorts(t.Context(), []string{"a"}, ports)
	if err != nil || other["a"] == ports["a"] {
		t.Errorf("a second reservation of %d gives %v, %v; want another port", ports["a"], other, err)
	}
	if err := listenSharing(addr); err != nil {
		t.Errorf("a server that shares ports cannot take a reserved one: %v", err)
	}
}

// listenSharing listens as the Kubernetes servers do with --permit-port-sharing.
func listenSharing(addr *net.TCPAddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}),
		unix.Listen(fd, 1),
	)
	return errors.Join(err, unix.Close(fd))
}
