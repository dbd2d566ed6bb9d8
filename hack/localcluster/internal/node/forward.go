//go:build linux

package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
)

// Forward passes connections on to an address until the context ends.
func Forward(ctx context.Context, from net.Listener, to string, log *slog.Logger) {
	context.AfterFunc(ctx, func() { _ = from.Close() })
	for {
		conn, err := from.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			log.Error("forwarding ends", "from", from.Addr(), "to", to, "error", err)
			return
		}
		go func() {
			defer func() { _ = conn.Close() }()
			var dialer net.Dialer
			upstream, err := dialer.DialContext(ctx, "tcp", to)
			if err != nil {
				return // the caller sees a closed connection, as from a server that is down
			}
			defer func() { _ = upstream.Close() }()
			join(conn.(*net.TCPConn), upstream.(*net.TCPConn))
		}()
	}
}

// join copies both ways and passes on the end of each direction by itself.
func join(a, b *net.TCPConn) {
	var wg sync.WaitGroup
	pass := func(to, from *net.TCPConn) {
		_, _ = io.Copy(to, from)
		_ = to.CloseWrite()
	}
	wg.Go(func() { pass(a, b) })
	wg.Go(func() { pass(b, a) })
	wg.Wait()
}
