package sim

import (
	"fmt"
	"io"
	"sort"
	"text/tabwriter"
	"time"

	"github.com/clary-ml/clary/internal/quantity"
	"github.com/clary-ml/clary/serving/autoscale"
)

// Standard is the model that the comparison is made with.
func Standard() Model {
	return Model{
		Service: 250 * time.Millisecond, Spread: 0.5, Slots: 4, Start: 10 * time.Second,
		Late: time.Second, Lost: 30 * time.Second, Target: 2.8,
	}
}

// Follow is a spec that keeps replicas at the model's target and has the defaults otherwise.
func (m Model) Follow(least, most int) autoscale.Spec {
	return autoscale.Spec{Min: least, Max: most, Policies: []autoscale.Policy{{Metric: autoscale.Concurrency, Target: m.Target}}}
}

// Row is one fleet's result on one load.
type Row struct {
	Fleet  string
	Result Result
}

// maxReplicas is the most that a fleet may have in a comparison.
const maxReplicas = 40

// Compare plays a load, as often as it is said, against fleets that scale and fixed ones
// that were chosen knowing all of it: the smallest that misses no more than the
// autoscaler, and the one of least over- and under-provisioned area.
func (m Model) Compare(load Load, draws int) ([]Row, error) {
	quiet, short := m.Follow(1, maxReplicas), m.Follow(1, maxReplicas)
	quiet.Burst.Off = true
	stabilization := quantity.Duration(time.Minute)
	short.ScaleIn.Stabilization = &stabilization
	zero := m.Follow(0, maxReplicas)
	var rows []Row
	for _, scaled := range []struct {
		name string
		spec autoscale.Spec
	}{
		{"autoscaled", m.Follow(1, maxReplicas)},
		{"without burst", quiet},
		{"stabilization 1m", short},
		{"down to 0", zero},
	} {
		scaler, err := autoscale.New(scaled.spec)
		if err != nil {
			return nil, err
		}
		rows = append(rows, Row{scaled.name, m.play(load, draws, func() Fleet { return &Scaled{Scaler: scaler} }, 0)})
	}
	fixed := func(n int) Result { return m.play(load, draws, func() Fleet { return Fixed(n) }, n) }
	missed := rows[0].Result.Missed()
	same := 1 + sort.Search(maxReplicas-1, func(i int) bool { return fixed(i+1).Missed() <= missed })
	rows = append(rows, Row{fmt.Sprintf("fixed %d, misses no more", same), fixed(same)})
	least, area := m.leastArea(load, draws)
	return append(rows, Row{fmt.Sprintf("fixed %d, least area", least), area}), nil
}

// leastArea is the fixed fleet of least over- and under-provisioned area. The area needs no playing:
// only the best is played.
func (m Model) leastArea(load Load, draws int) (int, Result) {
	best, least := 1, -1
	for n := 1; n <= maxReplicas; n++ {
		area := 0
		for draw := range draws {
			for _, rate := range load.Draw(uint64(draw)) {
				area += max(n-m.Needed(rate), m.Needed(rate)-n)
			}
		}
		if least < 0 || area < least {
			best, least = n, area
		}
	}
	return best, m.play(load, draws, func() Fleet { return Fixed(best) }, best)
}

// play plays a load's draws one after the other. A fleet that scales begins with what is needed first.
func (m Model) play(load Load, draws int, fleet func() Fleet, begin int) Result {
	var sum Result
	for draw := range draws {
		rates := load.Draw(uint64(draw))
		first := begin
		if first == 0 {
			first = max(m.Needed(rates[0]), 1)
		}
		sum = sum.Plus(m.Play(rates, uint64(draw), first, fleet()))
	}
	return sum
}

// Print writes a comparison as a table, areas in replica-hours.
func Print(w io.Writer, load Load, rows []Row) error {
	fmt.Fprintf(w, "\n%s: %s\n", load.Name, load.What)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "fleet\tspent\tover\tunder\tover+under\tlate %\tlost %\tchanges\tpeak\t")
	for _, row := range rows {
		r := row.Result
		requests := float64(max(r.Requests, 1)) / 100
		fmt.Fprintf(t, "%s\t%.1f\t%.1f\t%.2f\t%.1f\t%.3f\t%.3f\t%d\t%d\t\n", row.Fleet, r.Spent/hour, r.Over/hour, r.Under/hour,
			(r.Over+r.Under)/hour, float64(r.Late)/requests, float64(r.Lost)/requests, r.Changes, r.Peak)
	}
	return t.Flush()
}
