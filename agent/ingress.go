package agent

import (
	"context"
	"math/rand/v2"
	"sync"

	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/serving/ingress"
	"github.com/clary-ml/clary/serving/route"
)

// routesFile is the last table of this agent's router.
const routesFile = "routes.json"

// openIngress makes this agent's router, if it is to have one.
func (a *agent) openIngress(ctx context.Context) error {
	if !a.config.Ingress.On() {
		return nil
	}
	c := a.config
	a.routes = &coordinatorRoutes{agent: a, turn: rand.IntN(1 << 16)}
	var err error
	a.ingress, err = ingress.Open(ctx, ingress.ServerConfig{
		Name: pki.Agent + "/" + c.ID, Host: c.Address, Front: c.Ingress, Source: a.self.credentials.Get, Dial: c.network(),
		Store:  a.store.get,
		Routes: a.routes, Path: c.path(routesFile), Log: a.log,
	})
	return err
}

// coordinatorRoutes are the tables of whichever coordinator answers.
type coordinatorRoutes struct {
	agent *agent
	turn  int // whose it is; of Follow alone

	mu   sync.Mutex
	conn *grpc.ClientConn // the one that tables come over, nil between two
}

// Follow implements ingress.Source: each call asks the next coordinator.
func (r *coordinatorRoutes) Follow(ctx context.Context, version uint64, set func(route.Table) error) error {
	a := r.agent
	addresses := a.coordinators(false)
	r.turn++
	if len(addresses) == 0 {
		return fault.New(fault.Unready, "no coordinator of %s is known now", cluster.LifeText(a.life.is()))
	}
	conn, err := member.Dial(a.config.network(), addresses[r.turn%len(addresses)], a.self.credentials.Get, pki.ExpectNode(pki.Coordinator))
	if err != nil {
		return err
	}
	r.use(conn)
	defer conn.Close()
	defer r.use(nil)
	return ingress.FollowRemote(ctx, claryv1.NewRoutesClient(conn), version, set)
}

func (r *coordinatorRoutes) use(conn *grpc.ClientConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conn = conn
}

// hangUp ends the connection that stands if somebody else is to be asked: the other end is known by its handshakes alone,
// so that it is made anew whenever somebody was revoked.
func (r *coordinatorRoutes) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		_ = r.conn.Close()
	}
}

// Report implements ingress.Source.
func (r *coordinatorRoutes) Report(ctx context.Context, report route.Report) error {
	r.mu.Lock()
	conn := r.conn
	r.mu.Unlock()
	if conn == nil {
		return fault.New(fault.Unready, "no connection to a coordinator now")
	}
	return ingress.ReportRemote(ctx, claryv1.NewRoutesClient(conn), report)
}
