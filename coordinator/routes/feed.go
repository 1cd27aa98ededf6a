// Package routes makes this coordinator's tables of routes from its own copy of the state, and gives them
// to whoever routes: the router inside this coordinator, and those of agents over a stream.
//
// Stale reads are right here: what a router needs is the newest that anybody near it knows, also while
// there is no leader. A table's version is the state's revision that it was made of, which means the same
// at every coordinator.
package routes

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/workload"
)

// gather is the least time from one table to the next: what happens in between is told together. The
// first change after a quiet time is told at once.
const gather = 20 * time.Millisecond

// Ledger is what a feed needs of the replicated state.
type Ledger interface {
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Events() *state.Bus
}

// Build makes one endpoint's routes of what belongs to its job, and of the nodes that its tasks are on.
type Build func(job cluster.Job, view workload.View, node func(id string) (cluster.Node, bool)) (route.Endpoint, error)

// Feed is the table as this coordinator knows it.
type Feed struct {
	ledger Ledger
	build  Build
	log    *slog.Logger

	mu      sync.Mutex
	known   map[string]bool // endpoints that there are, for the filter of events
	entries map[string]entry
	tokens  part
	version uint64
	table   route.Table
	changed chan struct{} // closed and replaced with each table
	ended   chan struct{} // closed when Run has ended
	recheck chan struct{} // asks for a table of the newest state
}

// part is a piece of the table, and since which version it is as it is.
type part struct {
	text  []byte // JSON
	since uint64
}

type entry struct {
	part
	endpoint route.Endpoint
	nodes    map[string]bool // that its tasks are on, those that cannot be reached too
	noun     uint64          // revision of the endpoint that it was made of
}

// New makes a feed; Run fills it.
func New(ledger Ledger, build Build, log *slog.Logger) *Feed {
	return &Feed{ledger: ledger, build: build, log: log, known: map[string]bool{}, entries: map[string]entry{}, changed: make(chan struct{}), ended: make(chan struct{}), recheck: make(chan struct{}, 1)}
}

// Table is the newest table, and a channel that is closed when there is a newer one. The table is not to
// be changed. Before the first one its version is 0.
func (f *Feed) Table() (route.Table, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.table, f.changed
}

// Ended is closed when the feed has: nothing new comes from it.
func (f *Feed) Ended() <-chan struct{} { return f.ended }

// Run keeps the table until ctx ends. It runs once.
func (f *Feed) Run(ctx context.Context) error {
	defer close(f.ended)
	events := f.ledger.Events().Subscribe(f.concerns)
	defer events.Close()
	todo := dirty{all: true}
	for {
		if err := f.refresh(ctx, todo); err != nil {
			return err
		}
		made := time.Now()
		var err error
		if todo, err = f.wait(ctx, events, nil); err != nil {
			return err
		}
		if rest := gather - time.Since(made); rest > 0 {
			timer := time.NewTimer(rest)
			more, err := f.wait(ctx, events, timer.C)
			for ; err == nil && !more.none(); more, err = f.wait(ctx, events, timer.C) {
				todo.add(more)
			}
			timer.Stop()
			if err != nil {
				return err
			}
		}
	}
}

// concerns reports whether a change may be one of a table.
func (f *Feed) concerns(change state.Change) bool {
	switch change.Kind {
	case state.KindEndpoint, state.KindToken, state.KindNode:
		return true
	case state.KindJob, state.KindGang, state.KindTask:
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.known[jobOf(change.ID)]
	}
	return false
}

// dirty is what may have changed.
type dirty struct {
	all       bool
	endpoints map[string]bool
	nodes     map[string]bool
	tokens    bool
}

func (d dirty) none() bool {
	return !d.all && !d.tokens && len(d.endpoints) == 0 && len(d.nodes) == 0
}

func (d *dirty) add(more dirty) {
	d.all, d.tokens = d.all || more.all, d.tokens || more.tokens
	for _, id := range slices.Collect(maps.Keys(more.endpoints)) {
		mark(&d.endpoints, id)
	}
	for _, id := range slices.Collect(maps.Keys(more.nodes)) {
		mark(&d.nodes, id)
	}
}

func mark(set *map[string]bool, id string) {
	if *set == nil {
		*set = map[string]bool{}
	}
	(*set)[id] = true
}

// wait returns what the next events tell of; nothing, if the alarm rings first.
func (f *Feed) wait(ctx context.Context, events *state.Subscription, alarm <-chan time.Time) (dirty, error) {
	var d dirty
	select {
	case <-ctx.Done():
		return d, ctx.Err()
	case <-alarm:
	case <-f.recheck:
		d.all = true
	case batch, open := <-events.C:
		if !open {
			return d, cmp.Or(ctx.Err(), fault.New(fault.Unready, "the state is closed"))
		}
		d.all = batch.Lost
		for _, change := range batch.Changes {
			switch change.Kind {
			case state.KindToken:
				d.tokens = true
			case state.KindNode:
				mark(&d.nodes, change.ID)
			default:
				mark(&d.endpoints, jobOf(change.ID))
			}
		}
	}
	return d, nil
}

