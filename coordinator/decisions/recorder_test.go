package decisions_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/decisions"
)

// segment is a beginning and so many plans that decide nothing.
func segment(at int64, plans int) []decisions.Told {
	told := []decisions.Told{{Begin: &decisions.Begin{At: at}}}
	for i := range plans {
		told = append(told, decisions.Told{Decided: &decisions.Decided{Number: int64(i + 1), Now: at}})
	}
	return told
}

func recorder(t *testing.T, limits decisions.Limits) (*decisions.Recorder, string) {
	dir := t.TempDir()
	return decisions.NewRecorder(dir, limits, slog.New(slog.DiscardHandler)), dir
}

// write has the recorder write all that it was told.
func write(t *testing.T, r *decisions.Recorder) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != context.Canceled {
		t.Fatal(err)
	}
}

func TestARecordStaysWithinItsBounds(t *testing.T) {
	r, dir := recorder(t, decisions.Limits{Segment: 1000, Total: 5000, Age: time.Hour})
	now := time.Now().UnixNano()
	for i := range 50 {
		r.Tell(segment(now+int64(i), 60))
		write(t, r)
		if !r.Wants() {
			t.Fatal("a segment that has its size wants no other")
		}
	}
	paths, err := decisions.Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if len(paths) < 2 || total > 6000 {
		t.Errorf("%d segments of %d bytes together", len(paths), total)
	}
	if want := fmt.Sprintf("%s/decisions-%d.log", dir, now+49); paths[len(paths)-1] != want {
		t.Errorf("the last is %s, want %s", paths[len(paths)-1], want)
	}
	var all, last bytes.Buffer
	if err := r.Copy(&all, false); err != nil {
		t.Fatal(err)
	}
	if err := r.Copy(&last, true); err != nil {
		t.Fatal(err)
	}
	for _, copied := range []struct {
		record   *bytes.Buffer
		segments int
	}{{&all, len(paths)}, {&last, 1}} {
		if out, err := decisions.Replay(copied.record, decisions.Until{}); err != nil || out.Segments != copied.segments || out.Decisions != int64(60*copied.segments) {
			t.Errorf("%+v, %v", out, err)
		}
	}
	r.Tell(segment(now+int64(2*time.Hour), 1)) // all others are too old by then
	write(t, r)
	if paths, err = decisions.Segments(dir); err != nil || len(paths) != 1 {
		t.Errorf("%d segments, %v", len(paths), err)
	}
}

func TestABeginningThatIsLargerThanASegmentIsWrittenOnce(t *testing.T) {
	r, dir := recorder(t, decisions.Limits{Segment: 2000, Total: 20_000, Age: time.Hour})
	begin := []decisions.Told{{Begin: &decisions.Begin{At: 1}}}
	for i := range 500 { // 18,000 bytes and more
		begin = append(begin, decisions.Told{Node: &decisions.Node{Node: cluster.Node{ID: fmt.Sprintf("node-%d", i), Address: "a", State: cluster.NodeReady, Revision: 1}}})
	}
	for i, plans := range []int{0, 50, 200, 50, 200} {
		begin[0] = decisions.Told{Begin: &decisions.Begin{At: int64(i + 1)}}
		r.Tell(begin)
		r.Tell(segment(1, plans)[1:])
		write(t, r)
		if r.Wants() != (plans == 200) {
			t.Errorf("after %d decisions it is to begin anew: %t", plans, r.Wants())
		}
	}
	paths, err := decisions.Segments(dir)
	if err != nil || len(paths) != 2 {
		t.Errorf("%d segments are left of those that are larger than all may be together, %v: want the newest two", len(paths), err)
	}
}

