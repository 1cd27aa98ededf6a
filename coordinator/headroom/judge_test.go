package headroom

import (
	"testing"

	"pgregory.net/rapid"
)

const mib, gib = 1 << 20, 1 << 30

func TestWhatIsWantedOfADiskFitsIt(t *testing.T) {
	for name, c := range map[string]struct {
		total, asked, state int64
		least, ballast      int64
	}{
		"a large disk":                      {total: 1000 * gib, asked: gib, least: gib, ballast: 80 * mib},
		"a large disk of whom nothing asks": {total: 1000 * gib, state: 100 * mib, least: 328 * mib, ballast: 80 * mib},
		"a large state":                     {total: 100 * gib, asked: gib, state: 2 * gib, least: 4*gib + 128*mib, ballast: 80 * mib},
		"more asked than it is for":         {total: 10 * gib, asked: 5 * gib, least: 512 * mib, ballast: 80 * mib},
		"a small disk":                      {total: 256 * mib, asked: gib, least: 32 * mib, ballast: 16 * mib},
	} {
		if got := BoundsOf(Room{Total: c.total}, c.asked, c.state); got.Least != c.least || got.Ballast != c.ballast {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestADiskIsJudgedWithoutWavering(t *testing.T) {
	b := Bounds{Least: 100, Ballast: 40}
	for _, c := range []struct {
		was     Level
		free    int64
		ballast bool
		want    Level
	}{
		{Ample, 100, true, Ample},
		{Ample, 99, true, Low},
		{Low, 124, true, Low},
		{Low, 125, true, Ample},
		{Ample, 0, true, Low},
		{Low, 19, true, Low}, // the ballast is to go first
		{Low, 20, false, Low},
		{Low, 19, false, Out},
		{Out, 39, false, Out},
		{Out, 40, false, Low},
		{Out, 124, false, Low},
		{Out, 125, false, Ample},
		{Ample, 19, false, Out},
	} {
		if got := judge(c.was, Room{Free: c.free}, b, c.ballast); got != c.want {
			t.Errorf("was %d, %d free, ballast %t: %d, not %d", c.was, c.free, c.ballast, got, c.want)
		}
	}
}

// Whatever the disk, more room never makes it worse, and what is judged twice is judged alike.
func TestMoreRoomIsNeverWorse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		total := rapid.Int64Range(mib, 1<<44).Draw(t, "total")
		b := BoundsOf(Room{Total: total}, rapid.Int64Range(0, 1<<44).Draw(t, "asked"), rapid.Int64Range(0, 1<<40).Draw(t, "state"))
		if b.Least > total/4 || b.Ballast > total/4 {
			t.Fatalf("%+v of a disk of %d", b, total)
		}
		was := Level(rapid.IntRange(int(Ample), int(Out)).Draw(t, "was"))
		ballast := rapid.Bool().Draw(t, "ballast")
		free := rapid.Int64Range(0, total).Draw(t, "free")
		level := judge(was, Room{free, total}, b, ballast)
		if again := judge(level, Room{free, total}, b, ballast); again != level {
			t.Fatalf("%+v: %d free is %d, and then %d", b, free, level, again)
		}
		if more := judge(was, Room{free + rapid.Int64Range(0, total-free).Draw(t, "more"), total}, b, ballast); more > level {
			t.Fatalf("%+v: with more room than %d it is %d instead of %d", b, free, more, level)
		}
	})
}
