package paramserver

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// helloWithin is how long a connection may take to say who it is.
const helloWithin = 10 * time.Second

// lastWords is how long a connection lives on after the run has failed.
const lastWords = 2 * time.Second

// session is one worker's connection. One goroutine reads it, another answers.
type session struct {
	server *server
	conn   net.Conn
	wire   *wire
	worker int
	ended  chan struct{}
	gone   bool // guarded by the shard's lock
	once   sync.Once
}

func (n *session) close() { n.once.Do(func() { _ = n.conn.Close() }) } // what was said was flushed

// expire gives the session so much time to say its last.
func (n *session) expire(d time.Duration) {
	if n.conn.SetDeadline(time.Now().Add(d)) != nil {
		n.close()
	}
}

// answer is what the writing goroutine is to send next.
type answer struct {
	kind  kind
	chunk int
	step  uint64 // for weights: the step that must be reached
}

func (s *server) serve(conn net.Conn) {
	n := &session{server: s, conn: conn, wire: newWire(conn), ended: make(chan struct{})}
	defer n.close()
	if err := n.greet(); err != nil {
		s.Log.Warn("turned away", "peer", conn.RemoteAddr().String(), "error", err)
		_ = n.wire.writeText(header{Kind: kindFail}, err.Error()) // it may have hung up already
		return
	}
	s.join(n)
	defer s.leave(n)
	welcome := header{Kind: kindWelcome}
	if s.shard.ready() {
		welcome.Step = 1
	}
	if n.wire.write(welcome, nil) != nil || n.wire.out.Flush() != nil {
		return
	}
	// Room for a push of every chunk, so that reading never waits for answering: a worker
	// may send all of its push before it reads.
	answers := make(chan answer, 2*len(s.shard.chunks)+4)
	var writer sync.WaitGroup
	writer.Go(func() { n.answerAll(answers) })
	err := n.read(answers)
	if fault.Is(err, fault.Invalid) || fault.Is(err, fault.Conflict) {
		s.Log.Error("worker", "worker", n.worker, "error", err)
		s.shard.fail(fault.New(fault.KindOf(err), "parameter server %d: %w", s.Index, err))
		s.wake()
	} else {
		s.shard.abandon(&n.gone) // what waits to be answered is for nobody
	}
	close(answers)
	writer.Wait()
	if s.failure() != nil {
		n.drain()
	}
}

// drain reads on for a moment: closing a connection with unread bytes would reset it, and
// the worker might lose the reason that was just sent.
func (n *session) drain() {
	n.expire(lastWords)
	_, _ = io.Copy(io.Discard, n.wire.in) // it ends with the worker's hanging up, or the deadline
}

// greet reads the hello and checks that it belongs to this run.
func (n *session) greet() error {
	if err := n.conn.SetDeadline(time.Now().Add(helloWithin)); err != nil {
		return err
	}
	h, err := n.wire.next()
	if err != nil {
		return err
	}
	if h.Kind != kindHello {
		return fault.New(fault.Invalid, "frame kind %d before hello", h.Kind)
	}
	digest, err := n.wire.readText(h)
	if err != nil {
		return err
	}
	s := n.server
	n.worker = int(h.Worker)
	switch {
	case digest != greeting(s.Digest, s.Index, s.Servers, s.Workers, s.Parameters):
		return fault.New(fault.Conflict, "parameter server %d: worker %d belongs to another run (%q)", s.Index, n.worker, digest)
	case n.worker >= s.Workers:
		return fault.New(fault.Conflict, "parameter server %d: worker %d of %d", s.Index, n.worker, s.Workers)
	}
	if err := s.Identity.checkPeer(n.conn, roleWorker, n.worker); err != nil {
		return err
	}
	return n.conn.SetDeadline(time.Time{})
}

