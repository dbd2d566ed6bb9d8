//go:build !linux

package supervise

import "net"

// reserve finds a port but does not keep it: which of two sockets that share a
// port gets the connections is not the same everywhere.
func reserve(port int) (got int, release func(), err error) {
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return 0, nil, err
	}
	return l.Addr().(*net.TCPAddr).Port, func() { _ = l.Close() }, nil
}
