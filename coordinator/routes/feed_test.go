package routes_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/routes"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/workload"
)

// bench is a feed over a real state, inside a bubble.
type bench struct {
	*testing.T
	ledger *solo.Ledger
	feed   *routes.Feed
	built  int
	behind *behind
}

// behind is a ledger whose consistent reads a test answers.
type behind struct {
	*solo.Ledger
	leads bool
}

func (l *behind) Read(ctx context.Context, stale bool) (*state.Snapshot, error) {
	if !stale && !l.leads {
		return nil, fault.New(fault.Unready, "no leader")
	}
	return l.Ledger.Read(ctx, stale)
}

func inBubble(t *testing.T, test func(*bench)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		b := &bench{T: t, ledger: ledger, behind: &behind{ledger, true}}
		b.feed = routes.New(b.behind, b.build, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- b.feed.Run(ctx) }()
		synctest.Wait()
		test(b)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		<-b.feed.Ended()
	})
}

// nowhere is what a node says that cannot be reached yet.
const nowhere = "0.0.0.0"

// build tells of every running task of an endpoint that can be reached.
func (b *bench) build(job cluster.Job, view workload.View, node func(string) (cluster.Node, bool)) (route.Endpoint, error) {
	b.built++
	if job.Labels["broken"] == "yes" {
		return route.Endpoint{}, errors.New("a defect")
	}
	e := route.Endpoint{Name: job.Name}
	fleet := route.Fleet{Variant: "main", Weight: 1}
	if job.Labels["broken"] == "weights" { // which a router would refuse
		fleet.Weight = -1
	}
	for _, task := range view.Tasks {
		if at, known := node(task.Allocation.Node); known && at.Address != nowhere && task.Status.Healthy != 0 {
			fleet.Replicas = append(fleet.Replicas, route.Replica{ID: task.ID, Node: at.ID, Address: at.Address + ":80"})
		}
	}
	e.Fleets = append(e.Fleets, fleet)
	return e, nil
}

func (b *bench) propose(changes ...command.Change) {
	b.Helper()
	b.apply(command.Record{Changes: changes})
}

func (b *bench) apply(c ...command.Command) {
	b.Helper()
	if _, err := b.ledger.Propose(b.Context(), c...); err != nil {
		b.Fatal(err)
	}
}

// endpoint makes one with a replica that waits.
func (b *bench) endpoint(name string) {
	b.Helper()
	role := cluster.Role{Name: "server", Count: 1, Ask: cluster.Ask{MilliCPU: 10}, Program: cluster.Program{Command: []string{"true"}}}
	job := cluster.Job{Name: name, Kind: cluster.KindEndpoint, Owner: "ann", Queue: "default", State: cluster.JobQueued, Attempt: 1, Submitted: 1}
	fleet := cluster.Fleet{Variant: "main", Generation: 1, Role: role, Weight: 1, Share: 1, Replicas: 1, Next: 1}
	b.propose(
		command.Change{Job: &job}, command.Change{Endpoint: &cluster.Endpoint{Job: name, Generation: 1, Last: 1, Fleets: []cluster.Fleet{fleet}}},
		command.Change{Gang: &cluster.Gang{Job: name, Name: "main-1-0", Queue: "default", Owner: "ann", Attempt: 1, Submitted: 1, Roles: []cluster.Role{role}}},
	)
}

func (b *bench) node(id, address string) {
	b.Helper()
	b.apply(command.PutNode{Node: cluster.Node{ID: id, Address: address, State: cluster.NodeReady, MilliCPU: 1000, Memory: 1 << 30}})
}

// healthy places an endpoint's replica and has it serve since then.
func (b *bench) healthy(name, node string, since int64) {
	b.Helper()
	snapshot, err := b.ledger.Read(b.Context(), true)
	if err != nil {
		b.Fatal(err)
	}
	gang, _ := snapshot.Gang(name + "/main-1-0")
	_, placed := snapshot.Task(gang.TaskID("server", 0))
	snapshot.Close()
	if !placed {
		b.apply(command.CommitPlan{Placements: []cluster.Placement{{
			Gang: gang.ID(), Attempt: 1, Revision: gang.Revision, Allocations: []cluster.Allocation{{Node: node, Resources: cluster.Resources{MilliCPU: 10}}},
		}}})
	}
	b.apply(command.ReportTasks{Node: node, Reports: []command.TaskReport{{Task: gang.TaskID("server", 0), Status: cluster.TaskStatus{State: cluster.TaskRunning, Healthy: since}}}})
}

func (b *bench) table() route.Table {
	time.Sleep(time.Second)
	synctest.Wait()
	table, _ := b.feed.Table()
	return table
}

