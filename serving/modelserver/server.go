// Package modelserver answers requests for predictions: by the container contract (/ping and
// /invocations) and by the Open Inference Protocol v2.
//
// What computes is an Engine behind a queue that batches, or a Program that takes bodies whole. How
// much a server takes in at once is bounded: what is more is refused at once, with a remedy,
// rather than kept until it is too late.
package modelserver

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/modelserver/batch"
	"github.com/clary-ml/clary/serving/modelserver/payload"
	"github.com/clary-ml/clary/serving/modelserver/tensor"
)

// Engine computes answers to rows of tensors. It is called by several goroutines at once.
type Engine interface {
	Signature() tensor.Signature
	// Run answers requests, whose tensors are in the order and shape of the signature's inputs.
	Run(ctx context.Context, requests [][]tensor.Tensor) []tensor.Answer
}

// Program answers bodies as they are, whatever they hold.
type Program interface {
	// Invoke returns the answer and its content type, at most until ctx ends.
	Invoke(ctx context.Context, body []byte, contentType, accept string) (answer []byte, answerType string, err error)
	// Ready says why it cannot answer now, if so.
	Ready(ctx context.Context) error
}

// Streamer is a Program whose answers may come in parts.
type Streamer interface {
	Program
	// Stream is Invoke, but for an answer that comes in parts: each is handed to part, with the answer's
	// content type, and the result is empty. An error of part ends it.
	Stream(ctx context.Context, body []byte, contentType, accept string, part func(answerType string, data []byte) error) (answer []byte, answerType string, err error)
}

// Options say what is served, and within which bounds. What is 0 gets the default.
type Options struct {
	// Name and Version are of the model; v2 requests must name it.
	Name, Version string
	// One of the two computes.
	Engine  Engine
	Program Program
	// MaxBatch is the most rows of a batch (64), and MaxDelay how long one waits for others to
	// share it (not at all). Lanes are how many batches run at once (one for each processor).
	MaxBatch int
	MaxDelay time.Duration
	Lanes    int
	// MaxPayload is the most bytes of a body (16 MiB), MaxRequests how many are worked on or
	// waiting at once (1024), and MaxMemory what their bodies may have together (1 GiB).
	MaxPayload  int64
	MaxRequests int
	MaxMemory   int64
	// MaxRows is the most rows of a request (2^20).
	MaxRows int
	// Timeout is how long a request may take (60 s); Drain how long requests may go on once the
	// server is told to end (30 s).
	Timeout, Drain time.Duration
	Log            *slog.Logger
}

