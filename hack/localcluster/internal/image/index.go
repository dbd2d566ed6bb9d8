package image

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// BuildIndex makes one image for several architectures. Like Build, it gives the same digest for the same input.
func BuildIndex(specs []Spec, annotations map[string]string) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, spec := range specs {
		img, err := Build(spec)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", spec.Architecture, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        img,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: spec.Architecture}},
		})
	}
	return mutate.Annotations(index, annotations).(v1.ImageIndex), nil
}

// PushIndex puts an image into the registry that its reference names: in plain HTTP on loopback, in HTTPS elsewhere. What is
// needed to log in comes from where docker login leaves it.
func PushIndex(ctx context.Context, ref name.Tag, index v1.ImageIndex) error {
	err := remote.WriteIndex(ref, index, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return fmt.Errorf("push %s: %w", ref, err)
	}
	return nil
}

// WriteTarball writes an image as the tarball of an OCI layout, the same bytes for the same image.
func WriteTarball(target string, ref name.Tag, index v1.ImageIndex) error {
	folder, err := os.MkdirTemp("", "oci-layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	// The two names under which tools look for an image in a layout.
	noted := map[string]string{"org.opencontainers.image.ref.name": ref.TagStr(), "io.containerd.image.name": ref.Name()}
	if err := path.AppendIndex(index, layout.WithAnnotations(noted)); err != nil {
		return err
	}
	out, err := os.Create(target)
	if err != nil {
		return err
	}
	if err := tarFolder(out, folder); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}

// tarFolder writes a folder of files in the order of their names, with nothing of whoever made them.
func tarFolder(out io.Writer, folder string) error {
	w := tar.NewWriter(out)
	err := filepath.WalkDir(folder, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || file == folder {
			return err
		}
		relative, err := filepath.Rel(folder, file)
		if err != nil {
			return err
		}
		header := &tar.Header{Typeflag: tar.TypeDir, Name: filepath.ToSlash(relative) + "/", Mode: 0o755, ModTime: epoch, Format: tar.FormatPAX}
		if entry.IsDir() {
			return w.WriteHeader(header)
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		header.Typeflag, header.Name, header.Mode, header.Size = tar.TypeReg, filepath.ToSlash(relative), 0o644, int64(len(content))
		if err := w.WriteHeader(header); err != nil {
			return err
		}
		_, err = w.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	return w.Close()
}
