package rpc_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

func TestTheSameSubmissionTwiceIsOneJob(t *testing.T) {
	requested := func(j *cluster.Job) { j.RequestID = "r1" }
	unnamed := func(id string) func(*cluster.Job) {
		return func(j *cluster.Job) { j.Name, j.RequestID = "", id }
	}
	otherSpec := func(j *cluster.Job) { j.Spec = []byte(`{"program": {"command": ["false"]}}`) }
	cases := []struct {
		name          string
		first, second func(*cluster.Job)
		as            string // who submits the second
		jobs          int
		want          string // in the second's refusal; "" is: existed, or another job
	}{
		{"the same request", requested, requested, cluster.RoleUser, 1, ""},
		{"the same content without a request", nil, nil, cluster.RoleUser, 1, ""},
		{"the same request without a name", unnamed("r1"), unnamed("r1"), cluster.RoleUser, 1, ""},
		{"two requests without a name", unnamed("r1"), unnamed("r2"), cluster.RoleUser, 2, ""},
		{"one request, unnamed, of two users", unnamed("r1"), unnamed("r1"), cluster.RoleAdmin, 2, ""},
		{"a name for another request", requested, func(j *cluster.Job) { j.RequestID = "r2" }, cluster.RoleUser, 1, "choose another name"},
		{"a name for other content", nil, otherSpec, cluster.RoleUser, 1, "choose another name"},
		{"another user's name", nil, nil, cluster.RoleAdmin, 1, "submitted by the-user"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				first, err := w.submit(cluster.RoleUser, c.first)
				if err != nil || first.GetExisted() {
					w.Fatal(first, err)
				}
				second, err := w.submit(c.as, c.second)
				switch {
				case c.want != "":
					if !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), c.want) {
						w.Errorf("the second: %v", err)
					}
				case err != nil || second.GetExisted() != (c.jobs == 1) || c.jobs == 1 && second.GetJob().GetName() != first.GetJob().GetName():
					w.Errorf("the first %v, the second %v, %v", first, second, err)
				}
				list, err := claryv1.NewJobsClient(w.as(cluster.RoleViewer)).List(w.Context(), &claryv1.ListJobsRequest{})
				if err != nil || len(list.GetJobs()) != c.jobs {
					w.Errorf("%d jobs, %v", len(list.GetJobs()), err)
				}
			})
		})
	}
}

func TestABadSubmissionIsRefusedWithEveryMistakeAndChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.propose(command.PutNode{Node: cluster.Node{ID: "n1", Address: "10.0.0.9", State: cluster.NodeReady, MilliCPU: 4000, Memory: 8 << 30}})
		time.Sleep(time.Second) // the cache of nodes follows
		before := w.revision()
		spec := func(text string) func(*cluster.Job) { return func(j *cluster.Job) { j.Spec = []byte(text) } }
		for _, c := range []struct {
			name   string
			change func(*cluster.Job)
			kind   fault.Kind
			wants  []string
		}{
			{"three mistakes at once", func(j *cluster.Job) {
				j.Priority, j.MaxRuntime, j.Spec = 5000, -time.Second, []byte(`{"program": {"command": []}, "epochs": 3}`)
			}, fault.Invalid, []string{"priority", "max_runtime", "spec.program.command"}},
			{"a spec that is no JSON", spec(`{`), fault.Invalid, []string{"spec"}},
			{"an empty spec", spec(``), fault.Invalid, []string{"spec"}},
			{"a field that does not exist", spec(`{"program": {"command": ["true"]}, "epoch": 3}`), fault.Invalid, []string{"spec.epoch"}},
			{"too many cores for any node", spec(`{"program": {"command": ["true"]}, "resources": {"cores": 64}}`), fault.Exhausted, []string{"could never run", "n"}},
			{"more instances than fit together", spec(`{"program": {"command": ["true"]}, "instances": 9, "resources": {"cores": 1}}`), fault.Exhausted, []string{"could never run"}},
			{"a kind nobody knows", func(j *cluster.Job) { j.Kind = "poetry" }, fault.Invalid, []string{"kind", `"poetry"`, "training"}},
			{"a spec that is too large", spec(`"` + strings.Repeat("x", cluster.MaxSpec) + `"`), fault.Invalid, []string{"spec", "at most"}},
			{"a queue that does not exist", func(j *cluster.Job) { j.Queue = "nowhere" }, fault.Invalid, []string{"nowhere"}},
			{"no name and no request", func(j *cluster.Job) { j.Name = "" }, fault.Invalid, []string{"name", "request_id"}},
			{"a name that is a path", func(j *cluster.Job) { j.Name = "../etc" }, fault.Invalid, []string{"name"}},
			{"a name in capitals and spaces", func(j *cluster.Job) { j.Name = "My Job" }, fault.Invalid, []string{"name"}},
			{"a name of a thousand letters", func(j *cluster.Job) { j.Name = strings.Repeat("a", 1000) }, fault.Invalid, []string{"name"}},
		} {
			_, err := w.submit(cluster.RoleUser, c.change)
			if !fault.Is(err, c.kind) {
				w.Errorf("%s: %v (%v), want %v", c.name, err, fault.KindOf(err), c.kind)
				continue
			}
			for _, want := range c.wants {
				if !strings.Contains(err.Error(), want) {
					w.Errorf("%s: %v does not name %s", c.name, err, want)
				}
			}
			if len(err.Error()) > 2000 {
				w.Errorf("%s: a message of %d bytes", c.name, len(err.Error()))
			}
		}
		if after := w.revision(); after != before {
			w.Errorf("the state went from revision %d to %d", before, after)
		}
	})
}

