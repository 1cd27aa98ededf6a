package rpc

import (
	"cmp"
	"context"
	"strings"
	"sync"

	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// Switchboard hears once, for all agents that are connected to this coordinator, what changes of
// tasks and gangs, and passes on to each what concerns its node. Were each agent's stream to
// hear of everything, a thousand nodes would look at every task a thousand times.
//
// It knows which nodes a gang's tasks are on that have not ended: memory goes with what runs.
type Switchboard struct {
	replica Replica

	mu     sync.Mutex
	lines  map[string]map[*line]bool    // by node; more than one while an agent connects anew
	gangs  map[string]map[string]string // by gang: its tasks that have not ended, and their nodes
	closed bool
}

// line is one agent's stream.
type line struct {
	board *Switchboard
	node  string
	rung  chan struct{} // there is something to take, or the board is closed

	// Under the board's mu:
	changes []state.Change
	lost    bool // of the changes some are missing
}

// maxPending is how many changes wait for a stream that is slow before it has to read anew.
const maxPending = 4096

// NewSwitchboard makes a switchboard; Run has it hear.
func NewSwitchboard(replica Replica) *Switchboard {
	return &Switchboard{replica: replica, lines: map[string]map[*line]bool{}, gangs: map[string]map[string]string{}}
}

// Run passes changes on until ctx ends. Then every line ends.
func (b *Switchboard) Run(ctx context.Context) error {
	events := b.replica.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindTask || c.Kind == state.KindGang })
	defer events.Close()
	defer b.close()
	if err := b.read(ctx); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case batch, open := <-events.C:
			switch {
			case !open:
				return cmp.Or(ctx.Err(), fault.New(fault.Unready, "the state is closed"))
			case !batch.Lost:
				b.pass(batch.Changes)
			default:
				if err := b.read(ctx); err != nil {
					return err
				}
			}
		}
	}
}

// read learns anew where tasks are. What was missed until then nobody was told.
func (b *Switchboard) read(ctx context.Context) error {
	snapshot, err := b.replica.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.gangs)
	for node := range snapshot.Nodes() {
		for task := range snapshot.TasksOn(node.ID) {
			b.place(task.ID, node.ID)
		}
	}
	for _, lines := range b.lines {
		for l := range lines {
			l.changes, l.lost = nil, true
			l.ring()
		}
	}
	return nil
}

func (b *Switchboard) place(task, node string) {
	gang := gangOf(task)
	if b.gangs[gang] == nil {
		b.gangs[gang] = map[string]string{}
	}
	b.gangs[gang][task] = node
}

// pass hands each change of a task to its node, and the first of each gang's tasks, as well as
// every change of the gang itself, to all nodes that have one of the gang's tasks.
func (b *Switchboard) pass(changes []state.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	told := map[string]bool{} // gangs whose other nodes know that a task has changed
	for _, change := range changes {
		if change.Kind == state.KindGang {
			b.tell(change.ID, change, "")
			continue
		}
		gang := gangOf(change.ID)
		if change.Ended || change.Deleted {
			if delete(b.gangs[gang], change.ID); len(b.gangs[gang]) == 0 {
				delete(b.gangs, gang)
			}
		} else {
			b.place(change.ID, change.Node)
		}
		b.give(change.Node, change)
		if !told[gang] {
			told[gang] = true
			b.tell(gang, change, change.Node)
		}
	}
}

// tell gives a change to all nodes of a gang but one.
func (b *Switchboard) tell(gang string, change state.Change, but string) {
	tasks := b.gangs[gang]
	if len(tasks) == 1 {
		for _, node := range tasks {
			if node != but {
				b.give(node, change)
			}
		}
		return
	}
	given := map[string]bool{but: true}
	for _, node := range tasks { // in any order: each is told the same
		if !given[node] {
			given[node] = true
			b.give(node, change)
		}
	}
}

func (b *Switchboard) give(node string, change state.Change) {
	for l := range b.lines[node] {
		switch {
		case l.lost:
		case len(l.changes) == maxPending:
			l.changes, l.lost = nil, true
		default:
			l.changes = append(l.changes, change)
		}
		l.ring()
	}
}

func (b *Switchboard) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, lines := range b.lines {
		for l := range lines {
			l.ring()
		}
	}
}

// connect opens a node's line. Whoever reads the state after it misses nothing.
func (b *Switchboard) connect(node string) *line {
	l := &line{board: b, node: node, rung: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lines[node] == nil {
		b.lines[node] = map[*line]bool{}
	}
	b.lines[node][l] = true
	if b.closed {
		l.ring()
	}
	return l
}

func (l *line) close() {
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	if delete(l.board.lines[l.node], l); len(l.board.lines[l.node]) == 0 {
		delete(l.board.lines, l.node)
	}
}

// take returns what has come since it was called last; lost says that some of it is missing.
func (l *line) take() (changes []state.Change, lost, open bool) {
	l.board.mu.Lock()
	defer l.board.mu.Unlock()
	changes, lost = l.changes, l.lost
	l.changes, l.lost = nil, false
	return changes, lost, !l.board.closed
}

func (l *line) ring() {
	select {
	case l.rung <- struct{}{}:
	default:
	}
}

// gangOf is the gang's part of a task's ID.
func gangOf(task string) string {
	if at := strings.LastIndexByte(task, '/'); at >= 0 {
		return task[:at]
	}
	return ""
}
