package agent

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/agent/diskuse"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

func TestANodeWhoseDiskIsLowSaysSoOnceAndDoesNotWaver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free int64
		var broken error
		s := &shelf{reserve: 100, room: func(string) (diskuse.Room, error) { return diskuse.Room{Free: free, Total: 10_000}, broken }}
		var told *claryv1.NodeDisk
		for i, step := range []struct {
			free   int64
			broken error
			says   string
		}{
			{1000, nil, "room"}, {200, nil, ""}, {199, nil, "low"}, {299, nil, ""}, {5, errors.New("no answer"), ""}, {300, nil, "room"}, {0, errors.New("no answer"), ""}, {0, nil, "low"}, {1000, nil, "room"},
		} {
			free, broken = step.free, step.broken
			says := ""
			if change := s.change(&told); change != nil {
				says = map[bool]string{true: "low", false: "room"}[change.GetLow()]
			}
			if says != step.says {
				t.Errorf("step %d, %d free: it says %q, not %q", i, step.free, says, step.says)
			}
		}
		s.refuse() // for lack of inodes, say
		if change := s.change(&told); !change.GetLow() {
			t.Error("a node that could not take in a task has room")
		}
		time.Sleep(refusedFor)
		if change := s.change(&told); change == nil || change.GetLow() {
			t.Error("it has no room again")
		}
		var next *claryv1.NodeDisk
		if change := s.change(&next); change == nil {
			t.Error("a new connection is not told")
		}
	})
}
