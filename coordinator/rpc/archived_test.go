package rpc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// archive takes an ended job out of the state as the janitor does.
func (w *world) archive(name string) {
	w.Helper()
	snapshot, err := w.replica.Read(w.Context(), false)
	if err != nil {
		w.Fatal(err)
	}
	job, _ := snapshot.Job(name)
	_ = snapshot.Close()
	attic := disposal.New(w.replica, func() (disposal.Store, error) { return w.artifacts, nil })
	if err := attic.Archive(w.Context(), job, time.Now().UnixNano()); err != nil {
		w.Fatal(err)
	}
}

func TestAnArchivedJobIsShownListedAndKeepsItsName(t *testing.T) {
	inWorld(t, func(w *world) {
		user, other := claryv1.NewJobsClient(w.as(cluster.RoleUser)), claryv1.NewJobsClient(w.as(w.user("eve", cluster.RoleUser)))
		for _, name := range []string{"digits", "stays"} {
			if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name = name }); err != nil {
				w.Fatal(err)
			}
			if _, err := user.Cancel(w.Context(), &claryv1.CancelJobRequest{Name: name, Reason: "it was wrong"}); err != nil {
				w.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // they end
		before, err := user.Get(w.Context(), &claryv1.GetJobRequest{Name: "digits"})
		if err != nil || before.GetJob().GetEnded() == 0 || before.GetArchived() != 0 {
			w.Fatal(before, err)
		}
		w.archive("digits")

		after, err := user.Get(w.Context(), &claryv1.GetJobRequest{Name: "digits"})
		if err != nil || after.GetArchived() == 0 || after.GetJob().GetReason() != before.GetJob().GetReason() || after.GetJob().GetSubmitted() != before.GetJob().GetSubmitted() || string(after.GetJob().GetSpec()) != string(before.GetJob().GetSpec()) ||
			len(after.GetGangs()) != len(before.GetGangs()) || len(after.GetGangs()) == 0 {
			w.Errorf("it is shown as %v, %v", after, err)
		}
		names := func(request *claryv1.ListJobsRequest) (names []string) {
			list, err := user.List(w.Context(), request)
			if err != nil {
				w.Error(err)
			}
			for _, job := range list.GetJobs() {
				names = append(names, job.GetName()+" "+job.GetState()+" "+job.GetOwner())
			}
			return names
		}
		if got := strings.Join(names(&claryv1.ListJobsRequest{}), ","); got != "stays cancelled the-user" {
			w.Errorf("jobs at hand: %s", got)
		}
		if got := strings.Join(names(&claryv1.ListJobsRequest{Archived: true, States: []string{"cancelled"}}), ","); got != "digits cancelled the-user" {
			w.Errorf("archived jobs: %s", got)
		}
		if got := names(&claryv1.ListJobsRequest{Archived: true, Owner: "eve"}); len(got) != 0 {
			w.Errorf("archived jobs of another: %s", got)
		}
		if _, err := user.List(w.Context(), &claryv1.ListJobsRequest{Archived: true, Labels: map[string]string{"a": "b"}}); !fault.Is(wire.FromStatus(err), fault.Invalid) {
			w.Errorf("labels of archived jobs are searched: %v", err)
		}
		stream, err := user.Watch(w.Context(), &claryv1.WatchJobRequest{Name: "digits"})
		if err != nil {
			w.Fatal(err)
		}
		if view, err := stream.Recv(); err != nil || view.GetJob().GetState() != "cancelled" {
			w.Errorf("whoever waits for it hears %v, %v", view, err)
		}

		if _, err := w.submit(cluster.RoleUser, nil); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "archived") {
			w.Errorf("its name is taken by another: %v", err)
		}
		if _, err := other.Delete(w.Context(), &claryv1.DeleteJobRequest{Name: "digits"}); !fault.Is(wire.FromStatus(err), fault.Denied) {
			w.Errorf("another deletes it: %v", err)
		}
		if _, err := user.Cancel(w.Context(), &claryv1.CancelJobRequest{Name: "digits"}); !fault.Is(wire.FromStatus(err), fault.NotFound) || !strings.Contains(err.Error(), "was archived at") {
			w.Errorf("it is cancelled: %v", err)
		}
		if _, err := user.Delete(w.Context(), &claryv1.DeleteJobRequest{Name: "digits"}); err != nil {
			w.Error(err)
		}
		if left := w.artifacts.Below("s3://clary/jobs/digits/"); len(left) != 0 {
			w.Errorf("after it was deleted there are %q", left)
		}
		if _, err := user.Get(w.Context(), &claryv1.GetJobRequest{Name: "digits"}); !fault.Is(wire.FromStatus(err), fault.NotFound) {
			w.Errorf("after it was deleted it is shown: %v", err)
		}
		if _, err := w.submit(cluster.RoleUser, nil); err != nil {
			w.Errorf("its name is free, and refused: %v", err)
		}
	})
}

func TestWhatAnArchivedSweepLeftKeepsItsNames(t *testing.T) {
	inWorld(t, func(w *world) {
		d := w.study(study, nil)
		if _, err := claryv1.NewJobsClient(w.as(cluster.RoleUser)).Cancel(w.Context(), &claryv1.CancelJobRequest{Name: "study"}); err != nil {
			w.Fatal(err)
		}
		time.Sleep(time.Minute) // it ends
		w.archive("study")
		if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name = "study-t4" }); !fault.Is(err, fault.Conflict) {
			w.Errorf("a job takes the name of a trial of it: %v", err)
		}
		_, err := w.submit(cluster.RoleUser, func(j *cluster.Job) {
			j.Name, j.Kind, j.Spec = "next", cluster.KindTuning, []byte(strings.Replace(study, `"seed": 3`, `"seed": 3, "warm_start": ["study"]`, 1))
		})
		if err == nil || !strings.Contains(err.Error(), `spec.warm_start[0]: sweep "study" is archived`) {
			w.Errorf("a sweep learns from it: %v", err)
		}
		_, err = d.api.Get(w.Context(), &claryv1.GetSweepRequest{Name: "study"})
		if !fault.Is(wire.FromStatus(err), fault.NotFound) || !strings.Contains(err.Error(), "s3://clary/jobs/study/record.jsonl.gz") {
			w.Errorf("its trials are shown: %v", err)
		}
	})
}

func TestTheLogsOfAnArchivedJobAreRead(t *testing.T) {
	inWorld(t, func(w *world) {
		w.node("n1", 1)
		tasks, began := w.starts("digits", 1, "n1")
		w.archived(tasks[0], true, at(began, 1, "stdout", "begun"), at(began, 2, "stdout", "no such file"))
		w.propose(command.ReportTasks{Node: "n1", Reports: []command.TaskReport{{
			Task: tasks[0].ID, Status: cluster.TaskStatus{State: cluster.TaskFailed, ExitCode: 3, Started: began.UnixNano(), Ended: time.Now().UnixNano()},
		}}})
		time.Sleep(time.Minute) // it ends
		w.archive("digits")
		w.wants(&claryv1.LogsRequest{}, []string{"worker-0.1 begun", "worker-0.1 no such file"})
		w.wants(&claryv1.LogsRequest{Follow: true, Tail: 1}, []string{"worker-0.1 no such file"})
	})
}
