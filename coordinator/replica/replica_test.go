package replica_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/internal/fault"
)

func haltAll(t *testing.T, n *net, members ...*member) {
	t.Helper()
	for _, m := range members {
		if err := n.halt(m); !errors.Is(err, context.Canceled) {
			t.Errorf("%s ended with %v", m.id, err)
		}
	}
}

func names(t *testing.T, m *member, stale bool) []string {
	t.Helper()
	snapshot, err := m.Read(t.Context(), stale)
	if err != nil {
		t.Fatalf("read at %s: %v", m.id, err)
	}
	defer snapshot.Close()
	var list []string
	for job := range snapshot.Jobs("") {
		list = append(list, job.Name)
	}
	return list
}

func TestEveryReplicaTakesProposalsAndShowsThemToAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		members := three(t, n, t.TempDir())
		var all sync.WaitGroup
		for _, m := range members {
			for i := range 40 {
				all.Go(func() {
					name := fmt.Sprintf("%s-%02d", m.id, i)
					if results, err := m.Propose(t.Context(), submission(name)); err != nil || results[0].Revision == 0 {
						t.Errorf("%s: %v, %v", name, results, err)
					}
				})
			}
		}
		all.Wait()
		for _, m := range members {
			if got := len(names(t, m, false)); got != 120 {
				t.Errorf("%s shows %d jobs of 120", m.id, got)
			}
		}
		for _, m := range members {
			results, err := m.Propose(t.Context(), submission("x-"+string(m.id)), submission("a-00"))
			if !fault.Is(err, fault.Conflict) || len(results) != 2 || results[0].Err != nil || results[1].Err == nil {
				t.Errorf("%s: a good and a bad command gave %v, %v", m.id, results, err)
			}
		}
		listed, err := members[1].Members()
		if err != nil || len(listed) != 3 || !listed[2].Voter {
			t.Errorf("members %+v, %v", listed, err)
		}
		// A commit beyond its limits is refused before it reaches the log.
		huge := submission("huge")
		huge.Changes[0].Job.Spec = make([]byte, replica.MaxProposal)
		if _, err := members[0].Propose(t.Context(), huge); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
		if _, err := members[0].HandlePropose(t.Context(), []byte("rubbish")); !fault.Is(err, fault.Invalid) {
			t.Error(err)
		}
		haltAll(t, n, members...)
		if _, err := members[0].Propose(t.Context(), submission("late")); !fault.Is(err, fault.Unready) {
			t.Errorf("a stopped replica answered %v", err)
		}
	})
}

func TestANewLeaderIsThereWithinThreeSecondsAndLoopsMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		members := three(t, n, t.TempDir())
		var mu sync.Mutex
		running, most, reigns := 0, 0, []string{}
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		for _, m := range members {
			loops.Go(func() {
				err := m.RunAsLeader(ctx, func(ctx context.Context) error {
					mu.Lock()
					running++
					most = max(most, running)
					reigns = append(reigns, string(m.id))
					mu.Unlock()
					<-ctx.Done()
					mu.Lock()
					running--
					mu.Unlock()
					return errors.New("the loop was stopped")
				})
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", m.id, err)
				}
			})
		}
		old := awaitLeader(t, members...)
		begun := time.Now()
		if err := n.halt(old); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		rest := slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m == old })
		if _, err := rest[0].Propose(t.Context(), submission("after")); err != nil {
			t.Errorf("no submission after the leader's end: %v", err)
		}
		if gap := time.Since(begun); gap > 3*time.Second {
			t.Errorf("%s without a leader", gap)
		}
		next := awaitLeader(t, rest...)
		if err := next.Transfer(t.Context(), replica.Member{}); err != nil {
			t.Error(err)
		}
		heir := rest[0]
		if heir == next {
			heir = rest[1]
		}
		awaitLeader(t, heir)
		synctest.Wait()
		cancel()
		loops.Wait()
		if len(reigns) < 3 || most != 1 {
			t.Errorf("reigns %v, at most %d at once", reigns, most)
		}
		haltAll(t, n, rest...)
	})
}

func TestALeaderThatIsStoppedHandsOverFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		members := three(t, n, t.TempDir())
		old := awaitLeader(t, members...)
		rest := slices.DeleteFunc(slices.Clone(members), func(m *member) bool { return m == old })
		begun := time.Now()
		old.stop()
		<-old.ended
		awaitLeader(t, rest...)
		if gap := time.Since(begun); gap >= 500*time.Millisecond { // nobody misses a leader so soon
			t.Errorf("%s without a leader", gap)
		}
		old.ended <- context.Canceled // for halt
		haltAll(t, n, members...)
	})
}

