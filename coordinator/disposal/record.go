package disposal

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/object"
)

// RecordOf is where the record of an archived job is: gzip of JSON, a line for the job with its gangs, tasks and outputs, and
// one for each thing that it made.
func RecordOf(job string) (object.URI, error) {
	return object.ParseURI(Folder(job) + "record.jsonl.gz")
}

// View is a job with its gangs, tasks and outputs; nil if there is no such job.
func View(snapshot *state.Snapshot, name string) *claryv1.JobView {
	job, ok := snapshot.Job(name)
	if !ok {
		return nil
	}
	view := &claryv1.JobView{Job: wire.JobToProto(job)}
	for gang := range snapshot.GangsOf(name) {
		view.Gangs = append(view.Gangs, wire.GangToProto(gang))
	}
	for task := range snapshot.TasksOf(name) {
		view.Tasks = append(view.Tasks, wire.TaskToProto(task))
	}
	if publication, ok := snapshot.Publication(name); ok {
		view.Publication = wire.PublicationToProto(publication)
	}
	return view
}

// writeRecord writes all that the state knows of a job and of what it made.
func writeRecord(to io.Writer, snapshot *state.Snapshot, job string) error {
	packed := gzip.NewWriter(to)
	buffered := bufio.NewWriterSize(packed, 64<<10)
	var failed error
	put := func(line *claryv1.RecordLine) bool {
		text, err := protojson.Marshal(line)
		if err == nil {
			_, err = buffered.Write(append(text, '\n'))
		}
		failed = err
		return err == nil
	}
	put(&claryv1.RecordLine{Line: &claryv1.RecordLine_Job{Job: View(snapshot, job)}})
	if endpoint, is := snapshot.Endpoint(job); is && failed == nil {
		put(&claryv1.RecordLine{Line: &claryv1.RecordLine_Endpoint{Endpoint: wire.EndpointToProto(endpoint)}})
	}
	if sweep, is := snapshot.Sweep(job); is && failed == nil {
		put(&claryv1.RecordLine{Line: &claryv1.RecordLine_Sweep{Sweep: wire.SweepToProto(sweep)}})
	}
	for child := range snapshot.ChildrenOf(job) {
		if failed != nil || !put(&claryv1.RecordLine{Line: &claryv1.RecordLine_Child{Child: View(snapshot, child.Name)}}) {
			break
		}
	}
	for trial := range snapshot.TrialsOf(job, 0) {
		if failed != nil || !put(&claryv1.RecordLine{Line: &claryv1.RecordLine_Trial{Trial: wire.TrialToProto(trial)}}) {
			break
		}
	}
	return errors.Join(failed, buffered.Flush(), packed.Close())
}

// maxRecordLine is more than a job with all of its tasks can have.
const maxRecordLine = 256 << 20

// errEnough ends the reading of a record.
var errEnough = errors.New("that is enough of the record")

// readRecord hands on the lines of a job's record until one is refused.
func readRecord(ctx context.Context, store Store, job string, take func(*claryv1.RecordLine) error) error {
	at, err := RecordOf(job)
	if err != nil {
		return err
	}
	body, err := store.Get(ctx, at, 0, -1)
	if err != nil {
		return fmt.Errorf("read the record of archived job %s: %w", job, err)
	}
	defer body.Close()
	unpacked, err := gzip.NewReader(body)
	if err != nil {
		return broken(at, err)
	}
	lines := bufio.NewScanner(unpacked)
	lines.Buffer(make([]byte, 0, 64<<10), maxRecordLine)
	for lines.Scan() {
		line := &claryv1.RecordLine{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(lines.Bytes(), line); err != nil {
			return broken(at, err)
		}
		if err := take(line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return broken(at, err)
	}
	return nil
}

func broken(at object.URI, err error) error {
	return fault.New(fault.Internal, "the record %s cannot be read: %w", at, err)
}

// Recorded is an archived job as its record has it.
func Recorded(ctx context.Context, store Store, job string) (*claryv1.JobView, error) {
	var view *claryv1.JobView
	err := readRecord(ctx, store, job, func(line *claryv1.RecordLine) error {
		view = line.GetJob()
		return errEnough
	})
	switch {
	case view != nil:
		return view, nil
	case err != nil:
		return nil, err
	}
	return nil, fault.New(fault.Internal, "the record of archived job %s does not begin with the job", job)
}
