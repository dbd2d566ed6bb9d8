package egressproxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// copyBuffer is how much is read at a time.
const copyBuffer = 64 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// pump copies from one connection to another until the first ends, and counts. It waits without a buffer:
// one is borrowed when there is something to read, and given back before the next wait. Where
// the standard library would splice, it keeps two pipes per tunnel open while nothing passes.
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
		switch {
		case errors.Is(p.err, io.EOF):
			return nil
		case p.err != nil:
			return p.err
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
		if err := p.run(src); err != nil {
			f.stop(Failed)
		} else if err := dst.CloseWrite(); err != nil {
			f.stop(Failed)
		}
		f.half.Store(true)
		if left.Add(-1) == 0 {
			f.stop(Finished)
			done()
		}
	}
	go one(origin, client, &f.up)
	go one(client, origin, &f.down)
}
