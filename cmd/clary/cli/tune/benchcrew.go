package tune

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bench"
	"github.com/clary-ml/clary/tuner/samplers"
)

// crew is who proposes: a sampler of Clary's, or processes of a program, one for each
// search that runs at the same time.
type crew struct {
	make  tuner.Maker                  // nil: the program
	start func() (*tuneProgram, error) // another process of it
	mu    sync.Mutex
	idle  []*tuneProgram
	all   []*tuneProgram
}

func (b tuneBench) crew(ctx context.Context, stderr io.Writer) (*crew, error) {
	if b.program != "" {
		return &crew{start: func() (*tuneProgram, error) { return startTuneProgram(ctx, b.program, stderr) }}, nil
	}
	maker, err := samplers.Named(b.sampler)
	return &crew{make: maker}, err
}

// search is one search.
func (c *crew) search(b tuneBench, task bench.Task, seed uint64) (curve []float64, falls []bench.Fall, err error) {
	err = c.propose(func(maker tuner.Maker, repeats bool) error {
		b.play.Make, b.play.Repeats = maker, repeats
		curve, falls, err = b.run(task, seed)
		return err
	})
	return curve, falls, err
}

// propose lends a maker of samplers for one search, and says whether they may repeat
// themselves.
func (c *crew) propose(use func(maker tuner.Maker, repeats bool) error) error {
	if c.make != nil {
		return use(c.make, false)
	}
	program, err := c.take()
	if err != nil {
		return err
	}
	if err := use(program.search, true); err != nil {
		return err // and the process is not used again
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = append(c.idle, program)
	return nil
}

func (c *crew) take() (*tuneProgram, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := len(c.idle) - 1; last >= 0 {
		program := c.idle[last]
		c.idle = c.idle[:last]
		return program, nil
	}
	program, err := c.start()
	if err == nil {
		c.all = append(c.all, program)
	}
	return program, err
}

// close ends all processes.
func (c *crew) close() error {
	var errs []error
	for _, program := range c.all {
		errs = append(errs, program.close())
	}
	return errors.Join(errs...)
}

// used is the processor time that the processes say their suggestions took.
func (c *crew) used() time.Duration {
	var used time.Duration
	for _, program := range c.all {
		used += program.used
	}
	return used
}
