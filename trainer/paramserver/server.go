package paramserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/spec"
)

// Limits of a run's size.
const (
	MaxWorkers = 1024
	MaxServers = 1024
)

// ServerOptions is what one server needs to know.
type ServerOptions struct {
	Index, Servers, Workers int
	// Parameters is the length of the whole arena.
	Parameters int
	Optimizer  spec.Optimizer
	// Digest of the run: a worker with another is turned away.
	Digest string
	// Identity proves who is who; nil is allowed on a loopback address alone.
	Identity *Identity
	// JoinWithin is how long all workers may take to appear, Grace how long one may be
	// gone later on, StopWithin how long they may take to end once the server was told to.
	JoinWithin, Grace, StopWithin time.Duration
	Log                           *slog.Logger
}

// Defaults of the waiting times.
const (
	DefaultJoinWithin = 10 * time.Minute
	DefaultGrace      = 30 * time.Second
	DefaultStopWithin = 100 * time.Second
)

func (o *ServerOptions) complete() error {
	if o.Workers < 1 || o.Workers > MaxWorkers || o.Servers < 1 || o.Servers > MaxServers || o.Index < 0 || o.Index >= o.Servers {
		return fault.New(fault.Invalid, "parameter server %d of %d for %d workers: give 1 to %d of each", o.Index, o.Servers, o.Workers, MaxServers)
	}
	if o.Parameters < 1 || o.Parameters > spec.MaxParameters {
		return fault.New(fault.Invalid, "%d parameters: give 1 to %d", o.Parameters, spec.MaxParameters)
	}
	setDefault(&o.JoinWithin, DefaultJoinWithin)
	setDefault(&o.Grace, DefaultGrace)
	setDefault(&o.StopWithin, DefaultStopWithin)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return checkMachine()
}

func setDefault(d *time.Duration, v time.Duration) {
	if *d == 0 {
		*d = v
	}
}

// server is a shard and the connections to it.
type server struct {
	ServerOptions
	shard *shard

	mu       sync.Mutex
	sessions []*session // by worker, nil while it is gone
	events   chan struct{}
}

// Serve holds one block until every worker is done; then it returns nil. It returns an
// error when a worker stays away too long or says that it failed. When ctx ends it asks
// the workers to stop and waits for that. It closes the listener.
func Serve(ctx context.Context, listener net.Listener, o ServerOptions) error {
	if err := o.complete(); err != nil {
		return errors.Join(err, listener.Close())
	}
	secured, err := o.Identity.listen(listener, o.Index)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	from, to := Block(o.Parameters, o.Servers, o.Index)
	s := &server{
		ServerOptions: o, shard: newShard(to-from, o.Workers, o.Optimizer),
		sessions: make([]*session, o.Workers), events: make(chan struct{}, 1),
	}
	group, inner := errgroup.WithContext(context.WithoutCancel(ctx))
	group.Go(func() error { return s.accept(inner, secured) })
	group.Go(func() error {
		err := s.watch(ctx)
		s.shard.fail(orElse(err, errFinished))
		s.hangUp()
		return errors.Join(orElse(err, errFinished), closeListener(secured))
	})
	if err := group.Wait(); !errors.Is(err, errFinished) {
		return err
	}
	return nil
}

// errFinished ends the group of a server whose work is done.
var errFinished = errors.New("all workers are done")

func orElse(err, other error) error {
	if err == nil {
		return other
	}
	return err
}

func closeListener(l net.Listener) error {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// accept serves connections until the listener is closed.
func (s *server) accept(ctx context.Context, listener net.Listener) error {
	var group errgroup.Group
	group.SetLimit(4 * s.Workers)
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			s.Log.Warn("accept", "error", err)
			if pause(ctx, 50*time.Millisecond) != nil {
				break
			}
			continue
		}
		if !group.TryGo(func() error { s.serve(conn); return nil }) {
			s.Log.Warn("too many connections", "peer", conn.RemoteAddr().String())
			_ = conn.Close() // it was never used
		}
	}
	return group.Wait()
}

// watch returns once all is over: nil if every worker is done.
func (s *server) watch(ctx context.Context) error {
	gone := make([]time.Time, s.Workers)
	begin := time.Now()
	for i := range gone {
		gone[i] = begin.Add(s.JoinWithin)
	}
	tick := time.NewTicker(max(s.Grace/20, time.Millisecond))
	defer tick.Stop()
	told, stop := ctx.Done(), time.Time{}
	for {
		select {
		case <-s.events:
		case <-tick.C:
		case <-told:
			told, stop = nil, time.Now().Add(s.StopWithin)
			s.shard.interrupt()
			if !s.shard.ready() {
				return fault.New(fault.Unready, "told to stop before the training began: %w", context.Cause(ctx))
			}
		}
		if s.shard.allDone() {
			return nil
		}
		if err := s.failure(); err != nil {
			return err
		}
		if !stop.IsZero() && time.Now().After(stop) {
			return fault.New(fault.Unready, "told to stop, and the workers did not end within %v", s.StopWithin)
		}
		if err := s.absent(gone, time.Now()); err != nil {
			return err
		}
	}
}

func (s *server) failure() error {
	s.shard.mu.Lock()
	defer s.shard.mu.Unlock()
	return s.shard.err
}

// absent says which worker has been away for too long; gone is until when each may be.
func (s *server) absent(gone []time.Time, now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w, session := range s.sessions {
		switch {
		case session != nil:
			gone[w] = time.Time{}
		case s.shard.isDone(w):
		case gone[w].IsZero():
			gone[w] = now.Add(s.Grace)
		case now.After(gone[w]):
			return fault.New(fault.Unready, "parameter server %d: worker %d is gone (waited %v for it, %v at the start): the run must start again from its last checkpoint", s.Index, w, s.Grace, s.JoinWithin)
		}
	}
	return nil
}

func (s *server) wake() {
	select {
	case s.events <- struct{}{}:
	default:
	}
}

// hangUp closes every connection, once each had time for what is still to be said.
func (s *server) hangUp() {
	s.mu.Lock()
	sessions := append([]*session(nil), s.sessions...)
	s.mu.Unlock()
	for _, session := range sessions {
		if session != nil {
			session.expire(lastWords)
		}
	}
}

// join makes a session the one of its worker, and ends the one before.
func (s *server) join(n *session) {
	s.mu.Lock()
	old := s.sessions[n.worker]
	s.sessions[n.worker] = n
	s.mu.Unlock()
	if old != nil {
		old.close()
		<-old.ended
	}
	s.wake()
}

func (s *server) leave(n *session) {
	s.mu.Lock()
	if s.sessions[n.worker] == n {
		s.sessions[n.worker] = nil
	}
	s.mu.Unlock()
	close(n.ended)
	s.wake()
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait: %w", context.Cause(ctx))
	}
}
