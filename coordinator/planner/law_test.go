package planner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/scheduler/room"
)

// fickle is a ledger that answers plans as was drawn: at once, late, not at all, or after something else has happened.
type fickle struct {
	*solo.Ledger
	fates []int
	next  atomic.Int64
	met   [5]atomic.Int64
}

const (
	atOnce = iota
	late
	unheard  // it is not applied, and there is no answer
	silent   // it is applied, and there is no answer
	overtake // a gang of it changes before
)

func (f *fickle) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	plan, plans := commands[0].(command.CommitPlan)
	at := int(f.next.Add(1)) - 1
	if !plans || at >= len(f.fates) {
		return f.Ledger.Propose(ctx, commands...)
	}
	f.met[f.fates[at]].Add(1)
	switch f.fates[at] {
	case late:
		time.Sleep(300 * time.Millisecond)
	case unheard:
		return nil, fault.New(fault.Unready, "no leader")
	case silent:
		_, _ = f.Ledger.Propose(ctx, commands...)
		time.Sleep(50 * time.Millisecond)
		return nil, fault.New(fault.Unready, "no answer")
	case overtake:
		time.Sleep(10 * time.Millisecond)
		if len(plan.Placements) > 0 {
			f.bump(ctx, plan.Placements[0].Gang)
		}
	}
	return f.Ledger.Propose(ctx, commands...)
}

// bump changes a gang.
func (f *fickle) bump(ctx context.Context, id string) {
	snapshot, err := f.Read(ctx, true)
	if err != nil {
		return
	}
	gang, _ := snapshot.Gang(id)
	job, _ := snapshot.Job(gang.Job)
	snapshot.Close()
	gang.Priority++
	_, _ = f.Ledger.Propose(ctx, command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}, {Expect: gang.Revision, Gang: &gang}}})
}

func (f *fickle) node(id string) {
	n := cluster.Node{ID: id, Address: id, State: cluster.NodeReady, MilliCPU: 6000, Memory: 1 << 34, PortFirst: 7000, PortLast: 7009}
	for i := range 4 {
		n.Devices = append(n.Devices, cluster.Device{UUID: fmt.Sprintf("%s-%d", id, i), Kind: cluster.DeviceGPU, Model: "T4", Healthy: true})
	}
	_, _ = f.Ledger.Propose(context.Background(), command.PutNode{Node: n})
}

func (f *fickle) submit(name string, tasks, gpus int32) {
	f.ask(name, tasks, cluster.Ask{MilliCPU: 1000, GPUs: gpus, Ports: 1})
}

func (f *fickle) ask(name string, tasks int32, ask cluster.Ask) {
	job := cluster.Job{Name: name, Kind: cluster.KindTraining, Owner: "ann", Queue: "default", State: cluster.JobQueued, Attempt: 1, Submitted: 1}
	gang := cluster.Gang{
		Job: name, Name: "main", Queue: "default", Owner: "ann", Attempt: 1, Submitted: 1,
		Roles: []cluster.Role{{Name: "worker", Count: tasks, Ask: ask, Program: cluster.Program{Command: []string{"true"}}}},
	}
	_, _ = f.Ledger.Propose(context.Background(), command.Record{Changes: []command.Change{{Job: &job}, {Gang: &gang}}})
}

// end ends all tasks of a job that runs.
func (f *fickle) end(name string) {
	snapshot, err := f.Read(context.Background(), true)
	if err != nil {
		return
	}
	tasks := slices.Collect(snapshot.TasksOf(name))
	snapshot.Close()
	for _, task := range tasks {
		_, _ = f.Ledger.Propose(context.Background(), command.ReportTasks{Node: task.Allocation.Node, Reports: []command.TaskReport{{
			Task: task.ID, Status: cluster.TaskStatus{State: cluster.TaskSucceeded},
		}}})
	}
}

// free is what every node has free, with nothing kept for anybody.
func free(m *memory) string {
	r := m.cluster.Room.Clone()
	for id := range m.waiting {
		r.Unpin(id)
	}
	text := ""
	for _, ask := range []cluster.Ask{{GPUs: 1}, {GPUMilli: 1}} {
		shape := room.NewShape("j", []cluster.Role{{Name: "w", Count: 1, Ask: ask}})
		for o := range r.Offers(&shape.Roles[0]) {
			text += fmt.Sprintf("%s: %d cores, %d memory, %d ports, %d GPUs, %d of one; ", o.ID, o.Milli, o.Memory, o.Ports, o.GPUs, o.Parts.Milli)
		}
	}
	return text
}

func TestTheOptimisticViewIsTheStateOnceAllHasSettled(t *testing.T) {
	var met [5]int64
	placed := 0
	dir := t.TempDir()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		fates := rapid.SliceOfN(rapid.IntRange(atOnce, overtake), 0, 40).Draw(rt, "fates")
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 40).Draw(rt, "steps")
		runs++
		path := filepath.Join(dir, fmt.Sprint(runs))
		synctest.Test(t, func(t *testing.T) {
			ledger, err := solo.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer ledger.Close()
			f := &fickle{Ledger: ledger, fates: fates}
			p := New(f, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- p.Run(ctx) }()
			f.node("n0")
			for i, step := range steps {
				switch {
				case step == 0:
					f.ask(fmt.Sprintf("j%d", i), int32(1+i%3), cluster.Ask{MilliCPU: 500, GPUMilli: 400})
				case step < 5:
					f.submit(fmt.Sprintf("j%d", i), int32(1+step%3), int32(step%2))
				case step < 8:
					f.end(fmt.Sprintf("j%d", i/2))
				case step == 8:
					f.node(fmt.Sprintf("n%d", i%3))
				default:
					time.Sleep(40 * time.Millisecond)
				}
				if i%3 == 0 {
					synctest.Wait()
				}
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			fresh := New(f, slog.New(slog.DiscardHandler))
			fresh.commits = newCommits()
			if err := fresh.readAll(ctx); err != nil {
				t.Fatal(err)
			}
			if got, want := free(p.memory), free(fresh.memory); got != want {
				rt.Errorf("the planner believes  %s\nand the ledger says  %s", got, want)
			}
			if len(p.commits.assumed)+len(p.commits.byNode)+p.commits.flying > 0 {
				rt.Errorf("%d are assumed, %d are on their way", len(p.commits.assumed), p.commits.flying)
			}
			if waits := len(fresh.memory.waiting); waits != len(p.memory.waiting) {
				rt.Errorf("%d wait, the planner believes %d", waits, len(p.memory.waiting))
			}
			placed += len(p.memory.running)
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				rt.Errorf("Run ended with %v", err)
			}
			for i := range met {
				met[i] += f.met[i].Load()
			}
		})
	})
	for fate, times := range met {
		if times < 20 {
			t.Errorf("fate %d was met %d times", fate, times)
		}
	}
	if placed < 50 {
		t.Errorf("%d gangs ran", placed)
	}
}
