package reconciler_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/endpoint"
	"github.com/clary-ml/clary/workload/training"
)

// store notes copies, and fails as it is told.
type store struct {
	mu     sync.Mutex
	copies []string
	fail   []error
	takes  time.Duration

	clashes []string // of what is merged
	during  func(context.Context) error
}

func (s *store) Copy(ctx context.Context, from, to string) error {
	time.Sleep(s.takes)
	if s.during != nil {
		if err := s.during(ctx); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fail) > 0 {
		err := s.fail[0]
		s.fail = s.fail[1:]
		return err
	}
	s.copies = append(s.copies, from+" "+to)
	return nil
}

func (s *store) Spread(ctx context.Context, c workload.Copy) ([]string, error) {
	return nil, s.Copy(ctx, strings.Join(c.From, ","), c.To)
}

func (s *store) Merge(ctx context.Context, from []string, to string) ([]string, error) {
	return s.clashes, s.Copy(ctx, strings.Join(from, "+"), to)
}

func (s *store) Version(ctx context.Context, model string, made registry.Made) (cluster.ModelVersion, error) {
	output, err := made.Published()
	if err == nil {
		err = s.Copy(ctx, output.URI, model)
	}
	output.Name, output.URI = "model.tar.gz", cluster.ModelFolder(model, registry.Key(made.Job))+"model.tar.gz"
	return cluster.ModelVersion{
		Model: model, Owner: made.Job.Owner, Artifact: output,
		Lineage: cluster.Lineage{Job: made.Job.Name, Submitted: made.Job.Submitted, Output: made.Output},
	}, err
}

// bench is a reconciler and a planner over a real state, inside a bubble.
type bench struct {
	t      *testing.T
	ledger *solo.Ledger
	store  *store
}

var kinds = map[cluster.Kind]workload.Kind{cluster.KindTraining: training.Kind{}, cluster.KindEndpoint: endpoint.Kind{}}

func inBubble(t *testing.T, play func(t *testing.T, b *bench)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		b := &bench{t, ledger, &store{}}
		b.propose(command.PutNode{Node: cluster.Node{
			ID: "a", Address: "a", State: cluster.NodeReady, MilliCPU: 4000, Memory: 1 << 34, PortFirst: 7000, PortLast: 7099,
		}})
		stop := b.reign()
		defer stop()
		play(t, b)
	})
}

// reign starts the leader's loops; what it returns ends them.
func (b *bench) reign() (stop func()) {
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 2)
	quiet := slog.New(slog.DiscardHandler)
	go func() { done <- reconciler.New(b.ledger, kinds, b.store, quiet).Run(ctx) }()
	go func() { done <- planner.New(b.ledger, quiet).Run(ctx) }()
	synctest.Wait()
	return sync.OnceFunc(func() {
		cancel()
		for range cap(done) {
			if err := <-done; !errors.Is(err, context.Canceled) {
				b.t.Errorf("a loop ended with %v", err)
			}
		}
	})
}

func (b *bench) propose(c ...command.Command) {
	b.t.Helper()
	if _, err := b.ledger.Propose(b.t.Context(), c...); err != nil {
		b.t.Fatal(err)
	}
}

const program = `{"program": {"command": ["true"]}, "instances": 2, "output": "s3://ann/models"}`

func (b *bench) submit(name, spec string, change func(*cluster.Job)) {
	b.t.Helper()
	now := time.Now().UnixNano()
	job := cluster.Job{Name: name, Kind: cluster.KindTraining, Owner: "ann", Queue: "default", Spec: []byte(spec), State: cluster.JobQueued, Submitted: now}
	if change != nil {
		change(&job)
	}
	record, gangs := reconciler.First(job, kinds[job.Kind], now)
	if len(gangs) != 1 || len(record.Changes) != 2 {
		b.t.Fatalf("the submission has %d changes, %d gangs", len(record.Changes), len(gangs))
	}
	b.propose(record)
}

