package room

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestTheTreeFindsWhatAScanFinds(t *testing.T) {
	raised, lowered, grown := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		var tr tree
		n := rapid.IntRange(1, 5000).Draw(t, "leaves")
		tr.grow(n)
		scores := make([]int32, n)
		for i := range scores {
			scores[i] = NoFit
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			i := rapid.IntRange(0, n-1).Draw(t, "leaf")
			score := rapid.SampledFrom([]int32{NoFit, NoFit, -7, 0, 1, 2, 3}).Draw(t, "score")
			if score > scores[i] {
				raised++
			} else if score < scores[i] {
				lowered++
			}
			scores[i] = score
			tr.set(i, score)
			if rapid.IntRange(0, 50).Draw(t, "grow") == 0 {
				more := rapid.IntRange(0, 600).Draw(t, "more")
				for range more {
					scores = append(scores, NoFit)
				}
				n += more
				tr.grow(n)
				grown++
			}
			want := slices.Index(scores, slices.Max(scores))
			if scores[want] == NoFit {
				want = -1
			}
			if got := tr.first(); got != want {
				t.Fatalf("first is %d, a scan says %d", got, want)
			}
		}
	})
	if raised == 0 || lowered == 0 || grown == 0 {
		t.Errorf("raised %d, lowered %d, grown %d", raised, lowered, grown)
	}
}
