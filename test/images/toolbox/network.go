package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// patience is how long an attempt on the network waits for an answer.
const patience = 3 * time.Second

// dial opens a connection: dial NETWORK ADDRESS. Over UDP, something must be answered to be open.
func dial(args []string) (string, error) {
	network, address := arg(args, 0, "tcp"), arg(args, 1, "")
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if strings.HasPrefix(network, "udp") {
		if err := exchange(conn); err != nil {
			return "", err
		}
	}
	return "connected to " + address, nil
}

func exchange(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("ping")); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 64))
	return err
}

// lookUp asks a resolver for a name: lookup NETWORK RESOLVER NAME.
func lookUp(args []string) (string, error) {
	network, server := arg(args, 0, "udp"), arg(args, 1, "")
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: patience}).DialContext(ctx, network, server)
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := resolver.LookupHost(ctx, arg(args, 2, ""))
	return strings.Join(addresses, " "), err
}

// get fetches a URL: get URL.
func get(args []string) (string, error) {
	client := &http.Client{Timeout: patience}
	response, err := client.Get(arg(args, 0, ""))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return fmt.Sprintf("%s %s", response.Status, body), err
}

// linger is serve by a program that does not end when it is asked to: linger ADDRESS...
func linger(args []string) (string, error) {
	signal.Ignore(syscall.SIGTERM)
	return serve(args)
}

// serve answers on TCP (HTTP) and UDP (echo) until it is stopped: serve ADDRESS...
func serve(args []string) (string, error) {
	failed := make(chan error)
	for _, address := range args {
		go func() { failed <- http.ListenAndServe(address, http.HandlerFunc(hello)) }()
		go func() { failed <- echo(address) }()
	}
	return "", <-failed
}

func hello(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "hello %s\n", r.RemoteAddr)
}

func echo(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return errors.Join(err, conn.Close())
		}
		if _, err := conn.WriteTo(buffer[:n], from); err != nil {
			return errors.Join(err, conn.Close())
		}
	}
}
