package share_test

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
)

// tree is what the laws are held against: share.Tree, or a mutant of it that they must catch.
type tree interface {
	Admit(share.Claim) (share.Block, bool)
	Charge(share.Claim) error
	Release(share.Claim) error
	Next() (string, bool)
	MayEvict(preemptor, victim string, gain, loss cluster.Amount) share.Right
	SetDemand(string, cluster.Amount)
	ClearDemand(string)
	Guaranteed(string, cluster.Amount) bool
	ShareAfter(string, cluster.Amount, int64) share.Share
	Usage(string) share.Usage
}

// world is a drawn tree of queues, what the cluster has, and what is done to it.
type world struct {
	Queues   []cluster.Queue
	Leaves   []string
	Capacity cluster.Amount
	Steps    []step
}

type step struct {
	Claim   share.Claim
	Release bool // one that is held, if any: that of number Pick
	Pick    int
}

const model = "A100"

func amount(gpus, ofModel int64) cluster.Amount {
	a := cluster.Amount{MilliCPU: gpus * 4000, Memory: gpus << 30, MilliGPU: gpus * 1000}
	if ofModel > 0 {
		a.Models = []cluster.ModelAmount{{Model: model, Milli: ofModel * 1000}}
	}
	return a
}

// worlds draws trees of up to three levels with quotas in whole GPUs, and 40 steps.
func worlds() *rapid.Generator[world] {
	return rapid.Custom(func(t *rapid.T) world {
		var w world
		a100 := rapid.Int64Range(0, 16).Draw(t, "a100")
		w.Capacity = amount(a100+rapid.Int64Range(0, 32).Draw(t, "others"), a100)
		var grow func(parent string, depth int, g, gm int64)
		grow = func(parent string, depth int, g, gm int64) {
			for i := range rapid.IntRange(1, 3).Draw(t, "children") {
				q := cluster.Queue{Name: fmt.Sprintf("%sq%d", parent, i), Parent: parent, Weight: rapid.Int32Range(1, 4).Draw(t, "weight")}
				gpus := rapid.Int64Range(0, g).Draw(t, "guarantee")
				models := rapid.Int64Range(0, min(gm, gpus)).Draw(t, "guarantee of the model")
				g, gm = g-gpus, gm-models
				q.Guarantee = draw(q.Guarantee, gpus, models, true)
				if rapid.Bool().Draw(t, "limited") {
					q.Borrow = draw(q.Borrow, rapid.Int64Range(0, 12).Draw(t, "borrow"), rapid.Int64Range(0, 12).Draw(t, "borrow of the model"), false)
				}
				if rapid.Bool().Draw(t, "withholds") && gpus > 0 {
					q.Lend = cluster.Quota(nil).With(cluster.ResourceGPUs, 1000*rapid.Int64Range(0, gpus).Draw(t, "lend"))
				}
				if rapid.IntRange(0, 3).Draw(t, "limits users") == 0 {
					q.User.Most = cluster.Quota(nil).With(cluster.ResourceGPUs, 1000*rapid.Int64Range(1, 8).Draw(t, "of a user"))
					q.MaxRunning = rapid.Int32Range(0, 5).Draw(t, "running")
					q.Unpreemptible = q.Unpreemptible.With(cluster.ResourceGPUs, 1000*rapid.Int64Range(0, 6).Draw(t, "unpreemptible"))
				}
				w.Queues = append(w.Queues, q)
				if depth < 3 && rapid.Bool().Draw(t, "inner") {
					grow(q.Name, depth+1, gpus, models)
				} else {
					w.Leaves = append(w.Leaves, q.Name)
				}
			}
		}
		grow("", 1, w.Capacity.MilliGPU/1000, a100)
		for i := range rapid.IntRange(1, 40).Draw(t, "steps") {
			gpus := rapid.Int64Range(0, 6).Draw(t, "gpus")
			w.Steps = append(w.Steps, step{
				Claim: share.Claim{
					Queue: rapid.SampledFrom(w.Leaves).Draw(t, "queue"), Owner: rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "owner"),
					Job: fmt.Sprintf("j%d", i), Firm: rapid.IntRange(0, 3).Draw(t, "firm") == 0, Amount: amount(gpus, rapid.Int64Range(0, gpus).Draw(t, "of the model")),
				},
				Release: rapid.IntRange(0, 3).Draw(t, "release") == 0, Pick: rapid.IntRange(0, 1000).Draw(t, "pick"),
			})
		}
		return w
	})
}

