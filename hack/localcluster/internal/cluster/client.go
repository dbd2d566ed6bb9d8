package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Client asks HTTPS endpoints of a cluster with one of its certificates. A few
// GETs are all that is needed to tell health, hence no client library.
type Client struct {
	base string
	http *http.Client
}

// client talks to an address as one of the identities.
func (l Layout) client(address, who string) (*Client, error) {
	ca, err := os.ReadFile(l.Cluster.PKI("ca.crt"))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(l.Cluster.PKI(who+".crt"), l.Cluster.PKI(who+".key"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &Client{
		base: "https://" + address,
		http: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		}},
	}, nil
}

// HostClient talks to the API server as administrator from the host.
func (l Layout) HostClient() (*Client, error) {
	return l.client(fmt.Sprintf("127.0.0.1:%d", l.Config.Ports[PortAPIServer]), certAdmin)
}

// ErrNotFound is the API server's 404.
var ErrNotFound = errors.New("not found")

// Get reads a path; into may be nil.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%s: %w", path, ErrNotFound)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s: %s", path, resp.Status, firstFailure(string(body)))
	case into == nil:
		return nil
	}
	return json.Unmarshal(body, into)
}

// firstFailure picks the telling line out of a health report, in which most
// lines say ok.
func firstFailure(body string) string {
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "[-]") {
			return strings.TrimSpace(line)
		}
	}
	first, _, _ := strings.Cut(body, "\n")
	return first
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// healthy makes a readiness check out of a GET.
func (l Layout) healthy(address, who, path string) func(context.Context) error {
	var c *Client
	return func(ctx context.Context) error {
		if c == nil {
			made, err := l.client(address, who)
			if err != nil {
				return err
			}
			c = made
		}
		return c.Get(ctx, path, nil)
	}
}
