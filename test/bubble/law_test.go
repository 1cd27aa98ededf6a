package bubble_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"
	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// exercised is what must have happened before the law says anything.
var exercised = []string{
	"started", "acknowledged", "unanswered", "seen", "not seen", "second attempts", "transforms",
	"node cut", "coordinator cut", "agent restarted", "coordinator restarted", "node crashed",
}

func TestACommotionBreaksNoPromise(t *testing.T) {
	runs, begun, counts := 3, 0, &tally{}
	if more, err := strconv.Atoi(os.Getenv("CLARY_BUBBLE_RUNS")); err == nil {
		runs = more
	}
	const most = 12
	rapid.Check(t, func(rt *rapid.T) {
		// Each run is a cluster's whole life: a few seeds at a time, and some more while
		// something has not happened yet.
		if begun++; begun > runs && (begun > most || len(counts.missing()) == 0) {
			return
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { // a bubble needs a test of its own
			synctest.Test(t, func(t *testing.T) { commotion(t, seed, counts) })
		})
		if t.Failed() {
			rt.Fatalf("seed %d", seed)
		}
	})
	if missing := counts.missing(); len(missing) > 0 {
		t.Errorf("never: %v", missing)
	}
	t.Log(counts.counts)
}

// commotion lets users submit and look while machines are cut off, stopped and crashed;
// then all is mended, and every promise must have been kept.
func commotion(t *testing.T, seed uint64, counts *tally) {
	w := newWorld(t, counts)
	w.found()
	w.put("set/rows", "1,2")
	w.put("set/more", "3,4")
	h := &history{counts: counts, begun: time.Now()}
	var users sync.WaitGroup
	for user := range 4 {
		random := rand.New(rand.NewPCG(seed, uint64(user)))
		users.Go(func() { w.use(user, random, h) })
	}
	w.disturb(rand.New(rand.NewPCG(seed, 99)), counts)
	users.Wait()
	for _, id := range coordinators {
		w.until(id+" sees both nodes ready", time.Minute, func() error { return w.nodesReady(id) })
	}
	for name, job := range h.promised {
		view := w.ends(name, 5*time.Minute)
		want := cluster.JobSucceeded
		if job.code != 0 {
			want = cluster.JobFailed
		}
		if view.GetJob().GetState() != string(want) {
			t.Errorf("%s is %s (%s), attempt %d", name, view.GetJob().GetState(), view.GetJob().GetReason(), view.GetJob().GetAttempt())
		}
		if view.GetJob().GetAttempt() > 1 {
			counts.add("second attempts")
		}
		if job.kind == cluster.KindTransform {
			counts.add("transforms")
		}
		w.whole(view)
		for _, id := range coordinators {
			if _, err := w.look(id, name); err != nil {
				t.Errorf("%s was acknowledged, and %s says %v", name, id, err)
			}
		}
	}
	w.idle()
	w.sound()
	if !porcupine.CheckOperations(register.ToModel(), h.operations) {
		t.Errorf("%d operations have no order that explains them", len(h.operations))
	}
}

// whole sees that of each attempt that is on record all tasks were made, or none.
func (w *world) whole(view *claryv1.JobView) {
	w.Helper()
	tasks := map[int32]int{}
	for _, task := range view.GetTasks() {
		tasks[task.GetAttempt()]++
	}
	for _, gang := range view.GetGangs() {
		for attempt, count := range tasks {
			want := 0
			for _, role := range gang.GetRoles() {
				want += int(role.GetCount())
			}
			if count != want {
				w.Errorf("%s: attempt %d has %d tasks of %d", gang.GetJob(), attempt, count, want)
			}
		}
	}
}

