package main

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// egressProxy is where the environment says that the proxy is, and the credential for it.
func egressProxy() (address, credential string, err error) {
	proxy, err := url.Parse(os.Getenv("HTTPS_PROXY"))
	if err != nil || proxy.Host == "" {
		return "", "", fmt.Errorf("HTTPS_PROXY names no proxy")
	}
	password, _ := proxy.User.Password()
	return proxy.Host, base64.StdEncoding.EncodeToString([]byte(proxy.User.Username() + ":" + password)), nil
}

// fetch is get that fails unless the answer is a good one: fetch URL.
func fetch(args []string) (string, error) {
	said, err := get(args)
	if err == nil && !strings.HasPrefix(said, "2") {
		return "", errors.New(said)
	}
	return said, err
}

// raw sends bytes to the proxy and returns all that comes back: raw BYTES, in which \r, \n and \x00 stand
// for these, {auth} for the server's own credential and {long} for 100,000 letters. It fails unless
// the first answer is a good one.
func raw(args []string) (string, error) {
	address, credential, err := egressProxy()
	if err != nil {
		return "", err
	}
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	request := strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\x00`, "\x00", "{auth}", credential, "{long}", strings.Repeat("a", 100_000)).Replace(arg(args, 0, ""))
	_, writeErr := io.WriteString(conn, request)
	answer, _ := io.ReadAll(io.LimitReader(conn, 1<<20))
	if len(answer) == 0 {
		return "", errors.Join(errors.New("no answer"), writeErr)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 2") {
		return "", errors.New(oneLine(string(answer)))
	}
	return oneLine(string(answer)), nil
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// connect asks the proxy for a tunnel.
func connect(authority string) (net.Conn, error) {
	address, credential, err := egressProxy()
	if err != nil {
		return nil, err
	}
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n", authority, authority, credential); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect}) // the host does not speak first
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if response.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return nil, errors.Join(fmt.Errorf("%s %s", response.Status, oneLine(string(body))), conn.Close())
	}
	return conn, nil
}

// tunnel opens a tunnel and asks for a page over TLS in it: tunnel AUTHORITY NAME [ech]. The name is what
// the ClientHello asks for, - for none; ech hides another behind it.
func tunnel(args []string) (string, error) {
	secure, err := secured(args)
	if err != nil {
		return "", err
	}
	defer secure.Close()
	if _, err := fmt.Fprintf(secure, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", arg(args, 1, "")); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(secure, 1<<16))
	if len(answer) == 0 {
		return "", fmt.Errorf("no answer: %w", err)
	}
	return oneLine(string(answer)), nil
}

// secured is a tunnel with TLS in it.
func secured(args []string) (*tls.Conn, error) {
	conn, err := connect(arg(args, 0, ""))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{ServerName: strings.TrimPrefix(arg(args, 1, ""), "-"), InsecureSkipVerify: true} // whose it is does not matter here
	if arg(args, 2, "") == "ech" {
		if err := encryptHello(config); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	secure := tls.Client(conn, config)
	err = secure.Handshake()
	if rejected := (*tls.ECHRejectionError)(nil); errors.As(err, &rejected) {
		return nil, errors.Join(errors.New("reached the host, which knows of no encrypted hello"), conn.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("TLS handshake in the tunnel: %w", err), conn.Close())
	}
	return secure, nil
}

// encryptHello hides a name behind that of a config, as a host that offers it would have a client do.
func encryptHello(config *tls.Config) error {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	public := key.PublicKey().Bytes()
	body := []byte{7, 0, 0x20} // its id, and the key exchange
	body = binary.BigEndian.AppendUint16(body, uint16(len(public)))
	body = append(body, public...)
	body = append(body, 0, 4, 0, 1, 0, 1) // one cipher suite
	body = append(body, 0, byte(len(config.ServerName)))
	body = append(body, config.ServerName...)
	body = append(body, 0, 0) // no extensions
	entry := binary.BigEndian.AppendUint16([]byte{0xfe, 0x0d}, uint16(len(body)))
	entry = append(entry, body...)
	config.EncryptedClientHelloConfigList = append(binary.BigEndian.AppendUint16(nil, uint16(len(entry))), entry...)
	config.EncryptedClientHelloRejectionVerify = func(tls.ConnectionState) error { return nil }
	config.ServerName, config.MinVersion = "hidden.evil.test", tls.VersionTLS13
	return nil
}

// chat opens a tunnel and sends bytes that are no TLS in it: chat AUTHORITY BYTES. It succeeds where
// something comes back.
func chat(args []string) (string, error) {
	conn, err := connect(arg(args, 0, ""))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strings.NewReplacer(`\r`, "\r", `\n`, "\n").Replace(arg(args, 1, ""))); err != nil {
		return "", err
	}
	answer, _ := io.ReadAll(io.LimitReader(conn, 4096))
	if len(answer) == 0 {
		return "", errors.New("the tunnel was closed without a byte")
	}
	return oneLine(string(answer)), nil
}

// hold keeps a tunnel open for so long: hold AUTHORITY NAME SECONDS. It fails where it is closed before,
// and says after how long.
func hold(args []string) (string, error) {
	seconds, err := strconv.Atoi(arg(args, 2, ""))
	if err != nil {
		return "", err
	}
	secure, err := secured(args[:2])
	if err != nil {
		return "", err
	}
	defer secure.Close()
	// One request, so that the host does not close a connection on which nothing was ever said.
	if _, err := fmt.Fprintf(secure, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", arg(args, 1, "")); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(bufio.NewReader(secure), nil)
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "", err
	}
	began := time.Now()
	fmt.Println("open")
	if err := secure.SetDeadline(began.Add(time.Duration(seconds) * time.Second)); err != nil {
		return "", err
	}
	_, err = secure.Read(make([]byte, 1))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Sprintf("still open after %d s", seconds), nil
	}
	return "", fmt.Errorf("closed after %s: %w", time.Since(began).Round(time.Millisecond), err)
}

// halfOpen leaves connections to the proxy in the middle of things: halfopen NUMBER SECONDS AUTHORITY. One
// third says nothing, one half a request, and one asks for a tunnel and says nothing in it.
func halfOpen(args []string) (string, error) {
	number, _ := strconv.Atoi(arg(args, 0, ""))
	seconds, err := strconv.Atoi(arg(args, 1, ""))
	if err != nil {
		return "", err
	}
	address, credential, err := egressProxy()
	if err != nil {
		return "", err
	}
	texts := []string{"", "CONNECT " + arg(args, 2, "") + " HTTP/1.1\r\nHost: ",
		fmt.Sprintf("CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n", arg(args, 2, ""), arg(args, 2, ""), credential)}
	var mu sync.Mutex
	var open []net.Conn
	var all sync.WaitGroup
	for worker := range 20 {
		all.Go(func() {
			for i := worker; i < number; i += 20 {
				conn, err := net.DialTimeout("tcp", address, patience)
				if err != nil {
					continue
				}
				_, _ = io.WriteString(conn, texts[i%len(texts)])
				mu.Lock()
				open = append(open, conn)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	fmt.Printf("%d half-open\n", len(open))
	<-time.After(time.Duration(seconds) * time.Second)
	for _, conn := range open {
		_ = conn.Close()
	}
	return "closed", nil
}
