package table

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/trainer/channel"
)

// The formats.
const (
	CSV     = "csv"
	JSONL   = "jsonl"
	Parquet = "parquet"
)

// Options say how files become rows.
type Options struct {
	// Format is one of the formats; by default the files' names tell.
	Format string
	// Delimiter stands between the cells of a CSV line; 0 means a comma.
	Delimiter byte
	// Columns names the columns of CSV files without a header.
	Columns []string
	// Missing are texts that mean that a cell is missing, beside the empty one and
	// NA, N/A, NaN, nan, null and NULL.
	Missing []string
	// OnBroken says what becomes of rows that cannot be read; Quarantine takes them.
	OnBroken   Policy
	Quarantine func(Broken) error
	// Workers is how many batches are worked on at once; 0 means one for each processor.
	Workers int
}

// Source is a table in files that can be read again and again.
type Source struct {
	// Fields are the columns of every file.
	Fields []Field

	options Options
	format  format
	files   []string
	missing *Missing
}

// format is how files of one kind are cut into units.
type format interface {
	// names reads the columns of a file.
	names(file string, o Options) ([]Field, error)
	// units cuts a file. Each unit is parsed apart, maybe while the next is cut.
	units(file string, s *Source, yield func(unit) error) error
}

// unit parses some rows.
type unit func() (Batch, []Broken)

var formats = map[string]format{CSV: csvFormat{}, JSONL: jsonFormat{}, Parquet: parquetFormat{}}

// Formats are all there are.
func Formats() []string { return []string{CSV, JSONL, Parquet} }

var extensions = map[string]string{
	".csv": CSV, ".tsv": CSV, ".txt": CSV, ".jsonl": JSONL, ".ndjson": JSONL, ".json": JSONL, ".parquet": Parquet, ".pq": Parquet,
}

// FormatOf tells a format by a file's name, or "".
func FormatOf(file string) string {
	return extensions[filepath.Ext(strings.TrimSuffix(strings.ToLower(file), ".gz"))]
}