// told is a table in short.
func told(table route.Table) string {
	text := ""
	for _, e := range table.Endpoints {
		text += e.Name + ":"
		for _, r := range e.Fleets[0].Replicas {
			text += " " + strings.TrimSuffix(r.Address, ":80")
		}
		text += ";"
	}
	return text
}

func TestTheTableFollowsTheState(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.node("n1", "10.0.0.1")
		b.endpoint("shop")
		b.endpoint("bank")
		for _, step := range []struct {
			do   func()
			want string
		}{
			{func() {}, "bank:;shop:;"},
			{func() { b.healthy("shop", "n1", 5) }, "bank:;shop: 10.0.0.1;"},
			{func() { b.node("n1", "10.0.0.7") }, "bank:;shop: 10.0.0.7;"},
			{func() { b.healthy("shop", "n1", 0) }, "bank:;shop:;"},
		} {
			before := b.table()
			step.do()
			table := b.table()
			if told(table) != step.want {
				b.Errorf("the table is %q, want %q", told(table), step.want)
			}
			if told(before) != step.want && table.Version <= before.Version {
				b.Errorf("another table has version %d, after %d", table.Version, before.Version)
			}
		}
	})
}

func TestAReplicaIsToldOfOnceItsNodeSaysWhereItIs(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.node("n1", nowhere)
		b.node("n2", "10.0.0.2")
		b.endpoint("shop")
		b.healthy("shop", "n1", 5)
		if got := told(b.table()); got != "shop:;" {
			b.Fatalf("the table is %q", got)
		}
		built := b.built
		b.node("n2", "10.0.0.3")
		if got := told(b.table()); got != "shop:;" || b.built != built {
			b.Errorf("the table is %q, made %d times for a node that has nothing of it", got, b.built-built)
		}
		b.node("n1", "10.0.0.1")
		if got := told(b.table()); got != "shop: 10.0.0.1;" {
			b.Errorf("its node says where it is, and the table is %q", got)
		}
	})
}

func TestTheFirstChangeIsToldAtOnceAndABurstTogether(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.node("n1", "10.0.0.1")
		b.endpoint("shop")
		b.healthy("shop", "n1", 0)
		b.table()
		_, changed := b.feed.Table()
		began := time.Now()
		b.healthy("shop", "n1", 5)
		<-changed
		if took := time.Since(began); took > 0 {
			b.Errorf("the first change was told after %s", took)
		}
		b.built = 0
		for i := range 1000 {
			b.healthy("shop", "n1", int64(10+i))
		}
		if b.table(); b.built == 0 || b.built > 3 {
			b.Errorf("a burst of a thousand changes made %d tables", b.built)
		}
	})
}

func TestWhatIsNoEndpointsMakesNoTable(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint("shop")
		before := b.table()
		b.built = 0
		job := cluster.Job{Name: "train", Kind: cluster.KindTraining, Owner: "ann", Queue: "default", State: cluster.JobQueued, Attempt: 1, Submitted: 1}
		b.propose(command.Change{Job: &job})
		if after := b.table(); b.built != 0 || after.Version != before.Version {
			b.Errorf("%d tables were made, the version is %d after %d", b.built, after.Version, before.Version)
		}
	})
}

