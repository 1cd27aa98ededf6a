package reward_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/reward"
	"github.com/clary-ml/clary/serving/route"
)

func TestAnIDTellsWhoAnswered(t *testing.T) {
	ids := reward.NewIDs()
	rapid.Check(t, func(t *rapid.T) {
		endpoint := rapid.StringMatching(`[a-z][a-z0-9.-]{0,62}`).Draw(t, "endpoint")
		variant := rapid.StringMatching(`[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?`).Draw(t, "variant")
		generation := rapid.Int64Min(0).Draw(t, "generation")
		id := ids.New(endpoint, variant, generation)
		gotVariant, gotGeneration, ok := reward.Parse(endpoint, id)
		if !ok || gotVariant != variant || gotGeneration != generation {
			t.Fatalf("%s is of %s %d, %v; want %s %d", id, gotVariant, gotGeneration, ok, variant, generation)
		}
		if ids.New(endpoint, variant, generation) == id {
			t.Fatalf("%s was made twice", id)
		}
		if _, _, ok := reward.Parse(endpoint+"x", id); ok {
			t.Fatalf("%s is another endpoint's too", id)
		}
		at := rapid.IntRange(0, len(id)-1).Draw(t, "at")
		changed := []byte(id)
		changed[at] = rapid.ByteRange('!', '~').Filter(func(b byte) bool { return b != id[at] }).Draw(t, "byte")
		if _, _, ok := reward.Parse(endpoint, string(changed)); ok {
			t.Fatalf("%s was taken for %s", changed, id)
		}
		if _, _, ok := reward.Parse(endpoint, id[:at]); ok {
			t.Fatalf("%s was taken cut at %d", id, at)
		}
	})
}

func TestNoTwoProcessesMakeOneID(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	var wait sync.WaitGroup
	for range 4 {
		ids := reward.NewIDs()
		for range 4 {
			wait.Go(func() {
				for range 1000 {
					id := ids.New("e", "v", 1)
					mu.Lock()
					if seen[id] {
						t.Errorf("%s was made twice", id)
					}
					seen[id] = true
					mu.Unlock()
				}
			})
		}
	}
	wait.Wait()
}

func FuzzParse(f *testing.F) {
	f.Add("e", reward.NewIDs().New("e", "blue", 3))
	for _, text := range []string{"", ".", "..", "a.b", "v.0.AAAAAAAAAAAAAAAAAAAAAAAA", "v.-1.AAAAAAAAAAAAAAAAAAAAAAAA", "v.0.AAAAAAAA\nAAAA\nAAAAAAAAAA", strings.Repeat("v", 1000)} {
		f.Add("e", text)
	}
	f.Fuzz(func(t *testing.T, endpoint, id string) {
		if variant, generation, ok := reward.Parse(endpoint, id); ok && (variant == "" || generation < 0) {
			t.Errorf("%q is of %q %d", id, variant, generation)
		}
	})
}

// ledger counts rewards of the fleets that there are.
type ledger map[string]route.Moments

func (l ledger) count(variant string, generation int64, x float64) bool {
	key := fmt.Sprint(variant, generation)
	m, has := l[key]
	m.Add(x)
	if has {
		l[key] = m
	}
	return has
}

func TestRewardsAreCountedForWhoAnswered(t *testing.T) {
	ids, desk := reward.NewIDs(), reward.NewDesk(100)
	l := ledger{"blue3": {}, "green1": {}, "green-1": {}}
	blue, green, old := ids.New("churn", "blue", 3), ids.New("churn", "green", 1), ids.New("churn", "blue", 2)
	for _, c := range []struct {
		body string
		want reward.Receipt
	}{
		{fmt.Sprintf(`{"inference_id":%q,"reward":0.5}`, blue), reward.Receipt{Accepted: 1}},
		{fmt.Sprintf(`{"inference_id":%q,"reward":9}`, blue), reward.Receipt{Duplicates: 1}},
		{fmt.Sprintf(` [{"inference_id":%q,"reward":-2,"variant":"green","generation":1}, {"inference_id":"order-7","reward":1,"variant":"blue","generation":3}]`, green), reward.Receipt{Accepted: 2}},
		{`{"inference_id":"order-8","reward":4,"variant":"green"}`, reward.Receipt{Accepted: 1}},
		{`[{"inference_id":"order-9","reward":1,"variant":"blue","generation":3},{"inference_id":"order-9","reward":1,"variant":"blue","generation":3}]`, reward.Receipt{Accepted: 1, Duplicates: 1}},
		{fmt.Sprintf(`{"inference_id":%q,"reward":1}`, old), reward.Receipt{Stale: 1}},
		{`{"inference_id":"x","reward":1,"variant":"red"}`, reward.Receipt{Stale: 1}},
	} {
		if got, err := desk.Take("churn", strings.NewReader(c.body), l.count); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.body, got, err, c.want)
		}
	}
	for key, rewards := range map[string][]float64{"blue3": {0.5, 1, 1}, "green1": {-2}, "green-1": {4}} {
		var want route.Moments
		for _, x := range rewards {
			want.Add(x)
		}
		if l[key] != want {
			t.Errorf("%s has %+v, want %+v", key, l[key], want)
		}
	}
	if got, err := desk.Take("other", strings.NewReader(`{"inference_id":"order-7","reward":1,"variant":"blue","generation":3}`), l.count); err != nil || got.Accepted != 1 {
		t.Errorf("the name is another endpoint's too: %+v, %v", got, err)
	}
}