func TestAMemberGetsTheLogBeforeItVotesAndNothingWhenItIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		dir := t.TempDir()
		members := three(t, n, dir)
		leader := awaitLeader(t, members...)
		d := n.start(t, dir, "d", false)
		if err := leader.AddNonvoter(t.Context(), "d", "d"); err != nil {
			t.Fatal(err)
		}
		if _, err := leader.Propose(t.Context(), submission("seen-by-d")); err != nil {
			t.Fatal(err)
		}
		if !has(t, d.Replica, "seen-by-d") {
			t.Error("a member that does not vote yet has no log")
		}
		if known, err := leader.Members(); err != nil || len(known) != 4 || known[3].Voter {
			t.Errorf("members %+v, %v", known, err)
		}
		if err := leader.AddVoter(t.Context(), "d", "d"); err != nil {
			t.Fatal(err)
		}
		if err := leader.RemoveServer(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		if known, err := leader.Members(); err != nil || len(known) != 3 {
			t.Errorf("members %+v, %v", known, err)
		}
		if _, err := leader.Propose(t.Context(), submission("not-for-d")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // a removed member that missed its leader would be heard by now
		if now := awaitLeader(t, members...); now != leader {
			t.Errorf("%s leads instead of %s: the removed member has disturbed them", now.id, leader.id)
		}
		if snapshot, err := d.Read(t.Context(), true); err != nil {
			t.Error(err)
		} else {
			if _, there := snapshot.Job("not-for-d"); there {
				t.Error("a removed member still gets the log")
			}
			_ = snapshot.Close()
		}
		haltAll(t, n, append(members, d)...)
	})
}

// has reads linearizably whether there is a job.
func has(t *testing.T, r *replica.Replica, name string) bool {
	t.Helper()
	snapshot, err := r.Read(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	_, there := snapshot.Job(name)
	return there
}

func TestWhatAnEarlierBuildCannotReadIsNotProposed(t *testing.T) {
	n := newNet()
	members := three(t, n, t.TempDir())
	leader := awaitLeader(t, members...)
	if _, err := leader.Propose(t.Context(), command.RaiseFormat{To: command.Format}); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if !has(t, m.Replica, "nothing") { // it has applied what came before
			if format, err := m.Format(); err != nil || format != command.Format {
				t.Errorf("%s: format %d, %v", m.id, format, err)
			}
		}
	}
	follower := members[0]
	if follower == leader {
		follower = members[1]
	}
	if err := follower.ProposeHere(t.Context(), command.RaiseFormat{To: command.Format}); !fault.Is(err, fault.Unready) {
		t.Errorf("a follower has proposed for the leader alone: %v", err)
	}
	haltAll(t, n, members...)
}

func TestALoopThatFailsWhileItsReplicaLeadsIsReported(t *testing.T) {
	n := newNet()
	m := n.start(t, t.TempDir(), "a", true)
	want := errors.New("broken loop")
	if err := m.RunAsLeader(t.Context(), func(context.Context) error { return want }); err != want {
		t.Errorf("got %v", err)
	}
	haltAll(t, n, m)
}

// All parts of a coordinator end together, and the state may be closed before the last of them has noticed: that is no failure.
func TestWhoReadsAClosedStateWhileEndingIsToldToEnd(t *testing.T) {
	n := newNet()
	m := n.start(t, t.TempDir(), "a", true)
	haltAll(t, n, m)
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := m.Read(ended, true); !errors.Is(err, context.Canceled) {
		t.Errorf("while ending: %v", err)
	}
	if _, err := m.Read(t.Context(), true); !fault.Is(err, fault.Unready) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestWithoutAMajorityNothingIsAnsweredButStaleReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		members := three(t, n, t.TempDir())
		if _, err := members[0].Propose(t.Context(), submission("one")); err != nil {
			t.Fatal(err)
		}
		leader := awaitLeader(t, members...)
		n.isolate(leader.id)
		time.Sleep(time.Second) // a lease goes by; until then nobody else can be elected
		if _, err := leader.Read(t.Context(), false); !fault.Is(err, fault.Unready) {
			t.Errorf("a cut-off leader's read: %v", err)
		}
		if _, err := leader.Propose(t.Context(), submission("two")); !fault.Is(err, fault.Unready) {
			t.Errorf("a cut-off leader's proposal: %v", err)
		}
		if err := leader.AddVoter(t.Context(), "d", "d"); !fault.Is(err, fault.Unready) {
			t.Errorf("a cut-off leader's new member: %v", err)
		}
		if got := names(t, leader, true); !slices.Contains(got, "one") {
			t.Errorf("a stale read shows %v", got)
		}
		n.isolate("")
		if got := names(t, leader, false); !slices.Contains(got, "one") {
			t.Errorf("after the partition it shows %v", got)
		}
		haltAll(t, n, members...)
	})
}

