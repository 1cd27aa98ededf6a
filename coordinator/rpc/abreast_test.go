package rpc_test

import (
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

func TestWhoFollowsACoordinatorThatStandsStillIsSentOn(t *testing.T) {
	inWorld(t, func(w *world) {
		begun := func(from stream) stream {
			w.Helper()
			_ = from.Send(hello("n1"))
			if first, err := from.Recv(); err != nil || first.GetWelcome() == nil {
				w.Fatalf("welcomed with %v, %v", first, err)
			}
			return from
		}
		agent := begun(w.connect("agent n1"))
		if _, err := w.submit(cluster.RoleUser, func(job *cluster.Job) { job.Held = true }); err != nil {
			w.Fatal(err)
		}
		watching, err := claryv1.NewJobsClient(w.as(cluster.RoleViewer)).Watch(w.Context(), &claryv1.WatchJobRequest{Name: "digits"})
		if err != nil {
			w.Fatal(err)
		}
		if _, err := watching.Recv(); err != nil {
			w.Fatal(err)
		}
		beats := func(times int) {
			for n := range times {
				time.Sleep(time.Second)
				_ = agent.Send(beat(uint64(n + 1)))
			}
		}
		answered := func() error {
			for {
				if _, err := agent.Recv(); err != nil {
					return wire.FromStatus(err)
				}
			}
		}

		beats(60) // it keeps up, though nothing is written
		w.still.Store(true)
		stopped, ended := time.Now(), make(chan error, 1)
		go func() { ended <- answered() }()
		beats(8)
		select {
		case err := <-ended:
			if !fault.Is(err, fault.Unready) || time.Since(stopped) >= cluster.LeaseTime {
				w.Errorf("after %s: %v", time.Since(stopped), err)
			}
		case <-time.After(time.Minute):
			w.Fatal("an agent is not sent on")
		}
		if _, err := watching.Recv(); !fault.Is(wire.FromStatus(err), fault.Unready) {
			w.Errorf("who watches a job: %v", err)
		}
		refused := w.connect("agent n1")
		_ = refused.Send(hello("n1"))
		if _, err := refused.Recv(); !fault.Is(wire.FromStatus(err), fault.Unready) {
			w.Errorf("whoever comes then: %v", err)
		}
		if _, err := claryv1.NewAdminClient(w.as(cluster.RoleViewer)).WhoAmI(w.Context(), &claryv1.WhoAmIRequest{}); err != nil {
			w.Errorf("who follows nothing: %v", err)
		}

		w.still.Store(false)
		time.Sleep(cluster.LeaseTime)
		begun(w.connect("agent n1"))
	})
}
