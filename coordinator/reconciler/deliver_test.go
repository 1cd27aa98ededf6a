package reconciler_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
)

// publishing submits a job and brings it to where its outputs are copied.
func (b *bench) publishing(name string) {
	b.t.Helper()
	b.submit(name, program, nil)
	b.report(name, cluster.TaskSucceeded, 0)
	b.report(name, cluster.TaskSucceeded, 0)
	b.must(name, cluster.JobPublishing, "", 0)
}

func TestAJobIsCancelledOnceNothingMoreIsCopiedForIt(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		var asked atomic.Bool
		last := make(chan struct{})
		b.store.during = func(ctx context.Context) error {
			<-ctx.Done()
			asked.Store(true)
			<-last // of what was on its way
			return ctx.Err()
		}
		b.publishing("digits")
		b.cancel("digits")
		synctest.Wait()
		if !asked.Load() {
			t.Error("the copying of a cancelled job goes on")
		}
		b.must("digits", cluster.JobPublishing, "", 0)
		close(last)
		b.must("digits", cluster.JobCancelled, "", 0)
		if len(b.store.copies) != 0 {
			t.Errorf("copied %v", b.store.copies)
		}
	})
}

func TestALaterJobOfTheSameNameCopiesForItself(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		first := make(chan error)
		calls := 0
		b.store.during = func(context.Context) error {
			if calls++; calls == 1 {
				return <-first
			}
			return nil
		}
		b.publishing("digits")
		job, _ := b.job("digits") // ended by somebody else
		job.State, job.Ended = cluster.JobFailed, time.Now().UnixNano()
		b.propose(command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &job}}})
		job, _ = b.job("digits")
		b.propose(command.Record{Changes: []command.Change{{Expect: job.Revision, Delete: &command.Key{Kind: state.KindJob, ID: "digits"}}}})
		b.publishing("digits")
		if calls != 1 {
			t.Errorf("it copies while that is not over for the earlier one")
		}
		first <- nil
		b.must("digits", cluster.JobSucceeded, "", 0)
		if calls != 2 || len(b.store.copies) != 2 {
			t.Errorf("copied %d times: %v", calls, b.store.copies)
		}
	})
}
