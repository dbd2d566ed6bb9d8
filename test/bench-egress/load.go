package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long one step of a client may take.
const patience = 20 * time.Second

// clientHello is one that crypto/tls makes for the host.
var clientHello = sync.OnceValue(func() []byte {
	client, server := net.Pipe()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: originName}).Handshake()
	}()
	header := make([]byte, 5)
	_, _ = io.ReadFull(server, header)
	body := make([]byte, int(header[3])<<8|int(header[4]))
	_, _ = io.ReadFull(server, body)
	server.Close()
	return append(header, body...)
})

// connect to a port of the host, through the proxy where there is one.
func (r *running) connect(port int) (net.Conn, error) {
	at := net.JoinHostPort(originAddr, strconv.Itoa(port))
	if r.port != 0 {
		at = net.JoinHostPort(proxyAddr, strconv.Itoa(r.port))
	}
	conn, err := net.DialTimeout("tcp", at, patience)
	if err != nil || r.port == 0 {
		return conn, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	host := fmt.Sprintf("%s:%d", originName, port)
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nProxy-Authorization: Basic %s\r\n\r\n", host, host, basic); err != nil {
		conn.Close()
		return nil, err
	}
	// Nothing comes behind the head before the client has spoken, so that it may be read whole.
	buf, n := make([]byte, 2048), 0
	for !bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
		m, err := conn.Read(buf[n:])
		if n += m; err != nil {
			conn.Close()
			return nil, fmt.Errorf("answer to CONNECT: %w: %q", err, buf[:n])
		}
	}
	if line, _, _ := strings.Cut(string(buf[:n]), "\r\n"); !strings.Contains(line, " 200 ") {
		conn.Close()
		return nil, fmt.Errorf("answer to CONNECT: %s", line)
	}
	return conn, nil
}

var basic = base64.StdEncoding.EncodeToString([]byte(user + ":" + password))

// open a tunnel, until the first bytes of the host have come through it.
func (r *running) open() (net.Conn, error) {
	conn, err := r.connect(plainPort)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err = conn.Write(clientHello()); err == nil {
		_, err = io.ReadFull(conn, make([]byte, len(serverHello)))
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("first bytes: %w", err)
	}
	return conn, nil
}

// quit lets the host close first, and waits until that has come through.
func quit(conn net.Conn) error {
	defer conn.Close()
	if _, err := conn.Write([]byte{askQuit}); err != nil {
		return err
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the end of a tunnel does not come through: %w", err)
	}
	return nil
}

// rate is how many times a second clients at the same time can do something.
func (r *running) rate(ctx context.Context, opts options, do func() error) (perSecond float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, opts.seconds)
	defer cancel()
	var done atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, opts.workers)
	began := time.Now()
	for range opts.workers {
		group.Go(func() {
			for ctx.Err() == nil {
				if err := do(); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(done.Load()) / took.Seconds(), nil
	}
}

func (r *running) openAndQuit() error {
	conn, err := r.open()
	if err != nil {
		return err
	}
	return quit(conn)
}

// handshake is a whole one, with the cryptography of both ends.
func (r *running) handshake() error {
	conn, err := r.connect(tlsPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	return tls.Client(conn, &tls.Config{ServerName: originName, InsecureSkipVerify: true}).Handshake()
}

// throughput in MiB per second, down through four tunnels at once.
func (r *running) throughput(ctx context.Context, opts options) (float64, error) {
	const streams = 4
	ctx, cancel := context.WithTimeout(ctx, opts.seconds)
	defer cancel()
	var total atomic.Int64
	var group sync.WaitGroup
	began := time.Now()
	for range streams {
		conn, err := r.open()
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte{askSource}); err != nil {
			return 0, err
		}
		group.Go(func() {
			buf := make([]byte, 256<<10)
			for ctx.Err() == nil {
				n, err := conn.Read(buf)
				if total.Add(int64(n)); err != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return float64(total.Load()) / (1 << 20) / time.Since(began).Seconds(), nil
}

// latencies of opening a tunnel, one after the other, and of one byte there and back through an open one.
func (r *running) latencies(ctx context.Context, opts options) (open, trip []time.Duration, err error) {
	until := time.Now().Add(opts.seconds)
	for time.Now().Before(until) && ctx.Err() == nil {
		began := time.Now()
		conn, err := r.open()
		if err != nil {
			return nil, nil, err
		}
		open = append(open, time.Since(began))
		if err := quit(conn); err != nil {
			return nil, nil, err
		}
	}
	// Which processors the ends of a tunnel are on makes a trip seven times as long, and stays as it is for a while:
	// hence many tunnels.
	const tunnels = 30
	for range tunnels {
		times, err := r.trips(ctx, opts.seconds/tunnels)
		if err != nil {
			return nil, nil, err
		}
		trip = append(trip, times...)
	}
	return open, trip, ctx.Err()
}

// trips of one byte there and back through one tunnel.
func (r *running) trips(ctx context.Context, long time.Duration) (times []time.Duration, err error) {
	conn, err := r.open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{askEcho}); err != nil {
		return nil, err
	}
	one := []byte{0}
	for until := time.Now().Add(long); time.Now().Before(until) && ctx.Err() == nil; {
		began := time.Now()
		if _, err := conn.Write(one); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(conn, one); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}

// hold opens tunnels and leaves them open.
func (r *running) hold(count, workers int) (conns []net.Conn, err error) {
	var mu sync.Mutex
	var group sync.WaitGroup
	left := make(chan struct{}, count)
	for range count {
		left <- struct{}{}
	}
	close(left)
	for range workers {
		group.Go(func() {
			for range left {
				conn, e := r.open()
				mu.Lock()
				if e != nil {
					err = e
				} else {
					conns = append(conns, conn)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return conns, err
}

// memory is how many KiB one idle tunnel adds: of the process, and for ours of what Go holds too. The proxy is
// a fresh one that was warmed up with some tunnels.
func (r *running) memory(ctx context.Context, opts options) (resident, goHeap float64, err error) {
	const warm, settle = 100, 2 * time.Second
	conns, err := r.hold(warm, opts.workers)
	if err != nil {
		return 0, 0, err
	}
	for _, conn := range conns {
		if err := quit(conn); err != nil {
			return 0, 0, err
		}
	}
	look := func() (float64, float64, error) {
		select {
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		case <-time.After(settle):
		}
		rss, err := r.resident()
		if err != nil || r.name != ours {
			return rss, 0, err
		}
		held, err := goMemory(ctx)
		return rss, held, err
	}
	rss, held, err := look()
	if err != nil {
		return 0, 0, err
	}
	conns, err = r.hold(opts.tunnels, opts.workers)
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	if err != nil {
		return 0, 0, err
	}
	rssOpen, heldOpen, err := look()
	count := float64(opts.tunnels)
	return (rssOpen - rss) / count, (heldOpen - held) / count, err
}
