//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// surroundings is what a node could leave behind on the machine, apart from
// processes and files.
type surroundings struct{ mounts, links, cgroups []string }

func lookAround(t *testing.T) surroundings {
	t.Helper()
	var s surroundings
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	s.mounts = strings.Split(string(mounts), "\n")
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		s.links = append(s.links, l.Name)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/mcp-warden-test-node-*", "/sys/fs/cgroup/*/mcp-warden-test-node-*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		s.cgroups = append(s.cgroups, found...)
	}
	return s
}

func (s surroundings) compare(t *testing.T, now surroundings) {
	t.Helper()
	for what, lists := range map[string][2][]string{
		"mount":             {s.mounts, now.mounts},
		"network interface": {s.links, now.links},
		"cgroup":            {s.cgroups, now.cgroups},
	} {
		for _, item := range lists[1] {
			if !slices.Contains(lists[0], item) {
				t.Errorf("a %s is left: %s", what, item)
			}
		}
	}
}

// netNS is the network namespace of a process.
func netNS(t *testing.T, pid int) string {
	t.Helper()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// inNetNS lists the processes that hold a network namespace.
func inNetNS(ns string) []string {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	return slices.DeleteFunc(links, func(link string) bool {
		got, err := os.Readlink(link)
		return err != nil || got != ns
	})
}

const podManifest = `apiVersion: v1
kind: Pod
metadata:
  name: probe
spec:
  containers:
  - name: probe
    image: %s
`

func TestNode(t *testing.T) {
	if os.Getenv("LOCALCLUSTER_NODE_TEST") != "1" {
		t.Skip("starts a whole node: set LOCALCLUSTER_NODE_TEST=1, as root")
	}
	if os.Geteuid() != 0 {
		t.Skip("a node needs root")
	}
	before := lookAround(t)
	l := newLab(t, "test-node")
	l.must("up")
	l.must("status")

	pause := filepath.Join(l.stdout("build", "pause"), "pause")
	load := []string{"load", "team/probe:v1", "--file", pause + "=/pause", "--entrypoint", "/pause"}
	reference := l.stdout(load...)
	if !strings.HasPrefix(reference, "registry.localcluster:5000/team/probe@sha256:") {
		t.Errorf("load prints %q", reference)
	}
	if again := l.stdout(load...); again != reference {
		t.Errorf("a second load prints %q, want %q", again, reference)
	}
	manifest := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(manifest, fmt.Appendf(nil, podManifest, reference), 0o600); err != nil {
		t.Fatal(err)
	}
	l.kubectl("apply", "-f", manifest)
	l.kubectl("wait", "--for=condition=Ready", "--timeout=2m", "pod/probe")
	if got := l.stdout("exec", "--internet", "--", "ip", "-brief", "address", "show", "lo"); !strings.Contains(got, "203.0.113.10/32") {
		t.Errorf("the internet's addresses are %s", got)
	}

	supervisor := l.pid("supervisor")
	ns := netNS(t, supervisor)
	l.kill(supervisor)
	l.waitFor("the end of everything in the node's network", func() bool { return len(inNetNS(ns)) == 0 })
	l.waitForNoProcesses()
	l.must("up")
	l.kubectl("wait", "--for=condition=Ready", "--timeout=2m", "pod/probe")
	if again := l.stdout(load...); again != reference {
		t.Errorf("load after a restart prints %q, want %q", again, reference)
	}

	ns = netNS(t, l.pid("supervisor"))
	l.must("down")
	l.checkNothingLeft()
	before.compare(t, lookAround(t))
	if left := inNetNS(ns); len(left) > 0 {
		t.Errorf("the network namespace is left, held by %v", left)
	}
}
