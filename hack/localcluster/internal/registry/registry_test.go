package registry

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// serve runs the registry in dir and returns a reference in it.
func serve(t *testing.T, dir, repository string) (name.Reference, func()) {
	t.Helper()
	handler, err := New(dir)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://")+"/"+repository, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return ref, server.Close
}

func TestContentOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	index, err := random.Index(64, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, stop := serve(t, dir, "team/index:v1")
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	stop()

	ref, stop = serve(t, dir, "team/index:v1")
	defer stop()
	want, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	desc, err := remote.Get(ref)
	if err != nil || desc.Digest != want {
		t.Fatalf("after a restart: %v, %v; want %s", desc, err, want)
	}
	got, err := desc.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := got.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range manifest.Manifests {
		checkLayers(t, got, m.Digest)
	}
}

func checkLayers(t *testing.T, index v1.ImageIndex, digest v1.Hash) {
	t.Helper()
	img, err := index.Image(digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		blob, err := l.Compressed()
		if err != nil {
			t.Fatalf("layer is gone: %v", err)
		}
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestATagCanMoveAndDigestsStay(t *testing.T) {
	dir := t.TempDir()
	var images []v1.Hash
	for range 2 {
		img, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		ref, stop := serve(t, dir, "x:latest")
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
		stop()
		digest, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, digest)
	}
	ref, stop := serve(t, dir, "x:latest")
	defer stop()
	desc, err := remote.Head(ref)
	if err != nil || desc.Digest != images[1] {
		t.Errorf("the tag is %v, %v; want the last push %s", desc, err, images[1])
	}
	if _, err := remote.Head(ref.Context().Digest(images[0].String())); err != nil {
		t.Errorf("the first push is gone: %v", err)
	}
}
