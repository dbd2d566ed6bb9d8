//go:build linux

package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hierarchy is one mounted cgroup hierarchy: one per controller in version 1,
// one for all in version 2.
type hierarchy struct {
	mountPoint string
	fsType     string
	options    string
}

func (h hierarchy) v2() bool { return h.fsType == "cgroup2" }

// hierarchies reads what is mounted, each hierarchy once.
func hierarchies() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var found []hierarchy
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		h, ok := parseMount(scan.Text())
		if !ok || slices.ContainsFunc(found, func(o hierarchy) bool { return o.fsType == h.fsType && o.options == h.options }) {
			continue
		}
		found = append(found, h)
	}
	return found, scan.Err()
}

// parseMount reads a line of mountinfo if it is a cgroup mount.
func parseMount(line string) (hierarchy, bool) {
	mount, super, ok := strings.Cut(line, " - ")
	mountFields, superFields := strings.Fields(mount), strings.Fields(super)
	if !ok || len(mountFields) < 5 || len(superFields) < 3 {
		return hierarchy{}, false
	}
	h := hierarchy{mountPoint: mountFields[4], fsType: superFields[0]}
	switch h.fsType {
	case "cgroup2":
		return h, true
	case "cgroup":
		options := slices.DeleteFunc(strings.Split(superFields[2], ","), func(o string) bool {
			return o == "rw" || o == "ro" || strings.HasPrefix(o, "release_agent=")
		})
		h.options = strings.Join(options, ",")
		return h, true
	}
	return hierarchy{}, false
}

// joinCgroups moves this process into the cluster's own cgroup of every
// hierarchy.
func joinCgroups(all []hierarchy, id string) error {
	for _, h := range all {
		dir := filepath.Join(h.mountPoint, cgroupName(id))
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := inheritCPUSet(h.mountPoint, dir); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

func cgroupName(id string) string { return "mcp-warden-" + id }

// inheritCPUSet fills in what a cpuset of version 1 needs before it takes a
// process. Other hierarchies do not have the files.
func inheritCPUSet(parent, dir string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, f))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, f), value, 0o644)
		}
		if err != nil {
			return fmt.Errorf("set up cpuset: %w", err)
		}
	}
	return nil
}

// mountCgroups shows the cluster's own cgroups as the roots. It needs a cgroup
// namespace that was made after joining them.
func mountCgroups(all []hierarchy) error {
	const root = "/sys/fs/cgroup"
	if len(all) == 1 && all[0].v2() {
		if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
			return fmt.Errorf("mount cgroup2: %w", err)
		}
		return delegate(root)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", root, err)
	}
	for _, h := range all {
		if err := os.MkdirAll(h.mountPoint, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(h.fsType, h.mountPoint, h.fsType, 0, h.options); err != nil {
			return fmt.Errorf("mount %s: %w", h.mountPoint, err)
		}
		// Where several controllers share a hierarchy, each is looked for by its
		// own name too.
		names := strings.Split(h.options, ",")
		for _, n := range names {
			if link := filepath.Join(root, n); len(names) > 1 && link != h.mountPoint {
				if err := os.Symlink(filepath.Base(h.mountPoint), link); err != nil && !errors.Is(err, fs.ErrExist) {
					return err
				}
			}
		}
	}
	return nil
}

// delegate makes the controllers of version 2 available to the kubelet's
// cgroups. A cgroup that gives controllers to others may hold no process itself.
func delegate(root string) error {
	leaf := filepath.Join(root, "components")
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0o644); err != nil {
		return fmt.Errorf("join cgroup: %w", err)
	}
	controllers, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil {
			return fmt.Errorf("delegate cgroup controller %s: %w", c, err)
		}
	}
	return nil
}

// RemoveCgroups removes a cluster's cgroups, which must hold no process any
// more.
func RemoveCgroups(id string) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := removeTree(filepath.Join(h.mountPoint, cgroupName(id))); err != nil {
			return fmt.Errorf("remove cgroup: %w", err)
		}
	}
	return nil
}

// removeTree removes folders from the leaves up; the files in them are the
// kernel's and go with them.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// Processes lists the processes in a cluster's cgroups, some several times.
func Processes(id string) ([]int, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, h := range all {
		dir := filepath.Join(h.mountPoint, cgroupName(id))
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				var more []int
				more, err = readPIDs(path)
				pids = append(pids, more...)
			}
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
				return nil // never made, or removed while we look
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
	}
	return pids, nil
}

func readPIDs(path string) ([]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}
