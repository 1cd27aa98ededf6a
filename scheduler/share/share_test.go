package share_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
)

func quota(pairs ...any) cluster.Quota {
	var q cluster.Quota
	for i := 0; i < len(pairs); i += 2 {
		q = q.With(pairs[i].(string), int64(pairs[i+1].(int)))
	}
	return q
}

func gpus(n int64) cluster.Amount { return cluster.Amount{MilliGPU: n * 1000} }

func grown(t *testing.T, capacity cluster.Amount, queues ...cluster.Queue) *share.Tree {
	t.Helper()
	tree := share.New()
	tree.SetCapacity(capacity)
	for i := range queues {
		queues[i].Weight = max(queues[i].Weight, 1)
	}
	if err := tree.Set(queues); err != nil {
		t.Fatal(err)
	}
	return tree
}

// fill gives one unit after the other to whoever is next, until nobody may have more.
func fill(tree *share.Tree, capacity int64, unit cluster.Amount, wants ...string) map[string]int64 {
	got := map[string]int64{}
	for _, queue := range wants {
		tree.SetDemand(queue, unit)
	}
	for total := int64(0); total < capacity; {
		queue, ok := tree.Next()
		if !ok {
			break
		}
		claim := share.Claim{Queue: queue, Owner: "ann", Amount: unit}
		if _, ok := tree.Admit(claim); !ok {
			tree.ClearDemand(queue)
			continue
		}
		if err := tree.Charge(claim); err != nil {
			panic(err)
		}
		got[queue]++
		total++
	}
	return got
}

// backlog is a tree without guarantees in which every leaf wants more than there is, and what the weights are
// worth to each.
type backlog struct {
	queues   []cluster.Queue
	leaves   []string
	due      map[string]float64
	capacity int64
}

func backlogs() *rapid.Generator[backlog] {
	return rapid.Custom(func(t *rapid.T) backlog {
		b := backlog{due: map[string]float64{}, capacity: rapid.Int64Range(200, 1000).Draw(t, "capacity")}
		var grow func(parent string, depth int, part float64)
		grow = func(parent string, depth int, part float64) {
			n, total, first := rapid.IntRange(1, 4).Draw(t, "children"), int32(0), len(b.queues)
			for i := range n {
				q := cluster.Queue{Name: fmt.Sprintf("%sq%d", parent, i), Parent: parent, Weight: rapid.Int32Range(1, 9).Draw(t, "weight")}
				total += q.Weight
				b.queues = append(b.queues, q)
			}
			for _, q := range slices.Clone(b.queues[first : first+n]) {
				mine := part * float64(q.Weight) / float64(total)
				if depth < 3 && rapid.Bool().Draw(t, "inner") {
					grow(q.Name, depth+1, mine)
					continue
				}
				b.leaves = append(b.leaves, q.Name)
				b.due[q.Name] = mine
			}
		}
		grow("", 1, float64(b.capacity))
		return b
	})
}

// converges is the law that shares come to what the weights are worth; a mutant changes the queues.
func (b backlog) converges(mutate func([]cluster.Queue)) error {
	queues := slices.Clone(b.queues)
	mutate(queues)
	tree := share.New()
	tree.SetCapacity(gpus(b.capacity))
	if err := tree.Set(queues); err != nil {
		return err
	}
	got := fill(tree, b.capacity, gpus(1), b.leaves...)
	for _, leaf := range b.leaves {
		// One unit for the rounding of each of the levels.
		if off := float64(got[leaf]) - b.due[leaf]; off > 3 || off < -3 {
			return fmt.Errorf("%s has %d of %d GPUs, its weights are worth %.1f: %v of %v", leaf, got[leaf], b.capacity, b.due[leaf], got, b.due)
		}
	}
	return nil
}