func TestWhatIsWrongIsNamedAndNothingIsCounted(t *testing.T) {
	ids, desk := reward.NewIDs(), reward.NewDesk(100)
	good, foreign := ids.New("churn", "blue", 3), ids.New("other", "blue", 3)
	for _, c := range []struct{ body, says string }{
		{``, "EOF"},
		{`null`, "reward is missing"},
		{`[]`, "has 0 rewards"},
		{`{"inference_id":"a","reward":NaN,"variant":"v"}`, "invalid character"},
		{`{"inference_id":"a","reward":1e999,"variant":"v"}`, "1e999"},
		{`{"inference_id":"a","reward":"1","variant":"v"}`, "string"},
		{`{"inference_id":"a","variant":"v"}`, "reward 0: reward is missing: give a number"},
		{`{"inference_id":"a","reward":-1e13,"variant":"v"}`, "at most 1e+12 either way"},
		{`{"inference_id":"a","reward":1}`, "or name the variant that answered"},
		{`{"reward":1,"variant":"v"}`, "1 to 64 visible characters"},
		{fmt.Sprintf(`{"inference_id":%q,"reward":1,"variant":"v"}`, strings.Repeat("a", 65)), "1 to 64 visible characters"},
		{`{"inference_id":"a b","reward":1,"variant":"v"}`, "1 to 64 visible characters"},
		{`{"inference_id":"a","reward":1,"variant":"v","generation":-1}`, "generation -1: give 0 or more"},
		{fmt.Sprintf(`{"inference_id":%q,"reward":1}`, foreign), "is none that the endpoint churn has given"},
		{fmt.Sprintf(`{"inference_id":%q,"reward":1}`, good[:len(good)-1]), "is none that the endpoint churn has given"},
		{fmt.Sprintf(`{"inference_id":%q,"reward":1,"variant":"green"}`, good), "is of the variant blue, not green"},
		{fmt.Sprintf(`{"inference_id":%q,"reward":1,"generation":4}`, good), "is of the generation 3, not 4"},
		{fmt.Sprintf(`{"inference_id":%q,"reward":1,"weight":4}`, good), "unknown field"},
		{fmt.Sprintf(`{"inference_id":%q,"reward":1} {}`, good), "something behind"},
		{fmt.Sprintf(`[{"inference_id":%q,"reward":1},{"inference_id":"a","reward":1}]`, good), "reward 1: inference_id"},
		{"[" + strings.Repeat(`{"reward":1},`, reward.MaxBatch) + `{"reward":1}]`, "has 10001 rewards"},
		{strings.Repeat(" ", reward.MaxBody) + `{}`, "more than 4194304 bytes"},
	} {
		_, err := desk.Take("churn", strings.NewReader(c.body), func(string, int64, float64) bool {
			t.Errorf("%.100s: a reward was counted", c.body)
			return true
		})
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%.100s: %v; want %q", c.body, err, c.says)
		}
	}
	if got, err := desk.Take("churn", strings.NewReader(fmt.Sprintf(`{"inference_id":%q,"reward":1}`, good)), func(string, int64, float64) bool { return true }); err != nil || got.Accepted != 1 {
		t.Errorf("the good one, later: %+v, %v", got, err)
	}
}

func TestTheLargestRewardsLeaveMomentsThatCanBeReported(t *testing.T) {
	var m route.Moments
	for range 1000 {
		m.Add(reward.Largest)
	}
	if _, err := json.Marshal(m); err != nil || math.IsInf(m.Square*1e12, 0) {
		t.Errorf("%+v: %v", m, err)
	}
}

// A reward is counted once as long as it is remembered, which is for as many others as were asked
// for; and the memory is bounded.
func TestARewardIsCountedOnceHoweverManyPostIt(t *testing.T) {
	const remembered = 64
	desk := reward.NewDesk(remembered)
	var mu sync.Mutex
	counted := 0
	take := func(id string) reward.Receipt {
		r, err := desk.Take("e", strings.NewReader(fmt.Sprintf(`{"inference_id":%q,"reward":1,"variant":"v"}`, id)), func(string, int64, float64) bool {
			mu.Lock()
			defer mu.Unlock()
			counted++
			return true
		})
		if err != nil {
			t.Error(err)
		}
		return r
	}
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for i := range remembered {
				take(fmt.Sprint(i))
			}
		})
	}
	wait.Wait()
	if counted != remembered {
		t.Errorf("%d of %d were counted", counted, remembered)
	}
	take("first")
	for i := range remembered - 1 {
		take(fmt.Sprint("other-", i))
	}
	if r := take("first"); r.Duplicates != 1 {
		t.Errorf("it was forgotten after %d others: %+v", remembered-1, r)
	}
	for i := range 3 * remembered {
		take(fmt.Sprint("more-", i))
	}
	if r := take("first"); r.Accepted != 1 {
		t.Errorf("it is remembered for ever: %+v", r)
	}
}

func TestARewardThatComesBeforeItsFleetIsCountedLater(t *testing.T) {
	ids, desk := reward.NewIDs(), reward.NewDesk(100)
	l := ledger{}
	body := fmt.Sprintf(`{"inference_id":%q,"reward":1}`, ids.New("churn", "blue", 3))
	for i, want := range []reward.Receipt{{Stale: 1}, {Stale: 1}, {Accepted: 1}, {Duplicates: 1}} {
		if i == 2 {
			l["blue3"] = route.Moments{}
		}
		if got, err := desk.Take("churn", strings.NewReader(body), l.count); err != nil || got != want {
			t.Errorf("sent %d times: %+v, %v; want %+v", i+1, got, err, want)
		}
	}
}

func BenchmarkNewID(b *testing.B) {
	ids := reward.NewIDs()
	b.ReportAllocs()
	for b.Loop() {
		ids.New("churn", "blue", 12)
	}
}
