package agent

import (
	"sync"
	"time"

	"github.com/clary-ml/clary/agent/diskuse"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

// A disk is low with less free than twice what is kept for the tasks that run, or when it could not take in a task a moment ago; it has room
// again with half as much more.
const refusedFor = time.Minute

// shelf knows whether the node's disk has room for new tasks.
type shelf struct {
	folder  string
	reserve int64 // with less free the supervisor ends tasks
	room    func(folder string) (diskuse.Room, error)

	mu      sync.Mutex
	low     bool
	refused time.Time
}

// refuse notes that a task could not be taken in, whatever the disk says that it has.
func (s *shelf) refuse() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = time.Now()
}

// look reports whether the node is to get no new tasks.
func (s *shelf) look() bool {
	room, err := s.room(s.folder)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.refused.IsZero() && time.Since(s.refused) < refusedFor {
		s.low = true
		return true
	}
	if err != nil {
		return s.low // as it was: whoever cannot tell is asked again
	}
	least := 2 * s.reserve
	if s.low {
		least = 3 * s.reserve
	}
	s.low = room.Free < least
	return s.low
}

// change is whether the disk is low, if that is something else than this connection has told; else nil.
func (s *shelf) change(told **claryv1.NodeDisk) *claryv1.NodeDisk {
	low := s.look()
	if *told != nil && (*told).GetLow() == low {
		return nil
	}
	*told = &claryv1.NodeDisk{Low: low}
	return *told
}
