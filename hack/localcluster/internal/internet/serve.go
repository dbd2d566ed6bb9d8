package internet

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/pki"
)

// Listen opens a listener in the namespace that plays the internet.
type Listen func(network, address string) (net.Listener, error)

// Serve answers on every address of the internet until the context ends.
func Serve(ctx context.Context, listen Listen, ca *pki.CA, log *slog.Logger) error {
	plain := []string{":80", ":8080"}
	var wg sync.WaitGroup
	defer wg.Wait()
	run := func(listener net.Listener, serve func(net.Listener) error) {
		context.AfterFunc(ctx, func() { _ = listener.Close() })
		wg.Go(func() {
			if err := serve(listener); err != nil && ctx.Err() == nil {
				log.Error("internet server ended", "address", listener.Addr(), "error", err)
			}
		})
	}
	for _, address := range plain {
		listener, err := listen("tcp4", address)
		if err != nil {
			return err
		}
		run(listener, webServer().Serve)
	}
	secure, err := listen("tcp4", ":443")
	if err != nil {
		return err
	}
	certificates := &certificates{ca: ca, made: map[string]*tls.Certificate{}}
	server := webServer()
	server.TLSConfig = &tls.Config{GetCertificate: certificates.get, MinVersion: tls.VersionTLS12}
	run(secure, func(l net.Listener) error { return server.ServeTLS(l, "", "") })

	echo, err := listen("tcp4", ":9000")
	if err != nil {
		return err
	}
	run(echo, serveEcho)
	turning, err := listen("tcp4", TurningDNSPort)
	if err != nil {
		return err
	}
	run(turning, serveTurningNames)
	<-ctx.Done()
	return nil
}

func webServer() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(answer),
		ReadHeaderTimeout: 10 * time.Second,
	}
}

// Answer is what the web servers say of a request, as far as they can tell.
type Answer struct {
	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"`
	SNI    string `json:"sni,omitempty"`
	Server string `json:"server"`
	Client string `json:"client"`
}

func answer(w http.ResponseWriter, r *http.Request) {
	if to := r.URL.Query().Get("redirect"); to != "" { // whoever asks is sent where it says
		http.Redirect(w, r, to, http.StatusFound)
		return
	}
	a := Answer{Method: r.Method, Host: r.Host, Path: r.URL.RequestURI(), Client: r.RemoteAddr}
	if r.TLS != nil {
		a.SNI = r.TLS.ServerName
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		a.Server = local.String()
	}
	w.Header().Set("Content-Type", "application/json")
	// A client that has gone away needs no answer.
	_ = json.NewEncoder(w).Encode(a)
}

func serveEcho(listener net.Listener) error {
	return serveEach(listener, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
}

// serveEach calls serve for each connection, which is closed afterwards, until the listener is.
func serveEach(listener net.Listener, serve func(net.Conn)) error {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = conn.Close() }()
			serve(conn)
		}()
	}
}

// certificates makes a certificate for each name that is asked for.
type certificates struct {
	ca   *pki.CA
	mu   sync.Mutex
	made map[string]*tls.Certificate
}

// maxCertificates bounds what a client that makes up names can make us keep.
const maxCertificates = 1000

func (c *certificates) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := hello.ServerName
	if name == "" {
		host, _, err := net.SplitHostPort(hello.Conn.LocalAddr().String())
		if err != nil {
			return nil, err
		}
		name = host
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cert := c.made[name]; cert != nil {
		return cert, nil
	}
	der, key, err := c.ca.Sign(pki.Leaf{CommonName: name, Hosts: []string{name}})
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if len(c.made) >= maxCertificates {
		clear(c.made)
	}
	c.made[name] = cert
	return cert, nil
}
