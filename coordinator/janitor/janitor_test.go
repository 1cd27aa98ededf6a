package janitor_test

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
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/janitor"
	"github.com/clary-ml/clary/coordinator/registry/registrytest"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/internal/fault"
)

// house is a janitor on a ledger and a store.
type house struct {
	*testing.T
	*solo.Ledger
	store   *registrytest.Store
	janitor *janitor.Janitor
}

// day is short: a round is every minute, and days of them take long.
const day = time.Hour

func inHouse(t *testing.T, test func(*house)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(filepath.Join(t.TempDir(), "state.db"))
		if err != nil {
			t.Fatal(err)
		}
		h := &house{T: t, Ledger: ledger, store: registrytest.New()}
		h.janitor = janitor.New(janitor.Config{
			Now:    time.Now,
			Ledger: ledger, Jobs: disposal.New(ledger, func() (disposal.Store, error) { return h.store, nil }),
			Store: func() (janitor.Store, error) { return h.store, nil }, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- h.janitor.Run(ctx) }()
		test(h)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := ledger.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (h *house) must(changes ...command.Change) {
	h.Helper()
	if _, err := h.Propose(h.Context(), command.Record{Changes: changes}); err != nil {
		h.Fatal(err)
	}
}

// job makes a job that has left a checkpoint, and ends it.
func (h *house) job(name string, edit func(*cluster.Job), end bool) {
	h.Helper()
	job := cluster.Job{Name: name, Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1, Submitted: time.Now().UnixNano()}
	if edit != nil {
		edit(&job)
	}
	h.must(command.Change{Job: &job})
	for _, state := range []cluster.JobState{cluster.JobRunning, cluster.JobFailed} {
		if state == cluster.JobFailed && !end {
			return
		}
		snapshot, _ := h.Read(h.Context(), true)
		job, _ = snapshot.Job(name)
		snapshot.Close()
		if job.State = state; state == cluster.JobRunning {
			job.Started = time.Now().UnixNano()
		} else {
			job.Ended = time.Now().UnixNano()
		}
		h.must(command.Change{Job: &job, Expect: job.Revision})
	}
	h.store.Write("s3://clary/jobs/"+name+"/checkpoints/1", "weights", time.Now())
}

// there are the names of jobs and the folders of the store.
func (h *house) there() string {
	snapshot, err := h.Read(h.Context(), true)
	if err != nil {
		h.Fatal(err)
	}
	defer snapshot.Close()
	var found []string
	for job := range snapshot.Jobs("") {
		found = append(found, job.Name)
	}
	for _, uri := range h.store.Below("s3://clary/") {
		parts := strings.Split(uri, "/")
		found = append(found, strings.Join(parts[3:len(parts)-1], "/"))
	}
	return strings.Join(found, " ")
}

func (h *house) set(edit func(*cluster.Settings)) {
	snapshot, _ := h.Read(h.Context(), true)
	settings := snapshot.Settings()
	snapshot.Close()
	edit(&settings)
	h.must(command.Change{Settings: &settings, Expect: settings.Revision})
}

func TestJobsThatEndedLongAgoAreArchivedAndWhatTheyLeftStays(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Jobs = 10 * day })
		h.job("old", nil, true)
		time.Sleep(9 * day)
		h.job("young", nil, true)
		time.Sleep(day + 2*time.Minute)
		if got := h.there(); got != "young jobs/old/checkpoints jobs/old jobs/young/checkpoints" {
			h.Errorf("after ten days there are %s", got)
		}
		time.Sleep(300 * day)
		if got := h.there(); got != "jobs/old/checkpoints jobs/old jobs/young/checkpoints jobs/young" {
			h.Errorf("long after there are %s", got)
		}
		snapshot, _ := h.Read(h.Context(), true)
		defer snapshot.Close()
		for row := range snapshot.ArchivedJobs("old") {
			if row.Name != "young" || row.Owner != "ada" || row.State != cluster.JobFailed || row.Ended == 0 || row.At < row.Ended+int64(10*day) {
				h.Errorf("of the other stays %+v", row)
			}
		}
		taken := cluster.Job{Name: "old", Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
		if _, err := h.Propose(h.Context(), command.Record{Changes: []command.Change{{Job: &taken}}}); !fault.Is(err, fault.Conflict) {
			h.Errorf("another job takes the name of one that is archived: %v", err)
		}
		h.set(func(s *cluster.Settings) { s.Retention.Outputs = 312 * day })
		time.Sleep(2 * day)
		if got := h.there(); got != "jobs/young/checkpoints jobs/young" {
			h.Errorf("when what ended jobs left is kept for less there are %s", got)
		}
		h.must(command.Change{Job: &taken}) // its name is free again
	})
}

