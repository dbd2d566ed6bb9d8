package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

// The ports of the host: one that only looks like TLS, so that what is measured is the proxies, and one that
// is TLS.
const (
	plainPort = 443
	tlsPort   = 8443
)

// What a client asks of the host once a tunnel is open, in one byte.
const (
	askEcho   = 'e' // send back every byte
	askSource = 's' // send as much as goes
	askQuit   = 'q' // close
)

// serverHello is the host's answer to a ClientHello: a record that looks like one.
var serverHello = append([]byte{22, 3, 3, 0, 123, 2, 0, 0, 119, 3, 3}, make([]byte, 117)...)

func startOrigin() error {
	plain, err := net.Listen("tcp", fmt.Sprintf("%s:%d", originAddr, plainPort))
	if err != nil {
		return err
	}
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", fmt.Sprintf("%s:%d", originAddr, tlsPort), &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return err
	}
	go accept(plain, servePlain)
	go accept(secure, serveTLS)
	return nil
}

func accept(listener net.Listener, serve func(net.Conn)) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			serve(conn)
		}()
	}
}

func servePlain(conn net.Conn) {
	buf := make([]byte, 2048)
	if _, err := io.ReadFull(conn, buf[:5]); err != nil {
		return
	}
	if _, err := io.ReadFull(conn, buf[:int(buf[3])<<8|int(buf[4])]); err != nil {
		return
	}
	if _, err := conn.Write(serverHello); err != nil {
		return
	}
	if _, err := io.ReadFull(conn, buf[:1]); err != nil {
		return
	}
	switch buf[0] {
	case askEcho:
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	case askSource:
		chunk := make([]byte, 256<<10)
		for {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}
}

func serveTLS(conn net.Conn) { _ = conn.(*tls.Conn).Handshake() }

func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{originName}, NotAfter: time.Now().Add(24 * time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
