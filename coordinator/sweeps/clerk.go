package sweeps

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload/tuning"
)

const (
	// atOnce is how many new trials one round proposes: the others' requests wait as long.
	atOnce = 8
	// maxRows is how many trials one record may change, about.
	maxRows = 1000
	// maxRound is how long a round goes on taking requests: who was served waits for the rest.
	maxRound = 50 * time.Millisecond
	// maxBytes is how large the specs of the jobs in one record may be together, about.
	maxBytes = 1 << 20
	// tries is how often a request is done again whose record was refused.
	tries = 5
	// pause is the wait after a round that failed.
	pause = 500 * time.Millisecond
)

// request is one operation, and who waits for it.
type request struct {
	operation func(*tuning.Search, int64) error
	answer    chan error // takes one answer
	tried     int
}

// clerk looks after one sweep.
type clerk struct {
	desk    *Desk
	sweep   string
	bell    chan struct{}
	waiting []*request // guarded by the desk's lock

	mu     sync.Mutex
	stale  map[string]bool // jobs to read again
	anew   bool            // all is to be read again
	search *tuning.Search
	// children are the jobs that the sweep has made, as they were last read.
	children map[string]tuning.Child
}

func newClerk(d *Desk, sweep string) *clerk {
	return &clerk{desk: d, sweep: sweep, bell: make(chan struct{}, 1), stale: map[string]bool{}, anew: true}
}

func (c *clerk) wake() {
	select {
	case c.bell <- struct{}{}:
	default:
	}
}

// note says that something of the sweep has changed, or of a job that it has made.
func (c *clerk) note(child string) {
	c.mu.Lock()
	if child != "" {
		c.stale[child] = true
	}
	c.mu.Unlock()
	c.wake()
}

// forget says that changes may have been missed.
func (c *clerk) forget() {
	c.mu.Lock()
	c.anew = true
	c.mu.Unlock()
	c.wake()
}

// run works until the sweep has ended or ctx does.
func (c *clerk) run(ctx context.Context) {
	defer c.refuse()
	var next outcome
	for {
		if !next.again {
			if next.ended && c.desk.leave(c) {
				return
			}
			c.wait(ctx, next.wakeAt)
		}
		if ctx.Err() != nil {
			return
		}
		var err error
		if next, err = c.round(ctx); err != nil && ctx.Err() == nil {
			c.desk.log.Warn("a sweep's step failed, will try again", "sweep", c.sweep, "error", err)
			next = outcome{wakeAt: c.desk.Now().Add(pause).UnixNano()}
		}
	}
}

// refuse answers those who still wait when the clerk goes.
func (c *clerk) refuse() {
	c.desk.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	c.desk.mu.Unlock()
	for _, r := range waiting {
		r.answer <- fault.New(fault.Unready, "this coordinator leads no more: ask the leader")
	}
}

func (c *clerk) wait(ctx context.Context, until int64) {
	var alarm <-chan time.Time
	if until != 0 {
		timer := time.NewTimer(time.Duration(until - c.desk.Now().UnixNano()))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
	case <-alarm:
	case <-c.bell:
	}
}

// outcome is what a round leaves to do.
type outcome struct {
	again  bool  // at once
	wakeAt int64 // 0: when something happens
	ended  bool  // the sweep has ended
}

// round does what waits: it looks at what has changed, takes the sweep on, does requests,
// begins trials, and puts all that into the log.
func (c *clerk) round(ctx context.Context) (outcome, error) {
	requests := c.take()
	job, err := c.look(ctx)
	if err != nil || job.State.Ended() {
		c.search = nil
		c.answer(requests, err)
		return outcome{ended: err == nil || fault.Is(err, fault.NotFound)}, c.fail(ctx, job, err)
	}
	work, err := c.compute(ctx, job, requests)
	if err != nil {
		c.search = nil
		c.answer(work.done, err)
		return outcome{}, c.fail(ctx, job, err)
	}
	if err := c.save(ctx, job, work); err != nil {
		c.search = nil
		c.retry(work.done, err)
		if fault.Is(err, fault.Conflict) {
			return outcome{again: true}, nil
		}
		return outcome{}, err
	}
	for _, r := range work.done {
		r.answer <- nil
	}
	return outcome{again: work.more, wakeAt: work.wakeAt}, nil
}

// broken is an error of a search itself: trying again is of no use.
type broken struct{ error }

// fail ends a sweep whose search cannot go on. Other errors are handed back.
func (c *clerk) fail(ctx context.Context, job cluster.Job, err error) error {
	var cause broken
	switch {
	case fault.Is(err, fault.NotFound):
		return nil
	case !errors.As(err, &cause):
		return err
	}
	c.desk.log.Error("a sweep cannot go on", "sweep", c.sweep, "error", cause.error)
	expect := job.Revision
	job.State, job.Ended, job.Reason = cluster.JobFailed, c.desk.Now().UnixNano(), cause.Error()
	_, err = c.desk.ledger.Propose(ctx, command.Record{Changes: []command.Change{{Expect: expect, Job: &job}}})
	return err
}

