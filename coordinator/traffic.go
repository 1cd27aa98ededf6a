package coordinator

import (
	"cmp"
	"slices"
	"time"

	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/coordinator/steward"
	"github.com/clary-ml/clary/internal/gossip"
	"github.com/clary-ml/clary/serving/route"
)

// shownWindow is over how long people see what passes through routers.
const shownWindow = 10 * time.Second

// Routers implements rpc.Traffic: the routers that gossip shows, this coordinator's own first and those of
// agents last.
func (n *coordinator) Routers() []rpc.Router {
	var all []rpc.Router
	for _, member := range n.gossip.Members() {
		if member.Serve != "" {
			all = append(all, rpc.Router{ID: member.ID, URL: member.Serve, Ingress: member.Role == gossip.Agent})
		}
	}
	rank := func(r rpc.Router) int {
		switch {
		case r.Ingress:
			return 2
		case r.ID == n.config.ID:
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b rpc.Router) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a.ID, b.ID)) })
	return all
}

// Seen implements rpc.Traffic.
func (n *coordinator) Seen(endpoint string) rpc.Seen {
	heard := n.steward.Seen(endpoint)
	seen := rpc.Seen{Known: heard.Known, Replicas: map[string]rpc.ReplicaSeen{}}
	for _, fleet := range heard.Fleets() {
		seen.Fleets = append(seen.Fleets, fleetSeen(fleet))
		for task, replica := range fleet.Replicas {
			seen.Replicas[task] = rpc.ReplicaSeen{InFlight: replica.InFlight, Ejected: replica.Ejected, Why: replica.Why}
		}
	}
	return seen
}

func fleetSeen(fleet steward.Fleet) rpc.FleetSeen {
	w := fleet.Window(shownWindow)
	seen := rpc.FleetSeen{
		Variant: fleet.Variant, Generation: fleet.Generation, Window: w.Span, Requests: w.Rate(), Errors: w.ErrorRate(), Refused: w.RefusedRate(),
		Concurrency: w.Concurrency(), InFlight: fleet.InFlight, Waiting: fleet.Waiting, P50: w.Latency.Quantile(0.5), P99: w.Latency.Quantile(0.99),
		Total: fleet.Total, TotalErrors: fleet.TotalErrors,
	}
	all := fleet.Window(keptRewards).Rewards
	if seen.Rewards = all.N; all.N > 0 {
		seen.Reward = all.Sum / float64(all.N)
	}
	if w.Shadow.Requests > 0 && w.Span > 0 {
		seen.Shadow = shadowSeen(fleet, w.Shadow, w.Span)
	}
	return seen
}

// keptRewards is over how long rewards are shown: they come late and seldom.
const keptRewards = 30 * time.Minute

func shadowSeen(fleet steward.Fleet, s route.ShadowReport, span time.Duration) *rpc.FleetSeen {
	return &rpc.FleetSeen{
		Variant: fleet.Variant, Generation: fleet.Generation, Window: span, Requests: float64(s.Requests) / span.Seconds(), Errors: float64(s.Errors) / span.Seconds(),
		P50: s.Latency.Quantile(0.5), P99: s.Latency.Quantile(0.99),
	}
}
