package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
	"github.com/clary-ml/clary/storage/journal/archive"
	"github.com/clary-ml/clary/storage/journal/archive/archivetest"
)

// task is a journal that is being written and shipped, in a bubble's time.
type task struct {
	*testing.T
	path   string
	writer *journal.Writer
	store  *archivetest.Store
	limits archive.Limits
	ended  chan struct{}
}

func newTask(t *testing.T, limits archive.Limits) *task {
	path := filepath.Join(t.TempDir(), "log")
	return &task{
		T: t, path: path, writer: journal.Open(path, journal.Options{Bytes: 1 << 30}), store: &archivetest.Store{},
		limits: limits, ended: make(chan struct{}),
	}
}

// say writes numbered lines.
func (t *task) say(from, to int) {
	for i := from; i < to; i++ {
		fmt.Fprintf(t.writer.Stream([]string{"out", "err"}[i%2]), "line %d\n", i)
	}
}

func (t *task) end() {
	t.writer.Close()
	close(t.ended)
}

// ship is one agent's shipper; kill ends it where it stands. It returns between two of the shipper's
// looks at the journal, so that what is said in one instant is read at once.
func (t *task) ship() (kill func(), over <-chan error) {
	ctx, cancel := context.WithCancel(context.Background())
	shipper := archive.Shipper{
		Store: t.store, Ended: t.ended, Limits: t.limits,
		Read: func(ctx context.Context, query journal.Query, sink journal.Sink) error {
			return journal.Read(ctx, t.path, query, t.ended, sink)
		},
	}
	done := make(chan error, 1)
	go func() { done <- shipper.Ship(ctx) }()
	time.Sleep(30 * time.Millisecond)
	return cancel, done
}

// segments are the names of those in the store.
func (t *task) segments() []string {
	return slices.DeleteFunc(t.store.Names(), func(name string) bool { return name == "complete" })
}

// shown is what a query gives of the store, line by line.
func (t *task) shown(query journal.Query) []string {
	t.Helper()
	var lines []string
	var last int64
	_, err := archive.Read(context.Background(), t.store, query, func(batch []journal.Entry) error {
		for _, e := range batch {
			if e.Time <= last {
				t.Errorf("%d follows %d", e.Time, last)
			}
			last = e.Time
			lines = append(lines, string(e.Text))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return lines
}

// complete sees that the store has the numbered lines from one on.
func (t *task) complete(from, to int) {
	t.Helper()
	lines := t.shown(journal.Query{})
	if len(lines) != to-from {
		t.Fatalf("%d lines are in the store, want %d", len(lines), to-from)
	}
	for i, text := range lines {
		if want := fmt.Sprintf("line %d", from+i); text != want {
			t.Fatalf("line %d in the store is %q, want %q", i, text, want)
		}
	}
}

func bubble(t *testing.T, limits archive.Limits, f func(*task)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newTask(t, limits)) })
}

