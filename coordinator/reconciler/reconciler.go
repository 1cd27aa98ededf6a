// Package reconciler moves jobs along: a loop on the leader that asks each job's kind
// what should change, and proposes it. It keeps nothing that is not in the state, so a
// new leader starts by asking about every job that has not ended.
//
// Every record names the revisions that were read, the job's always among them. What
// conflicts with somebody else's change is read and asked about again.
package reconciler

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload"
)

// Ledger is what the reconciler needs of the replicated state.
type Ledger interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Events() *state.Bus
}

// Copier brings objects to another place in the stores; doing it twice is no harm.
type Copier interface {
	Copy(ctx context.Context, from, to string) error
	// Merge makes one .tar.gz of several and returns what of them is not in it, since the
	// name was taken by other content.
	Merge(ctx context.Context, from []string, to string) (clashes []string, err error)
	// Spread does a copy of listings. Of a name that is in several with other content the first
	// counts; the others are returned.
	Spread(ctx context.Context, c workload.Copy) (clashes []string, err error)
	// Version makes a version of a model of what a job has published; its number is not known yet.
	Version(ctx context.Context, model string, made registry.Made) (cluster.ModelVersion, error)
}

const (
	// batch is how many jobs are looked at in one snapshot and proposed together.
	batch = 256
	// pause is the wait after a proposal that got no answer, or was refused for good.
	pause = time.Second
	// manyConflicts in a row are no race any more: the next try waits.
	manyConflicts = 5
)

// Reconciler is the loop.
type Reconciler struct {
	ledger Ledger
	kinds  map[cluster.Kind]workload.Kind
	copier Copier
	log    *slog.Logger
	// Now is the time that decisions go by; New has the wall clock's.
	Now func() time.Time
}

// New makes a reconciler for the kinds of job that this build knows.
func New(ledger Ledger, kinds map[cluster.Kind]workload.Kind, copier Copier, log *slog.Logger) *Reconciler {
	return &Reconciler{ledger: ledger, kinds: kinds, copier: copier, log: log, Now: time.Now}
}

// First is the record that submits a job together with the gangs that its kind makes of
// it, so that one log entry does both. The gangs are returned too.
func First(job cluster.Job, kind workload.Kind, now int64) (command.Record, []cluster.Gang) {
	changes := kind.Reconcile(workload.View{}, job, now)
	switch {
	case changes.Job != nil && changes.Job.State == cluster.JobQueued:
		job = *changes.Job
		return record(0, job, changes), changes.Gangs
	case changes.Sweep != nil:
		return record(0, job, changes), nil
	}
	return record(0, job, workload.Changes{}), nil
}

func record(expect uint64, job cluster.Job, wanted workload.Changes) command.Record {
	changes := []command.Change{{Expect: expect, Job: &job}}
	if wanted.Sweep != nil {
		changes = append(changes, command.Change{Expect: wanted.Sweep.Revision, Sweep: wanted.Sweep})
	}
	if wanted.Endpoint != nil {
		changes = append(changes, command.Change{Expect: wanted.Endpoint.Revision, Endpoint: wanted.Endpoint})
	}
	gangs := wanted.Gangs
	for i := range gangs {
		if gangs[i].Revision == 0 { // what references to models meant is put in their place once
			cluster.PinModels(gangs[i].Roles, job.Models)
		}
		changes = append(changes, command.Change{Expect: gangs[i].Revision, Gang: &gangs[i]})
	}
	for _, gang := range wanted.Delete {
		changes = append(changes, command.Change{Expect: gang.Revision, Delete: &command.Key{Kind: state.KindGang, ID: gang.ID()}})
	}
	return command.Record{Changes: changes}
}

