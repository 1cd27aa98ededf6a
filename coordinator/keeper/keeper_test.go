package keeper_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/keeper"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/internal/fault"
)

// bench is a keeper on a ledger with nodes.
type bench struct {
	*testing.T
	*solo.Ledger
	keeper *keeper.Keeper
}

func newBench(t *testing.T, ids ...string) *bench {
	t.Helper()
	ledger, err := solo.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ledger.Close() })
	b := &bench{T: t, Ledger: ledger}
	b.keeper = keeper.New(ledger, b.nodes, slog.New(slog.DiscardHandler))
	for _, id := range ids {
		b.introduce(id)
	}
	return b
}

func (b *bench) introduce(id string) {
	b.Helper()
	if _, err := b.Propose(b.Context(), command.PutNode{Node: cluster.Node{ID: id, Address: "10.0.0.1", State: cluster.NodeReady}}); err != nil {
		b.Fatal(err)
	}
}

func (b *bench) nodes() []cluster.Node {
	snapshot, err := b.Read(context.Background(), true)
	if err != nil {
		b.Fatal(err)
	}
	defer snapshot.Close()
	return slices.Collect(snapshot.Nodes())
}

// lead lets the keeper run until the returned function is called.
func (b *bench) lead() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.keeper.Run(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			b.Error(err)
		}
	}
}

func (b *bench) state(id string) cluster.NodeState {
	for _, node := range b.nodes() {
		if node.ID == id {
			return node.State
		}
	}
	return ""
}

func (b *bench) beat(ids ...string) []string {
	b.Helper()
	unknown, err := b.keeper.Beat(ids)
	if err != nil {
		b.Fatal(err)
	}
	return unknown
}

func TestANodeIsLostWhenItsLeaseRunsOutAndNoSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "silent", "alive")
		defer b.lead()()
		for range 3 * int(cluster.LeaseTime/time.Second) {
			if since := time.Since(start(t)); since <= cluster.LeaseTime && b.state("silent") != cluster.NodeReady {
				t.Fatalf("lost after %s", since)
			}
			b.beat("alive")
			time.Sleep(time.Second)
		}
		if b.state("silent") != cluster.NodeLost || b.state("alive") != cluster.NodeReady {
			t.Errorf("silent is %s, alive is %s", b.state("silent"), b.state("alive"))
		}
		if again := b.beat("silent", "stranger", "alive"); !slices.Equal(again, []string{"silent", "stranger"}) {
			t.Errorf("%v must introduce themselves again", again)
		}
		b.introduce("silent")
		if again := b.beat("silent"); len(again) > 0 || b.state("silent") != cluster.NodeReady {
			t.Errorf("introduced again, it is %s, and must do so again: %v", b.state("silent"), again)
		}
	})
}

// start is when every bubble begins.
func start(t *testing.T) time.Time {
	t.Helper()
	return time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
}

func TestANewLeaderGrantsEveryNodeAFullLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "n1")
		stop := b.lead()
		time.Sleep(cluster.LeaseTime - time.Second)
		stop()
		if _, err := b.keeper.Beat([]string{"n1"}); !fault.Is(err, fault.Unready) {
			t.Errorf("a keeper that does not lead answers %v", err)
		}
		time.Sleep(10 * cluster.LeaseTime) // nobody leads
		defer b.lead()()
		time.Sleep(cluster.LeaseTime - time.Millisecond)
		if b.state("n1") != cluster.NodeReady {
			t.Error("lost before the new leader's lease was over")
		}
		time.Sleep(cluster.LeaseTime / 5)
		if b.state("n1") != cluster.NodeLost {
			t.Error("not lost although it never beat")
		}
	})
}

func TestANodeThatTheLeaderMeetsLaterHasALeaseFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.lead()()
		time.Sleep(3 * cluster.LeaseTime)
		b.introduce("late")
		if again := b.beat("late"); len(again) > 0 {
			t.Errorf("its first beat is answered with %v", again)
		}
		time.Sleep(cluster.LeaseTime)
		if b.state("late") != cluster.NodeReady {
			t.Error("lost within its first lease")
		}
	})
}

func TestALeaderThatStoodStillBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "silent", "alive")
		slow := true
		b.Before = func([]command.Command) error { // the process hangs, as when its machine swaps
			if slow {
				slow = false
				time.Sleep(3 * cluster.LeaseTime)
			}
			return nil
		}
		defer b.lead()()
		for range int(cluster.LeaseTime / time.Second) {
			b.beat("alive")
			time.Sleep(time.Second)
		}
		time.Sleep(3*cluster.LeaseTime + cluster.LeaseTime/2) // alive has not been heard for so long
		if b.state("alive") != cluster.NodeReady || b.state("silent") != cluster.NodeLost {
			t.Errorf("alive is %s, silent is %s", b.state("alive"), b.state("silent"))
		}
	})
}

// A beat that is taken renews the lease, by which an exclusive task goes on: none may be taken of a node that is on its way to be lost.
func TestNoBeatIsTakenWhileANodeIsBeingDeclaredLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "n1")
		var taken, certain atomic.Bool
		b.Before = func([]command.Command) error {
			if len(b.beat("n1")) == 0 {
				taken.Store(true)
			}
			if certain.Load() {
				return nil
			}
			return fault.New(fault.Unready, "it is unknown whether")
		}
		defer b.lead()()
		time.Sleep(cluster.LeaseTime + cluster.LeaseTime/5)
		if taken.Load() {
			t.Error("a beat is taken while its node is being declared lost")
		}
		if again := b.beat("n1"); len(again) == 0 {
			t.Error("it is taken when it is unknown whether the node is lost")
		}
		certain.Store(true)
		time.Sleep(cluster.LeaseTime / 5)
		if b.state("n1") != cluster.NodeLost {
			t.Fatal("it is not asked again whether it is")
		}
		b.introduce("n1")
		if again := b.beat("n1"); len(again) > 0 {
			t.Errorf("introduced again, its beats are answered with %v", again)
		}
		time.Sleep(cluster.LeaseTime - time.Second)
		if b.state("n1") != cluster.NodeReady {
			t.Errorf("introduced again, it is %s", b.state("n1"))
		}
	})
}

// Somebody has changed the node since: it is not lost, and goes on.
func TestANodeThatIsNotLostAfterAllBeatsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "n1")
		var refused atomic.Int64
		b.Before = func([]command.Command) error {
			refused.Add(1)
			return fault.New(fault.Conflict, "node n1: read it again")
		}
		defer b.lead()()
		time.Sleep(cluster.LeaseTime + cluster.LeaseTime/5)
		if again := b.beat("n1"); refused.Load() == 0 || len(again) > 0 {
			t.Errorf("after %d refusals its beat is answered with %v", refused.Load(), again)
		}
	})
}

func TestALedgerThatRefusesIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, "n1")
		var asked atomic.Int32
		b.Before = func([]command.Command) error {
			if asked.Add(1) < 4 {
				return fault.New(fault.Unready, "no majority")
			}
			return nil
		}
		defer b.lead()()
		time.Sleep(2 * cluster.LeaseTime)
		if asked.Load() != 4 || b.state("n1") != cluster.NodeLost {
			t.Errorf("asked %d times, n1 is %s", asked.Load(), b.state("n1"))
		}
	})
}
