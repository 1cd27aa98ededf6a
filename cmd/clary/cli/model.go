package cli

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/trainer/inference"
	"github.com/clary-ml/clary/trainer/network"
	"github.com/clary-ml/clary/trainer/prepare"
)

const modelHelp = "MODEL is a folder, a model.tar.gz, an s3:// address of one, a version in the registry as model://NAME@VERSION or\nmodel://NAME:ALIAS, or the name of a job that made one."

func (a *App) predictCommand() *cobra.Command {
	var input string
	command := &cobra.Command{
		Use:     "predict MODEL",
		Short:   "Predict for CSV rows without labels, on this machine",
		Long:    "Predict for CSV rows of features, without a label, from standard input or a file, on this machine.\n" + modelHelp,
		Example: "  clary predict digits < rows.csv\n  clary predict ./model --rows rows.csv -o json",
		Args:    takes("MODEL"), ValidArgsFunction: a.completeModels(),
	}
	command.Flags().StringVar(&input, "rows", "-", "the rows: a file or s3:// address; - is standard input")
	command.RunE = a.withScratch(func(ctx context.Context, s *scratch, args []string) error {
		model, err := s.model(ctx, args[0])
		if err != nil {
			return err
		}
		rows := a.In
		if input != "-" {
			local, err := s.data(ctx, input)
			if err != nil {
				return err
			}
			file, err := os.Open(local)
			if err != nil {
				return fault.New(fault.Invalid, "read the rows: %w", err)
			}
			defer file.Close()
			rows = file
		}
		return a.predict(ctx, model, rows)
	})
	return command
}

// predict writes a line for each row: the label, or with -o json an object.
func (a *App) predict(ctx context.Context, model string, rows io.Reader) error {
	out := bufio.NewWriter(a.Out)
	err := inference.Predict(ctx, model, rows, blas(), func(p inference.Prediction) error {
		if a.forPeople() {
			_, err := fmt.Fprintln(out, p.Label)
			return err
		}
		text, err := json.Marshal(p)
		if err == nil && a.format == "yaml" {
			text = append([]byte("- "), text...) // a list whose items are JSON is YAML
		}
		if err == nil {
			_, err = out.Write(append(text, '\n'))
		}
		return err
	})
	return errors.Join(err, out.Flush())
}

func blas() network.BLAS {
	found, _ := network.FindBLAS(runtime.GOMAXPROCS(0))
	return found
}

func (a *App) completeModels() cobra.CompletionFunc {
	jobs := a.completeJobs(cluster.JobSucceeded)
	return func(command *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		names, _ := jobs(command, args, typed)
		return names, cobra.ShellCompDirectiveDefault // files too
	}
}

// scratch is a folder that is gone when the command ends, with a client that is made
// when something must be fetched.
type scratch struct {
	app    *App
	folder string
	client *client.Client
	// versions are those of the registry that were fetched, by reference.
	versions map[string]cluster.ModelVersion
}

func (a *App) withScratch(body func(context.Context, *scratch, []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) (err error) {
		if err := a.checkFormat(); err != nil {
			return err
		}
		folder, err := os.MkdirTemp("", "clary-")
		if err != nil {
			return fault.New(fault.Internal, "make a temporary folder: %w", err)
		}
		s := &scratch{app: a, folder: folder}
		defer func() {
			if s.client != nil {
				err = errors.Join(err, s.client.Close())
			}
			err = errors.Join(err, os.RemoveAll(folder))
		}()
		return body(command.Context(), s, args)
	}
}

func (s *scratch) dial() (*client.Client, error) {
	var err error
	if s.client == nil {
		s.client, err = s.app.connect()
	}
	return s.client, err
}

// data is a local path for data that may lie in the object store.
func (s *scratch) data(ctx context.Context, name string) (string, error) {
	if !isRemote(name) {
		if _, err := os.Stat(name); err != nil {
			return "", fault.New(fault.Invalid, "read the data: %w", err)
		}
		return name, nil
	}
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	target := filepath.Join(s.folder, "data", "of", path.Base(name))
	if strings.HasSuffix(name, "/") {
		return target, s.app.getTree(ctx, c, name, target)
	}
	return target, s.app.get(ctx, c, name, target)
}

