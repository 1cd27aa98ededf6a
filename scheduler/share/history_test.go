package share_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
)

const start = int64(1_700_000_000) * int64(time.Second)

func TestWhatWasHeldOneHalfLifeAgoCountsHalf(t *testing.T) {
	h := share.History{At: start, Mean: cluster.Amount{MilliGPU: 8000 << 20, Memory: 1 << 40}}
	for i, want := range []int64{4000 << 20, 2000 << 20, 1000 << 20} {
		h = h.Later(cluster.Amount{}, start+int64(i+1)*int64(time.Hour), time.Hour)
		if h.Mean.MilliGPU != want || h.Mean.Memory != 1<<(39-i) {
			t.Errorf("after %d half-lives %+v, want %d GPUs", i+1, h.Mean, want)
		}
	}
	h = share.History{At: start}.Later(gpus(8), start+int64(time.Hour), time.Hour)
	if h.Mean.MilliGPU != 4000<<20 {
		t.Errorf("8 GPUs for one half-life make a mean of %d", h.Mean.MilliGPU)
	}
	if again := h.Later(gpus(8), start, time.Hour); again.Mean.MilliGPU != h.Mean.MilliGPU || again.At != h.At {
		t.Error("a clock that went back changed the history")
	}
	if h = h.Later(gpus(8), start+2*int64(time.Hour), 0); !h.Mean.IsZero() {
		t.Errorf("without a half-life %+v is remembered", h.Mean)
	}
}

func TestAHistoryIsTheSameInOneStepOrMany(t *testing.T) {
	exercised := 0
	rapid.Check(t, func(t *rapid.T) {
		used := cluster.Amount{MilliCPU: rapid.Int64Range(0, 1<<34).Draw(t, "cores"), Memory: rapid.Int64Range(0, 1<<50).Draw(t, "memory")}
		used.MilliGPU = rapid.Int64Range(0, 1<<29).Draw(t, "gpus")
		if used.MilliGPU > 0 {
			used.Models = []cluster.ModelAmount{{Model: model, Milli: used.MilliGPU}}
		}
		half := time.Duration(rapid.Int64Range(60, 30*86400).Draw(t, "half-life")) * time.Second
		one := share.History{At: start}
		many, now := one, start
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			now += rapid.Int64Range(0, int64(10*time.Minute)).Draw(t, "step")
			many = many.Later(used, now, half)
		}
		one = one.Later(used, now, half)
		for _, r := range []string{"cores", "memory", "gpus", "gpus/A100"} {
			a, b := one.Mean.Of(r), many.Mean.Of(r)
			most := 40 + 30*(used.Of(r)>>19) // a factor has 40 binary digits, and there are up to 30 steps
			if off := a - b; off > most || off < -most {
				t.Fatalf("%s: %d in one step, %d in many", r, a, b)
			}
		}
		if one.At != many.At {
			t.Fatalf("at %d and %d", one.At, many.At)
		}
		exercised++
	})
	if exercised == 0 {
		t.Fatal("nothing was exercised")
	}
}

func TestWhoHadMuchOfLateWaitsForWhoHadLittle(t *testing.T) {
	queues := []cluster.Queue{{Name: "a", HalfLife: time.Hour}, {Name: "b", HalfLife: time.Hour}}
	tree := grown(t, gpus(8), queues...)
	tree.Advance(start)
	claim := share.Claim{Queue: "a", Owner: "ann", Job: "j", Amount: gpus(8)}
	must(t, tree.Charge(claim))
	tree.Advance(start + int64(2*time.Hour))
	must(t, tree.Release(claim))
	if got := fill(tree, 8, gpus(1), "a", "b"); got["b"] <= got["a"] {
		t.Errorf("a had all for two hours, and now gets %d of 8", got["a"])
	}
	if h := tree.Usage("a").History; h.Mean.MilliGPU != 6000<<20 {
		t.Errorf("after two half-lives with 8 GPUs the mean is %d", h.Mean.MilliGPU>>20)
	}
	tree = grown(t, gpus(8), cluster.Queue{Name: "a"}, cluster.Queue{Name: "b"})
	tree.Advance(start)
	must(t, tree.Charge(claim))
	tree.Advance(start + int64(2*time.Hour))
	must(t, tree.Release(claim))
	if got := fill(tree, 8, gpus(1), "a", "b"); got["a"] != 4 {
		t.Errorf("without a half-life a gets %d of 8", got["a"])
	}
}

func TestATreeRemembersWhatItsHistoriesAddUpTo(t *testing.T) {
	queues := []cluster.Queue{{Name: "top", HalfLife: time.Hour}, {Name: "a", Parent: "top"}, {Name: "b", Parent: "top"}, {Name: "other", HalfLife: time.Hour}}
	tree, ledger := grown(t, gpus(8), queues...), share.History{}
	for i := range int64(50) {
		now := start + i*int64(137*time.Second) + i*i*1234567
		tree.Advance(now)
		ledger = ledger.Later(tree.Usage("a").Used, now, time.Hour)
		claim := share.Claim{Queue: "a", Owner: "ann", Job: "j", Amount: gpus(1 + i%3)}
		if i%2 == 0 {
			must(t, tree.Charge(claim))
		} else {
			claim.Amount = gpus(1 + (i-1)%3)
			must(t, tree.Release(claim))
		}
		if got := tree.Usage("a").History; got.Mean.MilliGPU != ledger.Mean.MilliGPU || got.At != ledger.At {
			t.Fatalf("step %d: the tree remembers %+v, History says %+v", i, got, ledger)
		}
		set := grown(t, gpus(8), queues...)
		set.Advance(now)
		must(t, set.SetUsage("a", tree.Usage("a")))
		if a, b := tree.Share("top"), set.Share("top"); a != b {
			t.Fatalf("step %d: the parent's share is %v, and %v when set", i, a, b)
		}
	}
}
