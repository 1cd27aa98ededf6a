package janitor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/janitor"
	"github.com/clary-ml/clary/storage/object"
)

// begins has a job begin an attempt.
func (h *house) begins(name string, attempt int32) {
	h.Helper()
	snapshot, _ := h.Read(h.Context(), true)
	job, _ := snapshot.Job(name)
	snapshot.Close()
	job.Attempt = attempt
	h.must(command.Change{Job: &job, Expect: job.Revision})
}

// leaves writes files of a task's checkpoints, each "NAME=CONTENT".
func (h *house) leaves(job string, attempt int32, task string, files ...string) {
	for _, file := range files {
		name, content, _ := strings.Cut(file, "=")
		h.store.Write(fmt.Sprintf("s3://clary/jobs/%s/checkpoints/%d/%s/%s", job, attempt, task, name), content, time.Now())
	}
}

// checkpoints are those of a job: "ATTEMPT/TASK/NAME".
func (h *house) checkpoints(job string) []string {
	below := "s3://clary/jobs/" + job + "/checkpoints/"
	var found []string
	for _, uri := range h.store.Below(below) {
		found = append(found, strings.TrimPrefix(uri, below))
	}
	return found
}

func (h *house) left(job string, want ...string) {
	h.Helper()
	if got := h.checkpoints(job); !slices.Equal(got, want) {
		h.Errorf("of %s there are %v, want %v", job, got, want)
	}
}

func TestOfAJobThatBeginsAgainAndAgainTheCheckpointsOfItsLastAttemptsStay(t *testing.T) {
	inHouse(t, func(h *house) {
		h.job("preempted", nil, false)
		for attempt := int32(1); attempt <= 60; attempt++ {
			h.begins("preempted", attempt)
			h.leaves("preempted", attempt, "worker-0", fmt.Sprint("last.pt=", attempt))
			if attempt%2 == 0 { // the other left its last with the attempt before
				h.leaves("preempted", attempt, "worker-1", fmt.Sprint("last.pt=", attempt))
			}
			time.Sleep(20 * time.Minute)
			if n := len(h.checkpoints("preempted")); n > 16 {
				h.Errorf("in attempt %d there are %d checkpoints", attempt, n)
			}
		}
		time.Sleep(2 * time.Hour)
		h.left("preempted", "56/worker-1/last.pt", "58/worker-0/last.pt", "58/worker-1/last.pt", "59/worker-0/last.pt", "60/worker-0/last.pt", "60/worker-1/last.pt")
		if counts := h.janitor.Counts(); counts.Removed[janitor.GoneCheckpoints] != 60+30-6 {
			h.Errorf("it counts %+v", counts)
		}
	})
}

// The agent brings over what it was given file by file: an attempt that ends before that is over has a part of a checkpoint.
func TestAttemptsThatCameNoFurtherPushNoWholeCheckpointOut(t *testing.T) {
	inHouse(t, func(h *house) {
		h.job("stuck", nil, false)
		h.leaves("stuck", 1, "worker-0", "model=1", "state=1")
		h.leaves("stuck", 2, "worker-0", "model=2", "state=2")
		for attempt := int32(3); attempt <= 40; attempt++ {
			h.begins("stuck", attempt)
			h.leaves("stuck", attempt, "worker-0", "model=2")
			time.Sleep(20 * time.Minute)
		}
		time.Sleep(2 * time.Hour)
		h.left("stuck", "2/worker-0/model", "2/worker-0/state", "38/worker-0/model", "39/worker-0/model", "40/worker-0/model")
		h.begins("stuck", 41)
		h.leaves("stuck", 41, "worker-0", "model=3", "state=3")
		time.Sleep(2 * time.Hour)
		h.left("stuck", "39/worker-0/model", "40/worker-0/model", "41/worker-0/model", "41/worker-0/state")
	})
}

// The tasks of an elastic role go on from all that the role had in the attempt in which the first left something last.
func TestWhatTheTasksOfAnElasticRoleGoOnFromStaysWhole(t *testing.T) {
	inHouse(t, func(h *house) {
		h.job("elastic", nil, false)
		for attempt := int32(1); attempt <= 9; attempt++ {
			if attempt <= 4 {
				h.leaves("elastic", attempt, "worker-0", fmt.Sprint("last.pt=", attempt))
			}
			h.leaves("elastic", attempt, "worker-1", fmt.Sprint("shard-1=", attempt))
			h.leaves("elastic", attempt, "worker-2", fmt.Sprint("shard-2=", attempt))
		}
		h.begins("elastic", 9)
		time.Sleep(2 * time.Hour)
		var want []string
		for attempt := 2; attempt <= 9; attempt++ {
			if attempt <= 4 {
				want = append(want, fmt.Sprint(attempt, "/worker-0/last.pt"))
			}
			if attempt <= 4 || attempt > 6 {
				want = append(want, fmt.Sprint(attempt, "/worker-1/shard-1"), fmt.Sprint(attempt, "/worker-2/shard-2"))
			}
		}
		h.left("elastic", want...)
	})
}

