package egressproxy

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// copyBuffer is how much is read at a time. A server that reads nothing of what it asked for keeps one of these
// for each of its tunnels.
const copyBuffer = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// pump copies from one connection to another until the first ends, and counts. It waits without a buffer:
// one is borrowed when there is something to read, and given back before the next wait. The standard library's
// copy would keep two pipes open for each tunnel while nothing passes; here they are taken for bulk only.
type pump struct {
	dst   *net.TCPConn
	count *atomic.Int64

	buf *[copyBuffer]byte
	n   int
	err error
}

func (p *pump) run(src *net.TCPConn) error {
	raw, err := src.SyscallConn()
	if err != nil {
		return err
	}
	read := p.read
	for {
		if err := raw.Read(read); err != nil {
			return err
		}
		if p.n > 0 {
			_, p.err = p.dst.Write(p.buf[:p.n])
			p.count.Add(int64(p.n))
		}
		copyBuffers.Put(p.buf)
		p.buf = nil
		if p.err == nil && p.n == copyBuffer {
			p.err = p.bulk(src)
		}
		switch {
		case errors.Is(p.err, io.EOF):
			return nil
		case p.err != nil:
			return p.err
		}
	}
}

// bulkPlaces bounds how many pumps splice at the same time. Each holds a pipe, of which the kernel gives a user only
// so much.
var bulkPlaces = make(chan struct{}, 32)

// bulk lets the kernel move the bytes, as long as they keep coming. It is worth a pipe only where there are many.
func (p *pump) bulk(src *net.TCPConn) error {
	const patience, most = 50 * time.Millisecond, 1 << 40
	select {
	case bulkPlaces <- struct{}{}:
		defer func() { <-bulkPlaces }()
	default:
		return nil // go on by hand
	}
	for {
		if err := src.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		n, err := p.dst.ReadFrom(&io.LimitedReader{R: src, N: most}) // the deadline ends it, with nothing lost
		p.count.Add(n)
		switch {
		case err == nil:
			return io.EOF
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		}
		if n < copyBuffer {
			return src.SetReadDeadline(time.Time{})
		}
	}
}

// read is called whenever there may be something to read; false means to wait.
func (p *pump) read(fd uintptr) bool {
	p.buf = copyBuffers.Get().(*[copyBuffer]byte)
	for {
		p.n, p.err = syscall.Read(int(fd), p.buf[:])
		switch {
		case errors.Is(p.err, syscall.EINTR):
			continue
		case errors.Is(p.err, syscall.EAGAIN):
			copyBuffers.Put(p.buf)
			p.buf, p.n, p.err = nil, 0, nil
			return false
		case p.err != nil:
			p.n = 0
		case p.n == 0:
			p.err = io.EOF
		}
		return true
	}
}

// relay copies both ways until both are done, then calls done. It returns at once: two goroutines with
// small stacks are all that an open tunnel keeps.
func relay(f *flow, client, origin *net.TCPConn, done func()) {
	var left atomic.Int32
	left.Store(2)
	one := func(dst, src *net.TCPConn, count *atomic.Int64) {
		p := pump{dst: dst, count: count}
		err := p.run(src)
		if err != nil {
			f.stop(Failed)
		}
		f.half.Store(true)
		if left.Add(-1) == 0 {
			f.stop(Finished)
			done()
		} else if err == nil {
			_ = dst.CloseWrite() // where that fails, the other direction fails too
		}
	}
	go one(origin, client, &f.up)
	go one(client, origin, &f.down)
}
