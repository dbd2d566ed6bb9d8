package internet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/pki"
)

func TestZonePreset(t *testing.T) {
	names := map[string]string{}
	for line := range strings.Lines(presetZone) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if net.ParseIP(fields[0]) == nil {
			t.Errorf("%q does not start with an address", line)
		}
		for _, name := range fields[1:] {
			names[name] = fields[0]
		}
	}
	for name, want := range map[string]string{
		"api.example.test":         "203.0.113.10",
		"files.example.test":       "203.0.113.11",
		"evil.test":                "203.0.113.12",
		"metadata.google.internal": MetadataAddress,
	} {
		if names[name] != want {
			t.Errorf("%s is %q, want %s", name, names[name], want)
		}
	}
}

func TestEnsureKeepsAnEditedZone(t *testing.T) {
	f := Files{Dir: filepath.Join(t.TempDir(), "internet")}
	made := 0
	makeCA := func(base string) error {
		made++
		return os.WriteFile(base+".key", nil, 0o600)
	}
	if err := f.Ensure(makeCA); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(f.Zone(), []byte("203.0.113.20 new.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Ensure(makeCA); err != nil {
		t.Fatal(err)
	}
	zone, err := os.ReadFile(f.Zone())
	if err != nil || !strings.Contains(string(zone), "new.test") {
		t.Errorf("zone is %q, %v; want the edited one", zone, err)
	}
	if made != 1 {
		t.Errorf("the CA was made %d times", made)
	}
}

// world serves an internet on loopback ports and tells the address of each port.
func world(t *testing.T) (ca *x509.CertPool, address map[string]string) {
	t.Helper()
	authority, err := pki.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(t.TempDir(), "ca")
	if err := authority.WriteFiles(base); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(base + ".crt")
	if err != nil {
		t.Fatal(err)
	}
	ca = x509.NewCertPool()
	ca.AppendCertsFromPEM(pem)

	address = map[string]string{}
	var ready, done sync.WaitGroup
	ready.Add(5)
	listen := func(network, port string) (net.Listener, error) {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err == nil {
			address[port] = l.Addr().String()
			ready.Done()
		}
		return l, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done.Go(func() {
		if err := Serve(ctx, listen, authority, slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	ready.Wait()
	return ca, address
}

func TestServe(t *testing.T) {
	ca, address := world(t)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, network, address[":"+port])
		},
	}}
	defer client.CloseIdleConnections()
	for url, want := range map[string]Answer{
		"http://api.example.test/a?b=c":  {Host: "api.example.test", Path: "/a?b=c"},
		"http://api.example.test:8080/":  {Host: "api.example.test:8080", Path: "/"},
		"https://any.name.example/x":     {Host: "any.name.example", Path: "/x", SNI: "any.name.example"},
		"https://other.name.example/x/y": {Host: "other.name.example", Path: "/x/y", SNI: "other.name.example"},
	} {
		resp, err := client.Get(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		var got Answer
		err = json.NewDecoder(resp.Body).Decode(&got)
		_ = resp.Body.Close()
		if err != nil || got.Host != want.Host || got.Path != want.Path || got.SNI != want.SNI || got.Method != http.MethodGet {
			t.Errorf("%s answers %+v, %v; want %+v", url, got, err, want)
		}
		if got.Server == "" || got.Client == "" {
			t.Errorf("%s does not tell the addresses: %+v", url, got)
		}
	}
}

func TestEcho(t *testing.T) {
	_, address := world(t)
	conn, err := net.Dial("tcp", address[":9000"])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("echo is %q, %v", got, err)
	}
}

func TestTurningNames(t *testing.T) {
	_, address := world(t)
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", address[TurningDNSPort])
	}}
	var got []string
	for range 4 {
		addresses, err := resolver.LookupNetIP(t.Context(), "ip4", "any.turning.test.")
		if err != nil || len(addresses) != 1 {
			t.Fatalf("%v, %v; want one address", addresses, err)
		}
		got = append(got, addresses[0].Unmap().String())
	}
	if want := "203.0.113.14 10.96.0.1 203.0.113.14 10.96.0.1"; strings.Join(got, " ") != want {
		t.Errorf("the answers are %v, want %s", got, want)
	}
}
