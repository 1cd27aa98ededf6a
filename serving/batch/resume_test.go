package batch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/batch"
	"github.com/clary-ml/clary/serving/batch/record"
)

// drawn gives a drawn test folders that go with it.
type drawn struct {
	*rapid.T
	base string
}

func (d drawn) TempDir() string {
	folder, err := os.MkdirTemp(d.base, "")
	if err != nil {
		d.Fatal(err)
	}
	return folder
}

// snapshot reads the files of a folder.
func snapshot(t *rapid.T, folder string) map[string][]byte {
	items, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, item := range items {
		text, err := os.ReadFile(filepath.Join(folder, item.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[item.Name()] = text
	}
	return files
}

// crash is what is left of journals: of any of them any files, whole ones; and on the disk of a
// machine that lost its power perhaps one that is not.
func crash(t *rapid.T, journals []map[string][]byte, folder string) {
	if err := errors.Join(os.RemoveAll(folder), os.MkdirAll(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	left := map[string][]byte{}
	for i, journal := range journals {
		all := i == len(journals)-1 && rapid.Bool().Draw(t, "all")
		for _, name := range slices.Sorted(maps.Keys(journal)) {
			if all || rapid.Bool().Draw(t, "kept") {
				left[name] = journal[name]
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		text := left[name]
		if rapid.IntRange(0, 9).Draw(t, "torn") == 0 {
			text = bytes.Clone(text[:rapid.IntRange(0, len(text)).Draw(t, "bytes")])
		}
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func drawObjects(t *rapid.T, split record.Split) map[string]string {
	objects := map[string]string{}
	for i := range rapid.IntRange(1, 5).Draw(t, "objects") {
		var text strings.Builder
		for range rapid.IntRange(0, 12).Draw(t, "records") {
			line := rapid.SampledFrom([]string{"", "a", "bb", "c,c", "dd dd", "poison", "eeeeeeee"}).Draw(t, "line")
			if split == record.RecordIO {
				line += strings.Repeat(" ", 3-(len(line)+3)%4)
				fmt.Fprintf(&text, "\x0a\x23\xd7\xce%c\x00\x00\x00%s", len(line), line)
				continue
			}
			text.WriteString(line + rapid.SampledFrom([]string{"\n", "\n", "\r\n"}).Draw(t, "end"))
		}
		objects[fmt.Sprintf("%d/o%d", i%2, i)] = text.String()
	}
	return objects
}

// However often and wherever a run is cut off, and whatever is left of its journal, in the end
// the output has the bytes of a run that nothing happened to.
func TestNothingIsLostOrDoubledByCrashes(t *testing.T) {
	var crashes, resumed atomic.Int64
	rapid.Check(t, func(rt *rapid.T) {
		base, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(base) //nolint:errcheck // goes with the test's folder
		split := rapid.SampledFrom([]record.Split{record.Line, record.Line, record.None, record.RecordIO}).Draw(rt, "split")
		objects := drawObjects(rt, split)
		f := newFolders(drawn{rt, base}, objects)
		limits := batch.Limits{
			Concurrent: rapid.IntRange(1, 3).Draw(rt, "concurrent"), Payload: int64(rapid.SampledFrom([]int{16, 30, 1000}).Draw(rt, "payload")),
			Strategy: rapid.SampledFrom([]batch.Strategy{batch.Single, batch.Multi}).Draw(rt, "strategy"),
		}
		var left atomic.Int64 // requests until the crash
		var stop atomic.Pointer[context.CancelFunc]
		server := answers(func(request string) (string, error) {
			if left.Add(-1) == 0 {
				(*stop.Load())()
			}
			if strings.Contains(request, "poison") {
				return "", fault.New(fault.Invalid, "poison")
			}
			return fmt.Sprintf("%d:%s", len(request), request), nil
		})
		o := f.options(server, batch.Shape{Split: split}, limits)
		o.CommitBytes, o.CommitEvery = int64(rapid.SampledFrom([]int{1, 20, 1 << 20}).Draw(rt, "commit")), time.Hour
		run := func(requests int64) (batch.Summary, error) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			left.Store(requests)
			stop.Store(&cancel)
			return batch.Run(ctx, o)
		}
		undisturbed, err := run(-1)
		if err != nil {
			rt.Fatal(err)
		}
		want := f.outputs(drawn{rt, base})
		if err := os.RemoveAll(o.Journal); err != nil {
			rt.Fatal(err)
		}
		var journals []map[string][]byte
		for range rapid.IntRange(1, 4).Draw(rt, "crashes") {
			o.Outputs = drawn{rt, base}.TempDir() // of the next attempt, perhaps on another node
			if _, err := run(int64(rapid.IntRange(1, 20).Draw(rt, "requests"))); err != nil {
				if !errors.Is(err, context.Canceled) {
					rt.Fatal(err)
				}
				crashes.Add(1)
			}
			journals = append(journals, snapshot(rt, o.Journal))
			crash(rt, journals, o.Journal)
		}
		f.out = drawn{rt, base}.TempDir()
		o.Outputs = f.out
		summary, err := run(-1)
		if err != nil {
			rt.Fatal(err)
		}
		if summary.ResumedBytes > 0 {
			resumed.Add(1)
		}
		if got := f.outputs(drawn{rt, base}); !maps.Equal(got, want) {
			rt.Fatalf("%q\nwant %q", got, want)
		}
		if fmt.Sprint(summary.Failed) != fmt.Sprint(undisturbed.Failed) || summary.Records != undisturbed.Records {
			rt.Fatalf("%+v\nwant %+v", summary, undisturbed)
		}
	})
	if crashes.Load() == 0 || resumed.Load() == 0 {
		t.Errorf("%d crashes, %d runs took something over: nothing was tried", crashes.Load(), resumed.Load())
	}
}

func TestAJournalOfOtherObjectsOrAnotherPlanIsNotTakenOver(t *testing.T) {
	f := newFolders(t, map[string]string{"a": numbered(10, "a"), "b": numbered(10, "b")})
	o := f.options(upper, batch.Shape{Split: record.Line}, batch.Limits{Strategy: batch.Single})
	run := func(o batch.Options) batch.Summary {
		t.Helper()
		summary, err := batch.Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return summary
	}
	total := run(o).Bytes
	if batch.KeptLimits(f.journal) != o.Limits || batch.KeptLimits(t.TempDir()) != (batch.Limits{}) {
		t.Errorf("kept %+v", batch.KeptLimits(f.journal))
	}
	if again := run(o); again.ResumedBytes != total {
		t.Errorf("the same again takes over %d of %d bytes", again.ResumedBytes, total)
	}
	other := o
	other.Limits.Strategy = batch.Multi
	if again := run(other); again.ResumedBytes != 0 {
		t.Errorf("with another plan %d bytes are taken over", again.ResumedBytes)
	}
	if err := os.WriteFile(filepath.Join(f.in, "b"), []byte("changed\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(other)
	if got := f.outputs(t); !maps.Equal(got, map[string]string{"a.out": strings.ToUpper(numbered(10, "a")), "b.out": "CHANGED\n"}) {
		t.Errorf("%q", got)
	}
}

// A folder that is mirrored may have 100,000 files; at every pause there is a part.
func TestAJournalOfAYearHasFewParts(t *testing.T) {
	const most, every = 100_000, 2 * time.Second
	var elapsed, lost time.Duration
	for parts := range most {
		pause := batch.Pause(every, parts)
		if pause < every || pause < lost || pause > every+elapsed/900 {
			t.Fatalf("after %d parts and %s the next takes %s, the last took %s", parts, elapsed, pause, lost)
		}
		elapsed, lost = elapsed+pause, pause
	}
	if elapsed < 365*24*time.Hour || lost > 10*time.Minute || batch.Pause(time.Hour, most) != time.Hour {
		t.Errorf("%d parts are full after %s, the last took %s", most, elapsed, lost)
	}
}

// An answer a second: two of them are a part, until there are a thousand others; then three.
func TestPartsGrowWithTheirNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFolders(t, map[string]string{"x": strings.Repeat("x\n", 1001*2+100*3)})
		o := f.options(answers(func(request string) (string, error) {
			time.Sleep(time.Second)
			return request, nil
		}), batch.Shape{Split: record.Line}, batch.Limits{Strategy: batch.Single})
		o.CommitEvery = time.Second
		if _, err := batch.Run(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		parts, err := filepath.Glob(filepath.Join(f.journal, "*.part"))
		if err != nil || len(parts) != 1001+100+1 { // the end of the object is the last
			t.Errorf("%d parts, %v", len(parts), err)
		}
	})
}
