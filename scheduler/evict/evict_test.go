package evict_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/evict"
	"pgregory.net/rapid"
)

// floor is a room where only GPUs count, so many free on each node.
type floor map[string]int

func (f floor) Mark() floor {
	kept := floor{}
	for node, free := range f {
		kept[node] = free
	}
	return kept
}

func (f floor) Rollback(to floor) {
	for node, free := range to {
		f[node] = free
	}
}

func (f floor) Vacate(_ string, allocations []cluster.Allocation) {
	for _, a := range allocations {
		f[a.Node] += len(a.Resources.Devices)
	}
}

// holds reports whether tasks of so many GPUs have room together.
func (f floor) holds(tasks, gpus int) bool {
	for _, free := range f {
		tasks -= free / gpus
	}
	return tasks <= 0
}

func on(node string, gpus int) cluster.Allocation {
	return cluster.Allocation{Node: node, Resources: cluster.Resources{Devices: make([]string, gpus)}}
}

func victim(id string, cost int64, allocations ...cluster.Allocation) evict.Candidate {
	return evict.Candidate{ID: id, Cost: cost, Allocations: allocations}
}

func names(victims []*evict.Candidate) string {
	var ids []string
	for _, v := range victims {
		ids = append(ids, v.ID)
	}
	return strings.Join(ids, " ")
}

func TestStopsWhatLosesTheLeastWork(t *testing.T) {
	elastic := func(c evict.Candidate) evict.Candidate { c.Elastic = true; return c }
	tests := []struct {
		claim       string
		free        floor
		tasks, gpus int
		candidates  []evict.Candidate
		want        string
	}{
		{"the cheapest", floor{"a": 0, "b": 0}, 1, 1, []evict.Candidate{victim("x", 5, on("a", 1)), victim("y", 3, on("b", 1))}, "y"},
		{"the cheaper of two ways to empty a node", floor{"a": 0, "b": 0}, 1, 2, []evict.Candidate{
			victim("a1", 1, on("a", 1)), victim("a2", 9, on("a", 1)), victim("b1", 4, on("b", 1)), victim("b2", 4, on("b", 1)),
		}, "b1 b2"},
		{"one large instead of many small", floor{"a": 0, "b": 0}, 1, 4, []evict.Candidate{
			victim("a1", 3, on("a", 1)), victim("a2", 3, on("a", 1)), victim("a3", 3, on("a", 1)), victim("a4", 3, on("a", 1)), victim("big", 10, on("b", 4)),
		}, "big"},
		{"a gang on two nodes once", floor{"a": 1, "b": 1}, 2, 2, []evict.Candidate{
			victim("gang", 4, on("a", 1), on("b", 1)), victim("a1", 3, on("a", 1)), victim("b1", 3, on("b", 1)),
		}, "gang"},
		{"what is free is used first", floor{"a": 3, "b": 0}, 1, 4, []evict.Candidate{victim("a1", 8, on("a", 1)), victim("b1", 5, on("b", 4))}, "b1"},
		{"elastic gangs before cheaper ones", floor{"a": 0}, 1, 1, []evict.Candidate{victim("x", 1, on("a", 1)), elastic(victim("e", 9, on("a", 2)))}, "e"},
		{"others where the elastic ones do not suffice", floor{"a": 0}, 1, 3, []evict.Candidate{victim("x", 1, on("a", 1)), elastic(victim("e", 9, on("a", 2)))}, "e x"},
		{"of equals the one that started last", floor{"a": 0}, 1, 1, []evict.Candidate{
			{ID: "old", Cost: 1, Started: 1, Allocations: []cluster.Allocation{on("a", 1)}}, {ID: "new", Cost: 1, Started: 2, Allocations: []cluster.Allocation{on("a", 1)}},
		}, "new"},
		{"nobody where all together do not suffice", floor{"a": 0}, 1, 3, []evict.Candidate{victim("x", 1, on("a", 1)), victim("y", 1, on("a", 1))}, ""},
		{"nobody where nobody may go", floor{"a": 0}, 1, 1, nil, ""},
	}
	for _, test := range tests {
		room := test.free
		fits := func([]*evict.Candidate) bool { return room.holds(test.tasks, test.gpus) }
		if got := names(evict.Choose(room, test.candidates, fits, nil)); got != test.want {
			t.Errorf("%s: %q, want %q", test.claim, got, test.want)
		}
	}
}

