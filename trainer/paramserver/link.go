package paramserver

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// link is the connection to one server. When it breaks, the operation that was under way
// is begun again on a new one: every operation may be repeated.
type link struct {
	options     ClientOptions
	address     string
	index       int
	from, to    int // of the arena
	wire        *wire
	conn        net.Conn
	initialized bool // the server had weights when it last said welcome
	joined      bool
}

// attempt is one try of an operation over a connection that stands.
type attempt struct {
	*link
	wire *wire
}

const (
	redialFirst = 10 * time.Millisecond
	redialMost  = time.Second
)

// retry runs an operation until it succeeds, the server refuses it, ctx ends, or no
// connection could be had for so long.
func (l *link) retry(ctx context.Context, within time.Duration, operation func(*attempt) error) error {
	wait := redialFirst
	var deadline time.Time
	for {
		err := l.once(ctx, operation)
		if err == nil || final(err) {
			return err
		}
		l.drop()
		if ctx.Err() != nil {
			return fault.New(fault.Unready, "parameter server %d: %w", l.index, context.Cause(ctx))
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(within)
		}
		if time.Now().After(deadline) {
			return fault.New(fault.Unready, "parameter server %d at %s is gone, waited %v: %w", l.index, l.address, within, err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, redialMost)
	}
}

// refused marks an error that the same question would meet again.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

func final(err error) bool {
	var r refused
	return errors.As(err, &r) || fault.Is(err, fault.Invalid) || fault.Is(err, fault.Denied)
}

func (l *link) once(ctx context.Context, operation func(*attempt) error) error {
	if l.wire == nil {
		if err := l.dial(ctx); err != nil {
			return err
		}
	}
	conn := l.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes whoever waits
	defer stop()
	return operation(&attempt{l, l.wire})
}

func (l *link) drop() {
	if l.conn != nil {
		_ = l.conn.Close() // nothing unsaid is worth an error
	}
	l.conn, l.wire = nil, nil
}

// dial connects and says hello.
func (l *link) dial(ctx context.Context) error {
	dialer := net.Dialer{Timeout: helloWithin, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	plain, err := dialer.DialContext(ctx, "tcp", l.address)
	if err != nil {
		return err
	}
	conn, err := l.options.Identity.client(plain, l.address, l.index)
	if err != nil {
		return errors.Join(err, plain.Close())
	}
	w := newWire(conn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := l.greet(conn, w); err != nil {
		_ = conn.Close() // the greeting's error is the one that matters
		return err
	}
	l.conn, l.wire, l.joined = conn, w, true
	return nil
}

func (l *link) greet(conn net.Conn, w *wire) error {
	if err := conn.SetDeadline(time.Now().Add(helloWithin)); err != nil {
		return err
	}
	o := l.options
	text := greeting(o.Digest, l.index, len(o.Addresses), o.Workers, o.Parameters)
	if err := w.writeText(header{Kind: kindHello, Worker: uint16(o.Worker)}, text); err != nil {
		return err
	}
	a := &attempt{l, w}
	h, err := a.next(kindWelcome)
	if err != nil {
		return err
	}
	if l.initialized && h.Step == 0 {
		return refused{fault.New(fault.Unready, "parameter server %d has lost its weights: the run must start again from its last checkpoint", l.index)}
	}
	l.initialized = h.Step == 1
	return conn.SetDeadline(time.Time{})
}

func (l *link) fail(reason error) {
	if l.conn == nil {
		return
	}
	if l.conn.SetDeadline(time.Now().Add(time.Second)) == nil {
		_ = l.wire.writeText(header{Kind: kindFail}, reason.Error()) // it will notice anyway, later
	}
}

// next reads a header of one kind; if it says that the run failed, that is the error.
func (a *attempt) next(want kind) (header, error) {
	h, err := a.wire.next()
	if err != nil {
		return h, err
	}
	if h.Kind == kindFail {
		reason, err := a.wire.readText(h)
		if err != nil {
			return h, err
		}
		return h, refused{fault.New(fault.Unready, "%s", reason)}
	}
	if h.Kind != want {
		return h, fault.New(fault.Invalid, "parameter server %d: frame kind %d, expected %d", a.index, h.Kind, want)
	}
	return h, nil
}

func (a *attempt) expect(want kind) error {
	_, err := a.next(want)
	return err
}

func (a *attempt) ask(k kind) error {
	if err := a.wire.write(header{Kind: k}, nil); err != nil {
		return err
	}
	return a.wire.out.Flush()
}

func (a *attempt) sendState(s State) error {
	for slot, values := range append([][]float32{s.Weights}, s.Slots...) {
		block := values[a.from:a.to]
		err := chunks(len(block), func(from, to int) error {
			return a.wire.write(header{Kind: kindState, Slot: uint8(slot), Step: s.Step, Offset: uint32(from)}, block[from:to])
		})
		if err != nil {
			return err
		}
	}
	if a.from == a.to { // a block without values still has to be begun
		if err := a.wire.write(header{Kind: kindState, Step: s.Step}, nil); err != nil {
			return err
		}
	}
	return a.wire.out.Flush()
}

// exchange pushes chunk after chunk while the answers to the first ones come in.
func (a *attempt) exchange(step uint64, gradient, weights []float32, mine Stats) (Stats, error) {
	sent := make(chan error, 1)
	go func() { sent <- a.push(step, gradient[a.from:a.to], mine) }()
	at, sum, err := a.readWeights(weights, step+1)
	if err != nil {
		_ = a.conn.SetWriteDeadline(time.Unix(1, 0)) // so that the push ends
	}
	pushed := <-sent
	if err == nil && at != step+1 {
		err = fault.New(fault.Invalid, "parameter server %d answers step %d to a push of step %d", a.index, at, step)
	}
	if err != nil {
		return sum, err
	}
	return sum, pushed
}

func (a *attempt) push(step uint64, block []float32, mine Stats) error {
	send := func(from, to int) error {
		return a.wire.write(header{Kind: kindPush, Step: step, Offset: uint32(from), Stats: mine}, block[from:to])
	}
	err := chunks(len(block), send)
	if err == nil && len(block) == 0 {
		err = send(0, 0)
	}
	if err != nil {
		return err
	}
	return a.wire.out.Flush()
}

// readWeights fills the server's part of an arena.
func (a *attempt) readWeights(weights []float32, least uint64) (step uint64, sum Stats, err error) {
	block := weights[a.from:a.to]
	read := func(from, to int) error {
		h, err := a.next(kindWeights)
		if err != nil {
			return err
		}
		if int(h.Offset) != from || int(h.Count) != to-from || h.Step < least || (from > 0 && h.Step != step) {
			return fault.New(fault.Invalid, "parameter server %d: weights %d+%d of step %d, expected %d+%d of step %d", a.index, h.Offset, h.Count, h.Step, from, to-from, least)
		}
		step, sum = h.Step, h.Stats
		return a.wire.readValues(block[from:to])
	}
	if len(block) == 0 {
		err = read(0, 0)
		return step, sum, err
	}
	err = chunks(len(block), read)
	return step, sum, err
}

func (a *attempt) readSlots(slots [][]float32) error {
	for i := range slots {
		block := slots[i][a.from:a.to]
		err := chunks(len(block), func(from, to int) error {
			h, err := a.next(kindSlots)
			if err != nil {
				return err
			}
			if int(h.Slot) != i+1 || int(h.Offset) != from || int(h.Count) != to-from {
				return fault.New(fault.Invalid, "parameter server %d: optimizer state %d at %d+%d, expected %d at %d+%d", a.index, h.Slot, h.Offset, h.Count, i+1, from, to-from)
			}
			return a.wire.readValues(block[from:to])
		})
		if err != nil {
			return err
		}
	}
	return nil
}
