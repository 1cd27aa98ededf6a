package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/storage/journal"
)

// instant is the moment at which the tests' clocks stand.
var instant = time.Date(2026, 11, 25, 17, 40, 9, 123456789, time.UTC)

func stopped() time.Time { return instant }

// read collects what a query wants.
func read(t rapid.TB, path string, query journal.Query) []journal.Entry {
	t.Helper()
	var all []journal.Entry
	if err := journal.Read(context.Background(), path, query, nil, collect(&all)); err != nil {
		t.Fatal(err)
	}
	return all
}

func collect(to *[]journal.Entry) journal.Sink {
	return func(batch []journal.Entry) error {
		for _, e := range batch {
			e.Text = bytes.Clone(e.Text)
			*to = append(*to, e)
		}
		return nil
	}
}

// raw is what one stream wrote.
func raw(entries []journal.Entry, stream string) string {
	var text []byte
	for _, e := range entries {
		if e.Stream == stream {
			text = e.AppendRaw(text)
		}
	}
	return string(text)
}

func increasing(t rapid.TB, entries []journal.Entry) {
	t.Helper()
	for i := 1; i < len(entries); i++ {
		if entries[i].Time <= entries[i-1].Time {
			t.Fatalf("entry %d at %d follows one at %d", i, entries[i].Time, entries[i-1].Time)
		}
	}
}

func TestAnEntryIsALineOfTheCRIFormat(t *testing.T) {
	at := instant.UnixNano()
	for line, e := range map[string]journal.Entry{
		"2026-11-25T17:40:09.123456789Z stdout F hello world": {Time: at, Stream: "stdout", Text: []byte("hello world")},
		"2026-11-25T17:40:09.123456789Z stderr P  10%\r":      {Time: at, Stream: "stderr", Partial: true, Text: []byte(" 10%\r")},
		"2026-11-25T17:40:09.000000001Z metrics F ":           {Time: at - 123456788, Stream: "metrics", Text: []byte{}},
	} {
		if got := string(e.Append(nil)); got != line+"\n" {
			t.Errorf("%+v is written as %q", e, got)
		}
		got, err := journal.Parse([]byte(line))
		if err != nil || got.Time != e.Time || got.Stream != e.Stream || got.Partial != e.Partial || !bytes.Equal(got.Text, e.Text) {
			t.Errorf("%q is read as %+v, %v", line, got, err)
		}
	}
}

func TestEntriesOfOtherWritersAreRead(t *testing.T) {
	for line, want := range map[string]string{
		"2026-11-25T18:40:09.5+01:00 stdout F x":          "1795628409500000000 stdout false x",
		"2026-11-25T17:40:09Z stdout P:more:tags x y":     "1795628409000000000 stdout true x y",
		"2026-11-25T17:40:09.123456789Z stdout F":         "1795628409123456789 stdout false ",
		"1969-12-31T23:59:59.999999999Z stdout F earlier": "-1 stdout false earlier",
	} {
		e, err := journal.Parse([]byte(line))
		if got := fmt.Sprint(e.Time, " ", e.Stream, " ", e.Partial, " ", string(e.Text)); err != nil || got != want {
			t.Errorf("%q is read as %s, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "hello", "2026-11-25T17:40:09.123456789Z", "2026-11-25T17:40:09.123456789Z stdout", "2026-11-25T17:40:09.123456789Z stdout X x",
		"2026-13-25T17:40:09.123456789Z stdout F x", "2026-11-25T17:40:09.12345678xZ stdout F x", "9999-11-25T17:40:09.123456789Z stdout F x",
		"2026-11-25T17:40:09.123456789Z  F x", "2026-11-25T17:40:09.123456789Z " + strings.Repeat("s", 65) + " F x",
	} {
		if e, err := journal.Parse([]byte(line)); err == nil {
			t.Errorf("%q is read as %+v", line, e)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2026-11-25T17:40:09.123456789Z stdout F text"))
	f.Add([]byte("2026-11-25T17:40:09+02:00 s P:x text"))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := journal.Parse(line)
		if err != nil || bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		written := e.Append(nil)
		again, err := journal.Parse(written[:len(written)-1])
		if err != nil || again.Time != e.Time || again.Stream != e.Stream || again.Partial != e.Partial || !bytes.Equal(again.Text, e.Text) {
			t.Errorf("%q is read as %+v, written as %q, and read as %+v, %v", line, e, written, again, err)
		}
	})
}

func TestTheBytesOfEveryStreamAreKeptAsTheyAre(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a test's folder
		path := filepath.Join(dir, "log")
		piece := rapid.OneOf(
			rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n\r\x00é\xff ")), 0, 40),
			rapid.Map(rapid.IntRange(0, 40_000), func(n int) []byte { return bytes.Repeat([]byte("long é"), n/7) }),
		)
		want := map[string]string{}
		clock := instant
		options := journal.Options{Bytes: 64 << 20, Now: func() time.Time { return clock }}
		w := journal.Open(path, options)
		for range rapid.IntRange(1, 30).Draw(t, "writes") {
			name := rapid.SampledFrom([]string{"stdout", "stderr"}).Draw(t, "stream")
			text := piece.Draw(t, "text")
			clock = clock.Add(time.Duration(rapid.IntRange(-2, 3).Draw(t, "elapsed")) * time.Microsecond)
			if n, err := w.Stream(name).Write(text); n != len(text) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			want[name] += string(text)
			switch rapid.IntRange(0, 9).Draw(t, "then") {
			case 0:
				w.Stream(name).Flush()
			case 1:
				w.Close()
				w = journal.Open(path, options)
			}
		}
		w.Close()
		got := read(t, path, journal.Query{})
		increasing(t, got)
		for name, text := range want {
			if raw(got, name) != text {
				t.Fatalf("%s is %q, want %q", name, raw(got, name), text)
			}
		}
		for _, e := range got {
			if len(e.Text) > journal.MaxText {
				t.Fatalf("an entry has %d bytes", len(e.Text))
			}
		}
	})
}

func TestTimesGoOnWhateverTheClockSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, now := range []time.Time{instant, instant, instant.Add(-time.Hour)} {
		w := journal.Open(path, journal.Options{Bytes: 1 << 20, Now: func() time.Time { return now }})
		_, _ = w.Stream("out").Write([]byte("a\nb\n"))
		w.Append(instant.Add(-time.Minute).UnixNano(), "rows", []byte("c"))
		w.Close()
	}
	w := journal.Open(path, journal.Options{Bytes: 1 << 20, Now: stopped})
	w.Append(instant.Add(time.Minute).UnixNano(), "rows", []byte("d"))
	w.Close()
	got := read(t, path, journal.Query{})
	var times []int64
	for _, e := range got {
		times = append(times, e.Time-instant.UnixNano())
	}
	if want := []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, int64(time.Minute)}; !slices.Equal(times, want) {
		t.Errorf("times are %v, want %v", times, want)
	}
}

func TestALineWithItsNewlineInItIsSeveral(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Now: stopped})
	w.Append(0, "rows", []byte("a\nb"))
	w.Append(0, "rows", nil)
	w.Close()
	if got := read(t, path, journal.Query{}); len(got) != 3 || raw(got, "rows") != "a\nb\n\n" {
		t.Errorf("it is kept as %+v", got)
	}
}

func TestAJournalIsBoundedAndKeepsTheNewest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Bytes: 200_000})
	for i := range 100_000 {
		fmt.Fprintf(w.Stream([]string{"out", "err"}[i%2]), "line %d\n", i)
	}
	w.Close()
	var kept int64
	for _, file := range []string{path, path + ".1"} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		kept += info.Size()
	}
	got := read(t, path, journal.Query{})
	if kept > 200_000 || kept < 100_000 || len(got) == 0 || string(got[len(got)-1].Text) != "line 99999" {
		t.Fatalf("%d bytes and %d entries are kept", kept, len(got))
	}
	for i, e := range got {
		if want := fmt.Sprintf("line %d", 100_000-len(got)+i); string(e.Text) != want {
			t.Fatalf("entry %d is %q, want %q", i, e.Text, want)
		}
	}
	if w.Dropped() != 0 {
		t.Errorf("%d bytes count as dropped", w.Dropped())
	}
}

func TestWhatCannotBeWrittenIsCountedNotFatal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	w := journal.Open(filepath.Join(dir, "log"), journal.Options{})
	text := append(bytes.Repeat([]byte("x"), 99), '\n')
	if n, err := w.Stream("out").Write(text); n != 100 || err != nil || w.Dropped() != 100 {
		t.Errorf("%d, %v, %d dropped", n, err, w.Dropped())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Stream("out").Write([]byte("there is room again\n"))
	w.Close()
	if got := read(t, filepath.Join(dir, "log"), journal.Query{}); len(got) != 1 || w.Dropped() != 100 {
		t.Errorf("%+v, %d dropped", got, w.Dropped())
	}
}

func TestAFullDiskLeavesNoPartOfAnEntry(t *testing.T) {
	w := journal.Open("/dev/full", journal.Options{})
	_, _ = w.Stream("out").Write([]byte("lost\n"))
	if w.Dropped() != 5 {
		t.Errorf("%d bytes count as dropped", w.Dropped())
	}
}

func TestAnEntryThatWasCutOffIsLeftOutAndWrittenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Now: stopped})
	_, _ = w.Stream("out").Write([]byte("whole\n"))
	w.Close()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("2026-11-25T17:40:09.123456790Z out F cut o"); err != nil || file.Close() != nil {
		t.Fatal(err)
	}
	if got := read(t, path, journal.Query{}); len(got) != 1 {
		t.Errorf("before: %+v", got)
	}
	w = journal.Open(path, journal.Options{Now: stopped})
	_, _ = w.Stream("out").Write([]byte("next\n"))
	w.Close()
	if got := raw(read(t, path, journal.Query{}), "out"); got != "whole\nnext\n" {
		t.Errorf("after: %q", got)
	}
}

func TestRubbishBetweenEntriesIsPassedOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	text := "2026-11-25T17:40:09Z out F one\n" + strings.Repeat("rubbish", 100_000) + "\n\n2026-11-25T17:40:08Z out F of the past\n2026-11-25T17:40:10Z out F two\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, query := range []journal.Query{{}, {Tail: 2}, {After: instant.Add(-time.Hour).UnixNano()}} {
		if got := raw(read(t, path, query), "out"); got != "one\ntwo\n" {
			t.Errorf("%+v gives %q", query, got)
		}
	}
}

func TestAJournalThatIsNotThereIsSaidSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := journal.Read(t.Context(), path, journal.Query{}, nil, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	w := journal.Open(path, journal.Options{})
	w.Append(0, "out", []byte("x"))
	w.Close()
	if err := errors.Join(journal.Remove(path), journal.Remove(path)); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
