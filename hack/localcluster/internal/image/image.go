// Package image makes images out of files and pushes images to the registry.
package image

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Spec is an image made of files.
type Spec struct {
	Files      []File
	Entrypoint []string
	User       string
	Env        []string
	Workdir    string
	// Architecture is that of this machine if left out.
	Architecture string
	Labels       map[string]string
	// Compress is for an image that leaves the machine.
	Compress bool
}

// File is one file of an image.
type File struct {
	Source string
	Target string
	Mode   fs.FileMode
}

// ParseFile reads HOSTPATH=/path/in/image[:mode]. Without a mode the file keeps
// its execute permission and nothing else of its mode.
func ParseFile(s string) (File, error) {
	source, target, ok := strings.Cut(s, "=")
	if !ok || source == "" {
		return File{}, fmt.Errorf("--file %q: write HOSTPATH=/path/in/image[:mode]", s)
	}
	f := File{Source: source}
	target, mode, hasMode := strings.Cut(target, ":")
	if !path.IsAbs(target) || path.Clean(target) == "/" {
		return File{}, fmt.Errorf("--file %q: the path in the image must be absolute and name a file", s)
	}
	f.Target = path.Clean(target)
	if hasMode {
		bits, err := strconv.ParseUint(mode, 8, 12)
		if err != nil {
			return File{}, fmt.Errorf("--file %q: the mode must be octal, like 0755", s)
		}
		f.Mode = fs.FileMode(bits)
		return f, nil
	}
	info, err := os.Stat(source)
	if err != nil {
		return File{}, fmt.Errorf("--file %q: %w", s, err)
	}
	f.Mode = 0o644
	if info.Mode()&0o111 != 0 {
		f.Mode = 0o755
	}
	return f, nil
}

// Build makes the image. The same input gives the same digest: nothing in it
// depends on time, order or owner.
func Build(spec Spec) (v1.Image, error) {
	content, err := layerContent(spec.Files)
	if err != nil {
		return nil, err
	}
	// A layer that is not compressed costs nothing to make.
	layer := static.NewLayer(content, types.OCIUncompressedLayer)
	if spec.Compress {
		layer, err = tarball.LayerFromOpener(
			func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
			tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestCompression))
		if err != nil {
			return nil, err
		}
	}
	base := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	img, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", cmp.Or(spec.Architecture, runtime.GOARCH)
	cfg.Config.Entrypoint = spec.Entrypoint
	cfg.Config.User = spec.User
	cfg.Config.Env = slices.Concat([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, spec.Env)
	cfg.Config.WorkingDir = spec.Workdir
	cfg.Config.Labels = spec.Labels
	return mutate.ConfigFile(img, cfg)
}

// epoch is the time of everything in an image.
var epoch = time.Unix(0, 0)

func layerContent(files []File) ([]byte, error) {
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Target, b.Target) })
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{"/": true}
	mkdir := func(dir string, mode int64) error {
		made[dir] = true
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(dir, "/") + "/", Mode: mode, ModTime: epoch, Format: tar.FormatPAX})
	}
	if err := mkdir("/tmp", 0o1777); err != nil {
		return nil, err
	}
	for i, f := range files {
		if i > 0 && files[i-1].Target == f.Target {
			return nil, fmt.Errorf("two files for %s", f.Target)
		}
		for _, dir := range parents(f.Target) {
			if made[dir] {
				continue
			}
			if err := mkdir(dir, 0o755); err != nil {
				return nil, err
			}
		}
		if err := addFile(w, f); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// parents lists the folders above a file, the outermost first.
func parents(file string) []string {
	var dirs []string
	for dir := path.Dir(file); dir != "/"; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}

func addFile(w *tar.Writer, f File) error {
	content, err := os.ReadFile(f.Source)
	if err != nil {
		return err
	}
	err = w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     strings.TrimPrefix(f.Target, "/"),
		Mode:     int64(f.Mode),
		Size:     int64(len(content)),
		ModTime:  epoch,
		Format:   tar.FormatPAX,
	})
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}

// Named is something to push and the repository and tag to push it to.
type Named struct {
	Image      remote.Taggable
	Repository string
	Tag        string
}

// Open reads an image tarball or an OCI layout. The tarball names its image; a
// layout takes the name that its index notes, or that of its folder.
func Open(source string) (Named, error) {
	info, err := os.Stat(source)
	if err != nil {
		return Named{}, err
	}
	if info.IsDir() {
		return openLayout(source)
	}
	return openTarball(source)
}

func openTarball(source string) (Named, error) {
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(source) })
	if err != nil {
		return Named{}, fmt.Errorf("%s is no image tarball: %w", source, err)
	}
	if len(manifest) != 1 {
		return Named{}, fmt.Errorf("%s holds %d images: load them one by one", source, len(manifest))
	}
	img, err := tarball.ImageFromPath(source, nil)
	if err != nil {
		return Named{}, fmt.Errorf("read %s: %w", source, err)
	}
	ref := baseName(source)
	if tags := manifest[0].RepoTags; len(tags) > 0 {
		ref = tags[0]
	}
	return named(img, ref)
}

func openLayout(source string) (Named, error) {
	index, err := layout.ImageIndexFromPath(source)
	if err != nil {
		return Named{}, fmt.Errorf("%s is no OCI layout: %w", source, err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return Named{}, fmt.Errorf("read %s: %w", source, err)
	}
	if len(manifest.Manifests) != 1 {
		return Named{}, fmt.Errorf("%s holds %d images: load a layout with one", source, len(manifest.Manifests))
	}
	desc := manifest.Manifests[0]
	ref := baseName(source)
	if noted := desc.Annotations["org.opencontainers.image.ref.name"]; strings.Contains(noted, ":") {
		ref = noted
	}
	if desc.MediaType.IsIndex() {
		child, err := index.ImageIndex(desc.Digest)
		if err != nil {
			return Named{}, err
		}
		return named(child, ref)
	}
	img, err := index.Image(desc.Digest)
	if err != nil {
		return Named{}, err
	}
	return named(img, ref)
}

func baseName(source string) string {
	return strings.ToLower(strings.TrimSuffix(path.Base(path.Clean(source)), ".tar"))
}

func named(img remote.Taggable, ref string) (Named, error) {
	repository, tag, err := SplitReference(ref)
	return Named{Image: img, Repository: repository, Tag: tag}, err
}

// SplitReference takes the registry off a reference and splits the rest.
func SplitReference(ref string) (repository, tag string, err error) {
	parsed, err := name.NewTag(ref, name.WithDefaultRegistry(""))
	if err != nil {
		return "", "", fmt.Errorf("image name %q: %w", ref, err)
	}
	return parsed.Context().RepositoryStr(), parsed.TagStr(), nil
}

// Push puts the image into the registry at address and returns its digest. What
// is there already is not sent again.
func Push(ctx context.Context, address string, n Named) (v1.Hash, error) {
	ref, err := name.NewTag(fmt.Sprintf("%s/%s:%s", address, n.Repository, n.Tag)) // plain HTTP on loopback only
	if err != nil {
		return v1.Hash{}, err
	}
	pusher, err := remote.NewPusher(remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return v1.Hash{}, err
	}
	if err := pusher.Push(ctx, ref, n.Image); err != nil {
		return v1.Hash{}, fmt.Errorf("push %s: %w", ref, err)
	}
	return partial.Digest(n.Image)
}
