// Package planner finds places for waiting gangs: a loop on the leader around the pure
// scheduler. It keeps a compact view of the nodes and of what waits, follows the state's
// events, plans when something has changed, and commits the plan through the log, where
// it is checked again. While a plan is on its way the next changes gather.
//
// What it remembers is only ever a copy: a new leader reads it anew.
package planner

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/share"
)

// Ledger is what the planner needs of the replicated state.
type Ledger interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Events() *state.Bus
}

const (
	// maxCommit is how many tasks one CommitPlan places, so that entries stay small.
	maxCommit = 1000
	// refusedPause is how long a gang waits after its placement was refused, unless the
	// gang changes before: what refuses it is about to reach the planner as an event.
	refusedPause = 500 * time.Millisecond
	// silencePause is the wait after a proposal that got no answer.
	silencePause = 250 * time.Millisecond
	// beginEvery is how often, at most, everything is read again so that the record has a new segment.
	beginEvery = 30 * time.Second
)

// Planner is the loop, and what it knows.
type Planner struct {
	ledger Ledger
	record Recorder
	log    *slog.Logger
	// Now is the time that decisions go by; New has the wall clock's.
	Now func() time.Time

	commits *commits // Run's own
	mu      sync.RWMutex
	memory  *memory // nil while the loop does not run
	looks   looks
	counts  Counts // but for Waiting
}

// Counts are what a planner has done since its process began, on each occasion that it ran.
type Counts struct {
	Plans     int64
	Decisions int64         // placements and evictions
	Took      time.Duration // to make the plans
	Waiting   int           // gangs, now; 0 where it does not run
}

// Counts returns what was done so far.
func (p *Planner) Counts() Counts {
	p.mu.RLock()
	defer p.mu.RUnlock()
	counts := p.counts
	if p.memory != nil {
		counts.Waiting = len(p.memory.waiting)
	}
	return counts
}

// New makes a planner. Until Run runs it knows nothing.
func New(ledger Ledger, log *slog.Logger) *Planner {
	return &Planner{ledger: ledger, record: noRecord{}, log: log, Now: time.Now}
}

// Record has all that the scheduler is told and decides recorded, from the next Run on.
func (p *Planner) Record(record Recorder) { p.record = record }

// Run plans until ctx ends. It runs on the leader only, one at a time.
func (p *Planner) Run(ctx context.Context) error {
	events := p.ledger.Events().Subscribe(func(c state.Change) bool {
		switch c.Kind {
		case state.KindGang, state.KindTask, state.KindNode, state.KindQueue, state.KindJob:
			return true
		}
		return false
	})
	defer events.Close()
	defer p.forget()
	p.commits = newCommits()
	if err := p.readAll(ctx); err != nil {
		return err
	}
	defer func() { // what is on its way is waited for
		for p.commits.flying > 0 {
			p.commits.settle(<-p.commits.answers)
		}
	}()
	for {
		if err := p.plan(ctx); err != nil {
			return err
		}
		if err := p.wait(ctx, events); err != nil {
			return err
		}
	}
}

// drain takes in the answers to all that is on its way.
func (p *Planner) drain(ctx context.Context) error {
	for p.commits.flying > 0 {
		if err := p.settle(ctx, <-p.commits.answers); err != nil {
			return err
		}
	}
	return nil
}

func (p *Planner) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory = nil
}

