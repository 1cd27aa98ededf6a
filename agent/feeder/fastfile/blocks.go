package fastfile

import (
	"container/list"
	"context"
	"errors"
	"io"
	"sync"

	"github.com/clary-ml/clary/agent/staging"
)

const (
	blockSize    = 1 << 20
	maxWindow    = 16 // blocks that are fetched before they are asked for
	maxTransfers = 8  // fetches at a time
	maxSpare     = 8  // blocks' memory that is kept for the next
	maxReads     = 32 // reads that are answered at a time: a task may begin thousands
)

// Blocks is what is kept in memory of all files, least recently used out first. The
// kernel keeps what was read as well, as of any file; these are for what it asks next.
type Blocks struct {
	ctx   context.Context //nolint:containedctx // a fetch outlives the read that began it
	end   context.CancelFunc
	store staging.Reader
	disk  *Disk
	most  int // blocks
	slots chan struct{}
	reads chan struct{}
	busy  sync.WaitGroup

	mu    sync.Mutex
	known map[place]*block
	order *list.List // of *block, the most recently used first
	spare [][]byte
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

// size is how long a block is.
func (s *source) size(index int64) int64 { return min(blockSize, s.object.Size-index*blockSize) }

type block struct {
	place
	ready chan struct{} // closed when data or err is there
	data  []byte
	err   error

	// Guarded by Blocks.mu.
	entry *list.Element
	users int  // reads that copy from it, and who fetches it
	read  bool // it was asked for, not only fetched ahead
}

// NewBlocks keeps so many bytes in memory, and what disk allows there; disk may be nil.
// Close ends what it fetches.
func NewBlocks(store staging.Reader, disk *Disk, bytes int64) *Blocks {
	ctx, cancel := context.WithCancel(context.Background())
	return &Blocks{
		ctx: ctx, end: cancel, store: store, disk: disk, most: int(max(bytes/blockSize, 2*maxWindow)),
		slots: make(chan struct{}, maxTransfers), reads: make(chan struct{}, maxReads), known: map[place]*block{}, order: list.New(),
	}
}

// Close ends what is being fetched, and waits for it.
func (b *Blocks) Close() {
	b.end()
	b.busy.Wait()
}

// want returns the blocks of a file from first to last, fetching what is missing; the
// caller releases them. It also begins to fetch what follows, up to window blocks, as soon
// as less than half of that is on its way.
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
			if at > last && !b.shrink(b.most-len(run), false) {
				break // what runs ahead does not push out what others fetched ahead
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
			have.users++
			have.read = true
			got = append(got, have)
		}
	}
	b.shrink(b.most, true)
	return got
}

// release says that the reads of these blocks are done.
func (b *Blocks) release(blocks []*block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range blocks {
		if one.users--; b.known[one.place] != one {
			b.recycle(one)
		}
	}
}

// recycle keeps the memory of a block that nobody can see any more.
func (b *Blocks) recycle(old *block) {
	if old.users == 0 && cap(old.data) == blockSize && len(b.spare) < maxSpare {
		b.spare = append(b.spare, old.data)
		old.data = nil
	}
}

func (b *Blocks) memory(size int64) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := len(b.spare) - 1; last >= 0 {
		data := b.spare[last]
		b.spare = b.spare[:last]
		return data[:size]
	}
	return make([]byte, size, blockSize)
}

// missing are the blocks from the first on that nobody fetches yet.
func (b *Blocks) missing(file *source, first, until int64) []*block {
	var run []*block
	for at := first; at < until && b.known[place{file, at}] == nil; at++ {
		run = append(run, &block{place: place{file, at}, ready: make(chan struct{}), users: 1})
	}
	return run
}

// shrink drops what was used longest ago, and reports whether no more than most are left.
// What is being fetched stays, and unless unread is given up too, what nobody has read yet.
func (b *Blocks) shrink(most int, unread bool) bool {
	for entry := b.order.Back(); entry != nil && len(b.known) > most; {
		old := entry.Value.(*block)
		entry = entry.Prev()
		select {
		case <-old.ready:
			if old.read || unread {
				b.forget(old)
			}
		default:
		}
	}
	return len(b.known) <= most
}

func (b *Blocks) forget(old *block) {
	if b.known[old.place] == old {
		delete(b.known, old.place)
		b.order.Remove(old.entry)
		b.recycle(old)
	}
}

// fetch fills a run of blocks, from the disk or with one request for what is not there.
func (b *Blocks) fetch(file *source, run []*block) {
	select { // before there is memory for any
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
	case <-b.ctx.Done():
		b.giveUp(run, context.Cause(b.ctx))
		return
	}
	var body io.ReadCloser
	for i, one := range run {
		data := b.memory(file.size(one.index))
		if body == nil && b.disk.read(file, one.index, data) {
			b.settle(one, data, nil)
			b.release(run[i : i+1])
			continue
		}
		if body == nil {
			from := one.index * blockSize
			to := min((run[len(run)-1].index+1)*blockSize, file.object.Size)
			body = staging.OpenRange(b.ctx, b.store, file.bucket, file.object, from, to-from)
			defer body.Close() //nolint:errcheck // only read
		}
		if _, err := io.ReadFull(body, data); err != nil {
			b.giveUp(run[i:], err)
			return
		}
		b.settle(one, data, nil) // who waits for it does not wait for the disk
		b.disk.write(file, one.index, data)
		b.release(run[i : i+1])
	}
}

func (b *Blocks) settle(one *block, data []byte, err error) {
	one.data, one.err = data, err
	close(one.ready)
}

// giveUp forgets what cannot be had, so that the next read tries again.
func (b *Blocks) giveUp(run []*block, err error) {
	b.mu.Lock()
	for _, one := range run {
		b.forget(one)
	}
	b.mu.Unlock()
	for _, one := range run {
		b.settle(one, nil, err)
	}
	b.release(run)
}

// read fills to with what stands at an offset, and returns how many bytes there were.
func (b *Blocks) read(ctx context.Context, c *cursor, to []byte, offset int64) (int, error) {
	length := min(int64(len(to)), c.file.object.Size-offset)
	if length <= 0 || offset < 0 {
		return 0, nil
	}
	select {
	case b.reads <- struct{}{}:
		defer func() { <-b.reads }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	blocks := b.want(c.file, offset/blockSize, (offset+length-1)/blockSize, c.advance(offset, length))
	defer b.release(blocks)
	done := 0
	for _, one := range blocks {
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
	if int64(done) != length {
		return 0, errors.New("a block is too short")
	}
	return done, nil
}
