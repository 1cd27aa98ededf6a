package coordinator

import (
	"context"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// life is that of the cluster which this coordinator is of. It does not change while it runs.
func (n *coordinator) life() string { return n.self.keyring.Get().Life }

const (
	// outliveEvery is how often a coordinator looks for those of other lives.
	outliveEvery = time.Second
	// outlivedAfter is how long a coordinator that sees a later life goes on without a leader of its own.
	outlivedAfter = 10 * time.Second
)

// outlive watches for coordinators of other lives of the cluster, which take no part in this one. If a later one is seen and
// nobody leads here, this life is over: the coordinator ends, and says so. One that has a leader goes on: that somebody
// restored a backup beside it may have been a mistake, and stops nothing.
func (n *coordinator) outlive(ctx context.Context) error {
	clock := time.NewTicker(outliveEvery)
	defer clock.Stop()
	said, led := map[string]bool{}, time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
		if n.replica.Leader() != "" {
			led = time.Now()
		}
		for _, other := range n.gossip.Strangers() {
			if other.Life > n.life() && time.Since(led) >= outlivedAfter {
				return fault.New(fault.Denied, "this coordinator is of %s, and coordinator %s at %s of %s: this life has no leader any more; delete this data folder (%s), and join the cluster anew with a token from clary cluster add %s",
					cluster.LifeText(n.life()), other.ID, other.RPC, cluster.LifeText(other.Life), n.config.Data, n.config.ID)
			}
			if key := other.ID + other.Life; !said[key] {
				said[key] = true
				n.log.Error("a coordinator of another life of the cluster is there, and takes no part in this one: stop whichever should not be, and delete its folder",
					"id", other.ID, "at", other.RPC, "its_life", cluster.LifeText(other.Life), "this_life", cluster.LifeText(n.life()))
			}
		}
	}
}
