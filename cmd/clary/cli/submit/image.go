package submit

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/workload/training"
)

// ImageFlags name the container that a program or script runs in.
type ImageFlags struct {
	Image      string
	entrypoint []string
	network    string
	readOnly   bool
}

// Register adds the flags to a command.
func (f *ImageFlags) Register(command *cobra.Command) {
	flags := command.Flags()
	flags.StringVar(&f.Image, "image", "", "container image to run in: a registry's, or a file of docker save or an OCI archive, here or as s3://...")
	flags.StringVar(&f.network, "container-network", "", "bridge for an address of its own behind the node's (default: the node's network)")
	flags.StringArrayVar(&f.entrypoint, "entrypoint", nil, "program to start in the container instead of the image's own; once for each word")
	flags.BoolVar(&f.readOnly, "read-only-root", false, "the container writes to its folders and /tmp only")
}

// Apply writes the flags over a spec.
func (f *ImageFlags) Apply(ctx context.Context, a App, c *client.Client, command *cobra.Command, spec *training.Spec, dryRun bool) error {
	if f.Image == "" {
		for _, flag := range []string{"entrypoint", "container-network", "read-only-root"} {
			if command.Flags().Changed(flag) {
				return shell.Usage(command, "--%s is for a container: name one with --image", flag)
			}
		}
		return nil
	}
	spec.Entrypoint, spec.ReadOnlyRoot = f.entrypoint, f.readOnly
	spec.ContainerNetwork = cluster.Network(f.network)
	var err error
	spec.Image, err = a.ImageAt(ctx, c, f.Image, dryRun)
	return err
}

// ImageAt is where nodes find an image. One that is a file here is uploaded, unless it is a dry run.
func (a App) ImageAt(ctx context.Context, c *client.Client, image string, dryRun bool) (string, error) {
	info, err := os.Stat(image)
	switch {
	case strings.Contains(image, "://") || err != nil || !info.Mode().IsRegular():
		return image, nil
	case dryRun:
		return transfer.UploadURI(image)
	}
	return a.Upload(ctx, c, image)
}
