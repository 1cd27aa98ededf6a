// Package batch transforms objects in bulk: it cuts them into records, sends these to a
// server by SageMaker's contract for batch transforms, and puts the answers together in the
// order of the records, one output for each object.
//
// It sees folders and a server. What it has done is kept in a folder as a journal, so that
// a run that was cut off anywhere goes on where the last one stood, and its output has the
// same bytes as one that never was. See DESIGN.md.
package batch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/internal/fault"
)

// Suffix is what an output's name has more than its input's.
const Suffix = ".out"

// Options say what to transform.
type Options struct {
	Server  Server
	Shape   Shape
	Limits  Limits // with nothing left open, see Limits.Else
	Inputs  string // folder
	Outputs string // folder
	Journal string // folder of what was done; an earlier run's is gone on from

	Report      func(Progress) // called often, by one goroutine; nil for none
	CommitBytes int64          // of output between two entries of the journal; 16 MiB if 0
	CommitEvery time.Duration  // between two entries, longer after many; 5 s if 0
}

// Progress is where a run stands.
type Progress struct {
	Objects, ObjectsDone, ObjectsFailed int
	Records                             int64
	Bytes, BytesDone                    int64 // of input
	ResumedBytes                        int64 // of BytesDone, by earlier runs
	ResumedRecords                      int64 // of Records, likewise
}

// Failure is an object that has no output, and why.
type Failure struct {
	Object string `json:"object"`
	Reason string `json:"reason"`
}

// Summary is what became of a run.
type Summary struct {
	Progress
	Failed []Failure
}

// hopeless is how many objects may fail one behind the other, from the first on, before
// nothing more is tried.
const hopeless = 10

const (
	defaultCommitBytes = 16 << 20
	defaultCommitEvery = 5 * time.Second
)

// Run transforms all files below the input folder, in the order of their names. An object
// with a record that cannot be read, or that the server refuses, has no output and is a
// Failure; the others go on. An error means that the run could not be brought to its end;
// the journal has what was done.
func Run(ctx context.Context, o Options) (Summary, error) {
	refine, err := o.Shape.compile()
	if err != nil {
		return Summary{}, err
	}
	if err := o.Limits.Validate(); err != nil {
		return Summary{}, err
	}
	if o.Limits != o.Limits.Else(Defaults()) {
		return Summary{}, fault.New(fault.Invalid, "limits: something is left open: %+v", o.Limits)
	}
	if o.CommitBytes == 0 {
		o.CommitBytes = defaultCommitBytes
	}
	if o.CommitEvery == 0 {
		o.CommitEvery = defaultCommitEvery
	}
	objects, err := list(o.Inputs)
	if err != nil {
		return Summary{}, err
	}
	w, err := newWriter(o.Outputs, objects)
	if err != nil {
		return Summary{}, err
	}
	journal, err := openJournal(o.Journal, plan{Shape: o.Shape.Resolved(), Limits: o.Limits}, w)
	if err != nil {
		return Summary{}, errors.Join(err, w.abandon())
	}
	r := &run{Options: o, refine: refine, objects: objects, writer: w, journal: journal}
	err = r.all(ctx)
	return r.summary(), errors.Join(err, w.abandon())
}

// object is one input.
type object struct {
	name  string // with slashes, below the input folder
	size  int64
	clash string // whose output would stand where a folder of this one's is, "" for none
}

// list returns all files below a folder in the order of their names.
func list(folder string) ([]object, error) {
	var objects []object
	err := filepath.WalkDir(folder, func(at string, item fs.DirEntry, err error) error {
		if err != nil || item.IsDir() {
			return err
		}
		info, err := os.Stat(at) // a staged file may be a link
		if err != nil {
			return err
		}
		name, err := filepath.Rel(folder, at)
		if err == nil && info.Mode().IsRegular() {
			objects = append(objects, object{name: filepath.ToSlash(name), size: info.Size()})
		}
		return err
	})
	if err != nil {
		return nil, fault.New(fault.Unready, "list the input: %w", err)
	}
	findClashes(objects)
	return objects, nil
}

