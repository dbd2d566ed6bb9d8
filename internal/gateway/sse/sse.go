// Package sse reads and writes server-sent events. A reader returns, with what an event says, the bytes that said it, so that
// whoever passes a stream on can do it without a change.
package sse

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// ErrTooLong is the error for an event that takes more bytes than the reader's bound.
var ErrTooLong = errors.New("an event is longer than the bound")

// Event is one event of a stream, or a comment between two of them.
type Event struct {
	// Raw is all of it, with the blank line at its end. The Raws of a stream, one after another, are the stream.
	Raw []byte
	// ID, Type and Data are the fields of these names; Data without the newline at its end. Type is empty where no field says it, which means
	// "message".
	ID, Type string
	Data     []byte
}

// Message tells whether an event carries a JSON-RPC message: one without data primes a client to resume, and
// other types are not MCP's.
func (e *Event) Message() bool {
	return len(e.Data) > 0 && (e.Type == "" || e.Type == "message")
}

// Reader reads the events of a stream.
type Reader struct {
	r     *bufio.Reader
	max   int
	begun bool // the first bytes were looked at
	cr    bool // a carriage return ended what was there so far: a newline that follows belongs to it
}

// NewReader reads from r events of at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 4<<10), max: max}
}

// Next returns the next event; what it returns is the caller's. At the end of the stream the error is io.EOF; what an event
// that does not end has said until then is dropped, as every reader of events must.
func (r *Reader) Next() (Event, error) {
	var e Event
	for lines, data := 0, 0; ; lines++ {
		line, err := r.line(&e.Raw)
		if err != nil {
			return Event{}, err
		}
		switch {
		case len(line) == 0:
			return e, nil
		case line[0] != ':':
			e.field(line, &data)
		case lines == 0: // nothing to wait for: this may be what keeps a connection alive
			return e, nil
		}
	}
}

// field takes a line in; data counts its lines.
func (e *Event) field(line []byte, data *int) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		if *data++; *data == 1 {
			e.Data = bytes.Clone(value)
		} else {
			e.Data = append(append(e.Data, '\n'), value...)
		}
	case "event":
		e.Type = string(value)
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			e.ID = string(value)
		}
	}
}

// line appends a line with its end to raw, and returns it without. A carriage return ends a line at once: to wait for what
// follows could be to wait for the next event.
func (r *Reader) line(raw *[]byte) ([]byte, error) {
	start := len(*raw)
	for {
		if _, err := r.r.Peek(1); err != nil {
			return nil, err
		}
		buffered, _ := r.r.Peek(r.r.Buffered())
		if r.cr && buffered[0] == '\n' {
			r.cr = false
			*raw = append(*raw, '\n')
			_, _ = r.r.Discard(1)
			start++
			continue
		}
		end, n := bytes.IndexAny(buffered, "\r\n"), len(buffered)
		if r.cr = false; end >= 0 {
			n = end + 1
			if r.cr = buffered[end] == '\r'; r.cr && n < len(buffered) {
				if r.cr = false; buffered[n] == '\n' {
					n++
				}
			}
		}
		if len(*raw)+n > r.max {
			return nil, ErrTooLong
		}
		at := len(*raw)
		*raw = append(*raw, buffered[:n]...)
		_, _ = r.r.Discard(n)
		if end >= 0 {
			return r.text((*raw)[start : at+end]), nil
		}
	}
}

// text is a line without the mark that a stream may begin with.
func (r *Reader) text(line []byte) []byte {
	if !r.begun {
		r.begun = true
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	return line
}

// Append appends an event to dst. Data must be one line; id may be empty.
func Append(dst []byte, id string, data []byte) []byte {
	if id != "" {
		dst = append(append(append(dst, "id: "...), id...), '\n')
	}
	dst = append(dst, "data:"...)
	if len(data) > 0 {
		dst = append(append(dst, ' '), data...)
	}
	return append(dst, "\n\n"...)
}
