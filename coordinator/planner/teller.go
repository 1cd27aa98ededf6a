package planner

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/decisions"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/share"
)

// Recorder keeps what the scheduler was told and decided. Nothing of it may wait.
type Recorder interface {
	// Tell hands over what happened, in order.
	Tell(told []decisions.Told)
	// Wants reports whether the record is to begin anew, with all that is known.
	Wants() bool
}

// noRecord is where nothing is recorded.
type noRecord struct{}

func (noRecord) Tell([]decisions.Told) {}
func (noRecord) Wants() bool           { return false }

// tellMany is how many things that were told are handed over together, at the least, unless a plan comes before.
const tellMany = 64

// teller is the scheduler's Cluster, of which all that it is told and decides is recorded: whoever changes the Cluster
// does it here.
type teller struct {
	*scheduler.Cluster
	record  Recorder
	silent  bool // nothing is recorded
	told    []decisions.Told
	decided int64
	began   time.Time
}

func newTeller(record Recorder, version string) *teller {
	_, silent := record.(noRecord)
	t := &teller{Cluster: scheduler.New(scheduler.Options{}), record: record, silent: silent, began: time.Now()}
	t.note(decisions.Told{Begin: &decisions.Begin{At: t.began.UnixNano(), Version: version}})
	return t
}

func (t *teller) note(told decisions.Told) {
	if t.silent {
		return
	}
	if t.told = append(t.told, told); len(t.told) >= tellMany {
		t.flush()
	}
}

// flush hands over what was noted.
func (t *teller) flush() {
	t.record.Tell(t.told)
	t.told = nil
}

// SetNode tells of a node.
func (t *teller) SetNode(n cluster.Node, used cluster.Resources) {
	t.Cluster.SetNode(n, used)
	t.note(decisions.Told{Node: &decisions.Node{Node: n, Used: used}})
}

// DeleteNode tells that a node is gone.
func (t *teller) DeleteNode(id string) {
	t.Cluster.DeleteNode(id)
	t.note(decisions.Told{NodeGone: id})
}

// SetQueues tells of all queues.
func (t *teller) SetQueues(queues []cluster.Queue) error {
	err := t.Cluster.SetQueues(queues)
	t.note(decisions.Told{Queues: &decisions.Queues{All: queues}})
	return err
}

// Wait tells of a gang that waits, how long it is expected to run, and since when it is known to find no room.
func (t *teller) Wait(gang cluster.Gang, lasts time.Duration, since int64) {
	wait := &decisions.Wait{Gang: gang, Lasts: lasts, Since: since}
	t.Cluster.Wait(wait.Ask())
	t.note(decisions.Told{Waits: wait})
}

// Run tells of a gang that runs.
func (t *teller) Run(gang cluster.Gang, r scheduler.Running) {
	t.Cluster.Run(r)
	t.note(decisions.Told{Runs: decisions.RunOf(gang, r)})
}

// Succeeded tells of a gang that has done its work.
func (t *teller) Succeeded(gang cluster.Gang, ran time.Duration) {
	t.Cluster.Succeeded(gang, ran)
	t.note(decisions.Told{Done: &decisions.Done{Gang: gang, Ran: ran}})
}

// Rest tells that a gang holds nothing.
func (t *teller) Rest(id string) {
	t.Cluster.Rest(id)
	t.note(decisions.Told{Rests: id})
}

// Drop tells that a gang is gone.
func (t *teller) Drop(id string) {
	t.Cluster.Drop(id)
	t.note(decisions.Told{Gone: id})
}

// Pause keeps a gang from being planned for a while.
func (t *teller) Pause(id string, until int64) {
	t.Cluster.Pause(id, until)
	t.note(decisions.Told{Pause: &decisions.Pause{Gang: id, Until: until}})
}

// Remember tells what a queue used before.
func (t *teller) Remember(queue string, h share.History) {
	t.Cluster.Remember(queue, h)
	t.note(decisions.Told{History: &decisions.History{Queue: queue, History: h}})
}

// Learn tells what one before has learned.
func (t *teller) Learn(l scheduler.Learned) {
	t.Cluster.Learn(l)
	t.note(decisions.Told{Learned: &l})
}

// Note tells what one before kept in mind.
func (t *teller) Note(n scheduler.Notes) {
	t.Cluster.Note(n)
	t.note(decisions.Told{Notes: &n})
}

// Recover says that all that is known was told.
func (t *teller) Recover() {
	t.Cluster.Recover()
	t.note(decisions.Told{Recover: true})
}

// count tells that so many more tasks that are spread together are on a node.
func (t *teller) count(s spread, tasks int) {
	t.Room.Count(s.job, s.by, s.node, tasks)
	t.note(decisions.Told{Count: &decisions.Count{Job: s.job, Spread: s.by, Node: s.node, Tasks: tasks}})
}

// advance tells which ports were given out last.
func (t *teller) advance(plan cluster.Plan) {
	t.Room.Advance(plan)
	var allocations []cluster.Allocation
	for i := range plan.Placements {
		for _, a := range plan.Placements[i].Allocations {
			if len(a.Resources.Ports) > 0 {
				allocations = append(allocations, a)
			}
		}
	}
	if len(allocations) > 0 {
		t.note(decisions.Told{Advance: &decisions.Advance{Allocations: allocations}})
	}
}

// Plan decides.
func (t *teller) Plan(now int64) cluster.Plan {
	plan := t.Cluster.Plan(now)
	t.decided++
	t.note(decisions.Told{Decided: &decisions.Decided{Number: t.decided, Now: now, Plan: plan}})
	t.flush()
	return plan
}
