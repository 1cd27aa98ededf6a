package decisions

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
	"github.com/clary-ml/clary/scheduler/order"
	"github.com/clary-ml/clary/scheduler/share"
)

// history is a scheduler that is told what is drawn, and what it was told and decided.
type history struct {
	*rapid.T
	cluster *scheduler.Cluster
	before  *scheduler.Cluster // while another is told everything
	told    []Told
	nodes   map[string]Node
	gangs   map[string]*lived
	now     int64
	decided int64
	made    int
	resized int64
	taken   int64 // by one scheduler from another
}

// lived is a gang, with what it holds.
type lived struct {
	gang  cluster.Gang
	tasks []cluster.Task
}

func newHistory(t *rapid.T) *history {
	h := &history{T: t, nodes: map[string]Node{}, gangs: map[string]*lived{}, now: int64(time.Hour)}
	h.begin()
	return h
}

// begin tells a new scheduler everything, as a new leader does.
func (h *history) begin() {
	h.before = h.cluster
	defer func() { h.before = nil }()
	h.cluster, h.decided = scheduler.New(scheduler.Options{}), 0
	h.told = append(h.told, Told{Begin: &Begin{At: h.now}})
	h.tell(Told{Queues: &Queues{[]cluster.Queue{{Name: "a", Weight: 2, HalfLife: time.Hour}, {
		Name: "b", Weight: 1, Backfill: cluster.BackfillConservative, Order: cluster.OrderShortest, Preempt: cluster.Preempt{Within: cluster.PreemptLonger},
	}}}})
	for _, id := range []string{"n0", "n1", "n2"} {
		if n, known := h.nodes[id]; known {
			h.tell(Told{Node: &n})
		}
	}
	goesOn := h.before != nil && rapid.IntRange(0, 3).Draw(h.T, "another leader") > 0
	if goesOn {
		learned := h.before.Learned(h.stays)
		h.tell(Told{Learned: &learned})
	}
	for i := range h.made {
		if l := h.gangs[fmt.Sprintf("j%d/main", i)]; l != nil {
			h.put(l)
		}
	}
	used := cluster.Amount{MilliCPU: rapid.Int64Range(0, 8000).Draw(h.T, "used before") << 20}
	before := share.History{Mean: used, At: h.now / int64(time.Second) * int64(time.Second)}
	h.cluster.Remember("a", before)
	h.told = append(h.told, Told{History: &History{"a", before}})
	if goesOn {
		h.takesOver()
	}
	h.tell(Told{Recover: true})
}

func (h *history) stays(gang string) bool { return h.gangs[gang] != nil }

// takesOver has the scheduler take over what the one before kept in mind, and checks that nothing of it is lost.
func (h *history) takesOver() {
	all := func(string) bool { return true }
	notes := h.before.Notes(h.stays, all)
	h.tell(Told{Notes: &notes})
	recorded, _ := described{}.fromProto(described{}.toProto(Told{Notes: &notes}))
	again := h.cluster.Notes(h.stays, all)
	if !proto.Equal(notesToProto(&notes), notesToProto(&again)) || !proto.Equal(notesToProto(&notes), notesToProto(recorded.Notes)) {
		h.Fatalf("it kept in mind\n%+v, and then\n%+v; recorded\n%+v", notes, again, recorded.Notes)
	}
	before, after := h.before.Learned(h.stays), h.cluster.Learned(h.stays)
	recorded, _ = described{}.fromProto(described{}.toProto(Told{Learned: &before}))
	for _, l := range []*scheduler.Learned{&before, &after, recorded.Learned} { // since when a class was asked about last is not kept
		slices.SortFunc(l.Pages, func(a, b order.Page) int { return cmp.Compare(a.Class, b.Class) })
	}
	if !proto.Equal(learnedToProto(&before), learnedToProto(&after)) || !proto.Equal(learnedToProto(&before), learnedToProto(recorded.Learned)) {
		h.Fatalf("it had learned\n%+v, and then\n%+v; recorded\n%+v", before, after, recorded.Learned)
	}
	h.taken += int64(len(notes.Rooms) + len(notes.Paused) + len(before.Works))
}

func (h *history) tell(t Told) {
	t.To(h.cluster)
	h.told = append(h.told, t)
}