// findClashes marks objects x.out/y beside an object x: the output of x would be a file where the
// other's needs a folder.
func findClashes(objects []object) {
	known := make(map[string]bool, len(objects))
	for _, o := range objects {
		known[o.name] = true
	}
	for i, o := range objects {
		for folder := path.Dir(o.name); folder != "."; folder = path.Dir(folder) {
			if of, isOutput := strings.CutSuffix(folder, Suffix); isOutput && known[of] {
				objects[i].clash = of
			}
		}
	}
}

// run is a Run that has begun.
type run struct {
	Options
	refine  refiner
	objects []object
	writer  *writer
	journal *journal
}

// all has one goroutine cut, some send, and this one put together. What is cut waits in a
// line of bounded length, in order, so that the slowest answer holds back what is cut.
func (r *run) all(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	// More requests than are sent at a time, so that a slow one does not leave the others idle.
	line := make(chan *slot, 2*r.Limits.Concurrent)
	work := make(chan *slot)
	cut := &cutter{run: r, line: line, work: work, skipped: &r.writer.failing}
	group.Go(func() error { return cut.all(ctx) })
	for range r.Limits.Concurrent {
		group.Go(func() error { return r.send(ctx, work) })
	}
	group.Go(func() error { return r.assemble(ctx, line) })
	err := group.Wait()
	return errors.Join(err, r.journal.commit()) // what was put together before an error too
}

// send answers slots one by one.
func (r *run) send(ctx context.Context, work <-chan *slot) error {
	for s := range work {
		if !r.writer.failing.is(s.object) { // else nobody wants it any more
			s.answer, s.err = r.transform(ctx, s)
			s.records, s.numbers = nil, nil // it may wait for long, for those before it
		}
		close(s.done)
		if s.err != nil && !fault.Is(s.err, fault.Invalid) {
			return s.err
		}
	}
	return nil
}

func (r *run) transform(ctx context.Context, s *slot) ([]byte, error) {
	request, err := r.refine.request(s.records)
	if err == nil && int64(len(request)) > r.Limits.Payload {
		err = fault.New(fault.Invalid, "what the input filter makes of it is larger than a request may be (%d bytes)", r.Limits.Payload)
	}
	if err != nil {
		return nil, s.blame(err)
	}
	answer, err := r.Server.Invoke(ctx, request)
	if err != nil {
		return nil, s.blame(err)
	}
	result, err := r.refine.result(s.records, answer)
	return result, s.blame(err)
}

// assemble takes slots in order.
func (r *run) assemble(ctx context.Context, line <-chan *slot) error {
	w := r.writer
	for s := range line {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
		}
		if err := r.take(s); err != nil {
			return err
		}
		if r.Report != nil {
			r.Report(w.progress())
		}
		if r.journal.due(r.CommitBytes, r.CommitEvery) {
			if err := r.journal.commit(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) take(s *slot) error {
	w := r.writer
	switch {
	case s.err != nil && !fault.Is(s.err, fault.Invalid):
		return s.err
	case w.failing.is(s.object):
		if s.last {
			return r.journal.add(event{Object: s.object, Ends: true, Failed: w.reason})
		}
		return nil
	case s.err != nil:
		if err := w.fail(s.object, s.err.Error()); err != nil {
			return err
		}
		if len(w.failed)+1 >= hopeless && len(w.failed) == w.at.Object {
			return fault.New(fault.Invalid, "the first %d objects failed, and nothing more was tried: %s: %s", hopeless, r.objects[s.object].name, w.reason)
		}
		if !s.last {
			return nil
		}
		return r.journal.add(event{Object: s.object, Ends: true, Failed: w.reason})
	case s.last:
		return r.journal.add(event{Object: s.object, Ends: true, To: s.to})
	}
	return r.journal.append(event{Object: s.object, To: s.to, Records: s.count}, s.answer)
}

func (r *run) summary() Summary {
	return Summary{Progress: r.writer.progress(), Failed: r.writer.failed}
}

// outputName is where an object's output lies below the output folder.
func outputName(name string) string { return filepath.FromSlash(path.Clean(name)) + Suffix }
