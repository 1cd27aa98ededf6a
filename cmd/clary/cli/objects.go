package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

func isRemote(name string) bool { return strings.HasPrefix(name, "s3://") }

func (a *App) cpCommand() *cobra.Command {
	var recursive bool
	command := &cobra.Command{
		Use:   "cp FROM TO",
		Short: "Copy a file into the object store or a running task, or out of them",
		Long: "Copy a file into the object store or out of it, - being standard input or output; or a file or folder of a running\n" +
			"task, as JOB:PATH or JOB/worker-1:PATH, which is put on record.",
		Example: `  clary cp train.csv.gz s3://data/digits/
  clary cp -r ./images s3://data/images/
  clary cp s3://data/digits/train.csv.gz .
  clary cp s3://data/notes.txt -
  clary cp digits:/opt/ml/checkpoints .
  clary cp fix.py digits/worker-1:/tmp`,
		Args: takes("FROM", "TO"),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			from, to := args[0], args[1]
			if job, task, path, ok := taskFile(from); ok {
				return a.getFromTask(ctx, c, job, task, path, to)
			}
			if job, task, path, ok := taskFile(to); ok {
				return a.putIntoTask(ctx, c, from, job, task, path)
			}
			switch {
			case isRemote(from) == isRemote(to):
				return fault.New(fault.Invalid, "one of %q and %q must be s3://bucket/key and the other a file of this machine", from, to)
			case isRemote(to) && recursive:
				return a.putTree(ctx, c, from, to)
			case isRemote(to):
				return a.putOne(ctx, c, from, to)
			case recursive:
				return a.getTree(ctx, c, from, to)
			}
			return a.getOne(ctx, c, from, to)
		}),
	}
	command.Flags().BoolVarP(&recursive, "recursive", "r", false, "copy a folder, or all below a prefix")
	return command
}

func (a *App) putOne(ctx context.Context, c *client.Client, from, to string) error {
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
	return a.put(ctx, c, from, to)
}

// put uploads one file and shows how far it is.
func (a *App) put(ctx context.Context, c *client.Client, from, to string) error {
	file, err := os.Open(from)
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", from, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fault.New(fault.Invalid, "read %s: %w", from, err)
	}
	bar := a.newBar(filepath.Base(from), info.Size())
	defer bar.close()
	_, err = c.PutObject(ctx, to, &barReader{file: file, bar: bar}, info.Size())
	return err
}

// barReader shows what was read; seeking back takes the bar back too.
type barReader struct {
	file *os.File
	bar  *bar
}

func (r *barReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.bar.add(int64(n))
	return n, err
}

func (r *barReader) Seek(offset int64, whence int) (int64, error) {
	at, err := r.file.Seek(offset, whence)
	if err == nil {
		r.bar.set(at)
	}
	return at, err
}

func (a *App) putTree(ctx context.Context, c *client.Client, from, to string) error {
	files, err := filesBelow(from)
	if err != nil {
		return err
	}
	for _, file := range files {
		target := strings.TrimSuffix(to, "/") + "/" + file.name
		if file.name == "." { // from is a file
			return a.putOne(ctx, c, from, to)
		}
		if err := a.put(ctx, c, file.path, target); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) getOne(ctx context.Context, c *client.Client, from, to string) error {
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
func (a *App) get(ctx context.Context, c *client.Client, from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	temp, err := os.CreateTemp(filepath.Dir(to), ".clary-*")
	if err != nil {
		return fault.New(fault.Invalid, "write %s: %w", to, err)
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	bar := a.newBar(path.Base(from), -1)
	defer bar.close()
	_, err = c.GetObject(ctx, from, 0, io.MultiWriter(temp, bar), func(o client.Object) { bar.total = o.Size })
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

func (a *App) getTree(ctx context.Context, c *client.Client, from, to string) error {
	from = strings.TrimSuffix(from, "/") + "/"
	count := 0
	err := eachObject(ctx, c, from, true, func(o client.Object, _ string) error {
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

// eachObject goes through a listing, page by page: an object, or a prefix.
func eachObject(ctx context.Context, c *client.Client, uri string, recursive bool, do func(client.Object, string) error) error {
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

func (a *App) lsCommand() *cobra.Command {
	var recursive bool
	command := &cobra.Command{
		Use:     "ls [URI]",
		Short:   "List objects; without a URI, what Clary itself keeps",
		Example: "  clary ls\n  clary ls s3://clary/jobs/digits/ -r",
		Args:    takes("[URI]"),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			uri := "s3://clary/"
			if len(args) > 0 {
				uri = args[0]
			}
			var all client.Page
			var rows [][]string
			err := eachObject(ctx, c, uri, recursive, func(o client.Object, prefix string) error {
				if prefix != "" {
					all.Prefixes = append(all.Prefixes, prefix)
					rows = append(rows, []string{"", "", prefix})
					return nil
				}
				all.Objects = append(all.Objects, o)
				rows = append(rows, []string{cluster.FormatBytes(o.Size), ago(o.Modified), o.URI})
				return nil
			})
			if err != nil && !(fault.Is(err, fault.NotFound) && len(args) == 0) { // nothing was kept yet
				return err
			}
			return a.print(all, func(out io.Writer) error {
				if len(rows) == 0 {
					a.note("nothing is there")
					return nil
				}
				return table(out, []string{"size", "age", "uri"}, rows)
			})
		}),
	}
	command.Flags().BoolVarP(&recursive, "recursive", "r", false, "all levels")
	return command
}

func (a *App) rmCommand() *cobra.Command {
	var recursive bool
	command := &cobra.Command{
		Use:     "rm URI...",
		Short:   "Delete objects",
		Example: "  clary rm s3://data/old.csv\n  clary rm -r s3://data/old/",
		Args:    takes("URI..."),
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			deleted := int64(0)
			for _, uri := range args {
				n, err := c.DeleteObject(ctx, uri, recursive)
				if err != nil {
					return err
				}
				deleted += n
			}
			return a.print(map[string]int64{"deleted": deleted}, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "deleted %d\n", deleted)
				return err
			})
		}),
	}
	command.Flags().BoolVarP(&recursive, "recursive", "r", false, "all below a prefix")
	return command
}
