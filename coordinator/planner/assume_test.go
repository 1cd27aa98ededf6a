package planner

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/solo"
)

// gated is a ledger whose plans wait at a gate, and are counted there by gang.
type gated struct {
	*fickle
	gate  chan struct{}
	came  atomic.Int64 // plans
	there map[string]int
}

func (g *gated) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	if plan, plans := commands[0].(command.CommitPlan); plans {
		for _, p := range plan.Placements {
			g.there[p.Gang]++ // one at a time, between the waits of the bubble
		}
		g.came.Add(1)
		select {
		case <-g.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return g.Ledger.Propose(ctx, commands...)
}

// gatedPlanner runs a planner over a gated ledger with a node of six cores, until the test ends.
func gatedPlanner(t *testing.T, test func(g *gated)) {
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(filepath.Join(t.TempDir(), "state"))
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		g := &gated{fickle: &fickle{Ledger: ledger}, gate: make(chan struct{}), there: map[string]int{}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- New(g, slog.New(slog.DiscardHandler)).Run(ctx) }()
		g.node("n0")
		test(g)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func TestTheNextPlanIsMadeWhileOneIsOnItsWay(t *testing.T) {
	for name, c := range map[string]struct {
		first, second int32 // tasks, which together have all that there is of something
		ask           cluster.Ask
	}{
		"cores":  {4, 2, cluster.Ask{MilliCPU: 1000}},
		"GPUs":   {3, 1, cluster.Ask{MilliCPU: 500, GPUs: 1}},
		"shares": {4, 4, cluster.Ask{MilliCPU: 500, GPUMilli: 500}},
		"ports":  {6, 4, cluster.Ask{MilliCPU: 100, Ports: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			gatedPlanner(t, func(g *gated) {
				g.ask("first", c.first, c.ask)
				synctest.Wait()
				g.ask("second", c.second, c.ask)
				synctest.Wait()
				if g.came.Load() != 2 {
					t.Fatalf("%d plans are on their way, not 2", g.came.Load())
				}
				g.ask("third", 1, c.ask)
				synctest.Wait()
				g.gate <- struct{}{} // one of them is answered, and its nodes are read anew
				synctest.Wait()
				close(g.gate)
				synctest.Wait()
				snapshot, err := g.Read(t.Context(), true)
				if err != nil {
					t.Fatal(err)
				}
				defer snapshot.Close()
				for _, job := range []string{"first", "second"} {
					if gang, _ := snapshot.Gang(job + "/main"); !placed(snapshot, gang) {
						t.Errorf("%s has no tasks", job)
					}
				}
				if g.there["third/main"] > 0 {
					t.Error("the third was given room that the others had on their way")
				}
			})
		})
	}
}

func TestAGangThatChangesWhileItsPlaceIsOnItsWayIsNotPlacedTwice(t *testing.T) {
	gatedPlanner(t, func(g *gated) {
		g.submit("first", 1, 0)
		synctest.Wait()
		g.bump(t.Context(), "first/main") // five cores are left, so there is room to place it again
		synctest.Wait()
		if g.there["first/main"] != 1 {
			t.Fatalf("it is placed %d times before the first answer", g.there["first/main"])
		}
		close(g.gate)
		synctest.Wait()
	})
}
