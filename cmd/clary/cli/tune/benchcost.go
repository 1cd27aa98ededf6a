package tune

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/clary-ml/clary/cmd/clary/cli/shell"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/tuner"
	"github.com/clary-ml/clary/tuner/bench"
	"github.com/clary-ml/clary/tuner/chance"
)

// tuneCostJSON is what a suggestion costs after so many results.
type tuneCostJSON struct {
	Results int     `json:"results"`
	CPU     float64 `json:"cpu_ms"`
	Error   float64 `json:"standard_error"` // over the seeds
}

// costFunction is what the results of tuneCost are values of: Rosenbrock's, in six
// dimensions.
const costFunction, costDims = 8, 6

// tuneCost measures suggestions, one after the other, after so many results at random
// points. The first, which catches up with them, is not counted. Each of the others has
// one result more than the one before.
func (a app) tuneCost(ctx context.Context, b tuneBench) error {
	f, err := bench.NewFunction(costFunction, costDims)
	if err != nil {
		return err
	}
	c, err := b.crew(ctx, a.Err)
	if err != nil {
		return err
	}
	figures := []tuneCostJSON{}
	for _, results := range b.cost {
		var costs [][]float64
		for seed := range b.seeds {
			cost, err := c.cost(f.Instance(uint64(seed)), results, b.play.Trials, uint64(seed))
			if err != nil {
				return errors.Join(fmt.Errorf("after %d results, with seed %d: %w", results, seed, err), c.close())
			}
			costs = append(costs, []float64{1000 * cost.Seconds()})
		}
		mean := bench.Summarize(costs)[0]
		figures = append(figures, tuneCostJSON{Results: results, CPU: mean.Mean, Error: mean.Error})
	}
	if err := c.close(); err != nil {
		return err
	}
	return a.Print(figures, func(out io.Writer) error {
		var rows [][]string
		for _, f := range figures {
			rows = append(rows, []string{strconv.Itoa(f.Results), fmt.Sprintf("%.1f ± %.1f ms", f.CPU, f.Error)})
		}
		return shell.Table(out, []string{"results", "a suggestion"}, rows)
	})
}

// cost is the mean processor time of suggestions.
func (c *crew) cost(task bench.Instance, results, suggestions int, seed uint64) (cost time.Duration, err error) {
	if results < 0 || results > bench.MaxTrials {
		return 0, fault.New(fault.Invalid, "--cost %d: give 0 to %d", results, bench.MaxTrials)
	}
	problem := task.Problem()
	problem.Seed, problem.Budget, problem.Workers = seed, results+suggestions+1, 1
	h, err := tuner.NewHistory(problem)
	if err != nil {
		return 0, err
	}
	end := func() error {
		value := task.Observe(h.Config(h.Len()-1), nil)
		return h.End(h.Len()-1, tuner.Result{State: tuner.Complete, Values: []float64{value}})
	}
	draw := chance.New(seed, 'c', 'o', 's', 't')
	for range results {
		at, err := h.Draw(draw)
		if err != nil {
			return 0, err
		}
		if _, err := h.Add(at); err != nil {
			return 0, err
		}
		if err := end(); err != nil {
			return 0, err
		}
	}
	err = c.propose(func(maker tuner.Maker, _ bool) error {
		sampler, err := maker(problem)
		if err != nil {
			return err
		}
		for i := range suggestions + 1 {
			before := c.clock()
			at, err := sampler.Suggest(h)
			if err != nil {
				return err
			}
			if i > 0 {
				cost += (c.clock() - before) / time.Duration(suggestions)
			}
			if _, err := h.Add(at); err != nil {
				return err
			}
			if err := end(); err != nil {
				return err
			}
		}
		return nil
	})
	return cost, err
}

// clock is the processor time that suggestions have taken so far, and, where they are
// made in this process, everything else in it.
func (c *crew) clock() time.Duration {
	if c.make != nil {
		return processorTime()
	}
	return c.used()
}
