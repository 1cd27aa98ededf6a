// Package capture keeps requests and answers of endpoints in the object store, as JSON lines in the
// form of SageMaker's data capture, which what monitors models reads.
//
// Whoever answers requests hands records over and is never held up: what does not fit into the bound
// of memory is dropped, and counted. An object holds the records of one variant within one hour.
package capture

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// Store is where objects go.
type Store interface {
	Put(ctx context.Context, to object.URI, content io.Reader, size int64) (object.Info, error)
}

// Options are the bounds. What is 0 gets the default.
type Options struct {
	// MaxMemory is the most that records may take which are not in the store yet (64 MiB).
	MaxMemory int64
	// MaxObject is how large an object grows (4 MiB) and MaxAge how long (10 s) before it is written.
	MaxObject int
	MaxAge    time.Duration
	// Writers are how many objects are written at once (4).
	Writers int
	// Patience is how long a store is asked again that does not take an object (10 minutes), Flush the
	// same once Run is told to end (10 s).
	Patience, Flush time.Duration
	Log             *slog.Logger
}

func (o Options) completed() Options {
	o.MaxMemory, o.MaxObject, o.Writers = max(cmp.Or(o.MaxMemory, 64<<20), 1), max(cmp.Or(o.MaxObject, 4<<20), 1), max(cmp.Or(o.Writers, 4), 1)
	o.MaxAge, o.Patience, o.Flush = cmp.Or(o.MaxAge, 10*time.Second), cmp.Or(o.Patience, 10*time.Minute), cmp.Or(o.Flush, 10*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Stats are counts since the start. Every record that was handed over is at last in one of the first two.
type Stats struct {
	Kept    int64 // records that the store has
	Dropped int64 // records that it will never have
	Objects int64 // that were written
	Held    int64 // bytes of records that are not in the store yet
}

// Keeper takes records and brings them to the store while Run runs.
type Keeper struct {
	store   Store
	options Options
	records chan entry
	sealed  chan *batch

	kept, dropped, objects, held atomic.Int64

	mu    sync.RWMutex // against records that are handed over while Run ends
	ended bool
}

// entry is a record on its way.
type entry struct {
	to     object.URI
	record Record
	size   int64
}

// New makes a keeper.
func New(store Store, o Options) *Keeper {
	return &Keeper{store: store, options: o.completed(), records: make(chan entry, 1024), sealed: make(chan *batch)}
}

// overhead is what a record takes in memory beside its bodies, at most about.
const overhead = 512

// Keep hands a record over, to be written below a prefix. It does not wait: without room the record
// is dropped, and so it is once Run has been told to end.
func (k *Keeper) Keep(to object.URI, r Record) {
	e := entry{to: to, record: r, size: overhead}
	for _, body := range []*Body{r.Input, r.Output} {
		if body != nil {
			e.size += int64(cap(body.Data)) * 4 / 3 // as base64
		}
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.ended || k.held.Add(e.size) > k.options.MaxMemory {
		if !k.ended {
			k.held.Add(-e.size)
		}
		k.dropped.Add(1)
		return
	}
	select {
	case k.records <- e:
	default: // they come faster than they are encoded
		k.held.Add(-e.size)
		k.dropped.Add(1)
	}
}

// Stats are the counts until now.
func (k *Keeper) Stats() Stats {
	return Stats{Kept: k.kept.Load(), Dropped: k.dropped.Load(), Objects: k.objects.Load(), Held: k.held.Load()}
}

// Run writes what is handed over until ctx ends, and then what is left, within the time for that.
func (k *Keeper) Run(ctx context.Context) error {
	writing, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var writers sync.WaitGroup
	for range k.options.Writers {
		writers.Go(func() {
			for b := range k.sealed {
				k.write(writing, b)
			}
		})
	}
	g := gathering{Keeper: k, open: map[place]*batch{}}
	g.until(ctx)

	flush := time.AfterFunc(k.options.Flush, func() {
		stop(fault.New(fault.Unready, "the server is ending, and the store took nothing for %v", k.options.Flush))
	})
	defer flush.Stop()
	k.mu.Lock()
	k.ended = true
	close(k.records)
	k.mu.Unlock()
	for e := range k.records {
		g.add(e)
	}
	for at, b := range g.open {
		g.seal(at, b)
	}
	for _, b := range g.waiting {
		k.sealed <- b
	}
	close(k.sealed)
	writers.Wait()
	return nil
}

// gathering is what one goroutine has at hand: objects in the making, and those that no writer has
// taken yet. The bound of memory is theirs too.
type gathering struct {
	*Keeper
	open    map[place]*batch
	waiting []*batch
}

// until takes records in, and hands on what is full or old enough, until ctx ends.
func (g *gathering) until(ctx context.Context) {
	tick := time.NewTicker(max(g.options.MaxAge/10, time.Millisecond))
	defer tick.Stop()
	for {
		var first *batch
		var writers chan<- *batch // nobody while nothing waits
		if len(g.waiting) > 0 {
			first, writers = g.waiting[0], g.sealed
		}
		select {
		case e := <-g.records:
			g.add(e)
		case writers <- first:
			g.waiting = g.waiting[1:]
		case now := <-tick.C:
			for at, b := range g.open {
				if now.Sub(b.began) >= g.options.MaxAge {
					g.seal(at, b)
				}
			}
		case <-ctx.Done():
			return
		}
	}
}

// place is what the records of one object have in common.
type place struct {
	to                object.URI
	endpoint, variant string
	hour              int64
}

// batch is an object in the making.
type batch struct {
	to      object.URI
	lines   []byte
	records int64
	began   time.Time
	until   time.Time // when the store is asked no more
}

func (g *gathering) add(e entry) {
	r := e.record
	at := place{e.to, r.Endpoint, r.Variant, r.Time.Unix() / 3600}
	b := g.open[at]
	if b == nil {
		b = &batch{to: e.to.Join(r.Endpoint, r.Variant, name(r.Time)), began: time.Now()}
		g.open[at] = b
	}
	before := cap(b.lines)
	b.lines = appendLine(b.lines, r)
	b.records++
	g.held.Add(int64(cap(b.lines)-before) - e.size) // what it takes from now on
	if len(b.lines) >= g.options.MaxObject {
		g.seal(at, b)
	}
}

func (g *gathering) seal(at place, b *batch) {
	delete(g.open, at)
	b.until = time.Now().Add(g.options.Patience)
	g.waiting = append(g.waiting, b)
}

// name is where in a variant's folder an object lies whose first record is of a time.
func name(t time.Time) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it does not fail
	t = t.UTC()
	return fmt.Sprintf("%s-%03d-%s.jsonl", t.Format("2006/01/02/15/04-05"), t.Nanosecond()/1e6, hex.EncodeToString(random[:]))
}

// The pause before a store is asked again grows from one to the other; an answer is waited for so long.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 30 * time.Second
	attempt    = time.Minute
)

// write brings an object to the store. Asked again it has the same name, so that an answer that was
// lost makes no second one.
func (k *Keeper) write(ctx context.Context, b *batch) {
	defer k.held.Add(-int64(cap(b.lines)))
	ctx, cancel := context.WithDeadline(ctx, b.until)
	defer cancel()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := k.put(ctx, b)
		if err == nil {
			k.kept.Add(b.records)
			k.objects.Add(1)
			return
		}
		if again := fault.Is(err, fault.Unready) || fault.Is(err, fault.Internal); !again || !slept(ctx, pause) {
			k.dropped.Add(b.records)
			k.options.Log.Warn("captured requests are lost: the store did not take them", "object", b.to, "records", b.records, "error", err)
			return
		}
	}
}

func (k *Keeper) put(ctx context.Context, b *batch) error {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	_, err := k.store.Put(ctx, b.to, bytes.NewReader(b.lines), int64(len(b.lines)))
	return err
}

// slept waits, and says whether ctx goes on.
func slept(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
