package stdio

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mcpwarden/mcp-warden/internal/gateway/message"
)

// EnvPrefix is how the names of the environment variables begin that are the gateway's own, which a server does not get.
const EnvPrefix = "MCP_WARDEN_GATEWAY_"

// maxLogLine bounds a line of stderr, in bytes; a longer one becomes several.
const maxLogLine = 4 << 10

// drainTime is how long what a process has said before its end may take to be read.
const drainTime = 2 * time.Second

var (
	errTooMany = errors.New("as many processes run as may")
	errCrashes = errors.New("the server ends before it says anything")
	errGone    = errors.New("the server has ended")
)

// spawner starts the server's processes, and holds them within bounds.
type spawner struct {
	path    string
	args    []string
	env     []string
	limits  Limits
	log     *slog.Logger
	metrics *metrics
	now     func() time.Time

	mu       sync.Mutex
	running  map[*child]bool
	failures int       // processes in a row that ended before they said anything
	until    time.Time // then the next may start
	closed   bool
	last     int // number of the newest
}

func newSpawner(command []string, limits Limits, log *slog.Logger, m *metrics) (*spawner, error) {
	if len(command) == 0 {
		return nil, errors.New("the server's command is missing")
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return nil, fmt.Errorf("the server's command: %w", err)
	}
	s := &spawner{path: path, args: command, limits: limits, log: log, metrics: m, now: time.Now, running: map[*child]bool{}}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, EnvPrefix) {
			s.env = append(s.env, variable)
		}
	}
	return s, nil
}

// child is one process of the server.
type child struct {
	spawner *spawner
	number  int
	pid     int
	log     *slog.Logger

	writing sync.Mutex
	stdin   *os.File

	heard    atomic.Bool // it has said a message
	stopping atomic.Bool
	stop     func() // once
	// gone is closed when the process has ended and all that it has said was handled.
	gone chan struct{}
}

// start starts a process. What it says is handled in order by one goroutine, and then its end is: a handler that waits makes the process wait.
func (s *spawner) start(handle func(*message.Message), end func()) (*child, error) {
	return s.startUpTo(s.limits.Children, handle, end)
}

// startSpare starts a process even if as many run as may for clients.
func (s *spawner) startSpare(handle func(*message.Message), end func()) (*child, error) {
	return s.startUpTo(s.limits.Children+1, handle, end)
}

func (s *spawner) startUpTo(limit int, handle func(*message.Message), end func()) (*child, error) {
	c := &child{spawner: s, gone: make(chan struct{})}
	c.stop = sync.OnceFunc(func() { go c.terminate() })
	if err := s.admit(c, limit); err != nil {
		return nil, err
	}
	c.log = s.log.With("process", c.number)
	if err := c.run(handle, end); err != nil {
		s.remove(c)
		return nil, err
	}
	s.metrics.starts.Inc()
	return c, nil
}

// admit makes room for a process.
func (s *spawner) admit(c *child, limit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errGone
	case len(s.running) >= limit:
		return errTooMany
	case s.now().Before(s.until):
		return errCrashes
	}
	s.running[c] = true
	s.last++
	c.number = s.last
	return nil
}

// remove takes a process out, and holds back the next one where this one has failed: the longer the more did before it. Only what ends before it
// has said anything counts, so that no client can hold back the processes of others by making its own crash.
func (s *spawner) remove(c *child) {
	const first, longest = 200 * time.Millisecond, 30 * time.Second
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, c)
	switch {
	case c.heard.Load():
		s.failures = 0
	case !c.stopping.Load():
		s.until = s.now().Add(min(first<<min(s.failures, 10), longest))
		s.failures++
	}
}

