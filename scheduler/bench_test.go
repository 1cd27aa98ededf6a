package scheduler_test

import (
	"fmt"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler"
)

// fleet is a cluster of 1,000 nodes, a third of them with GPUs.
func fleet() []cluster.Node {
	nodes := make([]cluster.Node, 1000)
	for i := range nodes {
		gpus := 0
		if i%3 == 0 {
			gpus = 8
		}
		nodes[i] = machine(fmt.Sprintf("node-%04d", i), 64, 256, gpus, "A100")
	}
	return nodes
}

// waiting are 10,000 gangs of one to four tasks; shapes is how many kinds there are.
func waiting(shapes int) []scheduler.Ask {
	asks := make([]scheduler.Ask, 10_000)
	for i := range asks {
		kind := i % shapes
		ask := cluster.Ask{MilliCPU: int64(1000 + kind), Memory: gib}
		if kind%4 == 0 {
			ask.GPUs = 1
		}
		g := gang(fmt.Sprintf("job-%05d", i), int32(1+kind%4), ask)
		g.Submitted = int64(i)
		asks[i] = scheduler.NewAsk(g)
	}
	return asks
}

func BenchmarkSchedule(b *testing.B) {
	full := map[string]cluster.Resources{}
	for _, n := range fleet() {
		full[n.ID] = cluster.Resources{MilliCPU: n.MilliCPU - 900}
	}
	for _, c := range []struct {
		name   string
		shapes int
		used   map[string]cluster.Resources
	}{
		{"empty cluster, 20 shapes", 20, nil},
		{"empty cluster, every shape its own", 10_000, nil},
		{"full cluster, 20 shapes", 20, full},
		{"full cluster, every shape its own", 10_000, full},
	} {
		b.Run(c.name, func(b *testing.B) {
			view, asks := viewOf(c.used, fleet()...), waiting(c.shapes)
			placed := 0
			for b.Loop() {
				placed = len(schedule(view, asks, 0).Placements)
			}
			b.ReportMetric(float64(placed), "placed")
		})
	}
}

func BenchmarkScheduleOne(b *testing.B) {
	view, asks := viewOf(nil, fleet()...), waiting(20)[:1]
	for b.Loop() {
		schedule(view, asks, 0)
	}
}

func BenchmarkCouldEverFit(b *testing.B) {
	nodes := fleet()
	for _, gpus := range []int32{0, 1} {
		b.Run(fmt.Sprintf("%d GPUs", gpus), func(b *testing.B) {
			g := gang("j", 4, cluster.Ask{MilliCPU: 1000, Memory: gib, GPUs: gpus})
			for b.Loop() {
				scheduler.CouldEverFit(nodes, g)
			}
		})
	}
}
