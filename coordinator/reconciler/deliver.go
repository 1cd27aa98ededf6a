package reconciler

import (
	"context"
	"fmt"
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

const (
	couriersAtOnce = 4
	firstRetry     = time.Second
	lastRetry      = time.Minute
	// forGood is how often a copy may be denied or refused before the job fails: rights
	// and buckets that were just made take a moment to be known everywhere.
	forGood = 4
)

// deliveries copies published outputs to where users asked for them, and makes versions of models
// of them. It remembers only what a new leader can do without: a copy made twice is no harm.
type deliveries struct {
	copier Copier
	wait   *sync.WaitGroup
	seats  chan struct{} // as many as may copy at once
	done   chan delivered
	jobs   map[string]*delivery
}

type delivery struct {
	publication uint64 // revision; 0 once it is not wanted any more
	busy, ready bool
	cancel      func() // ends the copying, while it is busy
	tries       int
	after       int64 // not tried again before
	err         error // of the last try
	clashes     []string
	version     *cluster.ModelVersion // to register
}

type delivered struct {
	job     string
	clashes []string
	version *cluster.ModelVersion
	err     error
}

func newDeliveries(copier Copier, wait *sync.WaitGroup) *deliveries {
	return &deliveries{
		copier: copier, wait: wait, seats: make(chan struct{}, couriersAtOnce),
		done: make(chan delivered), jobs: map[string]*delivery{},
	}
}

// deliver starts copying until ctx ends, or answers how the job changes now that it is done, or when
// to ask again.
func (d *deliveries) deliver(ctx context.Context, job cluster.Job, view workload.View, changes workload.Changes, now int64) (next cluster.Job, version *cluster.ModelVersion, changed bool, wake int64) {
	publication := view.Publication.Revision
	known := d.jobs[job.Name]
	if known != nil && known.publication != publication && d.end(job.Name) {
		return job, nil, false, 0 // that of an earlier job of the name: its end is waited for
	}
	if known == nil || known.publication != publication {
		known = &delivery{publication: publication}
		d.jobs[job.Name] = known
	}
	switch {
	case known.ready:
		job.Delivered, job.Reason = true, clashing(known.clashes)
		return job, known.version, true, 0
	case known.busy:
		return job, nil, false, 0
	case known.tries >= forGood && lasting(known.err):
		job.State, job.Ended = cluster.JobFailed, now
		job.Reason = fmt.Sprintf("its outputs are published but could not be copied: %s", known.err)
		return job, nil, true, 0
	case now < known.after:
		return job, nil, false, known.after
	}
	working, cancel := context.WithCancel(ctx)
	known.busy, known.cancel = true, cancel
	d.wait.Go(func() {
		outcome := d.work(working, job, view, changes)
		cancel()
		select {
		case d.done <- outcome:
		case <-ctx.Done():
		}
	})
	return job, nil, false, 0
}

// work copies and registers, when there is a seat.
func (d *deliveries) work(ctx context.Context, job cluster.Job, view workload.View, changes workload.Changes) delivered {
	done := delivered{job: job.Name}
	select {
	case d.seats <- struct{}{}:
		defer func() { <-d.seats }()
	case <-ctx.Done():
		done.err = ctx.Err()
		return done
	}
	if done.clashes, done.err = d.copy(ctx, changes.Deliver); done.err == nil && changes.Register {
		done.version, done.err = d.version(ctx, job, view)
	}
	return done
}

// version makes a version of the model that the job has published.
func (d *deliveries) version(ctx context.Context, job cluster.Job, view workload.View) (*cluster.ModelVersion, error) {
	made := registry.Made{Job: job, Gangs: view.Gangs, Tasks: view.Tasks, Publication: view.Publication, Output: registry.DefaultOutput}
	version, err := d.copier.Version(ctx, job.Register, made)
	if err != nil {
		return nil, fmt.Errorf("register it as %s: %w", job.Register, err)
	}
	return &version, nil
}

// registered is the record of a job whose outputs are delivered, with the version that they have
// become. One that cannot be fails the job.
func registered(snapshot *state.Snapshot, expect uint64, job cluster.Job, version *cluster.ModelVersion, now int64) command.Record {
	changes := []command.Change{{Expect: expect, Job: &job}}
	if version == nil {
		return command.Record{Changes: changes}
	}
	more, _, err := registry.Add(snapshot, *version, now)
	if err != nil {
		job.Delivered, job.State, job.Ended = false, cluster.JobFailed, now
		job.Reason = fmt.Sprintf("its outputs are published but could not be registered: %s", err)
	}
	return command.Record{Changes: append(changes, more...)}
}

func (d *deliveries) copy(ctx context.Context, copies []workload.Copy) (clashes []string, err error) {
	for _, c := range copies {
		var clashed []string
		switch {
		case c.Listed:
			clashed, err = d.copier.Spread(ctx, c)
		case len(c.From) == 1:
			err = d.copier.Copy(ctx, c.From[0], c.To)
		default:
			clashed, err = d.copier.Merge(ctx, c.From, c.To)
		}
		if err != nil {
			return nil, fmt.Errorf("copy %s to %s: %w", strings.Join(c.From, ", "), c.To, err)
		}
		clashes = append(clashes, clashed...)
	}
	return clashes, nil
}

// clashing is what the job's owner is told of names that several instances took.
func clashing(clashes []string) string {
	if len(clashes) == 0 {
		return ""
	}
	const shown = 5
	text := strings.Join(clashes[:min(shown, len(clashes))], ", ")
	if more := len(clashes) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return "of files that several instances wrote differently the first is in the merged output, and not " + text
}

// finish notes how a copy went, that has ended now.
func (d *deliveries) finish(done delivered, now time.Time) {
	known := d.jobs[done.job]
	if known == nil {
		return
	}
	known.busy, known.err, known.clashes, known.version = false, done.err, done.clashes, done.version
	if known.publication == 0 {
		delete(d.jobs, done.job)
		return
	}
	if done.err == nil {
		known.ready = true
		return
	}
	delay := min(firstRetry<<min(known.tries, 10), lastRetry)
	known.tries++
	known.after = now.Add(delay).UnixNano()
}

// end ends a job's copying, and reports whether something may still be copied; its end is told by
// done.
func (d *deliveries) end(job string) (busy bool) {
	known := d.jobs[job]
	if known == nil || !known.busy {
		return false
	}
	known.cancel()
	return true
}

// forget drops what is known of a job. Copying that goes on is ended, and known until it has: what a
// later job of the same name copies comes after it.
func (d *deliveries) forget(job string) {
	if d.end(job) {
		d.jobs[job].publication = 0
		return
	}
	delete(d.jobs, job)
}

// lasting reports whether trying again is of no use.
func lasting(err error) bool {
	switch fault.KindOf(err) {
	case fault.Denied, fault.NotFound, fault.Invalid, fault.Exhausted:
		return true
	}
	return false
}