func TestJobsGoWithAllThatTheyLeftIfSomebodyHasSetThat(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Jobs, s.Retention.Outputs = 0, 10*day })
		h.job("old", nil, true)
		h.job("read", nil, true)
		h.job("reader", func(j *cluster.Job) { j.Spec = []byte(`{"inputs":["s3://clary/jobs/read/attempts/1/output.tar.gz"]}`) }, false)
		time.Sleep(9 * day)
		h.job("young", nil, true)
		if got := h.there(); got != "old read reader young jobs/old/checkpoints jobs/read/checkpoints jobs/young/checkpoints" {
			h.Fatalf("after nine days there are %s", got)
		}
		time.Sleep(day + 2*time.Minute)
		if got := h.there(); got != "read reader young jobs/read/checkpoints jobs/young/checkpoints" {
			h.Errorf("after ten days there are %s", got)
		}
		result, err := h.janitor.Sweep(h.Context(), false)
		if err != nil || len(result.Gone) != 0 || len(result.Kept) != 1 || result.Kept[0].Why != "needed by job reader" {
			h.Errorf("a dry run says %+v, %v", result, err)
		}
	})
}

func TestADryRunRemovesNothing(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Outputs = day })
		h.store.Break(fault.New(fault.Unready, "the store is away"))
		h.job("old", nil, true)
		time.Sleep(2 * day) // the store is away: nothing goes
		before := h.there()
		result, err := h.janitor.Sweep(h.Context(), false)
		if err != nil || len(result.Gone) != 1 || h.there() != before {
			h.Errorf("%+v, %v: there was %s and is %s", result, err, before, h.there())
		}
		if _, err := h.janitor.Sweep(h.Context(), true); !fault.Is(err, fault.Unready) || h.there() != before {
			h.Errorf("%v: there was %s and is %s", err, before, h.there())
		}
		h.store.Break(nil)
		result, err = h.janitor.Sweep(h.Context(), true)
		if err != nil || !slices.Equal(ids(result.Gone), []string{"job old"}) || h.there() != "" {
			h.Errorf("%+v, %v: there is %s", result, err, h.there())
		}
	})
}

func TestWhatIsSetHoldsAtOnce(t *testing.T) {
	inHouse(t, func(h *house) {
		h.job("old", nil, true)
		time.Sleep(2*day + 10*time.Second) // somewhere between two rounds
		h.set(func(s *cluster.Settings) { s.Retention.Jobs = day })
		time.Sleep(time.Second)
		if got := h.there(); got != "jobs/old/checkpoints jobs/old" {
			h.Errorf("a second after jobs are at hand for a day there are %s", got)
		}
		h.set(func(s *cluster.Settings) { s.Retention.Outputs = day })
		time.Sleep(time.Second)
		if got := h.there(); got != "" {
			h.Errorf("a second after outputs are kept for a day there are %s", got)
		}
	})
}

func TestManyJobsGoARoundAtATime(t *testing.T) {
	inHouse(t, func(h *house) {
		for i := range 350 {
			h.job(fmt.Sprintf("j%03d", i), nil, true)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * day)
		h.set(func(s *cluster.Settings) { s.Retention.JobsMost = 20 })
		count := func() int {
			return len(slices.DeleteFunc(strings.Fields(h.there()), func(name string) bool { return strings.Contains(name, "/") }))
		}
		time.Sleep(time.Minute)
		if n := count(); n > 250 || n < 20 {
			h.Errorf("%d jobs are left after a minute", n)
		}
		time.Sleep(10 * time.Second)
		if n := count(); n != 20 {
			h.Errorf("%d jobs are left", n)
		}
		if !strings.HasPrefix(h.there(), "j330 ") {
			h.Errorf("the last jobs are not those that are left: %s", h.there())
		}
	})
}

func TestObjectsThatNothingNamesGoOnceTheyAreOld(t *testing.T) {
	inHouse(t, func(h *house) {
		h.set(func(s *cluster.Settings) { s.Retention.Orphans = 7 * day })
		h.job("here", nil, false)
		h.job("ended", nil, true)
		for _, folder := range []string{"jobs/gone/attempts/1", "jobs/here/attempts/1", "models/m/abc", "mine/data"} {
			h.store.Write("s3://clary/"+folder+"/x", "bytes", time.Now())
		}
		time.Sleep(6 * day)
		h.store.Write("s3://clary/jobs/late/attempts/1/log", "bytes", time.Now())
		time.Sleep(2 * day)
		if got := h.there(); got != "ended here jobs/ended/checkpoints jobs/here/attempts/1 jobs/late/attempts/1 mine/data" {
			h.Errorf("there are %s", got)
		}
		time.Sleep(6 * day)
		if got := h.there(); strings.Contains(got, "late") {
			h.Errorf("there are %s", got)
		}
	})
}