func (c *child) run(handle func(*message.Message), end func()) error {
	var files, ours [3]*os.File
	closeAll := func(all []*os.File) {
		for _, f := range all {
			_ = f.Close() // of nil too
		}
	}
	for i := range files {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(files[:])
			closeAll(ours[:])
			return fmt.Errorf("start the server: %w", err)
		}
		if files[i], ours[i] = w, r; i == 0 {
			files[i], ours[i] = r, w
		}
	}
	ended := make(chan syscall.WaitStatus, 1)
	pid, err := theReaper().start(c.spawner.path, c.spawner.args, &os.ProcAttr{Env: c.spawner.env, Files: files[:]},
		func(status syscall.WaitStatus) { ended <- status })
	closeAll(files[:])
	if err != nil {
		closeAll(ours[:])
		return err
	}
	c.pid, c.stdin = pid, ours[0]
	var reading sync.WaitGroup
	reading.Go(func() { c.readMessages(ours[1], handle) })
	reading.Go(func() { c.readLog(ours[2]) })
	go func() {
		status := <-ended
		// What it has left behind may hold its pipes open.
		for _, f := range ours[1:] {
			_ = f.SetReadDeadline(time.Now().Add(drainTime))
		}
		reading.Wait()
		closeAll(ours[:])
		c.spawner.remove(c)
		c.report(status)
		end()
		close(c.gone)
	}()
	return nil
}

func (c *child) report(status syscall.WaitStatus) {
	if c.stopping.Load() {
		c.spawner.metrics.ends.WithLabelValues("stopped").Inc()
		return
	}
	c.spawner.metrics.ends.WithLabelValues("crashed").Inc()
	if status.Signaled() {
		c.log.Error("The server has ended by itself", "signal", status.Signal().String())
	} else {
		c.log.Error("The server has ended by itself", "exitCode", status.ExitStatus())
	}
}

// readMessages handles the lines of stdout.
func (c *child) readMessages(from io.Reader, handle func(*message.Message)) {
	lines := bufio.NewReaderSize(from, 16<<10)
	for {
		line, err := readLine(lines, c.spawner.limits.MessageBytes)
		if errors.Is(err, errLongLine) {
			c.log.Error("The server wrote a line that is longer than a message may be, and is ended")
			c.stop()
			_, _ = io.Copy(io.Discard, from)
			return
		}
		if err != nil {
			return
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		m, err := message.Parse(line)
		if err != nil { // some greet
			c.log.Warn("The server wrote what is not a message of MCP to stdout", "problem", err.Error(), "bytes", len(line))
			c.spawner.metrics.unreadable.Inc()
			continue
		}
		c.heard.Store(true)
		handle(m)
	}
}

var errLongLine = errors.New("the line is too long")

// readLine reads a line of at most max bytes, and returns it without its end. It is the caller's.
func readLine(r *bufio.Reader, max int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > max+1 {
			return nil, errLongLine
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// readLog makes log lines of stderr.
func (c *child) readLog(from io.Reader) {
	lines := bufio.NewReaderSize(from, maxLogLine)
	for {
		line, err := lines.ReadSlice('\n')
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			c.log.Info("stderr", "line", strings.ToValidUTF8(text, "\ufffd"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// send writes a message, as one line with nothing around it: some servers end at a space there. A server that does not read is ended.
func (c *child) send(raw []byte) error {
	// Outside of a string, where JSON has no line ends, any of them is as good as a space.
	line := bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\r' {
			return ' '
		}
		return r
	}, bytes.TrimSpace(raw))
	line = append(line, '\n')
	c.writing.Lock()
	defer c.writing.Unlock()
	_ = c.stdin.SetWriteDeadline(time.Now().Add(c.spawner.limits.WriteTime))
	if _, err := c.stdin.Write(line); err != nil {
		c.stop() // half a message may have been written
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// terminate ends the process as the protocol says: its input ends, and if it does not end by that, a signal asks it to, and a
// second one makes it.
func (c *child) terminate() {
	c.stopping.Store(true)
	_ = c.stdin.SetWriteDeadline(time.Now()) // whoever writes now gives up
	c.writing.Lock()
	_ = c.stdin.Close()
	c.writing.Unlock()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		grace := time.NewTimer(c.spawner.limits.StopGrace)
		select {
		case <-c.gone:
			grace.Stop()
			return
		case <-grace.C:
			theReaper().signal(c.pid, sig)
		}
	}
}

// close ends all processes, and returns when they have ended.
func (s *spawner) close() {
	s.mu.Lock()
	s.closed = true
	var all []*child
	for c := range s.running {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		c.stop()
	}
	for _, c := range all {
		<-c.gone
	}
}

func (s *spawner) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.running)
}
