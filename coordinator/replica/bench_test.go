package replica_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
)

// BenchmarkPropose measures submissions (a job and its gang, about 1 KiB) to three
// replicas in one process, each with its own log on disk, all on this machine's cores.
func BenchmarkPropose(b *testing.B) {
	propose(b, func(c command.Record, _ int64) command.Command { return c })
}

// BenchmarkProposeAudited is the same with who asked for each in the same entry, as users' requests have it.
func BenchmarkProposeAudited(b *testing.B) {
	propose(b, func(c command.Record, i int64) command.Command {
		now := time.Now().UnixNano()
		return command.Audited{Command: c, Deed: cluster.Deed{
			ID: cluster.NewDeedID(now, fmt.Sprintf("%012x", i)), Time: now, User: "ada", Action: "jobs/submit", Object: fmt.Sprintf("job-%d", i), From: "10.0.0.17", Request: fmt.Sprintf("%012x", i),
		}}
	})
}

func propose(b *testing.B, as func(command.Record, int64) command.Command) {
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			n := newNet()
			members := three(b, n, b.TempDir())
			leader := awaitLeader(b, members...)
			var next atomic.Int64
			var wait sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wait.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						if _, err := leader.Propose(b.Context(), as(submission(fmt.Sprintf("job-%d", i)), i)); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			for _, m := range members {
				_ = n.halt(m)
			}
		})
	}
}
