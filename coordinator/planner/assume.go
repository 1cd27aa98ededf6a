package planner

import (
	"context"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
)

// commits are the parts of plans on their way. The Cluster counts what it has decided as done, so the next plan is
// made while they are: on an optimistic view, which the answer settles or takes back. Only placements go ahead of their
// answer: a plan that has others make room is committed alone.
type commits struct {
	answers chan answer
	flying  int // have no answer yet
	assumed map[string]cluster.Placement
	byNode  map[string]map[string]bool // gangs that are assumed to be on a node
}

// ahead is how many commits are on their way at once: while one is synced to disk the next fills.
const ahead = 2

type answer struct {
	plan    cluster.Plan
	results []command.Result
	err     error
}

func newCommits() *commits {
	return &commits{answers: make(chan answer, ahead), assumed: map[string]cluster.Placement{}, byNode: map[string]map[string]bool{}}
}

// assume counts placements as made, from when they are planned until they are answered.
func (c *commits) assume(placements []cluster.Placement) {
	for _, p := range placements {
		c.assumed[p.Gang] = p
		for _, a := range p.Allocations {
			if c.byNode[a.Node] == nil {
				c.byNode[a.Node] = map[string]bool{}
			}
			c.byNode[a.Node][p.Gang] = true
		}
	}
}

// propose sends a part of a plan on its way.
func (c *commits) propose(ctx context.Context, ledger Ledger, plan cluster.Plan) {
	c.flying++
	go func() {
		results, err := ledger.Propose(ctx, command.CommitPlan{Placements: plan.Placements, Evictions: plan.Evictions})
		c.answers <- answer{plan, results, err}
	}()
}

// settle takes an answer in: what it tells of is in the ledger or not, and no longer assumed.
func (c *commits) settle(a answer) {
	c.flying--
	for _, p := range a.plan.Placements {
		delete(c.assumed, p.Gang)
		for _, allocation := range p.Allocations {
			if delete(c.byNode[allocation.Node], p.Gang); len(c.byNode[allocation.Node]) == 0 {
				delete(c.byNode, allocation.Node)
			}
		}
	}
}

// used is what is used of a node: what a snapshot says, and what is assumed to be there and is not in it yet.
func (c *commits) used(snapshot *state.Snapshot, node string) cluster.Resources {
	used := snapshot.Used(node)
	for id := range c.byNode[node] { // in any order: sums and sets
		p := c.assumed[id]
		if inLedger(snapshot, p) {
			continue
		}
		for _, a := range p.Allocations {
			if a.Node == node {
				used.MilliCPU += a.Resources.MilliCPU
				used.Memory += a.Resources.Memory
				used.Devices = slices.Concat(used.Devices, a.Resources.Devices)
				used.Ports = slices.Concat(used.Ports, a.Resources.Ports)
				used.Shares, _ = cluster.AddShares(used.Shares, a.Resources.Shares) // a slot that is in use, the ledger will refuse
			}
		}
	}
	slices.Sort(used.Devices)
	slices.Sort(used.Ports)
	return used
}

// awaited reports whether a gang is assumed to be placed and the snapshot does not show it: what the snapshot says of
// it counts for nothing until the answer.
func (c *commits) awaited(snapshot *state.Snapshot, gang string) bool {
	p, assumed := c.assumed[gang]
	return assumed && !inLedger(snapshot, p)
}

// inLedger reports whether the snapshot has the tasks of a placement.
func inLedger(snapshot *state.Snapshot, p cluster.Placement) bool {
	for task := range snapshot.TasksOfGang(p.Gang) {
		if task.Attempt == p.Attempt {
			return true
		}
	}
	return false
}
