//go:build linux

// Package node makes the surroundings of a node: namespaces, mounts, cgroups and
// a network.
package node

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Inside runs f on a thread that is in the network namespace of the open file.
// What f opens there stays there: a socket belongs to the namespace it was made
// in, whoever uses it later.
func Inside(netns *os.File, f func() error) error {
	done := make(chan error)
	go func() {
		// Not unlocked: the thread ends with the goroutine, so that nobody else
		// ever runs on a thread in the wrong namespace.
		runtime.LockOSThread()
		if err := unix.Setns(int(netns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Listen opens a listener in a network namespace.
func Listen(netns *os.File, network, address string) (net.Listener, error) {
	var l net.Listener
	err := Inside(netns, func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// internetNetNS is where the namespace of the internet is bound to, as seen
// inside a node.
const internetNetNS = "/run/netns/internet"

// InternetNetNS finds the namespace of the internet from the host.
func InternetNetNS(supervisorPID int) string {
	return fmt.Sprintf("/proc/%d/root%s", supervisorPID, internetNetNS)
}

// newNetNS makes a network namespace and binds it to a path.
func newNetNS(path string) (*os.File, error) {
	if err := os.MkdirAll("/run/netns", 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		return nil, err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // as in Inside
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
	}()
	if err := <-done; err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	return os.Open(path)
}
