package container

import (
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
)

func TestWhoEndedAContainerIsKnownOnlyFromWitnesses(t *testing.T) {
	boot := time.Unix(1_000_000, 0)
	before, after := boot.Add(-time.Minute), boot.Add(time.Second)
	for _, c := range []struct {
		name    string
		exit    runtime.Exit
		saw     witness
		unknown bool
	}{
		{"killed under the agent's eyes", runtime.Exit{Signal: 9, Started: after, Ended: after}, witness{boot: boot}, false},
		{"killed while the engine was away", runtime.Exit{Signal: 9, Started: after, Ended: after}, witness{boot: boot, away: true}, true},
		{"killed while no agent was there", runtime.Exit{Signal: 9, Started: after, Ended: after}, witness{boot: boot, alone: true}, true},
		{"ended with the machine, in order", runtime.Exit{Signal: 15, Started: before, Ended: before}, witness{boot: boot, alone: true}, true},
		{"found dead after the machine went", runtime.Exit{Code: foundDead, Started: before, Ended: after}, witness{boot: boot, alone: true}, true},
		{"said 255 itself while no agent was there", runtime.Exit{Code: 255, Started: after, Ended: after}, witness{boot: boot, alone: true}, false},
		{"said 255 itself before the machine went", runtime.Exit{Code: 255, Started: before, Ended: before}, witness{boot: boot, alone: true}, false},
	} {
		if !asIfTaken(c.exit) {
			t.Errorf("%s: nobody asks who ended it", c.name)
		}
		if why := c.saw.taken(c.exit); (why != "") != c.unknown {
			t.Errorf("%s: %q", c.name, why)
		}
	}
	for _, exit := range []runtime.Exit{{}, {Code: 1}, {Code: 137}, {Signal: 11}, {Signal: 9, OutOfMemory: true}} {
		if asIfTaken(exit) {
			t.Errorf("%+v may have been somebody else's doing", exit)
		}
	}
	if up := time.Since(bootTime()); up <= 0 || bootTime().Year() < 2020 {
		t.Errorf("the machine is up since %s", up)
	}
}
