//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// asCommand makes the test binary be the command, so that the tests run what
// they were compiled with.
const asCommand = "LOCALCLUSTER_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// deadline is for what takes seconds on a machine that is free.
const deadline = 3 * time.Minute

// lab is one cluster with a state folder of its own.
type lab struct {
	t     *testing.T
	name  string
	state string
}

func newLab(t *testing.T, name string) *lab {
	t.Helper()
	l := &lab{t: t, name: name, state: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := l.run("status")
			t.Logf("status:\n%s", out)
		}
		if out, code := l.run("down"); code != 0 {
			t.Errorf("down: exit code %d\n%s", code, out)
		}
		l.checkNothingLeft()
	})
	return l
}

func (l *lab) command(args ...string) *exec.Cmd {
	verb, rest := args[0], args[1:]
	cmd := exec.Command("/proc/self/exe", append([]string{verb, "--name", l.name}, rest...)...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "XDG_STATE_HOME="+l.state)
	return cmd
}

// run returns everything that the command printed, and its exit code.
func (l *lab) run(args ...string) (string, int) {
	l.t.Helper()
	out, err := l.command(args...).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	}
	if err != nil {
		l.t.Fatalf("%v: %v", args, err)
	}
	return string(out), 0
}

// must is run for commands that are to succeed.
func (l *lab) must(args ...string) string {
	l.t.Helper()
	out, code := l.run(args...)
	if code != 0 {
		l.t.Fatalf("%v: exit code %d\n%s", args, code, out)
	}
	return out
}

// stdout is must for commands whose stdout is for scripts.
func (l *lab) stdout(args ...string) string {
	l.t.Helper()
	cmd := l.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// pid reads a process id out of the status.
func (l *lab) pid(component string) int {
	l.t.Helper()
	out, _ := l.run("status")
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) >= 3 && fields[0] == component {
			if pid, err := strconv.Atoi(fields[2]); err == nil {
				return pid
			}
		}
	}
	l.t.Fatalf("no pid of %s in status:\n%s", component, out)
	return 0
}

// kill returns when the process is gone with all its threads and open files, which
// is later than it stops showing arguments and environment.
func (l *lab) kill(pid int) {
	l.t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		l.t.Fatalf("find %d: %v", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		l.t.Fatalf("kill %d: %v", pid, err)
	}
	l.waitFor("the end of a process that was killed", func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			l.t.Fatalf("wait for %d: %v", pid, err)
		}
		return n == 1
	})
}

// processes lists the processes of this cluster. The state folder, which is this
// test's own, or the name is in their arguments or environment.
func (l *lab) processes() []string {
	l.t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		l.t.Fatal(err)
	}
	var found []string
	for _, dir := range dirs {
		if filepath.Base(dir) == strconv.Itoa(os.Getpid()) {
			continue
		}
		for _, file := range []string{"cmdline", "environ"} {
			content, err := os.ReadFile(filepath.Join(dir, file))
			if err == nil && (bytes.Contains(content, []byte(l.state)) || bytes.Contains(content, []byte("LOCALCLUSTER="+l.name+"-"))) {
				found = append(found, filepath.Base(dir))
				break
			}
		}
	}
	return found
}

func (l *lab) waitFor(what string, ok func() bool) {
	l.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(deadline)
	for !ok() {
		select {
		case <-timeout:
			l.t.Fatalf("never came: %s", what)
		case <-tick.C:
		}
	}
}

func (l *lab) waitForNoProcesses() {
	l.t.Helper()
	l.waitFor("the end of all processes", func() bool { return len(l.processes()) == 0 })
}

func (l *lab) checkNothingLeft() {
	l.t.Helper()
	if left := l.processes(); len(left) > 0 {
		l.t.Errorf("processes are left: %v", left)
	}
	err := filepath.WalkDir(l.state, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			l.t.Errorf("a file is left: %s", path)
		}
		return err
	})
	if err != nil {
		l.t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(l.state, "mcp-warden", "localcluster", l.name)); err == nil {
		l.t.Error("the state folder is left")
	}
}

func (l *lab) kubectl(args ...string) {
	l.t.Helper()
	l.must(append([]string{"exec", "--", "kubectl"}, args...)...)
}

