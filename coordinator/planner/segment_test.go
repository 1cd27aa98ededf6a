package planner_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/decisions"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
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

// onDemand is a record that is to begin anew when the test says so.
type onDemand struct {
	mu     sync.Mutex
	wants  bool
	begins int
}

func (d *onDemand) Tell(told []decisions.Told) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, one := range told {
		if one.Begin != nil {
			d.wants = false
			d.begins++
		}
	}
}

func (d *onDemand) Wants() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.wants
}

func (d *onDemand) began() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begins
}

// anew has the record begin anew with the next event, which is none of a job's.
func (r *reign) anew(d *onDemand) {
	r.t.Helper()
	time.Sleep(time.Minute)
	synctest.Wait()
	d.mu.Lock()
	d.wants = true
	begins := d.begins
	d.mu.Unlock()
	r.propose(command.PutNode{Node: cluster.Node{ID: "elsewhere", Address: "elsewhere", State: cluster.NodeReady, Seen: time.Now().UnixNano()}})
	synctest.Wait()
	if got := d.began(); got != begins+1 {
		r.t.Fatalf("the record has begun %d times, want %d", got, begins+1)
	}
}

// inSegments is inReign with a record that begins anew on demand.
func inSegments(t *testing.T, play func(t *testing.T, r *reign, d *onDemand)) {
	t.Helper()
	inReign(t, func(t *testing.T, r *reign) {
		r.end()
		d := &onDemand{}
		r.record = d
		r.begin()
		play(t, r, d)
	})
}

// saves has a job report a checkpoint.
func (r *reign) saves(name string) {
	r.t.Helper()
	r.report(name, cluster.TaskStatus{State: cluster.TaskRunning, Started: 1, Progress: cluster.Progress{Checkpoint: time.Now().UnixNano()}})
}

func TestRoomForAGangThatIsResizedIsKeptWhenTheRecordBeginsAnew(t *testing.T) {
	t.Run("it shrinks", func(t *testing.T) {
		inSegments(t, func(_ *testing.T, r *reign, d *onDemand) {
			r.queues(cluster.Queue{Name: "other"})
			r.node("a", 4)
			r.submit("wide", 6, elastic(2))
			r.expect("wide", 4)
			time.Sleep(5 * time.Minute)
			r.saves("wide")
			r.submit("urgent", 1, urgent)
			r.submit("thief", 1, inQueue("other")) // whose queue has least
			r.anew(d)
			r.report("wide", stopped)
			r.expect("urgent", 1)
			r.expect("wide", 3)
			r.expect("thief", 0)
		})
	})
	t.Run("it grows", func(t *testing.T) {
		inSegments(t, func(t *testing.T, r *reign, d *onDemand) {
			r.queues(cluster.Queue{Name: "other"})
			r.node("a", 2)
			r.submit("wide", 4, elastic(1))
			r.expect("wide", 2)
			time.Sleep(5 * time.Minute)
			r.saves("wide")
			r.node("b", 2)
			time.Sleep(10 * time.Minute)
			r.saves("wide")
			if gang, _ := r.gang("wide"); !gang.Stop || gang.For != "wide/main" {
				t.Fatalf("it does not grow: %+v", gang)
			}
			r.anew(d)
			r.submit("thief", 1, inQueue("other"))
			r.expect("thief", 0)
			r.report("wide", stopped)
			r.expect("wide", 4)
		})
	})
}

func TestWhoWasRefusedStillPausesWhenTheRecordBeginsAnew(t *testing.T) {
	inSegments(t, func(t *testing.T, r *reign, d *onDemand) {
		time.Sleep(time.Minute)
		var plans atomic.Int32
		r.ledger.Before = func(commands []command.Command) error {
			if _, plan := commands[0].(command.CommitPlan); !plan {
				return nil
			}
			if plans.Add(1) == 1 {
				d.mu.Lock()
				d.wants = true
				d.mu.Unlock()
				return fault.New(fault.Unready, "no leader")
			}
			return nil
		}
		r.submit("first", 1, nil)
		begins := d.began()
		r.node("a", 1)
		synctest.Wait() // it has been refused, and pauses
		r.node("b", 1)  // is read with all else, if all is not read anew already
		if synctest.Wait(); d.began() != begins+1 || plans.Load() != 1 {
			t.Fatalf("it began anew %d times, and planned %d times at once", d.began()-begins, plans.Load())
		}
		time.Sleep(time.Second)
		r.expect("first", 1)
	})
}

func TestWhatIsKnownOfJobsThatAreGoneIsNotForgottenWhenTheRecordBeginsAnew(t *testing.T) {
	inSegments(t, func(t *testing.T, r *reign, d *onDemand) {
		inLab := func(j *cluster.Job, g *cluster.Gang) {
			inQueue("lab")(j, g)
			j.Spec = []byte(`{}`)
		}
		r.queues(cluster.Queue{Name: "lab", Order: cluster.OrderShortest})
		r.node("a", 1)
		for i := range 6 { // in turn
			name, lasts := fmt.Sprintf("long-%d", i), 5*time.Hour
			if i%2 == 1 {
				name, lasts = fmt.Sprintf("short-%d", i), time.Minute
			}
			r.submit(name, 1, inLab)
			r.expect(name, 1)
			time.Sleep(lasts)
			r.report(name, cluster.TaskStatus{State: cluster.TaskSucceeded})
			job := r.job(name)
			gang, _ := r.gang(name)
			if job.State != cluster.JobSucceeded {
				t.Fatalf("%s is %s: %s", name, job.State, job.Reason)
			}
			r.propose(command.Record{Changes: []command.Change{
				{Expect: gang.Revision, Delete: &command.Key{Kind: state.KindGang, ID: gang.ID()}},
				{Expect: job.Revision, Delete: &command.Key{Kind: state.KindJob, ID: name}},
			}})
		}
		r.submit("other-1", 1, inLab)
		r.submit("long-9", 1, inLab)
		r.submit("short-9", 1, inLab)
		r.anew(d)
		r.report("other-1", cluster.TaskStatus{State: cluster.TaskSucceeded})
		r.expect("short-9", 1)
		r.expect("long-9", 0)
	})
}
