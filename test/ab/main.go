// Command ab prints what docs/performance.md says of A/B experiments: how often they call a difference
// where there is none, looked at after every request, beside a t-test that is repeated, and how
// soon they call one that is there. `make bench-ab` runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/clary-ml/clary/serving/experiment/sim"
)

func main() {
	experiments := flag.Int("experiments", 2000, "how many of each kind without a difference; a quarter with one")
	requests := flag.Int("requests", 10_000, "of each experiment without a difference; ten times as many at most with one")
	flag.Parse()
	if err := run(*experiments, *requests); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(experiments, requests int) error {
	fmt.Printf("no difference: %d experiments of %d requests each, looked at after each one; a difference is called at alpha 0.05\n", experiments, requests)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "what\tB's share\twrong %\tt-test at every look %\tt-test once %")
	for _, d := range sim.Distributions() {
		for _, share := range []float64{0.5, 0.1} {
			o := d.Case(share, 1).Run(experiments, requests, 1)
			fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.1f\t%.1f\n", d.Name, share, 100*o.Share(o.Called), 100*o.Share(o.Naive), 100*o.Share(o.Once))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Printf("\na difference: %d experiments, of %d requests at most, half of them B's\n", experiments/4, 10*requests)
	fmt.Fprintln(t, "what\tB is\tfound %\twrong way %\tmean requests to the call\tmedian")
	all := sim.Distributions()
	for _, at := range []int{0, 2, 4, 8} {
		effects := []float64{0.98, 0.95, 0.9, 0.8}
		switch at {
		case 4:
			effects = []float64{0.75, 0.5, 0.25}
		case 8:
			effects = []float64{1.1, 1.2, 1.5}
		}
		for _, effect := range effects {
			o := all[at].Case(0.5, effect).Run(experiments/4, 10*requests, 2)
			fmt.Fprintf(t, "%s\t%.2f times\t%.1f\t%.2f\t%.0f\t%d\n", all[at].Name, effect, 100*o.Share(o.Called), 100*o.Share(o.Wrong), o.Mean(), o.Median())
		}
	}
	return t.Flush()
}
