package wire

import (
	"time"

	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// QueueToProto converts a queue.
func QueueToProto(q cluster.Queue) *claryv1.Queue {
	return &claryv1.Queue{
		Name: q.Name, Parent: q.Parent, Weight: q.Weight, Revision: q.Revision,
		Guarantee: list(q.Guarantee, LimitToProto), Borrow: list(q.Borrow, LimitToProto), Lend: list(q.Lend, LimitToProto),
		MaxRunning: q.MaxRunning, MaxWaiting: q.MaxWaiting, User: UserLimitToProto(q.User),
		Order: string(q.Order), Backfill: string(q.Backfill), Preempt: PreemptToProto(q.Preempt),
		MinRuntime: int64(q.MinRuntime), HalfLife: int64(q.HalfLife), Unpreemptible: list(q.Unpreemptible, LimitToProto),
	}
}

// QueueFromProto converts a queue.
func QueueFromProto(q *claryv1.Queue) cluster.Queue {
	return cluster.Queue{
		Name: q.GetName(), Parent: q.GetParent(), Weight: q.GetWeight(), Revision: q.GetRevision(),
		Guarantee: list(q.GetGuarantee(), LimitFromProto), Borrow: list(q.GetBorrow(), LimitFromProto), Lend: list(q.GetLend(), LimitFromProto),
		MaxRunning: q.GetMaxRunning(), MaxWaiting: q.GetMaxWaiting(), User: UserLimitFromProto(q.GetUser()),
		Order: cluster.QueueOrder(q.GetOrder()), Backfill: cluster.Backfill(q.GetBackfill()), Preempt: PreemptFromProto(q.GetPreempt()),
		MinRuntime: time.Duration(q.GetMinRuntime()), HalfLife: time.Duration(q.GetHalfLife()), Unpreemptible: list(q.GetUnpreemptible(), LimitFromProto),
	}
}

// LimitToProto converts the limit of one resource.
func LimitToProto(l cluster.Limit) *claryv1.Limit {
	return &claryv1.Limit{Resource: l.Resource, Amount: l.Amount}
}

// LimitFromProto converts the limit of one resource.
func LimitFromProto(l *claryv1.Limit) cluster.Limit {
	return cluster.Limit{Resource: l.GetResource(), Amount: l.GetAmount()}
}

// UserLimitToProto converts the limits of one owner of jobs.
func UserLimitToProto(u cluster.UserLimit) *claryv1.UserLimit {
	if len(u.Most) == 0 && u.MaxRunning == 0 {
		return nil
	}
	return &claryv1.UserLimit{Most: list(u.Most, LimitToProto), MaxRunning: u.MaxRunning}
}

// UserLimitFromProto converts the limits of one owner of jobs.
func UserLimitFromProto(u *claryv1.UserLimit) cluster.UserLimit {
	return cluster.UserLimit{Most: list(u.GetMost(), LimitFromProto), MaxRunning: u.GetMaxRunning()}
}

// PreemptToProto converts the rules of what may be evicted.
func PreemptToProto(p cluster.Preempt) *claryv1.Preempt {
	if p == (cluster.Preempt{}) {
		return nil
	}
	return &claryv1.Preempt{Within: string(p.Within), Reclaim: string(p.Reclaim), Fair: string(p.Fair)}
}

// PreemptFromProto converts the rules of what may be evicted.
func PreemptFromProto(p *claryv1.Preempt) cluster.Preempt {
	return cluster.Preempt{
		Within: cluster.PreemptRule(p.GetWithin()), Reclaim: cluster.PreemptRule(p.GetReclaim()), Fair: cluster.PreemptRule(p.GetFair()),
	}
}

// AmountToProto converts an amount; nothing is nil.
func AmountToProto(a cluster.Amount) *claryv1.Amount {
	if a.IsZero() {
		return nil
	}
	return &claryv1.Amount{MilliCpu: a.MilliCPU, Memory: a.Memory, MilliGpu: a.MilliGPU, Models: list(a.Models, ModelAmountToProto)}
}

// AmountFromProto converts an amount.
func AmountFromProto(a *claryv1.Amount) cluster.Amount {
	return cluster.Amount{
		MilliCPU: a.GetMilliCpu(), Memory: a.GetMemory(), MilliGPU: a.GetMilliGpu(), Models: list(a.GetModels(), ModelAmountFromProto),
	}
}

// ModelAmountToProto converts an amount of GPUs of one model.
func ModelAmountToProto(m cluster.ModelAmount) *claryv1.ModelAmount {
	return &claryv1.ModelAmount{Model: m.Model, Milli: m.Milli}
}

// ModelAmountFromProto converts an amount of GPUs of one model.
func ModelAmountFromProto(m *claryv1.ModelAmount) cluster.ModelAmount {
	return cluster.ModelAmount{Model: m.GetModel(), Milli: m.GetMilli()}
}

// ClaimToProto converts what a task holds of a queue; nothing is nil.
func ClaimToProto(c cluster.Claim) *claryv1.Claim {
	if c.Queue == "" && c.Owner == "" && !c.Firm && c.IsZero() {
		return nil
	}
	return &claryv1.Claim{Queue: c.Queue, Owner: c.Owner, Firm: c.Firm, Amount: AmountToProto(c.Amount)}
}

// ClaimFromProto converts what a task holds of a queue.
func ClaimFromProto(c *claryv1.Claim) cluster.Claim {
	return cluster.Claim{Queue: c.GetQueue(), Owner: c.GetOwner(), Firm: c.GetFirm(), Amount: AmountFromProto(c.GetAmount())}
}

// QueueUsageToProto converts what a queue holds.
func QueueUsageToProto(u cluster.QueueUsage) *claryv1.QueueUsage {
	return &claryv1.QueueUsage{
		Queue: u.Queue, Used: AmountToProto(u.Used), Running: u.Running, Owners: list(u.Owners, OwnerUsageToProto),
		Mean: AmountToProto(u.Mean), At: u.At, Revision: u.Revision, Firm: AmountToProto(u.Firm),
	}
}

// QueueUsageFromProto converts what a queue holds.
func QueueUsageFromProto(u *claryv1.QueueUsage) cluster.QueueUsage {
	return cluster.QueueUsage{
		Queue: u.GetQueue(), Used: AmountFromProto(u.GetUsed()), Running: u.GetRunning(), Owners: list(u.GetOwners(), OwnerUsageFromProto),
		Mean: AmountFromProto(u.GetMean()), At: u.GetAt(), Revision: u.GetRevision(), Firm: AmountFromProto(u.GetFirm()),
	}
}

// OwnerUsageToProto converts what one owner of jobs holds.
func OwnerUsageToProto(o cluster.OwnerUsage) *claryv1.OwnerUsage {
	return &claryv1.OwnerUsage{Owner: o.Owner, Used: AmountToProto(o.Used), Running: o.Running}
}

// OwnerUsageFromProto converts what one owner of jobs holds.
func OwnerUsageFromProto(o *claryv1.OwnerUsage) cluster.OwnerUsage {
	return cluster.OwnerUsage{Owner: o.GetOwner(), Used: AmountFromProto(o.GetUsed()), Running: o.GetRunning()}
}

// QueueViewToProto converts a queue with what it holds.
func QueueViewToProto(v cluster.QueueView) *claryv1.QueueView {
	return &claryv1.QueueView{
		Queue: QueueToProto(v.Queue), TakesJobs: v.TakesJobs, Used: AmountToProto(v.Used), Beyond: AmountToProto(v.Beyond), Mean: AmountToProto(v.Mean),
		Share: v.Share, Running: v.Running, Waiting: v.Waiting, Owners: list(v.Owners, OwnerUsageToProto),
	}
}

// QueueViewFromProto converts a queue with what it holds.
func QueueViewFromProto(v *claryv1.QueueView) cluster.QueueView {
	return cluster.QueueView{
		Queue: QueueFromProto(v.GetQueue()), TakesJobs: v.GetTakesJobs(), Used: AmountFromProto(v.GetUsed()), Beyond: AmountFromProto(v.GetBeyond()), Mean: AmountFromProto(v.GetMean()),
		Share: v.GetShare(), Running: v.GetRunning(), Waiting: v.GetWaiting(), Owners: list(v.GetOwners(), OwnerUsageFromProto),
	}
}