func draw(q cluster.Quota, gpus, models int64, sparse bool) cluster.Quota {
	if gpus > 0 || !sparse {
		q = q.With(cluster.ResourceGPUs, gpus*1000)
	}
	if models > 0 {
		q = q.With(cluster.ResourceGPUs+"/"+model, models*1000)
	}
	return q
}

func (w world) grown() *share.Tree {
	t := share.New()
	t.SetCapacity(w.Capacity)
	if err := t.Set(w.Queues); err != nil {
		panic(err)
	}
	return t
}

func (w world) queue(name string) cluster.Queue {
	return w.Queues[slices.IndexFunc(w.Queues, func(q cluster.Queue) bool { return q.Name == name })]
}

// room reports whether the cluster itself has room.
func (w world) room(held []share.Claim, c share.Claim) bool {
	used := sum(held, func(share.Claim) bool { return true }).Plus(c.Amount, 1)
	return used.MilliGPU <= w.Capacity.MilliGPU && used.Of("gpus/"+model) <= w.Capacity.Of("gpus/"+model) &&
		used.MilliCPU <= w.Capacity.MilliCPU && used.Memory <= w.Capacity.Memory
}

func sum(held []share.Claim, count func(share.Claim) bool) cluster.Amount {
	var used cluster.Amount
	for _, c := range held {
		if count(c) {
			used = used.Plus(c.Amount, 1)
		}
	}
	return used
}

// under reports whether a queue is another or below it.
func (w world) under(name, above string) bool {
	for name != "" && name != above {
		name = w.queue(name).Parent
	}
	return name == above
}

// play admits and charges what may be, and calls check after every step with what is held.
func (w world) play(t tree, check func(held []share.Claim) error) ([]share.Claim, error) {
	var held []share.Claim
	for _, s := range w.Steps {
		if s.Release {
			if len(held) == 0 {
				continue
			}
			i := s.Pick % len(held)
			if err := t.Release(held[i]); err != nil {
				return nil, err
			}
			held = slices.Delete(held, i, i+1)
		} else if _, ok := t.Admit(s.Claim); ok && w.room(held, s.Claim) {
			if err := t.Charge(s.Claim); err != nil {
				return nil, err
			}
			held = append(held, s.Claim)
		}
		if err := check(held); err != nil {
			return nil, err
		}
	}
	return held, nil
}

var resources = []string{cluster.ResourceGPUs, cluster.ResourceGPUs + "/" + model}

// quotasKept is the law that no queue holds more than its guarantee and borrowing limit, no user and no
// number of jobs is beyond its limit, and what a queue withholds is there when it asks.
func quotasKept(w world, t tree) (exercised int, err error) {
	_, err = w.play(t, func(held []share.Claim) error {
		total := sum(held, func(share.Claim) bool { return true })
		idle := map[string]int64{} // withheld and not used, by resource
		for _, q := range w.Queues {
			mine := func(c share.Claim) bool { return w.under(c.Queue, q.Name) }
			used := sum(held, mine)
			jobs := int32(len(slices.DeleteFunc(slices.Clone(held), func(c share.Claim) bool { return !mine(c) })))
			if q.MaxRunning > 0 && jobs > q.MaxRunning {
				return fmt.Errorf("%s runs %d jobs of %d", q.Name, jobs, q.MaxRunning)
			}
			for _, r := range resources {
				guarantee, _ := q.Guarantee.Of(r)
				if borrow, limited := q.Borrow.Of(r); limited {
					exercised++
					if used.Of(r) > guarantee+borrow {
						return fmt.Errorf("%s holds %d of %s, guarantee %d and borrowing limit %d", q.Name, used.Of(r), r, guarantee, borrow)
					}
				}
				firm := sum(held, func(c share.Claim) bool { return mine(c) && c.Firm })
				if most, limited := q.Unpreemptible.Of(r); limited && firm.Of(r) > most {
					return fmt.Errorf("nobody may preempt %d of %s in %s, most %d", firm.Of(r), r, q.Name, most)
				}
				if lend, limited := q.Lend.Of(r); limited && slices.Contains(w.Leaves, q.Name) {
					idle[r] += max(0, guarantee-lend-used.Of(r))
				}
				for _, user := range []string{"ann", "bob"} {
					of := sum(held, func(c share.Claim) bool { return mine(c) && c.Owner == user })
					if most, limited := q.User.Most.Of(r); limited && of.Of(r) > most {
						return fmt.Errorf("%s holds %d of %s in %s, most %d", user, of.Of(r), r, q.Name, most)
					}
				}
			}
		}
		for r, withheld := range idle {
			if w.Capacity.Of(r)-total.Of(r) < withheld {
				return fmt.Errorf("%d of %s are withheld, %d are free", withheld, r, w.Capacity.Of(r)-total.Of(r))
			}
		}
		return nil
	})
	return exercised, err
}

