package planner_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/decisions"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/internal/fault"
)

// bench is a planner over a real state, inside a bubble.
type bench struct {
	t       *testing.T
	ledger  *solo.Ledger
	planner *planner.Planner
}

// inBubble runs play with a planner running. Whatever it decides is recorded, and repeated at the end.
func inBubble(t *testing.T, play func(t *testing.T, b *bench)) {
	t.Helper()
	record := filepath.Join(t.TempDir(), "decisions")
	defer repeat(t, record)
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		b := &bench{t, ledger, planner.New(ledger, slog.New(slog.DiscardHandler))}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		recorder := decisions.NewRecorder(record, decisions.DefaultLimits, slog.New(slog.DiscardHandler))
		b.planner.Record(recorder)
		recording, recorded := context.WithCancel(t.Context())
		writing, done := make(chan error, 1), make(chan error, 1)
		go func() { writing <- recorder.Run(recording) }()
		defer func() { recorded(); <-writing }()
		go func() { done <- b.planner.Run(ctx) }()
		synctest.Wait()
		play(t, b)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		if _, err := b.planner.Why(t.Context(), "any"); !fault.Is(err, fault.Unready) {
			t.Errorf("after its reign Why answers %v", err)
		}
	})
}

// repeat has another scheduler decide what was recorded.
func repeat(t *testing.T, dir string) {
	t.Helper()
	if t.Failed() {
		return
	}
	paths, err := decisions.Segments(dir)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d segments, %v", len(paths), err)
	}
	file, err := decisions.Open(paths)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out, err := decisions.Replay(file, decisions.Until{})
	if err != nil || out.Differs != "" || out.Torn || out.Decisions == 0 {
		t.Errorf("repeated: %+v, %v", out, err)
	}
}

func (b *bench) propose(c ...command.Command) {
	b.t.Helper()
	if _, err := b.ledger.Propose(b.t.Context(), c...); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) node(id string, cores int64) {
	b.t.Helper()
	b.propose(command.PutNode{Node: cluster.Node{
		ID: id, Address: id, State: cluster.NodeReady, MilliCPU: cores * 1000, Memory: 1 << 34, PortFirst: 7000, PortLast: 7099,
	}})
}

// submit makes a job with a gang of tasks of one core each.
func submission(name string, tasks int32, change func(*cluster.Job, *cluster.Gang)) command.Record {
	job := cluster.Job{Name: name, Kind: cluster.KindTraining, Owner: "ann", Queue: "default", State: cluster.JobQueued, Attempt: 1, Submitted: 1}
	gang := cluster.Gang{
		Job: name, Name: "main", Queue: "default", Owner: "ann", Attempt: 1, Submitted: 1,
		Roles: []cluster.Role{{Name: "worker", Count: tasks, Ask: cluster.Ask{MilliCPU: 1000, Ports: 1}, Program: cluster.Program{Command: []string{"true"}}}},
	}
	if change != nil {
		change(&job, &gang)
	}
	return command.Record{Changes: []command.Change{{Job: &job}, {Gang: &gang}}}
}

func (b *bench) submit(name string, tasks int32, change func(*cluster.Job, *cluster.Gang)) {
	b.t.Helper()
	b.propose(submission(name, tasks, change))
}

// placed lists the nodes of a job's tasks once nothing moves any more.
func (b *bench) placed(job string) string {
	b.t.Helper()
	synctest.Wait()
	snapshot, err := b.ledger.Read(b.t.Context(), true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snapshot.Close()
	var nodes []string
	for task := range snapshot.TasksOf(job) {
		nodes = append(nodes, task.Allocation.Node)
	}
	return strings.Join(nodes, " ")
}

func (b *bench) why(job string) string {
	b.t.Helper()
	whys, err := b.planner.Why(b.t.Context(), job)
	if err != nil {
		b.t.Fatal(err)
	}
	var texts []string
	for _, why := range whys {
		texts = append(texts, why.Summary)
	}
	return strings.Join(texts, "\n")
}

// change rewrites a job's gang, as a reconciler would.
func (b *bench) change(job string, change func(*cluster.Job, *cluster.Gang)) {
	b.t.Helper()
	snapshot, err := b.ledger.Read(b.t.Context(), true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snapshot.Close()
	j, _ := snapshot.Job(job)
	g, _ := snapshot.Gang(job + "/main")
	change(&j, &g)
	b.propose(command.Record{Changes: []command.Change{{Expect: j.Revision, Job: &j}, {Expect: g.Revision, Gang: &g}}})
}

// cancel marks a job; nobody has stopped its gang yet.
func (b *bench) cancel(name string) {
	b.t.Helper()
	snapshot, err := b.ledger.Read(b.t.Context(), true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snapshot.Close()
	job, _ := snapshot.Job(name)
	job.Cancel = true
	b.propose(command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}})
}

func (b *bench) finish(node, job string) {
	b.t.Helper()
	snapshot, err := b.ledger.Read(b.t.Context(), true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snapshot.Close()
	report := command.ReportTasks{Node: node}
	for task := range snapshot.TasksOf(job) {
		report.Reports = append(report.Reports, command.TaskReport{Task: task.ID, Status: cluster.TaskStatus{State: cluster.TaskSucceeded}})
	}
	b.propose(report)
}

func TestPlacesWhenANodeJoins(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.submit("digits", 2, nil)
		if got := b.placed("digits"); got != "" {
			t.Fatalf("placed on %q without a node", got)
		}
		if why := b.why("digits"); why != "no node has joined the cluster yet" {
			t.Error(why)
		}
		b.node("a", 1)
		if got, why := b.placed("digits"), b.why("digits"); got != "" || !strings.Contains(why, "there is room for 1 of the 2 together") {
			t.Errorf("placed on %q; why %q", got, why)
		}
		b.node("b", 1)
		if got := b.placed("digits"); got != "a b" {
			t.Errorf("placed on %q", got)
		}
		if why := b.why("digits"); why != "" {
			t.Errorf("waits though placed: %s", why)
		}
	})
}

func TestPlacesTheNextWhenOneEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.node("a", 1)
		b.submit("first", 1, nil)
		synctest.Wait()
		b.submit("second", 1, nil)
		if got := b.placed("second"); got != "" {
			t.Fatalf("oversold: %q", got)
		}
		b.finish("a", "first")
		if got := b.placed("second"); got != "a" {
			t.Errorf("placed on %q", got)
		}
	})
}

func TestKeepsHeldGangsUntilReleased(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.node("a", 1)
		b.submit("held", 1, func(j *cluster.Job, g *cluster.Gang) { j.Held, g.Held = true, true })
		if got, why := b.placed("held"), b.why("held"); got != "" || !strings.Contains(why, "held") {
			t.Fatalf("placed on %q; why %q", got, why)
		}
		b.change("held", func(j *cluster.Job, g *cluster.Gang) { j.Held, g.Held = false, false })
		if got := b.placed("held"); got != "a" {
			t.Errorf("placed on %q", got)
		}
	})
}

func TestPlacesWhenTheBackoffIsOver(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.node("a", 1)
		b.submit("again", 1, func(_ *cluster.Job, g *cluster.Gang) { g.NotBefore = time.Now().Add(time.Minute).UnixNano() })
		time.Sleep(time.Minute - time.Millisecond)
		if got := b.placed("again"); got != "" {
			t.Fatalf("placed %q too early", got)
		}
		time.Sleep(2 * time.Millisecond)
		if got := b.placed("again"); got != "a" {
			t.Errorf("placed on %q", got)
		}
	})
}

func TestGivesTheRoomOfARefusedGangToTheNext(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.submit("cancelled", 1, nil)
		b.cancel("cancelled")
		b.submit("good", 1, func(j *cluster.Job, g *cluster.Gang) { j.Submitted, g.Submitted = 2, 2 })
		b.node("a", 1)
		if got := b.placed("good"); got != "a" {
			t.Errorf("placed on %q", got)
		}
		if got := b.placed("cancelled"); got != "" {
			t.Errorf("placed a cancelled job on %q", got)
		}
	})
}

func TestPlansAgainWhenTheWorldMovedMeanwhile(t *testing.T) {
	tests := []struct {
		claim string
		play  func(b *bench)
	}{
		{"after no answer", nil},
		{"after the gang changed", func(b *bench) {
			b.change("digits", func(_ *cluster.Job, g *cluster.Gang) { g.Priority = 7 })
		}},
		{"after it missed events", func(b *bench) {
			for i := range 400 {
				b.submit(fmt.Sprintf("held-%d", i), 1, func(j *cluster.Job, g *cluster.Gang) { j.Held, g.Held = true, true })
			}
			b.node("z", 1)
			b.submit("late", 1, nil)
		}},
	}
	for _, test := range tests {
		t.Run(test.claim, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bench) {
				met := 0
				b.ledger.Before = func(commands []command.Command) error {
					if _, plan := commands[0].(command.CommitPlan); !plan || met > 0 {
						return nil
					}
					met++
					if test.play == nil {
						return fault.New(fault.Unready, "no leader")
					}
					test.play(b)
					return nil
				}
				b.submit("digits", 1, nil)
				b.node("a", 1)
				synctest.Wait()
				time.Sleep(time.Second)
				if got := b.placed("digits"); met != 1 || got != "a" {
					t.Errorf("placed on %q after %d disturbances", got, met)
				}
				if got := b.placed("late"); strings.HasPrefix(test.claim, "after it missed") && got != "z" {
					t.Errorf("late is placed on %q", got)
				}
			})
		})
	}
}

func TestDryRunTouchesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.node("a", 2)
		synctest.Wait()
		gang := *submission("x", 2, nil).Changes[1].Gang
		big := *submission("y", 3, nil).Changes[1].Gang
		plan, err := b.planner.DryRun(t.Context(), []cluster.Gang{gang, big})
		if err != nil || len(plan.Placements) != 1 || len(plan.Whys) != 1 || plan.Whys[0].Gang != "y/main" {
			t.Errorf("plan %+v, %v", plan, err)
		}
		b.submit("z", 2, nil)
		if got := b.placed("z"); got != "a a" {
			t.Errorf("placed on %q", got)
		}
	})
}

func TestDryRunHeedsThoseWhoKeepOthersAway(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.node("a", 4)
		b.submit("shy", 1, func(_ *cluster.Job, gang *cluster.Gang) {
			gang.Roles[0].Affinities = []cluster.Affinity{{Job: "loud", Over: cluster.LevelNode, Anti: true}}
		})
		synctest.Wait()
		loud, other := *submission("loud", 1, nil).Changes[1].Gang, *submission("other", 1, nil).Changes[1].Gang
		plan, err := b.planner.DryRun(t.Context(), []cluster.Gang{loud, other})
		if err != nil || len(plan.Placements) != 1 || plan.Placements[0].Gang != "other/main" || len(plan.Whys) != 1 || plan.Whys[0].Gang != "loud/main" {
			t.Errorf("plan %+v, %v", plan, err)
		}
	})
}

// TestLeavesNothingWaitingThatFits lets many jobs of several sizes come and go.
func TestLeavesNothingWaitingThatFits(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		for i := range 5 {
			b.node(fmt.Sprintf("n%d", i), 4)
		}
		var names []string
		for i := range 120 {
			names = append(names, fmt.Sprintf("job-%d", i))
			b.submit(names[i], int32(1+i%7), nil)
		}
		for len(names) > 0 {
			before := len(names)
			names = slices.DeleteFunc(names, func(name string) bool {
				nodes := b.placed(name)
				if nodes == "" {
					if why := b.why(name); strings.Contains(why, "there is room for it now") {
						t.Fatalf("%s waits: %s", name, why)
					}
					return false
				}
				for _, node := range slices.Compact(strings.Fields(nodes)) {
					b.finish(node, name)
				}
				return true
			})
			if len(names) == before {
				t.Fatalf("%d of them are never placed, %s: %s", before, names[0], b.why(names[0]))
			}
		}
	})
}

func TestReplicasOfAJobAreSpreadOverNodesForAsLongAsTheyHoldThem(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		spread := func(_ *cluster.Job, g *cluster.Gang) { g.Roles[0].Spread = "blue" }
		b.node("a", 8)
		b.node("b", 4)
		b.node("c", 2)
		b.submit("shop", 1, spread)
		if got := b.placed("shop"); got != "a" { // of equals the first
			t.Fatalf("the first is at %q", got)
		}
		add := func(name string) {
			snapshot, err := b.ledger.Read(t.Context(), true)
			if err != nil {
				t.Fatal(err)
			}
			job, _ := snapshot.Job("shop")
			snapshot.Close()
			gang := submission("shop", 1, spread).Changes[1].Gang
			gang.Name = name
			b.propose(command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}, {Gang: gang}}})
		}
		add("second")
		add("third")
		if got := b.placed("shop"); got != "a b c" { // in the order of their gangs: main, second, third
			t.Fatalf("three are at %q", got)
		}
		b.propose(command.ReportTasks{Node: "b", Reports: []command.TaskReport{{Task: "shop/second/worker-0.1", Status: cluster.TaskStatus{State: cluster.TaskFailed}}}})
		add("zz")
		if got := b.placed("shop"); got != "a b c b" {
			t.Errorf("one has failed at b, and the next is at %q", got)
		}
		b.submit("other", 1, spread)
		if got := b.placed("other"); got != "a" {
			t.Errorf("another job's is at %q: it is spread by itself", got)
		}
	})
}

func TestTellsOfAllThatWaitsInItsOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.node("a", 1)
		for i, name := range []string{"runs", "second", "first", "large"} {
			b.submit(name, 1, func(j *cluster.Job, g *cluster.Gang) {
				j.Submitted, g.Submitted = int64(i+1), int64(i+1)
				switch name {
				case "first":
					g.Priority = 9
				case "large":
					g.Roles[0].Ask.MilliCPU = 3000
				}
			})
			synctest.Wait()
		}
		whys, waiting, err := b.planner.Whys(t.Context(), "", 2)
		if err != nil || waiting != 3 || len(whys) != 2 {
			t.Fatalf("%d of %d, %v", len(whys), waiting, err)
		}
		for i, want := range []string{"first/main", "second/main"} {
			if w := whys[i]; w.Gang != want || w.Place != int32(i+1) || w.Of != 3 || w.Queue != "default" || !strings.Contains(w.Summary, "too few cores") {
				t.Errorf("%d: %+v", i, w)
			}
		}
		if whys, waiting, err := b.planner.Whys(t.Context(), "other", 9); err != nil || waiting != 0 || len(whys) != 0 {
			t.Errorf("in a queue where nothing waits: %v, %d, %v", whys, waiting, err)
		}
	})
}
