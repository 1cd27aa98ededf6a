package journal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/storage/journal"
)

// wanted is what a query wants of whole lines, done in the plain way.
func wanted(all []journal.Entry, q journal.Query) []journal.Entry {
	var some []journal.Entry
	for _, e := range all {
		if e.Time > q.After && e.Time >= q.Since && (q.Until == 0 || e.Time < q.Until) &&
			(len(q.Streams) == 0 || slices.Contains(q.Streams, e.Stream)) && (q.Match == nil || q.Match.Match(e.Text)) {
			some = append(some, e)
		}
	}
	if q.Tail > 0 && len(some) > q.Tail {
		some = some[len(some)-q.Tail:]
	}
	return some
}

func same(a, b []journal.Entry) bool {
	return slices.EqualFunc(a, b, func(a, b journal.Entry) bool {
		return a.Time == b.Time && a.Stream == b.Stream && a.Partial == b.Partial && bytes.Equal(a.Text, b.Text)
	})
}

// library writes journals of several sizes, in one file and in two.
func library(t *testing.T) []string {
	var paths []string
	for i, lines := range []int{0, 1, 50, 3000, 40_000} {
		for _, limit := range []int64{1 << 30, int64(lines) * 40} {
			path := filepath.Join(t.TempDir(), fmt.Sprintf("log-%d-%d", i, limit))
			now := instant
			w := journal.Open(path, journal.Options{Bytes: limit, Now: func() time.Time { return now }})
			for n := range lines {
				now = now.Add(time.Duration(n%7) * time.Millisecond)
				fmt.Fprintf(w.Stream([]string{"out", "err", "out"}[n%3]), "%d %s\n", n, strings.Repeat("x", n*n%100))
			}
			w.Close()
			paths = append(paths, path)
		}
	}
	return paths
}

func TestAQueryGivesWhatItWantsOfAJournalOfAnySize(t *testing.T) {
	paths := library(t)
	cut := 0
	rapid.Check(t, func(t *rapid.T) {
		path := rapid.SampledFrom(paths).Draw(t, "journal")
		all := read(t, path, journal.Query{})
		moment := rapid.Custom(func(t *rapid.T) int64 {
			if rapid.Bool().Draw(t, "none") || len(all) == 0 {
				return 0
			}
			return all[len(all)-1-rapid.IntRange(0, len(all)-1).Draw(t, "back")].Time + int64(rapid.IntRange(-1, 1).Draw(t, "off"))
		})
		q := journal.Query{After: moment.Draw(t, "after"), Since: moment.Draw(t, "since"), Until: moment.Draw(t, "until")}
		q.Streams = rapid.SampledFrom([][]string{nil, {"out"}, {"err"}, {"err", "out"}, {"other"}}).Draw(t, "streams")
		q.Tail = rapid.SampledFrom([]int{0, 1, 2, 10, 1000, 100_000}).Draw(t, "tail")
		if text := rapid.SampledFrom([]string{"", "", "^7", "99 ", "1$", "x{90}", "nowhere"}).Draw(t, "match"); text != "" {
			q.Match = regexp.MustCompile(text)
		}
		want := wanted(all, q)
		if got := read(t, path, q); !same(got, want) {
			t.Fatalf("of %d entries %+v gives %d, want %d", len(all), q, len(got), len(want))
		}
		if q.Tail > 0 && len(want) == q.Tail {
			cut++
		}
	})
	if cut == 0 {
		t.Error("no query was for last lines of more")
	}
}

func TestAnInstantIsFoundAnywhereInALongJournal(t *testing.T) {
	for _, path := range library(t)[8:] {
		all := read(t, path, journal.Query{})
		if len(all) < 10_000 {
			t.Fatalf("%s has %d entries", path, len(all))
		}
		for i := 0; i < len(all); i += len(all)/60 + 1 {
			for _, q := range []journal.Query{{After: all[i].Time}, {Since: all[i].Time}, {Since: all[i].Time, Match: regexp.MustCompile("9 ")}} {
				q.Until = all[min(i+500, len(all)-1)].Time
				if got := read(t, path, q); !same(got, wanted(all, q)) {
					t.Fatalf("at entry %d of %d %+v gives %d entries, want %d", i, len(all), q, len(got), len(wanted(all, q)))
				}
			}
		}
	}
}

