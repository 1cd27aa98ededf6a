package feeder

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/agent/feeder/fastfile"
	"github.com/clary-ml/clary/agent/feeder/pipe"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	blockBytes = 32 << 20        // kept in memory of what is read by fast_file
	lookEvery  = 2 * time.Second // at whether the task has ended while no agent was there
)

// Options are what a feeder's process is started with.
type Options struct {
	Dir   string   // the task's folder
	Alive *os.File // the pipe feeder.alive, to write
	// Open opens the store; nil is OpenAccess.
	Open func(access string) (staging.Reader, error)
	Log  *slog.Logger
}

// Main is a feeder's process: it serves until ctx ends, or until the task's folder says
// that the task has, and leaves no mount.
func Main(ctx context.Context, o Options) error {
	if err := replace(filepath.Join(o.Dir, pidFile), []byte(strconv.Itoa(os.Getpid()))); err != nil {
		return err
	}
	if o.Open == nil {
		o.Open = OpenAccess
	}
	text, err := os.ReadFile(filepath.Join(o.Dir, instructionsFile))
	if err != nil {
		return err
	}
	var todo Instructions
	if err := json.Unmarshal(text, &todo); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	feeder := &feeder{Options: o, todo: todo}
	err = feeder.begin(ctx)
	if err == nil {
		err = feeder.say(ready)
	}
	if err != nil {
		return errors.Join(feeder.fail(err), feeder.close())
	}
	if err := feeder.run(ctx); err != nil {
		o.Log.Error("the task's inputs can no longer be served", "error", err)
		if err := feeder.fail(err); err != nil {
			o.Log.Error("say so", "error", err)
		}
		// The task is about to be ended. Until then its pipes must not.
		feeder.awaitEnd(ctx)
	}
	return feeder.close()
}

type feeder struct {
	Options
	todo    Instructions
	store   staging.Reader
	blocks  *fastfile.Blocks
	mounted []*fastfile.Mounted
	pipes   []*pipe.Channel
}

// begin makes everything that the task finds when it starts.
func (f *feeder) begin(ctx context.Context) (err error) {
	if f.store, err = f.Open(f.todo.Access); err != nil {
		return err
	}
	var disk *fastfile.Disk
	if f.todo.Cache != "" && f.todo.Limit > 0 {
		if disk, err = fastfile.OpenDisk(f.todo.Cache, f.todo.Limit, f.Log); err != nil {
			return err
		}
	}
	f.blocks = fastfile.NewBlocks(f.store, disk, blockBytes)
	for _, input := range f.todo.Inputs {
		var items []staging.Item
		if input.Type != cluster.InputAugmentedManifest {
			if items, err = staging.Resolve(ctx, f.store, input, f.todo.Share); err != nil {
				return err
			}
		} else if err := f.checkLines(ctx, input); err != nil {
			return err
		}
		if err := f.beginOne(input, items); err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends the reading of a manifest.
var errEnough = errors.New("enough")

// checkLines sees that an augmented manifest can be read at all.
func (f *feeder) checkLines(ctx context.Context, input cluster.Input) error {
	err := staging.Lines(ctx, f.store, input, f.todo.Share, func([]staging.Value) error { return errEnough })
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (f *feeder) beginOne(input cluster.Input, items []staging.Item) error {
	if input.Mode == cluster.InputFastFile {
		folder := Shown(f.Dir, input.Channel)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fault.New(fault.Internal, "input %s: %w", input.Channel, err)
		}
		mounted, err := fastfile.Mount(folder, items, f.blocks, f.Log)
		if err != nil {
			return fault.New(fault.KindOf(err), "input %s: %w", input.Channel, err)
		}
		f.mounted = append(f.mounted, mounted)
		return nil
	}
	channel, err := pipe.Open(f.todo.Data, pipe.Config{
		Store: f.store, Input: input, Share: f.todo.Share, Items: items, Scratch: f.todo.Scratch,
	})
	if err == nil {
		f.pipes = append(f.pipes, channel)
	}
	return err
}

// run serves until ctx ends, or the task has. An error says that a pipe has no more data
// to give.
func (f *feeder) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	for _, channel := range f.pipes {
		group.Go(func() error { return channel.Run(ctx) })
	}
	group.Go(func() error {
		f.awaitEnd(ctx)
		cancel()
		return nil
	})
	return group.Wait()
}

// awaitEnd returns when ctx ends, or when the task's folder says that the task has: that
// is for when no agent is there to say it.
func (f *feeder) awaitEnd(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, gone := os.Stat(f.Dir)
		_, ended := os.Stat(filepath.Join(f.Dir, f.todo.Until))
		if errors.Is(gone, fs.ErrNotExist) || f.todo.Until != "" && ended == nil {
			return
		}
	}
}

// close takes away what begin made.
func (f *feeder) close() error {
	var errs []error
	for _, mounted := range f.mounted {
		errs = append(errs, mounted.Close())
	}
	for _, channel := range f.pipes {
		errs = append(errs, channel.Close())
	}
	if f.blocks != nil {
		f.blocks.Close()
	}
	return errors.Join(errs...)
}

// fail writes down why, and then says that it did.
func (f *feeder) fail(why error) error {
	return errors.Join(writeFailure(f.Dir, why), f.say(failed))
}

func (f *feeder) say(letter byte) error {
	_, err := f.Alive.Write([]byte{letter})
	return err
}
