package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// tee runs a server on stdio, and notes in a folder what goes in and what comes out.
func tee(folder string, command []string) error {
	name := filepath.Join(folder, fmt.Sprint(os.Getpid()))
	in, err := os.Create(name + ".in")
	if err != nil {
		return fmt.Errorf("tee: %w", err)
	}
	defer in.Close()
	out, err := os.Create(name + ".out")
	if err != nil {
		return fmt.Errorf("tee: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(out, os.Stdout), os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("tee: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("tee: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	go func() {
		_, _ = io.Copy(io.MultiWriter(in, stdin), os.Stdin)
		_ = stdin.Close()
	}()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("tee: %w", err)
	}
	return nil
}

// process is what went into and came out of one process.
type process struct{ in, out [][]byte }

// modern tells whether a process was spoken to in a revision without sessions.
func (p *process) modern() bool {
	for _, line := range p.in {
		if bytes.Contains(line, []byte(`"io.modelcontextprotocol/protocolVersion"`)) {
			return true
		}
	}
	return false
}

// readTees reads what was noted in a folder, without the gateway's own handshakes.
func readTees(folder string) ([]process, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.in"))
	if err != nil {
		return nil, fmt.Errorf("read what tee has noted: %w", err)
	}
	var all []process
	for _, name := range names {
		in, err1 := os.ReadFile(name)
		out, err2 := os.ReadFile(strings.TrimSuffix(name, ".in") + ".out")
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("read what tee has noted: %w", err)
		}
		if !bytes.Contains(in, []byte(probe)) {
			all = append(all, process{splitLines(in), splitLines(out)}.withoutDiscover())
		}
	}
	return all, nil
}

// withoutDiscover leaves out what the gateway asks each process that serves requests without sessions, and what that answers.
func (p process) withoutDiscover() process {
	own := func(m []byte) bool { return string(find(m, "id").value) == `"mcp-warden"` }
	return process{slices.DeleteFunc(p.in, own), slices.DeleteFunc(p.out, own)}
}

func splitLines(text []byte) [][]byte {
	var out [][]byte
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		if line = bytes.TrimSuffix(line, []byte("\r")); len(bytes.TrimSpace(line)) > 0 && line[0] == '{' {
			out = append(out, line)
		}
	}
	return out
}
