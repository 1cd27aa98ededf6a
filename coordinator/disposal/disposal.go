// Package disposal takes ended jobs out of the state: into an archive, where all that they left stays, or for good, with all that
// they left in the object store. It does so for whoever asks for it, and for the janitor when their time has come.
//
// Objects go before what names them. A deletion that is cut off leaves something that can be deleted again, and no
// objects that nobody knows of. A record is whole before anything of what it tells goes.
package disposal

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/async"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload/tuning"
)

// Ledger is what a deletion needs of the replicated state.
type Ledger interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
}

// Store is where jobs leave what they make.
type Store interface {
	DeletePrefix(ctx context.Context, prefix object.URI) (object.Extent, error)
	Put(ctx context.Context, to object.URI, content io.Reader, size int64) (object.Info, error)
	Get(ctx context.Context, from object.URI, offset, length int64) (io.ReadCloser, error)
}

// Disposal archives and deletes jobs.
type Disposal struct {
	ledger Ledger
	store  func() (Store, error)
}

// New makes a disposal; store opens the cluster's object store.
func New(ledger Ledger, store func() (Store, error)) *Disposal {
	return &Disposal{ledger: ledger, store: store}
}

// deletion is one job's, and counts what it frees in the store.
type deletion struct {
	*Disposal
	mu    sync.Mutex
	freed object.Extent
}

// Folder is where a job's attempts keep what they produce.
func Folder(job string) string { return "s3://clary/jobs/" + job + "/" }

// Job deletes an ended job at the revision that was read, with what it made: its jobs, its sweep and that one's trials, its
// objects; and says how much that was in the store. It can be cut off and done again at any time. A Conflict is worth another
// look at the job.
func (d *Disposal) Job(ctx context.Context, job cluster.Job) (object.Extent, error) {
	one := &deletion{Disposal: d}
	err := one.job(ctx, job)
	return one.freed, err
}

func (d *deletion) job(ctx context.Context, job cluster.Job) error {
	row, archived, err := d.archived(ctx, job.Name)
	if err != nil {
		return err
	}
	r := command.Record{Changes: []command.Change{{Expect: job.Revision, Delete: &command.Key{Kind: state.KindJob, ID: job.Name}}}}
	if archived { // that was cut off, and some of what it made may be in its record only
		if err := d.recorded(ctx, row); err != nil {
			return err
		}
		r.Changes = append(r.Changes, command.Change{Expect: row.Revision, Delete: &command.Key{Kind: state.KindArchived, ID: job.Name}})
	}
	if err := d.made(ctx, job, true); err != nil {
		return err
	}
	if err := d.objects(ctx, job); err != nil {
		return err
	}
	_, err = d.ledger.Propose(ctx, r)
	return err
}

// objects deletes what an ended job left in the store: a later job of the same name
// must not find its checkpoints. It goes before the record, so that a crash in between
// leaves a job that can be deleted again, and no objects that nobody knows of. What waits for an endpoint
// was left there by others, perhaps before it ran.
func (d *deletion) objects(ctx context.Context, job cluster.Job) error {
	var folders []object.URI
	if job.Started != 0 {
		folder, err := object.ParseURI(Folder(job.Name))
		if err != nil {
			return err
		}
		folders = append(folders, folder)
	}
	if job.Kind == cluster.KindEndpoint {
		folders = append(folders, async.Folder(job.Name))
	}
	if len(folders) == 0 {
		return nil // it never ran, and left nothing
	}
	store, err := d.store()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		gone, err := store.DeletePrefix(ctx, folder)
		d.mu.Lock()
		d.freed = d.freed.Plus(gone)
		d.mu.Unlock()
		if err != nil && !fault.Is(err, fault.NotFound) {
			return fmt.Errorf("delete what job %s left in the object store: %w", job.Name, err)
		}
	}
	return nil
}

