package replica_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// act is what a client does with one job: submit it, end and delete it, or look.
type act struct {
	kind string // submit, delete or get
	job  string
}

// saw is what came of it.
type saw struct {
	done    bool // submitted or deleted
	exists  bool // get
	unknown bool // no answer: it may have happened or not
}

// register is one job that exists or not.
var register = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byJob := map[string][]porcupine.Operation{}
		for _, op := range history {
			byJob[op.Input.(act).job] = append(byJob[op.Input.(act).job], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byJob {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{false} },
	Step: func(before, input, output any) []any {
		exists, in, out := before.(bool), input.(act), output.(saw)
		after, done := exists, true
		switch in.kind {
		case "get":
			if out.unknown || out.exists == exists {
				return []any{exists}
			}
			return nil
		case "submit":
			after, done = true, !exists
		case "delete":
			after, done = false, exists
		}
		switch {
		case out.unknown:
			return []any{exists, after}
		case out.done == done:
			return []any{after}
		}
		return nil
	},
	Equal: func(a, b any) bool { return a == b },
}

// do performs an act at a member.
func do(ctx context.Context, m *member, a act) saw {
	if a.kind == "get" {
		snapshot, err := m.Read(ctx, false)
		if err != nil {
			return saw{unknown: true}
		}
		defer snapshot.Close()
		_, exists := snapshot.Job(a.job)
		return saw{exists: exists}
	}
	var commands []command.Command
	if a.kind == "submit" {
		commands = []command.Command{submission(a.job)}
	} else {
		snapshot, err := m.Read(ctx, false)
		if err != nil {
			return saw{unknown: true} // and nothing was done, which unknown allows
		}
		job, exists := snapshot.Job(a.job)
		snapshot.Close()
		if !exists {
			return saw{unknown: true} // a read, and nothing done
		}
		commands = end(job)
	}
	results, err := m.Propose(ctx, commands...)
	switch {
	case len(results) == 0 && err != nil:
		return saw{unknown: true}
	case results[len(results)-1].Err == nil:
		return saw{done: true}
	case a.kind == "submit" && fault.Is(err, fault.Conflict):
		return saw{}
	}
	return saw{unknown: true}
}

// end fails a job and deletes it, in two commands of one entry.
func end(job cluster.Job) []command.Command {
	failed := job
	failed.State = cluster.JobFailed
	fail := command.Record{Changes: []command.Change{{Expect: job.Revision, Job: &failed}}}
	if job.State.Ended() {
		return []command.Command{remove(job.Name, job.Revision)}
	}
	return []command.Command{fail, remove(job.Name, job.Revision+1)}
}

func remove(name string, revision uint64) command.Command {
	return command.Record{Changes: []command.Change{{Expect: revision, Delete: &command.Key{Kind: state.KindJob, ID: name}}}}
}

func TestHistoriesAreLinearizableUnderPartitions(t *testing.T) {
	counts := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		if counts["runs"]++; counts["runs"] > 8 {
			return // each run is an election or two: a few seeds at a time
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		var history []porcupine.Operation
		synctest.Test(t, func(t *testing.T) { history = disturbed(t, seed, counts) })
		if !porcupine.CheckOperations(register.ToModel(), history) {
			rt.Fatalf("seed %d: %d operations have no order that explains them", seed, len(history))
		}
	})
	for _, what := range []string{"cut", "submit done", "delete done", "get exists", "get missing"} {
		if counts[what] == 0 {
			t.Errorf("%s: never", what)
		}
	}
	t.Log(counts)
}

// disturbed lets five clients act on three jobs while links are cut and mended.
func disturbed(t *testing.T, seed uint64, counts map[string]int) []porcupine.Operation {
	n := newNet()
	members := three(t, n, t.TempDir())
	var mu sync.Mutex
	var history []porcupine.Operation
	var clients sync.WaitGroup
	begun := time.Now()
	for client := range 5 {
		random := rand.New(rand.NewPCG(seed, uint64(client)))
		clients.Go(func() {
			for range 25 {
				time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
				a := act{kind: []string{"submit", "delete", "get"}[random.IntN(3)], job: fmt.Sprintf("job-%d", random.IntN(3))}
				m := members[random.IntN(3)]
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				call := time.Since(begun)
				got := do(ctx, m, a)
				cancel()
				op := porcupine.Operation{ClientId: client, Input: a, Call: int64(call), Output: got, Return: int64(time.Since(begun)) + 1}
				if got.unknown {
					op.Return = int64(time.Hour) // it may still happen
				}
				mu.Lock()
				history = append(history, op)
				counts[fmt.Sprintf("%s %s", a.kind, got)]++
				mu.Unlock()
			}
		})
	}
	random := rand.New(rand.NewPCG(seed, 99))
	for range 4 {
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		n.isolate([]raft.ServerID{"a", "b", "c"}[random.IntN(3)])
		time.Sleep(time.Duration(random.IntN(2500)) * time.Millisecond)
		n.isolate("")
		mu.Lock()
		counts["cut"]++
		mu.Unlock()
	}
	clients.Wait()
	haltAll(t, n, members...)
	return history
}

// String names what was seen for the count.
func (s saw) String() string {
	switch {
	case s.unknown:
		return "unknown"
	case s.done:
		return "done"
	case s.exists:
		return "exists"
	}
	return "missing"
}
