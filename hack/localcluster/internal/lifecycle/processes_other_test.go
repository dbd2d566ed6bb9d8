//go:build !linux

package lifecycle

import (
	"testing"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

func TestOwns(t *testing.T) {
	m := &Manager{Cluster: state.Cluster{Name: "x", Root: "/Users/a b/state/x"}}
	for command, want := range map[string]bool{
		"localcluster supervise --name x --root /Users/a b/state/x":                 true,
		"localcluster supervise --name x --root /Users/a b/state/x --attached":      true,
		"localcluster supervise --name x --root /Users/a b/state/xy":                false,
		"/Users/a b/cache/builds/etcd-1/etcd --data-dir=/Users/a b/state/x/etcd":    true,
		"/Users/a b/cache/builds/etcd-1/etcd --data-dir=/Users/a b/state/xy/etcd":   false,
		"kubectl --kubeconfig=/Users/a b/state/x/kubeconfig get pods":               false,
		"vi /Users/a b/cache/builds/etcd-1/etcd --data-dir=/Users/a b/state/x/etcd": false,
	} {
		if got := m.owns(command, "/Users/a b/cache"); got != want {
			t.Errorf("owns(%q) = %t, want %t", command, got, want)
		}
	}
	if m.owns("/builds/etcd --data-dir=/Users/a b/state/x/etcd", "") {
		t.Error("a cluster that was never configured owns a component")
	}
}
