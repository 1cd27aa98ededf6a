package scheduler

import (
	"fmt"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/room"
)

// survey counts what rules the nodes out for one more task of a role.
type survey struct {
	room   *room.Map
	need   *room.Need
	placed int    // tasks of the role that found room
	word   string // what an amount of a node is: free, or in all
	counts []count
}

// count is what one constraint does to the nodes.
type count struct {
	nodes   int32
	only    int32 // of them, nodes that nothing else rules out
	none    int32 // of them, nodes that have nothing of the kind at all
	missing int64
	nearest room.Offer // the node that misses the least; of equals the one that nothing else rules out, then the first
	alone   bool       // nothing else rules the nearest out
	barren  bool       // the nearest has nothing of the kind at all
}

func (c *count) add(o *room.Offer, missing int64, none, alone bool) {
	nearer := missing < c.missing || missing == c.missing && alone && !c.alone
	if c.nodes == 0 || none == c.barren && nearer || !none && c.barren { // who has something of the kind is nearer
		c.missing, c.nearest, c.alone, c.barren = missing, *o, alone, none
	}
	c.nodes++
	c.only += int32(one(alone))
	c.none += int32(one(none))
}

func (s *survey) why(why cluster.Why) cluster.Why {
	s.counts = make([]count, len(constraints))
	for o := range s.room.Offers(s.need) {
		s.look(o)
	}
	var texts []string
	if s.placed > 0 {
		text := fmt.Sprintf("there is room for %d of the %d together", s.placed, s.need.Count)
		why.Blocks = append(why.Blocks, cluster.Block{
			Constraint: "gang", Nodes: int32(s.room.Len()), Missing: int64(s.need.Count - s.placed), Text: text,
		})
		texts = append(texts, text)
	}
	for i, constraint := range constraints {
		c := &s.counts[i]
		if c.nodes == 0 {
			continue
		}
		block := cluster.Block{Constraint: constraint.name, Nodes: c.nodes, Only: c.only, Missing: c.missing, Text: constraint.says(s, c)}
		if !constraint.final {
			block.Nearest = c.nearest.ID
		}
		why.Blocks = append(why.Blocks, block)
		texts = append(texts, block.Text)
	}
	why.Summary = s.needs() + ": " + strings.Join(texts, "; ")
	return why
}

// look counts what rules out one node.
func (s *survey) look(o *room.Offer) {
	type ruled struct {
		by      int
		missing int64
		none    bool
	}
	var found [16]ruled // a slice of it, so that a node costs no memory
	out := found[:0]
	for i, constraint := range constraints {
		missing, none := constraint.short(o, s.need)
		if missing <= 0 {
			continue
		}
		if out = append(out, ruled{i, missing, none}); constraint.final {
			break
		}
	}
	for _, r := range out {
		s.counts[r.by].add(o, r.missing, r.none, len(out) == 1)
	}
}

// needs reads like "worker needs 8 cores, 32 GiB, 4 GPUs (A100) on one node".
func (s *survey) needs() string {
	if s.need.Count == 1 {
		return fmt.Sprintf("%s needs %s on one node", s.need.Name, s.need.Ask)
	}
	return fmt.Sprintf("each of %d %ss needs %s on one node", s.need.Count, s.need.Name, s.need.Ask)
}

// of reads like "3 of 5 nodes have"; those that are not ready were told of before.
func (s *survey) of(n int32, verb string) string {
	return ofNodes(int(n), s.room.Len(), int(s.counts[0].nodes), verb)
}

// ofNodes reads like "3 of 5 nodes have" or "the only node has"; verb is "has|have".
// Those that are gone were told of before.
func ofNodes(n, all, gone int, verb string) string {
	one, many, _ := strings.Cut(verb, "|")
	switch {
	case all == 1:
		return "the only node " + one
	case n == all:
		return fmt.Sprintf("all %d nodes %s", all, many)
	case gone > 0 && n == all-gone && n > 1:
		return fmt.Sprintf("all other %d nodes %s", n, many)
	case n == 1:
		return fmt.Sprintf("1 of %d nodes %s", all, one)
	}
	return fmt.Sprintf("%d of %d nodes %s", n, all, many)
}
