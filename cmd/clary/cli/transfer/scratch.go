package transfer

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/trainer/prepare"
)

// Scratch is a folder that is gone when the command ends, with a client that is made
// when something must be fetched.
type Scratch struct {
	App    App
	folder string
	Client *client.Client
	// versions are those of the registry that were fetched, by reference.
	Versions map[string]cluster.ModelVersion
}

// WithScratch runs a command's body with a scratch folder.
func (a App) WithScratch(body func(context.Context, *Scratch, []string) error) func(*cobra.Command, []string) error {
	return func(command *cobra.Command, args []string) (err error) {
		if err := a.CheckFormat(); err != nil {
			return err
		}
		folder, err := os.MkdirTemp("", "clary-")
		if err != nil {
			return fault.New(fault.Internal, "make a temporary folder: %w", err)
		}
		s := &Scratch{App: a, folder: folder}
		defer func() {
			if s.Client != nil {
				err = errors.Join(err, s.Client.Close())
			}
			err = errors.Join(err, os.RemoveAll(folder))
		}()
		return body(command.Context(), s, args)
	}
}

// Dial is a client, the same at each call.
func (s *Scratch) Dial() (*client.Client, error) {
	var err error
	if s.Client == nil {
		s.Client, err = s.App.Connect()
	}
	return s.Client, err
}

// Data is a local path for data that may lie in the object store.
func (s *Scratch) Data(ctx context.Context, name string) (string, error) {
	if !IsRemote(name) {
		if _, err := os.Stat(name); err != nil {
			return "", fault.New(fault.Invalid, "read the data: %w", err)
		}
		return name, nil
	}
	c, err := s.Dial()
	if err != nil {
		return "", err
	}
	target := filepath.Join(s.folder, "data", "of", path.Base(name))
	if strings.HasSuffix(name, "/") {
		return target, s.App.GetTree(ctx, c, name, target)
	}
	return target, s.App.get(ctx, c, name, target)
}

// Labelled is a local path for labelled rows. The transform that prepared those of the object store
// lies beside them here too, where it is looked for: see inference.Evaluate.
func (s *Scratch) Labelled(ctx context.Context, name string) (string, error) {
	local, err := s.Data(ctx, name)
	if err != nil || !IsRemote(name) {
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
		_, err := s.Client.StatObject(ctx, from.String())
		if err == nil {
			err = s.App.get(ctx, s.Client, from.String(), filepath.Join(folder, prepare.TransformFolder, prepare.TransformFile))
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return "", err
		}
	}
	return local, nil
}

// Model is a local folder with the model's files.
func (s *Scratch) Model(ctx context.Context, name string) (string, error) {
	if cluster.IsModelRef(name) {
		return s.registered(ctx, name)
	}
	if info, err := os.Stat(name); err == nil {
		if info.IsDir() {
			return name, nil
		}
		return s.Unpack(name, maxUnpacked)
	}
	uri := name
	if !IsRemote(name) {
		var problems cluster.Problems
		if cluster.CheckName(&problems, "", name); problems != nil {
			return "", fault.New(fault.NotFound, "there is no folder or file %q, and it is no job's name either", name)
		}
		var err error
		if uri, err = s.ModelOf(ctx, name); err != nil {
			return "", err
		}
	}
	c, err := s.Dial()
	if err != nil {
		return "", err
	}
	folder, err := os.MkdirTemp(s.folder, "packed-")
	if err != nil {
		return "", fault.New(fault.Internal, "make a temporary folder: %w", err)
	}
	packed := filepath.Join(folder, "model.tar.gz")
	if err := s.App.get(ctx, c, uri, packed); err != nil {
		return "", err
	}
	return s.Unpack(packed, maxUnpacked)
}

// registered is a local folder with the files of a version in the registry, whose digest is right.
func (s *Scratch) registered(ctx context.Context, ref string) (string, error) {
	c, err := s.Dial()
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
	packed, err := s.App.FetchModel(ctx, c, view.Version, folder)
	if err != nil {
		return "", err
	}
	if s.Versions == nil {
		s.Versions = map[string]cluster.ModelVersion{}
	}
	s.Versions[ref] = view.Version
	return s.Unpack(packed, maxUnpacked)
}

// ModelOf is the address of the model that a job published.
func (s *Scratch) ModelOf(ctx context.Context, job string) (string, error) {
	c, err := s.Dial()
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

// Unpack extracts a model archive; nothing in it can be written outside of the folder.
func (s *Scratch) Unpack(archive string, most int64) (string, error) {
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

// FetchModel brings a version's artifact to a file, or into a folder, and checks it; path is "" for
// standard output.
func (a App) FetchModel(ctx context.Context, c *client.Client, v cluster.ModelVersion, to string) (path string, err error) {
	wrong := func(sum string) error {
		return fault.New(fault.Internal, "the artifact of %s has SHA-256 %s, and %s was registered: somebody has replaced %s", v.Ref(), sum, v.Artifact.SHA256, v.Artifact.URI)
	}
	digest := sha256.New()
	if to == "-" {
		if _, err := c.GetObject(ctx, v.Artifact.URI, 0, io.MultiWriter(a.Out, digest), nil); err != nil {
			return "", err
		}
		if sum := hex.EncodeToString(digest.Sum(nil)); sum != v.Artifact.SHA256 {
			return "", wrong(sum)
		}
		return "", nil
	}
	if info, err := os.Stat(to); strings.HasSuffix(to, "/") || err == nil && info.IsDir() {
		to = filepath.Join(to, v.Artifact.Name)
	}
	if err := a.get(ctx, c, v.Artifact.URI, to); err != nil {
		return "", err
	}
	if err := HashFile(digest, to); err != nil {
		return "", err
	}
	if sum := hex.EncodeToString(digest.Sum(nil)); sum != v.Artifact.SHA256 {
		return "", errors.Join(wrong(sum), os.Remove(to))
	}
	return to, nil
}