// disturb does to the machines what happens to machines, and mends it all at the end.
func (w *world) disturb(random *rand.Rand, counts *tally) {
	pause := func(most time.Duration) { time.Sleep(time.Duration(random.Int64N(int64(most)))) }
	pick := func(ids ...string) string { return ids[random.IntN(len(ids))] }
	for _, kind := range random.Perm(5) { // each once, in an order that is drawn
		pause(5 * time.Second)
		switch kind {
		case 0:
			counts.add("coordinator cut")
			w.partition(pick(coordinators...))
			pause(6 * time.Second)
		case 1:
			counts.add("node cut")
			w.partition(pick("n1", "n2"))
			pause(25 * time.Second) // longer than a lease, or not
		case 2:
			counts.add("agent restarted")
			id := pick("n1", "n2")
			w.stop(id)
			pause(5 * time.Second)
			w.agent(id)
		case 3:
			counts.add("coordinator restarted")
			id := pick(coordinators...)
			w.stop(id)
			pause(5 * time.Second)
			w.coordinator(id)
		case 4:
			counts.add("node crashed")
			id := pick("n1", "n2")
			w.stop(id)
			w.drivers[id].crash()
			pause(20 * time.Second)
			w.agent(id)
		}
		w.partition()
	}
}

// history is what users did and saw.
type history struct {
	mu         sync.Mutex
	counts     *tally
	begun      time.Time
	promised   map[string]work // submissions that were acknowledged
	operations []porcupine.Operation
}

// act is what a user does with one name; saw is what came of it.
type act struct{ kind, job string }

type saw struct{ exists, unknown bool }

// register is one name: a job has it or not, and once it has, it keeps it.
var register = porcupine.NondeterministicModel{
	Partition: func(operations []porcupine.Operation) [][]porcupine.Operation {
		byJob := map[string][]porcupine.Operation{}
		for _, op := range operations {
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
		switch {
		case in.kind == "submit" && out.unknown:
			return []any{exists, true}
		case in.kind == "submit":
			if out.exists != exists { // told "it existed already" exactly if it did
				return nil
			}
			return []any{true}
		case out.unknown || out.exists == exists:
			return []any{exists}
		}
		return nil
	},
	Equal: func(a, b any) bool { return a == b },
}

// use submits jobs and looks for them at any coordinator.
func (w *world) use(user int, random *rand.Rand, h *history) {
	for i := range 20 {
		time.Sleep(time.Duration(random.Int64N(int64(3 * time.Second))))
		a := act{kind: "look", job: fmt.Sprintf("job-%d", random.IntN(12))}
		if random.IntN(2) == 0 {
			a.kind = "submit"
		}
		at := coordinators[random.IntN(3)]
		call := time.Since(h.begun)
		got := w.act(a, at)
		op := porcupine.Operation{ClientId: user*100 + i, Input: a, Call: int64(call), Output: got, Return: int64(time.Since(h.begun)) + 1}
		if got.unknown {
			op.Return = int64(time.Hour) // it may still happen
		}
		h.note(a, got, op)
	}
}

// jobNamed is a function of the name, so that two submissions of a name are the same.
func jobNamed(name string) work {
	var n int
	_, _ = fmt.Sscanf(name, "job-%d", &n)
	j := work{name: name, instances: 1 + n%3, gpus: n % 4, length: time.Duration(1+n) * time.Second}
	switch n {
	case 5:
		j.code, j.retries = 3, 1
	case 7, 8:
		j.kind, j.instances, j.gpus = cluster.KindTransform, int(1+n%2), 1
	}
	return j
}

func (w *world) act(a act, at string) saw {
	ctx, cancel := context.WithTimeout(w.admin(w.Context()), 8*time.Second)
	defer cancel()
	if a.kind == "submit" {
		answer, err := w.jobs(at).Submit(ctx, jobNamed(a.job).request())
		if err != nil {
			if kind := fault.KindOf(wire.FromStatus(err)); kind != fault.Unready && ctx.Err() == nil {
				w.Errorf("submit %s at %s: %v", a.job, at, err)
			}
			return saw{unknown: true}
		}
		return saw{exists: answer.GetExisted()}
	}
	_, err := w.jobs(at).Get(ctx, &claryv1.GetJobRequest{Name: a.job})
	switch {
	case err == nil:
		return saw{exists: true}
	case fault.Is(wire.FromStatus(err), fault.NotFound):
		return saw{}
	}
	return saw{unknown: true}
}

func (h *history) note(a act, got saw, op porcupine.Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, op)
	switch {
	case got.unknown:
		h.counts.add("unanswered")
	case a.kind == "submit":
		if h.promised == nil {
			h.promised = map[string]work{}
		}
		h.promised[a.job] = jobNamed(a.job)
		h.counts.add("acknowledged")
	case got.exists:
		h.counts.add("seen")
	default:
		h.counts.add("not seen")
	}
}
