//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/mcpwarden/mcp-warden/api/v1alpha1"
)

// newCertificate makes a certificate for a name, that is its own authority, and its key.
func newCertificate(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: random()}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

// TestGatewaySpeaksTLS calls a server by https, with a certificate that is renewed while it runs.
func TestGatewaySpeaksTLS(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t)
	name := "sealed." + ns + ".svc"
	first, key := newCertificate(t, name)
	secret := newSecret(t, ns, "sealed-tls", map[string]string{corev1.TLSCertKey: first, corev1.TLSPrivateKeyKey: key})
	server := newServer(t, ns, "sealed", func(s *v1alpha1.MCPServerSpec) {
		s.Transport.TLS = &v1alpha1.TransportTLS{SecretName: "sealed-tls"}
		allowAgents(s)
	})
	agent := newPod(t, ns, "agent", map[string]string{"role": "agent"}, "/toolbox", "serve", ":7000")
	waitReason(t, server, v1alpha1.ReasonServing)
	if want := endpointOf(server); server.Status.Endpoint != want {
		t.Errorf("the endpoint is %s, want %s", server.Status.Endpoint, want)
	}
	if failed := failedControls(server); len(failed) > 0 {
		t.Errorf("failed: %v", failed)
	}
	pod := podOf(t, server)
	call := func(ctx context.Context, authority, url string) (string, error) {
		return inContext(ctx, agent, "/mcpclient", "-ca", authority, url, "test_simple_text")
	}
	if said, err := call(t.Context(), first, endpointOf(server)); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	if said, err := call(t.Context(), first, strings.Replace(endpointOf(server), "https:", "http:", 1)); err == nil {
		t.Errorf("it answers without TLS too: %s", said)
	}
	second, key := newCertificate(t, name)
	if said, err := call(t.Context(), second, endpointOf(server)); err == nil || !strings.Contains(said, "certificate") {
		t.Errorf("a client that trusts another authority is served: %v: %s", err, said)
	}
	edit(t, secret, func(s *corev1.Secret) {
		s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey] = []byte(second), []byte(key)
	})
	begin := time.Now()
	eventually(t, func(ctx context.Context) error {
		if said, err := call(ctx, second, endpointOf(server)); err != nil {
			return fmt.Errorf("the renewed certificate is not in use: %w: %s", err, said)
		}
		return nil
	})
	t.Logf("renewed after %s", time.Since(begin).Round(10*time.Millisecond))
	if now := podOf(t, server); now.UID != pod.UID || now.Status.InitContainerStatuses[len(now.Status.InitContainerStatuses)-1].RestartCount > 0 {
		t.Errorf("pod %s was replaced or restarted", pod.Name)
	}
}
