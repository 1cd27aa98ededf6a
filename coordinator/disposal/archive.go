package disposal

import (
	"bytes"
	"context"
	"io"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload/tuning"
)

// Archive takes an ended job out of the state, with what it made. What was known of it is in its record then, beside all that it
// left in the store, which stays. It can be cut off and done again at any time, by two at once too: the record is whole before
// the state says that the job is archived, and from then on it is not written again.
func (d *Disposal) Archive(ctx context.Context, job cluster.Job, now int64) error {
	if err := d.record(ctx, job, now); err != nil {
		return err
	}
	if err := (&deletion{Disposal: d}).made(ctx, job, false); err != nil {
		return err
	}
	return d.drop(ctx, command.Key{Kind: state.KindJob, ID: job.Name}, job.Revision)
}

// record writes a job's record and notes that it is there, unless it is.
func (d *Disposal) record(ctx context.Context, job cluster.Job, now int64) error {
	snapshot, err := d.ledger.Read(ctx, false)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	if _, is := snapshot.Archived(job.Name); is {
		return nil
	}
	if current, there := snapshot.Job(job.Name); !there || current.Revision != job.Revision || !current.State.Ended() {
		return fault.New(fault.Conflict, "job %s is not as it was read: read it again", job.Name)
	}
	store, err := d.store()
	if err != nil {
		return err
	}
	at, err := RecordOf(job.Name)
	if err != nil {
		return err
	}
	if err := upload(ctx, store, at, job, func(to io.Writer) error { return writeRecord(to, snapshot, job.Name) }); err != nil {
		return err
	}
	row := job.Archive(now)
	_, err = d.ledger.Propose(ctx, command.Record{Changes: []command.Change{{Archived: &row}}})
	if fault.Is(err, fault.Conflict) {
		if _, is, again := d.archived(ctx, job.Name); again == nil && is {
			return nil // another leader was faster: it wrote the same
		}
	}
	return err
}

// upload puts what is written; of a sweep, whose record may be long, while it is written.
func upload(ctx context.Context, store Store, to object.URI, job cluster.Job, write func(io.Writer) error) error {
	if job.Kind != cluster.KindTuning {
		var text bytes.Buffer
		if err := write(&text); err != nil {
			return err
		}
		_, err := store.Put(ctx, to, &text, int64(text.Len()))
		return err
	}
	reader, writer := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = writer.CloseWithError(write(writer)) // never fails
	}()
	_, err := store.Put(ctx, to, reader, -1)
	_ = reader.CloseWithError(err) // never fails; ends the writing if it goes on
	<-written
	return err
}

// archived looks whether a job is archived.
func (d *Disposal) archived(ctx context.Context, name string) (cluster.Archived, bool, error) {
	snapshot, err := d.ledger.Read(ctx, false)
	if err != nil {
		return cluster.Archived{}, false, err
	}
	defer snapshot.Close()
	row, is := snapshot.Archived(name)
	return row, is, nil
}

// Archived deletes an archived job for good, with all that it left in the store, and says how much that was.
func (d *Disposal) Archived(ctx context.Context, row cluster.Archived) (object.Extent, error) {
	one := &deletion{Disposal: d}
	err := one.archivedJob(ctx, row)
	return one.freed, err
}

func (d *deletion) archivedJob(ctx context.Context, row cluster.Archived) error {
	if err := d.recorded(ctx, row); err != nil {
		return err
	}
	job := row.Job()
	job.Started = 1 // there is a record, whether it ran or not
	if err := d.objects(ctx, job); err != nil {
		return err
	}
	_, err := d.ledger.Propose(ctx, command.Record{Changes: []command.Change{{Expect: row.Revision, Delete: &command.Key{Kind: state.KindArchived, ID: row.Name}}}})
	return err
}

// recorded deletes what the jobs left that an archived sweep made, as its record names them.
func (d *deletion) recorded(ctx context.Context, row cluster.Archived) error {
	if row.Kind != cluster.KindTuning {
		return nil
	}
	store, err := d.store()
	if err != nil {
		return err
	}
	snapshot, err := d.ledger.Read(ctx, false)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	var left []string
	err = readRecord(ctx, store, row.Name, func(line *claryv1.RecordLine) error {
		switch {
		case line.GetChild() != nil:
			left = append(left, orphaned(snapshot, []string{line.GetChild().GetJob().GetName()})...)
		case line.GetTrial() != nil:
			left = append(left, orphaned(snapshot, tuning.JobsOf(wire.TrialFromProto(line.GetTrial())))...)
		}
		if len(left) < deleteRows {
			return nil
		}
		some := left
		left = nil
		return d.folders(ctx, some)
	})
	if err != nil && !fault.Is(err, fault.NotFound) { // it went before, and all that it names before it
		return err
	}
	return d.folders(ctx, left)
}
