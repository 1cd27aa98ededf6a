package archive

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/clary-ml/clary/storage/journal"
)

// Limits bound what is shipped of one journal, and how often. The zero value of each is the default.
type Limits struct {
	Segment int64         // bytes before compression after which a segment is full; 1 MiB
	Every   time.Duration // that an entry waits at most; a minute
	First   time.Duration // that the first ones wait at most, and later ones twice as long each time; 5 s
	Total   int64         // bytes before compression kept in the store, of the newest; 64 MiB
	Rate    int64         // bytes before compression in a second while the journal is written; 4 MiB
}

func (l Limits) orDefaults() Limits {
	if l.Segment == 0 {
		l.Segment = 1 << 20
	}
	if l.Every == 0 {
		l.Every = time.Minute
	}
	if l.First == 0 {
		l.First = 5 * time.Second
	}
	l.First = min(l.First, l.Every)
	if l.Total == 0 {
		l.Total = 64 << 20
	}
	if l.Rate == 0 {
		l.Rate = 4 << 20
	}
	return l
}

// Pauses while the store cannot be reached.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// Shipper copies one journal to the store while it is written and until it has ended.
type Shipper struct {
	Store Store
	// Read reads the journal. With Follow it returns nil once the journal has ended and all of it is
	// read; after an error it is called again, after what was read.
	Read  func(context.Context, journal.Query, journal.Sink) error
	Ended <-chan struct{} // closed when the journal has ended: the rest is sent as fast as it goes
	Limits
	Log *slog.Logger
}

// Ship returns nil when the journal has ended and all of it is in the store. While the store cannot
// be reached it tries again. It may be killed and begun again at any time: it goes on after the last
// entry in the store.
func (s Shipper) Ship(ctx context.Context) error {
	s.Limits = s.orDefaults()
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	c := &cargo{Shipper: s, wait: s.First}
	var there listing
	err := c.patiently(ctx, func() (err error) {
		there, err = list(ctx, s.Store)
		return err
	})
	if err != nil {
		return err
	}
	c.kept, c.stale = there.segments, there.covered
	if n := len(c.kept); n > 0 {
		c.after = c.kept[n-1].last
	}
	reading, stop := context.WithCancel(ctx)
	read, over := make(chan parcel), make(chan struct{})
	defer func() { stop(); <-over }()
	go func() {
		defer close(over)
		defer close(read)
		c.read(reading, read)
	}()
	if err := c.run(ctx, read); err != nil || there.complete {
		return err
	}
	return c.patiently(ctx, func() error { return s.Store.Put(ctx, complete, nil) })
}

// parcel is some of a journal's lines.
type parcel struct {
	lines       []byte
	first, last int64
}

// cargo is what one shipper has on its way.
type cargo struct {
	Shipper
	after int64     // read, or in the store before
	kept  []segment // in the store, oldest first
	stale []segment // in the store, and all of it elsewhere too

	open    segment // is being filled; the last of kept is an earlier state of it if sent
	packed  bytes.Buffer
	pending []byte // lines that are not in packed
	sent    bool
	since   time.Time     // the oldest pending line
	wait    time.Duration // that it waits at most
	cut     time.Time     // the last segment was full
}

// read hands over the journal until it ends or ctx does.
func (c *cargo) read(ctx context.Context, to chan<- parcel) {
	after := c.after
	_ = c.patiently(ctx, func() error { // it fails with ctx only
		return c.Read(ctx, journal.Query{After: after, Follow: true}, func(batch []journal.Entry) error {
			p := parcel{first: batch[0].Time, last: batch[len(batch)-1].Time}
			for _, e := range batch {
				p.lines = e.Append(p.lines)
			}
			select {
			case to <- p:
				after = p.last
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
}

// run takes what was read until there is no more.
func (c *cargo) run(ctx context.Context, read <-chan parcel) error {
	timer := time.NewTimer(c.wait)
	defer timer.Stop()
	for {
		select {
		case p, more := <-read:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if !more {
				return c.send(ctx)
			}
			c.load(p)
			if c.open.bytes < c.Segment {
				continue
			}
			if err := c.send(ctx); err != nil {
				return err
			}
			c.begin(ctx)
		case <-timer.C:
			if len(c.pending) > 0 && time.Since(c.since) >= c.wait {
				if err := c.send(ctx); err != nil {
					return err
				}
				c.wait = min(2*c.wait, c.Every)
			}
			timer.Reset(c.nextSend())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (c *cargo) nextSend() time.Duration {
	if len(c.pending) == 0 {
		return c.wait
	}
	return max(c.wait-time.Since(c.since), time.Millisecond)
}

func (c *cargo) load(p parcel) {
	if c.open.bytes == 0 {
		c.open.first = p.first
	}
	if len(c.pending) == 0 {
		c.since = time.Now()
	}
	c.open.last = p.last
	c.open.bytes += int64(len(p.lines))
	c.pending = append(c.pending, p.lines...)
}

// send brings the segment as it is to the store, in place of what it was before, and makes room.
func (c *cargo) send(ctx context.Context) error {
	if len(c.pending) > 0 {
		zipped, err := gzip.NewWriterLevel(&c.packed, gzip.BestSpeed)
		if err != nil {
			return err
		}
		_, _ = zipped.Write(c.pending) // a buffer's never fails
		_ = zipped.Close()
		c.pending = nil
		if err := c.patiently(ctx, func() error { return c.Store.Put(ctx, c.open.name(), c.packed.Bytes()) }); err != nil {
			return err
		}
		if c.sent {
			c.stale = append(c.stale, c.kept[len(c.kept)-1])
			c.kept = c.kept[:len(c.kept)-1]
		}
		c.kept, c.sent = append(c.kept, c.open), true
	}
	c.makeRoom(ctx)
	return nil
}

// makeRoom deletes what is stale and the oldest beyond the total. What cannot be deleted now is
// tried again with the next segment, or by the next shipper.
func (c *cargo) makeRoom(ctx context.Context) {
	var total int64
	for i := len(c.kept) - 1; i >= 0; i-- {
		if total += c.kept[i].bytes; total > c.Total && i < len(c.kept)-1 {
			c.stale = append(c.stale, c.kept[:i+1]...)
			c.kept = c.kept[i+1:]
			break
		}
	}
	for len(c.stale) > 0 {
		if err := c.Store.Delete(ctx, c.stale[0].name()); err != nil {
			c.Log.Warn("delete an old segment of a log", "segment", c.stale[0].name(), "error", err)
			return
		}
		c.stale = c.stale[1:]
	}
}

// begin begins another segment, not sooner than the rate allows.
func (c *cargo) begin(ctx context.Context) {
	pause := time.Until(c.cut.Add(time.Duration(float64(c.open.bytes) / float64(c.Rate) * float64(time.Second))))
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.Ended:
		case <-ctx.Done():
		}
	}
	c.cut, c.open, c.sent = time.Now(), segment{}, false
	c.packed.Reset()
}

// patiently tries until it succeeds or ctx ends.
func (c *cargo) patiently(ctx context.Context, do func() error) error {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := do()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.Log.Warn("a log is not brought to the object store; trying again", "error", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
