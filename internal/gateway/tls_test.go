package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// certificate returns where a certificate and its key are, and a function that writes one with a serial number.
func certificate(t *testing.T) (certFile, keyFile string, write func(serial int64)) {
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	return certFile, keyFile, func(serial int64) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
		cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
			if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestCertificatesAreReadAnew(t *testing.T) {
	certFile, keyFile, write := certificate(t)
	if _, err := NewCertificates(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("no error without files")
	}
	write(1)
	var log bytes.Buffer
	c, err := NewCertificates(certFile, keyFile, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	expect := func(when string, serial int64) {
		t.Helper()
		now = now.Add(2 * certificateAge)
		got, err := c.get(nil)
		if err != nil || got.Leaf.SerialNumber.Int64() != serial {
			t.Errorf("%s: got %v, %v, want %d", when, got.Leaf.SerialNumber, err, serial)
		}
	}
	expect("at first", 1)
	write(2)
	expect("when it has changed", 2)
	if err := os.WriteFile(certFile, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect("when it is damaged", 2)
	if log.Len() == 0 {
		t.Error("nothing was logged")
	}
	write(3)
	expect("when it is good again", 3)
}

func TestTLS(t *testing.T) {
	certFile, keyFile, write := certificate(t)
	write(1)
	certificates, err := NewCertificates(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(Config{Path: "/mcp", Limits: DefaultLimits(), Backend: echo, Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry()})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- NewServer(g, certificates, slog.New(slog.DiscardHandler)).Serve(ctx, listener, time.Second)
	}()
	roots := x509.NewCertPool()
	pair, _ := certificates.get(nil)
	roots.AddCert(pair.Leaf)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	client := &http.Client{Transport: transport}
	response, err := client.Post("https://"+listener.Addr().String()+"/mcp", "application/json", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"m","params":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if string(body) != `{"jsonrpc":"2.0","id":1,"result":{}}` || response.ProtoMajor != 1 {
		t.Errorf("got %s by %s", body, response.Proto)
	}
	transport.CloseIdleConnections()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