func (h *history) put(l *lived) {
	gang := l.gang
	if len(l.tasks) > 0 {
		r, _ := scheduler.NewRunning(gang, l.tasks)
		r.Restart = 10 * time.Second
		h.cluster.Run(r) // as it is: a record has to hold all of it that counts
		h.told = append(h.told, Told{Runs: RunOf(gang, r)})
	} else {
		var known scheduler.Ask
		if h.before != nil {
			known, _ = h.before.Waiting(gang.ID())
		}
		h.tell(Told{Waits: &Wait{Gang: gang, Lasts: gang.MaxRuntime / 2, Since: known.Since}})
	}
}

func (h *history) node(id string, revision uint64) {
	n := Node{Node: cluster.Node{ID: id, Address: id, State: cluster.NodeReady, MilliCPU: 8000, Memory: 8 << 30, PortFirst: 100, PortLast: 120, Revision: revision}}
	if rapid.Bool().Draw(h.T, "cached") {
		n.Cached = []uint32{cluster.InputDigest("s3://data/x")}
	}
	for i := range rapid.IntRange(0, 4).Draw(h.T, "gpus") {
		n.Devices = append(n.Devices, cluster.Device{UUID: fmt.Sprintf("%s-%d", id, i), Kind: cluster.DeviceGPU, Model: "T4", Healthy: true})
	}
	h.used(n)
}

// used tells a node with what is used of it.
func (h *history) used(n Node) {
	n.Used = cluster.Resources{}
	for i := range h.made {
		l := h.gangs[fmt.Sprintf("j%d/main", i)]
		if l == nil {
			continue
		}
		for _, task := range l.tasks {
			if a := task.Allocation; a.Node == n.ID {
				n.Used.MilliCPU += a.Resources.MilliCPU
				n.Used.Devices = append(n.Used.Devices, a.Resources.Devices...)
				n.Used.Ports = append(n.Used.Ports, a.Resources.Ports...)
			}
		}
	}
	h.nodes[n.ID] = n
	h.tell(Told{Node: &n})
}

func (h *history) submit() {
	g := cluster.Gang{
		Job: fmt.Sprintf("j%d", h.made), Name: "main", Queue: rapid.SampledFrom([]string{"a", "b"}).Draw(h.T, "queue"), Owner: "ann",
		Attempt: 1, Revision: 1, Submitted: h.now, Priority: rapid.Int32Range(0, 2).Draw(h.T, "priority"),
		MaxRuntime: time.Duration(rapid.IntRange(0, 3).Draw(h.T, "hours")) * time.Hour,
		Roles: []cluster.Role{{
			Name: "worker", Count: rapid.Int32Range(1, 3).Draw(h.T, "tasks"),
			Ask:     cluster.Ask{MilliCPU: 1000, GPUs: rapid.Int32Range(0, 2).Draw(h.T, "asked"), Ports: rapid.Int32Range(0, 1).Draw(h.T, "ports")},
			Program: cluster.Program{Command: []string{"secret"}, Env: map[string]string{"PASSWORD": "hunter2"}},
		}},
	}
	worker := &g.Roles[0]
	if worker.Program.Checkpoints = rapid.Bool().Draw(h.T, "checkpoints"); worker.Program.Checkpoints {
		worker.Count += rapid.Int32Range(0, 4).Draw(h.T, "more")
		worker.Min = rapid.Int32Range(0, worker.Count-1).Draw(h.T, "least")
	}
	if rapid.Bool().Draw(h.T, "reads") {
		worker.Program.Inputs = []cluster.Input{{Channel: "hunter2", URI: "s3://data/x"}}
	}
	h.made++
	l := &lived{gang: g}
	h.gangs[g.ID()] = l
	h.put(l)
}