func TestSharesConvergeToWeightsWhenAllAreBacklogged(t *testing.T) {
	exercised := 0
	rapid.Check(t, func(t *rapid.T) {
		b := backlogs().Draw(t, "backlog")
		if err := b.converges(func([]cluster.Queue) {}); err != nil {
			t.Fatal(err)
		}
		exercised += len(b.leaves)
	})
	if exercised == 0 {
		t.Fatal("nothing was exercised")
	}
	drawn, caught := backlogs(), false
	for seed := 0; seed < 200 && !caught; seed++ {
		caught = drawn.Example(seed).converges(func(queues []cluster.Queue) {
			for i := range queues {
				queues[i].Weight = 1
			}
		}) != nil
	}
	if !caught {
		t.Error("the law does not see a tree in which weights count for nothing")
	}
}

// A queue that holds a core beyond its guarantee can be made to give back that, and nothing that is guaranteed to it.
func TestACoreTooManyCostsNoGuaranteedGPUs(t *testing.T) {
	guarantee := quota(cluster.ResourceCores, 20_000, cluster.ResourceGPUs, 4000)
	tree := grown(t, cluster.Amount{MilliCPU: 100_000, MilliGPU: 16_000},
		cluster.Queue{Name: "p", Guarantee: guarantee}, cluster.Queue{Name: "v", Guarantee: guarantee}, cluster.Queue{Name: "x"})
	holds := cluster.Amount{MilliCPU: 21_000, MilliGPU: 4000}
	for queue, amount := range map[string]cluster.Amount{"v": holds, "x": gpus(12)} {
		if err := tree.Charge(share.Claim{Queue: queue, Owner: "ann", Job: queue, Amount: amount}); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		claim  string
		victim string
		gain   cluster.Amount
		loss   cluster.Amount
		want   share.Right
	}{
		{"GPUs within the guarantee of who holds a core too many", "v", gpus(4), holds, share.RightNone},
		{"GPUs of who has none guaranteed", "x", gpus(4), gpus(12), share.RightReclaim},
		{"GPUs, with cores of which there are enough", "v", cluster.Amount{MilliCPU: 4000, MilliGPU: 4000}, holds, share.RightNone},
		{"GPUs, with cores of which there are enough, of who has none guaranteed", "x", cluster.Amount{MilliCPU: 4000, MilliGPU: 4000}, gpus(12), share.RightReclaim},
		{"the core that is too many", "v", cluster.Amount{MilliCPU: 1000}, holds, share.RightReclaim},
	}
	for _, test := range tests {
		if got := tree.MayEvict("p", test.victim, test.gain, test.loss); got != test.want {
			t.Errorf("%s: %q, want %q", test.claim, got, test.want)
		}
	}
}

func TestAGuaranteeComesFirstAndWeightsDivideTheRest(t *testing.T) {
	tree := grown(t, gpus(100),
		cluster.Queue{Name: "a", Guarantee: quota("gpus", 40_000)},
		cluster.Queue{Name: "b", Weight: 3}, cluster.Queue{Name: "c", Weight: 1})
	got := fill(tree, 40, gpus(1), "a", "b", "c")
	if got["a"] != 40 {
		t.Errorf("the first 40 GPUs went to %v, a is guaranteed them", got)
	}
	got = fill(tree, 60, gpus(1), "a", "b", "c")
	if got["a"] != 12 || got["b"] != 36 || got["c"] != 12 {
		t.Errorf("the other 60 went to %v, the weights are 1, 3, 1", got)
	}
}

func TestWhoHasNoDemandTakesNoPart(t *testing.T) {
	tree := grown(t, gpus(10), cluster.Queue{Name: "a", Weight: 9}, cluster.Queue{Name: "b"})
	if queue, ok := tree.Next(); ok {
		t.Errorf("%q is next, and nobody wants anything", queue)
	}
	if got := fill(tree, 10, gpus(1), "b"); got["b"] != 10 {
		t.Errorf("b alone got %v", got)
	}
}

