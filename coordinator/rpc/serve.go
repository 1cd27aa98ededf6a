// Package rpc is the face of a coordinator: it authenticates who calls, decides whether
// they may, converts between the wire and the nouns, and answers. It decides nothing
// about jobs or nodes itself: writes are commands, reads are snapshots.
package rpc

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/routes"
	"github.com/clary-ml/clary/coordinator/state"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/storage/journal/archive"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload"
)

// Replica is the replicated state as the services use it.
type Replica interface {
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Events() *state.Bus
	HandlePropose(ctx context.Context, batch []byte) ([]byte, error)
	HandleReadIndex(ctx context.Context) (uint64, error)
	Leader() string // id of the leader, "" if unknown
	Leads() bool
}

// Planner answers questions about what waits. It knows on the leader only.
type Planner interface {
	Why(ctx context.Context, job string) ([]cluster.Why, error)
	Whys(ctx context.Context, queue string, limit int) (whys []cluster.Why, waiting int, err error)
	DryRun(ctx context.Context, gangs []cluster.Gang) (cluster.Plan, error)
}

// Keeper takes beats on the leader.
type Keeper interface {
	Beat(nodes []string) (unknown []string, err error)
}

// Conns gives connections to members by id.
type Conns interface {
	Conn(id string) (*grpc.ClientConn, error)
}

// TaskSigner certifies the key of a task.
type TaskSigner func(task cluster.Task, csr []byte) (certificate, ca []byte, err error)

// Sealer keeps values from whoever reads the log: the keyring.
type Sealer interface {
	Seal(value []byte, context string) ([]byte, error)
	Open(sealed []byte, context string) ([]byte, error)
}

// Config is everything the services stand on.
type Config struct {
	Replica      Replica
	Planner      Planner
	Keeper       Keeper
	Desk         Desk
	Janitor      Janitor // nil: nothing goes by itself
	Traffic      Traffic // of endpoints; nil where there are no routers
	Kinds        map[cluster.Kind]workload.Kind
	Coordinators Conns // to the other coordinators
	Agents       Conns // to the agents
	Nodes        *NodeCache
	Beats        *Beats
	Switchboard  *Switchboard
	Signer       TaskSigner
	Sealer       Sealer
	Welcome      func() *claryv1.Welcome
	Store        func() (*object.Client, error)
	Artifacts    func() (Artifacts, error)                     // of models; in Store if nil
	Archive      func(below object.URI) (archive.Store, error) // of logs; in Store if nil
	Records      func() (disposal.Store, error)                // of archived jobs; in Store if nil
	Credentials  func(Identity) (*claryv1.CredentialsResponse, error)
	Members      Members
	Warden       Warden // nil: keys never change
	Quorum       Quorum
	Routes       *routes.Feed                        // nil: no agent can route
	PassReports  Reports                             // to the leader, wherever it is
	TakeReports  Reports                             // on the leader
	Decisions    func(to io.Writer, last bool) error // copies the record of decisions; nil where there is none
	// Life is that of the cluster: see cluster.NewLife.
	Life string
	// Snapshot writes one of what the cluster has agreed on.
	Snapshot func(ctx context.Context, to io.Writer) error
	Backups  Backups // nil: none are made
	Log      *slog.Logger
}

// Register adds every service to a gRPC server that was made with Options.
func Register(server *grpc.Server, c Config) {
	c.Replica = auditing{c.Replica, new(atomic.Bool)}
	work := &jobs{
		replica: c.Replica, leader: leaderConns{c.Replica, c.Coordinators}, kinds: c.Kinds, planner: c.Planner, nodes: c.Nodes, agents: c.Agents, store: c.Store, archive: c.Archive, records: c.Records,
	}
	if work.records == nil {
		work.records = func() (disposal.Store, error) { return c.Store() }
	}
	claryv1.RegisterJobsServer(server, work)
	claryv1.RegisterMetricsServer(server, newMetrics(work))
	claryv1.RegisterNodesServer(server, &nodes{replica: c.Replica})
	claryv1.RegisterObjectsServer(server, newObjects(c.Store, c.Credentials))
	claryv1.RegisterAdminServer(server, &admin{replica: c.Replica, members: c.Members, leader: work.leader, decisions: c.Decisions})
	claryv1.RegisterDebugServer(server, &debugging{members: c.Members, replica: c.Replica, coordinators: c.Coordinators, agents: c.Agents})
	claryv1.RegisterHandsServer(server, &hands{replica: c.Replica, agents: c.Agents, log: c.Log})
	claryv1.RegisterQueuesServer(server, &queues{replica: c.Replica})
	claryv1.RegisterSettingsServer(server, &settings{replica: c.Replica, leader: work.leader, janitor: c.Janitor})
	claryv1.RegisterSecretsServer(server, &secrets{replica: c.Replica, sealer: c.Sealer})
	claryv1.RegisterSweepsServer(server, &sweeps{replica: c.Replica, leader: leaderConns{c.Replica, c.Coordinators}, desk: c.Desk})
	claryv1.RegisterEndpointsServer(server, &endpoints{replica: c.Replica, leader: work.leader, planner: c.Planner, traffic: c.traffic(), jobs: work})
	claryv1.RegisterModelsServer(server, &models{replica: c.Replica, store: c.artifacts()})
	claryv1.RegisterAgentLinkServer(server, &link{replica: c.Replica, sealer: c.Sealer, beats: c.Beats, board: c.Switchboard, welcome: c.Welcome, warden: c.Warden, signer: c.Signer, members: c.Members, life: c.Life, log: c.Log})
	claryv1.RegisterPeerServer(server, &peers{replica: c.Replica, keeper: c.Keeper, reports: c.TakeReports, quorum: c.Quorum, warden: c.Warden})
	claryv1.RegisterClusterServer(server, &clusters{replica: c.Replica, leader: work.leader, quorum: c.Quorum, snapshot: c.Snapshot, backups: c.Backups})
	if c.Warden != nil {
		claryv1.RegisterKeysServer(server, &keys{replica: c.Replica, leader: work.leader, warden: c.Warden})
	}
	if c.Routes != nil {
		claryv1.RegisterRoutesServer(server, &routing{feed: c.Routes, reports: c.PassReports})
	}
}

func (c Config) traffic() Traffic {
	if c.Traffic == nil {
		return noTraffic{}
	}
	return c.Traffic
}

// artifacts is where the registry keeps models.
func (c Config) artifacts() func() (Artifacts, error) {
	if c.Artifacts != nil {
		return c.Artifacts
	}
	return func() (Artifacts, error) { return c.Store() }
}

// leaderConns finds the leader for questions that only it can answer.
type leaderConns struct {
	replica Replica
	conns   Conns
}

// elsewhere returns a connection to the leader, or nil if this coordinator leads.
func (l leaderConns) elsewhere() (*grpc.ClientConn, error) {
	if l.replica.Leads() {
		return nil, nil
	}
	return l.conns.Conn(l.replica.Leader())
}

// forwarded is the context for asking the leader in the name of the same user.
func forwarded(ctx context.Context) context.Context {
	incoming, _ := metadata.FromIncomingContext(ctx)
	return metadata.NewOutgoingContext(ctx, metadata.MD{"authorization": incoming.Get("authorization")})
}
