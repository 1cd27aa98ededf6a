package share_test

import (
	"fmt"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/scheduler/share"
)

// BenchmarkPick is one decision: who is next, may it, and its charge.
func BenchmarkPick(b *testing.B) {
	for _, teams := range []int{4, 100, 1000} {
		b.Run(fmt.Sprintf("%d-queues", teams*4), func(b *testing.B) {
			tree := share.New()
			tree.SetCapacity(amount(1<<20, 1<<19))
			var queues []cluster.Queue
			for i := range teams {
				top := fmt.Sprintf("t%d", i)
				queues = append(queues, cluster.Queue{Name: top, Weight: int32(1 + i%5)})
				for j := range 3 {
					queues = append(queues, cluster.Queue{Name: fmt.Sprintf("%s-%d", top, j), Parent: top, Weight: 1, Borrow: quota("gpus", 1<<30)})
				}
			}
			if err := tree.Set(queues); err != nil {
				b.Fatal(err)
			}
			unit := amount(1, 1)
			for _, q := range queues {
				tree.SetDemand(q.Name, unit)
			}
			for b.Loop() {
				queue, _ := tree.Next()
				claim := share.Claim{Queue: queue, Owner: "ann", Job: "j", Amount: unit}
				if _, ok := tree.Admit(claim); !ok {
					b.Fatal("blocked")
				}
				if err := tree.Charge(claim); err != nil {
					b.Fatal(err)
				}
				tree.SetDemand(queue, unit)
			}
		})
	}
}
