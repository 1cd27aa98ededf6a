package decisions

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/scheduler/share"
)

// described remembers which nodes a segment has described, so that each is described once for as long as it stays
// the same.
type described map[string]cluster.Node

func (d described) toProto(t Told) *claryv1.Told {
	switch {
	case t.Begin != nil:
		return &claryv1.Told{Told: &claryv1.Told_Begin{Begin: &claryv1.Begin{At: t.Begin.At, Version: t.Begin.Version}}}
	case t.Node != nil:
		told := &claryv1.ToldNode{Id: t.Node.ID, Used: wire.ResourcesToProto(t.Node.Used)}
		if known, ok := d[t.Node.ID]; !ok || known.Revision == 0 || known.Revision != t.Node.Revision {
			told.Node = wire.NodeToProto(t.Node.Node)
			d[t.Node.ID] = t.Node.Node
		}
		return &claryv1.Told{Told: &claryv1.Told_Node{Node: told}}
	case t.NodeGone != "":
		delete(d, t.NodeGone)
		return &claryv1.Told{Told: &claryv1.Told_NodeGone{NodeGone: t.NodeGone}}
	case t.Queues != nil:
		told := &claryv1.ToldQueues{}
		for _, q := range t.Queues.All {
			told.Queues = append(told.Queues, wire.QueueToProto(q))
		}
		return &claryv1.Told{Told: &claryv1.Told_Queues{Queues: told}}
	case t.Waits != nil:
		return &claryv1.Told{Told: &claryv1.Told_Waits{Waits: &claryv1.ToldWait{Gang: wire.GangToProto(bare(t.Waits.Gang)), Lasts: int64(t.Waits.Lasts), Since: t.Waits.Since}}}
	case t.Runs != nil:
		return &claryv1.Told{Told: &claryv1.Told_Runs{Runs: &claryv1.ToldRun{
			Gang: wire.GangToProto(bare(t.Runs.Gang)), Allocations: each(t.Runs.Allocations, wire.AllocationToProto),
			Started: t.Runs.Started, Checkpoint: t.Runs.Checkpoint, Until: t.Runs.Until, Restart: int64(t.Runs.Restart),
			Done: t.Runs.Done, Total: t.Runs.Total,
		}}}
	case t.Done != nil:
		return &claryv1.Told{Told: &claryv1.Told_Done{Done: &claryv1.ToldDone{Gang: wire.GangToProto(bare(t.Done.Gang)), Ran: int64(t.Done.Ran)}}}
	case t.Rests != "":
		return &claryv1.Told{Told: &claryv1.Told_Rests{Rests: t.Rests}}
	case t.Recover:
		return &claryv1.Told{Told: &claryv1.Told_Recovered{Recovered: true}}
	case t.Count != nil:
		return &claryv1.Told{Told: &claryv1.Told_Count{Count: &claryv1.ToldCount{
			Job: t.Count.Job, Spread: t.Count.Spread, Node: t.Count.Node, Tasks: int64(t.Count.Tasks),
		}}}
	case t.Advance != nil:
		return &claryv1.Told{Told: &claryv1.Told_Advance{Advance: &claryv1.ToldAdvance{Allocations: each(t.Advance.Allocations, wire.AllocationToProto)}}}
	case t.History != nil:
		return &claryv1.Told{Told: &claryv1.Told_History{History: &claryv1.ToldHistory{
			Queue: t.History.Queue, Mean: wire.AmountToProto(t.History.Mean), At: t.History.At,
		}}}
	case t.Learned != nil:
		return &claryv1.Told{Told: &claryv1.Told_Learned{Learned: learnedToProto(t.Learned)}}
	case t.Notes != nil:
		return &claryv1.Told{Told: &claryv1.Told_Notes{Notes: notesToProto(t.Notes)}}
	case t.Gone != "":
		return &claryv1.Told{Told: &claryv1.Told_Gone{Gone: t.Gone}}
	case t.Pause != nil:
		return &claryv1.Told{Told: &claryv1.Told_Pause{Pause: &claryv1.ToldPause{Gang: t.Pause.Gang, Until: t.Pause.Until}}}
	case t.Decided != nil:
		return &claryv1.Told{Told: &claryv1.Told_Decided{Decided: &claryv1.Decided{
			Number: t.Decided.Number, Now: t.Decided.Now, Plan: wire.PlanToProto(t.Decided.Plan),
		}}}
	}
	return &claryv1.Told{}
}