func jobOf(id string) string {
	job, _, _ := strings.Cut(id, "/")
	return job
}

// refresh makes anew what may have changed.
func (f *Feed) refresh(ctx context.Context, d dirty) error {
	if d.all {
		d.tokens = true
		if err := f.list(ctx, &d); err != nil {
			return err
		}
	}
	for name, known := range f.entries { // which only this goroutine changes
		for node := range d.nodes {
			if known.nodes[node] {
				mark(&d.endpoints, name)
			}
		}
	}
	f.know(d.endpoints) // before they are read, so that no event after that is missed
	snapshot, err := f.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	made := map[string]*entry{}
	for name := range d.endpoints {
		made[name] = f.entry(snapshot, name)
	}
	var tokens []byte
	var users []route.Token
	if d.tokens {
		users = tokensOf(snapshot)
		if tokens, err = json.Marshal(users); err != nil {
			return err
		}
	}
	f.put(snapshot.Revision(), made, users, tokens, d.all)
	return nil
}

// list marks all endpoints that there are, or were.
func (f *Feed) list(ctx context.Context, d *dirty) error {
	snapshot, err := f.ledger.Read(ctx, true)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	for endpoint := range snapshot.Endpoints() {
		mark(&d.endpoints, endpoint.Job)
	}
	for name := range f.entries {
		mark(&d.endpoints, name)
	}
	return nil
}

// know lets events of endpoints through.
func (f *Feed) know(endpoints map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name := range endpoints {
		f.known[name] = true
	}
}

// entry makes an endpoint's part; nil if there is no such endpoint.
func (f *Feed) entry(snapshot *state.Snapshot, name string) *entry {
	endpoint, exists := snapshot.Endpoint(name)
	job, known := snapshot.Job(name)
	if !exists || !known || job.State.Ended() {
		return nil
	}
	view := workload.View{Gangs: slices.Collect(snapshot.GangsOf(name)), Tasks: slices.Collect(snapshot.TasksOf(name)), Endpoint: &endpoint}
	built, err := f.build(job, view, snapshot.Node)
	var text []byte
	if err == nil { // a router refuses a table whole: what is wrong with one is not to hold up the others
		err = route.Table{Endpoints: []route.Endpoint{built}}.Validate().Err()
	}
	if err == nil {
		text, err = json.Marshal(built)
	}
	if err != nil { // a defect: what was told before stays in force
		f.log.Error("an endpoint's routes cannot be made", "endpoint", name, "error", err)
		if old, there := f.entries[name]; there {
			return &old
		}
		return nil
	}
	nodes := map[string]bool{}
	for _, task := range view.Tasks {
		nodes[task.Allocation.Node] = true
	}
	return &entry{part: part{text: text}, endpoint: built, nodes: nodes, noun: endpoint.Revision}
}

// put takes in what was made, and tells if any of it is new. An endpoint that was changed is told of even
// if its routes are the same: by a table's version others know what routers have heard of.
func (f *Feed) put(version uint64, made map[string]*entry, users []route.Token, tokens []byte, all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	news := all && version > f.version
	for name, now := range made {
		old, there := f.entries[name]
		switch {
		case now == nil:
			delete(f.entries, name)
			delete(f.known, name)
			news = news || there
			continue
		case there && string(old.text) == string(now.text):
			now.since = old.since
			news = news || old.noun != now.noun
		default:
			now.since, news = version, true
		}
		f.entries[name], f.known[name] = *now, true
	}
	if tokens != nil && string(tokens) != string(f.tokens.text) {
		f.tokens, f.table.Tokens, news = part{tokens, version}, users, true
	}
	if !news {
		return
	}
	f.version = version
	table := route.Table{Version: version, Tokens: f.table.Tokens, Endpoints: make([]route.Endpoint, 0, len(f.entries))}
	for _, e := range f.entries {
		table.Endpoints = append(table.Endpoints, e.endpoint)
	}
	slices.SortFunc(table.Endpoints, func(a, b route.Endpoint) int { return cmp.Compare(a.Name, b.Name) })
	f.table = table
	close(f.changed)
	f.changed = make(chan struct{})
}

// tokensOf are the tokens of users. What their roles may do, routers say themselves, to whoever shows one.
func tokensOf(snapshot *state.Snapshot) []route.Token {
	tokens := []route.Token{}
	for token := range snapshot.Tokens() {
		if token.Kind == cluster.TokenUser && !token.Revoked {
			tokens = append(tokens, route.Token{ID: token.ID, Hash: token.Hash, Name: token.Name, Role: token.Role, Expires: token.Expires})
		}
	}
	return tokens
}