// balanced is the law that releases undo charges: with all given back the tree is as it was.
func balanced(w world, t tree) (exercised int, err error) {
	held, err := w.play(t, func(held []share.Claim) error {
		used := sum(held, func(share.Claim) bool { return true })
		if got := t.Usage("").Used; !got.Plus(used, -1).IsZero() {
			return fmt.Errorf("the tree holds %+v, it was charged %+v", got, used)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, c := range held {
		if err := t.Release(c); err != nil {
			return 0, err
		}
		exercised++
	}
	for _, q := range append([]cluster.Queue{{}}, w.Queues...) {
		if u := t.Usage(q.Name); !u.Used.IsZero() || !u.Firm.IsZero() || u.Running != 0 || len(u.Owners) != 0 {
			return 0, fmt.Errorf("queue %q holds %+v after all was released", q.Name, u)
		}
	}
	fresh := w.grown()
	for _, s := range w.Steps {
		got, may := t.Admit(s.Claim)
		want, mayToo := fresh.Admit(s.Claim)
		if may != mayToo || got != want {
			return 0, fmt.Errorf("an emptied tree says %v, a fresh one %v", got, want)
		}
	}
	return exercised, nil
}

// reclaimable is the law that a queue gets what it is guaranteed, if it evicts all that it may for it.
func reclaimable(w world, t tree) (exercised int, err error) {
	held, err := w.play(t, func([]share.Claim) error { return nil })
	if err != nil {
		return 0, err
	}
	for _, leaf := range w.Leaves {
		q := w.queue(leaf)
		used := sum(held, func(c share.Claim) bool { return c.Queue == leaf })
		guarantee, _ := q.Guarantee.Of(cluster.ResourceGPUs)
		models, ofModel := q.Guarantee.Of("gpus/" + model)
		ask := share.Claim{Queue: leaf, Owner: "eve", Job: "reclaims"}
		ask.MilliGPU = guarantee - used.MilliGPU
		if ask.MilliGPU <= 0 {
			continue
		}
		if most := min(models-used.Of("gpus/"+model), ask.MilliGPU); ofModel && most > 0 {
			ask.Models = []cluster.ModelAmount{{Model: model, Milli: most}}
		}
		if u := limitsOf(w, leaf); u {
			continue // jobs and users may be limited however much is guaranteed
		}
		left := slices.Clone(held)
		evicts := func() bool {
			for i, victim := range left {
				if t.MayEvict(leaf, victim.Queue, ask.Amount, victim.Amount) == share.RightReclaim {
					if err = t.Release(victim); err != nil {
						return false
					}
					left = slices.Delete(left, i, i+1)
					return true
				}
			}
			return false
		}
		for {
			block, ok := t.Admit(ask)
			if ok && w.room(left, ask) {
				break
			}
			if !evicts() {
				return 0, fmt.Errorf("%s is guaranteed %d and cannot get %+v: %v, with %+v held", leaf, guarantee, ask.Amount, block, left)
			}
			exercised++
		}
		for _, victim := range held { // as it was, for the next
			if !slices.ContainsFunc(left, func(c share.Claim) bool { return c.Job == victim.Job }) {
				if err := t.Charge(victim); err != nil {
					return 0, err
				}
			}
		}
	}
	return exercised, nil
}

// limitsOf reports whether a queue or one above it limits users or jobs.
func limitsOf(w world, name string) bool {
	for ; name != ""; name = w.queue(name).Parent {
		if q := w.queue(name); q.MaxRunning > 0 || len(q.User.Most) > 0 {
			return true
		}
	}
	return false
}

// conserved is the law that a queue which is alone may hold all that no other withholds.
func conserved(w world, t tree) (exercised int, err error) {
	for _, leaf := range w.Leaves {
		limited := limitsOf(w, leaf)
		for name := leaf; name != ""; name = w.queue(name).Parent {
			limited = limited || len(w.queue(name).Borrow) > 0
		}
		if limited {
			continue
		}
		withheld := int64(0) // by the others and, above them, by what leads to them
		var count func(parent string) int64
		count = func(parent string) int64 {
			below := int64(0)
			for _, q := range w.Queues {
				if q.Parent != parent || q.Name == leaf {
					continue
				}
				own := count(q.Name)
				if lend, limited := q.Lend.Of(cluster.ResourceGPUs); limited && !w.under(leaf, q.Name) {
					guarantee, _ := q.Guarantee.Of(cluster.ResourceGPUs)
					own = max(own, guarantee-lend)
				}
				below += own
			}
			return below
		}
		withheld = count("")
		ask := share.Claim{Queue: leaf, Owner: "ann", Job: "all", Amount: cluster.Amount{MilliGPU: w.Capacity.MilliGPU - withheld}}
		if ask.MilliGPU <= 0 {
			continue
		}
		if block, ok := t.Admit(ask); !ok {
			return 0, fmt.Errorf("%s is alone, %d of %d are withheld, and %d are refused: %v", leaf, withheld, w.Capacity.MilliGPU, ask.MilliGPU, block)
		}
		exercised++
	}
	return exercised, nil
}

// tournament is the law that Next is the queue that a search through the whole tree finds.
func tournament(w world, t tree) (exercised int, err error) {
	demand := map[string]cluster.Amount{}
	var winner func(parent string) string
	winner = func(parent string) string {
		best, covered, least := "", false, share.Share{}
		for _, q := range slices.SortedFunc(slices.Values(w.Queues), func(a, b cluster.Queue) int { return cmp.Compare(a.Name, b.Name) }) {
			if q.Parent != parent {
				continue
			}
			leaf := q.Name
			if !slices.Contains(w.Leaves, leaf) {
				leaf = winner(q.Name)
			}
			head, wants := demand[leaf]
			if !wants {
				continue
			}
			first, s := t.Guaranteed(q.Name, head), t.ShareAfter(q.Name, head, 1)
			if best == "" || first && !covered || first == covered && s.Less(least) {
				best, covered, least = leaf, first, s
			}
		}
		return best
	}
	i := 0
	_, err = w.play(t, func([]share.Claim) error {
		s := w.Steps[i%len(w.Steps)]
		i++
		if s.Pick%5 == 0 {
			t.ClearDemand(s.Claim.Queue)
			delete(demand, s.Claim.Queue)
		} else {
			t.SetDemand(s.Claim.Queue, s.Claim.Amount)
			demand[s.Claim.Queue] = s.Claim.Amount
		}
		got, _ := t.Next()
		if want := winner(""); got != want {
			return fmt.Errorf("next is %q, a search finds %q", got, want)
		}
		if len(demand) > 1 {
			exercised++
		}
		return nil
	})
	return exercised, err
}

// noSwap is the law that of two queues which evict each other by what they hold more, one soon may not.
func noSwap(w world, t tree) (exercised int, err error) {
	held, err := w.play(t, func([]share.Claim) error { return nil })
	if err != nil {
		return 0, err
	}
	for moves := 0; ; moves++ {
		if moves > 2000 {
			return 0, fmt.Errorf("%d evictions and no end", moves)
		}
		moved := false
		for i, victim := range held {
			for _, leaf := range w.Leaves {
				if moved || leaf == victim.Queue || t.MayEvict(leaf, victim.Queue, victim.Amount, victim.Amount) == share.RightNone {
					continue
				}
				if err := t.Release(victim); err != nil {
					return 0, err
				}
				held[i].Queue = leaf
				if err := t.Charge(held[i]); err != nil {
					return 0, err
				}
				moved = true
				exercised++
			}
		}
		if !moved {
			return exercised, nil
		}
	}
}

type law struct {
	name    string
	holds   func(w world, t tree) (int, error)
	mutants map[string]func(w world) tree
}

func laws() []law {
	return []law{
		{"no quota is broken", quotasKept, map[string]func(world) tree{
			"borrowing limits ignored": func(w world) tree { return ignores{w.grown(), share.LimitBorrow} },
			"withheld is taken":        func(w world) tree { return ignores{w.grown(), share.LimitWithheld} },
			"users not limited":        func(w world) tree { return ignores{w.grown(), share.LimitUser} },
			"firm ones not limited":    func(w world) tree { return ignores{w.grown(), share.LimitFirm} },
			"jobs not limited":         func(w world) tree { return ignores{w.grown(), share.LimitRunning} },
		}},
		{"charges and releases balance", balanced, map[string]func(world) tree{
			"a release forgets the models": func(w world) tree { return leaks{w.grown()} },
		}},
		{"a guarantee can be reclaimed", reclaimable, map[string]func(world) tree{
			"only by the fair share": func(w world) tree { return timid{w.grown()} },
		}},
		{"work is conserved", conserved, map[string]func(world) tree{
			"nobody lends": func(w world) tree { return stingy(w) },
		}},
		{"the tournament finds the least share", tournament, map[string]func(world) tree{
			"a demand that changed is not looked at": func(w world) tree { return stale{w.grown(), map[string]bool{}} },
		}},
		{"evictions end", noSwap, map[string]func(world) tree{
			"shares compared before the move": func(w world) tree { return greedy{w.grown()} },
		}},
	}
}

func TestLaws(t *testing.T) {
	for _, l := range laws() {
		t.Run(l.name, func(t *testing.T) {
			exercised := 0
			rapid.Check(t, func(t *rapid.T) {
				w := worlds().Draw(t, "world")
				n, err := l.holds(w, w.grown())
				if err != nil {
					t.Fatalf("%v\n%+v", err, w)
				}
				exercised += n
			})
			if exercised == 0 {
				t.Fatal("nothing was exercised")
			}
			for name, mutant := range l.mutants {
				if !caught(l, mutant) {
					t.Errorf("the law does not see a tree in which %s", name)
				}
			}
		})
	}
}

func caught(l law, mutant func(world) tree) bool {
	drawn := worlds()
	for seed := range 3000 {
		w := drawn.Example(seed)
		if _, err := l.holds(w, mutant(w)); err != nil {
			return true
		}
	}
	return false
}

// The mutants.

type ignores struct {
	*share.Tree
	limit string
}

func (m ignores) Admit(c share.Claim) (share.Block, bool) {
	block, ok := m.Tree.Admit(c)
	return block, ok || block.Limit == m.limit
}

type leaks struct{ *share.Tree }

func (m leaks) Release(c share.Claim) error {
	c.Models = nil
	return m.Tree.Release(c)
}

type timid struct{ *share.Tree }

func (m timid) MayEvict(p, v string, gain, loss cluster.Amount) share.Right {
	if right := m.Tree.MayEvict(p, v, gain, loss); right == share.RightFair {
		return right
	}
	return share.RightNone
}

func stingy(w world) tree {
	w.Queues = slices.Clone(w.Queues)
	for i, q := range w.Queues {
		if len(q.Guarantee) > 0 {
			w.Queues[i].Lend = cluster.Quota(nil).With(q.Guarantee[0].Resource, 0)
		}
	}
	return w.grown()
}

type stale struct {
	*share.Tree
	known map[string]bool
}

func (m stale) SetDemand(queue string, head cluster.Amount) {
	if !m.known[queue] {
		m.known[queue] = true
		m.Tree.SetDemand(queue, head)
	}
}

type greedy struct{ *share.Tree }

func (m greedy) MayEvict(p, v string, _, _ cluster.Amount) share.Right {
	if m.Share(p).Less(m.Share(v)) {
		return share.RightFair
	}
	return share.RightNone
}