func TestReadingAfterAnyEntryGivesTheRest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Bytes: 1 << 20, Now: stopped})
	for i := range 40 {
		fmt.Fprintf(w.Stream("out"), "begin %d", i)
		w.Stream("out").Flush()
		fmt.Fprintf(w.Stream("err"), "line %d\n", i)
		fmt.Fprintf(w.Stream("out"), " end %d\n", i)
	}
	w.Close()
	for _, match := range []*regexp.Regexp{nil, regexp.MustCompile("begin .* end"), regexp.MustCompile("^begin 7|line|end 3")} {
		all := read(t, path, journal.Query{Match: match})
		if len(all) < 20 {
			t.Fatalf("%v gives %d entries", match, len(all))
		}
		for i, e := range all {
			if got := read(t, path, journal.Query{After: e.Time, Match: match}); !same(got, all[i+1:]) {
				t.Fatalf("%v after entry %d: %d entries, want %d", match, i, len(got), len(all)-i-1)
			}
		}
	}
}

func TestALineInPiecesIsMatchedAsAWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Bytes: 1 << 20, Now: stopped})
	for _, piece := range []string{"lo", "ss 0", ".5\n", "acc", "uracy 0.5\n", "loss, and no end"} {
		_, _ = w.Stream("out").Write([]byte(piece))
		w.Stream("out").Flush()
		_, _ = w.Stream("err").Write([]byte("between\n"))
	}
	fmt.Fprintf(w.Stream("out"), "\n%s needle\n", strings.Repeat("hay", 10_000)) // in two pieces
	w.Close()
	for match, want := range map[string]string{
		"^loss 0.5$":            "loss 0.5\n",
		"accuracy":              "accuracy 0.5\n",
		"loss":                  "loss 0.5\nloss, and no end\n",
		"^h.* needle":           strings.Repeat("hay", 10_000) + " needle\n",
		"between accuracy|none": "",
	} {
		if got := raw(read(t, path, journal.Query{Match: regexp.MustCompile(match)}), "out"); got != want {
			t.Errorf("%s matches %q", match, got)
		}
	}
	if got := read(t, path, journal.Query{Match: regexp.MustCompile("accuracy"), Tail: 1}); raw(got, "out") != "accuracy 0.5\n" {
		t.Errorf("the last match is %+v", got)
	}
}

func TestTheLastLinesAreCountedByTheirEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Bytes: 1 << 20, Now: stopped})
	out, bar := w.Stream("out"), w.Stream("err")
	_, _ = bar.Write([]byte("\r 10%"))
	bar.Flush()
	_, _ = out.Write([]byte("a\nb\n"))
	_, _ = bar.Write([]byte("\r 20%"))
	bar.Flush()
	_, _ = bar.Write([]byte("\r 30%"))
	bar.Flush()
	_, _ = out.Write([]byte("c"))
	w.Close()
	for tail, want := range map[int]string{1: "c", 2: "\r 20%\r 30%c", 3: "b\n\r 20%\r 30%c", 4: "a\nb\n\r 20%\r 30%c"[0:] + ""} {
		var got []byte
		for _, e := range read(t, path, journal.Query{Tail: tail}) {
			got = e.AppendRaw(got)
		}
		if tail == 4 {
			want = "\r 10%" + want
		}
		if string(got) != want {
			t.Errorf("the last %d lines are %q, want %q", tail, got, want)
		}
	}
}

// follower reads along in the background.
type follower struct {
	entries []journal.Entry
	count   atomic.Int64
	news    chan struct{}
	over    chan error
}

func follow(ctx context.Context, path string, query journal.Query, done <-chan struct{}) *follower {
	f := &follower{news: make(chan struct{}, 1), over: make(chan error, 1)}
	query.Follow = true
	go func() {
		f.over <- journal.Read(ctx, path, query, done, func(batch []journal.Entry) error {
			err := collect(&f.entries)(batch)
			f.count.Store(int64(len(f.entries)))
			select {
			case f.news <- struct{}{}:
			default:
			}
			return err
		})
	}()
	return f
}

func (f *follower) until(t *testing.T, n int64) {
	t.Helper()
	for timeout := time.After(30 * time.Second); f.count.Load() < n; {
		select {
		case <-f.news:
		case err := <-f.over:
			t.Fatalf("it ended at %d of %d entries: %v", f.count.Load(), n, err)
		case <-timeout:
			t.Fatalf("%d of %d entries came", f.count.Load(), n)
		}
	}
}

func TestFollowingLosesAndDoublesNothingThroughRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	done := make(chan struct{})
	f := follow(t.Context(), path, journal.Query{}, done) // before there is a journal
	w := journal.Open(path, journal.Options{Bytes: 64 << 10})
	const each, rounds = 150, 40 // a file has room for three rounds
	for i := range each * rounds {
		fmt.Fprintf(w.Stream("out"), "%d %s\n", i, strings.Repeat("x", 30))
		if i%each == each-1 {
			f.until(t, int64(i+1-each))
		}
	}
	_, _ = w.Stream("out").Write([]byte("the end"))
	w.Close()
	close(done)
	if err := <-f.over; err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".1"); err != nil {
		t.Errorf("it never rotated: %v", err)
	}
	increasing(t, f.entries)
	if len(f.entries) != each*rounds+1 || string(f.entries[each*rounds].Text) != "the end" {
		t.Fatalf("%d entries came", len(f.entries))
	}
	for i, e := range f.entries[:each*rounds] {
		if !strings.HasPrefix(string(e.Text), fmt.Sprintf("%d x", i)) {
			t.Fatalf("entry %d is %q", i, e.Text)
		}
	}
}

