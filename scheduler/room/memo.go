package room

// memo remembers what a costly policy said of a class and a state of a node: thousands of nodes are often in few
// states, and come back to them. It is a table where a new answer takes the place of an older one. Answers are
// found by a hash of 64 bits: that two different questions have the same is less likely than that the machine
// miscounts (one in 10^10 over a year of a million scores a second).
type memo struct {
	answers []answer
	met     uint64 // classes, each of which has a salt
}

type answer struct {
	key   uint64
	score int32
}

// memoBits is the size of a memo: 65,536 answers, a megabyte.
const memoBits = 16

// mix spreads a number's bits (the finalizer of SplitMix64, Steele et al., OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// salt makes the questions of one class differ from those of others.
func (m *memo) salt() uint64 {
	m.met++
	return mix(m.met * 0x9e3779b97f4a7c15)
}

// score asks the policy, unless it was asked the same not long ago.
func (m *memo) score(policy Policy, n *State, devices []Device, c *class) int32 {
	if m.answers == nil {
		m.answers = make([]answer, 1<<memoBits)
	}
	key := mix(n.hash ^ c.salt)
	a := &m.answers[key>>(64-memoBits)]
	if a.key != key {
		*a = answer{key, policy.Score(n, devices, &c.request)}
	}
	return a.score
}

// digest is a hash of all that a policy may look at.
func digest(n *State, devices []Device) uint64 {
	h := mix(uint64(n.Memory)) + uint64(uint32(n.Milli))
	h = mix(h) + uint64(uint32(n.CapMilli))<<32 + uint64(uint16(n.Devices))
	h = mix(h) + uint64(n.CapMemory)
	for i := range devices {
		d := &devices[i]
		h = mix(h+uint64(d.CapMemory)) + uint64(d.Memory)
		h = mix(h) + uint64(uint16(d.Milli))<<16 + uint64(uint16(d.Model))
	}
	return mix(h)
}