// bare is a gang without what its tasks run, which may hold what is nobody's business. What the scheduler reads of it
// stays: whether they go on from checkpoints, and where their inputs are, which nodes may have already.
func bare(gang cluster.Gang) cluster.Gang {
	roles := make([]cluster.Role, len(gang.Roles))
	for i, role := range gang.Roles {
		kept := cluster.Program{Checkpoints: role.Program.Checkpoints}
		for _, input := range role.Program.Inputs {
			kept.Inputs = append(kept.Inputs, cluster.Input{URI: input.URI})
		}
		role.Program = kept
		roles[i] = role
	}
	gang.Roles = roles
	return gang
}

// sized reports whether a gang has roles, and no more tasks than a gang may have.
func sized(gang cluster.Gang) bool {
	tasks := int64(0)
	for _, role := range gang.Roles {
		if role.Count < 0 {
			return false
		}
		tasks += int64(role.Count)
	}
	return len(gang.Roles) > 0 && tasks <= cluster.MaxTasks
}

func (d described) fromProto(p *claryv1.Told) (Told, bool) {
	switch told := p.GetTold().(type) {
	case *claryv1.Told_Begin:
		clear(d)
		return Told{Begin: &Begin{At: told.Begin.GetAt(), Version: told.Begin.GetVersion()}}, true
	case *claryv1.Told_Node:
		node := Node{Used: wire.ResourcesFromProto(told.Node.GetUsed())}
		if told.Node.GetNode() != nil {
			d[told.Node.GetId()] = wire.NodeFromProto(told.Node.GetNode())
		}
		var known bool
		node.Node, known = d[told.Node.GetId()]
		return Told{Node: &node}, known
	case *claryv1.Told_NodeGone:
		delete(d, told.NodeGone)
		return Told{NodeGone: told.NodeGone}, told.NodeGone != ""
	case *claryv1.Told_Queues:
		queues := &Queues{}
		for _, q := range told.Queues.GetQueues() {
			queues.All = append(queues.All, wire.QueueFromProto(q))
		}
		return Told{Queues: queues}, true
	case *claryv1.Told_Waits:
		wait := &Wait{Gang: wire.GangFromProto(told.Waits.GetGang()), Lasts: time.Duration(told.Waits.GetLasts()), Since: told.Waits.GetSince()}
		return Told{Waits: wait}, sized(wait.Gang)
	case *claryv1.Told_Runs:
		run := &Run{
			Gang: wire.GangFromProto(told.Runs.GetGang()), Allocations: each(told.Runs.GetAllocations(), wire.AllocationFromProto),
			Started: told.Runs.GetStarted(), Checkpoint: told.Runs.GetCheckpoint(), Until: told.Runs.GetUntil(), Restart: time.Duration(told.Runs.GetRestart()),
			Done: told.Runs.GetDone(), Total: told.Runs.GetTotal(),
		}
		return Told{Runs: run}, sized(run.Gang)
	case *claryv1.Told_Done:
		done := &Done{Gang: wire.GangFromProto(told.Done.GetGang()), Ran: time.Duration(told.Done.GetRan())}
		return Told{Done: done}, sized(done.Gang)
	case *claryv1.Told_Rests:
		return Told{Rests: told.Rests}, told.Rests != ""
	case *claryv1.Told_Recovered:
		return Told{Recover: true}, true
	case *claryv1.Told_Count:
		c := told.Count
		return Told{Count: &Count{Job: c.GetJob(), Spread: c.GetSpread(), Node: c.GetNode(), Tasks: int(c.GetTasks())}}, true
	case *claryv1.Told_Advance:
		return Told{Advance: &Advance{each(told.Advance.GetAllocations(), wire.AllocationFromProto)}}, true
	case *claryv1.Told_History:
		h := told.History
		return Told{History: &History{h.GetQueue(), share.History{Mean: wire.AmountFromProto(h.GetMean()), At: h.GetAt()}}}, h.GetQueue() != ""
	case *claryv1.Told_Learned:
		return Told{Learned: learnedFromProto(told.Learned)}, true
	case *claryv1.Told_Notes:
		return Told{Notes: notesFromProto(told.Notes)}, true
	case *claryv1.Told_Gone:
		return Told{Gone: told.Gone}, told.Gone != ""
	case *claryv1.Told_Pause:
		return Told{Pause: &Pause{Gang: told.Pause.GetGang(), Until: told.Pause.GetUntil()}}, true
	case *claryv1.Told_Decided:
		return Told{Decided: &Decided{Number: told.Decided.GetNumber(), Now: told.Decided.GetNow(), Plan: wire.PlanFromProto(told.Decided.GetPlan())}}, true
	}
	return Told{}, false
}

func each[A, B any](items []A, convert func(A) B) []B {
	var converted []B
	for _, item := range items {
		converted = append(converted, convert(item))
	}
	return converted
}
