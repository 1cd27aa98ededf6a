package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/keeper"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/quorum"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/registry/registrytest"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/routes"
	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/coordinator/sweeps"
	"github.com/clary-ml/clary/coordinator/transport"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/memnet"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/endpoint"
	"github.com/clary-ml/clary/workload/training"
	"github.com/clary-ml/clary/workload/tuning"
)

const (
	server = "10.0.0.1"
	client = "10.0.0.2"
	port   = ":7420"
)

// world is one coordinator's services on a real replica, behind its real port, in a bubble.
type world struct {
	*testing.T
	ca      *pki.Authority
	net     memnet.Network
	replica *replica.Replica
	users   map[string]string // role → secret
	members *members
	defect  bool // the service of credentials panics
	agents  agents
	logs    logStores
	// artifacts are those of models.
	artifacts *registrytest.Store
	traffic   traffic
	guard     *rpc.Guard
	store     *object.Client // nil is none
	// still: the replica does not go on, and is asked in vain for what the leader has.
	still   atomic.Bool
	unheard atomic.Bool // services do not hear what became of what they propose
	served  map[string]grpc.ServiceInfo
	format  int // in force
}

// standing is a replica that may stand still.
type standing struct {
	*replica.Replica
	still *atomic.Bool
}

func (s standing) Read(ctx context.Context, stale bool) (*state.Snapshot, error) {
	if !stale && s.still.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.Replica.Read(ctx, stale)
}

// hearing is a replica that at times does not tell what became of a proposal, as when the leader dies before it answers.
type hearing struct {
	*replica.Replica
	unheard *atomic.Bool
}

func (h hearing) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	results, err := h.Replica.Propose(ctx, commands...)
	if h.unheard.Load() {
		return nil, fault.New(fault.Unready, "it is unknown whether the commands were applied")
	}
	return results, err
}

// traffic is what routers tell of endpoints.
type traffic struct {
	mu      sync.Mutex
	routers []rpc.Router
	seen    map[string]rpc.Seen
}

func (t *traffic) Routers() []rpc.Router { return t.routers }

func (t *traffic) Seen(name string) rpc.Seen {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen[name]
}

func (t *traffic) see(name string, seen rpc.Seen) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = map[string]rpc.Seen{name: seen}
}

// members admits machines as the coordinator does.
type members struct {
	ca           *pki.Authority
	coordinators map[string]bool
}

func (m *members) Certify(node pki.Node, csr []byte, hosts ...string) ([]byte, error) {
	return m.ca.IssueCSR(csr, pki.Request{Identity: node, Hosts: hosts, Validity: pki.NodeValidity}, time.Now())
}

func (m *members) Admit(node pki.Node, _ string, csr []byte) (*claryv1.JoinResponse, error) {
	certificate, err := m.Certify(node, csr)
	return &claryv1.JoinResponse{CertificatePem: certificate, CaPem: m.ca.CertPEM()}, err
}

func (m *members) IsCoordinator(id string) bool { return m.coordinators[id] }
func (m *members) Info() *claryv1.ClusterInfo   { return &claryv1.ClusterInfo{Id: "c1", Leader: "c1"} }
func (m *members) Pin() string                  { return m.ca.Pin() }

// keys are those of the first day.
type keys struct{ rpc.Warden }

func (keys) Bundle() *claryv1.TrustBundle { return &claryv1.TrustBundle{} }
func (keys) Changed() <-chan struct{}     { return nil }
func (keys) Stage([]byte) error           { return fault.New(fault.Invalid, "no keyring") }
func (keys) Fetch(string) ([]byte, error) { return nil, fault.New(fault.NotFound, "no keyring") }

func (keys) Status() *claryv1.KeyStatusResponse { return &claryv1.KeyStatusResponse{} }

func (keys) Show(context.Context) (cluster.Trust, []warden.Member, error) {
	return cluster.Trust{}, nil, fault.New(fault.Unready, "nobody shows keys")
}

func (keys) Rotate(context.Context, cluster.Rotation, cluster.Phase, string, bool) error {
	return fault.New(fault.Unready, "nobody rotates keys")
}

