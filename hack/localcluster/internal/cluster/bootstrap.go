package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/build"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/image"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/internet"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/state"
)

// Images are the references of the images that the cluster itself needs.
type Images struct{ Pause, CoreDNS string }

// PushImages makes the cluster's own images and pushes them to the registry at
// address.
func (l Layout) PushImages(ctx context.Context, address string) (Images, error) {
	pause, err := l.pushProgram(ctx, address, "pause", filepath.Join(l.Build(build.Pause), "pause"), "65535:65535")
	if err != nil {
		return Images{}, err
	}
	coredns, err := l.pushProgram(ctx, address, "coredns", filepath.Join(l.Build(build.CoreDNS), "coredns"), "65532:65532")
	return Images{Pause: pause, CoreDNS: coredns}, err
}

func (l Layout) pushProgram(ctx context.Context, address, name, file, user string) (string, error) {
	img, err := image.Build(image.Spec{
		Files:      []image.File{{Source: file, Target: "/" + name, Mode: 0o755}},
		Entrypoint: []string{"/" + name},
		User:       user,
	})
	if err != nil {
		return "", fmt.Errorf("make image %s: %w", name, err)
	}
	digest, err := image.Push(ctx, address, image.Named{Image: img, Repository: "localcluster/" + name, Tag: "latest"})
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/localcluster/%s@%s", RegistryHost, name, digest), nil
}

//go:embed coredns.yaml
var corednsManifest string

// Apply puts what the cluster itself needs into the API server.
func (l Layout) Apply(ctx context.Context, images Images) error {
	if l.Config.CNI == state.CNICilium {
		if err := l.kubectl(ctx, "", "-R", "-f", filepath.Join(l.Build(build.Cilium), "crds")); err != nil {
			return fmt.Errorf("apply Cilium's CRDs: %w", err)
		}
	}
	var manifest bytes.Buffer
	err := template.Must(template.New("coredns").Parse(corednsManifest)).Execute(&manifest, map[string]string{
		"Image":    images.CoreDNS,
		"Address":  dnsService,
		"Upstream": internet.DNSAddress,
	})
	if err != nil {
		return err
	}
	if err := l.kubectl(ctx, manifest.String(), "-f", "-"); err != nil {
		return fmt.Errorf("apply CoreDNS: %w", err)
	}
	return nil
}

func (l Layout) kubectl(ctx context.Context, stdin string, args ...string) error {
	args = append([]string{"apply", "--server-side", "--force-conflicts",
		"--kubeconfig", l.Cluster.Path("kubeconfigs", certAdmin)}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(l.Build(build.ControlPlane), "kubectl"), args...)
	cmd.Env = l.environment("")
	cmd.Stdin = strings.NewReader(stdin)
	return output(cmd)
}

// run runs a command of which only failure matters.
func run(ctx context.Context, name string, args ...string) error {
	return output(exec.CommandContext(ctx, name, args...))
}

func output(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(out))
	}
	return nil
}
