package controllers

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/mcpwarden/mcp-warden/internal/gateway/inventory"
)

// roundTrip answers requests.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// endless is an answer that never ends.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.read += len(p)
	return len(p), nil
}

// Nothing that answers on a pod's port is believed.
func TestAskTrustsNothing(t *testing.T) {
	digest := strings.Repeat("a", 64)
	list := func(names ...string) []inventory.Tool {
		out := []inventory.Tool{}
		for _, name := range names {
			out = append(out, inventory.Tool{Name: name, SHA256: digest})
		}
		return out
	}
	said := func(tools []inventory.Tool) string {
		var parts []string
		for _, tool := range tools {
			parts = append(parts, `{"name":"`+tool.Name+`","sha256":"`+tool.SHA256+`"}`)
		}
		return `{"tools":[` + strings.Join(parts, ",") + `],"sha256":"` + inventory.Digest(tools) + `"}`
	}
	flood := &endless{}
	for _, tc := range []struct {
		name   string
		status int
		body   io.Reader
		err    error
		known  string
		want   string
	}{
		{"as it should be", 200, strings.NewReader(said(list("a", "b"))), nil, "", ""},
		{"no tools", 200, strings.NewReader(said(list())), nil, "", ""},
		{"known", 304, strings.NewReader(""), nil, digest, ""},
		{"known, though nobody said so", 304, strings.NewReader(""), nil, "", "it answers with status 304"},
		{"somebody else", 200, strings.NewReader("token=hunter2"), nil, "", "its answer is no list of tools"},
		{"an empty object", 200, strings.NewReader("{}"), nil, "", "the digest of its answer"},
		{"a digest of something else", 200, strings.NewReader(strings.Replace(said(list("a")), `"a"`, `"b"`, 1)), nil, "", "the digest of its answer"},
		{"a digest that is none", 200, strings.NewReader(`{"tools":[{"name":"a","sha256":"x"}]}`), nil, "", "its answer is no list of tools"},
		{"more tools than there can be", 200, strings.NewReader(said(list(strings.Split(strings.Repeat("a,", inventory.MaxTools), ",")...))), nil, "", "its answer is no list of tools"},
		{"an answer without an end", 200, flood, nil, "", "its answer is no list of tools"},
		{"a way to elsewhere", 302, strings.NewReader(""), nil, "", "it answers with status 302"},
		{"not yet", 503, strings.NewReader("no inventory yet"), nil, "", "it answers with status 503"},
		{"nobody", 0, nil, errors.New("dial 10.0.0.1: hunter2"), "", "it does not answer"},
	} {
		transport := roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.String() != "http://[2001:db8::1]:29011/inventory" || r.Header.Get("If-None-Match") != map[string]string{digest: `"` + digest + `"`}[tc.known] {
				t.Errorf("%s: asked %s %v", tc.name, r.URL, r.Header)
			}
			if tc.err != nil {
				return nil, tc.err
			}
			return &http.Response{StatusCode: tc.status, Header: http.Header{"Location": {"http://169.254.169.254/"}}, Body: io.NopCloser(tc.body)}, nil
		})
		pod := &corev1.Pod{Status: corev1.PodStatus{PodIP: "2001:db8::1"}}
		got, err := newTools(nil, transport, 0).ask(t.Context(), pod, tc.known)
		switch {
		case tc.want == "" && (err != nil || got.Trouble != "" || (got.Inventory == nil) != (tc.known != "")):
			t.Errorf("%s: %+v, %v", tc.name, got, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2")):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if flood.read > 2*maxInventory {
		t.Errorf("%d bytes were read", flood.read)
	}
}
