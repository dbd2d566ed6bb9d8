// Package apiserver gives tests a real API server: a control plane of hack/localcluster of their own.
package apiserver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Server is a running control plane.
type Server struct {
	// Config reaches it as an administrator, with no limit on the rate of requests.
	Config *rest.Config
	// Kubeconfig is the path of a kubeconfig file that does the same.
	Kubeconfig string

	stdin io.Closer
	cmd   *exec.Cmd
}

// Start starts a control plane with the CRDs installed. It ends with Stop, and, because it watches
// its standard input, with the test process whatever happens to that. Without names parts, such as
// kube-controller-manager, that are left out.
func Start(ctx context.Context, name string, without ...string) (*Server, error) {
	args := []string{"-C", filepath.Join(Root(), "hack", "localcluster"), "run", ".", "up", "--control-plane-only", "--foreground", "--name", fmt.Sprintf("test-%s-%d", name, os.Getpid())}
	if len(without) > 0 {
		args = append(args, "--without="+strings.Join(without, ","))
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe to localcluster: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("open pipe from localcluster: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start localcluster: %w", err)
	}
	s := &Server{stdin: stdin, cmd: cmd}
	if err := s.ready(stdout); err != nil {
		return nil, fmt.Errorf("%w; %w", err, s.Stop())
	}
	crds := envtest.CRDInstallOptions{Paths: []string{filepath.Join(Root(), "config", "crd", "bases")}, ErrorIfPathMissing: true}
	if _, err := envtest.InstallCRDs(s.Config, crds); err != nil {
		return nil, fmt.Errorf("install CRDs: %w; %w", err, s.Stop())
	}
	return s, nil
}

// ready waits for the line that localcluster prints when all is up.
func (s *Server) ready(stdout io.Reader) error {
	scanner := bufio.NewScanner(stdout)
	for scanner.Scan() {
		if path, found := strings.CutPrefix(scanner.Text(), "ready KUBECONFIG="); found {
			config, err := clientcmd.BuildConfigFromFlags("", path)
			if err != nil {
				return fmt.Errorf("read kubeconfig: %w", err)
			}
			config.QPS = -1
			s.Config, s.Kubeconfig = config, path
			return nil
		}
	}
	return fmt.Errorf("localcluster ended before it was ready: its reason is above")
}

// Stop ends the control plane and removes its state.
func (s *Server) Stop() error {
	if err := s.stdin.Close(); err != nil {
		return fmt.Errorf("close pipe to localcluster: %w", err)
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("stop localcluster: %w", err)
	}
	return nil
}

// Root is the root folder of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}