type nobody struct{}

func (nobody) Conn(id string) (*grpc.ClientConn, error) {
	return nil, fault.New(fault.Unready, "%s cannot be found", id)
}

// inWorld runs a test in a bubble with a coordinator that leads.
func inWorld(t *testing.T, test func(*world)) {
	t.Helper()
	inWorldAt(t, command.Format, test)
}

// inWorldAt is a world in which a format of commands is in force.
func inWorldAt(t *testing.T, format int, test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, users: map[string]string{}, artifacts: registrytest.New(), format: format}
		w.open()
		test(w)
	})
}

func (w *world) open() {
	var err error
	if w.ca, err = pki.NewAuthority("test", time.Now()); err != nil {
		w.Fatal(err)
	}
	w.members = &members{ca: w.ca, coordinators: map[string]bool{"c1": true}}
	log := slog.New(slog.DiscardHandler)
	_, inmem := raft.NewInmemTransport("c1")
	w.replica, err = replica.Open(replica.Config{ID: "c1", Dir: w.TempDir(), Transport: inmem, Bootstrap: true, Logger: log})
	if err != nil {
		w.Fatal(err)
	}
	listener, err := w.net.Host(server).Listen(server + port)
	if err != nil {
		w.Fatal(err)
	}
	mux := alpn.New(listener, pki.ServerTLS(w.certified(pki.Node{Role: pki.Coordinator, ID: "c1"})), log, alpn.GRPC, transport.ProtocolRaft)
	nodes := rpc.NewNodeCache(w.replica)
	keeping, planning := keeper.New(w.replica, nodes.List, log), planner.New(w.replica, log)
	kinds := map[cluster.Kind]workload.Kind{cluster.KindTraining: training.Kind{}, cluster.KindTuning: tuning.Kind{}, cluster.KindEndpoint: endpoint.Kind{}}
	desk, reconciling := sweeps.New(w.replica, kinds, log), reconciler.New(w.replica, kinds, nil, log)
	beats := rpc.NewBeats(func(_ context.Context, ids []string) ([]string, error) { return keeping.Beat(ids) }, log)
	board, audit, abreast := rpc.NewSwitchboard(w.replica), rpc.NewAuditor(w.replica, log), rpc.NewAbreast(standing{w.replica, &w.still}, log)
	w.guard = &rpc.Guard{ID: "c1", Replica: w.replica, Now: time.Now, Audit: audit, Abreast: abreast, Log: log}
	grpcServer := grpc.NewServer(append(w.guard.Options(), grpc.Creds(alpn.Accepted()), grpc.MaxRecvMsgSize(member.MaxMessage))...)
	rpc.Register(grpcServer, rpc.Config{
		Replica: hearing{w.replica, &w.unheard}, Planner: planning, Keeper: keeping, Nodes: nodes, Beats: beats, Switchboard: board, Members: w.members, Log: log,
		Warden: keys{}, Routes: routes.New(w.replica, routes.OfEndpoint, log),
		Quorum: quorum.New(quorum.Config{ID: "c1", Version: "test", Replica: w.replica, Peers: nobody{}, StoreAt: func() (string, bool) { return "", false }, Log: log}),
		Desk:   desk, Kinds: kinds, Traffic: &w.traffic, Coordinators: nobody{}, Agents: &w.agents, Archive: w.logs.below,
		Artifacts: func() (rpc.Artifacts, error) { return w.artifacts, nil },
		Records: func() (disposal.Store, error) {
			if w.store != nil {
				return w.store, nil
			}
			return w.artifacts, nil
		},
		Signer: func(task cluster.Task, csr []byte) ([]byte, []byte, error) {
			identity := pki.Task{Job: task.Job, Gang: "main", Attempt: int(task.Attempt), Role: task.Role, Index: int(task.Index)}
			certificate, err := w.ca.IssueCSR(csr, pki.Request{Identity: identity, Validity: pki.NodeValidity}, time.Now())
			return certificate, w.ca.CertPEM(), err
		},
		Welcome: func() *claryv1.Welcome {
			return &claryv1.Welcome{Lease: int64(rpc.AgentLease), BeatEvery: int64(rpc.BeatEvery)}
		},
		Store: func() (*object.Client, error) {
			if w.store == nil {
				return nil, fault.New(fault.Unready, "no store")
			}
			return w.store, nil
		},
		Credentials: func(rpc.Identity) (*claryv1.CredentialsResponse, error) {
			if w.defect {
				panic("a defect")
			}
			return &claryv1.CredentialsResponse{}, nil
		},
	})
	w.served = grpcServer.GetServiceInfo()
	lead := func(ctx context.Context) error {
		return w.replica.RunAsLeader(ctx, func(ctx context.Context) error {
			var loops sync.WaitGroup
			loops.Go(func() { _ = keeping.Run(ctx) })
			loops.Go(func() { _ = planning.Run(ctx) })
			loops.Go(func() { _ = desk.Run(ctx) })
			loops.Go(func() { _ = reconciling.Run(ctx) })
			loops.Wait()
			return nil
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{mux.Run, w.replica.Run, beats.Run, board.Run, nodes.Run, audit.Run, abreast.Run, lead} {
		running.Go(func() {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				w.Error(err)
			}
		})
	}
	running.Go(func() { _ = grpcServer.Serve(mux.On(alpn.GRPC)) })
	w.Cleanup(func() { grpcServer.Stop(); cancel(); running.Wait(); inmem.Close(); time.Sleep(time.Minute) })
	w.propose(command.RaiseFormat{To: w.format})
	for _, role := range []string{cluster.RoleViewer, cluster.RoleUser, cluster.RoleAdmin} {
		w.users[role] = w.user("the-"+role, role)
	}
}

// user makes a user's token, and returns its text.
func (w *world) user(name, role string) string {
	w.Helper()
	token, secret, err := auth.NewUserToken(name, role, 0, time.Now())
	if err != nil {
		w.Fatal(err)
	}
	w.propose(command.Record{Changes: []command.Change{{Token: &token}}})
	return secret
}

func (w *world) propose(commands ...command.Command) {
	w.Helper()
	if _, err := w.replica.Propose(w.Context(), commands...); err != nil {
		w.Fatal(err)
	}
}

// certified is a new member with a certificate of the cluster's.
func (w *world) certified(identity pki.Identity) pki.Source {
	w.Helper()
	return certifiedBy(w.T, w.ca, identity)
}

func certifiedBy(t *testing.T, ca *pki.Authority, identity pki.Identity) pki.Source {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := ca.Issue(key.Public(), pki.Request{Identity: identity, Validity: pki.NodeValidity}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := member.Credentials(certificate, key, ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return credentials.Static()
}

// as connects a user (by role), a node ("agent n1", "coordinator c2") or nobody ("").
func (w *world) as(who string) *grpc.ClientConn {
	w.Helper()
	config := pki.PinnedTLS(w.ca.Pin(), "h2")
	var options []grpc.DialOption
	var role, id string
	if n, _ := fmt.Sscanf(who, "%s %s", &role, &id); n == 2 {
		config = pki.ClientTLS(w.certified(pki.Node{Role: role, ID: id}), pki.ExpectNode(pki.Coordinator), "h2")
	} else if who != "" {
		secret := w.users[who]
		if secret == "" {
			secret = who // a token's text
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer(secret)))
	}
	conn, err := grpc.NewClient("passthrough:///"+server+port, append(options,
		grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithContextDialer(w.net.Host(client).Dial))...)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = conn.Close() })
	return conn
}

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}
func (bearer) RequireTransportSecurity() bool { return true }

// submit asks for a job of one task in a user's name.
func (w *world) submit(who string, change func(*cluster.Job)) (*claryv1.SubmitResponse, error) {
	job := cluster.Job{Name: "digits", Kind: cluster.KindTraining, Spec: []byte(`{"program": {"command": ["true"]}}`)}
	if change != nil {
		change(&job)
	}
	answer, err := claryv1.NewJobsClient(w.as(who)).Submit(w.Context(), &claryv1.SubmitRequest{Job: wire.JobToProto(job)})
	return answer, wire.FromStatus(err)
}
