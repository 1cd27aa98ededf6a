package coordinator

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/headroom"
	"github.com/clary-ml/clary/coordinator/janitor"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/coordinator/telemetry"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/ops"
)

// farBehind is how many committed entries may not be in the state yet while a coordinator counts as ready.
const farBehind = 10_000

// measure makes what this coordinator measures of itself. It reads the parts when it is asked, which is
// after all of them are there.
func (n *coordinator) measure() *telemetry.Telemetry {
	var routers []prometheus.Collector
	if n.router != nil {
		routers = n.router.Collectors()
	}
	return telemetry.New(telemetry.Sources{
		Janitor: func() janitor.Counts { return n.cleaning.Counts() },
		Process: ops.Process{
			Version: n.config.Version, Members: func() map[string]int { return n.gossip.Count() },
			Free: func() (int64, int64) { free, total, _ := ops.Room(n.config.Data); return free, total },
		},
		Raft:    func() replica.Stats { return n.replica.Stats() },
		Planner: func() planner.Counts { return n.planner.Counts() },
		Nodes:   func() []cluster.Node { return n.nodes.List() },
		Read:    func() (*state.Snapshot, error) { return n.replica.Read(context.Background(), true) },
		Store:   func() bool { _, err := n.store.settings(); return err == nil },
		Objects: n.stored.Get,
		Backups: func() telemetry.Backups { return n.backups.measured() },
		Disk:    func() headroom.Disk { return n.headroom.Disk() },
		Port:    func() alpn.Counts { return n.mux.Counts() },
		Refuses: func() bool { return n.voting.Refuses() != nil },
	}, routers...)
}

// operators is the listener for those who operate this coordinator.
func (n *coordinator) operators() *ops.Server {
	return &ops.Server{
		Listener: n.config.Metrics, TLS: pki.ServerTLS(n.self.credentials.Get), Metrics: n.telemetry, Level: n.config.LogLevel, Log: n.log,
		Checks: []ops.Check{
			{Name: "quorum", Look: n.hasQuorum},
			{Name: "state", Look: n.keepsUp},
			{Name: "disk", Look: n.hasRoom},
		},
		Allow: func(ctx context.Context, token string, admin bool) error {
			action := auth.Read
			if admin {
				action = auth.Operate
			}
			return n.guard.Allow(ctx, token, action)
		},
	}
}

// hasQuorum asks for a read that only a majority can vouch for.
func (n *coordinator) hasQuorum(ctx context.Context) error {
	snapshot, err := n.replica.Read(ctx, false)
	if ctx.Err() != nil {
		return fault.New(fault.Unready, "no leader has answered: a majority of the coordinators must be up and reach each other; see clary cluster")
	}
	if err != nil {
		return err
	}
	return snapshot.Close()
}

// keepsUp says that the state is far behind the log.
func (n *coordinator) keepsUp(context.Context) error {
	stats := n.replica.Stats()
	if stats.Committed > stats.Applied+farBehind {
		return fault.New(fault.Unready, "the state is %d entries behind the log: it is being read after a start, or this machine is too slow", stats.Committed-stats.Applied)
	}
	return nil
}