func TestFollowingTheLastLinesGoesOnAfterThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Bytes: 1 << 20})
	_, _ = w.Stream("out").Write([]byte("1\n2\n3\n"))
	done := make(chan struct{})
	f := follow(t.Context(), path, journal.Query{Tail: 2}, done)
	f.until(t, 2)
	_, _ = w.Stream("out").Write([]byte("4\n5\n"))
	w.Close()
	close(done)
	if err := <-f.over; err != nil || raw(f.entries, "out") != "2\n3\n4\n5\n" {
		t.Errorf("%v, %q", err, raw(f.entries, "out"))
	}
}

func TestFollowingEndsWithItsLastInstantAndWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Bytes: 1 << 20})
	defer w.Close()
	_, _ = w.Stream("out").Write([]byte("1\n"))
	f := follow(t.Context(), path, journal.Query{Until: time.Now().Add(50 * time.Millisecond).UnixNano()}, nil)
	if err := <-f.over; err != nil || len(f.entries) != 1 {
		t.Errorf("%v, %+v", err, f.entries)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	f = follow(ctx, path, journal.Query{}, nil)
	f.until(t, 1)
	enough := errors.New("enough")
	cancel(enough)
	if err := <-f.over; !errors.Is(err, enough) {
		t.Errorf("error %v", err)
	}
}

func TestASinkThatFailsEndsTheReading(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Bytes: 1 << 20})
	_, _ = w.Stream("out").Write([]byte("1\n"))
	w.Close()
	full := errors.New("full")
	if err := journal.Read(t.Context(), path, journal.Query{}, nil, func([]journal.Entry) error { return full }); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
}

// drain runs a program's side of a pipe.
func drain(t *testing.T, program func(out *os.File)) []journal.Entry {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := journal.Open(path, journal.Options{Bytes: 1 << 20})
	over := make(chan struct{})
	go func() {
		defer close(over)
		w.Stream("out").Drain(reader)
	}()
	program(writer)
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	<-over
	w.Close()
	return read(t, path, journal.Query{})
}

func TestALineThatIsWrittenInTwoIsKeptAsOne(t *testing.T) {
	got := drain(t, func(out *os.File) {
		for i := range 100 {
			fmt.Fprintf(out, "line %d", i)
			fmt.Fprint(out, "\n")
		}
	})
	pieces := slices.IndexFunc(got, func(e journal.Entry) bool { return e.Partial })
	if len(got) != 100 && pieces < 0 || strings.Count(raw(got, "out"), "\n") != 100 {
		t.Errorf("100 lines are %d entries", len(got))
	}
	if len(got) > 110 { // a machine that stands still for a moment may break one
		t.Errorf("100 lines are %d entries", len(got))
	}
}

func TestALineWithoutAnEndIsSeenAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	w := journal.Open(path, journal.Options{Bytes: 1 << 20})
	over := make(chan struct{})
	go func() {
		defer close(over)
		w.Stream("out").Drain(reader)
	}()
	f := follow(t.Context(), path, journal.Query{}, over)
	for i := range 3 {
		began := time.Now()
		fmt.Fprintf(writer, "\r %d%%", i)
		f.until(t, int64(i+1))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it takes %s", took)
		}
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-f.over; err != nil {
		t.Fatal(err)
	}
	w.Close()
	if raw(f.entries, "out") != "\r 0%\r 1%\r 2%" || !f.entries[0].Partial {
		t.Errorf("it is seen as %+v", f.entries)
	}
}

func TestACharacterIsNotCutWhereAPieceEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := journal.Open(path, journal.Options{Now: stopped})
	out := w.Stream("out")
	for _, text := range []string{"caf\xc3", "\xa9 ", "\xe2\x82", "\xac\n", strings.Repeat("é", journal.MaxText) + "\n", "\xe2"} {
		_, _ = out.Write([]byte(text))
		out.Flush()
	}
	out.Flush() // what never comes is not waited for
	var texts []string
	for _, e := range read(t, path, journal.Query{}) {
		texts = append(texts, string(e.Text[:min(len(e.Text), 8)]))
	}
	if want := []string{"caf", "é ", "€", "éééé", "éééé", "\xe2"}; !slices.Equal(texts, want) {
		t.Errorf("the pieces are %q, want %q", texts, want)
	}
	w.Close()
}
