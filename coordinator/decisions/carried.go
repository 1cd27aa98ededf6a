package decisions

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/order"
	"github.com/clary-ml/clary/scheduler/score"
	"github.com/clary-ml/clary/scheduler/share"
)

func learnedToProto(l *scheduler.Learned) *claryv1.ToldLearned {
	return &claryv1.ToldLearned{
		Classes: each(l.Pages, func(p order.Page) *claryv1.LearnedClass {
			return &claryv1.LearnedClass{Class: p.Class, Through: p.Through, Ended: p.Ended, Seen: p.Seen, Curve: p.Curve, Reported: p.Reported}
		}),
		Works: each(l.Works, func(w scheduler.Work) *claryv1.LearnedWork {
			return &claryv1.LearnedWork{
				Gang: w.Gang, Classes: w.Track.Classes, Noted: w.Track.Noted, Passed: w.Track.Passed[:], Done: w.Done, Total: w.Total,
			}
		}),
	}
}

func learnedFromProto(l *claryv1.ToldLearned) *scheduler.Learned {
	return &scheduler.Learned{
		Pages: each(l.GetClasses(), func(p *claryv1.LearnedClass) order.Page {
			return order.Page{
				Class: p.GetClass(), Through: p.GetThrough(), Ended: p.GetEnded(), Seen: p.GetSeen(), Curve: p.GetCurve(), Reported: p.GetReported(),
			}
		}),
		Works: each(l.GetWorks(), func(w *claryv1.LearnedWork) scheduler.Work {
			work := scheduler.Work{Gang: w.GetGang(), Track: order.Track{Classes: w.GetClasses(), Noted: w.GetNoted()}, Done: w.GetDone(), Total: w.GetTotal()}
			copy(work.Track.Passed[:], w.GetPassed())
			return work
		}),
	}
}

func notesToProto(n *scheduler.Notes) *claryv1.ToldNotes {
	return &claryv1.ToldNotes{
		Pauses: each(n.Paused, func(p scheduler.Paused) *claryv1.ToldPause { return &claryv1.ToldPause{Gang: p.Gang, Until: p.Until} }),
		Rooms: each(n.Rooms, func(r scheduler.Room) *claryv1.KeptRoom {
			kept := &claryv1.KeptRoom{Gang: r.Gang, Step: int64(r.Step), Awaits: r.Awaits, Allocations: each(r.Allocations, wire.AllocationToProto)}
			if c := r.Claim; c != nil {
				kept.Claim, kept.Job = &claryv1.Claim{Queue: c.Queue, Owner: c.Owner, Firm: c.Firm, Amount: wire.AmountToProto(c.Amount)}, c.Job
			}
			return kept
		}),
		Wanted: each(n.Wanted.Counts, func(c score.Count) *claryv1.AskCount {
			return &claryv1.AskCount{Ask: wire.AskToProto(c.Ask), Tasks: c.Tasks, Mebibytes: c.Mebibytes}
		}),
		WantedTasks: n.Wanted.Tasks, WantedFresh: n.Wanted.Fresh,
		Mix: each(n.Wanted.Mix, func(k score.Kind) *claryv1.AskCount {
			return &claryv1.AskCount{Ask: wire.AskToProto(k.Ask), Tasks: k.Weight}
		}),
	}
}

func notesFromProto(n *claryv1.ToldNotes) *scheduler.Notes {
	return &scheduler.Notes{
		Paused: each(n.GetPauses(), func(p *claryv1.ToldPause) scheduler.Paused {
			return scheduler.Paused{Gang: p.GetGang(), Until: p.GetUntil()}
		}),
		Rooms: each(n.GetRooms(), func(r *claryv1.KeptRoom) scheduler.Room {
			kept := scheduler.Room{Gang: r.GetGang(), Step: int(r.GetStep()), Awaits: r.GetAwaits(), Allocations: each(r.GetAllocations(), wire.AllocationFromProto)}
			if c := r.GetClaim(); c != nil {
				kept.Claim = &share.Claim{Queue: c.GetQueue(), Owner: c.GetOwner(), Job: r.GetJob(), Firm: c.GetFirm(), Amount: wire.AmountFromProto(c.GetAmount())}
			}
			return kept
		}),
		Wanted: scheduler.Wanted{
			Counts: each(n.GetWanted(), func(c *claryv1.AskCount) score.Count {
				return score.Count{Ask: askOf(c), Tasks: c.GetTasks(), Mebibytes: c.GetMebibytes()}
			}),
			Tasks: n.GetWantedTasks(), Fresh: n.GetWantedFresh(),
			Mix: each(n.GetMix(), func(c *claryv1.AskCount) score.Kind { return score.Kind{Ask: askOf(c), Weight: c.GetTasks()} }),
		},
	}
}

func askOf(c *claryv1.AskCount) cluster.Ask { return wire.AskFromProto(c.GetAsk()) }
