package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// processStatus prints what the kernel says of this process: ids, groups, capabilities, seccomp.
func processStatus([]string) (string, error) {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "", err
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		for _, want := range []string{"Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"} {
			if strings.HasPrefix(line, want) {
				out = append(out, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return strings.Join(out, "\n"), nil
}

// write makes a file: write PATH.
func write(args []string) (string, error) {
	path := arg(args, 0, "")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		return "", err
	}
	return "wrote " + path, os.Remove(path)
}

// read prints the beginning of a file: read PATH.
func read(args []string) (string, error) {
	f, err := os.Open(arg(args, 0, ""))
	if err != nil {
		return "", err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 4096))
	return string(raw), err
}

// fill writes to a file until it cannot, or until it holds so many MiB: fill PATH MIB. What did not fit is removed.
func fill(args []string) (string, error) {
	limit, err := strconv.Atoi(arg(args, 1, ""))
	if err != nil {
		return "", err
	}
	f, err := os.Create(arg(args, 0, ""))
	if err != nil {
		return "", err
	}
	defer f.Close()
	block, written := make([]byte, 1<<20), 0
	for written < limit<<20 {
		n, err := f.Write(block)
		written += n
		if err != nil {
			return "", errors.Join(fmt.Errorf("%d bytes fitted: %w", written, err), os.Remove(f.Name()))
		}
	}
	return fmt.Sprintf("wrote %d bytes", written), nil
}

// setuid tries to become another user: setuid ID.
func setuid(args []string) (string, error) {
	id, err := strconv.Atoi(arg(args, 0, "0"))
	if err != nil {
		return "", err
	}
	if err := syscall.Setuid(id); err != nil {
		return "", err
	}
	return fmt.Sprintf("uid is %d", syscall.Getuid()), nil
}

// userNamespace tries to become root in a user namespace of its own.
func userNamespace([]string) (string, error) {
	cmd := exec.Command("/proc/self/exe", "status")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mount tries to mount a file system: mount PATH.
func mount(args []string) (string, error) {
	return "mounted", syscall.Mount("tmpfs", arg(args, 0, "/tmp"), "tmpfs", 0, "")
}

// mknod tries to make a device: mknod PATH.
func mknod(args []string) (string, error) {
	return "made", syscall.Mknod(arg(args, 0, "/tmp/null"), syscall.S_IFCHR|0o666, 0x103)
}
