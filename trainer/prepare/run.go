package prepare

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/steps"
	"github.com/clary-ml/clary/trainer/table"
)

// MainInput is the channel of the table that is prepared.
const MainInput = steps.MainInput

// Names in the output folder, beside a folder for each part.
const (
	TransformFolder  = "transform"
	QuarantineFolder = "quarantine"
	ReportFile       = "report.json"
)

// Run is one preparation.
type Run struct {
	Plan steps.Plan
	// Inputs are the folders or files of the channels, by name.
	Inputs map[string]string
	// Output is a folder that is there. Each part is written into a file in a folder of its
	// name, which has its name once it is whole: what an earlier run wrote there stands until
	// then, and may be the input. Then it is replaced, parts that there are no longer included.
	Output string
	// Workers is how many batches are worked on at once; 0 means one for each processor.
	Workers int
	// Tell is called now and then with the number of the reading and the rows read in it.
	Tell func(reading int, rows int64)
}

// Report says what was done.
type Report struct {
	Rows   int64 `json:"rows"`
	Broken int64 `json:"broken,omitempty"`
	// Parts are the rows written, by part; Left is how many of those that were read were not.
	Parts map[string]int64 `json:"parts"`
	Left  int64            `json:"left_out,omitempty"`
	// Columns are those written.
	Columns  []table.Field `json:"columns"`
	Readings int           `json:"readings"`
}

// Do prepares the table.
func (r Run) Do(ctx context.Context) (report Report, err error) {
	if err := r.Plan.Validate(); err != nil {
		return report, err
	}
	q := &quarantine{path: r.quarantineFile()}
	defer func() { err = errors.Join(err, q.close()) }()
	source, err := r.open(MainInput, q.take)
	if err != nil {
		return report, err
	}
	l := &learner{plan: r.Plan, source: source, tell: r.Tell, other: func(channel string) (*table.Source, error) {
		return r.open(channel, func(table.Broken) error { return nil })
	}}
	if err := l.learn(ctx); err != nil {
		return report, err
	}
	q.writing = true
	report, err = r.write(ctx, l)
	if err == nil {
		err = r.finish(report)
	}
	if err != nil {
		return report, errors.Join(err, r.discard())
	}
	if err := r.saveTransform(l.transform); err != nil {
		return report, err
	}
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return report, fault.New(fault.Internal, "write the report: %w", err)
	}
	return report, os.WriteFile(filepath.Join(r.Output, ReportFile), append(text, '\n'), 0o644)
}

func (r Run) open(channel string, put func(table.Broken) error) (*table.Source, error) {
	path, given := r.Inputs[channel]
	if !given {
		return nil, fault.New(fault.Invalid, "there is no input %q: give it one", channel)
	}
	o := table.Options{Columns: r.Plan.Columns, Missing: r.Plan.Missing, OnBroken: table.Policy(r.Plan.OnBroken), Quarantine: put, Workers: r.Workers}
	if r.Plan.Delimiter != "" {
		o.Delimiter = r.Plan.Delimiter[0]
	}
	if channel != MainInput { // the second table has a header of its own
		o.Columns = nil
	}
	return table.Open(path, o)
}

// encoded is a batch of each part, as text where the format has one.
type encoded struct {
	batches []table.Batch
	texts   [][]byte
}

