package wire

import (
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// PlacementToProto converts a placement.
func PlacementToProto(p cluster.Placement) *claryv1.Placement {
	return &claryv1.Placement{
		Gang: p.Gang, Attempt: p.Attempt, Revision: p.Revision,
		Allocations: list(p.Allocations, AllocationToProto), Counts: p.Counts,
	}
}

// PlacementFromProto converts a placement.
func PlacementFromProto(p *claryv1.Placement) cluster.Placement {
	return cluster.Placement{
		Gang: p.GetGang(), Attempt: p.GetAttempt(), Revision: p.GetRevision(),
		Allocations: list(p.GetAllocations(), AllocationFromProto), Counts: some(p.GetCounts()),
	}
}

// EvictionToProto converts an eviction.
func EvictionToProto(e cluster.Eviction) *claryv1.Eviction {
	return &claryv1.Eviction{
		Gang: e.Gang, Attempt: e.Attempt, Revision: e.Revision, ForGang: e.For, Reason: e.Reason, Counts: e.Counts,
	}
}

// EvictionFromProto converts an eviction.
func EvictionFromProto(e *claryv1.Eviction) cluster.Eviction {
	return cluster.Eviction{
		Gang: e.GetGang(), Attempt: e.GetAttempt(), Revision: e.GetRevision(), For: e.GetForGang(), Reason: e.GetReason(), Counts: some(e.GetCounts()),
	}
}

// PlanToProto converts a plan.
func PlanToProto(p cluster.Plan) *claryv1.Plan {
	return &claryv1.Plan{
		Placements: list(p.Placements, PlacementToProto), Evictions: list(p.Evictions, EvictionToProto), Whys: list(p.Whys, WhyToProto),
	}
}

// PlanFromProto converts a plan.
func PlanFromProto(p *claryv1.Plan) cluster.Plan {
	return cluster.Plan{
		Placements: list(p.GetPlacements(), PlacementFromProto), Evictions: list(p.GetEvictions(), EvictionFromProto), Whys: list(p.GetWhys(), WhyFromProto),
	}
}

// WhyToProto converts the reason why a gang waits.
func WhyToProto(w cluster.Why) *claryv1.Why {
	return &claryv1.Why{
		Gang: w.Gang, Summary: w.Summary, Blocks: list(w.Blocks, BlockToProto),
		Queue: w.Queue, Place: w.Place, Of: w.Of, Expected: w.Expected,
	}
}

// WhyFromProto converts the reason why a gang waits.
func WhyFromProto(w *claryv1.Why) cluster.Why {
	return cluster.Why{
		Gang: w.GetGang(), Summary: w.GetSummary(), Blocks: list(w.GetBlocks(), BlockFromProto),
		Queue: w.GetQueue(), Place: w.GetPlace(), Of: w.GetOf(), Expected: w.GetExpected(),
	}
}

// BlockToProto converts one constraint of a why.
func BlockToProto(b cluster.Block) *claryv1.Block {
	return &claryv1.Block{
		Constraint: b.Constraint, Nodes: b.Nodes, Only: b.Only, Missing: b.Missing, Nearest: b.Nearest, Text: b.Text,
		Gangs: b.Gangs, Until: b.Until,
	}
}

// BlockFromProto converts one constraint of a why.
func BlockFromProto(b *claryv1.Block) cluster.Block {
	return cluster.Block{
		Constraint: b.GetConstraint(), Nodes: b.GetNodes(), Only: b.GetOnly(), Missing: b.GetMissing(),
		Nearest: b.GetNearest(), Text: b.GetText(), Gangs: b.GetGangs(), Until: b.GetUntil(),
	}
}
