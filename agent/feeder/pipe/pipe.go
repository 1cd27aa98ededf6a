// Package pipe gives a task an input as named pipes: CHANNEL_0 for the first epoch,
// CHANNEL_1 for the second, and so on, each holding all objects one after the other.
package pipe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// atOnce is how many epochs may be read at the same time: a program that opens the next
// before it closes the last needs two.
const atOnce = 4

// pipeSize is how much a pipe holds, in bytes, where the kernel allows it.
const pipeSize = 1 << 20

// Config is one channel.
type Config struct {
	Store   staging.Reader
	Input   cluster.Input
	Share   staging.Share
	Items   []staging.Item // as Resolve gave them; of an augmented manifest none
	Scratch string         // folder for what a record's length must be known of
}

// Channel is an input whose first pipe exists.
type Channel struct {
	Config
	folder *os.File // the pipes' folder, whatever becomes of its path

	mu   sync.Mutex
	held []*os.File // pipes that must not end: see Run
}

// Open makes the first pipe, in a folder that only the caller may write. Pipes of an
// earlier run are removed.
func Open(folder string, config Config) (*Channel, error) {
	dir, err := os.Open(folder)
	if err != nil {
		return nil, fault.New(fault.Internal, "input %s: %w", config.Input.Channel, err)
	}
	c := &Channel{Config: config, folder: dir}
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		number, isPipe := strings.CutPrefix(name, config.Input.Channel+"_")
		if _, bad := strconv.Atoi(number); isPipe && bad == nil {
			err = errors.Join(err, unix.Unlinkat(int(dir.Fd()), name, 0))
		}
	}
	if err = errors.Join(err, c.make(0)); err != nil {
		return nil, errors.Join(fault.New(fault.Internal, "input %s: %w", config.Input.Channel, err), dir.Close())
	}
	return c, nil
}

func (c *Channel) name(epoch int) string { return fmt.Sprintf("%s_%d", c.Input.Channel, epoch) }

// make makes a pipe that all may read: a task's user is another than ours.
func (c *Channel) make(epoch int) error {
	dir, name := int(c.folder.Fd()), c.name(epoch)
	if err := unix.Mkfifoat(dir, name, 0o444); err != nil {
		return fmt.Errorf("make the pipe %s: %w", name, err)
	}
	return unix.Fchmodat(dir, name, 0o444, 0)
}

// Run serves epoch after epoch until ctx ends, which is no error. The pipe of the next
// epoch is there before the reader of this one can come to its end; who closes a pipe
// early has had enough of that epoch. A pipe that was read is removed.
//
// If the data cannot be had Run returns why, and the pipe does not end: to its reader it
// must not look as if that had been all. It waits, until Close.
func (c *Channel) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, atOnce)
	var serving sync.WaitGroup
	defer serving.Wait()
	for epoch := 0; ; epoch++ {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ended(ctx)
		}
		file, err := c.awaitReader(ctx, epoch)
		if ctx.Err() != nil {
			return ended(ctx)
		}
		if err == nil {
			err = c.make(epoch + 1)
		}
		if err != nil {
			cancel(fault.New(fault.Internal, "input %s: %w", c.Input.Channel, err))
			return ended(ctx)
		}
		serving.Go(func() {
			defer func() { <-slots }()
			if err := c.serve(ctx, epoch, file); err != nil {
				cancel(err)
			}
		})
	}
}

func ended(ctx context.Context) error {
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// awaitReader opens an epoch's pipe to write, which waits until somebody reads it. It
// holds a thread; when ctx ends it lets itself go by reading.
func (c *Channel) awaitReader(ctx context.Context, epoch int) (*os.File, error) {
	dir, name := int(c.folder.Fd()), c.name(epoch)
	self, let := -1, make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(let)
		self, _ = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	})
	fd, err := -1, error(unix.EINTR)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat(dir, name, unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	if !stop() {
		<-let
		_ = unix.Close(self)
	}
	if err != nil {
		return nil, fmt.Errorf("open the pipe %s: %w", name, err)
	}
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	if err := unix.SetNonblock(fd, true); err != nil { // Close ends a write then
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// errClosed says that the reader has closed the pipe.
var errClosed = errors.New("the reader has closed the pipe")

// past is a deadline that has gone by.
var past = time.Unix(1, 0)

// serve writes one epoch into its pipe.
func (c *Channel) serve(ctx context.Context, epoch int, file *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(past) })
	defer stop()
	err := c.write(ctx, pipeWriter{file})
	if err != nil && !errors.Is(err, errClosed) {
		c.mu.Lock()
		c.held = append(c.held, file)
		c.mu.Unlock()
		if ctx.Err() != nil {
			return nil // told to end, or another epoch has failed
		}
		return fault.New(fault.KindOf(err), "input %s: %w", c.Input.Channel, err)
	}
	// Gone before it ends: who comes again finds no pipe, rather than one that nobody fills.
	gone := unix.Unlinkat(int(c.folder.Fd()), c.name(epoch), 0)
	if errors.Is(gone, fs.ErrNotExist) {
		gone = nil
	}
	return errors.Join(gone, file.Close())
}

// pipeWriter tells a reader that has gone from other trouble.
type pipeWriter struct{ file *os.File }

func (w pipeWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	if errors.Is(err, unix.EPIPE) {
		err = errClosed
	}
	return n, err
}

// Close lets go of the pipes that failed. It is called after Run.
func (c *Channel) Close() error {
	errs := []error{c.folder.Close()}
	for _, file := range c.held {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
