// Package transfer moves files between this machine and the object store.
package transfer

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
)

// IsRemote reports whether a name is of an object.
func IsRemote(name string) bool { return strings.HasPrefix(name, "s3://") }

// PutOne uploads one file, or standard input ("-"), to an object or into a folder.
func (a App) PutOne(ctx context.Context, c *client.Client, from, to string) error {
	if strings.HasSuffix(to, "/") || strings.Count(to, "/") == 2 {
		if from == "-" {
			return fault.New(fault.Invalid, "%q is a folder: name the object that standard input becomes", to)
		}
		to = strings.TrimSuffix(to, "/") + "/" + filepath.Base(from)
	}
	if from == "-" {
		_, err := c.PutObject(ctx, to, a.In, -1)
		return err
	}
	if info, err := os.Stat(from); err == nil && info.IsDir() {
		return fault.New(fault.Invalid, "%s is a folder: copy it with -r", from)
	}
	return a.Put(ctx, c, from, to)
}

// Put uploads one file and shows how far it is.
func (a App) Put(ctx context.Context, c *client.Client, from, to string) error {
	file, err := os.Open(from)
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", from, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", from, err)
	}
	bar := a.NewBar(filepath.Base(from), info.Size())
	defer bar.Close()
	_, err = c.PutObject(ctx, to, &barReader{file: file, bar: bar}, info.Size())
	return err
}

// barReader shows what was read; seeking back takes the bar back too.
type barReader struct {
	file *os.File
	bar  *shell.Bar
}

func (r *barReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.bar.Add(int64(n))
	return n, err
}

func (r *barReader) Seek(offset int64, whence int) (int64, error) {
	at, err := r.file.Seek(offset, whence)
	if err == nil {
		r.bar.Set(at)
	}
	return at, err
}

// PutTree uploads a file or all files of a folder.
func (a App) PutTree(ctx context.Context, c *client.Client, from, to string) error {
	files, err := filesBelow(from)
	if err != nil {
		return err
	}
	for _, file := range files {
		target := strings.TrimSuffix(to, "/") + "/" + file.name
		if file.name == "." { // from is a file
			return a.PutOne(ctx, c, from, to)
		}
		if err := a.Put(ctx, c, file.path, target); err != nil {
			return err
		}
	}
	return nil
}

// GetOne fetches one object to a file, into a folder or to standard output ("-").
func (a App) GetOne(ctx context.Context, c *client.Client, from, to string) error {
	if strings.HasSuffix(from, "/") {
		return fault.New(fault.Invalid, "%q is a folder: copy it with -r", from)
	}
	if to == "-" {
		_, err := c.GetObject(ctx, from, 0, a.Out, nil)
		return err
	}
	if info, err := os.Stat(to); strings.HasSuffix(to, "/") || err == nil && info.IsDir() {
		to = filepath.Join(to, path.Base(from))
	}
	return a.get(ctx, c, from, to)
}

// get downloads one object; the file appears when it is whole.
func (a App) get(ctx context.Context, c *client.Client, from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	temp, err := os.CreateTemp(filepath.Dir(to), ".clary-*")
	if err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	bar := a.NewBar(path.Base(from), -1)
	defer bar.Close()
	_, err = c.GetObject(ctx, from, 0, io.MultiWriter(temp, bar), func(o client.Object) { bar.Total = o.Size })
	if err != nil {
		return err
	}
	if err := temp.Chmod(0o644); err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	if err := temp.Close(); err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	if err := os.Rename(temp.Name(), to); err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	return nil
}

// GetTree fetches all objects of a folder.
func (a App) GetTree(ctx context.Context, c *client.Client, from, to string) error {
	from = strings.TrimSuffix(from, "/") + "/"
	count := 0
	err := EachObject(ctx, c, from, true, func(o client.Object, _ string) error {
		relative, found := strings.CutPrefix(o.URI, from)
		if !found || !filepath.IsLocal(filepath.FromSlash(relative)) {
			return fault.New(fault.Denied, "%q would be written outside of %s: copy it alone, under a name of your own", o.URI, to)
		}
		count++
		return a.get(ctx, c, o.URI, filepath.Join(to, filepath.FromSlash(relative)))
	})
	if err == nil && count == 0 {
		return fault.New(fault.NotFound, "there is nothing below %s: see clary ls", from)
	}
	return err
}

// EachObject goes through a listing, page by page: an object, or a prefix.
func EachObject(ctx context.Context, c *client.Client, uri string, recursive bool, do func(client.Object, string) error) error {
	for after := ""; ; {
		page, err := c.ListObjects(ctx, uri, recursive, 1000, after)
		if err != nil {
			return err
		}
		for _, prefix := range page.Prefixes {
			if err := do(client.Object{}, prefix); err != nil {
				return err
			}
		}
		for _, object := range page.Objects {
			if err := do(object, ""); err != nil {
				return err
			}
		}
		if page.Next == "" {
			return nil
		}
		after = page.Next
	}
}
