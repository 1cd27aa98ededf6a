// Package planner finds places for waiting gangs: a loop on the leader around the pure
// scheduler. It keeps a compact view of the nodes and of what waits, follows the state's
// events, plans when something has changed, and commits the plan through the log, where
// it is checked again. While a plan is on its way the next changes gather.
//
// What it remembers is only ever a copy: a new leader reads it anew.
package planner

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler"
)

// Ledger is what the planner needs of the replicated state.
type Ledger interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Events() *state.Bus
}

const (
	// maxCommit is how many tasks one CommitPlan places, so that entries stay small.
	maxCommit = 2000
	// refusedPause is how long a gang waits after its placement was refused, unless the
	// gang changes before: what refuses it is about to reach the planner as an event.
	refusedPause = 500 * time.Millisecond
	// silencePause is the wait after a proposal that got no answer.
	silencePause = 250 * time.Millisecond
)

// Planner is the loop, and what it knows.
type Planner struct {
	ledger Ledger
	log    *slog.Logger

	mu     sync.RWMutex
	memory *memory // nil while the loop does not run
}

// New makes a planner. Until Run runs it knows nothing.
func New(ledger Ledger, log *slog.Logger) *Planner { return &Planner{ledger: ledger, log: log} }

// Run plans until ctx ends. It runs on the leader only, one at a time.
func (p *Planner) Run(ctx context.Context) error {
	events := p.ledger.Events().Subscribe(func(c state.Change) bool {
		return c.Kind == state.KindGang || c.Kind == state.KindTask || c.Kind == state.KindNode
	})
	defer events.Close()
	defer p.forget()
	if err := p.readAll(ctx); err != nil {
		return err
	}
	for {
		if err := p.plan(ctx); err != nil {
			return err
		}
		if err := p.wait(ctx, events); err != nil {
			return err
		}
	}
}

func (p *Planner) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory = nil
}

