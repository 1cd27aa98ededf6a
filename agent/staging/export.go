package staging

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
	"github.com/clary-ml/clary/storage/object"
)

// MaxExported is how many files a folder may have that is exported.
const MaxExported = 1_000_000

const exportsChunk = 256 // files whose lines are held until all of them are sent

// Export sends the files of a folder to the store, each as an object below the s3:// prefix uri,
// and then a listing of them: the same files make the same bytes. Links are not followed, and
// what is neither file nor folder is left out. A folder without files is no output: false. What a
// mirror into the same prefix has sent, if there is one, is not sent again.
func Export(ctx context.Context, store Store, name string, folder Folder, uri, scratch string, mirror *Mirror) (cluster.Output, bool, error) {
	output, some, err := export(ctx, store, folder, uri, scratch, mirror)
	if err != nil {
		return cluster.Output{}, false, fault.New(fault.KindOf(err), "output %s: %w", name, err)
	}
	output.Name = name
	return output, some, nil
}

func export(ctx context.Context, store Store, folder Folder, uri, scratch string, mirror *Mirror) (cluster.Output, bool, error) {
	at, err := object.ParseURI(uri)
	if err != nil {
		return cluster.Output{}, false, err
	}
	root, err := folder.open()
	if errors.Is(err, os.ErrNotExist) {
		return cluster.Output{}, false, nil
	}
	if err != nil {
		return cluster.Output{}, false, fault.New(fault.Invalid, "it is no folder any more: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read
	file, err := os.CreateTemp(scratch, ".listing-*")
	if err != nil {
		return cluster.Output{}, false, fault.New(fault.Internal, "make its listing: %w", err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // swept with the task's folder
	defer file.Close()           //nolint:errcheck // what matters was flushed and read
	sum := sha256.New()
	e := exporter{store: store, root: root, to: at, mirror: mirror, lines: bufio.NewWriter(io.MultiWriter(file, sum))}
	if err := tree.Sorted(ctx, root, func(name string, info fs.FileInfo) error { return e.take(ctx, name, info) }); err != nil {
		return cluster.Output{}, false, err
	}
	if err := errors.Join(e.flush(ctx), e.lines.Flush()); err != nil {
		return cluster.Output{}, false, err
	}
	if e.output.Files == 0 {
		return cluster.Output{}, false, nil
	}
	listing := object.Listing(at)
	size, err := file.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = store.Put(ctx, listing.Bucket, listing.Key, file, size)
	}
	e.output.URI, e.output.SHA256 = listing.String(), hex.EncodeToString(sum.Sum(nil))
	return e.output, true, err
}

// exporter is one export.
type exporter struct {
	store  Store
	root   *os.Root
	to     object.URI
	mirror *Mirror // nil for none
	lines  *bufio.Writer
	chunk  []object.Listed // whose files are not sent yet
	output cluster.Output
}

func (e *exporter) take(ctx context.Context, name string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return nil
	}
	if !utf8.ValidString(name) {
		return fault.New(fault.Invalid, "the file %q cannot become an object: its name is not UTF-8", name)
	}
	if e.output.Files++; e.output.Files > MaxExported {
		return fault.New(fault.Invalid, "it holds more than %d files: put them into fewer, or archives", MaxExported)
	}
	if e.chunk = append(e.chunk, object.Listed{Name: name}); len(e.chunk) < exportsChunk {
		return nil
	}
	return e.flush(ctx)
}

// flush sends the files of the chunk and writes their lines.
func (e *exporter) flush(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range e.chunk {
		group.Go(func() (err error) {
			e.chunk[i], err = e.send(ctx, e.chunk[i].Name)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, listed := range e.chunk {
		line, err := json.Marshal(listed)
		if err != nil {
			return fault.New(fault.Internal, "write its listing: %w", err)
		}
		if _, err := e.lines.Write(append(line, '\n')); err != nil {
			return fault.New(fault.Internal, "write its listing: %w", err)
		}
		e.output.Size += listed.Size
	}
	e.chunk = e.chunk[:0]
	return nil
}

func (e *exporter) send(ctx context.Context, name string) (object.Listed, error) {
	file, err := openRegular(e.root, name)
	if err != nil {
		return object.Listed{}, fault.New(fault.Internal, "read %s: %w", name, err)
	}
	defer file.Close() //nolint:errcheck // only read
	info, err := file.Stat()
	if err != nil {
		return object.Listed{}, fault.New(fault.Internal, "read %s: %w", name, err)
	}
	sum := sha256.New()
	if e.mirror != nil && e.mirror.has(name, info) {
		if _, err := io.Copy(sum, file); err != nil {
			return object.Listed{}, fault.New(fault.Internal, "read %s: %w", name, err)
		}
	} else if err := e.store.Put(ctx, e.to.Bucket, e.to.Join(name).Key, io.TeeReader(file, sum), info.Size()); err != nil {
		return object.Listed{}, fault.New(fault.KindOf(err), "send %s: %w", name, err)
	}
	return object.Listed{Name: name, Size: info.Size(), SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}
