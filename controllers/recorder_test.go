package controllers_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// request is what the operator asked of the API server.
type request struct {
	verb, resource, namespace, name string
	// metadata says that no more than metadata was asked for.
	metadata bool
	// body of a patch.
	body string
}

func (r request) String() string {
	return strings.TrimRight(r.verb+" "+r.resource+" "+r.namespace+"/"+r.name, "/")
}

func (r request) writes() bool { return r.verb != "get" && r.verb != "list" && r.verb != "watch" }

// recorder records requests, and lets a test act just before one or refuse it.
type recorder struct {
	mu       sync.Mutex
	requests []request
	denied   []request
	hook     func(request) error
	// held is the resource that the operator's watches tell nothing of, until released is closed.
	held     string
	released chan struct{}
}

func (r *recorder) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(in *http.Request) (*http.Response, error) {
		if req, ok := parse(in); ok {
			r.mu.Lock()
			hook := r.hook
			r.mu.Unlock()
			if hook != nil {
				if err := hook(req); err != nil {
					return nil, err
				}
			}
			r.mu.Lock()
			r.requests = append(r.requests, req)
			r.mu.Unlock()
		}
		out, err := next.RoundTrip(in)
		if req, ok := parse(in); ok && err == nil && req.verb == "watch" {
			out.Body = &watchBody{ReadCloser: out.Body, recorder: r, resource: req.resource}
		}
		return out, r.noteDenied(in, out, err)
	})
}

// hold keeps what watches of a resource tell from the operator, until it is called back.
func (r *recorder) hold(resource string) (release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held, r.released = resource, make(chan struct{})
	return sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.held = ""
		close(r.released)
	})
}

// watchBody is the answer to a watch, which a test may hold back.
type watchBody struct {
	io.ReadCloser
	recorder *recorder
	resource string
}

func (b *watchBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.recorder.mu.Lock()
	held, released := b.recorder.held == b.resource, b.recorder.released
	b.recorder.mu.Unlock()
	if held {
		<-released
	}
	return n, err
}

// noteDenied records a request that the operator has no right to.
func (r *recorder) noteDenied(in *http.Request, out *http.Response, err error) error {
	if err != nil || out.StatusCode != http.StatusForbidden {
		return err
	}
	body, err := io.ReadAll(out.Body)
	if err != nil {
		return err
	}
	out.Body = io.NopCloser(bytes.NewReader(body))
	if req, ok := parse(in); ok && strings.Contains(string(body), "cannot "+req.verb+" ") { // not what admission refuses
		r.mu.Lock()
		defer r.mu.Unlock()
		r.denied = append(r.denied, req)
	}
	return nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(in *http.Request) (*http.Response, error) { return f(in) }

// parse tells what an HTTP request asks for; false for what is not about objects.
func parse(in *http.Request) (request, bool) {
	parts := strings.Split(strings.Trim(in.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		parts = parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		parts = parts[3:]
	default:
		return request{}, false
	}
	out := request{}
	if parts[0] == "namespaces" && len(parts) > 2 {
		out.namespace, parts = parts[1], parts[2:]
	}
	out.resource = parts[0]
	if len(parts) > 1 {
		out.name = parts[1]
	}
	if len(parts) > 2 {
		out.resource += "/" + parts[2]
	}
	out.verb = verb(in, out.name)
	out.metadata = strings.Contains(in.Header.Get("Accept"), "as=PartialObjectMetadata")
	if out.verb == "patch" && in.GetBody != nil {
		if body, err := in.GetBody(); err == nil {
			raw, _ := io.ReadAll(body)
			out.body = string(raw)
		}
	}
	return out, true
}

func verb(in *http.Request, name string) string {
	switch in.Method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	switch {
	case in.URL.Query().Get("watch") != "":
		return "watch"
	case name == "":
		return "list"
	}
	return "get"
}

// before sets what is done before each request from now on; an error is the answer to it.
func (r *recorder) before(hook func(request) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = hook
}

// in lists the requests about a namespace, or all of them for "".
func (r *recorder) in(namespace string, keep func(request) bool) []request {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []request
	for _, req := range r.requests {
		if (namespace == "" || req.namespace == namespace) && keep(req) {
			out = append(out, req)
		}
	}
	return out
}

func (r *recorder) writes(namespace string) []request { return r.in(namespace, request.writes) }

// calm waits until the operator has asked nothing about a namespace for a while.
func (r *recorder) calm(t *testing.T, namespace string) {
	t.Helper()
	const quiet = 700 * time.Millisecond
	seen, since := -1, time.Now()
	eventually(t, func() string {
		if n := len(r.in(namespace, func(request) bool { return true })); n != seen {
			seen, since = n, time.Now()
		}
		if time.Since(since) < quiet {
			return fmt.Sprintf("%d requests, the last less than %s ago", seen, quiet)
		}
		return ""
	})
}

// errCut is what a request ends with when the operator is cut off.
var errCut = fmt.Errorf("the connection was cut: %w", io.ErrUnexpectedEOF)