// readAll starts with what the state says now.
func (p *Planner) readAll(ctx context.Context) error {
	snapshot, err := p.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	fresh := newMemory()
	for node := range snapshot.Nodes() {
		fresh.putNode(node, snapshot.Used(node.ID))
	}
	for gang := range snapshot.Gangs() {
		fresh.putGang(gang, placed(snapshot, gang))
		fresh.putSpread(gang.ID(), spreadOf(snapshot, gang))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory = fresh
	return nil
}

// placed reports whether the gang's current attempt has tasks: it has all or none.
func placed(snapshot *state.Snapshot, gang cluster.Gang) bool {
	_, exists := snapshot.Task(gang.TaskID(gang.Roles[0].Name, 0))
	return exists
}

// spreadOf are the tasks of a gang's current attempt that hold something and that others are kept
// away from.
func spreadOf(snapshot *state.Snapshot, gang cluster.Gang) []spread {
	var found []spread
	for i, role := range gang.Roles {
		if role.Spread == "" {
			continue
		}
		for index := range gang.Tasks(i) {
			if task, exists := snapshot.Task(gang.TaskID(role.Name, index)); exists && !task.Status.State.Ended() {
				found = append(found, spread{gang.Job, role.Spread, task.Allocation.Node})
			}
		}
	}
	return found
}

// wait takes in the next changes, or returns when a backoff is over.
func (p *Planner) wait(ctx context.Context, events *state.Subscription) error {
	var alarm <-chan time.Time
	if at, any := p.memory.next(); any {
		timer := time.NewTimer(time.Duration(at - time.Now().UnixNano()))
		defer timer.Stop()
		alarm = timer.C
	}
	var seen changed
	var now chan struct{} // ready if there is something to plan already
	if p.memory.pending() {
		now = make(chan struct{})
		close(now)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-now:
	case <-alarm:
	case batch, open := <-events.C:
		if !open {
			return fault.New(fault.Unready, "the state is closed")
		}
		seen.take(batch)
	}
	for {
		select {
		case batch, open := <-events.C:
			if !open {
				return fault.New(fault.Unready, "the state is closed")
			}
			seen.take(batch)
			continue
		default:
		}
		break
	}
	if seen.lost {
		return p.readAll(ctx)
	}
	return p.refresh(ctx, seen)
}

// changed is what events told of.
type changed struct {
	gangs, nodes, tasks map[string]bool
	lost                bool
}

func (c *changed) take(batch state.Batch) {
	c.lost = c.lost || batch.Lost
	for _, change := range batch.Changes {
		switch change.Kind {
		case state.KindGang:
			add(&c.gangs, change.ID)
		case state.KindNode:
			add(&c.nodes, change.ID)
		case state.KindTask:
			add(&c.tasks, change.ID)
		}
	}
}

func add(set *map[string]bool, id string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	(*set)[id] = true
}

// refresh reads again what has changed.
func (p *Planner) refresh(ctx context.Context, c changed) error {
	if len(c.gangs)+len(c.nodes)+len(c.tasks) == 0 {
		return nil
	}
	snapshot, err := p.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for id := range c.tasks {
		task, exists := snapshot.Task(id)
		if !exists { // it had ended, and its end was told before
			continue
		}
		if state := task.Status.State; state == cluster.TaskAssigned || state.Ended() {
			add(&c.nodes, task.Allocation.Node)
			add(&c.gangs, task.Gang)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range c.nodes {
		if node, exists := snapshot.Node(id); exists {
			p.memory.putNode(node, snapshot.Used(id))
		} else {
			p.memory.view.Delete(id)
		}
	}
	for id := range c.gangs {
		if gang, exists := snapshot.Gang(id); exists {
			p.memory.putGang(gang, placed(snapshot, gang))
			p.memory.putSpread(id, spreadOf(snapshot, gang))
		} else {
			p.memory.drop(id)
			p.memory.putSpread(id, nil)
		}
	}
	return nil
}

// plan places what can be placed and commits it.
func (p *Planner) plan(ctx context.Context) error {
	now := time.Now().UnixNano()
	p.mu.Lock()
	asks := p.memory.candidates(now)
	p.mu.Unlock()
	if len(asks) == 0 {
		return nil
	}
	plan := scheduler.Schedule(p.memory.view, asks, now) // only this goroutine changes the view
	for from := 0; from < len(plan.Placements); {
		to, tasks := from, 0
		for to < len(plan.Placements) && (to == from || tasks+len(plan.Placements[to].Allocations) <= maxCommit) {
			tasks += len(plan.Placements[to].Allocations)
			to++
		}
		if err := p.commit(ctx, plan.Placements[from:to]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// commit proposes placements, and reads again all that they touch: what was accepted is
// placed, what was refused waits a moment.
func (p *Planner) commit(ctx context.Context, placements []cluster.Placement) error {
	results, err := p.ledger.Propose(ctx, command.CommitPlan{Placements: placements})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	seen := changed{}
	for _, placement := range placements {
		add(&seen.gangs, placement.Gang)
		for _, allocation := range placement.Allocations {
			add(&seen.nodes, allocation.Node)
		}
	}
	if err := p.refresh(ctx, seen); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if err != nil || len(results) != 1 {
		p.log.Info("a plan got no answer, will plan again", "gangs", len(placements), "error", err)
		for _, placement := range placements {
			p.memory.pause(placement.Gang, now.Add(silencePause).UnixNano())
		}
		p.memory.gained = true
		return nil
	}
	p.memory.view.Advance(cluster.Plan{Placements: placements})
	for _, refused := range results[0].Refused {
		p.log.Info("a placement was refused, will plan again", "gang", refused.ID, "reason", refused.Reason)
		p.memory.pause(refused.ID, now.Add(refusedPause).UnixNano())
		p.memory.gained = true // the room that was planned for it is free for others
	}
	return nil
}

// Why says for every waiting gang of a job what it waits for. Only the leader knows.
func (p *Planner) Why(_ context.Context, job string) ([]cluster.Why, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.memory == nil {
		return nil, fault.New(fault.Unready, "this coordinator does not plan: ask the leader")
	}
	var whys []cluster.Why
	for _, id := range p.memory.gangsOf(job) {
		whys = append(whys, scheduler.Explain(p.memory.view, p.memory.waiting[id].ask, time.Now().UnixNano()))
	}
	return whys, nil
}

// DryRun says where gangs would go if they were submitted now and nothing else waited,
// and why not. Only the leader knows.
func (p *Planner) DryRun(_ context.Context, gangs []cluster.Gang) (cluster.Plan, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.memory == nil {
		return cluster.Plan{}, fault.New(fault.Unready, "this coordinator does not plan: ask the leader")
	}
	now := time.Now().UnixNano()
	var asks []scheduler.Ask
	for _, gang := range gangs {
		asks = append(asks, scheduler.NewAsk(gang))
	}
	plan := scheduler.Schedule(p.memory.view, asks, now)
	for _, ask := range asks {
		if !slices.ContainsFunc(plan.Placements, func(placement cluster.Placement) bool { return placement.Gang == ask.ID }) {
			plan.Whys = append(plan.Whys, scheduler.Explain(p.memory.view, ask, now))
		}
	}
	return plan, nil
}

// jobOf is the job's part of a gang's ID.
func jobOf(gang string) string {
	job, _, _ := strings.Cut(gang, "/")
	return job
}