// Open looks at the files of a channel. All must have the same columns. Only those of Parquet
// have kinds already.
func Open(path string, o Options) (*Source, error) {
	if !slices.Contains(Policies(), o.OnBroken) && o.OnBroken != "" {
		return nil, fault.New(fault.Invalid, "on_broken %q: takes strict, skip or quarantine", clip(string(o.OnBroken)))
	}
	files, err := channel.Files(path)
	if err != nil {
		return nil, err
	}
	if o.Format == "" {
		if o.Format = FormatOf(files[0]); o.Format == "" {
			return nil, fault.New(fault.Invalid, "%s: its name does not tell what it is: say format csv, jsonl or parquet", files[0])
		}
		if strings.HasSuffix(strings.TrimSuffix(files[0], ".gz"), ".tsv") && o.Delimiter == 0 {
			o.Delimiter = '\t'
		}
	}
	f, known := formats[o.Format]
	if !known {
		return nil, fault.New(fault.Invalid, "format %q is unknown: csv, jsonl or parquet", clip(o.Format))
	}
	if o.Delimiter == 0 {
		o.Delimiter = ','
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	s := &Source{options: o, format: f, files: files, missing: NewMissing(o.Missing)}
	return s, s.findFields()
}

func (s *Source) findFields() error {
	if names := s.options.Columns; len(names) > 0 {
		if s.options.Format != CSV {
			return fault.New(fault.Invalid, "columns are named for CSV files without a header, and these are %s", s.options.Format)
		}
		for _, name := range names {
			s.Fields = append(s.Fields, Field{Name: name, Kind: Text})
		}
		return checkNames("columns", names)
	}
	for i, file := range s.files {
		fields, err := s.fieldsOf(file)
		if err != nil {
			return err
		}
		if i == 0 {
			s.Fields = fields
		} else if !slices.Equal(fields, s.Fields) && s.options.Format != JSONL {
			return fault.New(fault.Invalid, "%s has the columns %s, and %s has %s: all files of a channel need the same",
				file, list(fields), s.files[0], list(s.Fields))
		}
	}
	return nil
}

func (s *Source) fieldsOf(file string) ([]Field, error) {
	fields, err := s.format.names(file, s.options)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	return fields, checkNames(file, names)
}

func list(fields []Field) string {
	var names []string
	for _, f := range fields {
		names = append(names, f.Name)
	}
	if len(names) > 8 {
		names = append(names[:8], "…")
	}
	return strings.Join(names, ", ")
}

// Count is what a reading met.
type Count struct {
	Rows   int64 `json:"rows"`
	Broken int64 `json:"broken,omitempty"`
}

// Map reads all rows: each batch goes through f, several at once, and what comes of it through
// take, one after another in the order of the files.
func Map[T any](ctx context.Context, s *Source, f func(Batch) (T, error), take func(T) error) (Count, error) {
	type parsed struct {
		value  T
		rows   int
		broken []Broken
	}
	var count Count
	err := Parallel(ctx, s.options.Workers, s.cut, func(u unit) (p parsed, err error) {
		var b Batch
		b, p.broken = u()
		if p.rows = b.Rows; b.Rows > 0 {
			p.value, err = f(b)
		}
		return p, err
	}, func(p parsed) error {
		if err := s.setAside(&count, p.broken); err != nil || p.rows == 0 {
			return err
		}
		count.Rows += int64(p.rows)
		return take(p.value)
	})
	return count, err
}

// Parallel takes what feed yields through f, so many at once, and what comes of it through take,
// one after another in the order of feed. It ends at the first error, and when all has ended.
func Parallel[T, U any](ctx context.Context, workers int, feed func(yield func(T) error) error, f func(T) (U, error), take func(U) error) error {
	type done struct {
		value U
		err   error
	}
	type job struct {
		given  T
		answer chan done
	}
	group, ctx := errgroup.WithContext(ctx)
	order, work := make(chan job, workers), make(chan job, workers)
	group.Go(func() error {
		defer close(order)
		defer close(work)
		return feed(func(given T) error {
			j := job{given, make(chan done, 1)}
			if !offer(ctx, order, j) || !offer(ctx, work, j) {
				return context.Cause(ctx)
			}
			return nil
		})
	})
	for range workers {
		group.Go(func() error {
			for j := range work {
				value, err := f(j.given)
				j.answer <- done{value, err}
			}
			return nil
		})
	}
	group.Go(func() error {
		for j := range order {
			select {
			case d := <-j.answer:
				if d.err != nil {
					return d.err
				}
				if err := take(d.value); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	return group.Wait()
}

func offer[T any](ctx context.Context, to chan<- T, value T) bool {
	select {
	case to <- value:
		return true
	case <-ctx.Done():
		return false
	}
}

// Workers is how many batches are worked on at once.
func (s *Source) Workers() int { return s.options.Workers }

// Each reads all rows, batch by batch.
func (s *Source) Each(ctx context.Context, visit func(Batch) error) (Count, error) {
	return Map(ctx, s, func(b Batch) (Batch, error) { return b, nil }, visit)
}

func (s *Source) cut(yield func(unit) error) error {
	for _, file := range s.files {
		if err := s.format.units(file, s, yield); err != nil {
			var broken Broken
			if errors.As(err, &broken) || errors.Is(err, context.Canceled) {
				return err
			}
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

func (s *Source) setAside(count *Count, broken []Broken) error {
	for _, b := range broken {
		count.Broken++
		switch s.options.OnBroken {
		case Skip:
		case Quarantine:
			if err := s.options.Quarantine(b); err != nil {
				return err
			}
		default:
			return fault.New(fault.Invalid, "%w (on_broken: skip leaves such lines out, quarantine puts them aside)", b)
		}
	}
	return nil
}

// Infer finds each column's kind by reading everything: it is a number if all its cells that
// are not missing are finite numbers, and there is one. Names in text are text, whatever they
// hold.
func (s *Source) Infer(ctx context.Context, text ...string) (Count, error) {
	if s.options.Format == Parquet {
		for i := range s.Fields {
			if slices.Contains(text, s.Fields[i].Name) {
				s.Fields[i].Kind = Text
			}
		}
		return Count{}, nil
	}
	for i := range s.Fields {
		s.Fields[i].Kind = Text
	}
	type seen struct{ number, other []bool }
	all := seen{make([]bool, len(s.Fields)), make([]bool, len(s.Fields))}
	count, err := Map(ctx, s, func(b Batch) (seen, error) {
		found := seen{make([]bool, len(b.Columns)), make([]bool, len(b.Columns))}
		for i, c := range b.Columns {
			for _, cell := range c.Texts {
				if cell == "" {
					continue
				}
				if _, ok := number(cell); !ok {
					found.other[i] = true
					break
				}
				found.number[i] = true
			}
		}
		return found, nil
	}, func(found seen) error {
		for i := range all.number {
			all.number[i] = all.number[i] || found.number[i]
			all.other[i] = all.other[i] || found.other[i]
		}
		return nil
	})
	for i := range s.Fields {
		if all.number[i] && !all.other[i] && !slices.Contains(text, s.Fields[i].Name) {
			s.Fields[i].Kind = Number
		}
	}
	return count, err
}

// add appends a row whose cells are in the order of the batch's columns. It says what is wrong
// with a cell, and then leaves the batch as it was.
func (s *Source) add(b *Batch, cells []string) (reason string) {
	for i := range b.Columns {
		c, cell := &b.Columns[i], cells[i]
		if s.missing.Has(cell) {
			cell = ""
		}
		if c.Kind != Number {
			c.Texts = append(c.Texts, cell)
			continue
		}
		v, ok := number(cell)
		if !ok && cell != "" {
			for j := range i {
				if p := &b.Columns[j]; p.Kind == Number {
					p.Numbers = p.Numbers[:b.Rows]
				} else {
					p.Texts = p.Texts[:b.Rows]
				}
			}
			return fmt.Sprintf("column %s: %q is not a finite number", clip(c.Name), clip(cell))
		}
		if cell == "" {
			v = nan
		}
		c.Numbers = append(c.Numbers, v)
	}
	b.Rows++
	return ""
}

// blocks cuts a stream into blocks that end where records do.
type blocks struct {
	from  io.Reader
	carry []byte
	line  int // of the next block's first
	ended bool
	// cut is where the last record in the text that is whole ends, 0 if there is none.
	cut func(text []byte) int
}

const (
	blockSize = 1 << 20
	maxRecord = 16 << 20
)

// next returns a block and the number of its first line, and io.EOF after the last. The block
// belongs to the caller.
func (b *blocks) next() (block []byte, first int, err error) {
	text := append(make([]byte, 0, blockSize+len(b.carry)), b.carry...)
	for !b.ended {
		n, err := io.ReadFull(b.from, text[len(text):cap(text)])
		text = text[:len(text)+n]
		if b.ended = errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF); err != nil && !b.ended {
			return nil, 0, channel.Broken(err)
		}
		if b.ended {
			break
		}
		if end := b.cut(text); end > 0 {
			text, b.carry = text[:end], append([]byte(nil), text[end:]...)
			return text, b.pass(text), nil
		}
		if len(text) > maxRecord {
			return nil, 0, fault.New(fault.Invalid, "line %d is longer than %d bytes: is the format right?", b.line, maxRecord)
		}
		text = slices.Grow(text, len(text))
	}
	b.carry = nil
	if len(text) == 0 {
		return nil, 0, io.EOF
	}
	return text, b.pass(text), nil
}