func TestAJournalIsInTheStoreSoonThenWithinAMinuteAndAtItsEnd(t *testing.T) {
	bubble(t, archive.Limits{}, func(t *task) {
		_, over := t.ship()
		t.say(0, 10)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if names := t.segments(); len(names) != 0 {
			t.Errorf("at once there is %v", names)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		t.complete(0, 10)
		for at := 10; at < 14; at++ { // after 10, 20, 40 and 60 seconds
			t.say(at, at+1)
			time.Sleep(2 * time.Minute)
		}
		t.complete(0, 14)
		t.say(14, 20)
		time.Sleep(50 * time.Second)
		synctest.Wait()
		t.complete(0, 14) // by now it waits for a minute
		time.Sleep(11 * time.Second)
		synctest.Wait()
		t.complete(0, 20)
		t.say(20, 21)
		time.Sleep(61 * time.Second)
		synctest.Wait()
		t.complete(0, 21)
		if names := t.segments(); len(names) != 1 {
			t.Errorf("a segment that fills is told more than once: %v", names)
		}
		t.say(21, 30)
		t.end()
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		t.complete(0, 30)
	})
}

func TestAJournalIsWholeInTheStoreOnceItHasEnded(t *testing.T) {
	bubble(t, archive.Limits{}, func(t *task) {
		whole := func() bool {
			whole, err := archive.Read(context.Background(), t.store, journal.Query{}, func([]journal.Entry) error { return nil })
			if err != nil {
				t.Error(err)
			}
			return whole
		}
		_, over := t.ship()
		t.say(0, 10)
		time.Sleep(2 * time.Minute)
		if whole() {
			t.Error("it is said to be whole while it is written")
		}
		t.end()
		if err := <-over; err != nil || !whole() {
			t.Errorf("at its end it is not: %v", err)
		}
		puts := t.store.Count("Put")
		_, over = t.ship()
		if err := <-over; err != nil || t.store.Count("Put") != puts {
			t.Errorf("what is whole is sent again: %v", err)
		}
	})
}

func TestSegmentsAreFullAtTheirSizeAndNamedByWhatIsInThem(t *testing.T) {
	bubble(t, archive.Limits{Segment: 4000}, func(t *task) {
		_, over := t.ship()
		for i := range 20 {
			t.say(i*100, i*100+100)
			time.Sleep(time.Second)
		}
		t.end()
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		t.complete(0, 2000)
		names := t.segments()
		if len(names) != 20 {
			t.Errorf("there are %d segments", len(names))
		}
		form := regexp.MustCompile(`^(\d{19})-(\d{19})-(\d+)\.log\.gz$`)
		before := ""
		for _, name := range names {
			parts := form.FindStringSubmatch(name)
			if parts == nil || parts[1] <= before || parts[2] < parts[1] {
				t.Fatalf("segment %q after one to %s", name, before)
			}
			before = parts[2]
		}
	})
}

func TestAShipperThatIsKilledAnywhereLosesAndDoublesNothing(t *testing.T) {
	for kills := range 25 {
		bubble(t, archive.Limits{Segment: 3000, Every: 5 * time.Second}, func(t *task) {
			kill, over := t.ship()
			for i := range 50 {
				t.say(i*20, i*20+20)
				time.Sleep(700 * time.Millisecond)
				if i%25 == kills {
					kill()
					<-over
					kill, over = t.ship()
				}
			}
			t.end()
			if err := <-over; err != nil {
				t.Fatal(err)
			}
			kill()
			t.complete(0, 1000)
			before := t.segments()
			_, over = t.ship() // an agent that was killed before it could write down that all is there
			if err := <-over; err != nil {
				t.Fatal(err)
			}
			if after := t.segments(); strings.Join(after, " ") != strings.Join(before, " ") {
				t.Errorf("shipped again: %v, before %v", after, before)
			}
		})
	}
}

func TestAStoreThatIsAwayIsWaitedFor(t *testing.T) {
	bubble(t, archive.Limits{Segment: 3000}, func(t *task) {
		t.store.Away(fault.New(fault.Unready, "no route"))
		_, over := t.ship()
		t.say(0, 100)
		t.end()
		time.Sleep(time.Hour)
		synctest.Wait()
		if tries := t.store.Count("List"); tries < 30 || tries > 100 {
			t.Errorf("%d tries in an hour", tries)
		}
		t.store.Away(nil)
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		t.complete(0, 100)
	})
}

func TestOnlyTheNewestStayInTheStore(t *testing.T) {
	bubble(t, archive.Limits{Segment: 4000, Total: 20_000}, func(t *task) {
		_, over := t.ship()
		for i := range 30 {
			t.say(i*100, i*100+100)
			time.Sleep(time.Second)
		}
		t.end()
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		lines := t.shown(journal.Query{})
		if len(lines) < 300 || len(lines) > 500 || lines[len(lines)-1] != "line 2999" {
			t.Errorf("%d lines are left", len(lines))
		}
	})
}

func TestAFloodIsShippedAtItsRateUntilItEnds(t *testing.T) {
	bubble(t, archive.Limits{Segment: 10_000, Rate: 10_000}, func(t *task) {
		began := time.Now()
		_, over := t.ship()
		t.say(0, 20_000) // 890 kB
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if puts := t.store.Count("Put"); puts == 0 || puts > 11 {
			t.Errorf("%d segments in 10 seconds", puts)
		}
		t.end()
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("the rest took until %s", took)
		}
		t.complete(0, 20_000)
	})
}