// read takes frames until the worker hangs up, or sends what it may not.
func (n *session) read(answers chan<- answer) error {
	for {
		h, err := n.wire.next()
		if err != nil {
			return err
		}
		switch h.Kind {
		case kindPush:
			err = n.push(h, answers)
		case kindState:
			err = n.state(h)
		case kindPull:
			for c := range n.server.shard.chunks {
				err = errors.Join(err, post(answers, answer{kindWeights, c, 0}))
			}
		case kindSlots:
			err = post(answers, answer{kind: kindSlots})
		case kindDone:
			n.server.shard.finish(n.worker)
			err = post(answers, answer{kind: kindDone})
			n.server.wake()
		case kindFail:
			reason, _ := n.wire.readText(h) // half a reason is better than none
			return fault.New(fault.Conflict, "worker %d failed: %s", n.worker, reason)
		default:
			err = fault.New(fault.Invalid, "worker %d: frame kind %d is not for a server", n.worker, h.Kind)
		}
		if err != nil {
			return err
		}
	}
}

// post refuses more questions than a well-behaved worker has.
func post(answers chan<- answer, a answer) error {
	select {
	case answers <- a:
		return nil
	default:
		return fault.New(fault.Invalid, "more questions than answers taken")
	}
}

func (n *session) push(h header, answers chan<- answer) error {
	shard := n.server.shard
	c, err := shard.chunkAt(h)
	if err != nil {
		return err
	}
	to, err := shard.place(h, n.worker, c)
	if err != nil {
		return err
	}
	taken := to == nil && h.Count > 0
	if taken {
		to = make([]float32, h.Count)
	}
	if err := n.wire.readValues(to); err != nil {
		return err
	}
	if !taken {
		shard.take(h, n.worker, c)
	}
	return post(answers, answer{kindWeights, c, h.Step + 1})
}

// state takes a chunk of what worker 0 begins with.
func (n *session) state(h header) error {
	shard := n.server.shard
	if n.worker != 0 || shard.ready() {
		return fault.New(fault.Invalid, "worker %d sends weights: only worker 0 may, once", n.worker)
	}
	section, err := shard.section(h.Slot)
	if err != nil {
		return err
	}
	if _, err := shard.chunkAt(h); err != nil {
		return err
	}
	if h.Slot == 0 && h.Offset == 0 {
		shard.restart()
	}
	if err := n.wire.readValues(section[h.Offset : h.Offset+h.Count]); err != nil {
		return err
	}
	shard.fill(int(h.Count), h.Step)
	return nil
}

// answerAll sends answers in order until there are no more or the connection breaks. If
// the run fails meanwhile, it says so.
func (n *session) answerAll(answers <-chan answer) {
	over := n.server.shard.over
	for open := true; open; {
		var a answer
		select {
		case a, open = <-answers:
			if open && n.send(a, len(answers) == 0) != nil {
				open = false
			}
		case <-over:
			// All done is no failure: the last worker still gets its answer.
			over, open = nil, errors.Is(n.server.failure(), errFinished)
		}
	}
	err := n.server.failure()
	if err == nil || errors.Is(err, errFinished) {
		n.close()
		return
	}
	n.expire(lastWords)
	_ = n.wire.writeText(header{Kind: kindFail}, err.Error()) // if it is gone, it will find out
}

func (n *session) send(a answer, last bool) error {
	err := n.answer(a)
	if err == nil && last {
		err = n.wire.out.Flush()
	}
	return err
}

func (n *session) answer(a answer) error {
	shard := n.server.shard
	switch a.kind {
	case kindWeights:
		h, values, err := shard.await(a.chunk, a.step, &n.gone)
		if err != nil {
			return err
		}
		defer shard.release(a.chunk, a.chunk+1)
		if err := n.wire.write(h, values); err != nil {
			return err
		}
		return n.wire.out.Flush()
	case kindSlots:
		shard.hold()
		defer shard.release(0, len(shard.chunks))
		for i, slot := range shard.slots {
			err := chunks(len(slot), func(from, to int) error {
				return n.wire.write(header{Kind: kindSlots, Slot: uint8(i + 1), Offset: uint32(from)}, slot[from:to])
			})
			if err != nil {
				return err
			}
		}
		return nil
	default:
		return n.wire.write(header{Kind: a.kind}, nil)
	}
}
