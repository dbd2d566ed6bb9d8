//go:build linux

package node

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestParseMount(t *testing.T) {
	for line, want := range map[string]hierarchy{
		"34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset": {
			mountPoint: "/sys/fs/cgroup/cpuset", fsType: "cgroup", options: "cpuset"},
		"34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct": {
			mountPoint: "/sys/fs/cgroup/cpu,cpuacct", fsType: "cgroup", options: "cpu,cpuacct"},
		"40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd": {
			mountPoint: "/sys/fs/cgroup/systemd", fsType: "cgroup", options: "xattr,name=systemd"},
		"35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate": {
			mountPoint: "/sys/fs/cgroup", fsType: "cgroup2"},
	} {
		if got, ok := parseMount(line); !ok || got != want {
			t.Errorf("parseMount(%q) = %+v, %v; want %+v", line, got, ok, want)
		}
	}
	for _, line := range []string{"", "22 27 0:21 / /proc rw,relatime - proc proc rw", "cgroup"} {
		if got, ok := parseMount(line); ok {
			t.Errorf("parseMount(%q) = %+v", line, got)
		}
	}
}

func TestRemoveTree(t *testing.T) {
	root := filepath.Join(t.TempDir(), "cgroup")
	if err := os.MkdirAll(filepath.Join(root, "kubepods", "pod1"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing
		if err := removeTree(root); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(root); err == nil {
		t.Error("the tree is still there")
	}
}

func TestForwardPassesOnTheEndOfEachDirection(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		// Answers only once the question is complete.
		question, _ := io.ReadAll(conn)
		_, _ = conn.Write(append([]byte("re: "), question...))
		_ = conn.Close()
	}()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		Forward(ctx, front, server.Addr().String(), slog.New(slog.DiscardHandler))
		close(done)
	}()
	conn, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil || string(got) != "re: question" {
		t.Errorf("answer is %q, %v", got, err)
	}
	cancel()
	<-done
}
