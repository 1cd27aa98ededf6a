package tuning

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
)

// Verify makes a sweep's suggestions again, each from nothing but the results that were
// known when it was made, and reports the first that is another than its trial's. trials
// are all of the sweep, in the order of their numbers.
func Verify(job cluster.Job, trials []cluster.Trial, earlier []Earlier) error {
	s, err := NewSearch(job, cluster.Sweep{Job: job.Name}, func(func(cluster.Trial) bool) {}, earlier)
	if err != nil {
		return err
	}
	h := s.history
	results := resultsOf(trials)
	for _, t := range trials {
		for len(results) > 0 && results[0].order <= t.Since {
			if err := results[0].apply(h); err != nil {
				return err
			}
			results = results[1:]
		}
		if t.By != "" {
			if _, err := h.Add(t.Config); err != nil {
				return err
			}
			continue
		}
		sampler, err := s.spec.newSampler(h.Problem())
		if err != nil {
			return err
		}
		number, err := tuner.Ask(sampler, h)
		if err != nil {
			return fmt.Errorf("trial %d: %w", t.Number, err)
		}
		if got := h.Config(number); int64(number) != t.Number || !slices.EqualFunc(got, t.Config, same) {
			return fault.New(fault.Conflict, "trial %d has %v, and %v is what is proposed after %d results", t.Number, t.Config, got, t.Since)
		}
	}
	for _, r := range results {
		if err := r.apply(h); err != nil {
			return err
		}
	}
	return nil
}

func same(a, b float64) bool { return a == b || a != a && b != b }

// result is a point of a curve, or a trial's end.
type result struct {
	order  uint64
	number int
	point  *cluster.CurvePoint
	end    tuner.Result
}

func (r result) apply(h *tuner.History) error {
	if r.point != nil {
		return h.Report(r.number, r.point.Step, r.point.Value)
	}
	return h.End(r.number, r.end)
}

// resultsOf are all results of trials, in their order.
func resultsOf(trials []cluster.Trial) []result {
	var results []result
	for _, t := range trials {
		for i := range t.Curve {
			if t.Curve[i].Order > 0 {
				results = append(results, result{order: t.Curve[i].Order, number: int(t.Number), point: &t.Curve[i]})
			}
		}
		if row := trialOf(t); row.State.Ended() {
			results = append(results, result{order: t.Order, number: int(t.Number), end: tuner.Result{State: row.State, Values: row.Values, Limits: row.Limits}})
		}
	}
	slices.SortFunc(results, func(a, b result) int { return cmp.Compare(a.order, b.order) })
	return results
}
