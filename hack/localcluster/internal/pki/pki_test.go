package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

func TestEnsure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	leaves := []Leaf{{File: "server", CommonName: "server", Groups: []string{"g"}, Hosts: []string{"localhost", "127.0.0.1"}}}
	if err := Ensure(dir, leaves); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1"} {
		usages := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: usages}); err != nil {
			t.Errorf("certificate for %s: %v", host, err)
		}
	}
	if got := pair.Leaf.Subject.Organization; len(got) != 1 || got[0] != "g" {
		t.Errorf("groups are %v, want [g]", got)
	}

	if err := Ensure(dir, leaves); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil || string(again) != string(ca) {
		t.Errorf("a second Ensure makes a new CA (%v)", err)
	}
	for _, key := range []string{"ca.key", "sa.key", "server.key"} {
		info, err := os.Stat(filepath.Join(dir, key))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want a key for its owner only", key, info, err)
		}
	}
}

func TestEnsureClearsAwayHalfAPKI(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if err := os.MkdirAll(dir+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir+".new", "left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Ensure(dir, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "left")); err == nil {
		t.Error("what an interrupted run left is part of the result")
	}
}

func TestLoadCA(t *testing.T) {
	base := filepath.Join(t.TempDir(), "ca")
	ca, err := NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.WriteFiles(base); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadCA(base)
	if err != nil {
		t.Fatal(err)
	}
	der, _, err := loaded.Sign(Leaf{CommonName: "x", Hosts: []string{"x.test"}})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := leaf.CheckSignatureFrom(ca.cert); err != nil {
		t.Errorf("signed by a loaded CA: %v", err)
	}
}
