package room

import "slices"

// portRange is a node's TCP ports.
type portRange struct {
	first, last int32 // both included; 0 if there are none
	next        int32 // where the search for a free port begins
	// used is sorted, and has a port as often as it is used. It is never changed in place, so that clones and what
	// is kept for undoing may share it.
	used []int32
}

// free counts the ports that nobody uses.
func (p *portRange) free() int32 {
	if p.first == 0 {
		return 0
	}
	free := p.last - p.first + 1
	for i, port := range p.used {
		if i == 0 || port != p.used[i-1] {
			free--
		}
	}
	return free
}

func (p *portRange) within(port int32) bool { return p.first > 0 && port >= p.first && port <= p.last }

// after is the port behind another, going around at the end.
func (p *portRange) after(port int32) int32 {
	if port >= p.last || port < p.first {
		return p.first
	}
	return port + 1
}

// with is the used ports and some more, those within the range.
func (p *portRange) with(ports []int32) []int32 {
	used := append(make([]int32, 0, len(p.used)+len(ports)), p.used...)
	for _, port := range ports {
		if p.within(port) {
			used = append(used, port)
		}
	}
	slices.Sort(used)
	return used
}

// without is the used ports less one of each of some.
func (p *portRange) without(ports []int32) []int32 {
	used := slices.Clone(p.used)
	for _, port := range ports {
		if i, found := slices.BinarySearch(used, port); found {
			used = slices.Delete(used, i, i+1)
		}
	}
	return used
}

// take gives the next free ports, behind those that were given last: one that was freed a moment ago is
// used again as late as possible. There must be so many.
func (p *portRange) take(count int32) []int32 {
	taken := make([]int32, 0, count)
	port := p.next
	if !p.within(port) {
		port = p.first
	}
	for len(taken) < int(count) {
		if _, used := slices.BinarySearch(p.used, port); !used {
			taken = append(taken, port)
		}
		port = p.after(port)
	}
	p.next = port
	slices.Sort(taken)
	p.used = p.with(taken)
	return taken
}
