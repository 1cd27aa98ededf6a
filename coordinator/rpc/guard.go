package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/request"
	"github.com/clary-ml/clary/proto/wire"
)

// Guard is what every call passes before it reaches a service, and behind it.
type Guard struct {
	ID      string // of this coordinator
	Replica Replica
	Now     func() time.Time // against which tokens expire
	Audit   *Auditor         // nil: nothing is put on record
	// Observe is told of every call that has ended, if it is set: outcome is cluster.OutcomeOK or the
	// name of the error's kind.
	Observe func(method, outcome string, took time.Duration)
	// Believes says why a node whose certificate is genuine is not believed any more; nil believes all.
	Believes func(tls.ConnectionState) error
	Abreast  *Abreast // ends streams that follow the state when this coordinator does not; nil ends none
	// Life of the cluster that this coordinator is of: it answers no coordinator of another.
	Life string
	// Refuses says why the cluster takes in nothing new; nil: it always does.
	Refuses func() error
	Log     *slog.Logger

	gate      gate
	strangers atomic.Int64 // calls of theirs that are on their way
}

// Options are the server options that put the guard before every method and turn
// errors into statuses behind it.
//
// A service that panics answers Internal and the coordinator lives: services hold nothing
// that half a request could leave broken, and a request that found a defect would be sent
// to the next coordinator, and the next. What the log's commands find broken still stops
// the process: they run elsewhere.
func (g *Guard) Options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InTapHandle(g.meet),
		grpc.UnaryInterceptor(func(ctx context.Context, message any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
			c := g.enter(ctx, info.FullMethod)
			c.message = message
			c.act.about(message)
			err = c.run(func(ctx context.Context) error {
				answer, err = handler(ctx, message)
				return err
			})
			return answer, err
		}),
		grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			c := g.enter(stream.Context(), info.FullMethod)
			c.stream = true
			return c.run(func(ctx context.Context) error {
				return g.following(ctx, info.FullMethod, func(ctx context.Context) error {
					return handler(server, &guardedStream{ServerStream: stream, ctx: ctx, act: c.act})
				})
			})
		}),
	}
}

// following serves a stream, if that follows the state, for as long as this coordinator does.
func (g *Guard) following(ctx context.Context, method string, serve func(context.Context) error) error {
	if g.Abreast == nil || !needs[method].follows {
		return serve(ctx)
	}
	ctx, done, err := g.Abreast.follow(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = serve(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errBehind) {
		return errBehind
	}
	return err
}

// call is one call on its way through the guard.
type call struct {
	guard  *Guard
	ctx    context.Context
	method string
	begun  time.Time
	act    *act

	message any  // of a unary call
	stream  bool // it is one
	// unrecorded: it was refused for a limit, or for full disks. That is not put on record: it would fill the log.
	unrecorded bool
}

func (g *Guard) enter(ctx context.Context, method string) *call {
	ctx = request.Accept(ctx)
	now := g.Now()
	return &call{guard: g, ctx: ctx, method: method, begun: now, act: newAct(ctx, method, now)}
}

// run admits the caller and has the service answer, or says why not.
func (c *call) run(handle func(context.Context) error) error {
	err := c.answer(handle)
	return wire.ToStatus(c.conclude(err))
}

func (c *call) answer(handle func(context.Context) error) (err error) {
	defer c.survive(&err)
	ctx, err := c.guard.admit(c.ctx, c.method)
	c.act.by(caller(ctx))
	if err != nil {
		c.act.refused = true
		return err
	}
	done, err := c.admitted(ctx)
	if err != nil {
		c.unrecorded = true
		return err
	}
	defer done()
	if c.guard.Audit != nil && changes(c.method) && !passedOn(ctx) {
		ctx = context.WithValue(ctx, actKey{}, c.act)
	}
	return handle(ctx)
}

// survive turns a panic into an error.
func (c *call) survive(err *error) {
	if broken := recover(); broken != nil {
		c.guard.Log.ErrorContext(c.ctx, "a defect: a service panicked", "method", c.method, "panic", broken, "stack", string(debug.Stack()))
		*err = fault.New(fault.Internal, "%s failed by a defect", c.method)
	}
}

// conclude tells everyone who follows calls of this one's end. An error that only the log explains says
// where to look.
func (c *call) conclude(err error) error {
	outcome := outcomeOf(err)
	took := c.guard.Now().Sub(c.begun)
	if c.guard.Observe != nil {
		c.guard.Observe(c.method, outcome, took)
	}
	if c.guard.Audit != nil && !c.unrecorded {
		c.guard.Audit.conclude(c.ctx, c.act, c.act.refused || changes(c.method), outcome, err)
	}
	level := slog.LevelDebug
	if outcome == fault.Internal.String() {
		level = slog.LevelError
		err = fault.New(fault.Internal, "%w (request %s: look for it in the log of coordinator %s)", err, request.ID(c.ctx), c.guard.ID)
	}
	c.guard.Log.Log(c.ctx, level, "call", "method", c.method, "user", c.act.deed.User, "from", c.act.deed.From, "outcome", outcome, "took", took, "error", err)
	return err
}

// guardedStream has the caller's identity, and notes what its first message is about.
type guardedStream struct {
	grpc.ServerStream
	ctx context.Context
	act *act
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(message any) error {
	err := s.ServerStream.RecvMsg(message)
	if err == nil {
		s.act.about(message)
	}
	return err
}

// outcomeOf names how a call ended: cluster.OutcomeOK, the kind of its error, or "ended" if its caller
// went away.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return cluster.OutcomeOK
	case errors.Is(wire.FromStatus(err), context.Canceled), errors.Is(wire.FromStatus(err), context.DeadlineExceeded):
		return "ended"
	}
	return fault.KindOf(wire.FromStatus(wire.ToStatus(err))).String()
}