// readAll starts with what the state says now. What was known beside that goes on, if anything was.
func (p *Planner) readAll(ctx context.Context) error {
	snapshot, err := p.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	fresh := newMemory(p.record)
	fresh.before = p.memory
	if err := fresh.cluster.SetQueues(slices.Collect(snapshot.Queues())); err != nil {
		return err
	}
	for node := range snapshot.Nodes() {
		fresh.cluster.SetNode(node, snapshot.Used(node.ID))
	}
	notes := p.handOver(fresh, snapshot)
	var ended []cluster.Job // those that ended last tell most
	for job := range snapshot.Jobs("") {
		if job.State.Ended() && !fresh.knows(job.Name) {
			job.Spec = nil
			ended = append(ended, job)
		}
	}
	slices.SortFunc(ended, func(a, b cluster.Job) int { return cmp.Or(cmp.Compare(a.Ended, b.Ended), cmp.Compare(a.Name, b.Name)) })
	for _, job := range ended {
		fresh.putJob(snapshot, job)
	}
	for gang := range snapshot.Gangs() {
		fresh.putGang(snapshot, gang)
	}
	for queue := range snapshot.Queues() {
		usage := snapshot.QueueUsage(queue.Name)
		fresh.cluster.Remember(queue.Name, share.History{Mean: usage.Mean, At: usage.At})
	}
	if notes != nil {
		fresh.cluster.Note(*notes)
	}
	fresh.cluster.Recover()
	fresh.before = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	p.memory = fresh
	return nil
}

// handOver gives a memory what the one before has learned, and returns what that kept in mind, for when it knows
// all gangs; nil if there was none.
func (p *Planner) handOver(to *memory, snapshot *state.Snapshot) *scheduler.Notes {
	if to.before == nil {
		return nil
	}
	stays := func(gang string) bool {
		_, exists := snapshot.Gang(gang)
		return exists
	}
	ready := func(id string) bool {
		node, exists := snapshot.Node(id)
		return exists && node.State == cluster.NodeReady
	}
	p.mu.Lock() // others look at it still
	learned, notes := to.before.cluster.Learned(stays), to.before.cluster.Notes(stays, ready)
	p.mu.Unlock()
	to.cluster.Learn(learned)
	to.book = to.before.book
	return &notes
}

// placed reports whether the gang's current attempt has tasks: it has all or none.
func placed(snapshot *state.Snapshot, gang cluster.Gang) bool {
	_, exists := snapshot.Task(gang.TaskID(gang.Roles[0].Name, 0))
	return exists
}

