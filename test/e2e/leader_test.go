package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Two clients want each name: 8 clients make 500 submissions.
const (
	clients = 8
	names   = 250
)

// call is what a client asks: to submit a job by its own hand, or who submitted it.
type call struct {
	name string
	by   string // "" asks
}

// seen is what it was answered.
type seen struct {
	accepted bool
	by       string // who submitted it; "" if there is no such job
	unknown  bool
}

// register is a job's name: free until the first submission, and that client's then.
var register = porcupine.NondeterministicModel{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byName := map[string][]porcupine.Operation{}
		for _, op := range history {
			name := op.Input.(call).name
			byName[name] = append(byName[name], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byName {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() []any { return []any{""} },
	Step: func(before, input, output any) []any {
		owner, in, out := before.(string), input.(call), output.(seen)
		switch {
		case in.by == "" && (out.unknown || out.by == owner):
			return []any{owner}
		case in.by == "":
			return nil
		case out.unknown && owner == "":
			return []any{owner, in.by}
		case out.unknown:
			return []any{owner}
		case out.accepted && (owner == "" || owner == in.by):
			return []any{in.by}
		case !out.accepted && owner != "" && owner != in.by:
			return []any{owner}
		}
		return nil
	},
	Equal: func(a, b any) bool { return a == b },
}

// history is what all clients did, on one clock.
type history struct {
	mu    sync.Mutex
	began time.Time
	ops   []porcupine.Operation
}

func (h *history) add(by int, in call, called time.Duration, out seen) {
	h.mu.Lock()
	defer h.mu.Unlock()
	op := porcupine.Operation{ClientId: by, Input: in, Call: int64(called), Output: out, Return: int64(time.Since(h.began))}
	if out.unknown {
		op.Return = int64(time.Hour) // it may yet happen
	}
	h.ops = append(h.ops, op)
}

// accepted counts the submissions that were accepted so far.
func (h *history) accepted() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	count := 0
	for _, op := range h.ops {
		if op.Output.(seen).accepted {
			count++
		}
	}
	return count
}

// after is when the first submission was accepted that began after an instant.
func (h *history) after(instant time.Duration) (time.Duration, bool) {
	first, found := time.Duration(0), false
	for _, op := range h.ops {
		if op.Output.(seen).accepted && op.Call > int64(instant) && (!found || op.Return < int64(first)) {
			first, found = time.Duration(op.Return), true
		}
	}
	return first, found
}

func TestNothingAcknowledgedIsLostWhenTheLeaderIsKilled(t *testing.T) {
	alone(t)
	m := start(t, 3, 0)
	leader := m.Leader()
	h := &history{began: time.Now()}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var working sync.WaitGroup
	for i := range clients {
		c := m.Client(client.WithPatience(2 * time.Second))
		working.Go(func() { h.work(ctx, t, c, i) })
	}
	m.WaitFor("100 accepted submissions", 30*time.Second, func() bool { return h.accepted() >= 100 })
	killed := time.Since(h.began)
	m.Kill(leader)
	before := h.accepted()
	working.Wait()

	back, found := h.after(killed)
	if !found {
		t.Fatalf("no submission was accepted after the kill: %d were before it", before)
	}
	t.Logf("leader %s killed after %d accepted submissions; the next one was accepted %s later", leader, before, (back - killed).Round(time.Millisecond))
	if back-killed > 3*time.Second {
		t.Errorf("a new leader took %s, at most 3 s are promised", back-killed)
	}
	h.check(t, m)
}

// work submits every name that is this client's, looks now and then, and lists.
func (h *history) work(ctx context.Context, t *testing.T, c *client.Client, me int) {
	by := fmt.Sprintf("client-%d", me)
	pair := me / 2 // clients 2k and 2k+1 want the same names
	for i := pair; i < names; i += clients / 2 {
		name := fmt.Sprintf("job-%03d", i)
		h.submit(ctx, t, c, me, name, by)
		switch {
		case i%3 == 0:
			h.get(ctx, t, c, me, name)
		case i%40 == 1:
			h.list(ctx, t, c, me)
		}
	}
}

func (h *history) submit(ctx context.Context, t *testing.T, c *client.Client, me int, name, by string) {
	spec := `{"program":{"command":["true"]}}`
	job := cluster.Job{Name: name, Kind: cluster.KindTraining, Spec: []byte(spec), Held: true, RequestID: name + by, Labels: map[string]string{"by": by}}
	called := time.Since(h.began)
	for {
		_, err := c.Submit(ctx, job)
		switch {
		case err == nil:
			h.add(me, call{name, by}, called, seen{accepted: true})
		case fault.Is(err, fault.Conflict):
			h.add(me, call{name, by}, called, seen{})
		case fault.Is(err, fault.Unready) && ctx.Err() == nil:
			continue // the same request again
		default:
			t.Errorf("submit %s: %v", name, err)
			h.add(me, call{name, by}, called, seen{unknown: true})
		}
		return
	}
}

func (h *history) get(ctx context.Context, t *testing.T, c *client.Client, me int, name string) {
	called := time.Since(h.began)
	view, err := c.Job(ctx, name)
	switch {
	case err == nil:
		h.add(me, call{name: name}, called, seen{by: view.Job.Labels["by"]})
	case fault.Is(err, fault.NotFound):
		h.add(me, call{name: name}, called, seen{})
	case !fault.Is(err, fault.Unready):
		t.Errorf("get %s: %v", name, err)
	}
}

// list looks at all names at once.
func (h *history) list(ctx context.Context, t *testing.T, c *client.Client, me int) {
	called := time.Since(h.began)
	jobs, _, err := c.Jobs(ctx, client.Filter{Limit: 1000})
	if err != nil {
		if !fault.Is(err, fault.Unready) {
			t.Errorf("list: %v", err)
		}
		return
	}
	by := map[string]string{}
	for _, job := range jobs {
		by[job.Name] = job.Labels["by"]
	}
	for i := range names {
		name := fmt.Sprintf("job-%03d", i)
		h.add(me, call{name: name}, called, seen{by: by[name]})
	}
}

// check compares what clients were told with what the cluster holds, and looks for an
// order of events that explains all of it.
func (h *history) check(t *testing.T, m *machines) {
	t.Helper()
	promised := map[string]string{}
	for _, op := range h.ops {
		if op.Output.(seen).accepted {
			promised[op.Input.(call).name] = op.Input.(call).by
		}
	}
	if len(promised) != names {
		t.Errorf("%d names were accepted, want %d", len(promised), names)
	}
	held := map[string]string{}
	for job, err := range m.Client().AllJobs(context.Background(), client.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := held[job.Name]; twice {
			t.Errorf("%s exists twice", job.Name)
		}
		held[job.Name] = job.Labels["by"]
	}
	for name, by := range promised {
		if held[name] != by {
			t.Errorf("%s was accepted from %s; the cluster has it from %q", name, by, held[name])
		}
	}
	if len(held) != len(promised) {
		t.Errorf("the cluster holds %d jobs, %d were accepted", len(held), len(promised))
	}
	if !porcupine.CheckOperations(register.ToModel(), h.ops) {
		t.Errorf("no order of %d operations explains what clients were told", len(h.ops))
	}
	t.Logf("%d operations are linearizable", len(h.ops))
}

func TestALostOrASecondAcceptanceWouldBeSeen(t *testing.T) {
	const name = "job"
	op := func(by int, in call, called, returned int64, out seen) porcupine.Operation {
		return porcupine.Operation{ClientId: by, Input: in, Call: called, Output: out, Return: returned}
	}
	taken := op(0, call{name, "a"}, 0, 1, seen{accepted: true})
	for what, c := range map[string]struct {
		then porcupine.Operation
		fine bool
	}{
		"it is there":           {op(1, call{name: name}, 2, 3, seen{by: "a"}), true},
		"it is gone":            {op(1, call{name: name}, 2, 3, seen{}), false},
		"it is another's":       {op(1, call{name: name}, 2, 3, seen{by: "b"}), false},
		"another is refused":    {op(1, call{name, "b"}, 2, 3, seen{}), true},
		"another is accepted":   {op(1, call{name, "b"}, 2, 3, seen{accepted: true}), false},
		"the same once more":    {op(0, call{name, "a"}, 2, 3, seen{accepted: true}), true},
		"its own is refused":    {op(0, call{name, "a"}, 2, 3, seen{}), false},
		"not there yet, before": {op(1, call{name: name}, 0, 1, seen{}), true},
	} {
		if got := porcupine.CheckOperations(register.ToModel(), []porcupine.Operation{taken, c.then}); got != c.fine {
			t.Errorf("%s: linearizable %v, want %v", what, got, c.fine)
		}
	}
}
