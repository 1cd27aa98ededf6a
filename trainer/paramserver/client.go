package paramserver

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/internal/fault"
)

// ClientOptions is what a worker needs to know.
type ClientOptions struct {
	// Addresses of the servers, in the order of their numbers.
	Addresses       []string
	Worker, Workers int
	Parameters      int
	// Slots is the number of values that the optimiser keeps for each parameter.
	Slots  int
	Digest string
	// Identity proves who is who; nil is allowed with loopback addresses alone.
	Identity *Identity
	// JoinWithin is how long a server may take to appear, Grace how long one may be gone
	// later on.
	JoinWithin, Grace time.Duration
}

// Client is a worker's side: a connection to every server. Its methods may not be called
// at the same time.
type Client struct {
	options ClientOptions
	links   []*link
}

// State is where a training stands: weights, and the optimiser's slots for each.
type State struct {
	// Step counts the rounds done.
	Step    uint64
	Weights []float32
	Slots   [][]float32
}

// greeting is what a worker must know of a run to take part in it.
func greeting(digest string, index, servers, workers, parameters int) string {
	return fmt.Sprintf("%s server %d/%d workers %d parameters %d", digest, index, servers, workers, parameters)
}

// Dial connects to every server, waiting for those that are not there yet.
func Dial(ctx context.Context, o ClientOptions) (*Client, error) {
	if err := checkMachine(); err != nil {
		return nil, err
	}
	if len(o.Addresses) < 1 || len(o.Addresses) > MaxServers || o.Worker < 0 || o.Worker >= o.Workers || o.Workers > MaxWorkers {
		return nil, fault.New(fault.Invalid, "worker %d of %d with %d parameter servers: give 1 to %d of each", o.Worker, o.Workers, len(o.Addresses), MaxServers)
	}
	if id := o.Identity; id != nil && (id.Role != roleWorker || id.Index != o.Worker) {
		return nil, fault.New(fault.Denied, "the certificate is for %s: this is worker %d", id, o.Worker)
	}
	setDefault(&o.JoinWithin, DefaultJoinWithin)
	setDefault(&o.Grace, DefaultGrace)
	c := &Client{options: o}
	for i, address := range o.Addresses {
		from, to := Block(o.Parameters, len(o.Addresses), i)
		c.links = append(c.links, &link{options: o, address: address, index: i, from: from, to: to})
	}
	err := c.each(ctx, func(ctx context.Context, l *link) error {
		return l.retry(ctx, o.JoinWithin, func(*attempt) error { return nil })
	})
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// each runs f for every server at the same time.
func (c *Client) each(ctx context.Context, f func(context.Context, *link) error) error {
	if len(c.links) == 1 {
		return f(ctx, c.links[0])
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range c.links {
		group.Go(func() error { return f(ctx, l) })
	}
	return group.Wait()
}

// Initialize gives the servers what the training begins with. Only worker 0 does.
func (c *Client) Initialize(ctx context.Context, s State) error {
	if len(s.Weights) != c.options.Parameters || len(s.Slots) != c.options.Slots {
		return fault.New(fault.Invalid, "initial state: %d weights and %d slots, the run has %d and %d", len(s.Weights), len(s.Slots), c.options.Parameters, c.options.Slots)
	}
	return c.each(ctx, func(ctx context.Context, l *link) error {
		return l.retry(ctx, c.options.Grace, func(a *attempt) error {
			if l.initialized {
				return nil // the state arrived, and the connection broke after it
			}
			return a.sendState(s)
		})
	})
}

// Pull waits until there are weights, fills the arena and returns the rounds done. It is
// how a worker begins.
func (c *Client) Pull(ctx context.Context, weights []float32) (step uint64, err error) {
	err = c.each(ctx, func(ctx context.Context, l *link) error {
		return l.retry(ctx, c.options.Grace, func(a *attempt) error {
			if err := a.ask(kindPull); err != nil {
				return err
			}
			at, _, err := a.readWeights(weights, 0)
			if err == nil && l.index == 0 {
				step = at
			}
			return err
		})
	})
	return step, err
}

// PushPull takes part in one round: it gives this worker's gradient for a step, counted
// from 0, and fills the arena with the weights after it. The answer is the sum of what
// all workers said.
func (c *Client) PushPull(ctx context.Context, step uint64, gradient, weights []float32, mine Stats) (Stats, error) {
	sums := make([]Stats, len(c.links))
	err := c.each(ctx, func(ctx context.Context, l *link) error {
		return l.retry(ctx, c.options.Grace, func(a *attempt) (err error) {
			sums[l.index], err = a.exchange(step, gradient, weights, mine)
			return err
		})
	})
	sum := sums[0]
	for _, s := range sums {
		sum.Interrupt = max(sum.Interrupt, s.Interrupt)
	}
	return sum, err
}

// Slots reads the optimiser's state as it is between two rounds.
func (c *Client) Slots(ctx context.Context) ([][]float32, error) {
	slots := make([][]float32, c.options.Slots)
	for i := range slots {
		slots[i] = make([]float32, c.options.Parameters)
	}
	if len(slots) == 0 {
		return nil, nil
	}
	return slots, c.each(ctx, func(ctx context.Context, l *link) error {
		return l.retry(ctx, c.options.Grace, func(a *attempt) error {
			if err := a.ask(kindSlots); err != nil {
				return err
			}
			return a.readSlots(slots)
		})
	})
}

// Done tells the servers that this worker needs them no more.
func (c *Client) Done(ctx context.Context) error {
	return c.each(ctx, func(ctx context.Context, l *link) error {
		return l.retry(ctx, c.options.Grace, func(a *attempt) error {
			if err := a.ask(kindDone); err != nil {
				return err
			}
			return a.expect(kindDone)
		})
	})
}

// Fail tells the servers, as far as they can be reached, that the run is over and why.
func (c *Client) Fail(reason error) {
	for _, l := range c.links {
		l.fail(reason)
	}
}

// Close hangs up.
func (c *Client) Close() {
	for _, l := range c.links {
		l.drop()
	}
}
