package cluster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
)

func TestALaterLifeIsGreaterWhateverTheClockSays(t *testing.T) {
	at := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	first := cluster.NewLife(at, "", "a")
	for name, c := range map[string]struct {
		now    time.Time
		before string
	}{
		"the next":                            {at.Add(time.Hour), first},
		"in the same second":                  {at, first},
		"by a clock that was set back":        {at.Add(-24 * time.Hour), first},
		"by one that knows nothing":           {time.Unix(-5, 0), first},
		"after one that nobody can read":      {at, "rubbish"[:0]},
		"a hundred years later":               {at.AddDate(100, 0, 0), first},
		"after one by a clock that was ahead": {at, cluster.NewLife(at.AddDate(500, 0, 0), "", "z")},
	} {
		if life := cluster.NewLife(c.now, c.before, "0"); life <= c.before || life == "" {
			t.Errorf("%s: %q comes before %q", name, life, c.before)
		}
	}
	if text := cluster.LifeText(first); !strings.Contains(text, "2031-05-06T07:08:09Z") {
		t.Error(text)
	}
	if text := cluster.LifeText(""); text != "the first life of the cluster" {
		t.Error(text)
	}
}
