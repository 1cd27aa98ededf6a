package sobol_test

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"testing"

	"github.com/clary-ml/clary/tuner/sobol"
)

// reference are the first points without scrambling, in sixteenths, in the order of the
// Gray code, as other implementations print them.
var reference = [][5]uint32{
	{0, 0, 0, 0, 0},
	{8, 8, 8, 8, 8},
	{12, 4, 4, 4, 12},
	{4, 12, 12, 12, 4},
	{6, 6, 10, 14, 6},
	{14, 14, 2, 6, 14},
	{10, 2, 14, 10, 10},
	{2, 10, 6, 2, 2},
	{3, 5, 15, 7, 9},
	{11, 13, 7, 15, 1},
	{15, 1, 11, 3, 5},
	{7, 9, 3, 11, 13},
	{5, 3, 5, 9, 15},
	{13, 11, 13, 1, 7},
	{9, 7, 1, 13, 3},
	{1, 15, 9, 5, 11},
}

// common is how many leading bits of 4 two numbers share.
func common(a, b uint32) int { return min(bits.LeadingZeros32((a^b)<<28), 4) }

// Scrambling keeps how many leading bits two points share in a dimension, and nothing else
// that a test could see.
func TestPointsAreThePublishedOnesScrambled(t *testing.T) {
	points := make([][5]uint32, 16)
	s := sobol.New(5, 3)
	x := make([]float64, 5)
	moved := 0
	for i := range points {
		s.At(uint32(i)^uint32(i)>>1, x)
		for d := range x {
			points[i][d] = uint32(x[d] * 16)
			if points[i][d] != reference[i][d] {
				moved++
			}
		}
	}
	for i := range points {
		for j := range i {
			for d := range x {
				if got, want := common(points[i][d], points[j][d]), common(reference[i][d], reference[j][d]); got != want {
					t.Fatalf("points %d and %d share %d bits in dimension %d, want %d", i, j, got, d, want)
				}
			}
		}
	}
	if moved < 40 {
		t.Errorf("only %d of 80 coordinates were scrambled", moved)
	}
}

func TestEveryBeginningFillsEachDimensionEvenly(t *testing.T) {
	s := sobol.New(sobol.MaxDims, 11)
	x := make([]float64, sobol.MaxDims)
	const n = 1 << 9
	cells := make([][n]int, sobol.MaxDims)
	for i := range n {
		s.At(uint32(i), x)
		for d, v := range x {
			if !(v > 0 && v < 1) {
				t.Fatal(v)
			}
			cells[d][int(v*n)]++
		}
	}
	for d := range cells {
		if slices.Max(cells[d][:]) != 1 {
			t.Errorf("dimension %d has two points in a cell", d)
		}
	}
}

func TestTheFirstTwoDimensionsFillEveryElementaryBox(t *testing.T) {
	s := sobol.New(2, 5)
	for k := range 9 { // boxes of 2^-k by 2^-(8-k)
		seen := make(map[[2]int]bool)
		x := make([]float64, 2)
		for i := range 256 {
			s.At(uint32(i), x)
			seen[[2]int{int(x[0] * math.Exp2(float64(k))), int(x[1] * math.Exp2(float64(8-k)))}] = true
		}
		if len(seen) != 256 {
			t.Errorf("boxes of 2^-%d: %d of 256 have a point", k, len(seen))
		}
	}
}

func TestSeedsAndPaddedDimensionsDiffer(t *testing.T) {
	a, b := make([]float64, 300), make([]float64, 300)
	sobol.New(300, 1).At(7, a)
	sobol.New(300, 2).At(7, b)
	equal := 0
	for i := range a {
		if a[i] == b[i] {
			equal++
		}
	}
	sobol.New(300, 1).At(7, b)
	if equal > 0 || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%d coordinates of two seeds are equal; the same seed gives the same: %v", equal, slices.Equal(a, b))
	}
	sobol.New(0, 1).At(7, nil)
}

// The integral of the product of (1 + (x-1/2)) over [0,1]^10 is 1.
func TestIntegralsConvergeFasterThanAtRandom(t *testing.T) {
	worst := 0.0
	for seed := range uint64(10) {
		s, x, sum := sobol.New(10, seed), make([]float64, 10), 0.0
		for i := range 4096 {
			s.At(uint32(i), x)
			product := 1.0
			for _, v := range x {
				product *= 0.5 + v
			}
			sum += product
		}
		worst = max(worst, math.Abs(sum/4096-1))
	}
	// At random the standard error is sqrt((13/12)^10-1)/64 = 0.017.
	if worst > 0.002 {
		t.Errorf("off by up to %v", worst)
	}
}
