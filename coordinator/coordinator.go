// Package coordinator is one of the machines that decide: it wires together the
// replicated state, the services, and the loops that run on whichever coordinator
// leads. What each part promises is in DESIGN.md and in the parts' own packages.
package coordinator

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/decisions"
	"github.com/clary-ml/clary/coordinator/disposal"
	"github.com/clary-ml/clary/coordinator/drainer"
	"github.com/clary-ml/clary/coordinator/headroom"
	"github.com/clary-ml/clary/coordinator/janitor"
	"github.com/clary-ml/clary/coordinator/keeper"
	"github.com/clary-ml/clary/coordinator/planner"
	"github.com/clary-ml/clary/coordinator/quorum"
	"github.com/clary-ml/clary/coordinator/reconciler"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/routes"
	"github.com/clary-ml/clary/coordinator/rpc"
	"github.com/clary-ml/clary/coordinator/steward"
	"github.com/clary-ml/clary/coordinator/steward/steps"
	"github.com/clary-ml/clary/coordinator/sweeps"
	"github.com/clary-ml/clary/coordinator/telemetry"
	"github.com/clary-ml/clary/coordinator/transport"
	"github.com/clary-ml/clary/coordinator/warden"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/gossip"
	"github.com/clary-ml/clary/internal/steady"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/serving/ingress"
	"github.com/clary-ml/clary/storage/object/embedded"
	"github.com/clary-ml/clary/workload"
)

// AdminTokenFile is where the founding coordinator leaves the first admin's token, in
// its data folder.
const AdminTokenFile = "admin.token"

// callWorkers are goroutines kept for calls: a new one would first grow its stack, at
// every call. What comes beyond them gets a goroutine of its own.
const callWorkers = 512

// stopTime is how long calls in progress may go on when the coordinator stops.
const stopTime = 5 * time.Second