func (o *Options) complete() error {
	if o.Name == "" {
		o.Name = "model"
	}
	if o.Version == "" {
		o.Version = "1"
	}
	if o.MaxBatch < 0 || o.MaxDelay < 0 || o.Lanes < 0 || o.MaxPayload < 0 || o.MaxRequests < 0 || o.MaxMemory < 0 || o.MaxRows < 0 || o.Timeout < 0 || o.Drain < 0 {
		return fault.New(fault.Invalid, "a bound of the model server is negative: give 0 for the default, or more")
	}
	o.MaxBatch, o.MaxRequests, o.Lanes = cmp.Or(o.MaxBatch, 64), cmp.Or(o.MaxRequests, 1024), cmp.Or(o.Lanes, runtime.GOMAXPROCS(0))
	o.MaxPayload, o.MaxMemory, o.MaxRows = cmp.Or(o.MaxPayload, 16<<20), cmp.Or(o.MaxMemory, 1<<30), cmp.Or(o.MaxRows, 1<<20)
	o.Timeout, o.Drain = cmp.Or(o.Timeout, time.Minute), cmp.Or(o.Drain, 30*time.Second)
	if o.MaxMemory < o.MaxPayload {
		o.MaxMemory = o.MaxPayload
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Server serves one model.
type Server struct {
	options   Options
	signature tensor.Signature
	decoder   payload.Decoder
	queue     *batch.Queue[[]tensor.Tensor, []tensor.Tensor]
	metrics   *metrics
	draining  atomic.Bool
	gate      *Gate
}

// New makes a server of an engine that is ready.
func New(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{options: o}
	s.gate = NewGate(o.MaxRequests, o.MaxMemory)
	if o.Program != nil {
		s.signature.Platform = "python"
	} else {
		s.signature = o.Engine.Signature()
	}
	s.decoder.Inputs = s.signature.Inputs
	if m, ok := o.Engine.(interface{ Missing(string) bool }); ok {
		s.decoder.Missing = m.Missing
	}
	s.metrics = newMetrics(o, s.signature.Platform, s.gate)
	s.queue = batch.New(batch.Options{
		MaxRows: o.MaxBatch, MaxDelay: o.MaxDelay, MaxWaiting: o.MaxRequests, Lanes: o.Lanes, Ran: s.metrics.ran,
	}, s.run)
	return s, nil
}

func (s *Server) run(ctx context.Context, requests [][]tensor.Tensor) []batch.Outcome[[]tensor.Tensor] {
	answers := s.options.Engine.Run(ctx, requests)
	out := make([]batch.Outcome[[]tensor.Tensor], len(answers))
	for i, a := range answers {
		out[i] = batch.Outcome[[]tensor.Tensor]{Value: a.Tensors, Err: a.Err}
	}
	return out
}

// readHeader and idle bound connections that say nothing, slowest how long a body may be on its way.
const (
	readHeader = 10 * time.Second
	idle       = 2 * time.Minute
	slowest    = 30 * time.Second
)

// Run does what Handler needs, until ctx ends: for who has a listener of his own.
func (s *Server) Run(ctx context.Context) error { return s.queue.Run(ctx) }

// Serve answers on a listener, which it closes, until ctx ends; then it takes no more connections
// and lets what goes on be finished.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	group, running := errgroup.WithContext(context.WithoutCancel(ctx))
	running, end := context.WithCancel(running)
	defer end()
	group.Go(func() error { return s.queue.Run(running) })
	var answering handlers
	web := &http.Server{
		Handler: answering.counted(s.Handler()), BaseContext: func(net.Listener) context.Context { return running }, ReadHeaderTimeout: readHeader, IdleTimeout: idle,
		ReadTimeout: s.options.Timeout + slowest, WriteTimeout: s.options.Timeout + 2*slowest,
		ErrorLog: slog.NewLogLogger(s.options.Log.Handler(), slog.LevelDebug),
	}
	rpc, split := s.grpcServer(), newSplit(l)
	group.Go(split.run)
	group.Go(func() error { return ended(web.Serve(split.web), http.ErrServerClosed) })
	group.Go(func() error { return ended(rpc.Serve(split.rpc), grpc.ErrServerStopped) })
	group.Go(func() error {
		defer answering.end() // which come to their end since running does
		defer end()
		select {
		case <-ctx.Done():
		case <-running.Done(): // something else failed
		}
		s.draining.Store(true)
		split.close()
		s.drain(web, rpc, split)
		return nil
	})
	return group.Wait()
}

// ended leaves out that a server was told to end.
func ended(err, told error) error {
	if err == nil || errors.Is(err, told) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fault.New(fault.Internal, "serve: %w", err)
}

// drain waits for what goes on, and cuts off what takes too long.
func (s *Server) drain(web *http.Server, rpc *grpc.Server, split *split) {
	within, cancel := context.WithTimeout(context.Background(), s.options.Drain)
	defer cancel()
	var wait sync.WaitGroup
	graceful := make(chan struct{})
	wait.Go(func() {
		defer close(graceful)
		rpc.GracefulStop()
	})
	wait.Go(func() {
		select {
		case <-graceful:
		case <-within.Done():
			split.cut()
			rpc.Stop()
		}
	})
	if err := web.Shutdown(within); err != nil {
		s.options.Log.Warn("requests were cut off", "after", s.options.Drain)
		_ = web.Close() // there is nothing more to be done about them
	}
	wait.Wait()
}

// ready says why the server cannot answer now, if it cannot.
func (s *Server) ready(ctx context.Context) error {
	if s.draining.Load() {
		return fault.New(fault.Unready, "the model server is ending: ask another")
	}
	if s.options.Program != nil {
		return s.options.Program.Ready(ctx)
	}
	return nil
}

// infer answers one request whose tensors are as they came.
func (s *Server) infer(ctx context.Context, tensors []tensor.Tensor) ([]tensor.Tensor, error) {
	if s.options.Program != nil {
		return nil, fault.New(fault.Invalid, "a script is asked by /invocations: what its tensors are is not known here")
	}
	ordered, rows, err := tensor.Match(s.signature.Inputs, tensors)
	if err != nil {
		return nil, err
	}
	return s.answer(ctx, ordered, rows)
}

// answer computes what a request asks for, whose tensors are in the order of the signature.
func (s *Server) answer(ctx context.Context, ordered []tensor.Tensor, rows int) ([]tensor.Tensor, error) {
	if rows > s.options.MaxRows {
		return nil, refusal{fault.New(fault.Invalid, "the request has %d rows: send at most %d at once", rows, s.options.MaxRows), http.StatusRequestEntityTooLarge}
	}
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	out, err := s.queue.Do(ctx, ordered, rows)
	s.metrics.rows.Add(float64(rows))
	return out, s.late(err)
}

// late explains the end of a request's time.
func (s *Server) late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && !fault.Is(err, fault.Unready) {
		return fault.New(fault.Unready, "no answer within %v: send fewer rows at once, or raise the timeout: %w", s.options.Timeout, err)
	}
	return err
}