// take is all requests that wait.
func (c *clerk) take() []*request {
	c.desk.mu.Lock()
	defer c.desk.mu.Unlock()
	requests := c.waiting
	c.waiting = nil
	return requests
}

// give puts requests back, before those that came meanwhile.
func (c *clerk) give(requests []*request) {
	c.desk.mu.Lock()
	defer c.desk.mu.Unlock()
	c.waiting = append(slices.Clone(requests), c.waiting...)
}

func (c *clerk) answer(requests []*request, err error) {
	if err == nil {
		err = fmt.Errorf("%s: %w", c.sweep, tuning.ErrEnded)
	}
	for _, r := range requests {
		r.answer <- err
	}
}

// retry has requests done again whose record was refused since something had changed.
func (c *clerk) retry(requests []*request, err error) {
	var again []*request
	for _, r := range requests {
		if r.tried++; fault.Is(err, fault.Conflict) && r.tried < tries {
			again = append(again, r)
			continue
		}
		if fault.Is(err, fault.Conflict) {
			err = fault.New(fault.Unready, "%w", err)
		}
		r.answer <- err
	}
	c.give(again)
}

// look reads what has changed, and sees that there is a search that knows it.
func (c *clerk) look(ctx context.Context) (cluster.Job, error) {
	c.mu.Lock() // before the snapshot is made: what changes after it is noted anew
	stale, anew := c.stale, c.anew
	c.stale, c.anew = map[string]bool{}, false
	c.mu.Unlock()
	snapshot, err := c.desk.ledger.Read(ctx, true)
	if err != nil {
		c.mu.Lock()
		c.anew = true
		c.mu.Unlock()
		return cluster.Job{}, err
	}
	defer snapshot.Close()
	job, exists := snapshot.Job(c.sweep)
	sweep, begun := snapshot.Sweep(c.sweep)
	if !exists || !begun {
		return job, fault.New(fault.NotFound, "there is no sweep %q: see clary sweeps", cluster.Clip(c.sweep))
	}
	if job.State.Ended() {
		return job, nil
	}
	if c.search == nil || !c.search.Is(sweep) {
		if err := c.rebuild(ctx, snapshot, job, sweep); err != nil {
			return job, err
		}
		anew = true
	}
	if anew {
		c.children = map[string]tuning.Child{}
		unheard := false
		for child := range snapshot.ChildrenOf(c.sweep) {
			unheard = c.desk.owns(c.sweep, child.Name) || unheard
			c.children[child.Name] = childOf(snapshot, child)
		}
		if unheard { // what changed of them since the snapshot was made was told to nobody
			c.forget()
		}
		return job, nil
	}
	for name := range stale {
		child, exists := snapshot.Job(name)
		if !exists || child.Parent != c.sweep {
			delete(c.children, name)
			c.desk.disowns(name)
			continue
		}
		c.children[name] = childOf(snapshot, child)
	}
	return job, nil
}

func childOf(snapshot *state.Snapshot, job cluster.Job) tuning.Child {
	child := tuning.Child{Job: job, Tasks: slices.Collect(snapshot.TasksOf(job.Name))}
	if publication, exists := snapshot.Publication(job.Name); exists {
		child.Publication = &publication
	}
	return child
}

// rebuild makes the search from the rows.
func (c *clerk) rebuild(ctx context.Context, snapshot *state.Snapshot, job cluster.Job, sweep cluster.Sweep) error {
	if err := c.seat(ctx); err != nil {
		return err
	}
	defer c.rise()
	began := time.Now()
	var earlier []tuning.Earlier
	for _, name := range tuning.WarmStart(job.Spec) {
		before, exists := snapshot.Job(name)
		if !exists {
			c.desk.log.Warn("an earlier sweep to learn from is gone", "sweep", c.sweep, "earlier", name)
			continue
		}
		earlier = append(earlier, tuning.Earlier{Job: before, Trials: snapshot.TrialsOf(name, 0)})
	}
	err := c.guard(func() (err error) {
		c.search, err = tuning.NewSearch(job, sweep, snapshot.TrialsOf(c.sweep, 0), earlier)
		return err
	})
	if err != nil {
		c.search = nil
		return broken{fmt.Errorf("its search cannot be built: %w", err)}
	}
	c.desk.log.Debug("a sweep's search was built", "sweep", c.sweep, "trials", c.search.Len(), "took", time.Since(began))
	return nil
}