func (h *history) plan() {
	plan := h.cluster.Plan(h.now)
	h.decided++
	h.told = append(h.told, Told{Decided: &Decided{Number: h.decided, Now: h.now, Plan: plan}})
	for _, p := range plan.Placements {
		l := h.gangs[p.Gang]
		l.gang = l.gang.Of(p)
		for i, a := range p.Allocations {
			l.tasks = append(l.tasks, cluster.Task{
				ID: fmt.Sprintf("%s/worker-%d.%d", p.Gang, i, p.Attempt), Job: l.gang.Job, Gang: p.Gang, Role: "worker", Index: int32(i), Attempt: p.Attempt,
				Allocation: a, Assigned: h.now, Status: cluster.TaskStatus{State: cluster.TaskRunning},
			})
		}
		h.put(l)
	}
	for _, e := range plan.Evictions {
		l := h.gangs[e.Gang]
		l.gang.Stop, l.gang.For = true, e.For
		if e.Resizes() {
			l.gang.Resized = append(slices.Clone(l.gang.Resized), h.now)
			h.resized++
		}
		l.gang.Revision++
		h.put(l)
	}
}

// end ends a gang that runs or waits.
func (h *history) end() {
	id := fmt.Sprintf("j%d/main", rapid.IntRange(0, max(0, h.made-1)).Draw(h.T, "ends"))
	l := h.gangs[id]
	if l == nil {
		return
	}
	if l.gang.Stop { // it makes room, and waits for its turn again
		l.gang.Stop, l.gang.For, l.gang.Attempt, l.gang.Granted = false, "", l.gang.Attempt+1, nil
		l.gang.Revision++
	} else {
		delete(h.gangs, id)
		if rapid.Bool().Draw(h.T, "succeeded") {
			h.tell(Told{Done: &Done{Gang: l.gang, Ran: time.Duration(h.now - l.gang.Submitted)}})
		}
		h.tell(Told{Gone: id})
	}
	tasks := l.tasks
	l.tasks = nil
	for _, task := range tasks {
		h.used(h.nodes[task.Allocation.Node])
	}
	if h.gangs[id] != nil {
		h.put(l)
	}
}

// checkpoint has all that runs and keeps checkpoints keep one.
func (h *history) checkpoint() {
	for i := range h.made {
		l := h.gangs[fmt.Sprintf("j%d/main", i)]
		if l == nil || len(l.tasks) == 0 || !l.gang.Roles[0].Program.Checkpoints {
			continue
		}
		l.tasks = slices.Clone(l.tasks)
		l.tasks[0].Status.Progress.Checkpoint = h.now
		h.put(l)
	}
}

func (h *history) step() {
	switch rapid.IntRange(0, 10).Draw(h.T, "step") {
	case 0:
		h.node(fmt.Sprintf("n%d", rapid.IntRange(0, 2).Draw(h.T, "node")), uint64(len(h.told)))
	case 1, 2, 3:
		h.submit()
	case 4:
		h.end()
	case 5, 6:
		h.now += int64(rapid.IntRange(1, 120).Draw(h.T, "minutes")) * int64(time.Minute)
	case 7:
		if rapid.IntRange(0, 3).Draw(h.T, "anew") == 0 {
			h.begin()
		}
	case 8:
		h.checkpoint()
	case 9:
		id := fmt.Sprintf("j%d/main", rapid.IntRange(0, max(0, h.made-1)).Draw(h.T, "paused"))
		h.tell(Told{Pause: &Pause{Gang: id, Until: h.now + int64(time.Minute)}})
	}
	h.now += int64(time.Second)
	h.plan()
}

// record writes a history as it stands on disk.
func record(t interface{ Fatal(...any) }, told []Told) []byte {
	var out []byte
	known := described{}
	for _, one := range told {
		if one.Begin != nil {
			out = append(out, heading()...)
			clear(known)
		}
		var err error
		if out, err = known.frame(out, one); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func drawHistory(t *rapid.T) *history {
	h := newHistory(t)
	h.node("n0", 1)
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		h.step()
	}
	return h
}

func TestARecordIsRepeatedBitForBit(t *testing.T) {
	var decisions, evicted, segments, resized, taken int64
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt)
		bytesOf := record(rt, h.told)
		if bytes.Contains(bytesOf, []byte("hunter2")) || bytes.Contains(bytesOf, []byte("secret")) {
			rt.Fatal("the record holds what tasks run")
		}
		out, err := Replay(bytes.NewReader(bytesOf), Until{})
		if err != nil || out.Differs != "" || out.Torn {
			rt.Fatalf("%v, %+v", err, out)
		}
		recorded := 0
		for _, told := range h.told {
			if told.Decided != nil {
				recorded++
			}
		}
		if out.Decisions != int64(recorded) {
			rt.Fatalf("%d decisions were repeated of %d", out.Decisions, recorded)
		}
		decisions, evicted, segments = decisions+out.Decisions, evicted+int64(out.Evicted), segments+int64(out.Segments)
		resized, taken = resized+h.resized, taken+h.taken
	})
	if decisions < 200 || evicted < 5 || segments < 110 || taken == 0 {
		t.Errorf("%d decisions, %d evictions, %d segments, %d resized, %d taken over", decisions, evicted, segments, resized, taken)
	}
}