func (w *world) revision() uint64 {
	w.Helper()
	snapshot, err := w.replica.Read(w.Context(), false)
	if err != nil {
		w.Fatal(err)
	}
	defer snapshot.Close()
	return snapshot.Revision()
}

func TestAMessageThatIsTooLargeIsRefusedAndTheNextOneIsNot(t *testing.T) {
	inWorld(t, func(w *world) {
		conn := w.as(cluster.RoleUser)
		huge := &claryv1.SubmitRequest{Job: &claryv1.Job{Name: "huge", Spec: make([]byte, 17<<20)}}
		_, err := claryv1.NewJobsClient(conn).Submit(w.Context(), huge)
		if status.Code(err) != codes.ResourceExhausted {
			w.Errorf("17 MiB: %v", err)
		}
		if _, err := claryv1.NewJobsClient(conn).List(w.Context(), &claryv1.ListJobsRequest{}); err != nil {
			w.Errorf("after it: %v", err)
		}
	})
}

func TestOnlyOwnersAndAdminsChangeAJob(t *testing.T) {
	inWorld(t, func(w *world) {
		w.users["other"] = w.user("other", cluster.RoleUser)
		for name, change := range map[string]func(claryv1.JobsClient, string) error{
			"release": func(jobs claryv1.JobsClient, job string) error {
				_, err := jobs.Release(w.Context(), &claryv1.ReleaseJobRequest{Name: job})
				return err
			},
			"cancel": func(jobs claryv1.JobsClient, job string) error {
				_, err := jobs.Cancel(w.Context(), &claryv1.CancelJobRequest{Name: job})
				return err
			},
		} {
			for _, who := range []string{"other", cluster.RoleUser, cluster.RoleAdmin} {
				job := name + "-" + who
				if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name, j.Held = job, true }); err != nil {
					w.Fatal(err)
				}
				err := wire.FromStatus(change(claryv1.NewJobsClient(w.as(who)), job))
				if denied := fault.Is(err, fault.Denied); denied != (who == "other") || !denied && err != nil {
					w.Errorf("%s by %s: %v", name, who, err)
				}
			}
		}
		jobs := claryv1.NewJobsClient(w.as(cluster.RoleUser))
		if _, err := jobs.Delete(w.Context(), &claryv1.DeleteJobRequest{Name: "release-other"}); !fault.Is(wire.FromStatus(err), fault.Conflict) {
			w.Errorf("delete of a job that has not ended: %v", err)
		}
		if _, err := jobs.Get(w.Context(), &claryv1.GetJobRequest{Name: strings.Repeat("z", 5000)}); !fault.Is(wire.FromStatus(err), fault.NotFound) || len(err.Error()) > 300 {
			w.Errorf("get of a job that does not exist: %v", err)
		}
	})
}

func TestAListOfJobsInPagesHasEachOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 7 {
			if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name = "job-" + string(rune('a'+i)) }); err != nil {
				w.Fatal(err)
			}
		}
		jobs, seen, after := claryv1.NewJobsClient(w.as(cluster.RoleViewer)), "", ""
		for range 10 {
			list, err := jobs.List(w.Context(), &claryv1.ListJobsRequest{Limit: 3, After: after})
			if err != nil {
				w.Fatal(err)
			}
			for _, job := range list.GetJobs() {
				seen += strings.TrimPrefix(job.GetName(), "job-")
			}
			if after = list.GetNext(); after == "" {
				break
			}
		}
		if seen != "abcdefg" {
			w.Errorf("seen %s", seen)
		}
	})
}
