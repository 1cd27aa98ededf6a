package rpc

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/object"
)

// stage is a ledger with a gang of two workers on n1 and n2, and who directs n1.
type stage struct {
	*testing.T
	*solo.Ledger
	director *director
	events   *state.Subscription
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ledger, err := solo.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ledger.Close() })
	s := &stage{T: t, Ledger: ledger, director: newDirector("n1")}
	s.do(command.PutNode{Node: cluster.Node{ID: "n1", Address: "fd00::1", State: cluster.NodeReady, MilliCPU: 8000, Memory: 8 << 30, PortFirst: 2000, PortLast: 2099}})
	s.do(command.PutNode{Node: cluster.Node{ID: "n2", Address: "10.0.0.2", State: cluster.NodeReady, MilliCPU: 8000, Memory: 8 << 30, PortFirst: 2000, PortLast: 2099}})
	s.events = ledger.Events().Subscribe(func(c state.Change) bool { return c.Kind == state.KindTask || c.Kind == state.KindGang })
	t.Cleanup(s.events.Close)
	return s
}

func (s *stage) do(commands ...command.Command) {
	s.Helper()
	if _, err := s.Propose(s.Context(), commands...); err != nil {
		s.Fatal(err)
	}
}

func (s *stage) look() *state.Snapshot {
	s.Helper()
	snapshot, err := s.Read(s.Context(), true)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { snapshot.Close() })
	return snapshot
}

// told hands the director what has happened and returns what it says.
func (s *stage) told() string {
	s.Helper()
	var changes []state.Change
	for more := true; more; {
		select {
		case batch := <-s.events.C:
			changes = append(changes, batch.Changes...)
		default:
			more = false
		}
	}
	return text(s.director.changed(s.look(), changes))
}

func text(desired *claryv1.Desired) string {
	var words []string
	for _, a := range desired.GetAssignments() {
		word := strings.TrimPrefix(a.GetTask().GetId(), "j/main/") + " at " + strings.Join(a.GetHosts()["worker"].GetHosts(), ",")
		if a.GetRestoreFrom() != "" {
			word += " from " + a.GetRestoreFrom()
		}
		if a.GetStop() {
			word += " STOP " + a.GetStopReason()
		}
		words = append(words, word)
	}
	for _, gone := range desired.GetGone() {
		words = append(words, "GONE "+strings.TrimPrefix(gone, "j/main/"))
	}
	slices.Sort(words)
	return strings.Join(words, "; ")
}

func (s *stage) gang() cluster.Gang {
	gang, _ := s.look().Gang("j/main")
	return gang
}

func (s *stage) job() cluster.Job {
	job, _ := s.look().Job("j")
	return job
}

// change rewrites the gang, with its job's revision as a reconciler would.
func (s *stage) change(edit func(*cluster.Job, *cluster.Gang)) {
	s.Helper()
	job, gang := s.job(), s.gang()
	edit(&job, &gang)
	s.do(command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}, {Expect: gang.Revision, Gang: &gang}}})
}

