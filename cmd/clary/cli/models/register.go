package models

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/cmd/clary/cli/transfer"
	"github.com/clary-ml/clary/internal/fault"
)

func (a app) registerModelCommand() *cobra.Command {
	var r client.Registration
	command := &cobra.Command{
		Use:   "register JOB",
		Short: "Make a version of what a job has published",
		Long: "Make a version of what a job has published, with the job's code, data, parameters and metrics as its lineage. The\n" +
			"artifact is copied: the job may be deleted. The same output of the same job twice is one version.",
		Example: "  clary models register digits-7 --name digits\n  clary models register digits-7 --name digits --text 'with dropout'\n  clary models register prep-3 --name encoder --output transform",
		Args:    shell.Takes("JOB"), ValidArgsFunction: a.CompleteJobs(cluster.JobSucceeded),
	}
	registerFlags(command, &r)
	command.Flags().StringVar(&r.Output, "output-name", "", "which of the job's outputs it is (default \"model\")")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) error {
		if r.Job = args[0]; r.Model == "" {
			r.Model = r.Job
		}
		return a.registerModel(ctx, c, r)
	})
	return command
}

func registerFlags(command *cobra.Command, r *client.Registration) {
	flags := command.Flags()
	flags.StringVar(&r.Model, "name", "", "of the model that it becomes a version of")
	flags.StringVar(&r.Text, "text", "", "a note about the version")
	flags.StringVar(&r.Framework, "framework", "", "what it was made with: clary, torch, sklearn, …; found out if it can be")
	flags.StringVar(&r.Format, "format", "", "what kind of file it is: tar.gz, onnx, pickle, …; the name's ending says it otherwise")
	flags.StringVar(&r.Parent, "parent", "", "a version that it was made from")
}

func (a app) registerModel(ctx context.Context, c *client.Client, r client.Registration) error {
	bar := (*shell.Bar)(nil)
	version, existed, err := c.RegisterModel(ctx, r, func(done, total int64) {
		if bar == nil {
			bar = a.NewBar(r.Model, total)
		}
		bar.Set(done)
	})
	if bar != nil {
		bar.Close()
	}
	if err != nil {
		return err
	}
	return a.Print(versionToJSON(version, nil, nil), func(out io.Writer) error {
		verb := "is registered"
		if existed {
			verb = "was registered before"
		}
		_, err := fmt.Fprintf(out, "%s %s: %s, sha256 %s\n", version.Ref(), verb, cluster.FormatBytes(version.Artifact.Size), version.Artifact.SHA256)
		return err
	})
}

func (a app) importModelCommand() *cobra.Command {
	var r client.Registration
	var parameters, metrics []string
	command := &cobra.Command{
		Use:   "import FILE|FOLDER|s3://BUCKET/KEY",
		Short: "Make a version of a model that was made elsewhere",
		Long: "Make a version of a model that was made elsewhere: a file, a folder (packed as model.tar.gz) or an object. It is\n" +
			"stored, and read back for its SHA-256, which must be that of the file, or the one that --sha256 says.",
		Example: "  clary models import resnet.onnx --name resnet\n  clary models import ./model --name digits --framework clary\n" +
			"  clary models import s3://models/churn.pkl --name churn --framework sklearn --sha256 9f86d0…\n" +
			"  clary models import m.onnx --name digits --parameter epochs=20 --metric accuracy=0.97 --parent digits@2",
		Args: shell.Takes("FILE|FOLDER|s3://BUCKET/KEY"),
	}
	registerFlags(command, &r)
	command.Flags().StringVar(&r.SHA256, "sha256", "", "digest that it must have")
	command.Flags().StringSliceVar(&parameters, "parameter", nil, "what it was made with, as NAME=VALUE")
	command.Flags().StringSliceVar(&metrics, "metric", nil, "how good it is, as NAME=NUMBER")
	command.RunE = a.With(func(ctx context.Context, c *client.Client, args []string) (err error) {
		if r.Model == "" {
			return shell.Usage(command, "--name is missing: name the model that it becomes a version of")
		}
		var p cluster.Problems
		if cluster.CheckName(&p, "--name", r.Model); p != nil {
			return fault.New(fault.Invalid, "%w", p)
		}
		if r.Parameters, err = shell.Pairs("--parameter", parameters); err != nil {
			return err
		}
		if r.Metrics, err = numbers("--metric", metrics); err != nil {
			return err
		}
		if r.Source = args[0]; transfer.IsRemote(args[0]) {
			r.URI = args[0]
			return a.registerModel(ctx, c, r)
		}
		if err := a.uploadModel(ctx, c, &r, args[0]); err != nil {
			return err
		}
		if err = a.registerModel(ctx, c, r); fault.Is(err, fault.Invalid) || fault.Is(err, fault.Exhausted) || fault.Is(err, fault.Denied) {
			_, gone := c.DeleteObject(context.WithoutCancel(ctx), r.URI, false)
			err = errors.Join(err, gone)
		}
		return err
	})
	return command
}

