// Command autoscale prints what docs/performance.md says of the autoscaler: drawn load against fleets
// that it scales, beside the best fixed ones. `make bench-autoscale` runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/clary-ml/clary/serving/autoscale/sim"
)

func main() {
	draws := flag.Int("draws", 3, "how often each load is drawn")
	start := flag.Duration("start", sim.Standard().Start, "until a new replica is ready")
	flag.Parse()
	if err := run(*draws, *start); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(draws int, start time.Duration) error {
	model := sim.Standard()
	model.Start = start
	fmt.Printf("a replica serves %d requests at a time, each %s in the mean, and starts in %s; its target is %v at a time.\n", model.Slots, model.Service, model.Start, model.Target)
	fmt.Printf("each load is drawn %d times; areas are replica-hours, in all draws together; late is a wait of more than %s, lost of %s.\n", draws, model.Late, model.Lost)
	for _, load := range sim.Loads() {
		rows, err := model.Compare(load, draws)
		if err != nil {
			return err
		}
		if err := sim.Print(os.Stdout, load, rows); err != nil {
			return err
		}
	}
	return nil
}
