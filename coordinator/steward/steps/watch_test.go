package steps_test

import (
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/workload/endpoint"
)

// baking begins an update whose first step lasts half a minute, and whose alarm is 2 % of errors.
func (s *shop) baking() {
	share := quantity.Share(0.02)
	s.updating(endpoint.Alarms{ErrorRate: &share})
	s.change(func(_ cluster.Job, e cluster.Endpoint) (cluster.Endpoint, error) {
		baking := *e.Rollout
		baking.Bake = 30 * time.Second
		e.Rollout = &baking
		return e, nil
	})
}

func (s *shop) watched() bool {
	_, e := s.now()
	return e.Rollout.Watched != 0
}

// routers has more or fewer than the one that tells.
func (s *shop) routers(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = names
}

func TestThatNoAlarmWentOffIsSaidAtTheEndOfAStep(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.pass(5*time.Second, func() {})
		s.baking()
		s.pass(29*time.Second, func() { serve(s.fleet("blue", 2), 10, 0, time.Millisecond) })
		if s.watched() {
			s.Error("it is said before the end")
		}
		s.pass(2*time.Second, func() {})
		if !s.watched() {
			s.Error("it is not said")
		}
	})
}

func TestWhoeverDoesNotHearAllRoutersDoesNotSayThatNoAlarmWentOff(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.pass(5*time.Second, func() {})
		s.baking()
		s.routers("r", "mute")
		s.pass(40*time.Second, func() { serve(s.fleet("blue", 2), 10, 0, time.Millisecond) })
		if s.watched() {
			s.Error("a router is silent, and it is said that nothing happened")
		}
		s.routers("r")
		s.pass(2*time.Second, func() {})
		if !s.watched() {
			s.Error("all routers tell, and it is not said that nothing happened")
		}
	})
}

func TestANewLeaderListensForAWindowBeforeItSaysThatNoAlarmWentOff(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.pass(5*time.Second, func() {})
		s.baking()
		s.pass(28*time.Second, func() {})
		s.reign()
		s.pass(55*time.Second, func() {})
		if s.watched() {
			s.Error("it is said of a window that it has not seen")
		}
		s.pass(10*time.Second, func() {})
		if !s.watched() {
			s.Error("it is not said")
		}
	})
}

func TestErrorsThatWereHeardCountWhoeverIsSilent(t *testing.T) {
	inBubble(t, blueAndGreen(nil), func(s *shop) {
		s.pass(5*time.Second, func() {})
		s.baking()
		s.routers("r", "mute")
		s.pass(20*time.Second, func() { serve(s.fleet("blue", 2), 10, 5, time.Millisecond) })
		if _, e := s.now(); e.Rollout.Alarm == "" {
			s.Error("half of it fails, and no alarm goes off")
		}
	})
}
