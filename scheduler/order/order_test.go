package order_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/clary-ml/clary/scheduler/order"
	"github.com/clary-ml/clary/scheduler/past"
)

const (
	second = int64(time.Second)
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

func classes(name string, gpus int32) []string {
	return order.Classes(past.Class{Name: name, GPUs: gpus}, 0)
}

// live tells a history of a job that ran so long, minute by minute, and ended.
func live(h *order.History, classes []string, lasts int64) {
	t := &order.Track{Classes: classes}
	for ran := int64(0); ran < lasts; ran += minute {
		h.Note(t, ran, 0, 0)
	}
	h.End(t, lasts)
}

func TestWithoutHistoryWhoAttainedLeastGoesFirst(t *testing.T) {
	h := order.NewHistory()
	last := int64(0)
	for ran := int64(32); ran*second < 400*day; ran *= 2 {
		effort := h.Effort(classes("x", 1), ran*second)
		if effort < last {
			t.Errorf("after %d s the effort is %v, less than before", ran, time.Duration(effort))
		}
		last = effort
	}
	if last < day {
		t.Errorf("a job that has run for a year is expected to need %v", time.Duration(last))
	}
}

func TestJobsOfOneLengthAreExpectedToLastIt(t *testing.T) {
	h := order.NewHistory()
	for range 100 {
		live(h, classes("steady", 2), hour)
	}
	for _, ran := range []int64{0, 10 * minute, 30 * minute, 45 * minute} {
		got, want := h.Effort(classes("steady", 2), ran), hour-ran
		if math.Abs(float64(got-want)) > 0.3*float64(hour) {
			t.Errorf("after %v: %v, it is %v", time.Duration(ran), time.Duration(got), time.Duration(want))
		}
	}
}

// Of jobs of which most fail in their first minute, the young ones are worth trying; those that got beyond are long.
func TestAClassOfTwoLengths(t *testing.T) {
	h := order.NewHistory()
	for i := range 400 {
		lasts := 20 * second
		if i%4 == 0 {
			lasts = 10 * hour
		}
		live(h, classes("mixed", 1), lasts)
	}
	young, mean, old := h.Effort(classes("mixed", 1), 0), h.Left(classes("mixed", 1), 0), h.Effort(classes("mixed", 1), 5*minute)
	if young > 2*minute || old < 5*hour {
		t.Errorf("effort %v when young, %v later: want seconds, then hours", time.Duration(young), time.Duration(old))
	}
	if mean < hour || mean > 5*hour {
		t.Errorf("2.5 hours on average, it says %v", time.Duration(mean))
	}
}

func TestAClassThatIsUnknownBelievesThoseAbove(t *testing.T) {
	h := order.NewHistory()
	for range 50 {
		live(h, classes("long", 8), 20*hour)
		live(h, classes("short", 1), minute)
	}
	long, short := h.Effort(classes("new", 8), 0), h.Effort(classes("new", 1), 0)
	if short > 5*minute || long < hour {
		t.Errorf("a new job of 1 GPU %v, of 8 GPUs %v", time.Duration(short), time.Duration(long))
	}
}

func TestWhatStillRunsCounts(t *testing.T) {
	h := order.NewHistory()
	before := h.Left(classes("x", 1), 0)
	for range 50 { // none of them has ended
		h.Note(&order.Track{Classes: classes("x", 1)}, 2*day, 0, 0)
	}
	for range 3 { // a few have
		live(h, classes("x", 1), minute)
	}
	if after := h.Left(classes("x", 1), 0); after < before {
		t.Errorf("50 jobs run for 2 days, and others are expected to last %v, before %v", time.Duration(after), time.Duration(before))
	}
}

func TestProgressIsReadByTheCurveOfItsClass(t *testing.T) {
	h := order.NewHistory()
	job := order.Job{Classes: classes("net", 4), Weight: 4000, Ran: 50 * minute, Done: 25, Total: 100}
	even := h.ByProgress(job)
	if want := 150 * minute; math.Abs(float64(even-want)) > 0.2*float64(want) {
		t.Errorf("a quarter done in 50 minutes, %v to go; evenly it is %v", time.Duration(even), time.Duration(want))
	}
	for range 40 { // the first quarter takes half of the time
		track := &order.Track{Classes: job.Classes}
		for epoch := int64(0); epoch <= 100; epoch++ {
			ran := epoch * 2 * minute
			if epoch > 25 {
				ran = 50*minute + (epoch-25)*50*minute/75
			}
			h.Note(track, ran, epoch, 100)
		}
		h.End(track, 100*minute)
	}
	learned := h.ByProgress(job)
	if want := 50 * minute; math.Abs(float64(learned-want)) > 0.2*float64(want) {
		t.Errorf("a quarter done, %v to go; its class needs %v", time.Duration(learned), time.Duration(want))
	}
}

func TestLeftKeepsToTheLimitAndTheEnd(t *testing.T) {
	h := order.NewHistory()
	job := order.Job{Classes: classes("x", 1), Ran: 10 * hour, Limit: 10*hour + 90*second}
	if left := order.Left(h, job); left != 90*second {
		t.Errorf("a minute and a half before its limit: %v", time.Duration(left))
	}
	job = order.Job{Classes: classes("x", 1), Ran: 10 * hour, Done: 1000, Total: 1000}
	if left := order.Left(h, job); left != 0 {
		t.Errorf("all done: %v", time.Duration(left))
	}
	for _, absurd := range []order.Job{
		{Classes: classes("x", 1), Ran: math.MaxInt64, Done: math.MaxInt64, Total: math.MaxInt64},
		{Classes: classes("x", 1), Ran: math.MinInt64, Done: -5, Total: 3, Weight: math.MaxInt64, Submitted: math.MaxInt64},
		{Classes: classes("x", 1), Ran: math.MaxInt64, Done: 1, Total: math.MaxInt64, Weight: -1},
		{Classes: classes("x", 1), Ran: 1, Done: 9, Total: 3, Limit: -1},
	} {
		if rank := order.Shortest(h, absurd, 0); rank < 1 {
			t.Errorf("%+v has rank %d", absurd, rank)
		}
	}
}

func TestWorthStoppingARunningJob(t *testing.T) {
	const due = order.Rank(-5)
	for _, test := range []struct {
		waiting, running order.Rank
		cost             int64 // ms x weight
		worth            bool
	}{
		{100, 1000, 0, true},
		{100, 1000, 399_000, true},
		{100, 1000, 401_000, false}, // stopping costs more than is gained
		{500, 1000, 0, false},       // half of what is left, and no less
		{1000, 1000, 0, false},
		{due, 1000, math.MaxInt64, true},
		{100, due, 0, false},
		{due - 1, due, 0, false},
	} {
		if got := order.Worth(test.waiting, test.running, test.cost); got != test.worth {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

func TestClassesGoFromAllJobsToItsOwn(t *testing.T) {
	got := order.Classes(past.Class{Owner: "ann", Kind: "training", Name: "digits", GPUs: 8}, 3*day+1)
	if want := `["" "8" "8@3" "8 ann" "8 ann/training/digits"]`; fmt.Sprintf("%q", got) != want {
		t.Errorf("%q, want %s", got, want)
	}
}

// A history that saw more classes than it keeps forgets the same ones on every machine, and keeps working.
func TestAHistoryIsBoundedAndTheSameEverywhere(t *testing.T) {
	tell := func() (effort []int64) {
		h := order.NewHistory()
		for i := range 20_000 {
			live(h, classes(fmt.Sprint("job", i), 1), int64(i%50+1)*minute)
		}
		for i := range 20_000 {
			effort = append(effort, h.Effort(classes(fmt.Sprint("job", i), 1), 0))
		}
		return effort
	}
	a, b := tell(), tell()
	for i := range a {
		if a[i] != b[i] {
			t.Fatalf("class %d: %d and %d", i, a[i], b[i])
		}
	}
}

func BenchmarkShortest(b *testing.B) {
	h := order.NewHistory()
	for i := range 1000 {
		live(h, classes(fmt.Sprint("job", i%20), int32(1+i%8)), int64(i+1)*minute)
	}
	job := order.Job{Classes: classes("job3", 4), Weight: 4000, Ran: hour, Done: 3, Total: 90}
	for b.Loop() {
		order.Shortest(h, job, hour)
	}
}
