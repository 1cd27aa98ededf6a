package planner_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/decisions"
)

// neverEnough is a record that is to begin anew whenever it is asked.
type neverEnough struct{}

func (neverEnough) Tell([]decisions.Told) {}
func (neverEnough) Wants() bool           { return true }

func TestAGangDoesNotStarveBecauseTheRecordBeginsAnew(t *testing.T) {
	inReign(t, func(t *testing.T, r *reign) {
		r.end()
		r.record = neverEnough{}
		r.begin()
		r.node("n", 2)
		small := func(i int) string { return fmt.Sprintf("small-%c", 'a'+i) } // each of a class of its own: nobody knows how long it runs
		r.submit(small(0), 1, nil)
		r.submit(small(1), 1, nil)
		r.submit("big", 2, nil)
		for i, oldest := 2, 0; i < 26; i++ { // 8 min
			time.Sleep(20 * time.Second)
			r.submit(small(i), 1, nil)
			if r.runs(small(oldest)) == 1 {
				r.report(small(oldest), cluster.TaskStatus{State: cluster.TaskSucceeded})
				oldest++
			}
			if r.runs("big") == 2 {
				return
			}
		}
		t.Error("a gang of two waits behind ever more that came later")
	})
}
