// Package sweeps moves tuning jobs along, on the leader. Each sweep that goes on has a clerk,
// a goroutine of its own: it holds the sweep's search in memory, does what is asked of it one
// request after the other, follows the sweep's jobs, and puts what has changed into the log.
//
// A search is built from the rows in the log, and again whenever a record of the clerk was
// refused or got no answer. So it is only ever a copy: a new leader's gives the same answers.
package sweeps

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/tuning"
)

// Ledger is what the desk needs of the replicated state.
type Ledger interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Events() *state.Bus
}

// Desk is where sweeps are asked.
type Desk struct {
	ledger Ledger
	kinds  map[cluster.Kind]workload.Kind
	log    *slog.Logger
	// Now is the time that decisions go by; New has the wall clock's.
	Now func() time.Time
	// slots bounds how many searches compute at once: the rest of the machine is for all
	// that must not wait for them.
	slots chan struct{}

	mu     sync.Mutex
	clerks map[string]*clerk // by sweep; nil while the desk does not run
	jobs   map[string]string // trial's job → its sweep
	ctx    context.Context   //nolint:containedctx // of the reign: clerks begin when they are asked
	busy   *sync.WaitGroup
}

// New makes a desk for the kinds that trials' jobs are of.
func New(ledger Ledger, kinds map[cluster.Kind]workload.Kind, log *slog.Logger) *Desk {
	return &Desk{ledger: ledger, kinds: kinds, log: log, Now: time.Now, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

// Run keeps the clerks until ctx ends. It runs on the leader only, one at a time.
func (d *Desk) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var busy sync.WaitGroup
	d.mu.Lock()
	d.clerks, d.jobs, d.ctx, d.busy = map[string]*clerk{}, map[string]string{}, ctx, &busy
	d.mu.Unlock()
	defer busy.Wait() // after cancel
	defer func() {
		cancel()
		d.mu.Lock()
		d.clerks, d.jobs = nil, nil
		d.mu.Unlock()
	}()
	events := d.ledger.Events().Subscribe(d.concerns)
	defer events.Close()
	if err := d.all(ctx); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case batch, open := <-events.C:
			if !open {
				return fault.New(fault.Unready, "the state is closed")
			}
			if !batch.Lost {
				d.pass(batch.Changes)
			} else if err := d.all(ctx); err != nil {
				return err
			}
		}
	}
}

// concerns reports whether a change is of a sweep, or of a job that one has made.
func (d *Desk) concerns(change state.Change) bool {
	switch change.Kind {
	case state.KindSweep:
		return true
	case state.KindJob, state.KindTask, state.KindPublication:
		d.mu.Lock()
		defer d.mu.Unlock()
		job, _, _ := strings.Cut(change.ID, "/")
		return d.jobs[job] != "" || d.clerks[job] != nil
	}
	return false
}

// pass tells clerks what has changed.
func (d *Desk) pass(changes []state.Change) {
	for _, change := range changes {
		job, _, _ := strings.Cut(change.ID, "/")
		d.mu.Lock()
		sweep, child := d.jobs[job], job
		if sweep == "" {
			sweep, child = job, ""
		}
		c := d.clerks[sweep]
		if c == nil && change.Kind == state.KindSweep && !change.Deleted {
			c = d.begin(sweep)
		}
		d.mu.Unlock()
		if c != nil {
			c.note(child)
		}
	}
}

// all begins a clerk for every sweep that goes on, and has each look at everything.
func (d *Desk) all(ctx context.Context) error {
	snapshot, err := d.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for job := range snapshot.Jobs("") {
		if job.Kind != cluster.KindTuning || job.State.Ended() {
			continue
		}
		d.mu.Lock()
		c := d.begin(job.Name)
		d.mu.Unlock()
		c.forget()
	}
	return nil
}

// begin is the clerk of a sweep. The desk's lock is held.
func (d *Desk) begin(sweep string) *clerk {
	c := d.clerks[sweep]
	if c == nil {
		c = newClerk(d, sweep)
		d.clerks[sweep] = c
		d.busy.Go(func() { c.run(d.ctx) })
	}
	return c
}

// Do has an operation done on a sweep's search, and returns when what it changed is in the
// log, with the operation's error. The operation may be done more than once, each time on
// a search that has seen nothing of the times before; it must not change what it refuses.
func (d *Desk) Do(ctx context.Context, sweep string, operation func(s *tuning.Search, now int64) error) error {
	d.mu.Lock()
	if d.clerks == nil {
		d.mu.Unlock()
		return fault.New(fault.Unready, "this coordinator does not lead: ask the leader")
	}
	c := d.begin(sweep)
	r := &request{operation: operation, answer: make(chan error, 1)}
	c.waiting = append(c.waiting, r)
	d.mu.Unlock()
	c.wake()
	select {
	case err := <-r.answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave takes a clerk that has nothing left to do off the desk, unless somebody has asked
// meanwhile.
func (d *Desk) leave(c *clerk) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(c.waiting) > 0 {
		return false
	}
	if d.clerks[c.sweep] == c {
		delete(d.clerks, c.sweep)
	}
	for job, sweep := range d.jobs {
		if sweep == c.sweep {
			delete(d.jobs, job)
		}
	}
	return true
}

// owns notes whose a trial's job is, and reports whether that is news: what changed of the
// job before was told to nobody.
func (d *Desk) owns(sweep, job string) (news bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.jobs == nil || d.jobs[job] == sweep {
		return false
	}
	d.jobs[job] = sweep
	return true
}

func (d *Desk) disowns(job string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.jobs, job)
}
