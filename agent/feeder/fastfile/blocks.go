package fastfile

import (
	"container/list"
	"context"
	"io"
	"sync"

	"github.com/clary-ml/clary/agent/staging"
)

const (
	blockSize    = 1 << 20
	maxWindow    = 16 // blocks that are fetched before they are asked for
	maxTransfers = 8  // fetches at a time
)

// Blocks is what is kept in memory of all files, least recently used out first. The
// kernel keeps what was read as well, as of any file; these are for what it asks next.
type Blocks struct {
	ctx   context.Context //nolint:containedctx // a fetch outlives the read that began it
	end   context.CancelFunc
	store staging.Reader
	most  int // blocks
	slots chan struct{}
	busy  sync.WaitGroup

	mu    sync.Mutex
	known map[place]*block
	order *list.List // of *block, the most recently used first
}

// place is one block of one object.
type place struct {
	file  *source
	index int64
}

// source is an object that blocks are taken of.
type source struct {
	bucket string
	object staging.Object
}

func (s *source) blocks() int64 { return (s.object.Size + blockSize - 1) / blockSize }

type block struct {
	place
	ready chan struct{} // closed when data or err is there
	data  []byte
	err   error
	entry *list.Element
}

// NewBlocks keeps so many bytes. Close ends what it fetches.
func NewBlocks(store staging.Reader, bytes int64) *Blocks {
	ctx, cancel := context.WithCancel(context.Background())
	return &Blocks{
		ctx: ctx, end: cancel, store: store, most: int(max(bytes/blockSize, 2*maxWindow)), slots: make(chan struct{}, maxTransfers),
		known: map[place]*block{}, order: list.New(),
	}
}

// Close ends what is being fetched, and waits for it.
func (b *Blocks) Close() {
	b.end()
	b.busy.Wait()
}

// want returns the blocks of a file from first to last, fetching what is missing. It also
// begins to fetch what follows, up to window blocks, as soon as less than half of that is
// on its way.
func (b *Blocks) want(file *source, first, last, window int64) []*block {
	b.mu.Lock()
	defer b.mu.Unlock()
	end := file.blocks()
	until := last + 1
	if half := last + 1 + window/2; window > 0 && half < end && b.known[place{file, half}] == nil {
		until = min(last+1+window, end)
	}
	var got []*block
	for at := first; at < until; at++ {
		have := b.known[place{file, at}]
		if have == nil {
			run := b.missing(file, at, until)
			if at > last && len(b.known)+len(run) > b.most && !b.shrink(b.most-len(run)) {
				break // what runs ahead does not push out what is being read
			}
			for _, one := range run {
				b.known[one.place] = one
				one.entry = b.order.PushFront(one)
			}
			b.busy.Go(func() { b.fetch(file, run) })
			have = run[0]
		}
		b.order.MoveToFront(have.entry)
		if at <= last {
			got = append(got, have)
		}
	}
	b.shrink(b.most)
	return got
}

// missing are the blocks from the first on that nobody fetches yet.
func (b *Blocks) missing(file *source, first, until int64) []*block {
	var run []*block
	for at := first; at < until && b.known[place{file, at}] == nil; at++ {
		run = append(run, &block{place: place{file, at}, ready: make(chan struct{})})
	}
	return run
}

// shrink drops what was used longest ago, and reports whether no more than most are left.
// What is being fetched stays.
func (b *Blocks) shrink(most int) bool {
	for entry := b.order.Back(); entry != nil && len(b.known) > most; {
		old := entry.Value.(*block)
		entry = entry.Prev()
		select {
		case <-old.ready:
			b.forget(old)
		default:
		}
	}
	return len(b.known) <= most
}

func (b *Blocks) forget(old *block) {
	if b.known[old.place] == old {
		delete(b.known, old.place)
		b.order.Remove(old.entry)
	}
}

// fetch reads a run of blocks with one request. What fails is forgotten, so that the next
// read tries again.
func (b *Blocks) fetch(file *source, run []*block) {
	err := b.acquire()
	var body io.ReadCloser
	if err == nil {
		defer func() { <-b.slots }()
		from := run[0].index * blockSize
		to := min((run[len(run)-1].index+1)*blockSize, file.object.Size)
		body = staging.OpenRange(b.ctx, b.store, file.bucket, file.object, from, to-from)
		defer body.Close() //nolint:errcheck // only read
	}
	for _, one := range run {
		if err == nil {
			data := make([]byte, min(blockSize, file.object.Size-one.index*blockSize))
			if _, err = io.ReadFull(body, data); err == nil {
				one.data = data
			}
		}
		if one.err = err; err != nil {
			b.mu.Lock()
			b.forget(one)
			b.mu.Unlock()
		}
		close(one.ready)
	}
}

func (b *Blocks) acquire() error {
	select {
	case b.slots <- struct{}{}:
		return nil
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
}

// cursor is one open file: how it is read decides how far ahead is fetched.
type cursor struct {
	file *source

	mu     sync.Mutex
	next   int64 // where the last read ended
	window int64 // blocks ahead
}

// slack is by how much reads may come out of order, as the kernel sends several at once.
const slack = 2 * blockSize

// advance notes a read and returns how many blocks to fetch ahead: none after a jump,
// twice as many as before while it goes straight on.
func (c *cursor) advance(offset, length int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch straight := offset >= c.next-slack && offset <= c.next+slack; {
	case !straight:
		c.window, c.next = 0, offset+length
	case offset+length > c.next:
		if crossed := (offset+length)/blockSize > c.next/blockSize; crossed || c.window == 0 {
			c.window = min(max(1, 2*c.window), maxWindow)
		}
		c.next = offset + length
	}
	return c.window
}

// read fills to with what stands at an offset, and returns how many bytes there were.
func (b *Blocks) read(ctx context.Context, c *cursor, to []byte, offset int64) (int, error) {
	length := min(int64(len(to)), c.file.object.Size-offset)
	if length <= 0 || offset < 0 {
		return 0, nil
	}
	window := c.advance(offset, length)
	done := 0
	for _, one := range b.want(c.file, offset/blockSize, (offset+length-1)/blockSize, window) {
		select {
		case <-one.ready:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
		if one.err != nil {
			return 0, one.err
		}
		done += copy(to[done:length], one.data[offset+int64(done)-one.index*blockSize:])
	}
	return done, nil
}
