package container

import (
	"testing"
	"testing/synctest"
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
		{"killed under the agent's eyes", runtime.Exit{Signal: 9, Ended: after}, witness{}, false},
		{"killed while the engine was away", runtime.Exit{Signal: 9, Ended: after}, witness{away: true}, true},
		{"killed while no agent was there", runtime.Exit{Signal: 9, Ended: after}, witness{alone: true}, true},
		{"ended with the machine, in order", runtime.Exit{Signal: 15, Ended: before}, witness{alone: true, older: true}, true},
		{"found dead after the machine went", runtime.Exit{Code: foundDead, Ended: after}, witness{alone: true, older: true}, true},
		{"found dead after the machine went by an engine that says 0 then", runtime.Exit{Ended: after}, witness{alone: true, older: true}, true},
		{"ended by itself before the machine went", runtime.Exit{Code: 3, Ended: before}, witness{alone: true, older: true}, false},
		{"ended by itself while no agent was there", runtime.Exit{Ended: after}, witness{alone: true}, false},
		{"ended by itself while the engine was away", runtime.Exit{Code: 3, Ended: after}, witness{away: true}, false},
		{"said 255, or found dead, while no agent was there", runtime.Exit{Code: foundDead, Ended: after}, witness{alone: true}, true},
		{"said 255 under the agent's eyes", runtime.Exit{Code: foundDead, Ended: after}, witness{}, false},
	} {
		c.saw.boot = boot
		if why := c.saw.taken(c.exit); (why != "") != c.unknown {
			t.Errorf("%s: %q", c.name, why)
		}
	}
	for _, exit := range []runtime.Exit{{Signal: 9}, {Signal: 15}, {Code: foundDead}} {
		if !asIfTaken(exit) {
			t.Errorf("%+v: nobody asks who ended it", exit)
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

func TestAnAgentMissesWhatHappensWhileItCannotLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var watched attention
		watched.look()
		for range 10 {
			time.Sleep(gaugeEvery)
			watched.look()
		}
		if watched.missed(time.Now()) || watched.missed(time.Time{}) {
			t.Error("it looked all the time, and is said to have missed something")
		}
		time.Sleep(blink + gaugeEvery)
		woke := time.Now()
		if !watched.missed(woke) || !watched.missed(time.Time{}) {
			t.Error("it looked long ago, and is said to have missed nothing")
		}
		for range 10 {
			time.Sleep(gaugeEvery)
			watched.look()
		}
		if watched.missed(time.Now()) {
			t.Error("it looks again, and what it is told of now is said to be missed")
		}
		if !watched.missed(woke.Add(gaugeEvery)) {
			t.Error("what it was told of when it woke is said to be seen")
		}
	})
}