func TestWhatWasAcknowledgedIsThereAfterRestartsSnapshotIncluded(t *testing.T) {
	n, dir := newNet(), t.TempDir()
	members := three(t, n, dir)
	propose := func(from, to int) {
		var all sync.WaitGroup
		for i := from; i < to; i++ {
			all.Go(func() {
				if _, err := members[i%3].Propose(t.Context(), submission(fmt.Sprintf("job-%03d", i))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
	propose(0, 100)
	if err := members[0].Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	propose(100, 150)
	haltAll(t, n, members...)
	members = []*member{n.start(t, dir, "a", true), n.start(t, dir, "b", false), n.start(t, dir, "c", false)}
	if got := names(t, members[2], false); len(got) != 150 {
		t.Errorf("%d jobs of 150 after all were restarted", len(got))
	}
	haltAll(t, n, members...)
}

// Raft itself looks for 8,192 entries twice a minute.
func TestALogIsCutByItsBytesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, dir := newNet(), t.TempDir()
		n.snapshotBytes = 64 << 10
		m := n.start(t, dir, "a", true)
		snapshots := func() []string {
			found, err := filepath.Glob(filepath.Join(dir, "a", "raft", "snapshots", "*"))
			if err != nil {
				t.Fatal(err)
			}
			return found
		}
		for i := range 20 {
			if _, err := m.Propose(t.Context(), submission(fmt.Sprintf("job-%03d", i))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if early := snapshots(); len(early) != 0 {
			t.Errorf("a log of 20 submissions was cut: %v", early)
		}
		for i := range 200 {
			if _, err := m.Propose(t.Context(), submission(fmt.Sprintf("more-%03d", i))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if len(snapshots()) == 0 {
			t.Error("a log of 220 submissions was not cut")
		}
		haltAll(t, n, m)
		again := n.start(t, dir, "a", true)
		if got := names(t, again, false); len(got) != 220 {
			t.Errorf("%d jobs of 220 after a start", len(got))
		}
		haltAll(t, n, again)
	})
}

// The copied folder is what a kill -9 would leave: nothing was closed or told to stop.
func TestWhatWasAcknowledgedIsThereWhenTheProcessIsKilled(t *testing.T) {
	n, dir, left := newNet(), t.TempDir(), t.TempDir()
	m := n.start(t, dir, "a", true)
	for i := range 50 {
		if _, err := m.Propose(t.Context(), submission(fmt.Sprintf("job-%03d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	haltAll(t, n, m)
	again := n.start(t, left, "a", true)
	if got := names(t, again, false); len(got) != 50 {
		t.Errorf("%d jobs of 50 after the kill", len(got))
	}
	haltAll(t, n, again)
}

func TestTheLeadersClockStampsWhatFollowersSendOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNet()
		members := three(t, n, t.TempDir())
		leader := awaitLeader(t, members...)
		ahead := time.Now().Add(time.Hour).UnixNano()
		batch, err := command.Encode(ahead, command.PutNode{Node: cluster.Node{ID: "x", Address: "x"}})
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := leader.HandlePropose(t.Context(), batch); err != nil || len(answer) == 0 {
			t.Fatal(answer, err)
		}
		snapshot, err := leader.Read(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if node, _ := snapshot.Node("x"); node.Joined == 0 || node.Joined >= ahead {
			t.Errorf("joined at %d, the follower's clock says %d", node.Joined, ahead)
		}
		_ = snapshot.Close()
		for _, m := range members {
			if m == leader {
				continue
			}
			if answer, err := m.HandlePropose(t.Context(), batch); err != nil || len(answer) != 0 {
				t.Errorf("a follower answered for the leader: %x, %v", answer, err)
			}
			if _, err := m.HandleReadIndex(t.Context()); !fault.Is(err, fault.Unready) {
				t.Errorf("a follower gave a read index: %v", err)
			}
		}
		haltAll(t, n, members...)
	})
}
