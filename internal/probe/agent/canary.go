package agent

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/probe"
)

// maxGreetings is how many connections of one port are answered at a time; more wait in the kernel.
const maxGreetings = 64

// Canary answers with its greeting on both ports, and with nothing else, until the context ends.
func Canary(ctx context.Context, host string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error)
	ports := []int{probe.AllowedPort, probe.DeniedPort}
	listeners := make([]net.Listener, len(ports))
	for i, port := range ports {
		var err error
		if listeners[i], err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, fmt.Sprint(port))); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		defer func() { _ = listeners[i].Close() }()
	}
	for i, port := range ports {
		go func() {
			select {
			case ended <- greet(listeners[i], probe.Greeting(port)):
			case <-ctx.Done():
			}
		}()
	}
	select {
	case err := <-ended: // one port without the other would make a canary that lies
		return fmt.Errorf("accept: %w", err)
	case <-ctx.Done():
		return nil
	}
}

// greet answers until the listener is closed.
func greet(listener net.Listener, greeting string) error {
	slots := make(chan struct{}, maxGreetings)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			defer func() { _ = conn.Close() }()
			if conn.SetWriteDeadline(time.Now().Add(attemptTimeout)) == nil {
				_, _ = conn.Write([]byte(greeting))
			}
		}()
	}
}
