// Package diskuse tells how much of a node's disk a task takes: what its user has written
// into the task's folders, and files that were deleted and are still open.
package diskuse

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
)

// PerFile is what each file counts beside its content: a file system has room for so many,
// and a task could take all of it with empty ones.
const PerFile = 4096

// Question says what to count.
type Question struct {
	Folders []string // all on the same file system
	// Owner is whose files count. Nil counts everybody's but for what is below Except: the
	// agent's own that it put there.
	Owner  *uint32
	Except string
	PIDs   []int // processes that may hold deleted files
	Most   int64 // it is enough to know that it is more than so many bytes
}

// Use is what a task takes.
type Use struct {
	Bytes int64 // allocated, PerFile for each file included
	Files int64
}

// errEnough ends the count.
var errEnough = errors.New("it is more than was asked")

// Of counts. What cannot be looked at, since the task made it so, is an Invalid error.
func Of(ctx context.Context, q Question) (Use, error) {
	c := counter{question: q, seen: map[inode]bool{}}
	for _, folder := range q.Folders {
		err := c.folder(ctx, folder)
		if errors.Is(err, errEnough) {
			return c.use, nil
		}
		if err != nil {
			return c.use, err
		}
	}
	if err := c.deleted(ctx); err != nil && !errors.Is(err, errEnough) {
		return c.use, err
	}
	return c.use, nil
}

type inode struct{ device, number uint64 }

type counter struct {
	question Question
	use      Use
	seen     map[inode]bool // those with more names than one, or none
	devices  map[uint64]bool
}

func (c *counter) folder(ctx context.Context, folder string) error {
	root, err := os.OpenRoot(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New(fault.Internal, "look at what is on the disk: %w", err)
	}
	defer root.Close() //nolint:errcheck // only read
	if info, err := root.Stat("."); err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			if c.devices == nil {
				c.devices = map[uint64]bool{}
			}
			c.devices[uint64(stat.Dev)] = true
		}
	}
	except := ""
	if c.question.Owner == nil && len(c.question.Except) > len(folder) && c.question.Except[:len(folder)+1] == folder+"/" {
		except = c.question.Except[len(folder)+1:]
	}
	err = tree.Walk(ctx, root, func(name string, info fs.FileInfo) error {
		if name == except {
			return fs.SkipDir
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok || c.question.Owner != nil && stat.Uid != *c.question.Owner {
			return nil
		}
		if stat.Nlink > 1 && !info.IsDir() && !c.first(uint64(stat.Dev), stat.Ino) {
			return nil
		}
		return c.add(stat.Blocks)
	})
	switch {
	case err == nil || errors.Is(err, errEnough) || ctx.Err() != nil:
		return err
	case fault.Is(err, fault.Invalid):
		return err
	}
	return fault.New(fault.Internal, "look at what is on the disk: %w", err)
}

// first reports whether a file is met for the first time.
func (c *counter) first(device, number uint64) bool {
	key := inode{device, number}
	if c.seen[key] {
		return false
	}
	c.seen[key] = true
	return true
}

// add counts a file of so many blocks of 512 bytes.
func (c *counter) add(blocks int64) error {
	c.use.Files++
	c.use.Bytes += blocks*512 + PerFile
	if c.question.Most > 0 && c.use.Bytes > c.question.Most {
		return errEnough
	}
	return nil
}