// job is the job once nothing moves any more, with its unended tasks.
func (b *bench) job(name string) (cluster.Job, []cluster.Task) {
	b.t.Helper()
	synctest.Wait()
	snapshot, err := b.ledger.Read(b.t.Context(), true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snapshot.Close()
	job, _ := snapshot.Job(name)
	var tasks []cluster.Task
	for task := range snapshot.TasksOf(name) {
		if !task.Status.State.Ended() {
			tasks = append(tasks, task)
		}
	}
	return job, tasks
}

func (b *bench) must(name string, state cluster.JobState, reason string, tasks int) {
	b.t.Helper()
	job, running := b.job(name)
	if job.State != state || !strings.Contains(job.Reason, reason) || len(running) != tasks {
		b.t.Fatalf("%s is %s (%q) with %d tasks, want %s (%q) with %d", name, job.State, job.Reason, len(running), state, reason, tasks)
	}
}

// report ends the first unended task of a job.
func (b *bench) report(name string, state cluster.TaskState, code int32) {
	b.t.Helper()
	_, tasks := b.job(name)
	status := cluster.TaskStatus{State: state, ExitCode: code, Ended: time.Now().UnixNano()}
	if state == cluster.TaskSucceeded {
		status.Outputs = []cluster.Output{{Name: "model", URI: "s3://clary/" + tasks[0].ID + "/model.tar.gz", SHA256: strings.Repeat("0", 64), Size: 7}}
	}
	b.propose(command.ReportTasks{Node: "a", Reports: []command.TaskReport{{Task: tasks[0].ID, Status: status}}})
}

func (b *bench) cancel(name string) {
	b.t.Helper()
	job, _ := b.job(name)
	job.Cancel = true
	b.propose(command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}})
}

func TestFromSubmissionToDelivery(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.submit("digits", program, nil)
		b.must("digits", cluster.JobRunning, "", 2)
		b.report("digits", cluster.TaskSucceeded, 0)
		b.must("digits", cluster.JobRunning, "", 1)
		b.report("digits", cluster.TaskSucceeded, 0)
		b.must("digits", cluster.JobSucceeded, "", 0)
		want := "[s3://clary/digits/main/worker-0.1/model.tar.gz+s3://clary/digits/main/worker-1.1/model.tar.gz s3://ann/models/model.tar.gz]"
		if got := fmt.Sprint(b.store.copies); got != want {
			t.Errorf("copied %s\nwant   %s", got, want)
		}
	})
}

func TestWhatAJobPublishesBecomesAVersionBeforeItHasSucceeded(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		finish := func(name string, state cluster.JobState, reason string) {
			b.submit(name, program, func(j *cluster.Job) { j.Register = "net" })
			b.report(name, cluster.TaskSucceeded, 0)
			b.report(name, cluster.TaskSucceeded, 0)
			b.must(name, state, reason, 0)
		}
		finish("one", cluster.JobSucceeded, "")
		b.store.fail = []error{fault.New(fault.Unready, "away")}
		b.submit("two", program, func(j *cluster.Job) { j.Register = "net" })
		b.report("two", cluster.TaskSucceeded, 0)
		b.report("two", cluster.TaskSucceeded, 0)
		b.must("two", cluster.JobPublishing, "", 0)
		time.Sleep(time.Minute)
		b.must("two", cluster.JobSucceeded, "", 0)
		b.store.fail = slices.Repeat([]error{fault.New(fault.Denied, "no right")}, 4)
		b.submit("three", program, func(j *cluster.Job) { j.Register = "net" })
		b.report("three", cluster.TaskSucceeded, 0)
		b.report("three", cluster.TaskSucceeded, 0)
		time.Sleep(10 * time.Minute)
		b.must("three", cluster.JobFailed, "no right", 0)

		snapshot, err := b.ledger.Read(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		defer snapshot.Close()
		var got []string
		for version := range snapshot.VersionsOf("net", 0) {
			job, _ := snapshot.Job(version.Lineage.Job)
			got = append(got, fmt.Sprint(version.Ref(), " of ", job.Name, " by ", version.Owner, " ", job.Delivered))
		}
		if want := "[net@1 of one by ann true net@2 of two by ann true]"; fmt.Sprint(got) != want {
			t.Errorf("versions %v, want %s", got, want)
		}
	})
}

func TestAJobThatPublishesNoModelCannotBeRegistered(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.submit("none", `{"program": {"command": ["true"]}}`, func(j *cluster.Job) { j.Register = "net" })
		_, tasks := b.job("none")
		b.propose(command.ReportTasks{Node: "a", Reports: []command.TaskReport{{Task: tasks[0].ID, Status: cluster.TaskStatus{State: cluster.TaskSucceeded}}}})
		time.Sleep(10 * time.Minute)
		b.must("none", cluster.JobFailed, `has published no "model"`, 0)
	})
}

