package measure

import (
	"testing"
	"time"
)

func TestQuantilesAreTakenFromTheSortedTimes(t *testing.T) {
	times := make([]time.Duration, 100)
	for i := range times {
		times[i] = time.Duration(i+1) * time.Millisecond
	}
	if p50, p99 := quantile(times, 0.5), quantile(times, 0.99); p50 != 50 || p99 != 99 {
		t.Errorf("%v %v", p50, p99)
	}
	if quantile(times[:1], 0.99) != 1 || quantile(nil, 0.5) != 0 {
		t.Error("of one, and of none")
	}
}
