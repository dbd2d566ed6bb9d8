package gateway

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateAge is how old what was read of the files may be.
const certificateAge = 5 * time.Second

// Certificates gives out the certificate in two files, and reads them again when they change.
type Certificates struct {
	certFile, keyFile string
	log               *slog.Logger
	now               func() time.Time

	mu      sync.Mutex
	read    time.Time
	pem     []byte
	current *tls.Certificate
}

// NewCertificates reads the files for the first time.
func NewCertificates(certFile, keyFile string, log *slog.Logger) (*Certificates, error) {
	c := &Certificates{certFile: certFile, keyFile: keyFile, log: log, now: time.Now}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// get returns the certificate that the files hold, or, where they are damaged or half written, the last good one.
func (c *Certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now().Sub(c.read) > certificateAge {
		if err := c.load(); err != nil {
			c.log.Error("Cannot read the certificate anew; the last one stays", "error", err)
		}
	}
	return c.current, nil
}

func (c *Certificates) load() error {
	c.read = c.now()
	cert, err := os.ReadFile(c.certFile)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	key, err := os.ReadFile(c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate's key: %w", err)
	}
	if pem := bytes.Join([][]byte{cert, key}, nil); c.current == nil || !bytes.Equal(pem, c.pem) {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		c.pem, c.current = pem, &pair
	}
	return nil
}
