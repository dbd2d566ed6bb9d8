package image

import (
	"archive/tar"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func sourceFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func build(t *testing.T, spec Spec) v1.Image {
	t.Helper()
	img, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func digest(t *testing.T, img v1.Image) string {
	t.Helper()
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestBuildIsReproducible(t *testing.T) {
	spec := func() Spec {
		// Other files with other times, in another order, with the same content.
		files := []File{
			{Source: sourceFile(t, "a", 0o600), Target: "/opt/bin/a", Mode: 0o755},
			{Source: sourceFile(t, "b", 0o644), Target: "/b", Mode: 0o644},
		}
		return Spec{Files: files, Entrypoint: []string{"/opt/bin/a"}, User: "65532:65532"}
	}
	first, second := spec(), spec()
	slices.Reverse(second.Files)
	if a, b := digest(t, build(t, first)), digest(t, build(t, second)); a != b {
		t.Errorf("same content gives %s and %s", a, b)
	}
	second.User = "0:0"
	if a, b := digest(t, build(t, first)), digest(t, build(t, second)); a == b {
		t.Error("another user gives the same digest")
	}
}

func TestBuildLayer(t *testing.T) {
	img := build(t, Spec{Files: []File{{Source: sourceFile(t, "x", 0o644), Target: "/opt/bin/x", Mode: 0o755}}})
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v; want one", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h.Mode
	}
	want := map[string]int64{"tmp/": 0o1777, "opt/": 0o755, "opt/bin/": 0o755, "opt/bin/x": 0o755}
	for name, mode := range want {
		if got[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, got[name], mode)
		}
	}
	if len(got) != len(want) {
		t.Errorf("layer holds %v, want %v", got, want)
	}
}

func TestBuildRefusesTwoFilesInOnePlace(t *testing.T) {
	file := File{Source: sourceFile(t, "x", 0o644), Target: "/x"}
	if _, err := Build(Spec{Files: []File{file, file}}); err == nil {
		t.Error("Build succeeds")
	}
}

func TestParseFile(t *testing.T) {
	plain, program := sourceFile(t, "x", 0o640), sourceFile(t, "x", 0o700)
	for in, want := range map[string]File{
		plain + "=/etc/x":          {Source: plain, Target: "/etc/x", Mode: 0o644},
		program + "=/bin/x":        {Source: program, Target: "/bin/x", Mode: 0o755},
		plain + "=/bin/../x:0500":  {Source: plain, Target: "/x", Mode: 0o500},
		"missing=/given/mode:0644": {Source: "missing", Target: "/given/mode", Mode: 0o644},
	} {
		got, err := ParseFile(in)
		if err != nil || got != want {
			t.Errorf("ParseFile(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "=/x", plain + "=x", plain + "=/", plain + "=/x:rwx", "missing=/x"} {
		if got, err := ParseFile(in); err == nil {
			t.Errorf("ParseFile(%q) = %+v; want an error", in, got)
		}
	}
}

func TestSplitReference(t *testing.T) {
	for in, want := range map[string][2]string{
		"server":                         {"server", "latest"},
		"server:dev":                     {"server", "dev"},
		"registry.example.test/a/b:v1":   {"a/b", "v1"},
		"registry.localcluster:5000/a:1": {"a", "1"},
	} {
		repository, tag, err := SplitReference(in)
		if err != nil || repository != want[0] || tag != want[1] {
			t.Errorf("SplitReference(%q) = %q, %q, %v; want %q", in, repository, tag, err, want)
		}
	}
	if _, _, err := SplitReference("UPPER"); err == nil {
		t.Error("SplitReference(UPPER) succeeds")
	}
}

func TestOpenAndPush(t *testing.T) {
	img := build(t, Spec{Files: []File{{Source: sourceFile(t, "x", 0o755), Target: "/x", Mode: 0o755}}})
	dir := t.TempDir()
	archive := filepath.Join(dir, "some.tar")
	tag, err := name.NewTag("registry.example.test/team/x:v2")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(archive, tag, img); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "my-layout")
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New())
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	for source, want := range map[string]string{archive: "team/x:v2", folder: "my-layout:latest"} {
		opened, err := Open(source)
		if err != nil {
			t.Errorf("Open(%s): %v", source, err)
			continue
		}
		pushed, err := Push(t.Context(), address, opened)
		if err != nil {
			t.Error(err)
			continue
		}
		ref, err := name.ParseReference(address+"/"+want, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		desc, err := remote.Head(ref)
		if err != nil || desc.Digest != pushed {
			t.Errorf("%s is %v, %v; want %s", want, desc, err, pushed)
		}
	}
	if _, err := Open(sourceFile(t, "no image", 0o644)); err == nil {
		t.Error("Open of some file succeeds")
	}
}
