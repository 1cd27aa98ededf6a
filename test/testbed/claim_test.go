package testbed

import "testing"

func TestNoTwoHaveOneNumberUntilItIsReleased(t *testing.T) {
	const what = "numbers of this test"
	before := claims.Load()
	next := func() (int, func()) {
		claims.Store(before) // as another process may begin where this one has begun
		return claim(t, what, 2)
	}
	first, release := next()
	second, releaseSecond := next()
	defer releaseSecond()
	if first == second {
		t.Fatalf("two have %d", first)
	}
	release()
	again, releaseAgain := next()
	defer releaseAgain()
	if again != first {
		t.Errorf("%d was released, and the next has %d", first, again)
	}
}

func TestNoTwoHaveOneAddressBeforeTheyListenOnIt(t *testing.T) {
	before := claims.Load()
	next := func() string {
		claims.Store(before)
		return FreeAddress(t)
	}
	if first, second := next(), next(); first == second {
		t.Errorf("two have %s", first)
	}
}
