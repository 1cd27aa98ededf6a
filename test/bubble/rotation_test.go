package bubble_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// In each step of each rotation the leader is cut off: at once, when it has handed the new keyring over, or when the others
// go by it. The next leader goes on from wherever the step was, and the one that was cut off catches up.
func TestARotationGoesOnWhenItsLeaderIsCutOffInTheMiddle(t *testing.T) {
	cuts := map[string]func(w *world, other string, before cluster.Trust) bool{
		"at once": func(*world, string, cluster.Trust) bool { return true },
		"when it is handed over": func(w *world, other string, _ cluster.Trust) bool {
			staged, _ := fs.Glob(os.DirFS(w.folder(other)), "keyring.next-*.json")
			return len(staged) > 0
		},
		"when it is in force": func(w *world, other string, before cluster.Trust) bool {
			now, err := w.trust(other)
			return err == nil && now.Generation > before.Generation
		},
	}
	for name, cut := range cuts {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, &tally{})
				w.found()
				for _, what := range []cluster.Rotation{cluster.RotateGossip, cluster.RotateCA, cluster.RotateData} {
					for _, step := range []cluster.Phase{cluster.PhaseAdd, cluster.PhaseUse, cluster.StepDrop} {
						w.cutDuring(what, step, cut)
					}
				}
				view := w.settled(cluster.Phase(""))
				if len(view.GetCas()) != 1 {
					t.Errorf("%d CAs are trusted at the end", len(view.GetCas()))
				}
				for _, m := range view.GetMembers() {
					if pin := m.GetStatus().GetCaPin(); pin != view.GetCaPin() {
						t.Errorf("the certificate of %s %s comes from %s, and %s signs", m.GetRole(), m.GetId(), pin, view.GetCaPin())
					}
				}
				if len(view.GetMembers()) != 5 {
					t.Errorf("%d members", len(view.GetMembers()))
				}
				for _, id := range coordinators {
					if staged, err := fs.Glob(os.DirFS(w.folder(id)), "keyring.next-*.json"); err != nil || len(staged) > 0 {
						t.Errorf("%s keeps keyrings that are not in force: %v, %v", id, staged, err)
					}
				}
				w.submits("after") // members speak under what is in force
			})
		})
	}
}

// cutDuring takes a step while the leader is cut off, and then for good.
func (w *world) cutDuring(what cluster.Rotation, step cluster.Phase, cut func(*world, string, cluster.Trust) bool) {
	w.Helper()
	w.settled("any")
	leader := w.leader()
	other := coordinators[(slices.Index(coordinators, leader)+1)%len(coordinators)]
	var before cluster.Trust
	w.until("it is known where the rotation is", time.Minute, func() (err error) {
		before, err = w.trust(other)
		return err
	})
	ctx, cancel := context.WithTimeout(w.admin(w.Context()), time.Minute)
	ended := make(chan error, 1)
	go func() {
		_, err := claryv1.NewKeysClient(w.conn(leader)).Rotate(ctx, &claryv1.RotateKeysRequest{What: string(what), Step: string(step)})
		ended <- err
	}()
	for waited := 0; !cut(w, other, before) && waited < 5000; waited++ { // that may have come and gone meanwhile
		time.Sleep(time.Millisecond)
	}
	w.partition(leader)
	w.until("another leads", time.Minute, func() error {
		if now := w.leaderAt(other); now == leader || now == "" {
			return fmt.Errorf("%q leads", now)
		}
		return nil
	})
	// Without the one that is cut off there is no going on, unless it is forced. It is back after a while.
	w.partition()
	cancel()
	<-ended
	want, _ := before.Phase.After(step)
	deadline := time.Now().Add(5 * time.Minute)
	for {
		now, err := w.trust(other)
		if err == nil && now.Generation > before.Generation && now.Phase == want {
			return // it was taken after all, or is now
		}
		_, err = claryv1.NewKeysClient(w.conn(other)).Rotate(w.admin(w.Context()), &claryv1.RotateKeysRequest{What: string(what), Step: string(step)})
		if err = wire.FromStatus(err); err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.Unready) || time.Now().After(deadline) {
			w.Fatalf("%s, %s: %v", what, step, err)
		}
		time.Sleep(2 * time.Second) // of the bubble
	}
}

// settled waits until every member goes by what is in force, in a phase or in "any".
func (w *world) settled(phase cluster.Phase) *claryv1.KeysView {
	w.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for {
		view, err := claryv1.NewKeysClient(w.conn("c1")).Show(w.admin(w.Context()), &claryv1.ShowKeysRequest{})
		settled := err == nil && (phase == "any" || view.GetTrust().GetPhase() == string(phase))
		for _, m := range view.GetMembers() {
			settled = settled && m.GetConfirmed()
		}
		if settled {
			return view
		}
		if time.Now().After(deadline) {
			w.Fatalf("not all go by what is in force: %v, %v", view, err)
		}
		time.Sleep(2 * time.Second) // of the bubble
	}
}

// trust is what is agreed on of the keys.
func (w *world) trust(at string) (cluster.Trust, error) {
	ctx, cancel := context.WithTimeout(w.admin(w.Context()), 5*time.Second)
	defer cancel()
	view, err := claryv1.NewKeysClient(w.conn(at)).Show(ctx, &claryv1.ShowKeysRequest{})
	return wire.TrustFromProto(view.GetTrust()), err
}

func (w *world) leaderAt(at string) string {
	ctx, cancel := context.WithTimeout(w.admin(w.Context()), 5*time.Second)
	defer cancel()
	info, _ := claryv1.NewAdminClient(w.conn(at)).Info(ctx, &claryv1.InfoRequest{})
	return info.GetLeader()
}

// submits sees that work goes through.
func (w *world) submits(name string) {
	w.Helper()
	if _, err := w.jobs("c3").Submit(w.admin(w.Context()), work{name: name, instances: 2, gpus: 1, length: time.Second}.request()); err != nil {
		w.Fatal(err)
	}
	if view := w.ends(name, time.Minute); view.GetJob().GetState() != string(cluster.JobSucceeded) {
		w.Errorf("%v", view.GetJob())
	}
}
