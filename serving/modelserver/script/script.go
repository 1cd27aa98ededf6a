// Package script serves a model by a Python script of its own: model_fn, input_fn, predict_fn and
// output_fn, as SageMaker's script mode has them. The script runs in processes of its own, which are
// started again when they end, hang or answer nonsense: each is told as what it is.
package script

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

//go:embed driver.py
var driver []byte

// Options say what to run. What is 0 gets the default.
type Options struct {
	// Python is the interpreter (python3), Script the file with the functions.
	Python, Script string
	// ModelDir is given to model_fn.
	ModelDir string
	// Workers are how many processes run, each with one request at a time (1).
	Workers int
	// StartWithin is how long model_fn may take (4 minutes).
	StartWithin time.Duration
	// Env is the processes' environment; nil is this one's.
	Env []string
	// Out gets what the script writes.
	Out io.Writer
}

// Program is a script that runs.
type Program struct {
	options  Options
	folder   string // of the driver
	requests chan *request
	ctx      context.Context
	cancel   context.CancelFunc
	wait     sync.WaitGroup

	mu    sync.Mutex
	alive int
	last  error // why the newest process ended
}

type request struct {
	ctx                 context.Context
	body                []byte
	contentType, accept string
	parts               chan answer // of one that comes in parts
	answer              chan answer // its end, or all of it
}

type answer struct {
	body        []byte
	contentType string
	err         error
}

// Start runs the script and waits until all its processes are ready, or one cannot be.
func Start(ctx context.Context, o Options) (*Program, error) {
	if o.Python == "" {
		o.Python = "python3"
	}
	if o.StartWithin == 0 {
		o.StartWithin = 4 * time.Minute
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	o.Workers = max(o.Workers, 1)
	if info, err := os.Stat(o.Script); err != nil || info.IsDir() {
		return nil, fault.New(fault.NotFound, "there is no script %s: name the file that has model_fn", o.Script)
	}
	folder, err := os.MkdirTemp("", "clary-script-")
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "driver.py"), driver, 0o600)
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "write the script's driver: %w", err)
	}
	p := &Program{options: o, folder: folder, requests: make(chan *request)}
	// The processes outlive the call that starts them: Close ends them.
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	started := make([]*process, o.Workers)
	errs := make([]error, o.Workers)
	var wait sync.WaitGroup
	for i := range started {
		wait.Go(func() { started[i], errs[i] = p.start(ctx) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, one := range started {
			if one != nil {
				one.kill()
			}
		}
		return nil, errors.Join(errs[firstError(errs)], p.Close())
	}
	p.count(len(started), nil)
	for _, one := range started {
		p.wait.Go(func() { p.keep(one) })
	}
	return p, nil
}

func firstError(errs []error) int {
	for i, err := range errs {
		if err != nil {
			return i
		}
	}
	return 0
}

// Close ends the processes and waits for their end.
func (p *Program) Close() error {
	p.cancel()
	p.wait.Wait()
	if err := os.RemoveAll(p.folder); err != nil {
		return fault.New(fault.Internal, "remove the script's driver: %w", err)
	}
	return nil
}

// Ready says why nobody can answer now, if so.
func (p *Program) Ready(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alive > 0 {
		return nil
	}
	return fault.New(fault.Unready, "the script does not run now: %w", p.last)
}

func (p *Program) count(change int, why error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.alive += change; why != nil {
		p.last = why
	}
}

// Invoke gives the script a request's body, and returns what output_fn made of it, whole.
func (p *Program) Invoke(ctx context.Context, body []byte, contentType, accept string) ([]byte, string, error) {
	var all []byte
	var allType string
	streamed := false
	whole, wholeType, err := p.Stream(ctx, body, contentType, accept, func(partType string, part []byte) error {
		if len(all)+len(part) > maxBody {
			return fault.New(fault.Exhausted, "the script's answer has more than %d bytes", maxBody)
		}
		streamed, allType, all = true, partType, append(all, part...)
		return nil
	})
	if streamed && err == nil {
		return all, allType, nil
	}
	return whole, wholeType, err
}

// Stream implements modelserver.Streamer.
func (p *Program) Stream(ctx context.Context, body []byte, contentType, accept string, part func(string, []byte) error) ([]byte, string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(context.Canceled)
	r := &request{ctx: ctx, body: body, contentType: contentType, accept: accept, parts: make(chan answer), answer: make(chan answer, 1)}
	select {
	case p.requests <- r:
	case <-ctx.Done():
		if err := p.Ready(ctx); err != nil {
			return nil, "", err
		}
		return nil, "", context.Cause(ctx)
	case <-p.ctx.Done():
		return nil, "", fault.New(fault.Unready, "the model server is ending: ask another")
	}
	for {
		select {
		case one := <-r.parts:
			if err := part(one.contentType, one.body); err != nil {
				return nil, "", err
			}
		case a := <-r.answer: // it heeds ctx
			return a.body, a.contentType, a.err
		}
	}
}

// The pause before a process is started again grows from one to the other.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// keep serves requests by one process, and by another when that has ended.
func (p *Program) keep(one *process) {
	pause := firstPause
	for {
		answered, why := p.serve(one)
		p.count(-1, why)
		one.kill()
		if answered > 0 {
			pause = firstPause
		}
		for one = nil; one == nil; {
			select {
			case <-p.ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, lastPause)
			fmt.Fprintf(p.options.Out, "the script is started again: %v\n", why)
			if one, why = p.start(p.ctx); why != nil {
				p.count(0, why)
			}
		}
		p.count(1, nil)
	}
}

// serve hands requests on until the process is of no more use.
func (p *Program) serve(one *process) (answered int, why error) {
	for {
		select {
		case r := <-p.requests:
			a, usable := one.call(r)
			r.answer <- a
			if !usable {
				return answered, a.err
			}
			answered++
		case <-one.ended:
			return answered, one.exit("while it waited for a request")
		case <-p.ctx.Done():
			one.leave()
			return answered, fault.New(fault.Unready, "the model server is ending")
		}
	}
}