// mutate changes one field of one decision.
func mutate(t *rapid.T, d Decided) Decided {
	plan := cluster.Plan{Placements: slices.Clone(d.Plan.Placements), Evictions: slices.Clone(d.Plan.Evictions)}
	if len(plan.Placements) == 0 {
		e := &plan.Evictions[0]
		switch rapid.IntRange(0, 2).Draw(t, "field of an eviction") {
		case 0:
			e.For += "x"
		case 1:
			e.Attempt++
		default:
			plan.Evictions = plan.Evictions[1:]
		}
		d.Plan = plan
		return d
	}
	p := &plan.Placements[rapid.IntRange(0, len(plan.Placements)-1).Draw(t, "placement")]
	p.Allocations = slices.Clone(p.Allocations)
	a := &p.Allocations[rapid.IntRange(0, len(p.Allocations)-1).Draw(t, "allocation")]
	switch rapid.IntRange(0, 6).Draw(t, "field") {
	case 0:
		p.Gang += "x"
	case 1:
		p.Attempt++
	case 2:
		p.Revision++
	case 3:
		a.Node += "x"
	case 4:
		a.Resources.MilliCPU++
	case 5:
		a.Resources.Ports = append(slices.Clone(a.Resources.Ports), 7)
	default:
		plan.Placements = plan.Placements[:len(plan.Placements)-1]
	}
	d.Plan = plan
	return d
}

func TestOneChangedFieldIsNoticed(t *testing.T) {
	noticed := 0
	rapid.Check(t, func(rt *rapid.T) {
		h := drawHistory(rt)
		var at []int
		for i, told := range h.told {
			if told.Decided != nil && len(told.Decided.Plan.Placements)+len(told.Decided.Plan.Evictions) > 0 {
				at = append(at, i)
			}
		}
		if len(at) == 0 {
			return
		}
		i := rapid.SampledFrom(at).Draw(rt, "decision")
		d := mutate(rt, *h.told[i].Decided)
		told := slices.Clone(h.told)
		told[i] = Told{Decided: &d}
		out, err := Replay(bytes.NewReader(record(rt, told)), Until{})
		if err != nil || !strings.Contains(out.Differs, fmt.Sprintf("decision %d of segment", d.Number)) {
			rt.Fatalf("%v, %+v", err, out)
		}
		noticed++
	})
	if noticed < 40 {
		t.Errorf("%d mutants were noticed", noticed)
	}
}

func TestRubbishIsRefusedWithItsOffset(t *testing.T) {
	refused := 0
	rapid.Check(t, func(rt *rapid.T) {
		good := record(rt, drawHistory(rt).told)
		bad := slices.Clone(good)
		at := rapid.IntRange(0, len(bad)-1).Draw(rt, "at")
		bad[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
		out, err := Replay(bytes.NewReader(bad), Until{})
		if err == nil && !out.Torn {
			rt.Fatalf("byte %d was changed, and nobody noticed", at)
		}
		if err != nil {
			refused++
			if at >= len(magic) && !strings.Contains(err.Error(), "offset") {
				rt.Fatalf("it does not say where: %v", err)
			}
		}
		cut := rapid.IntRange(0, len(good)-1).Draw(rt, "cut")
		if out, err := Replay(bytes.NewReader(good[:cut]), Until{}); err == nil && out.Differs != "" {
			rt.Fatalf("cut at %d: %+v", cut, out)
		}
	})
	if refused < 50 {
		t.Errorf("%d were refused", refused)
	}
	for _, text := range []string{"", "hello", "CLARYDEC", "CLARYDEC\x02\x00\x00\x00"} {
		if _, err := Replay(strings.NewReader(text), Until{}); err == nil {
			t.Errorf("%q is taken for a record", text)
		}
	}
}