func TestWhatIsNotKeptUpWithIsLeftOutUpToTheNextBeginning(t *testing.T) {
	r, dir := recorder(t, decisions.DefaultLimits)
	if err := r.Copy(&bytes.Buffer{}, false); err == nil {
		t.Error("a record is copied before there is any")
	}
	r.Tell(segment(1, 1))
	for i := range 1000 { // nobody writes
		r.Tell([]decisions.Told{{Decided: &decisions.Decided{Number: int64(i + 2), Now: 1}}})
	}
	if !r.Wants() {
		t.Fatal("something was left out, and no beginning is wanted")
	}
	write(t, r)
	r.Tell([]decisions.Told{{Decided: &decisions.Decided{Number: 5000, Now: 1}}}) // in the gap
	r.Tell(segment(2, 3))
	write(t, r)
	if r.Wants() {
		t.Error("the gap has ended")
	}
	paths, err := decisions.Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	file, err := decisions.Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out, err := decisions.Replay(file, decisions.Until{})
	if err != nil || out.Segments != 2 || out.Last.Number != 3 || out.Decisions > 300 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestASegmentThatIsTornIsReadUpToItsLastWholeFrame(t *testing.T) {
	r, dir := recorder(t, decisions.DefaultLimits)
	for at := range int64(2) {
		r.Tell(segment(at+1, 10))
		write(t, r)
	}
	paths, err := decisions.Segments(dir)
	if err != nil || len(paths) != 2 {
		t.Fatal(paths, err)
	}
	info, err := os.Stat(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(paths[0], info.Size()-3); err != nil {
		t.Fatal(err)
	}
	file, err := decisions.Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if out, err := decisions.Replay(file, decisions.Until{}); err != nil || out.Segments != 2 || out.Decisions != 19 {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestStopsWhereItIsToldTo(t *testing.T) {
	r, _ := recorder(t, decisions.DefaultLimits)
	r.Tell(segment(1, 10))
	write(t, r)
	var record bytes.Buffer
	if err := r.Copy(&record, false); err != nil {
		t.Fatal(err)
	}
	out, err := decisions.Replay(bytes.NewReader(record.Bytes()), decisions.Until{Decision: 4, Explain: "nobody"})
	if err != nil || out.Decisions != 4 || out.Last.Number != 4 || len(out.Whys) != 0 {
		t.Errorf("%+v, %v", out, err)
	}
	if _, err := decisions.Replay(bytes.NewReader(record.Bytes()), decisions.Until{Decision: 11}); err == nil {
		t.Error("the eleventh of ten is found")
	}
}

func TestAFolderThatCannotBeWrittenEndsNothingAndIsTriedLater(t *testing.T) {
	dir := t.TempDir() + "/decisions"
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r := decisions.NewRecorder(dir, decisions.DefaultLimits, slog.New(slog.DiscardHandler))
		r.Tell(segment(1, 10))
		write(t, r)
		if r.Wants() {
			t.Error("it is to begin anew at once, where it has just failed")
		}
		if time.Sleep(10 * time.Minute); !r.Wants() {
			t.Error("it is never tried again")
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		r.Tell(segment(2, 10))
		write(t, r)
		if paths, err := decisions.Segments(dir); err != nil || len(paths) != 1 || r.Wants() {
			t.Errorf("%v, %v", paths, err)
		}
	})
}

// A coordinator that led once, and follows now, begins no segment.
func TestWhatIsTooOldGoesWhereNothingIsRecordedAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := recorder(t, decisions.Limits{Segment: 1000, Total: 5000, Age: 24 * time.Hour})
		for i := range 2 {
			r.Tell(segment(time.Now().UnixNano()+int64(i), 60))
			write(t, r)
		}
		paths, err := decisions.Segments(dir)
		if err != nil || len(paths) != 2 {
			t.Fatalf("there are %v, %v", paths, err)
		}
		for i, path := range paths {
			at := time.Now().Add(time.Duration(i) * 12 * time.Hour)
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		for _, step := range []struct {
			after time.Duration
			left  int
		}{{23 * time.Hour, 2}, {3 * time.Hour, 1}, {12 * time.Hour, 0}} {
			time.Sleep(step.after)
			synctest.Wait()
			if left, err := decisions.Segments(dir); err != nil || len(left) != step.left {
				t.Errorf("%s later there are %v, %v", step.after, left, err)
			}
		}
		cancel()
		<-ended
	})
}
