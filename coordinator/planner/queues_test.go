package planner_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/solo"
	"github.com/clary-ml/clary/coordinator/state"
)

// refusals is a ledger that notes which parts of plans it refused.
type refusals struct {
	*solo.Ledger
	mu      sync.Mutex
	refused []string
	plans   int
}

func (r *refusals) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	results, err := r.Ledger.Propose(ctx, commands...)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, result := range results {
		r.plans++
		for _, refused := range result.Refused {
			r.refused = append(r.refused, refused.ID+": "+refused.Reason)
		}
	}
	return results, err
}

// underLedger runs a planner while play plays.
func underLedger(t *testing.T, ledger *refusals, play func(b *bench)) {
	t.Helper()
	b := &bench{t, ledger.Ledger, planner.New(ledger, slog.New(slog.DiscardHandler))}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.planner.Run(ctx) }()
	synctest.Wait()
	play(b)
	synctest.Wait()
	cancel()
	<-done
}

func inQueue(queue string) func(*cluster.Job, *cluster.Gang) {
	return func(j *cluster.Job, g *cluster.Gang) { j.Queue, g.Queue = queue, queue }
}

func cores(n int64) cluster.Quota { return cluster.Quota{{Resource: "cores", Amount: n * 1000}} }

func (b *bench) queues(queues ...cluster.Queue) {
	b.t.Helper()
	snapshot, err := b.ledger.Read(b.t.Context(), true)
	if err != nil {
		b.t.Fatal(err)
	}
	defer snapshot.Close()
	var record command.Record
	for _, q := range queues {
		old, _ := snapshot.Queue(q.Name)
		q.Weight = max(q.Weight, 1)
		record.Changes = append(record.Changes, command.Change{Expect: old.Revision, Queue: &q})
	}
	b.propose(record)
}

// withLedger opens a ledger in a bubble.
func withLedger(t *testing.T, play func(t *testing.T, ledger *refusals)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		ledger, err := solo.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer ledger.Close()
		play(t, &refusals{Ledger: ledger})
	})
}

func TestWhatIsPlannedTheLedgersLimitsLetIn(t *testing.T) {
	withLedger(t, func(t *testing.T, ledger *refusals) {
		underLedger(t, ledger, func(b *bench) {
			b.queues(
				cluster.Queue{Name: "top", Guarantee: cores(4), Borrow: cores(2)},
				cluster.Queue{Name: "a", Parent: "top", Guarantee: cores(2), Lend: cores(1), User: cluster.UserLimit{Most: cores(3)}},
				cluster.Queue{Name: "b", Parent: "top", Borrow: cores(3), MaxRunning: 2},
				cluster.Queue{Name: "keeps", Guarantee: cores(2), Lend: cores(0)},
			)
			b.node("n1", 4)
			b.node("n2", 4)
			b.node("n3", 4)
			b.propose(command.SetNodeState{Node: "n3", State: cluster.NodeDraining})
			for i := range 8 {
				for _, queue := range []string{"a", "b", "default"} {
					b.submit(fmt.Sprintf("%s-%d", queue, i), int32(1+i%2), inQueue(queue))
				}
			}
			synctest.Wait()
			b.queues(cluster.Queue{Name: "b", Parent: "top", Borrow: cores(1)}, cluster.Queue{Name: "keeps", Guarantee: cores(3), Lend: cores(0)})
			for i := range 8 {
				for _, queue := range []string{"a", "b", "default"} {
					if name := fmt.Sprintf("%s-%d", queue, i); b.placed(name) != "" {
						b.finish(strings.Fields(b.placed(name))[0], name)
					}
				}
			}
			synctest.Wait()
		})
		if len(ledger.refused) > 0 || ledger.plans == 0 {
			t.Errorf("of %d plans the ledger refused %v", ledger.plans, ledger.refused)
		}
		snapshot, err := ledger.Read(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		defer snapshot.Close()
		if free := snapshot.Capacity().Plus(total(snapshot), -1); free.MilliCPU < 3000 {
			t.Errorf("3 cores are withheld, %d thousandths are free", free.MilliCPU)
		}
	})
}

func total(snapshot *state.Snapshot) (sum cluster.Amount) {
	for queue := range snapshot.Queues() {
		sum = sum.Plus(snapshot.QueueUsage(queue.Name).Used, 1)
	}
	return sum
}

func TestANewLeaderKnowsWhoHadMuchOfLate(t *testing.T) {
	withLedger(t, func(t *testing.T, ledger *refusals) {
		underLedger(t, ledger, func(b *bench) {
			b.queues(cluster.Queue{Name: "a", HalfLife: time.Hour}, cluster.Queue{Name: "b", HalfLife: time.Hour})
			b.node("n", 1)
			b.submit("a-1", 1, inQueue("a"))
			synctest.Wait()
			time.Sleep(2 * time.Hour)
			b.finish("n", "a-1")
			b.propose(command.SetNodeState{Node: "n", State: cluster.NodeDraining})
			b.submit("a-2", 1, inQueue("a"))
			b.submit("b-2", 1, inQueue("b"))
		})
		underLedger(t, ledger, func(b *bench) {
			b.propose(command.SetNodeState{Node: "n", State: cluster.NodeReady})
			if a, other := b.placed("a-2"), b.placed("b-2"); a != "" || other != "n" {
				t.Errorf("a, which had all for two hours, is at %q, b at %q", a, other)
			}
		})
	})
}

func TestWhoWaitsForTheLimitOfWhatNobodyMayPreemptKeepsNobodyElseWaiting(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bench) {
		b.queues(cluster.Queue{Name: "lab", Unpreemptible: cores(2)})
		b.node("n", 8)
		firm := func(j *cluster.Job, g *cluster.Gang) {
			inQueue("lab")(j, g)
			j.NonPreemptible, g.NonPreemptible = true, true
		}
		b.submit("firm-1", 2, firm)
		b.submit("firm-2", 1, firm)
		time.Sleep(time.Hour) // longer than anybody's patience
		b.submit("soft", 4, inQueue("lab"))
		if first, second, soft := b.placed("firm-1"), b.placed("firm-2"), b.placed("soft"); first != "n n" || second != "" || soft != "n n n n" {
			t.Errorf("they are on %q, %q and %q", first, second, soft)
		}
		if why := b.why("firm-2"); !strings.Contains(why, "jobs that must not be preempted hold 2 cores of queue lab and may hold 2 cores") {
			t.Errorf("why: %s", why)
		}
		b.finish("n", "firm-1")
		if second := b.placed("firm-2"); second != "n" {
			t.Errorf("when the other is done it is on %q", second)
		}
	})
}
