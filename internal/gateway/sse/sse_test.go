package sse

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func all(r *Reader) (events []Event, err error) {
	for {
		e, err := r.Next()
		if err != nil {
			return events, err
		}
		events = append(events, e)
	}
}

func TestReader(t *testing.T) {
	for name, test := range map[string]struct {
		in   string
		want []Event
	}{
		"newline":          {"id: 7\ndata: {}\n\n", []Event{{ID: "7", Data: []byte("{}")}}},
		"both":             {"event: message\r\ndata:{}\r\n\r\ndata: x\r\n\r\n", []Event{{Type: "message", Data: []byte("{}")}, {Data: []byte("x")}}},
		"carriage returns": {"data: a\r\rdata: b\r\r", []Event{{Data: []byte("a")}, {Data: []byte("b")}}},
		"lines of data":    {"data: a\ndata\ndata:  b\n\n", []Event{{Data: []byte("a\n\n b")}}},
		"priming":          {"id: 1\nretry: 10\ndata:\n\n", []Event{{ID: "1", Data: []byte{}}}},
		"comment":          {": keep\n:\n\ndata: x\n: in between\nother: y\n\n", []Event{{}, {}, {}, {Data: []byte("x")}}},
		"mark":             {"\ufeffdata: x\n\ndata: \ufeff\n\n", []Event{{Data: []byte("x")}, {Data: []byte("\ufeff")}}},
		"id with NUL":      {"id: a\x00\ndata: x\n\n", []Event{{Data: []byte("x")}}},
		"cut off":          {"data: a\n\ndata: b\n", []Event{{Data: []byte("a")}}},
		"long":             {"data: " + strings.Repeat("x", 20<<10) + "\n\n", []Event{{Data: []byte(strings.Repeat("x", 20<<10))}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, from := range []io.Reader{strings.NewReader(test.in), iotest.OneByteReader(strings.NewReader(test.in))} {
				got, err := all(NewReader(from, 64<<10))
				if !errors.Is(err, io.EOF) || len(got) != len(test.want) {
					t.Fatalf("got %d events, %v; want %d", len(got), err, len(test.want))
				}
				for i, want := range test.want {
					if g := got[i]; g.ID != want.ID || g.Type != want.Type || !bytes.Equal(g.Data, want.Data) {
						t.Errorf("event %d: got %+v, want %+v", i, g, want)
					}
				}
			}
		})
	}
}

func TestReaderBounds(t *testing.T) {
	for name, in := range map[string]string{
		"a line":     "data: " + strings.Repeat("x", 100),
		"many lines": strings.Repeat("data: x\n", 20),
	} {
		if _, err := NewReader(strings.NewReader(in), 64).Next(); !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// An event is there as soon as its blank line is, whatever ends the lines: the next one may be an hour away.
func TestReaderDoesNotWait(t *testing.T) {
	for _, end := range []string{"\n", "\r", "\r\n"} {
		in, out := io.Pipe()
		r := NewReader(in, 1<<10)
		go func() { _, _ = out.Write([]byte("data: x" + end + end)) }()
		if e, err := r.Next(); err != nil || string(e.Data) != "x" {
			t.Errorf("%q: got %+v, %v", end, e, err)
		}
		go func() { _, _ = out.Write([]byte(":" + end)) }()
		if e, err := r.Next(); err != nil || len(e.Data) != 0 {
			t.Errorf("%q: got %+v, %v", end, e, err)
		}
		_ = out.Close()
	}
}

func TestAppend(t *testing.T) {
	stream := Append(Append(nil, "3-1", nil), "", []byte(`{"a": 1}`))
	if want := "id: 3-1\ndata:\n\ndata: {\"a\": 1}\n\n"; string(stream) != want {
		t.Errorf("got %q, want %q", stream, want)
	}
	events, _ := all(NewReader(bytes.NewReader(stream), 1<<10))
	if len(events) != 2 || events[0].ID != "3-1" || events[0].Message() || !events[1].Message() || string(events[1].Data) != `{"a": 1}` {
		t.Errorf("read back: %+v", events)
	}
}

// FuzzReader: the bytes pass unchanged, and how they arrive makes no difference to what they say.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{"data: x\r\n\r\n: c\n\nid: 1\n\n", "\ufeffdata\r\rdata:y\n\r\n", "event: a\ndata: 1\ndata: 2\n\n\n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const bound = 64
		whole, errWhole := all(NewReader(bytes.NewReader(data), bound))
		var raw []byte
		for _, e := range whole {
			if raw = append(raw, e.Raw...); len(e.Raw) > bound {
				t.Fatalf("an event of %d bytes", len(e.Raw))
			}
		}
		if !bytes.HasPrefix(data, raw) {
			t.Fatalf("%q is not how %q begins", raw, data)
		}
		single, errSingle := all(NewReader(iotest.OneByteReader(bytes.NewReader(data)), bound))
		if errors.Is(errWhole, ErrTooLong) || errors.Is(errSingle, ErrTooLong) {
			return // where a newline counts depends on when it came
		}
		if len(whole) != len(single) {
			t.Fatalf("%d events at once, %d byte by byte", len(whole), len(single))
		}
		for i := range whole {
			if whole[i].ID != single[i].ID || whole[i].Type != single[i].Type || !bytes.Equal(whole[i].Data, single[i].Data) {
				t.Fatalf("event %d: %+v at once, %+v byte by byte", i, whole[i], single[i])
			}
		}
	})
}