func TestControlPlane(t *testing.T) {
	t.Parallel()
	l := newLab(t, "test-cp")
	up := []string{"up", "--control-plane-only"}

	ready := l.stdout(up...)
	if path := l.stdout("kubeconfig", "--path"); ready != "ready KUBECONFIG="+path {
		t.Errorf("up prints %q, want the path of the kubeconfig %s", ready, path)
	}
	l.must("status")
	l.kubectl("create", "namespace", "kept")
	if again := l.must(up...); !strings.Contains(again, "runs already") {
		t.Errorf("up on a running cluster prints %q", again)
	}
	if out, code := l.run(append(up, "--without=kube-scheduler")...); code != 1 || !strings.Contains(out, "down --name test-cp") {
		t.Errorf("up with other options: exit code %d\n%s\nwant it to say what to do", code, out)
	}
	if out, code := l.run("exec", "--", "sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exec: exit code %d, want the command's 7\n%s", code, out)
	}

	before := l.pid("etcd")
	l.kill(before)
	l.waitFor("another etcd in a healthy cluster", func() bool {
		_, code := l.run("status")
		return code == 0 && l.pid("etcd") != before
	})

	kubeconfig := l.stdout("kubeconfig")
	l.kill(l.pid("supervisor"))
	l.waitForNoProcesses()
	if out, code := l.run("status"); code != 1 || !strings.Contains(out, "not running") {
		t.Errorf("status of a dead cluster: exit code %d\n%s", code, out)
	}
	l.must(up...)
	l.kubectl("get", "namespace", "kept")
	if l.stdout("kubeconfig") != kubeconfig {
		t.Error("the kubeconfig of before is no longer good")
	}

	l.must("down")
	l.checkNothingLeft()
	if out := l.must("down"); !strings.Contains(out, "nothing to remove") {
		t.Errorf("a second down prints %q", out)
	}
	if out, code := l.run("status"); code != 1 || !strings.Contains(out, "up --name test-cp") {
		t.Errorf("status of no cluster: exit code %d\n%s\nwant it to say how to make one", code, out)
	}
}

// foreground starts a cluster that lives as long as the command.
func (l *lab) foreground(args ...string) (cmd *exec.Cmd, stdin io.Closer) {
	l.t.Helper()
	cmd = l.command(append([]string{"up", "--foreground"}, args...)...)
	cmd.Stderr = l.t.Output()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready KUBECONFIG=/") {
		_ = cmd.Wait()
		l.t.Fatalf("first line is %q, %v", line, err)
	}
	return cmd, stdin
}

func TestForegroundEndsWithItsInput(t *testing.T) {
	t.Parallel()
	l := newLab(t, "test-fg")
	cmd, stdin := l.foreground("--control-plane-only", "--without=kube-scheduler,kube-controller-manager")
	if out := l.must("status"); strings.Contains(out, "kube-scheduler") {
		t.Errorf("what was left out runs:\n%s", out)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("up --foreground: %v", err)
	}
	l.checkNothingLeft()
}

func TestForegroundEndsWithASignal(t *testing.T) {
	t.Parallel()
	l := newLab(t, "test-sig")
	cmd, _ := l.foreground("--control-plane-only", "--without=kube-scheduler,kube-controller-manager")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("up --foreground: %v", err)
	}
	l.checkNothingLeft()
}

func TestForegroundTakesItsProcessesAlong(t *testing.T) {
	t.Parallel()
	l := newLab(t, "test-kill")
	cmd, _ := l.foreground("--control-plane-only", "--without=kube-scheduler,kube-controller-manager")
	l.kill(cmd.Process.Pid)
	if err := cmd.Wait(); err == nil {
		t.Error("a killed command ends well")
	}
	l.waitForNoProcesses()
	l.must("down")
	l.checkNothingLeft()
}

func TestMistakes(t *testing.T) {
	l := newLab(t, "test-mistakes")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"up", "--cni=flannel"}, "cilium or bridge"},
		{[]string{"up", "--control-plane-only", "--cni=bridge"}, "leave out --control-plane-only"},
		{[]string{"up", "--control-plane-only", "--without=etcd"}, "only kube-controller-manager and kube-scheduler"},
		{[]string{"up", "--without=kube-scheduler"}, "add --control-plane-only"},
		{[]string{"build", "docker"}, "choose from"},
		{[]string{"kubeconfig"}, "up --name test-mistakes"},
		{[]string{"logs", "etcd"}, "up --name test-mistakes"},
		{[]string{"load", "x:v1", "--file=go.mod=/x", "--entrypoint=/x"}, "up --name test-mistakes"},
		{[]string{"load", "x:v1", "--file=go.mod=/x"}, "--entrypoint is missing"},
		{[]string{"load", "x:v1", "--file=go.mod"}, "HOSTPATH=/path/in/image"},
		{[]string{"exec"}, "say what to run"},
		{[]string{"status", "--name", "Not/A/Name"}, "lower-case letters"},
	} {
		out, code := l.run(c.args...)
		if code != 1 || !strings.Contains(out, c.want) || strings.Count(out, "\n") != 1 {
			t.Errorf("%v: exit code %d, %q; want one line with %q", c.args, code, out, c.want)
		}
	}
}

func TestNodeNeedsRoot(t *testing.T) {
	l := newLab(t, "test-root")
	cmd := l.command("up")
	if os.Geteuid() == 0 {
		// Nobody may read the test binary where it lies, but may be handed it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 3 || !strings.Contains(string(out), "--control-plane-only") {
		t.Errorf("up without root: %v\n%s\nwant exit code 3 and the remedy", err, out)
	}
}