// Run reconciles until ctx ends. It runs on the leader only, one at a time.
func (r *Reconciler) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var couriers sync.WaitGroup
	defer couriers.Wait() // after cancel
	defer cancel()
	events := r.ledger.Events().Subscribe(func(c state.Change) bool {
		return c.Kind == state.KindJob || c.Kind == state.KindGang || c.Kind == state.KindTask || c.Kind == state.KindPublication ||
			c.Kind == state.KindEndpoint
	})
	defer events.Close()
	w := &round{Reconciler: r, dirty: map[string]bool{}, conflicts: map[string]int{}, deliveries: newDeliveries(r.copier, &couriers)}
	if err := w.all(ctx); err != nil {
		return err
	}
	for {
		if err := w.work(ctx); err != nil {
			return err
		}
		if err := w.wait(ctx, events); err != nil {
			return err
		}
	}
}

// round is what one reign of the loop remembers.
type round struct {
	*Reconciler
	dirty      map[string]bool // jobs to look at
	timers     timers
	deliveries *deliveries
	conflicts  map[string]int // in a row, by job
}

// all makes every job that has not ended dirty.
func (w *round) all(ctx context.Context) error {
	snapshot, err := w.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for job := range snapshot.Jobs("") {
		if job.State.Ended() {
			continue
		}
		w.dirty[job.Name] = true
		if job.Parent != "" {
			w.dirty[job.Parent] = true // it may have ended
		}
	}
	return nil
}

// wait returns when there may be something to do.
func (w *round) wait(ctx context.Context, events *state.Subscription) error {
	var alarm <-chan time.Time
	if at, any := w.timers.next(); any {
		timer := time.NewTimer(time.Duration(at - w.Now().UnixNano()))
		defer timer.Stop()
		alarm = timer.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-alarm:
	case done := <-w.deliveries.done:
		w.deliveries.finish(done, w.Now())
		w.dirty[done.job] = true
	case events, open := <-events.C:
		if !open {
			return fault.New(fault.Unready, "the state is closed")
		}
		if err := w.take(ctx, events); err != nil {
			return err
		}
	}
	for more := true; more; { // what came in meanwhile is done together
		select {
		case events, open := <-events.C:
			if more = open; open {
				if err := w.take(ctx, events); err != nil {
					return err
				}
			}
		default:
			more = false
		}
	}
	for _, job := range w.timers.due(w.Now().UnixNano()) {
		w.dirty[job] = true
	}
	return nil
}

func (w *round) take(ctx context.Context, events state.Batch) error {
	if events.Lost {
		return w.all(ctx)
	}
	for _, change := range events.Changes {
		if change.Kind == state.KindJob && change.Deleted {
			w.timers.set(change.ID, 0)
			w.deliveries.forget(change.ID)
			delete(w.dirty, change.ID)
			continue
		}
		job, _, _ := strings.Cut(change.ID, "/")
		w.dirty[job] = true
	}
	return nil
}

// work looks at all dirty jobs. What then still has to change is dirty again by the
// events of what was done.
func (w *round) work(ctx context.Context) error {
	for len(w.dirty) > 0 {
		names := make([]string, 0, len(w.dirty))
		for name := range w.dirty {
			names = append(names, name)
		}
		slices.Sort(names)
		clear(w.dirty)
		for chunk := range slices.Chunk(names, batch) {
			steps, err := w.look(ctx, chunk)
			if err != nil {
				return err
			}
			if err := w.propose(ctx, steps); err != nil {
				return err
			}
		}
	}
	return nil
}

// step is what is to be proposed for one job.
type step struct {
	job     string
	command command.Command
}

