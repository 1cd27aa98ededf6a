// Package chance gives the tuner its random numbers: streams that are a function of a seed
// and of what they are for, so that the same question draws the same numbers on every
// machine and after every restart. It is the only package of the tuner that imports a
// generator.
package chance

import (
	"math/rand/v2"
)

// Rand draws numbers. It is not safe for use from several goroutines.
type Rand = rand.Rand

// New makes the stream of a seed and of what it is for, such as a purpose and the number
// of a trial. Streams of different parts are independent. The generator is PCG-DXSM
// (O'Neill, "PCG", 2014), whose output Go pins.
func New(seed uint64, parts ...uint64) *Rand {
	high, low := mix(seed), mix(seed+golden)
	for _, part := range parts {
		high = mix(high ^ part)
		low = mix(low + part*golden)
	}
	return rand.New(rand.NewPCG(high, low))
}

const golden = 0x9e3779b97f4a7c15

// mix is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
func mix(x uint64) uint64 {
	x += golden
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