func TestCheckpointsThatSomethingNamesStay(t *testing.T) {
	inHouse(t, func(h *house) {
		for _, name := range []string{"named", "whole", "registered", "free"} {
			h.job(name, func(j *cluster.Job) { j.Attempt = 6 }, true)
			for attempt := int32(1); attempt <= 6; attempt++ {
				h.leaves(name, attempt, "worker-0", fmt.Sprint("best.pt=", attempt))
			}
		}
		h.leaves("free", 1, "notes", "of=mine")
		h.store.Write("s3://clary/jobs/free/checkpoints/mine/worker-0/a", "text", time.Now())
		h.job("reader", func(j *cluster.Job) {
			j.Spec = []byte(`{"inputs":["s3:\/\/clary\/jobs\/named\/checkpoints\/2\/worker-0\/best.pt","s3://clary/jobs/free/attempts/1/worker-0/model.tar.gz"],"restore":"s3://clary/jobs/whole/checkpoints/"}`)
		}, false)
		model := cluster.Model{Name: "m", Owner: "ada", Next: 2, Count: 1}
		version := cluster.ModelVersion{
			Model: "m", Number: 1, Owner: "ada", Created: 1, Approval: cluster.Approval{State: cluster.ApprovalPending},
			Artifact: cluster.Output{Name: "model.tar.gz", URI: "s3://clary/models/m/key/model.tar.gz", SHA256: sha, Size: 5},
			Lineage:  cluster.Lineage{Source: "s3://clary/jobs/registered/checkpoints/1/worker-0/best.pt"},
		}
		h.must(command.Change{Model: &model}, command.Change{Version: &version})
		time.Sleep(90 * time.Minute)
		last := []string{"1", "4/worker-0/best.pt", "5/worker-0/best.pt", "6/worker-0/best.pt"} // job leaves the first
		h.left("named", append([]string{"1", "2/worker-0/best.pt"}, last[1:]...)...)
		h.left("registered", append([]string{"1", "1/worker-0/best.pt"}, last[1:]...)...)
		h.left("free", append([]string{"1", "1/notes/of"}, append(last[1:], "mine/worker-0/a")...)...)
		if n := len(h.checkpoints("whole")); n != 7 {
			h.Errorf("of what a job may restore %d are left", n)
		}
		result, err := h.janitor.Sweep(h.Context(), false)
		if err != nil || len(result.Gone) != 0 || len(result.Kept) != 1+3+1 {
			h.Errorf("%+v, %v", result, err)
		}
		for _, kept := range result.Kept {
			by := "needed by job reader"
			if strings.Contains(kept.ID, "/registered/") {
				by = "needed by version m@1 of a model"
			}
			if kept.Kind != janitor.GoneCheckpoints || kept.Why != by {
				h.Errorf("%+v is kept, want %s", kept, by)
			}
		}
	})
}

func TestHowManyAttemptsKeepTheirCheckpointsCanBeSetAndIsSaidBefore(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Checkpoints = 0 })
		h.job("ended", func(j *cluster.Job) { j.Attempt = 9 }, true)
		for attempt := int32(1); attempt <= 9; attempt++ {
			h.leaves("ended", attempt, "param-server-0", fmt.Sprint("a=", attempt), "b=")
		}
		time.Sleep(3 * time.Hour)
		if n := len(h.checkpoints("ended")); n != 19 {
			h.Errorf("%d are left, though all are to be kept", n)
		}
		h.store.Break(errAway)
		h.set(func(s *cluster.Settings) { s.Retention.Checkpoints = 7 })
		result, err := h.janitor.Sweep(h.Context(), false)
		if err != nil || !slices.Equal(ids(result.Gone), []string{"checkpoints s3://clary/jobs/ended/checkpoints/2/param-server-0/", "checkpoints s3://clary/jobs/ended/checkpoints/1/param-server-0/"}) ||
			result.Gone[0].Objects != 2 || result.Gone[0].Why != "param-server-0 left some in 7 attempts after it, and those of the last 7 are kept (retention.checkpoints)" {
			h.Errorf("%+v, %v", result, err)
		}
		h.store.Break(nil)
		if done, err := h.janitor.Sweep(h.Context(), true); err != nil || !slices.Equal(ids(done.Gone), ids(result.Gone)) || done.Gone[1].Bytes != 1 {
			h.Errorf("what was to go is not what went: %+v, %v", done, err)
		}
		if n := len(h.checkpoints("ended")); n != 1+7*2 {
			h.Errorf("of the last 7 attempts of all there are %d", n)
		}
		h.set(func(s *cluster.Settings) { s.Retention.Checkpoints = 2 })
		time.Sleep(time.Second) // at once
		if n := len(h.checkpoints("ended")); n != 1+2*2 {
			h.Errorf("of the last 2 attempts of all there are %d", n)
		}
	})
}