// quota lets so many go.
type quota struct{ left, most int }

func (q *quota) Begin()                      { q.left = q.most }
func (q *quota) Allow(*evict.Candidate) bool { q.left--; return q.left >= 0 }

func TestKeepsToTheLimit(t *testing.T) {
	room := floor{"a": 0}
	candidates := []evict.Candidate{victim("x", 1, on("a", 1)), victim("y", 2, on("a", 1)), victim("z", 3, on("a", 1))}
	fits := func([]*evict.Candidate) bool { return room.holds(1, 2) }
	for most, want := range map[int]string{1: "", 2: "x y", 3: "x y"} {
		if got := names(evict.Choose(room, candidates, fits, &quota{most: most})); got != want {
			t.Errorf("%d may go: %q, want %q", most, got, want)
		}
	}
}

// puzzle is who may be stopped for tasks of so many GPUs.
type puzzle struct {
	room        floor
	candidates  []evict.Candidate
	tasks, gpus int
}

func drawPuzzle(t *rapid.T) puzzle {
	p := puzzle{room: floor{}, tasks: rapid.IntRange(1, 4).Draw(t, "tasks"), gpus: rapid.IntRange(1, 8).Draw(t, "gpus")}
	var nodes []string
	for i := range rapid.IntRange(1, 5).Draw(t, "nodes") {
		nodes = append(nodes, fmt.Sprint("n", i))
		p.room[nodes[i]] = rapid.IntRange(0, 3).Draw(t, "free")
	}
	for i := range rapid.IntRange(0, 12).Draw(t, "candidates") {
		c := victim(fmt.Sprint("c", i), rapid.Int64Range(0, 20).Draw(t, "cost"))
		c.Elastic = rapid.IntRange(0, 3).Draw(t, "elastic") == 0
		for range rapid.IntRange(1, 3).Draw(t, "on") {
			c.Allocations = append(c.Allocations, on(rapid.SampledFrom(nodes).Draw(t, "node"), rapid.IntRange(1, 4).Draw(t, "held")))
		}
		p.candidates = append(p.candidates, c)
	}
	return p
}

func (p *puzzle) fits([]*evict.Candidate) bool { return p.room.holds(p.tasks, p.gpus) }

// without reports whether it fits when the victims go, one of them being spared.
func (p *puzzle) without(spared int, victims []*evict.Candidate) bool {
	defer p.room.Rollback(p.room.Mark())
	for i, v := range victims {
		if i != spared {
			p.room.Vacate(v.ID, v.Allocations)
		}
	}
	return p.fits(nil)
}

func (p *puzzle) all() []*evict.Candidate {
	all := make([]*evict.Candidate, len(p.candidates))
	for i := range p.candidates {
		all[i] = &p.candidates[i]
	}
	return all
}

func choose(p *puzzle) []*evict.Candidate { return evict.Choose(p.room, p.candidates, p.fits, nil) }

// minimal is the law: what is chosen suffices, none of it can be spared, it is found whenever there is one,
// and the room is left as it was.
func minimal(p puzzle, choose func(*puzzle) []*evict.Candidate, counted map[string]int) error {
	if p.fits(nil) {
		return nil
	}
	before := p.room.Mark()
	victims := choose(&p)
	for node, free := range before {
		if p.room[node] != free {
			return fmt.Errorf("node %s has %d free, it had %d", node, p.room[node], free)
		}
	}
	if victims == nil {
		counted["nobody"]++
		if p.without(-1, p.all()) {
			return errors.New("nobody is chosen, though all together suffice")
		}
		return nil
	}
	if !p.without(-1, victims) {
		return fmt.Errorf("%s do not suffice", names(victims))
	}
	for i := range victims {
		if p.without(i, victims) {
			return fmt.Errorf("%s: %s could be spared", names(victims), victims[i].ID)
		}
	}
	counted[fmt.Sprint(min(3, len(victims)), " victims")]++
	counted["spared"] += len(p.candidates) - len(victims)
	return nil
}

