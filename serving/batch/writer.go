package batch

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch/record"
)

// cursor is where the output stands: what lies before it is done.
type cursor struct {
	Object int
	record.Position
}

// partialPrefix begins the name of an output that is not whole yet.
const partialPrefix = ".partial-"

// writer makes the outputs: of events that come in, and again of those in a journal.
type writer struct {
	folder  string
	objects []object
	at      cursor

	file     *os.File
	buffered *bufio.Writer

	failing mark
	reason  string // why the object at the cursor fails
	failed  []Failure
	records int64
	total   int64    // bytes of all objects
	done    int64    // bytes of the objects before the cursor
	resumed Progress // when the journal was replayed
}

// newWriter begins with none of the outputs.
func newWriter(folder string, objects []object) (*writer, error) {
	w := &writer{folder: folder, objects: objects}
	for _, o := range objects {
		w.total += o.size
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, fault.New(fault.Internal, "make the output folder: %w", err)
	}
	left, err := fs.Glob(os.DirFS(folder), partialPrefix+"*") // by a run that was killed
	for _, name := range left {
		err = errors.Join(err, os.Remove(filepath.Join(folder, name)))
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "clear the output folder: %w", err)
	}
	return w, nil
}

// follows reports whether events could come next, for the objects that there are.
func (w *writer) follows(events []event) bool {
	at := w.at
	for _, e := range events {
		if e.Object != at.Object || e.Object >= len(w.objects) || e.Output < 0 || e.Records < 0 {
			return false
		}
		o := w.objects[e.Object]
		switch {
		case e.Ends && (e.Name != o.name || e.Size != o.size):
			return false // the input has changed
		case e.Ends:
			at = cursor{Object: e.Object + 1}
		case e.To.Offset <= at.Offset || e.To.Offset > o.size:
			return false
		default:
			at.Position = e.To
		}
	}
	return true
}

// apply changes the output by one event.
func (w *writer) apply(e event, answer io.Reader) error {
	switch {
	case e.Failed != "":
		w.failed = append(w.failed, Failure{w.objects[e.Object].name, e.Failed})
		return w.next(w.drop())
	case e.Ends:
		if err := w.open(); err != nil { // of an object without a record
			return err
		}
		return w.next(w.finish())
	}
	if err := w.open(); err != nil {
		return err
	}
	if _, err := io.Copy(w.buffered, answer); err != nil {
		return fault.New(fault.Internal, "write the output of %s: %w", w.objects[e.Object].name, err)
	}
	w.at.Position = e.To
	w.records += e.Records
	return nil
}

func (w *writer) next(err error) error {
	if err != nil {
		return fault.New(fault.Internal, "write the output of %s: %w", w.objects[w.at.Object].name, err)
	}
	w.done += w.objects[w.at.Object].size
	w.at = cursor{Object: w.at.Object + 1}
	w.reason = ""
	return nil
}

// target is the name of the output at the cursor.
func (w *writer) target() string {
	return filepath.Join(w.folder, outputName(w.objects[w.at.Object].name))
}

// open begins the output at the cursor, unless it has begun.
func (w *writer) open() error {
	if w.file != nil {
		return nil
	}
	file, err := os.CreateTemp(w.folder, partialPrefix+"*")
	if err != nil {
		return fault.New(fault.Internal, "make the output of %s: %w", w.objects[w.at.Object].name, err)
	}
	w.file, w.buffered = file, bufio.NewWriterSize(file, 1<<18)
	return nil
}

// finish gives the output at the cursor its name.
func (w *writer) finish() error {
	err := errors.Join(w.buffered.Flush(), w.file.Chmod(0o644), os.MkdirAll(filepath.Dir(w.target()), 0o755))
	if err == nil {
		err = os.Rename(w.file.Name(), w.target())
	}
	if err != nil {
		return errors.Join(err, w.abandon())
	}
	err = w.file.Close()
	w.file, w.buffered = nil, nil
	return err
}

// fail gives up the object at the cursor.
func (w *writer) fail(object int, reason string) error {
	w.reason = reason
	w.failing.set(object)
	if err := w.drop(); err != nil {
		return fault.New(fault.Internal, "drop the output of %s: %w", w.objects[object].name, err)
	}
	return nil
}

// drop deletes the output at the cursor, of this run or an earlier one.
func (w *writer) drop() error {
	err := w.abandon()
	if removed := os.Remove(w.target()); removed != nil && !errors.Is(removed, os.ErrNotExist) && !errors.Is(removed, syscall.ENOTDIR) {
		err = errors.Join(err, removed)
	}
	return err
}

// abandon leaves nothing of an output that is not whole.
func (w *writer) abandon() error {
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.file.Close(), os.Remove(w.file.Name()))
	w.file, w.buffered = nil, nil
	return err
}

func (w *writer) progress() Progress {
	return Progress{
		Objects: len(w.objects), ObjectsDone: w.at.Object - len(w.failed), ObjectsFailed: len(w.failed),
		Records: w.records, Bytes: w.total, BytesDone: w.done + w.at.Offset, ResumedBytes: w.resumed.BytesDone, ResumedRecords: w.resumed.Records,
	}
}
