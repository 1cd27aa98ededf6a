// Package janitor sees that what is over takes no room: jobs that ended long ago are archived, and deleted only where somebody has
// set that; tokens that have expired, objects that nothing names and checkpoints that later attempts have gone beyond go. How long
// each is kept says the settings' retention. Sweep decides, from a view; a loop on the leader acts, a bounded part a round.
package janitor

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// Ledger is what the janitor needs of the replicated state.
type Ledger interface {
	disposal.Ledger
	Events() *state.Bus
}

// Store is the object store as the janitor sees it.
type Store interface {
	// Folders are the names of folders right below a prefix, in order, behind one of them; at most so many.
	Folders(ctx context.Context, below object.URI, after string, most int) ([]string, error)
	Extent(ctx context.Context, below object.URI) (object.Extent, error)
	List(ctx context.Context, prefix object.URI) ([]object.Info, error)
	DeletePrefix(ctx context.Context, prefix object.URI) (object.Extent, error)
	// Unfinished are the uploads in parts below a prefix; GiveUp ends one.
	Unfinished(ctx context.Context, below object.URI) ([]object.Unfinished, error)
	GiveUp(ctx context.Context, upload object.Unfinished) error
}

// Config is what a janitor needs.
type Config struct {
	Ledger Ledger
	Jobs   interface {
		// Job deletes a job with all that it left, and says how much that was.
		Job(ctx context.Context, job cluster.Job) (object.Extent, error)
		Archived(ctx context.Context, row cluster.Archived) (object.Extent, error)
		Archive(ctx context.Context, job cluster.Job, now int64) error
	}
	Store func() (Store, error)
	Now   func() time.Time // what ages go by
	Log   *slog.Logger
}

const (
	settled  = 5 * time.Second        // before a new leader's first round
	every    = time.Minute            // between rounds while there is nothing left to do
	hurry    = 500 * time.Millisecond // between rounds while there is
	perRound = 100                    // things that go in one
	perRead  = 5000                   // archived jobs that are looked at in one
	sulk     = time.Hour              // before what could not be removed is tried again
)

// Janitor is the loop.
type Janitor struct {
	Config
	asks chan ask

	mu   sync.Mutex
	gone Counts
}

// Counts are what has gone here, since this coordinator began.
type Counts struct {
	Removed map[Kind]int64
	Bytes   int64 // that this freed in the object store
}

// Counts are what has gone here.
func (j *Janitor) Counts() Counts {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Counts{maps.Clone(j.gone.Removed), j.gone.Bytes}
}

// removed notes that something is gone.
func (j *Janitor) removed(g Gone) {
	j.mu.Lock()
	j.gone.Removed[g.Kind]++
	j.gone.Bytes += g.Bytes
	j.mu.Unlock()
	j.Log.Info("removed what is over", "kind", string(g.Kind), "id", g.ID, "why", g.Why, "objects", g.Objects, "bytes", g.Bytes)
}

// ask is a question to the loop.
type ask struct {
	do     bool
	answer chan answer
}

type answer struct {
	result Result
	err    error
}

// New makes a janitor.
func New(c Config) *Janitor {
	return &Janitor{Config: c, asks: make(chan ask), gone: Counts{Removed: map[Kind]int64{}}}
}

// patience is how long a question waits for the loop, which may be at work.
const patience = 30 * time.Second

// Sweep says what goes next, or has it go at once; where this coordinator does not lead it is Unready.
func (j *Janitor) Sweep(ctx context.Context, do bool) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	question := ask{do, make(chan answer, 1)}
	select {
	case j.asks <- question:
	case <-ctx.Done():
		return Result{}, fault.New(fault.Unready, "the janitor of this coordinator is busy, or it does not lead: ask again")
	}
	select {
	case told := <-question.answer:
		return told.result, told.err
	case <-ctx.Done():
		return Result{}, fault.New(fault.Unready, "the janitor is still at work: ask again")
	}
}

