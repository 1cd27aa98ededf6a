package staging

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/internal/fault"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum reads a file and returns its CRC-32C and length. That finds every change
// of a few bits, at the speed of the disk; forgery is not what is feared here.
func checksum(path string) (crc uint32, size int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer file.Close() //nolint:errcheck // only read
	sum := crc32.New(castagnoli)
	size, err = io.CopyBuffer(sum, struct{ io.Reader }{file}, make([]byte, 1<<20))
	return sum.Sum32(), size, err
}

// received is a fetched object in a temporary file.
type received struct {
	temp string
	crc  uint32
	size int64
}

// receive fetches an object into a temporary file of the folder, decompressed or as it is.
func receive(ctx context.Context, store Reader, bucket string, object Object, gunzip bool, folder string) (received, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return received{}, err
	}
	body, now, err := store.Open(ctx, bucket, object.Key)
	if err != nil {
		return received{}, err
	}
	defer body.Close() //nolint:errcheck // only read
	if now.ETag != object.ETag {
		return received{}, fault.New(fault.Conflict, "the object was overwritten while it was staged: start again")
	}
	file, err := os.CreateTemp(folder, ".fetch-*")
	if err != nil {
		return received{}, err
	}
	sum := crc32.New(castagnoli)
	size, err := transfer(io.MultiWriter(file, sum), body, object.Size, gunzip)
	// Readable by any user: a task's is not the agent's.
	if err = errors.Join(err, file.Chmod(0o444), file.Close()); err != nil {
		return received{}, errors.Join(err, os.Remove(file.Name()))
	}
	return received{file.Name(), sum.Sum32(), size}, nil
}

// transfer copies an object of so many bytes and returns how many it became.
func transfer(to io.Writer, body io.Reader, size int64, gunzip bool) (int64, error) {
	counted := &counting{from: body}
	var from io.Reader = counted
	if gunzip {
		from = Gunzip(counted, size)
	}
	n, err := io.CopyBuffer(to, from, make([]byte, 256<<10))
	// Of what is cut short no decompressor can tell that it is not damaged.
	if counted.n != size && (err == nil || fault.Is(err, fault.Invalid) && counted.ended) {
		return n, fault.New(fault.Unready, "received %d bytes of %d: the connection was cut", counted.n, size)
	}
	return n, err
}

// counting knows how much was read, and whether that was all there came.
type counting struct {
	from  io.Reader
	n     int64
	ended bool
}

func (c *counting) Read(to []byte) (int, error) {
	n, err := c.from.Read(to)
	c.n += int64(n)
	c.ended = c.ended || err != nil
	if err != nil && !errors.Is(err, io.EOF) {
		err = fault.New(fault.Unready, "the connection was cut after %d bytes: %w", c.n, err)
	}
	return n, err
}

// share makes path the same content as a cached file: by reflink, which costs
// nothing and cannot be written through; else by hard link; else by copying.
func share(source, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if reflink(source, path) == nil || os.Link(source, path) == nil {
		return nil
	}
	return duplicate(source, path)
}

func reflink(source, path string) error {
	return onto(source, path, func(to, from *os.File) error {
		return unix.IoctlFileClone(int(to.Fd()), int(from.Fd()))
	})
}

func duplicate(source, path string) error {
	return onto(source, path, func(to, from *os.File) error {
		_, err := io.Copy(to, from)
		return err
	})
}

// onto opens both files, fills the second and leaves it only if that went well.
func onto(source, path string, fill func(to, from *os.File) error) error {
	from, err := os.Open(source)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // only read
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(to, from), to.Close()); err != nil {
		return errors.Join(fmt.Errorf("share %s: %w", source, err), os.Remove(path))
	}
	return nil
}

// Own makes each file of a folder a copy that is shared with nobody, and may be written. It is
// for a folder of the agent's own, which no task has seen yet.
func Own(folder string) error {
	return filepath.WalkDir(folder, func(path string, item fs.DirEntry, err error) error {
		if err != nil || !item.Type().IsRegular() {
			return err
		}
		info, err := item.Info()
		if err != nil || info.Mode().Perm()&0o200 != 0 { // done by an earlier agent
			return err
		}
		copied := path + ".own"
		if err := os.Remove(copied); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := duplicate(path, copied); err != nil {
			return err
		}
		return errors.Join(os.Chmod(copied, 0o644), os.Rename(copied, path))
	})
}

// move renames, or copies between file systems.
func move(source, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if os.Rename(source, path) == nil {
		return nil
	}
	_ = os.Remove(path)
	return errors.Join(duplicate(source, path), os.Remove(source))
}
