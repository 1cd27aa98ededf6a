package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/monitor/metric"
	"github.com/clary-ml/clary/storage/journal"
)

func TestRowsAreReadAsTheyComeInAnyPieces(t *testing.T) {
	text := `{"epoch":1,"step":10}` + "\n\nrubbish\n" + "step=20 loss=0.5\n" + strings.Repeat("long", metric.MaxLine) + "\n" + `{"step":30}` + "\n" + `{"step":31}`
	for _, piece := range []int{1, 7, 100, 1 << 20} {
		path := filepath.Join(t.TempDir(), "metrics")
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		r := rowReader{base: filepath.Dir(path), path: path}
		var steps []int64
		var cursor int64
		whole := text + "\nstep=40\n"
		add := func(row metric.Row) {
			steps = append(steps, *row.Step)
			if row.Cursor <= cursor || whole[row.Cursor-1] != '\n' && row.Cursor != int64(len(text)) {
				t.Errorf("the cursor after step %d is %d", *row.Step, row.Cursor)
			}
			cursor = row.Cursor
		}
		for at := 0; at < len(text); {
			size := min(piece, len(text)-at)
			if strings.HasPrefix(text[at:], "longlong") { // in one go, or this takes for ever
				size = min(metric.MaxLine, len(text)-at)
			}
			if _, err := file.WriteString(text[at : at+size]); err != nil {
				t.Fatal(err)
			}
			at += size
			r.read(add)
		}
		if !slices.Equal(steps, []int64{10, 20, 30}) {
			t.Errorf("in pieces of %d: steps %v", piece, steps)
		}
		if r.end(add); !slices.Equal(steps, []int64{10, 20, 30, 31}) {
			t.Errorf("at its end: steps %v", steps)
		}
		// One who comes later goes on where this one was.
		next := rowReader{base: r.base, path: path, next: r.next}
		if _, err := file.WriteString(whole[len(text):]); err != nil {
			t.Fatal(err)
		}
		if next.read(add); !slices.Equal(steps, []int64{10, 20, 30, 31, 40}) {
			t.Errorf("later: steps %v", steps)
		}
		cursor = 0
		if err := os.WriteFile(path, []byte("step=1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if next.read(func(row metric.Row) { steps = append(steps, *row.Step) }); steps[len(steps)-1] != 1 {
			t.Errorf("a file that was begun anew is not read: steps %v", steps)
		}
	}
}

func TestMetricsAreFoundInWholeLinesAndInProgressBars(t *testing.T) {
	matcher, err := metric.NewMatcher([]cluster.MetricDefinition{{Name: "loss", Regex: `loss ([0-9.]+)`}})
	if err != nil {
		t.Fatal(err)
	}
	find := finder{matcher: matcher, open: map[string][]byte{}}
	var found []string
	for i, entry := range []journal.Entry{
		{Stream: "stdout", Text: []byte("loss 3.5")},
		{Stream: "stdout", Partial: true, Text: []byte("10% loss 3.2\r20% lo")},
		{Stream: "stderr", Text: []byte("loss 100")},
		{Stream: "stdout", Partial: true, Text: []byte("ss 3.1")},
		{Stream: "stdout", Partial: true, Text: []byte("7\r")},
		{Stream: "stdout", Text: []byte("100% loss 2")},
		{Stream: "stdout", Text: []byte("done")},
	} {
		entry.Time = int64(i + 1)
		find.take(entry, func(at int64, row metric.Row) {
			found = append(found, fmt.Sprintf("%d %g", at, row.Values["loss"]))
		})
	}
	want := []string{"1 3.5", "2 3.2", "3 100", "5 3.17", "6 2"}
	if !slices.Equal(found, want) {
		t.Errorf("found %v, want %v", found, want)
	}
}

func FuzzRows(f *testing.F) {
	f.Add([]byte(`{"epoch":1,"step":10,"total":40,"metrics":{"loss":0.5}}` + "\nstep=1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var r rowReader
		r.take(text, func(row metric.Row) {
			if row.Cursor <= 0 || row.Cursor > int64(len(text)) {
				t.Errorf("the cursor is %d of %d bytes", row.Cursor, len(text))
			}
		})
		if len(r.rest) > metric.MaxLine {
			t.Error("bounds are passed")
		}
	})
}
