package chance_test

import (
	"math"
	"testing"

	"github.com/clary-ml/clary/tuner/chance"
)

func TestStreamsArePinned(t *testing.T) {
	// Stored sweeps go on after an upgrade with the numbers that they began with.
	for i, want := range []uint64{12617857663377219562, 3063129018026225122, 8745476497569000777} {
		if got := chance.New(1, 2, uint64(i)).Uint64(); got != want {
			t.Errorf("stream %d begins with %d, want %d", i, got, want)
		}
	}
}

func TestStreamsOfNearSeedsAreIndependent(t *testing.T) {
	const n = 20_000
	first := make([]float64, n)
	for i := range first {
		first[i] = chance.New(uint64(i%7), uint64(i/7)).NormFloat64()
	}
	for _, lag := range []int{1, 2, 7} {
		sum := 0.0
		for i := lag; i < n; i++ {
			sum += first[i] * first[i-lag]
		}
		if r := sum / n; math.Abs(r) > 5/math.Sqrt(n) {
			t.Errorf("lag %d: correlation %v", lag, r)
		}
	}
	if chance.New(1, 2, 3).Uint64() == chance.New(1, 3, 2).Uint64() || chance.New(1).Uint64() == chance.New(1, 0).Uint64() {
		t.Error("the order and number of parts do not matter")
	}
}

func TestOrdersAreWhole(t *testing.T) {
	for size := uint64(1); size < 200; size++ {
		o := chance.NewOrder(size, 9)
		seen := make(map[uint64]bool)
		for k := range size {
			seen[o.At(k)] = true
		}
		if len(seen) != int(size) {
			t.Errorf("an order of %d has %d numbers", size, len(seen))
		}
	}
	huge := chance.NewOrder(1<<63, 9)
	if a, b := huge.At(1<<63-1), huge.At(5); a >= 1<<63 || b >= 1<<63 || a == b {
		t.Error(a, b)
	}
}
