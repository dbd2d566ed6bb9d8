package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// runBare is the least that a CONNECT proxy can be: no password, no rule, no check, no log.
func runBare(addr string) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			return err
		}
		go bare(client)
	}
}

func bare(client net.Conn) {
	defer client.Close()
	request, err := http.ReadRequest(bufio.NewReader(client))
	if err != nil {
		return
	}
	origin, err := net.Dial("tcp", request.Host)
	if err != nil {
		return
	}
	defer origin.Close()
	if _, err := io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(origin, client)
		_ = origin.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, origin)
}