// wait takes in the next changes, or returns when a backoff is over.
func (p *Planner) wait(ctx context.Context, events *state.Subscription) error {
	var alarm <-chan time.Time
	if at, any := p.memory.cluster.Next(); any && p.commits.flying < ahead { // else an answer comes first
		timer := time.NewTimer(time.Duration(at - p.Now().UnixNano()))
		defer timer.Stop()
		alarm = timer.C
	}
	var seen changed
	var now chan struct{} // ready if there is something to plan already
	if p.memory.cluster.Pending() && p.commits.flying < ahead {
		now = make(chan struct{})
		close(now)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case a := <-p.commits.answers:
		return p.settle(ctx, a)
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
	if seen.lost || p.record.Wants() && time.Since(p.memory.cluster.began) >= beginEvery {
		if err := p.drain(ctx); err != nil {
			return err
		}
		return p.readAll(ctx)
	}
	return p.refresh(ctx, seen)
}

// changed is what events told of.
type changed struct {
	gangs, nodes, tasks, jobs map[string]bool
	queues, lost              bool
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
		case state.KindJob:
			add(&c.jobs, change.ID)
		case state.KindQueue:
			c.queues = true
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
	if len(c.gangs)+len(c.nodes)+len(c.tasks)+len(c.jobs) == 0 && !c.queues {
		return nil
	}
	snapshot, err := p.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.memory
	if c.queues {
		if err := m.cluster.SetQueues(slices.Collect(snapshot.Queues())); err != nil {
			p.log.Error("the queues cannot be used as they are", "error", err)
		}
	}
	m.takeTasks(snapshot, &c)
	for id := range c.nodes {
		if node, exists := snapshot.Node(id); exists {
			m.cluster.SetNode(node, p.commits.used(snapshot, id))
		} else {
			m.cluster.DeleteNode(id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.gangs)) {
		if p.commits.awaited(snapshot, id) {
			continue // its answer has it read
		}
		if gang, exists := snapshot.Gang(id); exists {
			m.putGang(snapshot, gang)
		} else {
			m.drop(id)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.jobs)) {
		if job, exists := snapshot.Job(name); exists {
			m.putJob(snapshot, job)
		} else {
			delete(m.counted, name)
		}
	}
	return nil
}

// takeTasks takes in tasks that changed. Nodes whose room changed with them, and gangs that have to be
// read, are added to what changed.
func (m *memory) takeTasks(snapshot *state.Snapshot, c *changed) {
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		task, exists := snapshot.Task(id)
		if !exists { // it had ended, and its end was told before
			continue
		}
		if at := task.Status.State; at == cluster.TaskAssigned || at.Ended() {
			add(&c.nodes, task.Allocation.Node)
		}
		if !m.putTask(task) && !task.Status.State.Ended() {
			add(&c.gangs, task.Gang)
		}
	}
}

// plan decides, and has what was decided committed, unless enough is on its way.
func (p *Planner) plan(ctx context.Context) error {
	if p.commits.flying >= ahead {
		return nil
	}
	now := p.Now().UnixNano()
	p.mu.Lock()
	begun := time.Now()
	plan := p.memory.cluster.Plan(now)
	p.counts.Plans++
	p.counts.Decisions += int64(len(plan.Placements) + len(plan.Evictions))
	p.counts.Took += time.Since(begun)
	p.mu.Unlock()
	p.commits.assume(plan.Placements)
	alone := len(plan.Evictions) > 0
	if alone { // who makes room is read anew at once, and nobody plans before
		if err := p.drain(ctx); err != nil {
			return err
		}
	}
	for from := 0; from < len(plan.Placements) || len(plan.Evictions) > 0; {
		to, tasks := from, 0
		for to < len(plan.Placements) && (to == from || tasks+len(plan.Placements[to].Allocations) <= maxCommit) {
			tasks += len(plan.Placements[to].Allocations)
			to++
		}
		if p.commits.flying >= ahead {
			if err := p.settle(ctx, <-p.commits.answers); err != nil {
				return err
			}
		}
		// Evictions go with the first: who makes room has been found after who has some.
		p.commits.propose(ctx, p.ledger, cluster.Plan{Placements: plan.Placements[from:to], Evictions: plan.Evictions})
		from, plan.Evictions = to, nil
	}
	if alone {
		return p.drain(ctx)
	}
	return nil
}

// settle takes in the answer to a part of a plan, and reads again all that it touches: what was accepted is placed or
// ends, what was refused waits a moment.
func (p *Planner) settle(ctx context.Context, a answer) error {
	p.commits.settle(a)
	plan, results, err := a.plan, a.results, a.err
	if ctx.Err() != nil {
		return ctx.Err()
	}
	seen := changed{}
	for _, placement := range plan.Placements {
		add(&seen.gangs, placement.Gang)
		for _, allocation := range placement.Allocations {
			add(&seen.nodes, allocation.Node)
		}
	}
	for _, eviction := range plan.Evictions {
		add(&seen.gangs, eviction.Gang)
	}
	if err := p.refresh(ctx, seen); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.Now()
	if err != nil || len(results) != 1 {
		p.log.Info("a plan got no answer, will plan again", "placements", len(plan.Placements), "evictions", len(plan.Evictions), "error", err)
		for _, placement := range plan.Placements {
			p.memory.cluster.Pause(placement.Gang, now.Add(silencePause).UnixNano())
		}
		for _, eviction := range plan.Evictions {
			p.memory.cluster.Pause(eviction.For, now.Add(silencePause).UnixNano())
		}
		return nil
	}
	p.memory.cluster.advance(plan)
	beneficiaries := map[string]string{}
	for _, eviction := range plan.Evictions {
		beneficiaries[eviction.Gang] = eviction.For
		p.log.Info("a gang is told to make room", "gang", eviction.Gang, "for", eviction.For, "reason", eviction.Reason)
	}
	for _, refused := range results[0].Refused {
		p.log.Info("a part of a plan was refused, will plan again", "gang", refused.ID, "reason", refused.Reason)
		p.memory.cluster.Pause(cmp.Or(beneficiaries[refused.ID], refused.ID), now.Add(refusedPause).UnixNano())
	}
	return nil
}