// learners are sweeps that go on and learn from an earlier one.
func learners(snapshot *state.Snapshot, earlier string) []string {
	var names []string
	for job := range snapshot.Jobs("") {
		if job.Kind == cluster.KindTuning && !job.State.Ended() && slices.Contains(tuning.WarmStart(job.Spec), earlier) {
			names = append(names, job.Name)
		}
	}
	return names
}

const (
	// deleteRows is how many trials one record deletes.
	deleteRows = 500
	// deleteAtOnce is how many jobs' objects are deleted at the same time.
	deleteAtOnce = 8
)

// made deletes what an ended job has made: its jobs, its sweep, and the sweep's trials, if objects is set
// with all that they left in the store. It can be cut off and done again at any time.
func (d *deletion) made(ctx context.Context, job cluster.Job, objects bool) error {
	snapshot, err := d.ledger.Read(ctx, false)
	if err != nil {
		return err
	}
	children := slices.Collect(snapshot.ChildrenOf(job.Name))
	sweep, swept := snapshot.Sweep(job.Name)
	var users []string
	if job.Kind == cluster.KindTuning {
		users = learners(snapshot, job.Name)
	}
	snapshot.Close()
	if len(users) > 0 {
		return fault.New(fault.Conflict, "job %s: sweep %s learns from it: delete it when that has ended", job.Name, users[0])
	}
	for _, child := range children {
		if !child.State.Ended() {
			return fault.New(fault.Conflict, "job %s has made job %s, which is %s: it is on its way to its end, try again", job.Name, child.Name, child.State)
		}
		if objects {
			if err := d.objects(ctx, child); err != nil {
				return err
			}
		}
		if err := d.drop(ctx, command.Key{Kind: state.KindJob, ID: child.Name}, child.Revision); err != nil {
			return err
		}
	}
	if swept {
		if err := d.drop(ctx, command.Key{Kind: state.KindSweep, ID: job.Name}, sweep.Revision); err != nil {
			return err
		}
	}
	if job.Kind != cluster.KindTuning {
		return nil
	}
	return d.trials(ctx, job.Name, objects)
}

func (d *Disposal) drop(ctx context.Context, key command.Key, revision uint64) error {
	_, err := d.ledger.Propose(ctx, command.Record{Changes: []command.Change{{Expect: revision, Delete: &key}}})
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// trials deletes a sweep's rows, a record at a time.
func (d *deletion) trials(ctx context.Context, sweep string, objects bool) error {
	for {
		snapshot, err := d.ledger.Read(ctx, false)
		if err != nil {
			return err
		}
		var r command.Record
		var left []string // jobs that may have left objects
		for trial := range snapshot.TrialsOf(sweep, 0) {
			r.Changes = append(r.Changes, command.Change{Expect: trial.Revision, Delete: &command.Key{Kind: state.KindTrial, ID: trial.ID()}})
			if objects {
				left = append(left, orphaned(snapshot, tuning.JobsOf(trial))...)
			}
			if len(r.Changes) == deleteRows {
				break
			}
		}
		snapshot.Close()
		if len(r.Changes) == 0 {
			return nil
		}
		if err := d.folders(ctx, left); err != nil {
			return err
		}
		if _, err := d.ledger.Propose(ctx, r); err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
}

// orphaned are those of the jobs that a sweep made whose objects are nobody else's: the sweep's own jobs are gone by now.
func orphaned(snapshot *state.Snapshot, jobs []string) []string {
	return slices.DeleteFunc(jobs, func(job string) bool {
		_, another := snapshot.Job(job)
		_, archived := snapshot.Archived(job)
		return another || archived
	})
}

// folders deletes what jobs left, some at a time.
func (d *deletion) folders(ctx context.Context, jobs []string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deleteAtOnce)
	for _, job := range jobs {
		group.Go(func() error { return d.objects(ctx, cluster.Job{Name: job, Started: 1}) })
	}
	return group.Wait()
}
