package quorum

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// members makes coordinators of words like "a*" (leads), "b" (votes), "c!" (silent), "d?" (does not vote yet).
func members(words string) []Member {
	var list []Member
	for i, word := range strings.Fields(words) {
		m := Member{ID: word[:1], Voter: !strings.Contains(word, "?"), Alive: !strings.Contains(word, "!"), Leader: strings.Contains(word, "*"), Format: 1, Version: "v2", Applied: uint64(100 - i)}
		if !m.Alive {
			m.Format, m.Version, m.Applied = 0, "", 0
		}
		list = append(list, m)
	}
	return list
}

func TestARemovalThatCostsTheMajorityOrTheObjectsIsToldSo(t *testing.T) {
	for name, c := range map[string]struct {
		members, id, storeAt string
		embedded             bool
		refused              fault.Kind // 0: it may be
		means                []string   // what must be forced
	}{
		"a dead one of three":               {members: "a* b c!", id: "c"},
		"a living one of three":             {members: "a* b c", id: "b"},
		"a living one while another is out": {members: "a* b c!", id: "b", means: []string{"of the 2 voters left 2 must answer, and c does not"}},
		"one of two":                        {members: "a* b", id: "b"},
		"the dead one of two":               {members: "a* b!", id: "b"},
		"the only one":                      {members: "a*", id: "a", refused: fault.Conflict},
		"the only one that votes":           {members: "a* b?", id: "a", refused: fault.Conflict},
		"one that does not vote yet":        {members: "a* b!  c?", id: "c"},
		"somebody else":                     {members: "a* b", id: "x", refused: fault.NotFound},
		"who serves the objects":            {members: "a* b c", id: "b", storeAt: "b", embedded: true, means: []string{"serves the embedded object store"}},
		"who has served the objects":        {members: "a* b c!", id: "c", embedded: true, means: []string{"serves the embedded object store"}},
		"another than serves the objects":   {members: "a* b c", id: "c", storeAt: "b", embedded: true},
		"objects that are elsewhere":        {members: "a* b c!", id: "c"},
		"both":                              {members: "a* b c! d! e", id: "b", storeAt: "b", embedded: true, means: []string{"of the 4 voters left 3 must answer, and c and d do not", "embedded"}},
	} {
		means, err := consequences(members(c.members), c.id, c.storeAt, c.embedded)
		if (err == nil) != (c.refused == 0) || err != nil && !fault.Is(err, c.refused) {
			t.Errorf("%s: %v", name, err)
		}
		if len(means) != len(c.means) {
			t.Errorf("%s: means %q, want %q", name, means, c.means)
			continue
		}
		for i := range means {
			if !strings.Contains(means[i], c.means[i]) {
				t.Errorf("%s: means %q, want %q", name, means[i], c.means[i])
			}
		}
	}
}

func TestWhoLeadsNextVotesAndAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		members, to, heir string
		refused           fault.Kind
	}{
		"whoever is furthest":       {members: "a* b c", heir: "b"},
		"whoever answers":           {members: "a* b! c", heir: "c"},
		"the one named":             {members: "a* b c", to: "c", heir: "c"},
		"nobody":                    {members: "a* b! c?", refused: fault.Conflict},
		"one that does not answer":  {members: "a* b! c", to: "b", refused: fault.Conflict},
		"one that does not vote":    {members: "a* b? c", to: "b", refused: fault.Conflict},
		"one that does not exist":   {members: "a* b", to: "z", refused: fault.NotFound},
		"alone there is nobody too": {members: "a*", refused: fault.Conflict},
	} {
		next, err := heir(members(c.members), c.to)
		if (err == nil) != (c.refused == 0) || err != nil && !fault.Is(err, c.refused) || err == nil && next.ID != c.heir {
			t.Errorf("%s: %q, %v", name, next.ID, err)
		}
	}
}

func TestAFormatIsRaisedWhenAllKnowIt(t *testing.T) {
	old := members("a* b c")
	old[1].Format, old[1].Version = 0, ""
	for name, c := range map[string]struct {
		members []Member
		format  int
		because string
	}{
		"all know it":            {members("a* b c"), 1, ""},
		"one is of an old build": {old, 0, "coordinator b is of an earlier version, which knows format 0: upgrade it"},
		"one is not heard":       {members("a* b c!"), 0, "coordinator c does not answer"},
		"one is to vote yet":     {members("a* b?"), 1, ""},
	} {
		format, because := raisable(c.members, 1)
		if format != c.format || !strings.Contains(because, c.because) || (because == "") != (c.because == "") {
			t.Errorf("%s: %d, %q", name, format, because)
		}
	}
}

func TestOnlyWhoIsVouchedForIsLetIn(t *testing.T) {
	token := func(name, key string, revoked bool) cluster.Token {
		return cluster.Token{Kind: cluster.TokenJoin, Role: cluster.RoleCoordinator, Name: name, BoundKey: key, Revoked: revoked}
	}
	for name, c := range map[string]struct {
		tokens []cluster.Token
		id     string
		key    string
		member bool
		in     bool
	}{
		"who has just joined":              {tokens: []cluster.Token{token("b", "k", false)}, id: "b", key: "k", in: true},
		"who joined with an earlier build": {tokens: []cluster.Token{token("", "k", false)}, id: "b", key: "k", in: true},
		"who was removed":                  {tokens: []cluster.Token{token("b", "k", true)}, id: "b", key: "k"},
		"a founder that was removed":       {id: "a", key: "k"},
		"a founder":                        {id: "a", key: "k", member: true, in: true},
		"a member":                         {tokens: []cluster.Token{token("b", "k", false)}, id: "b", key: "k", member: true, in: true},
		"a member whose old token was revoked by hand": {tokens: []cluster.Token{token("b", "k", true)}, id: "b", key: "k", member: true, in: true},
		"the old folder of a member that joined anew":  {tokens: []cluster.Token{token("b", "old", true), token("b", "new", false)}, id: "b", key: "old", member: true},
		"the member that joined anew":                  {tokens: []cluster.Token{token("b", "old", true), token("b", "new", false)}, id: "b", key: "new", member: true, in: true},
		"another's token":                              {tokens: []cluster.Token{token("c", "k", false)}, id: "b", key: "k"},
		"a token that nobody used":                     {tokens: []cluster.Token{token("", "", false)}, id: "b", key: ""},
		"an agent's token":                             {tokens: []cluster.Token{{Kind: cluster.TokenJoin, Role: cluster.RoleAgent, Name: "b", BoundKey: "k"}}, id: "b", key: "k"},
	} {
		err := vouched(c.tokens, c.id, c.key, c.member)
		if (err == nil) != c.in || err != nil && !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
