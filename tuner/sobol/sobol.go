// Package sobol makes scrambled Sobol points: sequences whose every beginning fills the
// unit cube more evenly than random points do.
//
// The direction numbers are those of S. Joe and F. Y. Kuo, "Constructing Sobol sequences
// with better two-dimensional projections", SIAM J. Sci. Comput. 30 (2008): their file
// new-joe-kuo-6.21201, first 256 dimensions. Scrambling is Owen's nested uniform
// permutation, by the hash of B. Burley, "Practical Hash-based Owen Scrambling", JCGT 9
// (2020), section 3, so that any point is found without those before it.
package sobol

import (
	_ "embed"
	"math/bits"
	"strconv"
	"strings"

	"github.com/clary-ml/clary/tuner/chance"
)

// MaxDims is how many dimensions have direction numbers. Those beyond are random: A. Owen,
// "Latin supercube sampling", ACM TOMACS 8 (1998), pads in the same way.
const MaxDims = 256

// joeKuo has a line for each dimension from the second: its primitive polynomial as bits,
// then the initial numbers m.
//
//go:embed joe-kuo-d6.txt
var joeKuo string

// Sequence is a scrambled Sobol sequence of 2^32 points. It never changes.
type Sequence struct {
	directions [][32]uint32
	scrambles  []uint32
	padding    []uint64
	seed       uint64
}

// New makes the sequence of a seed. Sequences of different seeds are independent.
func New(dims int, seed uint64) *Sequence {
	own := min(dims, MaxDims)
	s := &Sequence{directions: make([][32]uint32, own), scrambles: make([]uint32, own), seed: seed}
	r := chance.New(seed, 's', 'o', 'b')
	for i := range s.scrambles {
		s.scrambles[i] = r.Uint32()
	}
	for range dims - own {
		s.padding = append(s.padding, r.Uint64())
	}
	if own > 0 {
		for k := range s.directions[0] {
			s.directions[0][k] = 1 << (31 - k)
		}
	}
	rest := joeKuo
	for i := 1; i < own; i++ {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		s.directions[i] = expand(line)
	}
	return s
}

// expand works out the 32 direction numbers by the recurrence of Bratley and Fox,
// "Algorithm 659", ACM TOMS 14 (1988).
func expand(line string) (v [32]uint32) {
	fields := strings.Fields(line)
	polynomial, _ := strconv.ParseUint(fields[0], 10, 32)
	degree := bits.Len64(polynomial) - 1
	for k := range v {
		if k < degree {
			m, _ := strconv.ParseUint(fields[1+k], 10, 32)
			v[k] = uint32(m) << (31 - k)
			continue
		}
		v[k] = v[k-degree] ^ v[k-degree]>>degree
		for j := 1; j < degree; j++ {
			if polynomial>>(degree-j)&1 == 1 {
				v[k] ^= v[k-j]
			}
		}
	}
	return v
}

// At writes point n to x, in (0,1).
func (s *Sequence) At(n uint32, x []float64) {
	for i := range s.directions {
		var sum uint32
		for rest := n; rest != 0; rest &= rest - 1 {
			sum ^= s.directions[i][bits.TrailingZeros32(rest)]
		}
		x[i] = (float64(scramble(sum, s.scrambles[i])) + 0.5) / (1 << 32)
	}
	for i, key := range s.padding {
		x[len(s.directions)+i] = chance.New(s.seed, key, uint64(n)).Float64()
	}
}

// scramble permutes the halves of each dyadic interval, each by a coin that hangs on the
// interval and the key. The constants are those of N. Vegdahl, "Building a Better LK Hash"
// (2021), which mixes better than the paper's.
func scramble(x, key uint32) uint32 {
	x = bits.Reverse32(x)
	x ^= x * 0x3d20adea
	x += key
	x *= key>>16 | 1
	x ^= x * 0x05526c56
	x ^= x * 0x53a22864
	return bits.Reverse32(x)
}
