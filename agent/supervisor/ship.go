package supervisor

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
	"github.com/clary-ml/clary/storage/journal/archive"
)

// The records of a task: folders below what its attempt keeps in the store.
const (
	LogsFolder    = "logs"    // what it wrote
	MetricsFolder = "metrics" // what it said of its work, and used
)

// record is a journal of a task that is brought to the store while it is written.
type record struct {
	folder string // below what the task's attempt keeps in the store
	// read follows the journal until it grows no more. NotFound says that there is none.
	read func(context.Context, journal.Query, journal.Sink) error
	drop func() error // deletes the node's copy
}

// records are all of a task's; ended is closed when they grow no more.
func (t *task) records(ended <-chan struct{}) []record {
	return []record{{
		folder: LogsFolder,
		read: func(ctx context.Context, query journal.Query, sink journal.Sink) error {
			return t.s.config.Driver.Logs(ctx, t.id(), query, sink)
		},
		drop: func() error {
			if keeper, ok := t.s.config.Driver.(runtime.LogKeeper); ok {
				return keeper.DropLog(t.id())
			}
			return nil
		},
	}, {
		folder: MetricsFolder,
		read: func(ctx context.Context, query journal.Query, sink journal.Sink) error {
			return t.readMetrics(ctx, query, ended, sink)
		},
		drop: func() error { return journal.Remove(t.metricsPath()) },
	}}
}

// ships reports whether there is a store for the records of a task of a job, and they are not all
// there.
func (t *task) ships() bool {
	return t.s.config.Store != nil && t.entry.Assignment.Task.Job != "" && !t.entry.Archived && !isClosed(t.gone)
}

// shipment is the work of bringing a task's records to the store.
type shipment struct {
	ended chan struct{} // closed: no record grows any more
	over  chan struct{} // closed: whole is set
	whole bool          // all of each record is in the store
	stop  func()        // ends the work
	end   func()        // closes ended
}

// ship begins to bring the records to the store. The work ends when all is there and the task has
// ended, when nobody wants the task any more, or with ctx; an agent that comes after takes it up.
func (t *task) ship(ctx context.Context) *shipment {
	s := &shipment{ended: make(chan struct{}), over: make(chan struct{})}
	s.end = sync.OnceFunc(func() { close(s.ended) })
	ctx, stop := t.whileWanted(ctx)
	s.stop = func() { stop(); <-s.over }
	go func() {
		defer close(s.over)
		group, ctx := errgroup.WithContext(ctx)
		for _, record := range t.records(s.ended) {
			shipper := archive.Shipper{Store: t.segments(record.folder), Ended: s.ended, Log: t.s.config.Log.With("task", t.id())}
			shipper.Read = func(ctx context.Context, query journal.Query, sink journal.Sink) error {
				err := record.read(ctx, query, sink)
				if fault.Is(err, fault.NotFound) {
					return nil
				}
				return err
			}
			group.Go(func() error { return shipper.Ship(ctx) })
		}
		s.whole = group.Wait() == nil
	}()
	return s
}

// settle waits until the records of a task that has ended are in the store, and lets the node's
// copies go. It is over early when nobody wants the task any more.
func (t *task) settle(s *shipment) {
	s.end()
	<-s.over
	if !s.whole {
		return
	}
	t.s.mu.Lock()
	t.entry.Archived = true
	entry := t.entry
	t.s.mu.Unlock()
	// From here on nobody reads the copies: they go after that is written down.
	if err := t.s.config.Ledger.Put(entry); err != nil {
		t.s.config.Log.Error("record that what a task wrote is in the object store", "task", t.id(), "error", err)
		return
	}
	t.dropRecords()
}

func (t *task) dropRecords() {
	for _, record := range t.records(nil) {
		if err := record.drop(); err != nil {
			t.s.config.Log.Warn("delete what the object store has of a task", "task", t.id(), "what", record.folder, "error", err)
		}
	}
}

// whileWanted is a context that ends with ctx, or when nobody wants the task any more. stop ends it
// and waits.
func (t *task) whileWanted(ctx context.Context) (wanted context.Context, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		select {
		case <-t.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-over }
}

// segments are where a record of the task is in the store.
func (t *task) segments(folder string) archive.Store {
	return segments{t.s.config.Store, t.s.config.Bucket, attemptPrefix(t.assignment().Task) + "/" + folder + "/"}
}

// segments is an archive.Store over a staging.Store.
type segments struct {
	store          staging.Store
	bucket, prefix string
}

func (s segments) List(ctx context.Context) ([]string, error) {
	objects, err := s.store.List(ctx, s.bucket, s.prefix)
	var names []string
	for _, object := range objects {
		names = append(names, strings.TrimPrefix(object.Key, s.prefix))
	}
	return names, err
}

func (s segments) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	body, _, err := s.store.Open(ctx, s.bucket, s.prefix+name)
	return body, err
}

func (s segments) Put(ctx context.Context, name string, content []byte) error {
	return s.store.Put(ctx, s.bucket, s.prefix+name, bytes.NewReader(content), int64(len(content)))
}

func (s segments) Delete(ctx context.Context, name string) error {
	return s.store.Delete(ctx, s.bucket, s.prefix+name)
}