// Run removes what is over until ctx ends. It runs on the leader only.
func (j *Janitor) Run(ctx context.Context) error {
	events := j.Ledger.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindJob || c.Kind == state.KindSettings })
	defer events.Close()
	r := &reign{Janitor: j, ended: map[string]int64{}, repeated: map[string]repeated{}, failed: map[string]time.Time{}}
	if err := r.read(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(settled)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case batch, open := <-events.C:
			if !open {
				return fault.New(fault.Unready, "the state is closed")
			}
			if err := r.take(ctx, batch); err != nil {
				return err
			}
			if batch.Lost || slices.ContainsFunc(batch.Changes, func(c state.Change) bool { return c.Kind == state.KindSettings }) {
				r.looked, r.pruned = "", time.Time{}
				timer.Reset(r.tick(ctx)) // what somebody has set holds at once
			}
		case question := <-j.asks:
			if question.do { // what was shown goes now
				r.looked, r.pruned, r.uploaded, r.parted = "", time.Time{}, time.Time{}, time.Time{}
			}
			result, err := r.round(ctx, question.do)
			question.answer <- answer{result, err}
		case <-timer.C:
			timer.Reset(r.tick(ctx))
		}
	}
}

// reign is what the loop remembers while this coordinator leads.
type reign struct {
	*Janitor
	ended    map[string]int64     // when each job ended that no other has made
	repeated map[string]repeated  // jobs that have begun more than once
	failed   map[string]time.Time // what could not be removed, and when that was tried
	at       cursor
	seen     string    // the last archived job that was looked at
	uploaded time.Time // when uploads were looked at last
	parted   time.Time // when uploads that were not completed were
	pruned   time.Time // when the checkpoints of all jobs were begun to be looked at
	looked   string    // the last job whose checkpoints were, if some are still to be
	said     string    // what was logged last
}

// read looks at all jobs.
func (r *reign) read(ctx context.Context) error {
	snapshot, err := r.Ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	clear(r.ended)
	clear(r.repeated)
	for job := range snapshot.Jobs("") {
		r.note(job)
	}
	return nil
}

func (r *reign) note(job cluster.Job) {
	if job.Attempt > 1 {
		r.repeated[job.Name] = repeated{attempt: job.Attempt, ended: job.Ended}
	}
	if job.State.Ended() && job.Parent == "" {
		r.ended[job.Name] = job.Ended
		return
	}
	delete(r.ended, job.Name)
}

func (r *reign) take(ctx context.Context, batch state.Batch) error {
	if batch.Lost {
		return r.read(ctx)
	}
	snapshot, err := r.Ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for _, change := range batch.Changes {
		if change.Kind != state.KindJob {
			continue
		}
		if job, there := snapshot.Job(change.ID); there {
			r.note(job)
			continue
		}
		delete(r.ended, change.ID)
		delete(r.repeated, change.ID)
		delete(r.failed, change.ID)
	}
	return nil
}

// tick does a round, and says when the next one is due.
func (r *reign) tick(ctx context.Context) time.Duration {
	result, err := r.round(ctx, true)
	if err != nil {
		if ctx.Err() == nil && r.said != err.Error() {
			r.Log.Warn("what is over cannot be removed for now", "error", err)
			r.said = err.Error()
		}
		return every
	}
	r.said = ""
	if result.More {
		return hurry
	}
	return every
}

// round removes what a sweep names, or only says what that is.
func (r *reign) round(ctx context.Context, do bool) (Result, error) {
	now := r.Now()
	snapshot, err := r.Ledger.Read(ctx, true)
	if err != nil {
		return Result{}, err
	}
	settings := snapshot.Settings()
	view := View{Tokens: slices.Collect(snapshot.Tokens())}
	for name, at := range r.ended {
		if tried, is := r.failed[name]; do && is && now.Sub(tried) < sulk {
			continue
		}
		view.Jobs = append(view.Jobs, Ended{name, at})
	}
	slices.SortFunc(view.Jobs, func(a, b Ended) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Name, b.Name)) })
	read := r.archived(snapshot, &view, settings)
	result := Sweep(view, settings, now.UnixNano(), 1)
	if len(result.Gone)+len(result.Kept) > 0 { // it is worth looking at all that may need something
		needed := references(snapshot)
		view.Refs, view.Reads = needed.left, needed.rows
		result = Sweep(view, settings, now.UnixNano(), perRound)
	}
	snapshot.Close()
	if do {
		if !result.More {
			r.seen = read
		}
		if result.Gone, err = r.remove(ctx, result.Gone); err != nil {
			return result, err
		}
	}
	if !do {
		if err := r.weigh(ctx, result.Gone); err != nil {
			return result, err
		}
	}
	keep := settings.Retention
	if !result.More && keep.Orphans+keep.Uploads > 0 {
		folders, err := r.sweepFolders(ctx, keep, now, do)
		if result.Gone = append(result.Gone, folders...); err != nil {
			return result, err
		}
	}
	if result.More {
		return result, nil
	}
	pruned, err := r.sweepCheckpoints(ctx, keep.Checkpoints, now, do)
	result.Gone, result.Kept, result.More = append(result.Gone, pruned.Gone...), append(result.Kept, pruned.Kept...), pruned.More
	return result, err
}

