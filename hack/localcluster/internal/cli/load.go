package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/cluster"
	"github.com/mcpwarden/mcp-warden/hack/localcluster/internal/image"
)

func loadCommand() *cobra.Command {
	var (
		files      []string
		entrypoint []string
		pushTo     string
		spec       image.Spec
	)
	cmd := &cobra.Command{
		Use:   "load IMAGE",
		Short: "Put an image into the cluster's registry and print its reference",
		Long: `Put an image into the cluster's registry and print the reference by digest under which
the cluster pulls it. Only that goes to stdout.

IMAGE is an image tarball or an OCI layout folder; or, with --file, the NAME:TAG of an
image that is made of these files. The same files always give the same digest.`,
		Example: `  localcluster load image.tar
  localcluster load everything-server:dev --file bin/server=/server --entrypoint /server,-http,:8080
  localcluster load image.tar --push-to registry.example/team`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec.Entrypoint = entrypoint
			what, err := imageToLoad(cmd, args[0], files, spec)
			if err != nil {
				return err
			}
			if pushTo != "" {
				digest, err := image.Push(cmd.Context(), pushTo, what)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s/%s@%s\n", pushTo, what.Repository, digest)
				return nil
			}
			c, cfg, err := openExisting(cmd)
			if err != nil {
				return err
			}
			if !cfg.HasNode() {
				return fmt.Errorf("cluster %q runs no pods: it is a control plane only", c.Name)
			}
			port := cfg.Ports[cluster.PortRegistry]
			digest, err := image.Push(cmd.Context(), fmt.Sprintf("127.0.0.1:%d", port), what)
			if err != nil {
				return fmt.Errorf("%w; is the cluster up? see `status --name %s`", err, c.Name)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s/%s@%s\n", cluster.RegistryHost, what.Repository, digest)
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&files, "file", nil, "HOSTPATH=/path/in/image[:mode], may be repeated")
	flags.StringSliceVar(&entrypoint, "entrypoint", nil, "program and arguments, separated by commas")
	flags.StringVar(&spec.User, "user", "65532:65532", "user and group")
	flags.StringArrayVar(&spec.Env, "env", nil, "KEY=VALUE, may be repeated")
	flags.StringVar(&pushTo, "push-to", "", "push to this registry, HOST or HOST/PREFIX, and not into the cluster")
	flags.StringVar(&spec.Workdir, "workdir", "/", "working directory")
	return cmd
}

func imageToLoad(cmd *cobra.Command, arg string, files []string, spec image.Spec) (image.Named, error) {
	if len(files) == 0 {
		for _, f := range []string{"entrypoint", "user", "env", "workdir"} {
			if cmd.Flags().Changed(f) {
				return image.Named{}, fmt.Errorf("--%s needs --file: an image that exists is loaded as it is", f)
			}
		}
		return image.Open(arg)
	}
	for _, e := range spec.Env {
		if !strings.Contains(e, "=") {
			return image.Named{}, fmt.Errorf("--env %q: write KEY=VALUE", e)
		}
	}
	repository, tag, err := image.SplitReference(arg)
	if err != nil {
		return image.Named{}, err
	}
	for _, f := range files {
		file, err := image.ParseFile(f)
		if err != nil {
			return image.Named{}, err
		}
		spec.Files = append(spec.Files, file)
	}
	if len(spec.Entrypoint) == 0 {
		return image.Named{}, errors.New("--entrypoint is missing: say what the image runs, for example --entrypoint /server")
	}
	img, err := image.Build(spec)
	if err != nil {
		return image.Named{}, err
	}
	return image.Named{Image: img, Repository: repository, Tag: tag}, nil
}