// look asks the kinds about jobs, in one snapshot.
func (w *round) look(ctx context.Context, names []string) ([]step, error) {
	snapshot, err := w.ledger.Read(ctx, true)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	now := w.Now().UnixNano()
	var steps []step
	for _, name := range names {
		job, exists := snapshot.Job(name)
		if job.Cancel || job.State.Ended() {
			steps = append(steps, cancelled(snapshot, name)...)
		}
		if !exists || job.State.Ended() {
			w.timers.set(name, 0)
			w.deliveries.forget(name)
			continue
		}
		if job.Cancel && w.deliveries.end(name) {
			continue // it is cancelled once nothing more is copied for it
		}
		kind, known := w.kinds[job.Kind]
		if !known {
			w.log.Error("job of a kind that this build does not know", "job", name, "kind", job.Kind)
			continue
		}
		view := viewOf(snapshot, name)
		for _, c := range w.commands(ctx, snapshot, job, view, kind.Reconcile(view, job, now), now) {
			steps = append(steps, step{name, c})
		}
	}
	return steps, nil
}

// cancelled takes the jobs along that an ending job has made.
func cancelled(snapshot *state.Snapshot, parent string) []step {
	var steps []step
	for child := range snapshot.ChildrenOf(parent) {
		if child.State.Ended() || child.Cancel {
			continue
		}
		expect := child.Revision
		child.Cancel, child.Reason = true, "job "+parent+", which made it, has ended"
		steps = append(steps, step{parent, command.Record{Changes: []command.Change{{Expect: expect, Job: &child}}}})
	}
	return steps
}

func viewOf(snapshot *state.Snapshot, job string) workload.View {
	view := workload.View{
		Gangs: slices.Collect(snapshot.GangsOf(job)),
		Tasks: slices.Collect(snapshot.TasksOf(job)),
	}
	if publication, exists := snapshot.Publication(job); exists {
		view.Publication = &publication
	}
	if sweep, exists := snapshot.Sweep(job); exists {
		view.Sweep = &sweep
	}
	if endpoint, exists := snapshot.Endpoint(job); exists {
		view.Endpoint = &endpoint
	}
	return view
}

// commands turns a kind's changes into what is proposed, and starts what is not.
func (w *round) commands(ctx context.Context, snapshot *state.Snapshot, job cluster.Job, view workload.View, changes workload.Changes, now int64) []command.Command {
	w.timers.set(job.Name, changes.WakeAt)
	var commands []command.Command
	if changes.Recorded() {
		next := job
		if changes.Job != nil {
			next = *changes.Job
		}
		commands = append(commands, record(job.Revision, next, changes))
	}
	if p := changes.Publish; p != nil {
		commands = append(commands, command.Publish{Job: job.Name, Gang: p.Gang, Attempt: p.Attempt, Outputs: p.Outputs})
	}
	if (len(changes.Deliver) > 0 || changes.Register) && view.Publication != nil {
		next, version, changed, wake := w.deliveries.deliver(ctx, job, view, changes, now)
		if changed {
			commands = append(commands, registered(snapshot, job.Revision, next, version, now))
		}
		w.timers.set(job.Name, cmp.Or(wake, changes.WakeAt))
	}
	return commands
}

// propose proposes the steps of many jobs together; each is accepted or refused alone.
func (w *round) propose(ctx context.Context, steps []step) error {
	if len(steps) == 0 {
		return nil
	}
	commands := make([]command.Command, len(steps))
	for i, s := range steps {
		commands[i] = s.command
	}
	results, err := w.ledger.Propose(ctx, commands...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(results) != len(steps) {
		w.log.Info("no answer to what was proposed, will try again", "commands", len(steps), "error", err)
		results = slices.Repeat([]command.Result{{Err: err}}, len(steps))
	}
	for i, result := range results {
		switch {
		case result.Err == nil:
			delete(w.conflicts, steps[i].job)
		case fault.Is(result.Err, fault.Conflict) && w.conflicts[steps[i].job] < manyConflicts:
			w.conflicts[steps[i].job]++
			w.dirty[steps[i].job] = true
		default:
			w.log.Warn("a job's next step was refused, will try again", "job", steps[i].job, "error", result.Err)
			delete(w.conflicts, steps[i].job)
			w.timers.set(steps[i].job, w.Now().Add(pause).UnixNano())
		}
	}
	return nil
}
