package paramserver

import (
	"errors"
	"sync"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

// shard is one server's block with the rounds that go on over it. Each chunk is a small
// state machine of its own:
//
//	waiting for pushes of step k ──last worker's push──► applying ──► waiting, step k+1
//
// A push of a step that a chunk has behind it is answered and changes nothing.
type shard struct {
	mu      sync.Mutex
	changed *sync.Cond
	err     error         // why it is over; set once
	over    chan struct{} // closed when err is set

	workers int
	weights []float32
	slots   [][]float32
	pushed  [][]float32 // by worker
	chunks  []chunk
	update  update

	filled      int // values of the state received from worker 0
	initialized bool
	done        []bool // by worker
	interrupted bool
}

type chunk struct {
	step    uint64
	readers int    // answers that are being written from its values
	arrived []bool // by worker
	stats   []Stats
	sum     Stats // of the last round applied
}

func newShard(n, workers int, o spec.Optimizer) *shard {
	s := &shard{workers: workers, weights: make([]float32, n), update: updateOf(o), done: make([]bool, workers), over: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	for range o.Slots() {
		s.slots = append(s.slots, make([]float32, n))
	}
	for range workers {
		s.pushed = append(s.pushed, make([]float32, n))
	}
	// A block without values still has one chunk, so that its server takes part in rounds.
	for range max((n+chunkLen-1)/chunkLen, 1) {
		s.chunks = append(s.chunks, chunk{arrived: make([]bool, workers), stats: make([]Stats, workers)})
	}
	return s
}

// bounds are the values of a chunk.
func (s *shard) bounds(c int) (from, to int) {
	return c * chunkLen, min((c+1)*chunkLen, len(s.weights))
}

// chunkAt is the chunk that a header names, if it names a whole one.
func (s *shard) chunkAt(h header) (int, error) {
	c := int(h.Offset) / chunkLen
	if c < len(s.chunks) && int(h.Offset)%chunkLen == 0 {
		if from, to := s.bounds(c); int(h.Count) == to-from {
			return c, nil
		}
	}
	return 0, fault.New(fault.Invalid, "frame: offset %d with %d values is no chunk of a block of %d", h.Offset, h.Count, len(s.weights))
}

// place says where a push's values go, or nil if this push was taken before.
func (s *shard) place(h header, worker, c int) ([]float32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := &s.chunks[c]
	from, to := s.bounds(c)
	switch {
	case s.err != nil:
		return nil, s.err
	case !s.initialized:
		return nil, fault.New(fault.Conflict, "worker %d pushes before there are weights", worker)
	case h.Step == k.step && !k.arrived[worker]:
		return s.pushed[worker][from:to], nil
	case h.Step == k.step || h.Step+1 == k.step:
		return nil, nil
	}
	return nil, fault.New(fault.Conflict, "worker %d pushes step %d: this server is at step %d", worker, h.Step, k.step)
}

// take notes that a worker's chunk is whole, and applies the round if it was the last.
// No one else touches the chunk meanwhile: every worker waits for its weights.
func (s *shard) take(h header, worker, c int) {
	s.mu.Lock()
	k := &s.chunks[c]
	if k.step != h.Step || k.arrived[worker] {
		s.mu.Unlock()
		return
	}
	k.arrived[worker], k.stats[worker] = true, h.Stats
	for _, a := range k.arrived {
		if !a {
			s.mu.Unlock()
			return
		}
	}
	// Every worker has its weights, or it would not have pushed; the call that wrote them
	// to the wire may yet have to return.
	for k.readers > 0 {
		s.changed.Wait()
	}
	s.mu.Unlock()

	from, to := s.bounds(c)
	sum := s.pushed[0][from:to]
	for w := 1; w < s.workers; w++ {
		add(sum, s.pushed[w][from:to])
	}
	slots := make([][]float32, len(s.slots))
	for i := range slots {
		slots[i] = s.slots[i][from:to]
	}
	s.update(s.weights[from:to], sum, slots, h.Step+1)

	s.mu.Lock()
	defer s.mu.Unlock()
	k.sum = Stats{}
	for w := range k.stats {
		k.sum.Add(k.stats[w])
		k.arrived[w] = false
	}
	if s.interrupted {
		k.sum.Interrupt++
	}
	k.step++
	s.changed.Broadcast()
}

func add(to, from []float32) {
	from = from[:len(to)]
	for i := range to {
		to[i] += from[i]
	}
}

// await waits until a chunk is past a step and returns its header and values, which stay
// as they are until release.
func (s *shard) await(c int, after uint64, gone *bool) (header, []float32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !*gone && s.err == nil && (!s.initialized || s.chunks[c].step < after) {
		s.changed.Wait()
	}
	if *gone {
		return header{}, nil, errGone
	}
	if s.err != nil {
		return header{}, nil, s.err
	}
	from, to := s.bounds(c)
	k := &s.chunks[c]
	k.readers++
	return header{Kind: kindWeights, Step: k.step, Offset: uint32(from), Stats: k.sum}, s.weights[from:to], nil
}

// hold keeps every chunk, with its slots, as it is until release.
func (s *shard) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.chunks {
		s.chunks[c].readers++
	}
}

// release ends what await or hold began for the chunks from up to to.
func (s *shard) release(from, to int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := from; c < to; c++ {
		s.chunks[c].readers--
	}
	s.changed.Broadcast()
}

// errGone ends the waiting of a connection that is no more.
var errGone = errors.New("the connection is gone")

// abandon ends what a connection waits for; gone is guarded by the shard's lock.
func (s *shard) abandon(gone *bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*gone = true
	s.changed.Broadcast()
}

// section is the array that a state frame is a chunk of.
func (s *shard) section(slot uint8) ([]float32, error) {
	switch {
	case slot == 0:
		return s.weights, nil
	case int(slot) <= len(s.slots):
		return s.slots[slot-1], nil
	}
	return nil, fault.New(fault.Invalid, "frame: slot %d, the optimizer has %d", slot, len(s.slots))
}

// restart forgets a half received state, because its sender begins anew.
func (s *shard) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.filled = 0
}

// fill notes so many values of the state; once all are there, rounds begin at the step.
func (s *shard) fill(values int, step uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.filled += values; s.filled < len(s.weights)*(1+len(s.slots)) {
		return
	}
	for c := range s.chunks {
		s.chunks[c].step = step
	}
	s.initialized = true
	s.changed.Broadcast()
}

func (s *shard) ready() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.initialized
}

// finish notes that a worker needs nothing more.
func (s *shard) finish(worker int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[worker] = true
	s.changed.Broadcast()
}

func (s *shard) isDone(worker int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done[worker]
}

func (s *shard) allDone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.done {
		if !d {
			return false
		}
	}
	return true
}

// interrupt asks every worker to end after the round that goes on.
func (s *shard) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupted = true
}

// fail ends it for everyone who waits.
func (s *shard) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
		close(s.over)
	}
	s.changed.Broadcast()
}