func (s *stage) submit() {
	s.Helper()
	job := cluster.Job{Name: "j", Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
	gang := cluster.Gang{
		Job: "j", Name: "main", Queue: cluster.DefaultQueue, Owner: "ada", Attempt: 1,
		Roles: []cluster.Role{{
			Name: "worker", Count: 2, Ask: cluster.Ask{MilliCPU: 1000, Memory: 1 << 20, Ports: 1},
			Program: cluster.Program{Command: []string{"true"}, Checkpoints: true},
		}},
	}
	s.do(command.Record{Changes: []command.Change{{Job: &job}, {Gang: &gang}}})
}

// place puts the gang's first task on n2 and its second on n1.
func (s *stage) place() {
	s.Helper()
	gang := s.gang()
	on := func(node string) cluster.Allocation {
		return cluster.Allocation{Node: node, Resources: cluster.Resources{MilliCPU: 1000, Memory: 1 << 20, Ports: []int32{2005}}}
	}
	s.do(command.CommitPlan{Placements: []cluster.Placement{{
		Gang: gang.ID(), Attempt: gang.Attempt, Revision: gang.Revision, Allocations: []cluster.Allocation{on("n2"), on("n1")},
	}}})
}

func (s *stage) report(node, task string, taskState cluster.TaskState) {
	s.Helper()
	s.do(command.ReportTasks{Node: node, Reports: []command.TaskReport{{Task: "j/main/" + task, Status: cluster.TaskStatus{State: taskState}}}})
}

func TestADirectorTellsChangesOnce(t *testing.T) {
	s := newStage(t)
	steps := []struct {
		name string
		do   func()
		told string
	}{
		{"a submission is nobody's yet", s.submit, ""},
		{"a placement tells its own task, and where all are", s.place, "worker-1.1 at 10.0.0.2:2005,[fd00::1]:2005"},
		{"its own report is no news to it", func() { s.report("n1", "worker-1.1", cluster.TaskRunning) }, ""},
		{"nor is another node's", func() { s.report("n2", "worker-0.1", cluster.TaskRunning) }, ""},
		{
			"the gang's stop is told",
			func() {
				s.change(func(_ *cluster.Job, g *cluster.Gang) { g.Stop, g.StopReason = true, "cancelled" })
			},
			"worker-1.1 at 10.0.0.2:2005,[fd00::1]:2005 STOP cancelled",
		},
		{"once, whatever else becomes of the gang", func() { s.change(func(_ *cluster.Job, g *cluster.Gang) { g.Priority = 5 }) }, ""},
		{"another's end is no news", func() { s.report("n2", "worker-0.1", cluster.TaskStopped) }, ""},
		{"a task that has ended stays with the node", func() { s.report("n1", "worker-1.1", cluster.TaskStopped) }, ""},
		{
			"until its record is deleted",
			func() {
				s.change(func(j *cluster.Job, _ *cluster.Gang) { j.State = cluster.JobStopping })
				s.change(func(j *cluster.Job, _ *cluster.Gang) { j.State = cluster.JobCancelled })
				s.do(command.Record{Changes: []command.Change{{Expect: s.job().Revision, Delete: &command.Key{Kind: state.KindJob, ID: "j"}}}})
			},
			"GONE worker-1.1",
		},
	}
	for _, step := range steps {
		step.do()
		if told := s.told(); told != step.told {
			t.Errorf("%s: told %q, want %q", step.name, told, step.told)
		}
	}
	if len(s.director.told)+len(s.director.gangs) > 0 {
		t.Errorf("it remembers %v, %v", s.director.told, s.director.gangs)
	}
}

// A node with many tasks of a large gang is not told the gang's hosts by going through it once for each.
func TestWhereAGangsTasksAreIsWorkedOutOnceForANode(t *testing.T) {
	s := newStage(t)
	s.submit()
	gang := s.gang()
	on := cluster.Allocation{Node: "n1", Resources: cluster.Resources{MilliCPU: 1000, Memory: 1 << 20}}
	on.Resources.Ports = []int32{2005}
	other := on
	other.Resources.Ports = []int32{2006}
	s.do(command.CommitPlan{Placements: []cluster.Placement{{
		Gang: gang.ID(), Attempt: gang.Attempt, Revision: gang.Revision, Allocations: []cluster.Allocation{on, other},
	}}})
	desired := s.director.all(s.look(), nil)
	if len(desired.GetAssignments()) != 2 {
		t.Fatalf("it is told %s", text(desired))
	}
	one, two := desired.GetAssignments()[0].GetHosts()["worker"], desired.GetAssignments()[1].GetHosts()["worker"]
	if len(one.GetHosts()) != 2 || one != two {
		t.Errorf("the hosts were worked out twice: %v and %v", one, two)
	}
}

func TestAllThatANodeShouldHave(t *testing.T) {
	s := newStage(t)
	s.submit()
	s.place()
	all := func(held ...string) string {
		for i := range held {
			held[i] = "j/main/" + held[i]
		}
		desired := s.director.all(s.look(), held)
		if !desired.GetWhole() {
			t.Error("it is not whole")
		}
		return text(desired)
	}
	first := "worker-1.1 at 10.0.0.2:2005,[fd00::1]:2005"
	if told := all("worker-0.1", "worker-7.1"); told != first {
		t.Errorf("what runs here, and nothing of what is another's or nobody's: %q", told)
	}
	// The node is lost; its task is written off, and may run on for all that is known.
	s.do(command.SetNodeState{Node: "n1", State: cluster.NodeLost, Reason: "cut off"})
	if told := all(); told != "" {
		t.Errorf("what the node does not hold and is written off: %q", told)
	}
	if told := all("worker-1.1"); told != first+" STOP " {
		t.Errorf("what the node holds and is written off: %q", told)
	}
	s.report("n2", "worker-0.1", cluster.TaskFailed)
	s.do(command.PutNode{Node: cluster.Node{ID: "n1", Address: "fd00::1", State: cluster.NodeReady, MilliCPU: 8000, Memory: 8 << 30, PortFirst: 2000, PortLast: 2099}})
	s.change(func(j *cluster.Job, g *cluster.Gang) { g.Attempt, j.Attempt = 2, 2 })
	s.place()
	second := "worker-1.2 at 10.0.0.2:2005,[fd00::1]:2005 from s3://clary/jobs/j/checkpoints/"
	if told := all("worker-1.1"); !strings.Contains(told, second) || !strings.Contains(told, "worker-1.1") || !strings.Contains(told, "STOP") {
		t.Errorf("the second attempt beside the first: %q", told)
	}
}

// behind is a replica whose stale reads show what was some time ago.
type behind struct {
	Replica
	old, now *solo.Ledger
}

func (b behind) Read(ctx context.Context, stale bool) (*state.Snapshot, error) {
	if stale {
		return b.old.Read(ctx, stale)
	}
	return b.now.Read(ctx, stale)
}

func TestAFollowerThatIsBehindTakesNoTaskAway(t *testing.T) {
	old, now := newStage(t), newStage(t)
	now.submit()
	now.place()
	s := &link{replica: behind{old: old.Ledger, now: now.Ledger}}
	desired, err := s.desired(t.Context(), newDirector("n1"), []string{"j/main/worker-1.1"}, nil, true)
	if err != nil || len(desired.GetAssignments()) != 1 {
		t.Errorf("told %q, %v", text(desired), err)
	}
}

func TestPagesOfAListingHaveEachKeyOnce(t *testing.T) {
	count, folders := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		prefix := rapid.SampledFrom([]string{"", "a/", "a"}).Draw(rt, "prefix")
		keys := rapid.SliceOfNDistinct(rapid.StringMatching(`[ab/]{0,4}[abc]`), 4, 24, rapid.ID[string]).Draw(rt, "keys")
		slices.Sort(keys)
		var all []object.Info
		want := map[string]bool{}
		recursive := rapid.Bool().Draw(rt, "recursive")
		for _, key := range keys {
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			all = append(all, object.Info{URI: object.URI{Bucket: "b", Key: key}})
			if slash := strings.IndexByte(key[len(prefix):], '/'); slash >= 0 && !recursive {
				key = key[:len(prefix)+slash+1]
				folders++
			}
			want["s3://b/"+key] = true
		}
		request := &claryv1.ListObjectsRequest{Recursive: recursive}
		limit := rapid.IntRange(1, 4).Draw(rt, "limit")
		got := map[string]int{}
		for turn := 0; ; turn++ {
			pages := &pager{request: request, prefix: prefix, limit: limit}
			for _, info := range all {
				if !pages.take(info) {
					break
				}
			}
			answer := pages.end()
			count++
			if names := len(answer.GetObjects()) + len(answer.GetPrefixes()); names > limit || turn > len(all) {
				rt.Fatalf("turn %d has %d names, limit %d", turn, names, limit)
			}
			for _, o := range answer.GetObjects() {
				got[o.GetUri()]++
			}
			for _, p := range answer.GetPrefixes() {
				got[p]++
			}
			if request.After = answer.GetNext(); request.After == "" {
				break
			}
		}
		for name := range want {
			if got[name] != 1 {
				rt.Fatalf("%s is told %d times: %v", name, got[name], got)
			}
		}
		if len(got) != len(want) {
			rt.Fatalf("told %v, want %v", got, want)
		}
	})
	if count < 40 || folders < 4 {
		t.Errorf("%d pages, %d folders", count, folders)
	}
}

func TestATaskIsNamedByIndexRoleOrID(t *testing.T) {
	task := cluster.Task{ID: "j/main/worker-1.2", Role: "worker", Index: 1, Attempt: 2}
	for name, want := range map[string]bool{
		"": true, "worker": true, "worker-1": true, "j/main/worker-1.2": true,
		"worker-2": false, "work": false, "worker-1.2": false, "worker-1.1": false, "main": false, "server": false,
	} {
		if named(task, name) != want {
			t.Errorf("%q names it: %v", name, !want)
		}
	}
}

func TestAGeneratedNameIsAFunctionOfTheRequest(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		owner, request := rapid.String().Draw(rt, "owner"), rapid.String().Draw(rt, "request")
		name := generatedName(cluster.KindTraining, owner, request)
		var p cluster.Problems
		if cluster.CheckName(&p, "name", name); p.Err() != nil || name != generatedName(cluster.KindTraining, owner, request) {
			rt.Fatalf("%q: %v", name, p.Err())
		}
	})
	seen := map[string]bool{}
	for i := range 1000 {
		seen[generatedName(cluster.KindTraining, "ada", fmt.Sprint(i))] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d names of 1000 requests", len(seen))
	}
}
