package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// span is where a value is in a message; value is nil where there is none.
type span struct {
	start, end int
	value      []byte
}

// find is the value at a path of keys, as it is written.
func find(m []byte, path ...string) span {
	decoder := json.NewDecoder(bytes.NewReader(m))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return span{}
	}
	for decoder.More() {
		key, err := decoder.Token()
		var value json.RawMessage
		if err != nil || decoder.Decode(&value) != nil {
			return span{}
		}
		if key != path[0] {
			continue
		}
		at := span{int(decoder.InputOffset()) - len(value), int(decoder.InputOffset()), value}
		if len(path) == 1 {
			return at
		}
		inner := find(value, path[1:]...)
		inner.start, inner.end = inner.start+at.start, inner.end+at.start
		return inner
	}
	return span{}
}

// ids are what the gateway gives requests of its own towards a process that serves several clients.
var ids = [][]string{
	{"id"}, {"params", "progressToken"}, {"params", "_meta", "progressToken"}, {"params", "requestId"},
	{"params", "_meta", "io.modelcontextprotocol/subscriptionId"},
}

// withoutIDs takes them out.
func withoutIDs(m []byte) []byte {
	for _, path := range ids {
		if at := find(m, path...); at.value != nil {
			m = slices.Concat(m[:at.start], []byte(`"ID"`), m[at.end:])
		}
	}
	return m
}

func isResponse(m []byte) bool { return find(m, "method").value == nil }

// toolsIn is how many tools a server lists.
func toolsIn(messages [][]byte) (most int) {
	for _, m := range messages {
		var tools []json.RawMessage
		if json.Unmarshal(find(m, "result", "tools").value, &tools) == nil {
			most = max(most, len(tools))
		}
	}
	return most
}

func endOfSubscription(m []byte) bool {
	return find(m, "result", "_meta", "io.modelcontextprotocol/subscriptionId").value != nil
}

// across compares what clients and gateway have said to each other with what gateway and server have, over HTTP: nothing
// may be left over on either side. Where the client went away, the server may have said more.
func across(near, far []exchange) []string {
	var problems []string
	left := slices.Clone(far)
	for _, x := range near {
		i := slices.IndexFunc(left, func(y exchange) bool {
			switch {
			case x.cut && x.status == 0:
				return x.method == y.method && bytes.Equal(x.body, y.body) && lines(x.header) == lines(y.header)
			case x.cut:
				return x.head() == y.head() && bytes.HasPrefix(y.content, x.content)
			}
			return x.head() == y.head() && bytes.Equal(x.content, y.content)
		})
		if i < 0 {
			problems = append(problems, fmt.Sprintf("the server did not see, or answered differently:\n%s\n%s", x.head(), x.content))
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	for _, y := range left {
		problems = append(problems, fmt.Sprintf("the client did not see, or saw differently:\n%s\n%s", y.head(), y.content))
	}
	return problems
}

// notSpoken is what the gateway answers itself: in front of stdio, where the server sees no header.
const (
	notSpoken   = "a revision that the server does not speak"
	unsupported = "-32022"
)

// acrossStdio does the same for a server on stdio: message by message, since it speaks no HTTP. notes tells what the protocol has the
// gateway answer, or keep for a client that did not come to take it.
func acrossStdio(near []exchange, far []process) (problems []string, notes map[string]int) {
	notes = map[string]int{}
	var said, heard, in, out [][]byte
	for i := range near {
		x := &near[i]
		isModern := x.header.Get("Mcp-Protocol-Version") >= modern
		client, server := x.messages()
		if client == nil && len(server) == 1 && x.status >= http.StatusBadRequest {
			notes["GET or DELETE refused"]++
			continue
		}
		if len(server) == 1 && string(find(server[0], "error", "code").value) == unsupported {
			notes[notSpoken]++
			continue
		}
		if isModern && client != nil && find(client, "id").value == nil {
			notes["a notification that the revision does not have"]++
			continue
		}
		if client != nil {
			said = append(said, form(oneLine(client), isModern))
		}
		for _, m := range server {
			heard = append(heard, form(m, isModern))
		}
	}
	for _, p := range far {
		for _, m := range p.in {
			in = append(in, form(m, p.modern()))
		}
		for _, m := range p.out {
			out = append(out, form(m, p.modern()))
		}
	}
	const left = `"reason":"the client is gone"`
	in = slices.DeleteFunc(in, func(m []byte) bool {
		ours := bytes.Contains(m, []byte(left))
		if ours {
			notes["cancelled, since the client had left"]++
		}
		return ours
	})
	lost, made := difference(said, in)
	problems = append(problems, each("the server did not get", lost)...)
	problems = append(problems, each("the gateway has said by itself", made)...)
	lost, made = difference(out, heard)
	problems = append(problems, each("the server did not say", made)...)
	for _, m := range lost {
		if endOfSubscription(m) {
			notes["the end of a subscription whose client had left"]++
			continue
		}
		if isResponse(m) {
			problems = append(problems, fmt.Sprintf("the client did not get: %s", m))
			continue
		}
		notes["of the server's own accord, with no stream of the client's open"]++
	}
	return problems, notes
}

func form(m []byte, isModern bool) []byte {
	if isModern {
		return withoutIDs(m)
	}
	return m
}

// difference is what is only in one of two collections.
func difference(one, two [][]byte) (only1, only2 [][]byte) {
	count := map[string]int{}
	for _, m := range two {
		count[string(m)]++
	}
	for _, m := range one {
		if count[string(m)]--; count[string(m)] < 0 {
			only1 = append(only1, m)
		}
	}
	for m, n := range count {
		for range n {
			only2 = append(only2, []byte(m))
		}
	}
	return only1, only2
}

func each(what string, messages [][]byte) (out []string) {
	for _, m := range messages {
		out = append(out, fmt.Sprintf("%s: %s", what, m))
	}
	return out
}

// answers are what a server has answered in a run, without ids of sessions and what else is never twice the same: compared between a run with
// the gateway and one without. Streams of notifications are left out: when they end depends on the client.
func answers(all []exchange, noise []*regexp.Regexp) (out [][]byte) {
	for i := range all {
		x := &all[i]
		if x.method == http.MethodGet || bytes.Contains(x.body, []byte(`"subscriptions/listen"`)) {
			continue
		}
		text := x.head() + "\n" + string(x.content)
		for _, id := range []string{x.header.Get("Mcp-Session-Id"), x.answer.Get("Mcp-Session-Id")} {
			if id != "" {
				text = strings.ReplaceAll(text, id, "SESSION")
			}
		}
		out = append(out, []byte(quiet(text, noise)))
	}
	return out
}

// responses does the same for processes on stdio.
func responses(all [][]byte, noise []*regexp.Regexp) (out [][]byte) {
	for _, m := range all {
		if isResponse(m) && !endOfSubscription(m) {
			out = append(out, []byte(quiet(string(withoutIDs(m)), noise)))
		}
	}
	return out
}

func quiet(text string, noise []*regexp.Regexp) string {
	for _, r := range noise {
		text = r.ReplaceAllString(text, "")
	}
	return text
}