func TestTokensOfUsersAreToldUntilTheyAreRevoked(t *testing.T) {
	inBubble(t, func(b *bench) {
		token, _, err := auth.NewUserToken("ann", cluster.RoleUser, 0, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		b.propose(command.Change{Token: &token})
		table := b.table()
		if len(table.Tokens) != 1 || table.Tokens[0].Name != "ann" || !slices.Equal(table.Tokens[0].Hash, token.Hash) {
			b.Fatalf("tokens are %+v", table.Tokens)
		}
		snapshot, err := b.ledger.Read(b.Context(), true)
		if err != nil {
			b.Fatal(err)
		}
		token, _ = snapshot.Token(token.ID)
		snapshot.Close()
		expect := token.Revision
		token.Revoked = true
		b.propose(command.Change{Expect: expect, Token: &token})
		if table = b.table(); len(table.Tokens) != 0 {
			b.Errorf("a revoked token is told of: %+v", table.Tokens)
		}
	})
}

func TestADefectInOneEndpointLeavesItAsItWas(t *testing.T) {
	for _, defect := range []string{"yes", "weights"} {
		inBubble(t, func(b *bench) { b.breaks(defect) })
	}
}

func (b *bench) breaks(defect string) {
	b.node("n1", "10.0.0.1")
	b.endpoint("shop")
	b.endpoint("bank")
	b.healthy("shop", "n1", 5)
	b.healthy("bank", "n1", 5)
	b.table()
	snapshot, err := b.ledger.Read(b.Context(), true)
	if err != nil {
		b.Fatal(err)
	}
	job, _ := snapshot.Job("shop")
	snapshot.Close()
	expect := job.Revision
	job.Labels = map[string]string{"broken": defect}
	b.propose(command.Change{Expect: expect, Job: &job})
	b.healthy("bank", "n1", 0)
	if got := told(b.table()); got != "bank:;shop: 10.0.0.1;" {
		b.Errorf("the table is %q", got)
	}
}

// follower keeps a table by updates, as a router of an agent does.
type follower struct {
	cursor  routes.Cursor
	by      map[string]route.Endpoint
	tokens  []route.Token
	version uint64
	sent    int // endpoints that were told
}

func (f *follower) next(b *bench) {
	b.Helper()
	u, _ := b.feed.Next(&f.cursor)
	if u.Whole {
		f.by = map[string]route.Endpoint{}
	}
	for _, text := range u.Endpoints {
		var e route.Endpoint
		if err := json.Unmarshal(text, &e); err != nil {
			b.Fatal(err)
		}
		f.by[e.Name] = e
		f.sent++
	}
	for _, name := range u.Gone {
		delete(f.by, name)
	}
	if u.Tokens != nil {
		if err := json.Unmarshal(u.Tokens, &f.tokens); err != nil {
			b.Fatal(err)
		}
	}
	f.version = u.Version
}

func TestAFollowerHasTheTableByWhatHasChanged(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.node("n1", "10.0.0.1")
		for i := range 20 {
			b.endpoint(fmt.Sprintf("e%02d", i))
		}
		b.table()
		var f follower
		f.next(b)
		if f.sent != 20 {
			b.Errorf("%d endpoints of 20 were told at first", f.sent)
		}
		f.sent = 0
		b.healthy("e07", "n1", 5)
		snapshot, err := b.ledger.Read(b.Context(), true)
		if err != nil {
			b.Fatal(err)
		}
		gang, _ := snapshot.Gang("e03/main-1-0")
		endpoint, _ := snapshot.Endpoint("e03")
		job, _ := snapshot.Job("e03")
		snapshot.Close()
		expect := endpoint.Revision
		endpoint.Fleets = nil
		b.propose(command.Change{Expect: job.Revision, Check: &command.Key{Kind: state.KindJob, ID: "e03"}},
			command.Change{Expect: gang.Revision, Delete: &command.Key{Kind: state.KindGang, ID: gang.ID()}},
			command.Change{Expect: expect, Endpoint: &endpoint})
		ended := job
		ended.State, ended.Ended = cluster.JobCancelled, 7
		b.propose(command.Change{Expect: job.Revision, Job: &ended})
		table := b.table()
		f.next(b)
		if f.sent != 1 {
			b.Errorf("%d endpoints were told when one had changed", f.sent)
		}
		want := map[string]route.Endpoint{}
		for _, e := range table.Endpoints {
			want[e.Name] = e
		}
		if len(want) != 19 || !reflect.DeepEqual(f.by, want) || f.version != table.Version {
			b.Errorf("the follower has %d endpoints of %d, at version %d of %d", len(f.by), len(want), f.version, table.Version)
		}
	})
}

func TestARouterIsGivenNoTableThatIsOlderThanItsOwn(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint("shop")
		version := b.table().Version
		for claim, c := range map[string]struct {
			ask   uint64
			leads bool
			want  bool
		}{
			"as new":                                 {version, false, true},
			"nobody leads, and it may be older":      {version + 100, false, false},
			"the leader says that there is no newer": {version + 100, true, true},
		} {
			b.behind.leads = c.leads
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			if err := b.feed.CatchUp(ctx, c.ask); (err == nil) != c.want {
				b.Errorf("%s: %v", claim, err)
			}
			cancel()
		}
	})
}

func TestATableOfAnOlderChangeIsAsNewAsItsState(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.endpoint("shop")
		before := b.table().Version
		job := cluster.Job{Name: "train", Kind: cluster.KindTraining, Owner: "ann", Queue: "default", State: cluster.JobQueued, Attempt: 1, Submitted: 1}
		b.propose(command.Change{Job: &job})
		b.behind.leads = false
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		if err := b.feed.CatchUp(ctx, before+1); err != nil {
			b.Errorf("the state has revision %d: %v", before+1, err)
		}
		if version := b.table().Version; version != before+1 {
			b.Errorf("the table has version %d", version)
		}
	})
}

func TestARouterBesideTheStateIsSetEachTable(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.node("n1", "10.0.0.1")
		b.endpoint("shop")
		var got []string
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		go func() {
			done <- b.feed.Follow(ctx, 0, func(table route.Table) error { got = append(got, told(table)); return nil })
		}()
		b.table()
		b.healthy("shop", "n1", 5)
		b.table()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || len(got) == 0 || got[len(got)-1] != "shop: 10.0.0.1;" {
			b.Errorf("it was set %q, %v", got, err)
		}
	})
}
