// Command operatorimage makes the operator's image out of binaries that are built already, for every architecture, with no
// container engine, and prints its reference by digest. hack/image.sh builds the binaries and calls it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/image"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "operatorimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	binaries := flag.String("binaries", "", "Folder with a folder per architecture, with the binaries in it.")
	notices := flag.String("notices", "", "The THIRD_PARTY_NOTICES of the binaries.")
	version := flag.String("version", "dev", "Version to label the image with.")
	tag := flag.String("tag", "", "HOST/NAME:TAG of the image.")
	tarball := flag.String("tarball", "", "Write the image to this file, as an OCI layout.")
	push := flag.Bool("push", false, "Push the image.")
	flag.Parse()
	if *tarball == "" && !*push {
		return errors.New("say --push or --tarball")
	}
	ref, err := name.NewTag(*tag, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("image %q: %w: write HOST/NAME:TAG", *tag, err)
	}
	index, err := build(*binaries, *notices, *version)
	if err != nil {
		return err
	}
	if *tarball != "" {
		if err := image.WriteTarball(*tarball, ref, index); err != nil {
			return err
		}
	}
	if *push {
		if err := image.PushIndex(ctx, ref, index); err != nil {
			return err
		}
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Printf("%s@%s\n", strings.TrimSuffix(*tag, ":"+ref.TagStr()), digest)
	return nil
}

func build(binaries, notices, version string) (v1.ImageIndex, error) {
	labels := map[string]string{
		"org.opencontainers.image.title":    "MCP Warden",
		"org.opencontainers.image.version":  version,
		"org.opencontainers.image.source":   "https://github.com/mcpwarden/mcp-warden",
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	var specs []image.Spec
	for _, architecture := range []string{"amd64", "arm64"} {
		files := []image.File{{Source: notices, Target: "/THIRD_PARTY_NOTICES", Mode: 0o444}}
		for _, component := range []string{"manager", "egress-proxy", "probe", "gateway"} { // as in the Dockerfile
			files = append(files, image.File{Source: filepath.Join(binaries, architecture, component), Target: "/" + component, Mode: 0o555})
		}
		specs = append(specs, image.Spec{
			Files: files, Entrypoint: []string{"/manager"}, User: "65532:65532", Workdir: "/",
			Architecture: architecture, Labels: labels, Compress: true,
		})
	}
	return image.BuildIndex(specs, labels)
}
