package past_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/past"
	"pgregory.net/rapid"
)

func job(name, owner string, gpus int32) (cluster.Job, cluster.Gang) {
	return cluster.Job{Name: name, Owner: owner, Kind: cluster.KindTraining},
		cluster.Gang{Roles: []cluster.Role{{Count: 2, Ask: cluster.Ask{GPUs: gpus}}}}
}

func TestRunsOfOneJobAreOneClass(t *testing.T) {
	first := past.ClassOf(job("train-7", "ann", 4))
	for _, c := range []struct {
		name, owner string
		gpus        int32
		same        bool
	}{
		{"train-8", "ann", 4, true},
		{"train-2026-11-26", "ann", 4, true},
		{"train", "ann", 4, true},
		{"train-8", "bob", 4, false},
		{"train-8", "ann", 2, false},
		{"eval-7", "ann", 4, false},
	} {
		if same := past.ClassOf(job(c.name, c.owner, c.gpus)) == first; same != c.same {
			t.Errorf("%s of %s with 2x%d GPUs and train-7 of ann with 2x4: one class is %v", c.name, c.owner, c.gpus, same)
		}
	}
	if class := past.ClassOf(job("17", "ann", 0)); class.Name != "17" {
		t.Errorf("a name that is a number became %q", class.Name)
	}
}

func TestSaysHowLongAGangWillHoldItsRoom(t *testing.T) {
	class := past.Class{Owner: "ann", Name: "train"}
	for _, c := range []struct {
		times            []time.Duration // minutes
		limit, ran, want time.Duration   // minutes
	}{
		{nil, 0, 0, 0},
		{nil, 60, 10, 50},
		{[]time.Duration{10, 20}, 0, 0, 0},       // too few
		{[]time.Duration{10, 20, 30}, 0, 0, 30},  // nine in ten of three are three
		{[]time.Duration{10, 20, 30}, 0, 12, 18}, // of a later attempt
		{[]time.Duration{10, 20, 30}, 60, 0, 30},
		{[]time.Duration{10, 20, 30}, 15, 0, 15},
		{[]time.Duration{10, 20, 30}, 0, 31, 0}, // outlived
		{[]time.Duration{10, 20, 30}, 60, 31, 29},
		{[]time.Duration{1, 1, 1, 1, 1, 1, 1, 1, 1, 100}, 0, 0, 1},
	} {
		var b past.Book
		for _, ran := range c.times {
			b.Add(class, ran*time.Minute)
		}
		if got := b.Lasts(class, c.limit*time.Minute, c.ran*time.Minute); got != c.want*time.Minute {
			t.Errorf("after %v, with a limit of %dm and %dm run: %s; want %dm", c.times, c.limit, c.ran, got, c.want)
		}
	}
}

// A book is as if only the newest times of the classes used last were ever told to it, whatever the order.
func TestABookIsBounded(t *testing.T) {
	full, over := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var b past.Book
		model := map[past.Class][]time.Duration{}
		var used []past.Class // the one used last comes last
		use := func(c past.Class) {
			if at := slices.Index(used, c); at >= 0 {
				used = slices.Delete(used, at, at+1)
			}
			used = append(used, c)
		}
		spread := rapid.SampledFrom([]int{1, 2, past.Classes + 8}).Draw(t, "classes")
		if spread > past.Classes {
			for i := range past.Classes - 2 { // most of a book, without drawing it
				c := past.Class{GPUs: int32(i)}
				b.Add(c, time.Second)
				model[c] = []time.Duration{time.Second}
				used = append(used, c)
			}
		}
		for range rapid.IntRange(60, 150).Draw(t, "steps") {
			c := past.Class{GPUs: int32(rapid.IntRange(max(0, spread-12), spread-1).Draw(t, "class"))}
			if rapid.Bool().Draw(t, "ask") {
				want := slices.Sorted(slices.Values(model[c]))
				if got := b.Times(c); !slices.Equal(got, want) {
					t.Fatalf("class %d has %v; want %v", c.GPUs, got, want)
				}
				if len(want) > 0 {
					use(c)
				}
				continue
			}
			ran := time.Duration(rapid.IntRange(1, 1000).Draw(t, "ran"))
			b.Add(c, ran)
			if model[c] = append(model[c], ran); len(model[c]) > past.Kept {
				model[c] = model[c][1:]
				full++
			}
			use(c)
			if len(used) > past.Classes {
				delete(model, used[0])
				used = used[1:]
				over++
			}
		}
	})
	if full < 20 || over < 20 {
		t.Errorf("only %d times and %d classes were forgotten", full, over)
	}
}

func ExampleBook() {
	var b past.Book
	class := past.Class{Owner: "ann", Name: "train", GPUs: 8}
	for _, ran := range []time.Duration{50, 55, 52, 58, 51} {
		b.Add(class, ran*time.Minute)
	}
	fmt.Println(b.Lasts(class, 0, 10*time.Minute))
	// Output: 48m0s
}
