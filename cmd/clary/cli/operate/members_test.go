package operate

import (
	"testing"

	"github.com/clary-ml/clary/client"
)

func TestTheNextCoordinatorIsRestartedOnlyWhenNothingIsMissing(t *testing.T) {
	all := func(change func(m []client.Member)) []client.Member {
		members := []client.Member{{ID: "a", Voter: true, Leader: true, Alive: true}, {ID: "b", Voter: true, Alive: true}, {ID: "c", Voter: true, Alive: true, Behind: caughtUp}}
		change(members)
		return members
	}
	for _, row := range []struct {
		name    string
		members []client.Member
		want    string
	}{
		{"all is well, and the log goes on meanwhile", all(func([]client.Member) {}), ""},
		{"one is down", all(func(m []client.Member) { m[1].Alive = false }), "b does not answer"},
		{"one reads its log", all(func(m []client.Member) { m[2].Behind = 300 }), "c is 300 behind"},
		{"one has no vote yet", all(func(m []client.Member) { m[2].Voter, m[2].Behind = false, 7 }), "c has no vote yet: 7 behind"},
		{"one has not joined yet", all(func([]client.Member) {})[:2], "2 of 3 vote"},
		{"one more than was asked for does not answer", append(all(func([]client.Member) {}), client.Member{ID: "d", Voter: true}), "d does not answer"},
	} {
		if got := missing(row.members, 3); got != row.want {
			t.Errorf("%s: %q is missing, want %q", row.name, got, row.want)
		}
	}
}
