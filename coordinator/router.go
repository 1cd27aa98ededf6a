package coordinator

import (
	"context"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/rpc"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/serving/autoscale"
	"github.com/clary-ml/clary/serving/ingress"
	"github.com/clary-ml/clary/serving/route"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload/endpoint"
)

// routesFile is the last table of this coordinator's router.
const routesFile = "routes.json"

// openRouter makes the router of this coordinator, if it is to have one. It goes on through elections
// and without a quorum: it routes by what this coordinator knows.
func (n *coordinator) openRouter(ctx context.Context, source pki.Source) error {
	if !n.config.Serve.On() {
		return nil
	}
	var err error
	n.router, err = ingress.Open(ctx, ingress.ServerConfig{
		Name: rpc.RouterName(pki.Coordinator, n.config.ID), Host: n.config.advertisedHost(), Front: n.config.Serve, Source: source, Dial: n.config.network(),
		Store:  func(context.Context) (*object.Client, error) { return n.store.open() },
		Routes: ownRoutes{n}, Path: n.config.path(routesFile), Log: n.log,
	})
	return err
}

// ownRoutes are the tables of this coordinator's own state.
type ownRoutes struct{ *coordinator }

// Follow implements ingress.Source.
func (o ownRoutes) Follow(ctx context.Context, version uint64, set func(route.Table) error) error {
	return o.routes.Follow(ctx, version, set)
}

// Report implements ingress.Source.
func (o ownRoutes) Report(ctx context.Context, report route.Report) error {
	return o.passReports(ctx, []route.Report{report})
}

// passReports hands what routers did to the steward, which is wherever the leader is.
func (n *coordinator) passReports(ctx context.Context, reports []route.Report) error {
	if n.replica.Leads() {
		return n.steward.Report(ctx, reports)
	}
	conn, err := n.peers.Conn(n.replica.Leader())
	if err != nil {
		return err
	}
	message, err := rpc.ReportsToProto(reports)
	if err != nil {
		return err
	}
	_, err = claryv1.NewPeerClient(conn).Reports(ctx, message)
	return wire.FromStatus(err)
}

// liveRouters names the routers that gossip shows, as their reports do.
func (n *coordinator) liveRouters() []string {
	var names []string
	for _, member := range n.gossip.Members() {
		if member.Serve != "" {
			names = append(names, rpc.RouterName(member.Role, member.ID))
		}
	}
	return names
}

// measured are the metrics that an endpoint's replicas tell, as this coordinator knows them, and what waits for it
// asynchronously, which the leader's own router knows.
func (n *coordinator) measured(ctx context.Context, e cluster.Endpoint) map[string]map[string]float64 {
	measured := map[string]map[string]float64{}
	if endpoint.Told(e) {
		if snapshot, err := n.replica.Read(ctx, true); err == nil { // else it is not measured
			measured = endpoint.Measured(e, snapshot.TasksOf(e.Job))
			snapshot.Close()
		}
	}
	if n.router == nil {
		return measured
	}
	if waiting, known := n.router.Backlog(e.Job); known {
		for fleet, backlog := range endpoint.Backlogs(e, float64(waiting)) {
			if measured[fleet] == nil {
				measured[fleet] = map[string]float64{}
			}
			measured[fleet][string(autoscale.Backlog)] = backlog
		}
	}
	return measured
}

// table is the newest table as this coordinator knows it.
func (n *coordinator) table() route.Table {
	table, _ := n.routes.Table()
	return table
}