// seat waits for one of the few places to compute at.
func (c *clerk) seat(ctx context.Context) error {
	select {
	case c.desk.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *clerk) rise() { <-c.desk.slots }

// work is what a round has found out.
type work struct {
	done      []*request // operations that succeeded, and wait for the record
	changes   tuning.Changes
	cancelled []cluster.Job
	deleted   []cluster.Job
	more      bool
	wakeAt    int64
}

// compute takes the search on by a step.
func (c *clerk) compute(ctx context.Context, job cluster.Job, requests []*request) (work, error) {
	var w work
	if err := c.seat(ctx); err != nil {
		w.done = requests
		return w, err
	}
	defer c.rise()
	began, now := time.Now(), c.desk.Now().UnixNano()
	s := c.search
	s.Follow(job)
	children := make([]tuning.Child, 0, len(c.children))
	for _, child := range c.children {
		children = append(children, child)
	}
	if err := c.guard(func() error { return s.Observe(children, now) }); err != nil {
		w.done = requests
		return w, broken{err}
	}
	for i, r := range requests {
		if s.Unsaved() >= maxRows || i > 0 && time.Since(began) > maxRound {
			c.give(requests[i:])
			w.more = true
			break
		}
		err := c.guard(func() error { return r.operation(s, now) })
		switch {
		case err == nil:
			w.done = append(w.done, r)
		case fault.Is(err, fault.Internal): // what it has changed is not known
			c.give(append(w.done, requests[i+1:]...))
			w.done = []*request{r}
			return w, err
		default:
			r.answer <- err
		}
	}
	err := c.guard(func() error {
		if err := s.Advance(now); err != nil {
			return err
		}
		more, err := s.Fill(min(atOnce, max(maxBytes/max(len(job.Spec), 1), 1)), c.taken, now)
		w.more = w.more || more
		return err
	})
	if err != nil {
		return w, broken{err}
	}
	w.changes = s.Changes()
	w.cancelled, w.deleted = s.Tidy()
	w.wakeAt = s.WakeAt(now)
	return w, nil
}

// guard turns a panic into an error: what is broken is one sweep's search, and the next
// leader would meet the same.
func (c *clerk) guard(do func() error) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			c.desk.log.Error("a search panicked", "sweep", c.sweep, "cause", cause, "stack", string(debug.Stack()))
			err = fault.New(fault.Internal, "its search is broken: %v", cause)
		}
	}()
	return do()
}

// taken reports whether there is a job of a name.
func (c *clerk) taken(name string) bool {
	snapshot, err := c.desk.ledger.Read(context.Background(), true)
	if err != nil {
		return false // then the record is refused
	}
	defer snapshot.Close()
	_, exists := snapshot.Job(name)
	return exists
}

// save puts what has changed into the log: the sweep with its trials and their new jobs in
// one record, and what becomes of jobs that are not needed any more in one each.
func (c *clerk) save(ctx context.Context, job cluster.Job, w work) error {
	var commands []command.Command
	if !w.changes.Empty() {
		commands = append(commands, c.record(job, w.changes))
	}
	main := len(commands)
	for _, child := range w.cancelled {
		expect := child.Revision
		commands = append(commands, command.Record{Changes: []command.Change{{Expect: expect, Job: &child}}})
	}
	for _, child := range w.deleted {
		key := &command.Key{Kind: state.KindJob, ID: child.Name}
		commands = append(commands, command.Record{Changes: []command.Change{{Expect: child.Revision, Delete: key}}})
	}
	if len(commands) == 0 {
		return nil
	}
	c.reread(w)
	results, err := c.desk.ledger.Propose(ctx, commands...)
	if len(results) != len(commands) {
		if err == nil {
			err = fault.New(fault.Internal, "%d results for %d commands", len(results), len(commands))
		}
		return err
	}
	if main == 0 {
		return nil // what was refused of the rest has changed, and is looked at again
	}
	if results[0].Err != nil {
		return results[0].Err
	}
	c.search.Saved(results[0].Revision)
	return nil
}

// reread has the jobs read again that are about to change: the next round may come before
// the events do.
func (c *clerk) reread(w work) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, jobs := range [][]cluster.Job{w.changes.Make, w.cancelled, w.deleted} {
		for _, child := range jobs {
			c.desk.owns(c.sweep, child.Name)
			c.stale[child.Name] = true
		}
	}
}

// record makes one record of what changes.
func (c *clerk) record(job cluster.Job, changes tuning.Changes) command.Record {
	var r command.Record
	add := func(change command.Change) { r.Changes = append(r.Changes, change) }
	if changes.Job != nil {
		add(command.Change{Expect: job.Revision, Job: changes.Job})
	} else {
		add(command.Change{Expect: job.Revision, Check: &command.Key{Kind: state.KindJob, ID: job.Name}})
	}
	if changes.Sweep != nil {
		add(command.Change{Expect: changes.Sweep.Revision, Sweep: changes.Sweep})
	}
	for _, trial := range changes.Trials {
		add(command.Change{Expect: trial.Revision, Trial: &trial})
	}
	for _, child := range changes.Make {
		first, _ := reconciler.First(child, c.desk.kinds[child.Kind], child.Submitted)
		r.Changes = append(r.Changes, first.Changes...)
	}
	return r
}
