package rpc_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

func (w *world) setLimits(edit func(*cluster.Limits)) {
	w.Helper()
	snapshot, err := w.replica.Read(w.Context(), false)
	if err != nil {
		w.Fatal(err)
	}
	settings := snapshot.Settings()
	snapshot.Close()
	edit(&settings.Limits)
	if _, err := w.replica.Propose(w.Context(), command.Record{Changes: []command.Change{{Settings: &settings, Expect: settings.Revision}}}); err != nil {
		w.Fatal(err)
	}
}

func TestAUserWhoAsksTooOftenIsRefusedAndOthersAreNot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.setLimits(func(l *cluster.Limits) { l.UserRequests, l.UserBurst = 2, 5 })
		ask := func(who string) error {
			_, err := claryv1.NewAdminClient(w.as(who)).WhoAmI(w.Context(), &claryv1.WhoAmIRequest{})
			return wire.FromStatus(err)
		}
		before := w.revision()
		taken := 0
		var refusal error
		for range 20 {
			if err := ask(cluster.RoleUser); err != nil {
				refusal = err
				continue
			}
			taken++
		}
		if taken < 5 || taken > 7 || !fault.Is(refusal, fault.Exhausted) || !strings.Contains(refusal.Error(), "limits.user_requests") {
			w.Errorf("%d of 20 were taken: %v", taken, refusal)
		}
		if err := ask(cluster.RoleAdmin); err != nil {
			w.Errorf("another is refused, too: %v", err)
		}
		if after := w.revision(); after != before {
			w.Errorf("what was refused has changed something: revision %d became %d", before, after)
		}
		time.Sleep(time.Second)
		if err := ask(cluster.RoleUser); err != nil {
			w.Errorf("a second later: %v", err)
		}
		w.setLimits(func(l *cluster.Limits) { l.UserRequests = 0 })
		for range 20 {
			if err := ask(cluster.RoleUser); err != nil {
				w.Fatalf("without a limit: %v", err)
			}
		}
	})
}

func TestStreamsOfAUserAreLimitedAndGiveTheirPlaceBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.setLimits(func(l *cluster.Limits) { l.UserStreams = 2 })
		job := cluster.Job{Name: "one", Kind: cluster.KindProcessing, Owner: "ann", Queue: cluster.DefaultQueue, State: cluster.JobQueued, Attempt: 1}
		if _, err := w.replica.Propose(w.Context(), command.Record{Changes: []command.Change{{Job: &job}}}); err != nil {
			w.Fatal(err)
		}
		watch := func() (end func(), err error) {
			ctx, cancel := context.WithCancel(w.Context())
			stream, err := claryv1.NewJobsClient(w.as(cluster.RoleUser)).Watch(ctx, &claryv1.WatchJobRequest{Name: "one"})
			if err == nil {
				_, err = stream.Recv()
			}
			if err != nil {
				cancel()
			}
			return cancel, wire.FromStatus(err)
		}
		first, err := watch()
		second, err2 := watch()
		if err != nil || err2 != nil {
			w.Fatal(err, err2)
		}
		defer second()
		if _, err := watch(); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "limits.user_streams") {
			w.Errorf("a third stream: %v", err)
		}
		first()
		synctest.Wait()
		third, err := watch()
		if err != nil {
			w.Fatalf("when one has ended: %v", err)
		}
		third()
	})
}

func TestALargeRequestIsRefusedByTheSettings(t *testing.T) {
	inWorld(t, func(w *world) {
		w.setLimits(func(l *cluster.Limits) { l.RequestBytes = 64 << 10 })
		job := &claryv1.Job{Name: "large", Kind: "training", Spec: make([]byte, 70<<10)}
		_, err := claryv1.NewJobsClient(w.as(cluster.RoleUser)).Submit(w.Context(), &claryv1.SubmitRequest{Job: job})
		if err := wire.FromStatus(err); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "limits.request_bytes") {
			w.Error(err)
		}
	})
}
