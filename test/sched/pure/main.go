// Command pure measures decisions of the scheduler alone, on one core: nothing is committed and no one is told.
// Every decision is the best of all nodes, as a scan of them would find it. `make bench-sched` runs it; the traces
// are found through CLARY_TRACES, and what needs them is left out without. Rates are by processor time, the garbage
// collector's included, so that a busy machine gives the same; how long one decision takes is by the clock.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	sizes := flag.String("nodes", "1000,5000,10000,50000", "how many nodes, some rows of the table each")
	gang := flag.Int("gang", 8, "tasks of a gang")
	rounds := flag.Int("rounds", 3, "runs of each row; the median is told")
	waiting := flag.Int("waiting", 100_000, "jobs that wait, for the memory of one")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "load\tpolicy\tnodes\ttasks each\tdecisions\tplaced\troom: decisions/s\tp50\tp99\tworst\ta node\twith caches\tplan: decisions/s\t")
	for size := range strings.SplitSeq(*sizes, ",") {
		nodes, err := strconv.Atoi(size)
		if err != nil || nodes < 1 {
			fmt.Fprintf(os.Stderr, "pure: --nodes: %q is not a number of nodes, like 10000\n", size)
			os.Exit(2)
		}
		loads := []load{synthetic(nodes, 1), synthetic(nodes, *gang)}
		if traces := os.Getenv("CLARY_TRACES"); traces != "" {
			l, err := openb(traces, nodes)
			if err != nil {
				fmt.Fprintln(os.Stderr, "pure:", err)
				os.Exit(1)
			}
			loads = slices.Insert(loads, 0, l)
		}
		for i := range loads {
			for _, name := range []string{"tightest", "gradient"} {
				loads[i].row(table, name, *rounds)
			}
		}
	}
	table.Flush()
	fmt.Printf("a job that waits takes %d bytes (of %d, in 48 sizes)\n", memoryOfWaiting(*waiting), *waiting)
	if os.Getenv("CLARY_TRACES") == "" {
		fmt.Println("CLARY_TRACES does not say where the traces are: the openb mix is left out")
	}
}

// row measures one load with one policy, and writes it.
func (l *load) row(table *tabwriter.Writer, name string, rounds int) {
	policy := l.policies()[name]
	var rooms []result
	var plans []time.Duration
	for range rounds {
		rooms = append(rooms, l.place(policy()))
		plans = append(plans, l.plan(policy()))
	}
	slices.SortFunc(rooms, func(a, b result) int { return int(a.took - b.took) })
	slices.Sort(plans)
	r, plan := rooms[rounds/2], plans[rounds/2]
	count := float64(len(l.roles))
	fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%.0f %%\t%.0f\t%s\t%s\t%s\t%d B\t%d B\t%.0f\t\n",
		l.name, name, len(l.nodes), l.gang, len(l.roles), 100*float64(r.placed)/count, count/r.took.Seconds(),
		short(r.p50), short(r.p99), short(r.worst), r.bare, r.full, count/plan.Seconds())
}

func short(d time.Duration) string { return d.Round(100 * time.Nanosecond).String() }
