package rpc

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// link serves agents: what each should run, and what it says it runs.
type link struct {
	claryv1.UnimplementedAgentLinkServer
	replica Replica
	beats   *Beats
	board   *Switchboard
	welcome func() *claryv1.Welcome
	signer  TaskSigner
	sealer  Sealer
	members Members
	warden  Warden
	life    string // of the cluster
	log     *slog.Logger
}

type agentStream = grpc.BidiStreamingServer[claryv1.AgentMessage, claryv1.CoordinatorMessage]

// Connect holds one agent's stream. Two goroutines serve it: one reads what the agent
// says and puts it into the ledger, one sends what the node should run. Both write, so
// what is sent goes through one channel.
func (s *link) Connect(stream agentStream) error {
	ctx := stream.Context()
	who := caller(ctx)
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return fault.New(fault.Invalid, "message: an agent's first message is a hello")
	}
	if hello.GetLife() != s.life {
		return s.turnAway(stream, hello.GetLife())
	}
	if err := s.introduce(ctx, who.Name, hello); err != nil {
		if fault.Is(err, fault.Unready) { // the leader's disk is full, say: whoever tries again and again is not lost
			s.beats.add(who.Name)
		}
		return err
	}
	s.log.InfoContext(stream.Context(), "agent connected", "node", who.Name)
	defer s.log.InfoContext(stream.Context(), "agent disconnected", "node", who.Name)

	group, ctx := errgroup.WithContext(ctx)
	outgoing := make(chan *claryv1.CoordinatorMessage, 64)
	send := func(message *claryv1.CoordinatorMessage) error {
		select {
		case outgoing <- message:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if s.warden != nil {
		told := s.warden.Bundle().GetGeneration() // before the first welcome is made: what comes between is told again
		group.Go(func() error { return s.tellKeys(ctx, told, send) })
	}
	group.Go(func() error { return s.listen(ctx, who.Name, stream, send) })
	group.Go(func() error { return s.direct(ctx, who.Name, hello.GetHeld(), send) })
	group.Go(func() error { return pass(ctx, outgoing, stream) })
	if err := group.Wait(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// pass sends what comes until ctx ends, and then what is still there: an agent whose beat was not answered would send no
// other, and nobody would notice that the stream is over.
func pass(ctx context.Context, outgoing <-chan *claryv1.CoordinatorMessage, stream agentStream) error {
	done := ctx.Done()
	for {
		select {
		case message := <-outgoing:
			if err := stream.Send(message); err != nil {
				return err
			}
			continue
		case <-done:
		}
		if len(outgoing) == 0 {
			return ctx.Err()
		}
	}
}

// turnAway tells an agent of another life of the cluster of which this one is, and takes nothing of what it has: its tasks may
// have the names of others here. It comes again when it has forgotten them.
func (s *link) turnAway(stream agentStream, life string) error {
	welcome := &claryv1.Welcome{Life: s.life, Lease: int64(AgentLease), BeatEvery: int64(BeatEvery)}
	if err := stream.Send(&claryv1.CoordinatorMessage{Message: &claryv1.CoordinatorMessage_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	return fault.New(fault.Unready, "this coordinator is of %s, and the node of %s: an agent that knows of lives goes over by itself, an older one is to be upgraded",
		cluster.LifeText(s.life), cluster.LifeText(life))
}

// introduce puts the node into the ledger and takes over what it says of its tasks.
func (s *link) introduce(ctx context.Context, id string, hello *claryv1.Hello) error {
	node := wire.NodeFromProto(hello.GetNode())
	if node.ID != id {
		return fault.New(fault.Denied, "node.id: %q, but the certificate is that of %q", cluster.Clip(node.ID), id)
	}
	if node.Address == "" {
		if from, ok := peer.FromContext(ctx); ok {
			node.Address, _, _ = net.SplitHostPort(from.Addr.String())
		}
	}
	node.State, node.Key = cluster.NodeReady, caller(ctx).Key
	if err := node.Validate().Err(); err != nil {
		return fault.New(fault.Invalid, "node: %w", err)
	}
	if _, err := s.replica.Propose(ctx, command.PutNode{Node: node}); err != nil {
		return err
	}
	s.beats.add(id)
	return s.report(ctx, id, hello.GetHeld())
}

func (s *link) report(ctx context.Context, node string, held []*claryv1.Held) error {
	if len(held) == 0 {
		return nil
	}
	reports := make([]command.TaskReport, len(held))
	for i, task := range held {
		reports[i] = command.TaskReport{Task: task.GetTask(), Status: wire.TaskStatusFromProto(task.GetStatus())}
	}
	_, err := s.replica.Propose(ctx, command.ReportTasks{Node: node, Reports: reports})
	return err
}

// cached puts into the ledger what a node's cache holds, if it has told and if that is not there yet.
func (s *link) cached(ctx context.Context, node string, told *claryv1.CachedInputs) (heldBack bool, err error) {
	if told == nil {
		return false, nil
	}
	var p cluster.Problems
	cluster.CheckCached(&p, "beat.cached", told.GetDigests())
	if err := p.Err(); err != nil {
		return false, fault.New(fault.Invalid, "%w", err)
	}
	snapshot, err := s.replica.Read(ctx, true)
	if err != nil {
		return false, err
	}
	known, _ := snapshot.Node(node)
	snapshot.Close()
	if slices.Equal(known.Cached, told.GetDigests()) {
		return false, nil
	}
	_, err = s.replica.Propose(ctx, command.SetNodeCached{Node: node, Cached: told.GetDigests()})
	if errors.Is(err, command.ErrHeldBack) {
		return true, nil // it makes decisions better, and can wait
	}
	return false, err
}

// LowDisk is the taint of nodes whose agents say that their disk is low.
var LowDisk = cluster.Taint{Key: "clary.disk", Value: "low", Effect: cluster.EffectNoPlace}

// disk keeps new tasks off a node whose disk is low, if it tells how its disk is and if that is not there yet.
func (s *link) disk(ctx context.Context, id string, told *claryv1.NodeDisk) error {
	if told == nil {
		return nil
	}
	for try := 1; ; try++ {
		snapshot, err := s.replica.Read(ctx, false) // the node was introduced a moment ago
		if err != nil {
			return err
		}
		node, known := snapshot.Node(id)
		snapshot.Close()
		if !known || slices.Contains(node.Taints, LowDisk) == told.GetLow() {
			return nil
		}
		put, remove := []cluster.Taint{LowDisk}, []string(nil)
		if !told.GetLow() {
			put, remove = nil, []string{LowDisk.Key}
		}
		_, err = s.replica.Propose(ctx, command.SetNodeTaints{Node: id, Taints: cluster.ChangeTaints(node.Taints, put, remove), Expect: node.Revision})
		if !fault.Is(err, fault.Conflict) || try == changeTries {
			return err
		}
	}
}

// listen puts the agent's reports into the ledger, in order, and acknowledges each beat
// when it is durable.
func (s *link) listen(ctx context.Context, node string, stream agentStream, send func(*claryv1.CoordinatorMessage) error) error {
	var owed *claryv1.CachedInputs // what was held back: an agent does not tell again what was acknowledged
	for ctx.Err() == nil {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		beat := message.GetBeat()
		if beat == nil {
			return fault.New(fault.Invalid, "message: after its hello an agent sends beats only")
		}
		if again := s.beats.add(node); again {
			return fault.New(fault.Unready, "node %s was declared lost: connect again", node)
		}
		if err := s.report(ctx, node, beat.GetChanged()); err != nil {
			return err
		}
		owed = cmp.Or(beat.GetCached(), owed)
		heldBack, err := s.cached(ctx, node, owed)
		if err != nil {
			return err
		}
		if !heldBack {
			owed = nil
		}
		if err := s.disk(ctx, node, beat.GetDisk()); err != nil {
			return err
		}
		ack := &claryv1.Ack{Sequence: beat.GetSequence(), LeaseRenewed: s.beats.renewed(node)}
		if err := send(&claryv1.CoordinatorMessage{Message: &claryv1.CoordinatorMessage_Ack{Ack: ack}}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// tellKeys welcomes the agent anew whenever the cluster's keys are of another generation than it was told.
func (s *link) tellKeys(ctx context.Context, told uint64, send func(*claryv1.CoordinatorMessage) error) error {
	for {
		changed := s.warden.Changed()
		if now := s.warden.Bundle().GetGeneration(); now != told {
			told = now
			if err := send(&claryv1.CoordinatorMessage{Message: &claryv1.CoordinatorMessage_Welcome{Welcome: s.welcome()}}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// direct tells the node all that it should run, then what changes of it.
func (s *link) direct(ctx context.Context, node string, held []*claryv1.Held, send func(*claryv1.CoordinatorMessage) error) error {
	events := s.board.connect(node)
	defer events.close()
	if err := send(&claryv1.CoordinatorMessage{Message: &claryv1.CoordinatorMessage_Welcome{Welcome: s.welcome()}}); err != nil {
		return err
	}
	told, ids := newDirector(node), taskIDs(held)
	changes, whole := []state.Change(nil), true
	for {
		desired, err := s.desired(ctx, told, ids, changes, whole)
		if err != nil {
			return err
		}
		if desired != nil {
			if err := send(&claryv1.CoordinatorMessage{Message: &claryv1.CoordinatorMessage_Desired{Desired: desired}}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-events.rung:
		}
		var open bool
		if changes, whole, open = events.take(); !open {
			return fault.New(fault.Unready, "this coordinator is stopping: connect to another")
		}
		if whole {
			ids = slices.Collect(maps.Keys(told.told))
		}
	}
}

func taskIDs(held []*claryv1.Held) []string {
	ids := make([]string, len(held))
	for i, task := range held {
		ids[i] = task.GetTask()
	}
	return ids
}

func (s *link) desired(ctx context.Context, told *director, held []string, changes []state.Change, whole bool) (*claryv1.Desired, error) {
	if !whole && !told.concerned(changes) {
		return nil, nil
	}
	// What is whole takes away all that it does not name, so it must not be older than what
	// another coordinator has told the node: a follower may be behind.
	snapshot, err := s.replica.Read(ctx, !whole)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	if whole {
		return told.all(snapshot, held), nil
	}
	return told.changed(snapshot, changes), nil
}

// SignTask certifies a task's key for the node that the task is allocated to.
func (s *link) SignTask(ctx context.Context, request *claryv1.SignTaskRequest) (*claryv1.SignTaskResponse, error) {
	snapshot, err := s.replica.Read(ctx, true)
	if err != nil {
		return nil, err
	}
	task, ok := snapshot.Task(request.GetTask())
	snapshot.Close()
	node := caller(ctx).Name
	if !ok || task.Allocation.Node != node || task.Status.State.Ended() {
		return nil, fault.New(fault.Denied, "task: %q does not run on node %s", cluster.Clip(request.GetTask()), node)
	}
	certificate, ca, err := s.signer(task, request.GetCsr())
	if err != nil {
		return nil, err
	}
	return &claryv1.SignTaskResponse{CertificatePem: certificate, CaPem: ca}, nil
}

// Renew certifies the calling node anew. One that was removed has to join again.
func (s *link) Renew(ctx context.Context, request *claryv1.RenewRequest) (*claryv1.RenewResponse, error) {
	snapshot, err := s.replica.Read(ctx, true)
	if err != nil {
		return nil, err
	}
	id := caller(ctx).Name
	_, member := snapshot.Node(id)
	snapshot.Close()
	if !member {
		return nil, fault.New(fault.Denied, "node %s is not a member any more: join again with a new token", id)
	}
	certificate, err := s.members.Certify(pki.Node{Role: pki.Agent, ID: id}, request.GetCsr())
	if err != nil {
		return nil, err
	}
	return &claryv1.RenewResponse{CertificatePem: certificate}, nil
}
