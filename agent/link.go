package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/gossip"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// reconnectEvery is how long an agent waits, at most, before it tries the next
// coordinator.
const reconnectEvery = time.Second

// keepLinked holds a connection to one coordinator after the other until ctx ends.
func (a *agent) keepLinked(ctx context.Context) error {
	said := map[string]string{} // by address: what was logged of it last
	for try := 0; ; try++ {
		addresses := a.coordinators(true)
		address := addresses[try%len(addresses)]
		err := a.connect(ctx, address)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		level := slog.LevelDebug // the same again: once is enough
		if reason := fmt.Sprint(err); said[address] != reason {
			said[address], level = reason, slog.LevelWarn
		}
		a.log.Log(ctx, level, "no connection to a coordinator now", "at", address, "error", explained(err, a.config.ID))
		wait := reconnectEvery/4 + rand.N(reconnectEvery/4)
		if len(addresses) > 1 && try%len(addresses) != len(addresses)-1 {
			wait /= 10 // there are others to try first
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// explained says of a handshake that a coordinator refuses what may be the reason: TLS has no words for it.
func explained(err error, id string) error {
	if err == nil || !strings.Contains(err.Error(), "tls: bad certificate") {
		return err
	}
	return fmt.Errorf("%w: this node's certificate is not accepted there: clary nodes %s says whether it was revoked; if so it joins anew, with an empty data folder and a new token", err, id)
}

// coordinators lists where coordinators may be: what gossip says first, then what was noted when this agent joined. Those of
// other lives of the cluster come after those of its own, or not at all.
func (a *agent) coordinators(strangers bool) []string {
	var addresses, others []string
	life := a.life.is()
	for _, known := range a.gossip.Members() {
		switch {
		case known.Role != gossip.Coordinator:
		case known.Life == life:
			addresses = append(addresses, known.RPC)
		default:
			others = append(others, known.RPC)
		}
	}
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	noted := a.self.notes.Coordinators
	if a.config.Join != "" { // where it has joined, or where the operator says that the cluster is now
		noted = append(slices.Clone(noted), a.config.Join)
	}
	if strangers {
		noted = slices.Concat(others, noted)
	}
	for _, address := range noted {
		if !slices.Contains(addresses, address) && (strangers || !slices.Contains(others, address)) {
			addresses = append(addresses, address)
		}
	}
	return addresses
}

type coordinatorStream = grpc.BidiStreamingClient[claryv1.AgentMessage, claryv1.CoordinatorMessage]

// link is one connection to one coordinator.
type link struct {
	agent     *agent
	conn      *grpc.ClientConn
	with      tls.ConnectionState // who the coordinator is
	hangUp    func()
	client    claryv1.AgentLinkClient
	stream    coordinatorStream
	acks      chan *claryv1.Ack
	every     time.Duration // between beats
	lease     time.Duration
	reported  uint64            // version of the supervisor's answers that the ledger has for sure
	cached    told              // what the ledger knows of the cache
	disk      *claryv1.NodeDisk // what it was told of the disk
	unrenewed string            // why exclusive tasks have no new lease
	// directed: the node has been told all that it should run. Only from then on a lease counts: a
	// node that was lost has one again with its first beat, and may run what runs elsewhere by now.
	directed atomic.Bool
}

// connect introduces this node to a coordinator and follows it until the connection
// ends.
func (a *agent) connect(ctx context.Context, address string) error {
	conn, err := member.Dial(a.config.network(), address, a.self.credentials.Get, pki.ExpectNode(pki.Coordinator))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	group, ctx := errgroup.WithContext(ctx)
	l := &link{agent: a, conn: conn, hangUp: hangUp, client: claryv1.NewAgentLinkClient(conn), acks: make(chan *claryv1.Ack, 16)}
	if l.stream, err = l.client.Connect(ctx); err != nil {
		return wire.FromStatus(err)
	}
	if err := l.hello(ctx); err != nil {
		return wire.FromStatus(err)
	}
	if from, ok := peer.FromContext(l.stream.Context()); ok {
		if secured, ok := from.AuthInfo.(credentials.TLSInfo); ok {
			l.with = secured.State
		}
	}
	a.setLink(l)
	defer a.setLink(nil)
	if err := a.self.credentials.Get().Trust.Admits(l.with); err != nil { // revoked since the handshake: heed has not seen this link
		return err
	}
	group.Go(func() error { return l.follow(ctx) })
	group.Go(func() error { return l.beat(ctx) })
	return wire.FromStatus(group.Wait())
}

func (a *agent) setLink(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.link = l
}

// setLease notes until when this node counts as alive for sure.
func (a *agent) setLease(until time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lease = until
}

// leaseLeft is how long exclusive tasks may run on.
func (a *agent) leaseLeft() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(time.Until(a.lease), 0)
}

// hello says all that this node is and has, and waits for the welcome.
func (l *link) hello(ctx context.Context) error {
	held, version := l.agent.tasks.Held()
	node := l.agent.machine.node(ctx)
	node.LogsAddr = l.agent.portAddress()
	node.Cached = l.cached.all(l.agent.cache)
	hello := &claryv1.Hello{Node: wire.NodeToProto(node), Held: heldToProto(held), Life: l.agent.life.is()}
	if err := l.stream.Send(&claryv1.AgentMessage{Message: &claryv1.AgentMessage_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	message, err := l.stream.Recv()
	if err != nil {
		return err
	}
	welcome := message.GetWelcome()
	if welcome == nil {
		return fault.New(fault.Internal, "a coordinator's first message is not a welcome")
	}
	if other := welcome.GetLife(); other != hello.GetLife() {
		return l.agent.meet(ctx, other)
	}
	l.reported, l.every, l.lease = version, time.Duration(welcome.GetBeatEvery()), time.Duration(welcome.GetLease())
	if l.every <= 0 || l.lease <= 0 {
		return fault.New(fault.Internal, "welcome: beats every %s for a lease of %s", l.every, l.lease)
	}
	l.agent.log.Info("connected to a coordinator", "tasks", len(held))
	if err := l.agent.life.welcomed(); err != nil {
		return err
	}
	return l.welcomed(welcome)
}

// welcomed takes what a coordinator says of the cluster.
func (l *link) welcomed(welcome *claryv1.Welcome) error {
	if err := l.agent.learn(welcome.GetTrust()); err != nil {
		return err
	}
	return l.agent.store.learn(welcome.GetObjectStore())
}

// follow does what the coordinator says.
func (l *link) follow(ctx context.Context) error {
	for {
		message, err := l.stream.Recv()
		if err != nil {
			return err
		}
		switch said := message.GetMessage().(type) {
		case *claryv1.CoordinatorMessage_Desired:
			if err := l.obey(said.Desired); err != nil {
				return err
			}
		case *claryv1.CoordinatorMessage_Ack:
			select {
			case l.acks <- said.Ack:
			case <-ctx.Done():
				return ctx.Err()
			}
		case *claryv1.CoordinatorMessage_Welcome:
			if err := l.welcomed(said.Welcome); err != nil {
				return err
			}
		}
	}
}

func (l *link) obey(desired *claryv1.Desired) error {
	assignments := make([]ledger.Assignment, len(desired.GetAssignments()))
	for i, assigned := range desired.GetAssignments() {
		hosts := map[string][]string{}
		for role, list := range assigned.GetHosts() {
			hosts[role] = list.GetHosts()
		}
		assignments[i] = ledger.Assignment{
			Task: wire.TaskFromProto(assigned.GetTask()), Program: wire.ProgramFromProto(assigned.GetProgram()), Hosts: hosts,
			MaxRuntime: time.Duration(assigned.GetMaxRuntime()), RestoreFrom: assigned.GetRestoreFrom(), Elastic: assigned.GetElastic(),
			Queue: assigned.GetQueue(), Hold: assigned.GetHold(),
			Stop: assigned.GetStop(), StopReason: assigned.GetStopReason(),
		}
	}
	err := l.agent.tasks.Desired(desired.GetWhole(), assignments, desired.GetGone())
	if err == nil && desired.GetWhole() {
		l.directed.Store(true)
	}
	return err
}

// beat reports what changed, at once, and says that the node lives, now and then. One
// beat is on its way at a time: what changes meanwhile goes with the next.
func (l *link) beat(ctx context.Context) error {
	for sequence := uint64(1); ; sequence++ {
		changes, version := l.agent.tasks.Changes(l.reported)
		beat := &claryv1.Beat{Sequence: sequence, Changed: heldToProto(changes), Cached: l.cached.change(l.agent.cache), Disk: l.agent.shelf.change(&l.disk)}
		if err := l.stream.Send(&claryv1.AgentMessage{Message: &claryv1.AgentMessage_Beat{Beat: beat}}); err != nil {
			if errors.Is(err, io.EOF) {
				<-ctx.Done() // follow gets the reason
			}
			return err
		}
		sent := time.Now()
		if err := l.acknowledged(ctx, sequence, sent); err != nil {
			return err
		}
		l.reported = version
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.agent.tasks.Changed(version):
		case <-time.After(time.Until(sent.Add(l.every))):
		}
	}
}

// acknowledged waits until the beat is in the ledger. A coordinator that does not
// answer for a lease is given up.
func (l *link) acknowledged(ctx context.Context, sequence uint64, sent time.Time) error {
	timeout := time.After(l.lease)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timeout:
			return fault.New(fault.Unready, "the coordinator has not answered a beat for %s", l.lease)
		case ack := <-l.acks:
			if ack.GetSequence() != sequence {
				continue
			}
			if !ack.GetLeaseRenewed() || !l.directed.Load() {
				return nil
			}
			l.agent.life.goesOn()
			l.agent.setLease(sent.Add(l.lease))
			l.renew()
			return nil
		}
	}
}

// renew lets exclusive tasks run on. One whose lease cannot be written, since the disk is full, ends by its shim's clock: the connection is
// no part of that.
func (l *link) renew() {
	said := ""
	if err := l.agent.tasks.Renew(l.agent.leaseLeft()); err != nil {
		said = err.Error()
	}
	if said != "" && said != l.unrenewed {
		l.agent.log.Error("exclusive tasks are ended unless their leases can be written soon", "error", said)
	}
	l.unrenewed = said
}

func heldToProto(held []supervisor.Held) []*claryv1.Held {
	converted := make([]*claryv1.Held, len(held))
	for i, task := range held {
		converted[i] = &claryv1.Held{Task: task.Task, Status: wire.TaskStatusToProto(task.Status)}
	}
	return converted
}

// standing returns the connection to a coordinator, if there is one now.
func (a *agent) standing() (*link, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link == nil {
		return nil, fault.New(fault.Unready, "no connection to a coordinator now")
	}
	return a.link, nil
}

// renew keeps this node's certificate fresh.
func (a *agent) renew(ctx context.Context) error {
	renewal := member.Renewal{
		Current: a.self.credentials, Log: a.log,
		Save: func(now pki.Credentials) error { return now.Save(a.config.path(tlsFolder)) },
		Certify: func(ctx context.Context, csr []byte) ([]byte, error) {
			l, err := a.standing()
			if err != nil {
				return nil, err
			}
			answer, err := l.client.Renew(ctx, &claryv1.RenewRequest{Csr: csr})
			return answer.GetCertificatePem(), wire.FromStatus(err)
		},
	}
	return renewal.Run(ctx)
}

// secrets asks for what a task of this node may be given.
func (a *agent) secrets(ctx context.Context, task string) (map[string][]byte, error) {
	l, err := a.standing()
	if err != nil {
		return nil, fmt.Errorf("ask for the secrets of %s: %w", task, err)
	}
	answer, err := l.client.Secrets(ctx, &claryv1.TaskSecretsRequest{Task: task})
	if err != nil {
		return nil, fmt.Errorf("ask for the secrets of %s: %w", task, wire.FromStatus(err))
	}
	return answer.GetValues(), nil
}

// certify has a task's key certified through whatever connection stands.
func (a *agent) certify(ctx context.Context, task string, csr []byte) (certificate, ca []byte, err error) {
	l, err := a.standing()
	if err != nil {
		return nil, nil, fmt.Errorf("certify the key of %s: %w", task, err)
	}
	answer, err := l.client.SignTask(ctx, &claryv1.SignTaskRequest{Task: task, Csr: csr})
	if err != nil {
		return nil, nil, fmt.Errorf("certify the key of %s: %w", task, wire.FromStatus(err))
	}
	return answer.GetCertificatePem(), answer.GetCaPem(), nil
}