// labelled is a local path for labelled rows. The transform that prepared those of the object store
// lies beside them here too, where it is looked for: see inference.Evaluate.
func (s *scratch) labelled(ctx context.Context, name string) (string, error) {
	local, err := s.data(ctx, name)
	if err != nil || !isRemote(name) {
		return local, err
	}
	at, err := object.ParseURI(strings.TrimRight(name, "/"))
	if err != nil {
		return "", err
	}
	key, folder := at.Key, local
	for range 2 { // beside a part that was prepared, and beside the folder of a file of it
		if key == "" {
			break
		}
		if key, folder = path.Dir(key), filepath.Dir(folder); key == "." {
			key = ""
		}
		from := object.URI{Bucket: at.Bucket, Key: path.Join(key, prepare.TransformFolder, prepare.TransformFile)}
		_, err := s.client.StatObject(ctx, from.String())
		if err == nil {
			err = s.app.get(ctx, s.client, from.String(), filepath.Join(folder, prepare.TransformFolder, prepare.TransformFile))
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return "", err
		}
	}
	return local, nil
}

// model is a local folder with the model's files.
func (s *scratch) model(ctx context.Context, name string) (string, error) {
	if cluster.IsModelRef(name) {
		return s.registered(ctx, name)
	}
	if info, err := os.Stat(name); err == nil {
		if info.IsDir() {
			return name, nil
		}
		return s.unpack(name, maxUnpacked)
	}
	uri := name
	if !isRemote(name) {
		var problems cluster.Problems
		if cluster.CheckName(&problems, "", name); problems != nil {
			return "", fault.New(fault.NotFound, "there is no folder or file %q, and it is no job's name either", name)
		}
		var err error
		if uri, err = s.modelOf(ctx, name); err != nil {
			return "", err
		}
	}
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp(s.folder, "packed-")
	if err != nil {
		return "", fault.New(fault.Internal, "make a temporary folder: %w", err)
	}
	packed := filepath.Join(folder, "model.tar.gz")
	if err := s.app.get(ctx, c, uri, packed); err != nil {
		return "", err
	}
	return s.unpack(packed, maxUnpacked)
}

// registered is a local folder with the files of a version in the registry, whose digest is right.
func (s *scratch) registered(ctx context.Context, ref string) (string, error) {
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	view, err := c.ModelVersion(ctx, ref)
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp(s.folder, "packed-")
	if err != nil {
		return "", fault.New(fault.Internal, "make a temporary folder: %w", err)
	}
	packed, err := s.app.fetchModel(ctx, c, view.Version, folder)
	if err != nil {
		return "", err
	}
	if s.versions == nil {
		s.versions = map[string]cluster.ModelVersion{}
	}
	s.versions[ref] = view.Version
	return s.unpack(packed, maxUnpacked)
}

// modelOf is the address of the model that a job published.
func (s *scratch) modelOf(ctx context.Context, job string) (string, error) {
	c, err := s.dial()
	if err != nil {
		return "", err
	}
	view, err := c.Job(ctx, job)
	if err != nil {
		return "", err
	}
	if view.Publication != nil {
		for _, output := range view.Publication.Outputs {
			if output.Name == "model" {
				return output.URI, nil
			}
		}
	}
	return "", fault.New(fault.NotFound, "job %s is %s and has published no model: see clary job %s", job, view.Job.State, job)
}

// maxUnpacked bounds what a model archive may become on this disk.
const maxUnpacked = 64 << 30

// unpack extracts a model archive; nothing in it can be written outside of the folder.
func (s *scratch) unpack(archive string, most int64) (string, error) {
	file, err := os.Open(archive)
	if err != nil {
		return "", fault.New(fault.Invalid, "read the model: %w", err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(bufio.NewReader(file))
	if err != nil {
		return "", fault.New(fault.Invalid, "%s is not a model.tar.gz: %w", archive, err)
	}
	target, err := os.MkdirTemp(s.folder, "model-")
	if err != nil {
		return "", fault.New(fault.Internal, "unpack the model: %w", err)
	}
	root, err := os.OpenRoot(target)
	if err != nil {
		return "", fault.New(fault.Internal, "unpack the model: %w", err)
	}
	defer root.Close()
	entries, left := tar.NewReader(unzipped), most
	for {
		entry, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return target, nil
		}
		if err != nil {
			return "", fault.New(fault.Invalid, "%s is not a model.tar.gz: %w", archive, err)
		}
		if left -= entry.Size; left < 0 {
			return "", fault.New(fault.Exhausted, "%s unpacks to more than %s", archive, cluster.FormatBytes(most))
		}
		if err := unpackEntry(root, entry, entries); err != nil {
			return "", fault.New(fault.Invalid, "unpack %q: %w", entry.Name, err)
		}
	}
}

func unpackEntry(root *os.Root, entry *tar.Header, from io.Reader) error {
	name := filepath.Clean(filepath.FromSlash(entry.Name))
	switch {
	case name == ".":
		return nil
	case entry.Typeflag == tar.TypeDir:
		return root.MkdirAll(name, 0o700)
	case entry.Typeflag != tar.TypeReg:
		return errors.New("it is neither a file nor a folder")
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, from)
	return errors.Join(err, file.Close())
}
