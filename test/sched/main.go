// Command sched measures how fast a cluster of coordinators schedules: it joins it as a fleet of
// simulated nodes over the real agent RPC, submits jobs, and tells when their nodes heard of
// them. `make bench-sched` runs it; see docs/performance.md. The cluster is the one that
// CLARY_CONFIG names, and its user must be an admin.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	var b bench
	flag.IntVar(&b.nodes, "nodes", 1000, "simulated nodes, of 64 cores and 8 GPUs each")
	flag.IntVar(&b.tasks, "tasks", 20_000, "tasks that wait when the fleet becomes free")
	flag.IntVar(&b.gang, "gang", 1, "tasks of each job, placed together")
	flag.IntVar(&b.clients, "clients", 64, "how many submit at the same time")
	flag.IntVar(&b.rate, "rate", 500, "jobs a second, one after the other, that come to a free fleet; 0 leaves this part out")
	flag.DurationVar(&b.length, "length", 10*time.Second, "for how long they come")
	flag.IntVar(&b.first, "first", 0, "number of the first simulated node")
	beat := flag.Bool("beat", false, "instead of all that: let the nodes beat until SIGINT, and tell then, and at each SIGUSR1, how they were answered since the last time")
	queued := flag.Int("queued", 0, "instead of all that: submit so many jobs, which wait where no node has room")
	jobs := flag.Int("jobs", 0, "instead of all that: submit so many jobs of `true` to the cluster's own nodes, and wait until all have succeeded")
	addresses := flag.String("join", "", "coordinators that the nodes connect to, by turns: HOST:PORT,...")
	flag.Parse()
	b.coordinators = strings.Split(*addresses, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var figures any
	var err error
	switch {
	case *jobs > 0:
		figures, err = whole(ctx, *jobs, b.clients)
	case *queued > 0:
		figures, err = waiting(ctx, *queued, b.clients)
	case *beat:
		tell := make(chan os.Signal, 1)
		signal.Notify(tell, syscall.SIGUSR1)
		figures, err = b.beats(ctx, tell)
	default:
		figures, err = b.run(ctx)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(figures)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sched:", err)
		os.Exit(1)
	}
}