func TestTheDominantResourceDecides(t *testing.T) {
	capacity := cluster.Amount{MilliCPU: 100_000, MilliGPU: 10_000}
	tree := grown(t, capacity, cluster.Queue{Name: "cores"}, cluster.Queue{Name: "gpus"})
	must(t, tree.Charge(share.Claim{Queue: "cores", Amount: cluster.Amount{MilliCPU: 50_000}}))
	must(t, tree.Charge(share.Claim{Queue: "gpus", Amount: cluster.Amount{MilliCPU: 1000, MilliGPU: 4000}}))
	if c, g := tree.Share("cores").Fraction(), tree.Share("gpus").Fraction(); c < 0.499 || c > 0.501 || g < 0.399 || g > 0.401 {
		t.Errorf("shares are %v and %v, want 0.5 of the cores and 0.4 of the GPUs", c, g)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestABlockNamesTheLimitAndHowMuchIsShort(t *testing.T) {
	a100 := "gpus/A100"
	capacity := cluster.Amount{MilliGPU: 16_000, Models: []cluster.ModelAmount{{Model: "A100", Milli: 8000}}}
	tree := grown(t, capacity,
		cluster.Queue{Name: "top", Borrow: quota("gpus", 2000), Guarantee: quota("gpus", 6000)},
		cluster.Queue{Name: "low", Parent: "top", MaxRunning: 2, User: cluster.UserLimit{MaxRunning: 1, Most: quota(a100, 1000)}},
		cluster.Queue{Name: "keeps", Guarantee: quota("gpus", 6000), Lend: quota("gpus", 1000)},
		cluster.Queue{Name: "wide"},
	)
	ofA100 := func(n int64) cluster.Amount {
		return cluster.Amount{MilliGPU: n, Models: []cluster.ModelAmount{{Model: "A100", Milli: n}}}
	}
	must(t, tree.Charge(share.Claim{Queue: "low", Owner: "ann", Job: "j1", Amount: gpus(5)}))
	for _, c := range []struct {
		claim share.Claim
		want  string
	}{
		{share.Claim{Queue: "low", Owner: "bob", Job: "j2", Amount: gpus(4)}, "queue top has 5 GPUs taken of the 8 GPUs that it may have, its guarantee and its borrowing limit: 4 GPUs asked, 1 GPU short"},
		{share.Claim{Queue: "low", Owner: "ann", Job: "j2", Amount: gpus(1)}, "ann runs 1 jobs in queue low, the most that a user may (user.max_running 1)"},
		{share.Claim{Queue: "low", Owner: "ann", Job: "j1", Amount: ofA100(2000)}, "ann holds 0 A100 GPUs of queue low and may hold 1 A100 GPU: 2 A100 GPUs asked, 1 A100 GPU short"},
		{share.Claim{Queue: "wide", Owner: "ann", Amount: gpus(7)}, "what is free is withheld by queues that do not lend it: 7 GPUs asked, 1 GPU short"},
		{share.Claim{Queue: "wide", Owner: "ann", Amount: gpus(6)}, ""},
		{share.Claim{Queue: "wide", Owner: "ann", Amount: gpus(12)}, ""}, // the nodes are full, and say so themselves
		{share.Claim{Queue: "low", Owner: "ann", Job: "j1", Amount: ofA100(1000)}, ""},
		{share.Claim{Queue: "nowhere"}, "queue nowhere takes no jobs: it is not there, or others are below it"},
		{share.Claim{Queue: "top"}, "queue top takes no jobs: it is not there, or others are below it"},
	} {
		if block, _ := tree.Admit(c.claim); block.String() != c.want {
			t.Errorf("%+v: %q, want %q", c.claim, block, c.want)
		}
	}
	must(t, tree.Charge(share.Claim{Queue: "low", Owner: "bob", Job: "j2"}))
	if block, ok := tree.Admit(share.Claim{Queue: "low", Owner: "eve", Job: "j3"}); ok || block.Limit != share.LimitRunning {
		t.Errorf("a third job: %v", block)
	}
	if got := tree.Barred(share.Claim{Queue: "low", Owner: "ann", Job: "j1", Amount: gpus(2)}); !slices.Equal(got, []string{"A100"}) {
		t.Errorf("ann cannot take 2 more GPUs of %v", got)
	}
}

func TestAChangeHoldsFromTheNextQuestionAndTakesNothingAway(t *testing.T) {
	tree := grown(t, gpus(10), cluster.Queue{Name: "a"}, cluster.Queue{Name: "b"})
	must(t, tree.Charge(share.Claim{Queue: "a", Owner: "ann", Job: "j", Amount: gpus(5)}))
	must(t, tree.Put(cluster.Queue{Name: "a", Weight: 1, Borrow: quota("gpus", 3000)}))
	if got := tree.Usage("a"); got.Used.MilliGPU != 5000 || got.Running != 1 {
		t.Errorf("after its limit was lowered the queue holds %+v", got)
	}
	if block, ok := tree.Admit(share.Claim{Queue: "a", Amount: gpus(1)}); ok || block.Short != 3000 {
		t.Errorf("one more: %+v", block)
	}
	tree.SetCapacity(gpus(2))
	if got := tree.Usage("").Used.MilliGPU; got != 5000 {
		t.Errorf("after the cluster shrank %d are held", got)
	}
	if err := tree.Delete("a"); err == nil {
		t.Error("a queue that holds something was deleted")
	}
	if err := tree.Put(cluster.Queue{Name: "b", Weight: 1, Parent: "nowhere"}); err == nil {
		t.Error("a wrong tree was taken")
	}
	if q, _ := tree.Queue("b"); q.Parent != "" {
		t.Error("a change that was refused was made")
	}
}

func TestWrongTreesAreRefusedWithWhatWouldBeRight(t *testing.T) {
	deep := []cluster.Queue{{Name: "d0", Weight: 1}}
	for i := range cluster.MaxQueueDepth {
		deep = append(deep, cluster.Queue{Name: fmt.Sprintf("d%d", i+1), Parent: fmt.Sprintf("d%d", i), Weight: 1})
	}
	for _, c := range []struct {
		name   string
		queues []cluster.Queue
		want   string
	}{
		{"a circle", []cluster.Queue{{Name: "a", Parent: "b", Weight: 1}, {Name: "b", Parent: "a", Weight: 1}}, `queue "a".parent: it would be below itself`},
		{"itself", []cluster.Queue{{Name: "a", Parent: "a", Weight: 1}}, "below itself"},
		{"no such parent", []cluster.Queue{{Name: "a", Parent: "b", Weight: 1}}, `"b" does not exist`},
		{"twice", []cluster.Queue{{Name: "a", Weight: 1}, {Name: "a", Weight: 2}}, "there twice"},
		{"no weight", []cluster.Queue{{Name: "a"}}, "weight: 0 is out of range"},
		{"too heavy", []cluster.Queue{{Name: "a", Weight: 2_000_000}}, "weight: 2000000 is out of range"},
		{"too deep", deep, "deep"},
		{"below the default", []cluster.Queue{{Name: "default", Weight: 1}, {Name: "a", Parent: "default", Weight: 1}}, "cannot have others below it"},
		{"children above the parent", []cluster.Queue{
			{Name: "a", Weight: 1, Guarantee: quota("gpus", 4000)},
			{Name: "b", Parent: "a", Weight: 1, Guarantee: quota("gpus", 3000)},
			{Name: "c", Parent: "a", Weight: 1, Guarantee: quota("gpus/A100", 2000)},
		}, `queue "a".guarantee.gpus: those below it are guaranteed 5 GPUs together, it has 4 GPUs itself`},
		{"negative", []cluster.Queue{{Name: "a", Weight: 1, Borrow: cluster.Quota{{Resource: "gpus", Amount: -1}}}}, "borrow.gpus: -0.001 GPUs is out of range"},
		{"overflowing", []cluster.Queue{{Name: "a", Weight: 1, Guarantee: cluster.Quota{{Resource: "memory", Amount: 1 << 62}}}}, "guarantee.memory: 4 EiB is out of range"},
		{"unknown resource", []cluster.Queue{{Name: "a", Weight: 1, Guarantee: quota("ports", 1)}}, "no such resource"},
		{"lends nothing", []cluster.Queue{{Name: "a", Weight: 1, Lend: quota("gpus", 1)}}, "nothing of it is guaranteed"},
		{"half-life below the top", []cluster.Queue{{Name: "a", Weight: 1}, {Name: "b", Parent: "a", Weight: 1, HalfLife: time.Hour}}, "set it there"},
		{"unknown order", []cluster.Queue{{Name: "a", Weight: 1, Order: "lifo"}}, `order: "lifo" is unknown`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := share.New().Set(c.queues)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestReleasingWhatIsNotHeldIsRefusedAndChangesNothing(t *testing.T) {
	tree := grown(t, gpus(10), cluster.Queue{Name: "a"})
	must(t, tree.Charge(share.Claim{Queue: "a", Owner: "ann", Job: "j", Amount: gpus(2)}))
	for _, c := range []share.Claim{
		{Queue: "a", Owner: "ann", Job: "j", Amount: gpus(3)},
		{Queue: "a", Owner: "bob", Job: "j", Amount: gpus(1)},
		{Queue: "a", Owner: "ann", Job: "other", Amount: gpus(1)},
		{Queue: "a", Owner: "ann", Job: "j", Amount: gpus(-1)},
		{Queue: "b", Owner: "ann", Job: "j", Amount: gpus(1)},
	} {
		if err := tree.Release(c); err == nil {
			t.Errorf("%+v was released", c)
		}
	}
	if err := tree.Charge(share.Claim{Queue: "a", Amount: gpus(-1)}); err == nil {
		t.Error("less than nothing was charged")
	}
	if got := tree.Usage("a"); got.Used.MilliGPU != 2000 || got.Running != 1 {
		t.Errorf("the queue holds %+v", got)
	}
}

func TestGangsOfOneJobAreOneRunningJob(t *testing.T) {
	tree := grown(t, gpus(10), cluster.Queue{Name: "a", MaxRunning: 1})
	claim := share.Claim{Queue: "a", Owner: "ann", Job: "endpoint", Amount: gpus(1)}
	for range 3 {
		if block, ok := tree.Admit(claim); !ok {
			t.Fatal(block)
		}
		must(t, tree.Charge(claim))
	}
	other := share.Claim{Queue: "a", Owner: "ann", Job: "other", Amount: gpus(1)}
	for range 3 {
		if _, ok := tree.Admit(other); ok {
			t.Fatal("a second job was admitted")
		}
		must(t, tree.Release(claim))
	}
	if block, ok := tree.Admit(other); !ok {
		t.Error(block)
	}
}

func TestTheSameQuestionsGetTheSameAnswersInWhateverOrderTheTreeGrew(t *testing.T) {
	drawn := worlds()
	exercised := 0
	for seed := range 300 {
		w := drawn.Example(seed)
		shuffled := w
		shuffled.Queues = slices.Clone(w.Queues)
		rand.New(rand.NewPCG(1, uint64(seed))).Shuffle(len(shuffled.Queues), func(i, j int) {
			shuffled.Queues[i], shuffled.Queues[j] = shuffled.Queues[j], shuffled.Queues[i]
		})
		a, b := w.grown(), shuffled.grown()
		unit := amount(1, 0)
		for i, leaf := range w.Leaves {
			a.SetDemand(leaf, unit)
			b.SetDemand(w.Leaves[len(w.Leaves)-1-i], unit)
		}
		for range 50 {
			x, _ := a.Next()
			y, _ := b.Next()
			if x != y {
				t.Fatalf("seed %d: %q and %q are next", seed, x, y)
			}
			must(t, a.Charge(share.Claim{Queue: x, Amount: unit}))
			must(t, b.Charge(share.Claim{Queue: y, Amount: unit}))
			exercised++
		}
	}
	if exercised == 0 {
		t.Fatal("nothing was exercised")
	}
}

func TestSetUsageIsWhatChargesAddUpTo(t *testing.T) {
	drawn := worlds()
	for seed := range 200 {
		w := drawn.Example(seed)
		charged, set := w.grown(), w.grown()
		held, err := w.play(charged, func([]share.Claim) error { return nil })
		must(t, err)
		for _, leaf := range w.Leaves {
			must(t, set.SetUsage(leaf, charged.Usage(leaf)))
		}
		for _, c := range held {
			set.Known(c.Queue, c.Owner, c.Job)
		}
		for _, s := range w.Steps {
			a, ok := charged.Admit(s.Claim)
			b, also := set.Admit(s.Claim)
			if a != b || ok != also {
				t.Fatalf("seed %d: %v when charged, %v when set", seed, a, b)
			}
		}
		for _, q := range w.Queues {
			if a, b := charged.Share(q.Name), set.Share(q.Name); a != b {
				t.Fatalf("seed %d: the share of %s is %v and %v", seed, q.Name, a, b)
			}
		}
	}
}

func TestWhatNobodyMayPreemptIsLimitedApart(t *testing.T) {
	a100 := cluster.Amount{MilliGPU: 1000, Models: []cluster.ModelAmount{{Model: "A100", Milli: 1000}}}
	tree := grown(t, cluster.Amount{MilliGPU: 16_000, Models: []cluster.ModelAmount{{Model: "A100", Milli: 8000}}},
		cluster.Queue{Name: "top", Unpreemptible: quota("gpus", 4000)},
		cluster.Queue{Name: "a", Parent: "top", Unpreemptible: quota("gpus/A100", 0)},
		cluster.Queue{Name: "b", Parent: "top"},
		cluster.Queue{Name: "free"},
	)
	firm := func(queue, job string, amount cluster.Amount) share.Claim {
		return share.Claim{Queue: queue, Owner: "ann", Job: job, Firm: true, Amount: amount}
	}
	first := firm("a", "j1", gpus(3))
	must(t, tree.Charge(first))
	must(t, tree.Charge(share.Claim{Queue: "b", Owner: "ann", Job: "j2", Amount: gpus(8)})) // which does not count
	for round := range 3 {
		for _, c := range []struct {
			claim share.Claim
			want  string
		}{
			{firm("b", "j3", gpus(1)), ""},
			{firm("b", "j3", gpus(2)), "jobs that must not be preempted hold 3 GPUs of queue top and may hold 4 GPUs: 2 GPUs asked, 1 GPU short; without preemptible=false it would not count"},
			{share.Claim{Queue: "b", Owner: "ann", Job: "j3", Amount: gpus(2)}, ""},
			{firm("a", "j3", a100), "jobs that must not be preempted hold 0 A100 GPUs of queue a and may hold 0 A100 GPUs: 1 A100 GPU asked, 1 A100 GPU short; without preemptible=false it would not count"},
			{firm("free", "j3", gpus(4)), ""},
		} {
			if block, _ := tree.Admit(c.claim); block.String() != c.want {
				t.Errorf("round %d: %+v: %q, want %q", round, c.claim, block, c.want)
			}
		}
		switch round {
		case 0: // made anew, since a model is new; as when the ledger says what is held
			must(t, tree.Charge(share.Claim{Queue: "free", Owner: "ann", Job: "j4", Amount: cluster.Amount{Models: []cluster.ModelAmount{{Model: "T4", Milli: 1000}}}}))
		case 1:
			must(t, tree.SetUsage("a", tree.Usage("a")))
			tree.Known("a", "ann", "j1")
		}
	}
	if got := tree.Usage("top").Firm; got.MilliGPU != 3000 {
		t.Errorf("of top %+v is held that nobody may preempt", got)
	}
	if err := tree.Release(firm("b", "j2", gpus(8))); err == nil {
		t.Error("what was not charged so is released")
	}
	must(t, tree.Release(first))
	if block, ok := tree.Admit(firm("b", "j3", gpus(4))); !ok || !tree.Usage("top").Firm.IsZero() {
		t.Errorf("after its release: %v", block)
	}
}