// weigh says of jobs that are to be deleted how much they left in their folders.
func (r *reign) weigh(ctx context.Context, doomed []Gone) error {
	for i, g := range doomed {
		if g.Kind != GoneJob && g.Kind != GoneArchived {
			continue
		}
		store, err := r.Store()
		if err != nil {
			return err
		}
		folder, err := object.ParseURI(disposal.Folder(g.ID))
		if err != nil {
			return err
		}
		extent, err := store.Extent(ctx, folder)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		doomed[i].Objects, doomed[i].Bytes = extent.Objects, extent.Bytes
	}
	return nil
}

// archived adds the archived jobs to a view whose turn it is to be looked at, and says up to which that is.
func (r *reign) archived(snapshot *state.Snapshot, view *View, settings cluster.Settings) string {
	if settings.Retention.Outputs == 0 {
		return ""
	}
	for row := range snapshot.ArchivedJobs(r.seen) {
		if tried, is := r.failed[row.Name]; !is || time.Since(tried) >= sulk {
			view.Archived = append(view.Archived, Ended{row.Name, row.Ended})
		}
		if len(view.Archived) == perRead {
			return row.Name
		}
	}
	return ""
}

// remove removes things one by one, and returns those that are gone. One that cannot be removed does not keep the others from it.
func (r *reign) remove(ctx context.Context, doomed []Gone) ([]Gone, error) {
	var gone []Gone
	var last error
	for _, g := range doomed {
		freed, err := r.one(ctx, g)
		switch {
		case err == nil:
			g.Objects, g.Bytes = freed.Objects, freed.Bytes
			gone = append(gone, g)
			r.removed(g)
		case ctx.Err() != nil:
			return gone, ctx.Err()
		case fault.Is(err, fault.Unready): // the store or the log is away: so it is for all others
			return gone, err
		case fault.Is(err, fault.NotFound): // somebody else was faster
		default:
			last = err
			r.failed[g.ID] = r.Now()
			r.Log.Warn("cannot be removed, will be tried again", "kind", string(g.Kind), "id", g.ID, "after", sulk, "error", err)
		}
	}
	if len(gone) == 0 {
		return gone, last
	}
	return gone, nil
}

func (r *reign) one(ctx context.Context, g Gone) (freed object.Extent, err error) {
	snapshot, err := r.Ledger.Read(ctx, true)
	if err != nil {
		return freed, err
	}
	job, isJob := snapshot.Job(g.ID)
	row, isRow := snapshot.Archived(g.ID)
	token, isToken := snapshot.Token(g.ID)
	snapshot.Close()
	switch {
	case g.Kind == GoneJob && isJob && job.State.Ended():
		return r.Jobs.Job(ctx, job)
	case g.Kind == GoneRecord && isJob && job.State.Ended():
		return freed, r.Jobs.Archive(ctx, job, time.Now().UnixNano())
	case g.Kind == GoneArchived && isRow && !isJob:
		return r.Jobs.Archived(ctx, row)
	case g.Kind == GoneToken && isToken:
		_, err := r.Ledger.Propose(ctx, command.Record{Changes: []command.Change{{Expect: token.Revision, Delete: &command.Key{Kind: state.KindToken, ID: token.ID}}}})
		return freed, err
	}
	return freed, fault.New(fault.NotFound, "%s %s is gone", g.Kind, g.ID)
}