func (r Run) write(ctx context.Context, l *learner) (report Report, err error) {
	parts := r.Plan.Parts()
	fields := l.withoutLabel()
	if label := l.field(r.Plan.Label); label != nil {
		fields = append(fields, *label)
	}
	report = Report{Parts: map[string]int64{}, Columns: fields}
	writers := make([]*table.Writer, 0, len(parts))
	defer func() {
		for _, w := range writers {
			err = errors.Join(err, w.Close())
		}
	}()
	for _, part := range parts {
		if err := os.MkdirAll(filepath.Join(r.Output, part), 0o755); err != nil {
			return report, fault.New(fault.Internal, "write %s: %w", part, err)
		}
		w, err := table.Create(r.partFile(".", part, r.format()), fields)
		if err != nil {
			return report, err
		}
		writers = append(writers, w)
	}
	written := int64(0)
	err = read(ctx, l, func(rows *rows) (encoded, error) {
		var e encoded
		for i := range parts {
			b := arrange(rows.of(i, len(parts)), r.Plan.Label)
			e.batches, e.texts = append(e.batches, b), append(e.texts, writers[i].Text(b))
		}
		return e, nil
	}, func(e encoded) error {
		for i, w := range writers {
			if e.batches[i].Rows == 0 {
				continue
			}
			if err := w.Write(e.batches[i], e.texts[i]); err != nil {
				return fault.New(fault.Internal, "write %s: %w", parts[i], err)
			}
		}
		return nil
	})
	for i, w := range writers {
		report.Parts[parts[i]] = w.Rows()
		written += w.Rows()
	}
	report.Rows, report.Broken, report.Left, report.Readings = l.count.Rows, l.count.Broken, l.count.Rows-written, l.readings
	if err == nil && written == 0 {
		err = fault.New(fault.Invalid, "no row is left to write: %d were read", report.Rows)
	}
	return report, err
}

func (r Run) format() string {
	if r.Plan.Format == "" {
		return table.CSV
	}
	return r.Plan.Format
}

// partFile is where a part is; while it is written its name begins with a dot.
func (r Run) partFile(dot, part, format string) string {
	return filepath.Join(r.Output, part, dot+part+"."+format)
}

// finish gives what was written its names, and removes what an earlier run had written and this
// one has not.
func (r Run) finish(report Report) error {
	var errs []error
	for _, part := range steps.Parts() {
		for _, format := range table.Formats() {
			_, written := report.Parts[part]
			if written && format == r.format() {
				errs = append(errs, os.Rename(r.partFile(".", part, format), r.partFile("", part, format)))
				continue
			}
			errs = append(errs, removed(r.partFile("", part, format)))
		}
	}
	if report.Broken == 0 || r.Plan.OnBroken != string(table.Quarantine) {
		errs = append(errs, removed(r.quarantineFile()))
	}
	return errors.Join(errs...)
}

// discard removes what a run that failed has begun.
func (r Run) discard() error {
	var errs []error
	for _, part := range steps.Parts() {
		errs = append(errs, removed(r.partFile(".", part, r.format())))
	}
	return errors.Join(errs...)
}

func removed(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Internal, "remove what an earlier run wrote: %w", err)
	}
	return nil
}

func (r Run) quarantineFile() string {
	return filepath.Join(r.Output, QuarantineFolder, "broken.jsonl")
}

// arrange puts the label last.
func arrange(b table.Batch, label string) table.Batch {
	at := slices.IndexFunc(b.Columns, func(c table.Column) bool { return c.Name == label && label != "" })
	if at < 0 {
		return b
	}
	last := b.Columns[at]
	b.Columns = append(slices.Delete(slices.Clone(b.Columns), at, at+1), last)
	return b
}

func (r Run) saveTransform(t Transform) error {
	folder := filepath.Join(r.Output, TransformFolder)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fault.New(fault.Internal, "write the transform: %w", err)
	}
	return t.Save(filepath.Join(folder, TransformFile))
}

// quarantine takes broken rows of the reading that writes.
type quarantine struct {
	path    string
	writing bool
	file    *os.File
}

func (q *quarantine) take(b table.Broken) error {
	if !q.writing {
		return nil
	}
	if q.file == nil {
		err := os.MkdirAll(filepath.Dir(q.path), 0o755)
		if err == nil {
			q.file, err = os.Create(q.path)
		}
		if err != nil {
			return fault.New(fault.Internal, "put a broken row aside: %w", err)
		}
	}
	text, err := json.Marshal(b)
	if err == nil {
		_, err = q.file.Write(append(text, '\n'))
	}
	if err != nil {
		return fault.New(fault.Internal, "put a broken row aside: %w", err)
	}
	return nil
}

func (q *quarantine) close() error {
	if q.file == nil {
		return nil
	}
	return q.file.Close()
}