func TestVictimsAreAMinimalSet(t *testing.T) {
	counted := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		if err := minimal(drawPuzzle(t), choose, counted); err != nil {
			t.Fatal(err)
		}
	})
	for _, what := range []string{"nobody", "1 victims", "2 victims", "3 victims", "spared"} {
		if counted[what] == 0 {
			t.Errorf("%s was never exercised: %v", what, counted)
		}
	}
}

// TestTheLawCatchesWhoBreaksIt lets worse ways to choose break the law.
func TestTheLawCatchesWhoBreaksIt(t *testing.T) {
	mutants := map[string]func(*puzzle) []*evict.Candidate{
		"all that may be stopped": func(p *puzzle) []*evict.Candidate {
			if all := p.all(); p.without(-1, all) {
				return all
			}
			return nil
		},
		"the first that suffice": func(p *puzzle) []*evict.Candidate {
			for n := range p.all() {
				if some := p.all()[:n+1]; p.without(-1, some) {
					return some
				}
			}
			return nil
		},
		"one too few": func(p *puzzle) []*evict.Candidate {
			victims := choose(p)
			return victims[:max(0, len(victims)-1)]
		},
		"nobody": func(*puzzle) []*evict.Candidate { return nil },
		"and forgets to undo": func(p *puzzle) []*evict.Candidate {
			victims := choose(p)
			for _, v := range victims {
				p.room.Vacate(v.ID, v.Allocations)
			}
			return victims
		},
	}
	puzzles := rapid.Custom(drawPuzzle)
	for name, mutant := range mutants {
		caught := false
		for seed := 0; seed < 500 && !caught; seed++ {
			caught = minimal(puzzles.Example(seed), mutant, map[string]int{}) != nil
		}
		if !caught {
			t.Errorf("%s: nobody notices", name)
		}
	}
}

func TestCostIsLostWorkTimesWhatItRanOn(t *testing.T) {
	gpus := func(n int) []cluster.Allocation { return []cluster.Allocation{on("a", n)} }
	cores := []cluster.Allocation{{Resources: cluster.Resources{MilliCPU: 32_000}}}
	shares := []cluster.Allocation{{Resources: cluster.Resources{Shares: []cluster.DeviceShare{{UUID: "x", Milli: 900}, {UUID: "y", Profile: "2g.10gb"}}}}}
	second := int64(time.Second)
	tests := []struct {
		claim       string
		allocations []cluster.Allocation
		safe, now   int64
		restart     time.Duration
		want        int64 // milli-GPU-milliseconds
	}{
		{"8 GPUs for 10 s, and 30 s to start again", gpus(8), 0, 10 * second, 30 * time.Second, 8 * 1000 * 40_000},
		{"a fresh checkpoint: only the start", gpus(8), 10 * second, 10 * second, 30 * time.Second, 8 * 1000 * 30_000},
		{"32 cores are 2 GPUs", cores, 0, second, 0, 2 * 1000 * 1000},
		{"0.9 of a GPU and a slot of two slices of seven", shares, 0, second, 0, (900 + 2000/7) * 1000},
		{"a checkpoint of another clock, from the future", gpus(1), 20 * second, 10 * second, 0, 0},
		{"a year is no more than 90 days", gpus(1), 0, 365 * 24 * 3600 * second, 0, 1000 * 90 * 24 * 3600 * 1000},
	}
	for _, test := range tests {
		if got := evict.Cost(evict.Weight(test.allocations), test.safe, test.now, test.restart); got != test.want {
			t.Errorf("%s: %d, want %d", test.claim, got, test.want)
		}
	}
	if got := evict.Cost(math.MaxInt64/2, 0, 1000*second, 0); got != math.MaxInt64 {
		t.Errorf("overflows to %d", got)
	}
	if got := evict.Weight(nil); got != 1 {
		t.Errorf("nothing weighs %d: it would be stopped for free", got)
	}
}
