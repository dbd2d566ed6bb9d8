package egressproxy

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
)

// maxResponseHead bounds the header of a host's answer, in bytes.
const maxResponseHead = 64 << 10

// plainServer forwards requests in plain HTTP that were decided on: one for each connection, on a
// connection of its own to the host.
type plainServer struct {
	proxy  *Proxy
	server *http.Server
	conns  chan net.Conn
	done   chan struct{}
}

func newPlainServer(p *Proxy) *plainServer {
	s := &plainServer{proxy: p, conns: make(chan net.Conn), done: make(chan struct{})}
	s.server = &http.Server{
		Handler:           http.HandlerFunc(forward),
		ReadHeaderTimeout: p.limits.HeadTime,
		MaxHeaderBytes:    p.limits.HeadBytes,
		ErrorLog:          log.New(io.Discard, "", 0), // what it says of a request may hold anything
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, exchangeKey{}, conn.(*exchange))
		},
	}
	s.server.SetKeepAlivesEnabled(false)
	return s
}

// run serves until stop.
func (s *plainServer) run() { _ = s.server.Serve(s) }

func (s *plainServer) stop() { _ = s.server.Close() }

// hand takes a request over: the connection that it came on, with what was read of it.
func (s *plainServer) hand(conn net.Conn, read []byte, f *flow, origin net.Conn) {
	x := &exchange{Conn: conn, read: read, flow: f, origin: &counted{Conn: origin, flow: f}}
	f.attach(conn) // an ended flow closes it, and the server finds that out
	x.finish = sync.OnceFunc(func() {
		f.stop(Finished)
		s.proxy.finish(f)
	})
	select {
	case s.conns <- x:
	case <-s.done:
		_ = x.Close()
	}
}

// Accept, Close and Addr make a listener of what is handed over.
func (s *plainServer) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (s *plainServer) Close() error {
	close(s.done)
	return nil
}

// Addr is not asked for.
func (s *plainServer) Addr() net.Addr { return &net.TCPAddr{} }

// exchange is a client's connection with its one request.
type exchange struct {
	net.Conn
	read   []byte // what the proxy has read of it
	flow   *flow
	origin *counted
	finish func()
}

type exchangeKey struct{}

// Read gives first what was read already.
func (x *exchange) Read(b []byte) (int, error) {
	if len(x.read) > 0 {
		n := copy(b, x.read)
		x.read = x.read[n:]
		return n, nil
	}
	return x.Conn.Read(b)
}

// CloseWrite lets the server end its answer before it closes.
func (x *exchange) CloseWrite() error { return x.Conn.(*net.TCPConn).CloseWrite() }

// Close ends the exchange.
func (x *exchange) Close() error {
	err := x.Conn.Close()
	x.finish()
	return err
}

// counted is a connection to a host that counts what passes.
type counted struct {
	net.Conn
	flow *flow
	used bool
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.flow.down.Add(int64(n))
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.flow.up.Add(int64(n))
	return n, err
}

// forward makes the request anew for the host that was decided on, and hands the answer back as it is:
// a redirect is for the client to follow, or to be refused.
func forward(w http.ResponseWriter, r *http.Request) {
	x := r.Context().Value(exchangeKey{}).(*exchange)
	if to, reason := parseAuthority(r.URL.Host, "80"); reason != "" || to != x.flow.to || r.URL.Scheme != "http" || r.Method != x.flow.method {
		http.Error(w, "BadRequest", http.StatusBadRequest) // two readers of the same bytes disagree
		return
	}
	transport := &http.Transport{
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxResponseHead,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if x.origin.used {
				return nil, errors.New("one connection for each request")
			}
			x.origin.used = true
			return x.origin, nil
		},
	}
	(&httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host, pr.Out.Host = "http", x.flow.to.authority(), x.flow.to.authority()
			pr.Out.URL.RawQuery = pr.In.URL.RawQuery
			pr.Out.Trailer = nil
			pr.Out.Header.Del("Expect")
			dropProxyFields(pr.Out.Header)
		},
		ModifyResponse: func(response *http.Response) error {
			if response.StatusCode == http.StatusSwitchingProtocols {
				return errors.New("an upgrade that nobody asked for")
			}
			dropProxyFields(response.Header)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "The host gave no answer that can be handed on.", http.StatusBadGateway)
		},
	}).ServeHTTP(w, r)
}

// dropProxyFields removes what is meant for proxies only.
func dropProxyFields(header http.Header) {
	for name := range header {
		if strings.HasPrefix(strings.ToLower(name), "proxy-") {
			delete(header, name)
		}
	}
}
