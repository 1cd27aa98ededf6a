package data_test

import (
	"slices"
	"testing"

	"github.com/clary-ml/clary/trainer/data"
	"pgregory.net/rapid"
)

func TestEveryRowIsTakenOnceWhateverTheNumbersOfWorkersWere(t *testing.T) {
	parts := 0
	rapid.Check(t, func(t *rapid.T) {
		rows, batch := rapid.IntRange(1, 300).Draw(t, "rows"), rapid.IntRange(1, 50).Draw(t, "batch")
		seed, epoch := rapid.Int64().Draw(t, "seed"), rapid.IntRange(0, 5).Draw(t, "epoch")
		counts := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 5).Draw(t, "workers")
		times := make([]int, rows)
		var done []data.Done
		for i, workers := range counts {
			_, r := data.Left(rows, batch, workers, seed, epoch, 0, done)
			steps := r.Steps()
			if i < len(counts)-1 {
				steps = rapid.IntRange(0, steps).Draw(t, "steps")
			}
			total := 0
			for step := range steps {
				total += r.Total(step)
			}
			taken := 0
			for w := range workers {
				order, same := data.Left(rows, batch, workers, seed, epoch, w, done)
				if same.Steps() != r.Steps() || len(order) != r.RowsOf(w) {
					t.Fatalf("worker %d plans %d rows in %d steps, worker 0 %d in %d", w, len(order), same.Steps(), r.RowsOf(w), r.Steps())
				}
				for step := range steps {
					from, to := r.Part(w, step)
					for _, local := range order[from:to] {
						times[local*workers+w]++
						taken++
					}
				}
			}
			if taken != total {
				t.Fatalf("%d rows were taken; the steps' totals say %d", taken, total)
			}
			done = append(done, data.Done{Workers: workers, Steps: steps})
			parts++
		}
		if slices.Min(times) != 1 || slices.Max(times) != 1 {
			t.Fatalf("rows were taken so many times: %v", times)
		}
	})
	if parts < 200 {
		t.Errorf("only %d parts were done", parts)
	}
}
