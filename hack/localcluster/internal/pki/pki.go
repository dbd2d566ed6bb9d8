// Package pki makes the certificates and keys of a cluster.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// lifetime is long, since a cluster that sleeps in its state folder has nobody
// to renew anything.
const lifetime = 10 * 365 * 24 * time.Hour

// Leaf describes one certificate signed by the cluster's CA.
type Leaf struct {
	// File is the base name: File.crt and File.key.
	File string
	// CommonName and Groups are the user and groups of a client.
	CommonName string
	Groups     []string
	// Hosts are DNS names and addresses of a server.
	Hosts []string
}

// CA signs certificates.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Ensure makes ca.crt, ca.key, sa.key, sa.pub and the leaves in dir, unless dir
// exists: it is put in place as a whole, so what exists is complete.
func Ensure(dir string, leaves []Leaf) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp := dir + ".new"
	err := os.RemoveAll(tmp)
	if err == nil {
		err = os.MkdirAll(tmp, 0o700)
	}
	if err == nil {
		err = write(tmp, leaves)
	}
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	return nil
}

func write(dir string, leaves []Leaf) error {
	ca, err := NewCA("mcp-warden local cluster")
	if err != nil {
		return err
	}
	if err := ca.WriteFiles(filepath.Join(dir, "ca")); err != nil {
		return err
	}
	if err := writeServiceAccountKey(dir); err != nil {
		return err
	}
	for _, l := range leaves {
		cert, key, err := ca.Sign(l)
		if err != nil {
			return err
		}
		if err := writePair(filepath.Join(dir, l.File), cert, key); err != nil {
			return err
		}
	}
	return nil
}

// NewCA makes a certificate authority.
func NewCA(name string) (*CA, error) {
	template, err := newTemplate(name, nil)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key}, nil
}

// WriteFiles writes base.crt and base.key.
func (ca *CA) WriteFiles(base string) error {
	return writePair(base, ca.cert.Raw, ca.key)
}

// LoadCA reads what WriteFiles wrote.
func LoadCA(base string) (*CA, error) {
	certPEM, err := os.ReadFile(base + ".crt")
	if err != nil {
		return nil, err
	}
	keyPEM, err := os.ReadFile(base + ".key")
	if err != nil {
		return nil, err
	}
	certBlock, _ := pem.Decode(certPEM)
	keyBlock, _ := pem.Decode(keyPEM)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("%s: not a PEM certificate and key", base)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s.key: not an ECDSA key", base)
	}
	return &CA{cert: cert, key: ec}, nil
}

// Sign makes a key and a certificate that is good for servers and clients.
func (ca *CA) Sign(l Leaf) (der []byte, key *ecdsa.PrivateKey, err error) {
	template, err := newTemplate(l.CommonName, l.Groups)
	if err != nil {
		return nil, nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, h := range l.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	return der, key, err
}

func newTemplate(name string, groups []string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: groups},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(lifetime),
	}, nil
}

func writeServiceAccountKey(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return errors.Join(
		writeKey(filepath.Join(dir, "sa.key"), key),
		writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", public, 0o644),
	)
}

func writePair(base string, cert []byte, key *ecdsa.PrivateKey) error {
	return errors.Join(
		writePEM(base+".crt", "CERTIFICATE", cert, 0o644),
		writeKey(base+".key", key),
	)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}
