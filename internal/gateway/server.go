package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"
)

// Server serves a gateway on a port.
type Server struct {
	gateway *Gateway
	http    *http.Server
	streams context.CancelFunc
}

// NewServer makes a server for a gateway. Without certificates it speaks HTTP without TLS.
func NewServer(g *Gateway, certificates *Certificates, log *slog.Logger) *Server {
	streams, cancel := context.WithCancel(context.Background())
	// HTTP/2 would end a stream that is silent for as long as a client may take to be written to; and bounds on connections would
	// bound nothing.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	s := &Server{gateway: g, streams: cancel, http: &http.Server{
		Handler:           endWith(streams, g),
		Protocols:         protocols,
		ReadHeaderTimeout: g.limits.ReadTime,
		// Each write extends it: it is how long a client may take, not how long an answer may.
		WriteTimeout:   g.limits.WriteTime,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: g.limits.HeaderBytes,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // what clients do wrong in TLS and HTTP
	}}
	if certificates != nil {
		s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificates.get}
	}
	return s
}

// endWith ends the streams that clients hold open when a context ends: they would outlast everything.
func endWith(streams context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(streams, cancel)()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// Serve serves until the context ends. Then it ends the streams, takes no more, and gives the requests that are open
// the time to end by themselves.
func (s *Server) Serve(ctx context.Context, listener net.Listener, drain time.Duration) error {
	listener = netutil.LimitListener(listener, s.gateway.limits.Connections)
	failed := make(chan error, 1)
	go func() {
		if s.http.TLSConfig != nil {
			failed <- s.http.ServeTLS(listener, "", "")
			return
		}
		failed <- s.http.Serve(listener)
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.gateway.Stop()
	s.streams()
	limit, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := s.http.Shutdown(limit); errors.Is(err, context.DeadlineExceeded) {
		return s.http.Close()
	} else if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}