func TestRetriesAfterTheBackoff(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.submit("digits", program, func(j *cluster.Job) { j.Retry = cluster.Retry{Limit: 1, Backoff: time.Minute} })
		b.report("digits", cluster.TaskFailed, 3)
		b.must("digits", cluster.JobRunning, "worker-0 failed on node a: exit code 3", 1)
		b.report("digits", cluster.TaskStopped, 0)
		b.must("digits", cluster.JobQueued, "restarts: worker-0 failed", 0)
		time.Sleep(time.Minute)
		b.must("digits", cluster.JobRunning, "", 2)
		b.report("digits", cluster.TaskFailed, 3)
		b.report("digits", cluster.TaskFailed, 4)
		b.must("digits", cluster.JobFailed, "no retry is left", 0)
	})
}

func TestEndsWhatRunsTooLong(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.submit("digits", program, func(j *cluster.Job) { j.MaxRuntime = time.Hour })
		time.Sleep(time.Hour - time.Second)
		b.must("digits", cluster.JobRunning, "", 2)
		time.Sleep(2 * time.Second)
		b.must("digits", cluster.JobStopping, "ran longer", 2)
		b.report("digits", cluster.TaskStopped, 0)
		b.report("digits", cluster.TaskStopped, 0)
		b.must("digits", cluster.JobFailed, "ran longer than its maximum run time of 1h0m0s", 0)
	})
}

func TestCancels(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.submit("running", program, nil)
		b.must("running", cluster.JobRunning, "", 2)
		b.cancel("running")
		b.must("running", cluster.JobStopping, "cancelled", 2)
		b.report("running", cluster.TaskStopped, 0)
		b.report("running", cluster.TaskStopped, 0)
		b.must("running", cluster.JobCancelled, "cancelled", 0)

		b.submit("held", program, func(j *cluster.Job) { j.Held = true })
		b.must("held", cluster.JobQueued, "", 0)
		b.cancel("held")
		b.must("held", cluster.JobCancelled, "cancelled", 0)
	})
}

func TestANewLeaderGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		b := &bench{t, ledger, &store{}}
		b.propose(command.PutNode{Node: cluster.Node{ID: "a", Address: "a", State: cluster.NodeReady, MilliCPU: 4000, Memory: 1 << 34, PortFirst: 7000, PortLast: 7099}})
		b.submit("digits", program, func(j *cluster.Job) { j.MaxRuntime = time.Hour })
		b.must("digits", cluster.JobQueued, "", 0)
		stop := b.reign()
		b.must("digits", cluster.JobRunning, "", 2)
		stop()
		b.report("digits", cluster.TaskSucceeded, 0)
		b.report("digits", cluster.TaskSucceeded, 0)
		b.must("digits", cluster.JobRunning, "", 0)
		stop = b.reign()
		b.must("digits", cluster.JobSucceeded, "", 0)
		stop()
	})
}

func TestReadsAgainOnConflict(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		met := 0
		b.ledger.Before = func(commands []command.Command) error {
			record, is := commands[0].(command.Record)
			if !is || record.Changes[0].Expect == 0 || record.Changes[0].Job.State != cluster.JobRunning || met > 0 {
				return nil
			}
			met++
			job := *record.Changes[0].Job // somebody else is faster
			job.State, job.Priority = cluster.JobQueued, 9
			_, err := b.ledger.Propose(t.Context(), command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}})
			return err
		}
		b.submit("digits", program, nil)
		b.must("digits", cluster.JobRunning, "", 2)
		if job, _ := b.job("digits"); met != 1 || job.Priority != 9 {
			t.Errorf("met %d, priority %d: the other's change is lost", met, job.Priority)
		}
	})
}

func TestGoesOnWhenNobodyAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		var silent atomic.Bool
		silent.Store(true)
		b.ledger.Before = func(commands []command.Command) error {
			if record, is := commands[0].(command.Record); is && record.Changes[0].Expect > 0 && silent.Load() {
				return fault.New(fault.Unready, "no leader")
			}
			return nil
		}
		b.submit("digits", program, nil)
		b.must("digits", cluster.JobQueued, "", 2)
		silent.Store(false)
		time.Sleep(2 * time.Second)
		b.must("digits", cluster.JobRunning, "", 2)
	})
}

