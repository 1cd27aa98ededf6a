package planner

import (
	"context"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler"
)

// lookFor is for how many times as long as it took to make it a copy of the room is shared by those who ask. So they
// hold up whoever plans for a twentieth of the time at most, however many ask.
const lookFor = 20

// looks is the last look that copied the room.
type looks struct {
	mu   sync.Mutex
	last *scheduler.Look
	at   time.Time
	took time.Duration
	from *memory
}

// look has the Cluster looked at, without holding up whoever plans for longer than that takes.
func (p *Planner) look(at func(m *memory, now int64, earlier *scheduler.Look) *scheduler.Look) (*scheduler.Look, error) {
	p.looks.mu.Lock()
	defer p.looks.mu.Unlock()
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.memory == nil {
		p.looks.last = nil
		return nil, errElsewhere()
	}
	now := time.Now()
	if p.looks.from != p.memory || now.Sub(p.looks.at) >= lookFor*p.looks.took {
		p.looks.last = nil
	}
	look := at(p.memory, p.Now().UnixNano(), p.looks.last)
	if p.looks.last == nil {
		p.looks.last, p.looks.at, p.looks.took, p.looks.from = look, now, time.Since(now), p.memory
	}
	return look, nil
}

func errElsewhere() error {
	return fault.New(fault.Unready, "this coordinator does not plan: ask the leader")
}

// Why says for every waiting gang of a job what it waits for. Only the leader knows.
func (p *Planner) Why(_ context.Context, job string) ([]cluster.Why, error) {
	look, err := p.look(func(m *memory, now int64, earlier *scheduler.Look) *scheduler.Look {
		return m.cluster.LookAt(m.byJob[job], now, earlier)
	})
	if err != nil {
		return nil, err
	}
	return look.Whys(), nil
}

// Whys says of gangs that may be placed why they wait, in the order in which they go, and how many there
// are. Only the leader knows.
func (p *Planner) Whys(_ context.Context, queue string, limit int) (whys []cluster.Why, waiting int, err error) {
	look, err := p.look(func(m *memory, now int64, earlier *scheduler.Look) *scheduler.Look {
		return m.cluster.LookOver(queue, limit, now, earlier)
	})
	if err != nil {
		return nil, 0, err
	}
	return look.Whys(), look.Waiting, nil
}

// DryRun says where gangs would go if they were submitted now and nothing else waited,
// and why not: elastic ones with as many tasks as they may have, or with as many as they must. Only the
// leader knows.
func (p *Planner) DryRun(_ context.Context, gangs []cluster.Gang) (cluster.Plan, error) {
	p.mu.RLock()
	if p.memory == nil {
		p.mu.RUnlock()
		return cluster.Plan{}, errElsewhere()
	}
	room := p.memory.cluster.Room.Clone()
	p.mu.RUnlock()
	now := p.Now().UnixNano()
	var plan cluster.Plan
	for _, gang := range gangs {
		ask := scheduler.NewAsk(gang)
		size := ask.Needs().Most()
		allocations, _ := room.Take(ask.ShapeIn(room, size.Shape))
		if allocations == nil && ask.Needs().Elastic() {
			size = ask.Needs().Least()
			allocations, _ = room.Take(ask.ShapeIn(room, size.Shape))
		}
		if allocations == nil || ask.Waits(now) {
			plan.Whys = append(plan.Whys, scheduler.Explain(room, ask, now))
			continue
		}
		room.Settle()
		plan.Placements = append(plan.Placements, cluster.Placement{
			Gang: ask.ID, Attempt: ask.Attempt, Revision: ask.Revision, Allocations: allocations, Counts: size.Counts,
		})
	}
	return plan, nil
}