func TestOfAJobWithVeryManyOldAttemptsARoundTakesSome(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Checkpoints = 0 })
		for _, name := range []string{"a", "b"} {
			h.job(name, func(j *cluster.Job) { j.Attempt = 160 }, false)
			for attempt := int32(1); attempt <= 160; attempt++ {
				h.leaves(name, attempt, "worker-0", fmt.Sprint("last.pt=", attempt))
			}
		}
		time.Sleep(2 * time.Hour)
		h.set(func(s *cluster.Settings) { s.Retention.Checkpoints = 3 })
		time.Sleep(100 * time.Millisecond)
		if n := len(h.checkpoints("a")) + len(h.checkpoints("b")); n != 220 {
			h.Errorf("after a round %d of 320 are left", n)
		}
		if result, err := h.janitor.Sweep(h.Context(), false); err != nil || len(result.Gone) != 100 || !result.More {
			h.Errorf("%d would go next, and more: %t; %v", len(result.Gone), result.More, err)
		}
		time.Sleep(3 * time.Second)
		for _, name := range []string{"a", "b"} {
			h.left(name, "158/worker-0/last.pt", "159/worker-0/last.pt", "160/worker-0/last.pt")
		}
	})
}

// Whatever attempts have left: of each task the last ones stay, and the last that came beyond what it began with. Beside these there
// are at most as many that the first task's have kept. A second look finds nothing more, and what came within the hour stays.
func TestOfWhateverAttemptsLeftWhatOneMayGoOnFromStays(t *testing.T) {
	went, beyonds := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		most := int64(rapid.IntRange(2, 4).Draw(t, "most"))
		var left []janitor.Left
		for attempt := range rapid.Int32Range(1, 14).Draw(t, "attempts") {
			for index := range int32(3) {
				if rapid.IntRange(0, 2).Draw(t, "left nothing") > 0 {
					left = append(left, janitor.Left{Attempt: attempt, Role: "worker", Index: index, Beyond: rapid.IntRange(0, 3).Draw(t, "beyond") == 0, Extent: object.Extent{Objects: 1}})
				}
			}
		}
		left = rapid.Permutation(left).Draw(t, "in any order")
		gone := map[string]bool{}
		for _, g := range janitor.SweepCheckpoints("j", left, most, now) {
			gone[g.ID] = true
		}
		goes := func(l janitor.Left) bool {
			return gone[fmt.Sprintf("s3://clary/jobs/j/checkpoints/%d/worker-%d/", l.Attempt, l.Index)]
		}
		went += len(gone)
		slices.SortFunc(left, func(a, b janitor.Left) int { return int(b.Attempt - a.Attempt) })
		seen, beyond, stay := map[int32]int64{}, map[int32]bool{}, map[int32]int64{}
		for _, l := range left {
			last := l.Beyond && !beyond[l.Index]
			if seen[l.Index] < most && goes(l) || last && goes(l) {
				t.Fatalf("%+v goes, of %+v", l, left)
			}
			if last && seen[l.Index] >= most {
				beyonds++
			}
			if seen[l.Index]++; !goes(l) {
				stay[l.Index]++
			}
			beyond[l.Index] = beyond[l.Index] || l.Beyond
		}
		for index, n := range stay {
			if n > 2*(most+1) || index == 0 && n > most+1 {
				t.Fatalf("of worker-%d %d stay: %+v", index, n, left)
			}
		}
		rest := slices.DeleteFunc(slices.Clone(left), goes)
		if again := janitor.SweepCheckpoints("j", rest, most, now); len(again) != 0 {
			t.Fatalf("then %v go, too", again)
		}
		young := slices.Clone(left)
		for i := range young {
			young[i].Newest = time.Unix(0, now).Add(-time.Hour)
		}
		if too := janitor.SweepCheckpoints("j", young, most, now); len(too) != 0 {
			t.Fatalf("%v go, and came within the hour", too)
		}
	})
	if went == 0 || beyonds == 0 {
		t.Errorf("%d went, %d stayed for having come beyond: not all was tried", went, beyonds)
	}
}