// Run is one coordinator, until ctx ends or it can no longer do its part.
func Run(ctx context.Context, c Config, kinds map[cluster.Kind]workload.Kind) error {
	if err := c.Validate().Err(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	self, err := enter(ctx, c)
	if err != nil {
		return err
	}
	node, err := assemble(ctx, c, self, kinds)
	if err != nil {
		return err
	}
	return node.run(ctx)
}

// coordinator is the parts of one coordinator.
type coordinator struct {
	config    Config
	self      membership
	log       *slog.Logger
	fatal     chan error // from the replica: it cannot go on
	out       chan error // why nobody believes this coordinator any more
	mux       *alpn.Mux
	gossip    *gossip.Gossip
	peers     *transport.Peers
	agents    *transport.Peers
	raft      *transport.Raft
	headroom  *headroom.Watch
	replica   *replica.Replica
	voting    *quorum.Desk
	store     *objectStore
	backups   *backups
	beats     *rpc.Beats
	audit     *rpc.Auditor
	guard     *rpc.Guard
	abreast   *rpc.Abreast
	clock     *steady.Clock // what decisions go by
	planner   *planner.Planner
	cleaning  *janitor.Janitor
	telemetry *telemetry.Telemetry
	board     *rpc.Switchboard
	record    *decisions.Recorder // nil: nothing is recorded
	nodes     *rpc.NodeCache
	routes    *routes.Feed
	steward   *steward.Steward
	router    *ingress.Server // nil if this coordinator takes no requests for endpoints
	warden    *warden.Warden
	cas       []*x509.Certificate // that are trusted; the warden's alone
	dropped   chan struct{}       // one of them is not any more
	stored    embedded.Tally      // what the embedded store has counted
	reload    chan struct{}       // the embedded store is to read its certificate again
	grpc      *grpc.Server
	leading   []func(context.Context) error // what runs on the leader only
}

// assemble opens ports and files and puts the parts together; run starts them.
func assemble(ctx context.Context, c Config, self membership, kinds map[cluster.Kind]workload.Kind) (*coordinator, error) {
	listener, err := c.network().Listen(c.Listen)
	if err != nil {
		return nil, fault.New(fault.Invalid, "--listen: %w", err)
	}
	source := pki.Source(self.credentials.Get)
	n := &coordinator{config: c, self: self, log: c.Log, clock: steady.New(), fatal: make(chan error, 1), out: make(chan error, 1), reload: make(chan struct{}, 1), dropped: make(chan struct{}, 1)}
	protocol := transport.RaftProtocol(n.life())
	n.mux = alpn.New(listener, pki.ServerTLS(source), c.Log, alpn.GRPC, protocol)
	if err := n.openRouter(ctx, source); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if err := n.openGossip(); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	n.peers = transport.NewPeers(c.network(), pki.Coordinator, n.life(), source, n.find)
	n.raft = transport.NewRaft(c.network(), n.mux.On(protocol), protocol, c.advertised(), source, n.find, c.Log)
	n.backups = &backups{node: n}
	n.telemetry = n.measure()
	if err := logIsThere(c); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if err := n.openHeadroom(); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	n.replica, err = replica.Open(replica.Config{
		Stored: n.telemetry.Appended, Now: n.clock.Now, Headroom: n.headroom,
		ID: c.ID, Dir: c.path("raft"), Peers: n.peers, Bootstrap: self.notes.Founder, Logger: c.Log,
		Transport: n.raft,
		Fatal:     func(err error) { n.fatal <- err },
		HeldBack:  func() string { return n.voting.HeldBack() },
	})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if err := logIsThere(c); err != nil { // it is now
		return nil, errors.Join(err, listener.Close())
	}
	n.voting = quorum.New(quorum.Config{ID: c.ID, Version: c.Version, Replica: n.replica, Peers: n.peers, StoreAt: n.storeAt, Disk: n.disk, Log: c.Log})
	n.serve(kinds, source)
	return n, nil
}

func (n *coordinator) openGossip() error {
	c := n.config
	self := gossip.Member{Role: gossip.Coordinator, ID: c.ID, RPC: c.advertised(), Life: n.life()}
	if n.self.servesStore() {
		self.Store = c.storeAddress()
	}
	if n.router != nil {
		self.Serve = n.router.URL()
	}
	_, port, _ := net.SplitHostPort(c.Gossip)
	var err error
	n.gossip, err = gossip.Start(gossip.Config{
		Self: self, Bind: c.Gossip, Advertise: advertiseGossip(c.advertisedHost(), port), Keys: n.self.keyring.Get().GossipKeys, Seeds: n.self.notes.Gossip, Log: c.Log,
		Transport: c.GossipTransport,
	})
	return err
}

// advertiseGossip is the gossip address that others use: memberlist takes IPs only, so
// that a host name is left to it to find out.
func advertiseGossip(host, port string) string {
	if net.ParseIP(host) == nil {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// find returns where a coordinator is, as gossip last heard.
func (n *coordinator) find(id string) string {
	found, _ := n.gossip.Find(gossip.Coordinator, id)
	return found.RPC
}

// serve makes the services and the leader's loops.
func (n *coordinator) serve(kinds map[cluster.Kind]workload.Kind, source pki.Source) {
	c := n.config
	store := &objectStore{self: n.self, gossip: n.gossip}
	n.store = store
	n.nodes = rpc.NewNodeCache(n.replica)
	n.agents = transport.NewPeers(c.network(), pki.Agent, n.life(), source, n.nodes.Address)
	n.openWarden()
	known := &members{config: n.config, self: n.self, replica: n.replica, gossip: n.gossip, store: store, warden: n.warden, lives: n.lives}
	keeping := keeper.New(n.replica, n.nodes.List, n.log)
	planning := planner.New(n.replica, n.log)
	n.planner = planning
	var copyDecisions func(to io.Writer, last bool) error
	if !c.NoDecisions {
		n.record = decisions.NewRecorder(c.path("decisions"), decisions.DefaultLimits, n.log)
		planning.Record(n.record)
		copyDecisions = n.record.Copy
	}
	reconciling := reconciler.New(n.replica, kinds, store, n.log)
	desk := sweeps.New(n.replica, kinds, n.log)
	n.cleaning = janitor.New(janitor.Config{
		Ledger: n.replica, Jobs: disposal.New(n.replica, func() (disposal.Store, error) { return store.open() }), Now: n.clock.Now, Log: n.log,
		Store: func() (janitor.Store, error) { return store.open() },
	})
	n.routes = routes.New(n.replica, routes.OfEndpoint, n.log)
	n.steward = steward.New(steward.Config{Ledger: n.replica, Live: n.liveRouters, Table: n.table, Measured: n.measured, Steps: steps.All(n.log), Log: n.log})
	draining := drainer.New(n.replica, n.nodes.List, n.log)
	planning.Now, reconciling.Now, desk.Now, draining.Now = n.clock.Now, n.clock.Now, n.clock.Now, n.clock.Now
	n.leading = []func(context.Context) error{n.voting.Run, keeping.Run, draining.Run, planning.Run, reconciling.Run, desk.Run, n.steward.Run, n.cleaning.Run, n.backups.Run}
	if n.router != nil { // else asynchronous requests wait for a leader that has one
		n.leading = append(n.leading, func(ctx context.Context) error { return n.router.Work(ctx, n.table) })
	}
	n.beats = rpc.NewBeats(n.passBeats(keeping), n.log)
	n.board = rpc.NewSwitchboard(n.replica)
	n.audit = rpc.NewAuditor(n.replica, n.log)
	n.abreast = rpc.NewAbreast(n.replica, n.log)
	n.guard = &rpc.Guard{ID: c.ID, Replica: n.replica, Now: time.Now, Audit: n.audit, Abreast: n.abreast, Observe: n.telemetry.Observe, Believes: func(state tls.ConnectionState) error { return source().Trust.Admits(state) }, Refuses: n.voting.Refuses, Life: n.life(), Log: n.log}
	n.grpc = grpc.NewServer(append(n.guard.Options(),
		grpc.Creds(alpn.Accepted()),
		grpc.MaxRecvMsgSize(member.MaxMessage),
		grpc.ConnectionTimeout(20*time.Second), // from the handshake to the first words of HTTP/2
		grpc.MaxConcurrentStreams(4096), grpc.NumStreamWorkers(callWorkers),
		grpc.StaticStreamWindowSize(member.Window), grpc.StaticConnWindowSize(4*member.Window),
		grpc.ReadBufferSize(4<<10), // of a connection that says nothing buffers are most
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 15 * time.Second, Timeout: 5 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)...)
	rpc.Register(n.grpc, rpc.Config{
		Replica: n.replica, Planner: planning, Keeper: keeping, Desk: desk, Janitor: n.cleaning, Kinds: kinds, Coordinators: n.peers, Agents: n.agents,
		Nodes: n.nodes, Beats: n.beats, Switchboard: n.board, Signer: n.signTask, Sealer: n.self.keyring, Store: store.open, Credentials: store.credentials, Members: known, Quorum: n.voting, Warden: n.warden, Log: n.log,
		Life: n.life(), Snapshot: n.takeSnapshot, Backups: n.backups,
		Traffic: n, Decisions: copyDecisions, Routes: n.routes, PassReports: n.passReports, TakeReports: n.steward.Report,
		Welcome: func() *claryv1.Welcome {
			return &claryv1.Welcome{
				ObjectStore: store.forMembers(), Coordinators: known.addresses(), Lease: int64(rpc.AgentLease), BeatEvery: int64(rpc.BeatEvery),
				Trust: n.warden.Bundle(), Life: n.life(),
			}
		},
	})
}

// passBeats hands beats to the keeper, which is wherever the leader is.
func (n *coordinator) passBeats(local *keeper.Keeper) func(context.Context, []string) ([]string, error) {
	return func(ctx context.Context, nodes []string) ([]string, error) {
		if n.replica.Leads() {
			return local.Beat(nodes)
		}
		conn, err := n.peers.Conn(n.replica.Leader())
		if err != nil {
			return nil, err
		}
		answer, err := claryv1.NewPeerClient(conn).Beats(ctx, &claryv1.BeatsRequest{Nodes: nodes})
		return answer.GetUnknown(), wire.FromStatus(err)
	}
}

// signTask certifies the key of a task for as long as tasks' certificates last.
func (n *coordinator) signTask(task cluster.Task, csr []byte) (certificate, ca []byte, err error) {
	_, gang, _ := strings.Cut(task.Gang, "/")
	identity := pki.Task{Job: task.Job, Gang: gang, Attempt: int(task.Attempt), Role: task.Role, Index: int(task.Index)}
	keys := n.self.keyring.Get()
	certificate, err = keys.Authority.IssueCSR(csr, pki.Request{Identity: identity, Validity: n.lives().Task}, time.Now())
	// What vouches for the CA goes with it: a gang's tasks may be certified before and after a change of CAs.
	return append(certificate, pki.CertsPEM(keys.Links...)...), pki.CertsPEM(keys.CAs()...), err
}

// run starts all parts and waits for all of them.
func (n *coordinator) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	defer n.peers.Close()
	defer n.agents.Close()
	for _, part := range []func(context.Context) error{n.mux.Run, n.gossip.Run, n.remember, n.replica.Run, n.headroom.Run, n.voting.WatchRoom, n.warden.Run, n.beats.Run, n.abreast.Run, n.board.Run, n.nodes.Run, n.routes.Run, n.audit.Run, n.operators().Run, n.serveGRPC, n.lead, n.settle, n.outlive, n.hangUpDropped} {
		group.Go(func() error { return part(ctx) })
	}
	if n.router != nil {
		group.Go(func() error { return n.router.Run(ctx) })
	}
	if n.record != nil {
		group.Go(func() error { return n.record.Run(ctx) })
	}
	if n.self.servesStore() {
		group.Go(func() error {
			return serveStore(ctx, n.config, n.self, n.replica, n.headroom, n.reload, &n.stored, n.log)
		})
	}
	group.Go(func() error { return n.self.renew(ctx, n.config, n.lives, n.reloadStore) })
	group.Go(func() error {
		select {
		case err := <-n.out:
			return n.noteRemoval(err)
		case err := <-n.fatal:
			return fmt.Errorf("this coordinator cannot follow the others any more: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	n.log.Info("coordinator started", "id", n.config.ID, "listen", n.config.advertised(), "gossip", n.gossip.Address(), "version", n.config.Version)
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (n *coordinator) serveGRPC(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		force := time.AfterFunc(stopTime, n.grpc.Stop)
		defer force.Stop()
		n.grpc.GracefulStop()
	})
	err := n.grpc.Serve(n.mux.On(alpn.GRPC))
	if stop() { // it ended by itself, or the mux heard of ctx's end first
		n.grpc.Stop()
		return cmp.Or(ctx.Err(), err)
	}
	<-stopped
	return ctx.Err() // the mux may have closed its side first, which is no error then
}

// lead runs the leader's loops whenever this coordinator leads.
func (n *coordinator) lead(ctx context.Context) error {
	return n.replica.RunAsLeader(ctx, func(ctx context.Context) error {
		n.log.Info("this coordinator leads", "id", n.config.ID)
		group, ctx := errgroup.WithContext(ctx)
		for _, loop := range n.leading {
			group.Go(func() error { return loop(ctx) })
		}
		return group.Wait()
	})
}

// settle does what a first start leaves to do once the state can be read: who joined asks to
// vote, the founder makes the admin's token and the system bucket. From then on it sees that
// this coordinator stays a member.
func (n *coordinator) settle(ctx context.Context) error {
	if err := n.retry(ctx, "become a voting member", n.becomeVoter); err != nil {
		return n.noteRemoval(err)
	}
	if n.self.notes.Founder {
		if err := n.retry(ctx, "make the admin's token", n.makeAdmin); err != nil {
			return err
		}
	}
	if n.self.servesStore() {
		if err := n.retry(ctx, "make the system bucket", n.makeBucket); err != nil {
			return err
		}
	}
	return n.stay(ctx)
}

// retry does a step until it succeeds or ctx ends. A refusal is final.
func (n *coordinator) retry(ctx context.Context, what string, step func(context.Context) error) error {
	for {
		err := step(ctx)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if fault.Is(err, fault.Denied) || fault.Is(err, fault.Invalid) {
			return fmt.Errorf("%s: %w", what, err)
		}
		n.log.Debug("not yet", "step", what, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// makeAdmin leaves a token for the first admin in a file, unless it was left before.
// The token is in the state before it is in the file: a crash in between leaves a token
// that nobody knows, and the next start makes another.
func (n *coordinator) makeAdmin(ctx context.Context) error {
	path := n.config.path(AdminTokenFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	token, secret, err := auth.NewUserToken("admin", cluster.RoleAdmin, 0, time.Now())
	if err != nil {
		return err
	}
	if _, err := n.replica.Propose(ctx, command.Record{Changes: []command.Change{{Token: &token}}}); err != nil {
		return err
	}
	if err := atomicfile.Write(path, []byte(secret+"\n"), 0o600); err != nil {
		return err
	}
	n.log.Info("this coordinator has founded a cluster; to use it: clary login ADDRESS --ca FILE --token-file FILE",
		"address", n.config.advertised(), "ca", n.config.path(tlsFolder, pki.CAFile), "token_file", path)
	return nil
}

// makeBucket makes the system bucket, so that programs that speak S3 find it before the
// first job has made anything.
func (n *coordinator) makeBucket(ctx context.Context) error {
	store, err := n.store.open()
	if err != nil {
		return err
	}
	return store.EnsureBucket(ctx, cluster.SystemBucket)
}
