package replica_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkPropose measures submissions (a job and its gang, about 1 KiB) to three
// replicas in one process, each with its own log on disk, all on this machine's cores.
func BenchmarkPropose(b *testing.B) {
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
						if _, err := leader.Propose(b.Context(), submission(fmt.Sprintf("job-%d", i))); err != nil {
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
