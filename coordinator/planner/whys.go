package planner

import (
	"context"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler"
)

// Whys says of gangs that may be placed why they wait, queue by queue in the order in which they go, and how
// many there are. Only the leader knows.
func (p *Planner) Whys(_ context.Context, queue string, limit int) (whys []cluster.Why, waiting int, err error) {
	p.mu.RLock()
	if p.memory == nil {
		p.mu.RUnlock()
		return nil, 0, fault.New(fault.Unready, "this coordinator does not plan: ask the leader")
	}
	view := p.memory.cluster.Room.Clone()
	places := map[string]int32{}
	var asks []scheduler.Ask
	for ask := range p.memory.cluster.Queued() {
		name := ask.Queue
		places[name]++
		if queue != "" && queue != name {
			continue
		}
		if waiting++; len(asks) < limit {
			asks = append(asks, ask)
			whys = append(whys, cluster.Why{Gang: ask.ID, Queue: name, Place: places[name]})
		}
	}
	p.mu.RUnlock()
	now := time.Now().UnixNano()
	known := map[string]string{} // by what is needed: what is told of one holds for its like
	for i, ask := range asks {
		summary, told := known[ask.Shape.Key]
		if !told {
			summary = scheduler.Explain(view, ask, now).Summary
			known[ask.Shape.Key] = summary
		}
		whys[i].Summary, whys[i].Of = summary, places[whys[i].Queue]
	}
	return whys, waiting, nil
}