func numbers(flag string, texts []string) (map[string]float64, error) {
	values, err := shell.Pairs(flag, texts)
	if err != nil || values == nil {
		return nil, err
	}
	out := map[string]float64{}
	for name, text := range values {
		if out[name], err = strconv.ParseFloat(text, 64); err != nil {
			return nil, fault.New(fault.Invalid, "%s %s: %q is not a number", flag, name, cluster.Clip(text))
		}
	}
	return out, nil
}

// uploadModel puts a file, or a folder as an archive, where a version of its own will have it.
func (a app) uploadModel(ctx context.Context, c *client.Client, r *client.Registration, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", path, err)
	}
	name := filepath.Base(path)
	if info.IsDir() {
		packed, err := packModel(ctx, path)
		if err != nil {
			return err
		}
		defer os.Remove(packed) //nolint:errcheck // it is a temporary file
		path, name = packed, "model.tar.gz"
	}
	digest := sha256.New()
	if err := transfer.HashFile(digest, path); err != nil {
		return err
	}
	sum := hex.EncodeToString(digest.Sum(nil))
	if r.SHA256 != "" && r.SHA256 != sum {
		return fault.New(fault.Invalid, "--sha256: %s has %s: it is not the file that was meant", path, sum)
	}
	r.SHA256, r.URI = sum, cluster.ModelFolder(r.Model, strings.ToLower(rand.Text()[:20]))+name
	return a.Put(ctx, c, path, r.URI)
}

// packModel packs a folder into a temporary file.
func packModel(ctx context.Context, folder string) (path string, err error) {
	file, err := os.CreateTemp("", "clary-model-*.tar.gz")
	if err != nil {
		return "", fault.New(fault.Internal, "pack %s: %w", folder, err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	if err := staging.Pack(ctx, folder, file, nil); err != nil {
		return "", fault.New(fault.Invalid, "pack %s: %w", folder, err)
	}
	return file.Name(), nil
}

func (a app) downloadModelCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "download REF [TO]",
		Short:   "Fetch a version's artifact, and check its digest",
		Long:    "Fetch a version's artifact to a file or a folder, here if it is not said; - is standard output.\n" + refHelp,
		Example: "  clary models download digits:champion\n  clary models download digits@3 models/\n  clary models download resnet@1 - | sha256sum",
		Args:    shell.Takes("REF", "[TO]"), ValidArgsFunction: a.completeModelRefs(),
		RunE: a.With(func(ctx context.Context, c *client.Client, args []string) error {
			view, err := c.ModelVersion(ctx, args[0])
			if err != nil {
				return err
			}
			to := "."
			if len(args) > 1 {
				to = args[1]
			}
			path, err := a.FetchModel(ctx, c, view.Version, to)
			if err != nil || path == "" {
				return err
			}
			return a.Print(map[string]string{"version": view.Version.Ref(), "path": path, "sha256": view.Version.Artifact.SHA256}, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%s is at %s\n", view.Version.Ref(), path)
				return err
			})
		}),
	}
}
