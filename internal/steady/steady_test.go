package steady_test

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/steady"
)

// machine has a wall clock that can be set.
type machine struct {
	wall   time.Time
	passed time.Duration
}

func (m *machine) source() (time.Time, time.Duration) { return m.wall, m.passed }

func (m *machine) pass(d time.Duration) { m.wall, m.passed = m.wall.Add(d), m.passed+d }

func TestAClockThatIsSetIsFollowedSlowlyAndNeverBackwards(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &machine{wall: time.Unix(1_000_000, 0)}
		c := steady.From(m.source)
		last, at := c.Now(), m.passed
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "set") == 0 {
				m.wall = m.wall.Add(time.Duration(rapid.Int64Range(-int64(5*time.Minute), int64(5*time.Minute)).Draw(t, "by")))
			}
			m.pass(time.Duration(rapid.Int64Range(0, int64(10*time.Minute)).Draw(t, "passed")))
			before := m.wall.Sub(last.Add(m.passed - at))
			now := c.Now()
			passed, told := m.passed-at, now.Sub(last)
			if told < passed-passed/20 || told > passed+passed/20 {
				t.Fatalf("%s passed, and it tells of %s", passed, told)
			}
			if after := m.wall.Sub(now); after.Abs() > before.Abs() {
				t.Fatalf("it was %s off, and is %s", before, after)
			}
			last, at = now, m.passed
		}
		for range m.wall.Sub(last).Abs()/(3*time.Second) + 1 { // which each minute makes good
			m.pass(time.Minute)
			c.Now()
		}
		if now := c.Now(); !now.Equal(m.wall) {
			t.Fatalf("after a long time it tells %s, the wall clock %s", now, m.wall)
		}
	})
}

func TestAClockThatIsLeftAloneIsTheWallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := steady.New()
		for range 100 {
			time.Sleep(7 * time.Second)
			if now := c.Now(); !now.Equal(time.Now()) {
				t.Fatalf("it tells %s, the wall clock %s", now, time.Now())
			}
		}
	})
}
