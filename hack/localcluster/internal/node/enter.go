//go:build linux

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/internet"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Where a node's components find the state folder and the build cache. The short
// paths also keep sockets below the 108 bytes that a socket's path may have.
const (
	base      = "/run/localcluster"
	StateRoot = base + "/state"
	CacheRoot = base + "/cache"
)

// HostNetFD is the descriptor on which Enter leaves the host's network
// namespace for whoever is executed next.
const HostNetFD = 3

// Enter turns the surroundings of this process, which is to be process 1 of new
// mount, PID, UTS and IPC namespaces, into those of a node. It acts on the
// calling thread alone where it must; the caller stays on it and executes the
// supervisor from it.
func Enter(c state.Cluster, cfg state.Config) error {
	// Nothing that is mounted from here on is seen by the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := keepHostNet(); err != nil {
		return err
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if err := joinCgroups(all, cfg.ID); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP | unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare cgroup and network namespaces: %w", err)
	}
	if err := unix.Sethostname([]byte(cluster.NodeName)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := mountAll(c, cfg, all); err != nil {
		return err
	}
	if err := writeFiles(); err != nil {
		return err
	}
	// Within the node mounts do propagate: volumes ask for that.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts: %w", err)
	}
	return nil
}

// keepHostNet puts the host's network namespace on a descriptor that survives
// exec.
func keepHostNet() error {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("open host's network namespace: %w", err)
	}
	if fd == HostNetFD {
		return nil
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Dup3(fd, HostNetFD, 0); err != nil {
		return fmt.Errorf("keep host's network namespace: %w", err)
	}
	return nil
}

// mountAll replaces every place that the components write to.
func mountAll(c state.Cluster, cfg state.Config, all []hierarchy) error {
	// State and cache may lie below a folder that is about to be covered.
	stateDir, err := os.Open(c.Root)
	if err != nil {
		return err
	}
	defer func() { _ = stateDir.Close() }()
	cacheDir, err := os.Open(cfg.Cache)
	if err != nil {
		return err
	}
	defer func() { _ = cacheDir.Close() }()

	mounts := []mount{
		{source: "tmpfs", target: "/run", fsType: "tmpfs", data: "mode=755"},
		{source: fmt.Sprintf("/proc/self/fd/%d", stateDir.Fd()), target: StateRoot, flags: unix.MS_BIND},
		{source: fmt.Sprintf("/proc/self/fd/%d", cacheDir.Fd()), target: CacheRoot, flags: unix.MS_BIND},
		{source: "proc", target: "/proc", fsType: "proc"},
		// pinSysctls covers parts of /proc. Pods with a user namespace may mount
		// theirs only where one stands in the open.
		{source: "proc", target: base + "/proc", fsType: "proc"},
		{source: "sysfs", target: "/sys", fsType: "sysfs"},
		{source: "bpf", target: "/sys/fs/bpf", fsType: "bpf", data: "mode=700"},
		{source: "tmpfs", target: "/tmp", fsType: "tmpfs", data: "mode=1777"},
		{source: "tmpfs", target: "/dev/shm", fsType: "tmpfs", data: "mode=1777"},
		overlay("/etc"),
		overlay("/var"),
		keep("/var/lib/containerd"),
		keep("/var/lib/kubelet"),
		keep("/var/lib/cni"),
		keep("/var/log/pods"),
	}
	for _, m := range mounts {
		if err := m.mount(); err != nil {
			return err
		}
	}
	return errors.Join(mountCgroups(all), pinSysctls())
}

// mount is one mount; its target is made if missing.
type mount struct {
	source, target, fsType, data string
	flags                        uintptr
}

func (m mount) mount() error {
	for _, dir := range m.dirs() {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	if err := unix.Mount(m.source, m.target, m.fsType, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	return nil
}

// dirs are the folders that must exist first. Those in the state folder keep
// the permission that containers with a user namespace need to pass through.
func (m mount) dirs() []string {
	dirs := []string{m.target}
	if strings.HasPrefix(m.source, base) {
		dirs = append(dirs, m.source)
	}
	for option := range strings.SplitSeq(m.data, ",") {
		if name, dir, ok := strings.Cut(option, "="); ok && (name == "upperdir" || name == "workdir") {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// overlay makes a folder writable without writing to it: what is added lies in
// memory.
func overlay(dir string) mount {
	top := filepath.Join(base, "overlay", dir)
	return mount{source: "overlay", target: dir, fsType: "overlay",
		data: fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", dir, top, top)}
}

// keep puts a folder into the state folder, so that its content outlives the
// processes.
func keep(dir string) mount {
	return mount{source: filepath.Join(StateRoot, "node", dir), target: dir, flags: unix.MS_BIND}
}

// writeFiles writes the few files in /etc that differ from the host's.
func writeFiles() error {
	files := map[string]string{
		"/etc/hostname":    cluster.NodeName + "\n",
		"/etc/hosts":       fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", cluster.NodeAddress, cluster.NodeName),
		"/etc/resolv.conf": "nameserver " + internet.DNSAddress + "\n",
	}
	for path, content := range files {
		// It may be a link that leads elsewhere.
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pinned are the kernel settings that the kubelet and Cilium would change for
// the whole machine, with the values that they want to find.
var pinned = map[string]string{
	"/proc/sys/vm/overcommit_memory":             "1",
	"/proc/sys/vm/panic_on_oom":                  "0",
	"/proc/sys/kernel/panic":                     "10",
	"/proc/sys/kernel/panic_on_oops":             "1",
	"/proc/sys/kernel/keys/root_maxkeys":         "1000000",
	"/proc/sys/kernel/keys/root_maxbytes":        "25000000",
	"/proc/sys/kernel/unprivileged_bpf_disabled": "1",
	"/proc/sys/kernel/timer_migration":           "0",
	"/proc/sys/net/core/bpf_jit_enable":          "1",
}

// pinSysctls covers these settings with files, so that they read as wanted and
// writing them changes nothing outside.
func pinSysctls() error {
	for path, value := range pinned {
		if _, err := os.Stat(path); err != nil {
			continue // this kernel or namespace does not have it
		}
		file := filepath.Join(base, "sysctl", path)
		if err := state.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", path, err)
		}
	}
	return nil
}