func TestDelivery(t *testing.T) {
	denied := fault.New(fault.Denied, "access denied")
	tests := []struct {
		claim  string
		fail   []error
		wait   time.Duration
		state  cluster.JobState
		reason string
		copies int
	}{
		{"is tried again while the store is away", []error{fault.New(fault.Unready, "away"), fault.New(fault.Unready, "away")}, 4 * time.Second, cluster.JobSucceeded, "", 1},
		{"is tried again when rights come late", []error{denied, denied}, 4 * time.Second, cluster.JobSucceeded, "", 1},
		{"fails the job when it is denied for good", []error{denied, denied, denied, denied}, time.Minute, cluster.JobFailed, "its outputs are published but could not be copied", 0},
		{"waits for as long as the store is away", []error{fault.New(fault.Unready, "away")}, 0, cluster.JobPublishing, "", 0},
	}
	for _, test := range tests {
		t.Run(test.claim, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bench) {
				b.store.fail = test.fail
				b.submit("digits", program, nil)
				b.report("digits", cluster.TaskSucceeded, 0)
				b.report("digits", cluster.TaskSucceeded, 0)
				b.must("digits", cluster.JobPublishing, "", 0)
				time.Sleep(test.wait)
				b.must("digits", test.state, test.reason, 0)
				if len(b.store.copies) != test.copies {
					t.Errorf("copied %v", b.store.copies)
				}
			})
		})
	}
}

func TestCopiesOnceThoughMuchHappensMeanwhile(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.store.takes = time.Minute
		b.submit("digits", program, nil)
		b.report("digits", cluster.TaskSucceeded, 0)
		b.report("digits", cluster.TaskSucceeded, 0)
		for range 3 {
			job, _ := b.job("digits")
			job.Priority++
			b.propose(command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}})
		}
		b.must("digits", cluster.JobPublishing, "", 0)
		time.Sleep(5 * time.Minute)
		b.must("digits", cluster.JobSucceeded, "", 0)
		if len(b.store.copies) != 1 {
			t.Errorf("copied %v", b.store.copies)
		}
	})
}

func TestNamesThatSeveralInstancesTookAreToldWithTheJob(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.store.clashes = []string{"model.pt of worker-1", "b", "c", "d", "e", "f", "g"}
		b.submit("digits", program, nil)
		b.report("digits", cluster.TaskSucceeded, 0)
		b.report("digits", cluster.TaskSucceeded, 0)
		b.must("digits", cluster.JobSucceeded, "and not model.pt of worker-1, b, c, d, e and 2 more", 0)
	})
}

func TestManyJobsAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		const many = 600
		for i := range many {
			b.submit(fmt.Sprintf("held-%d", i), program, func(j *cluster.Job) { j.Held = true })
		}
		for i := range many {
			b.cancel(fmt.Sprintf("held-%d", i))
		}
		for i := range many {
			b.must(fmt.Sprintf("held-%d", i), cluster.JobCancelled, "", 0)
		}
	})
}

func TestWhatAJobHasMadeEndsWithIt(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.submit("parent", program, nil)
		parent, _ := b.job("parent")
		for _, name := range []string{"parent-a", "parent-b"} {
			now := time.Now().UnixNano()
			job := cluster.Job{
				Name: name, Kind: cluster.KindTraining, Owner: "ann", Queue: "default", Parent: "parent", Spec: []byte(program), State: cluster.JobQueued, Submitted: now,
			}
			record, _ := reconciler.First(job, kinds[job.Kind], now)
			check := command.Change{Expect: parent.Revision, Check: &command.Key{Kind: state.KindJob, ID: "parent"}}
			record.Changes = append([]command.Change{check}, record.Changes...)
			b.propose(record)
		}
		b.must("parent-a", cluster.JobRunning, "", 2)
		parent.Cancel = true
		b.propose(command.Record{Changes: []command.Change{{Expect: parent.Revision, Job: &parent}}})
		b.must("parent-a", cluster.JobStopping, "", 2)
		b.must("parent-b", cluster.JobCancelled, "", 0) // it had waited for room
		for range 2 {
			b.report("parent-a", cluster.TaskStopped, 0)
		}
		b.must("parent-a", cluster.JobCancelled, "", 0)
	})
}