func TestAReaderOpensOnlyWhatItNeeds(t *testing.T) {
	bubble(t, archive.Limits{Segment: 4000}, func(t *task) {
		_, over := t.ship()
		began := time.Now()
		for i := range 40 {
			t.say(i*100, i*100+100)
			time.Sleep(time.Second)
		}
		t.end()
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		at := func(second int) int64 { return began.Add(time.Duration(second) * time.Second).UnixNano() }
		for _, c := range []struct {
			query       journal.Query
			first, last string
			lines, most int
		}{
			{journal.Query{Since: at(10), Until: at(12)}, "line 1000", "line 1199", 200, 4},
			{journal.Query{After: at(38)}, "line 3801", "line 3999", 199, 3}, // the first has the instant itself
			{journal.Query{Tail: 10}, "line 3990", "line 3999", 10, 3},
			{journal.Query{Tail: 500, Streams: []string{"err"}}, "line 3001", "line 3999", 500, 40},
			{journal.Query{Since: at(20), Match: regexp.MustCompile("11$"), Tail: 3}, "line 3711", "line 3911", 3, 45},
			{journal.Query{Since: at(50)}, "", "", 0, 0},
		} {
			before := t.store.Count("Open")
			lines := t.shown(c.query)
			opened := t.store.Count("Open") - before
			if len(lines) != c.lines || opened > c.most || len(lines) > 0 && (lines[0] != c.first || lines[len(lines)-1] != c.last) {
				t.Errorf("%+v opens %d and gives %d lines", c.query, opened, len(lines))
			}
		}
	})
}

func TestAReaderGoesOnWhereSegmentsAreReplacedUnderIt(t *testing.T) {
	bubble(t, archive.Limits{Segment: 4000, Every: time.Second}, func(t *task) {
		_, over := t.ship()
		for i := range 5 {
			t.say(i*60, i*60+60)
			time.Sleep(3 * time.Second)
		}
		synctest.Wait()
		var more sync.Once
		count := 0
		_, err := archive.Read(context.Background(), t.store, journal.Query{}, func(batch []journal.Entry) error {
			more.Do(func() {
				t.say(300, 340)
				time.Sleep(3 * time.Second)
				synctest.Wait()
			})
			count += len(batch)
			return nil
		})
		if err != nil || count != 340 {
			t.Errorf("%d lines, %v", count, err)
		}
		t.end()
		if err := <-over; err != nil {
			t.Fatal(err)
		}
	})
}

func TestADamagedSegmentDoesNotHideTheOthers(t *testing.T) {
	bubble(t, archive.Limits{Segment: 4000}, func(t *task) {
		_, over := t.ship()
		for i := range 3 {
			t.say(i*100, i*100+100)
			time.Sleep(time.Second)
		}
		t.end()
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		t.store.Change(t.segments()[1], func(whole []byte) []byte { return whole[:len(whole)/2] })
		count := 0
		_, err := archive.Read(context.Background(), t.store, journal.Query{}, func(batch []journal.Entry) error {
			count += len(batch)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), t.segments()[1]) || count < 200 || count >= 300 {
			t.Errorf("%d lines, %v", count, err)
		}
		full := errors.New("full")
		if _, err := archive.Read(context.Background(), t.store, journal.Query{}, func([]journal.Entry) error { return full }); !errors.Is(err, full) {
			t.Errorf("a sink's error is %v", err)
		}
	})
}

func TestASegmentIsGzipOfTheJournalsLines(t *testing.T) {
	bubble(t, archive.Limits{}, func(t *task) {
		_, over := t.ship()
		t.say(0, 2)
		time.Sleep(2 * time.Minute)
		t.say(2, 4)
		t.end()
		if err := <-over; err != nil {
			t.Fatal(err)
		}
		content, err := t.store.Open(context.Background(), t.segments()[0])
		if err != nil {
			t.Fatal(err)
		}
		unpacked, err := gzip.NewReader(content)
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if _, err := text.ReadFrom(unpacked); err != nil || strings.Count(text.String(), "\n") != 4 || !strings.Contains(text.String(), "Z err F line 3\n") {
			t.Errorf("%q, %v", text.String(), err)
		}
	})
}
