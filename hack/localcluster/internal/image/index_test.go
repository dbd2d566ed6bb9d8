package image

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func buildIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	var specs []Spec
	for _, architecture := range []string{"amd64", "arm64"} {
		file := File{Source: sourceFile(t, "for "+architecture, 0o755), Target: "/manager", Mode: 0o755}
		specs = append(specs, Spec{
			Files: []File{file}, Entrypoint: []string{"/manager"}, User: "65532:65532",
			Architecture: architecture, Labels: map[string]string{"org.opencontainers.image.version": "v1"}, Compress: true,
		})
	}
	index, err := BuildIndex(specs, map[string]string{"org.opencontainers.image.version": "v1"})
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func TestIndexIsReproducible(t *testing.T) {
	ref, err := name.NewTag("registry.example.test/mcp-warden:v1")
	if err != nil {
		t.Fatal(err)
	}
	var tarballs [2][]byte
	for i := range tarballs {
		target := filepath.Join(t.TempDir(), "image.tar")
		if err := WriteTarball(target, ref, buildIndex(t)); err != nil {
			t.Fatal(err)
		}
		if tarballs[i], err = os.ReadFile(target); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(tarballs[0], tarballs[1]) {
		t.Error("the same image gives two tarballs")
	}
}

func TestPushIndex(t *testing.T) {
	server := httptest.NewServer(registry.New())
	defer server.Close()
	ref, err := name.NewTag(strings.TrimPrefix(server.URL, "http://") + "/team/mcp-warden:v1")
	if err != nil {
		t.Fatal(err)
	}
	index := buildIndex(t)
	if err := PushIndex(t.Context(), ref, index); err != nil {
		t.Fatal(err)
	}
	pulled, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	want, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pulled.Digest(); err != nil || got != want {
		t.Errorf("%s is pulled, %v; want %s", got, err, want)
	}
	if err := validate.Index(pulled); err != nil {
		t.Error(err)
	}
	for _, architecture := range []string{"amd64", "arm64"} {
		img, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: architecture}))
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Architecture != architecture || cfg.Config.User != "65532:65532" || cfg.Config.Labels["org.opencontainers.image.version"] != "v1" {
			t.Errorf("for %s the image is %s with %+v", architecture, cfg.Architecture, cfg.Config)
		}
	}
}
