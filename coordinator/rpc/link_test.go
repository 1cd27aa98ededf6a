package rpc_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// joining is a machine that asks to be let in.
func (w *world) joining(secret, role, id string, csr []byte) error {
	_, err := claryv1.NewAdminClient(w.as("")).Join(w.Context(), &claryv1.JoinRequest{Token: secret, Role: role, Id: id, Csr: csr, Address: "10.0.0.9"})
	return wire.FromStatus(err)
}

func (w *world) joinToken(role string, ttl time.Duration) string {
	w.Helper()
	token, secret, err := auth.NewJoinToken(role, w.ca.Pin(), ttl, time.Now())
	if err != nil {
		w.Fatal(err)
	}
	w.propose(command.Record{Changes: []command.Change{{Token: &token}}})
	return secret
}

func csr(t *testing.T) []byte {
	t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

func TestAMachineJoinsWithATokenOfItsOwn(t *testing.T) {
	inWorld(t, func(w *world) {
		first, second := csr(w.T), csr(w.T)
		agent, coordinator := w.joinToken(cluster.RoleAgent, time.Hour), w.joinToken(cluster.RoleCoordinator, time.Hour)
		expired := w.joinToken(cluster.RoleAgent, time.Second)
		_, unknown, err := auth.NewJoinToken(cluster.RoleAgent, w.ca.Pin(), time.Hour, time.Now())
		if err != nil {
			w.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		w.propose(command.PutNode{Node: cluster.Node{ID: "taken", Address: "10.0.0.8", State: cluster.NodeReady}})
		before := w.revision()
		for _, c := range []struct {
			name, token, role, id string
			csr                   []byte
			kind                  fault.Kind
			want                  string
		}{
			{"an unknown token", unknown, pki.Agent, "n1", first, fault.Denied, "not known here"},
			{"an expired token", expired, pki.Agent, "n1", first, fault.Denied, "expired"},
			{"a user's token", w.users[cluster.RoleAdmin], pki.Agent, "n1", first, fault.Denied, "join token"},
			{"rubbish", "let me in", pki.Agent, "n1", first, fault.Invalid, "not a whole token"},
			{"an agent's token for a coordinator", agent, pki.Coordinator, "c2", first, fault.Denied, "for joining as agent, not as coordinator"},
			{"a coordinator's token for an agent", coordinator, pki.Agent, "n1", first, fault.Denied, "for joining as coordinator, not as agent"},
			{"a role that is none", agent, "king", "n1", first, fault.Denied, "not as king"},
			{"the id of a node that is there", agent, pki.Agent, "taken", first, fault.Conflict, "choose another --id"},
			{"the id of a coordinator that is there", coordinator, pki.Coordinator, "c1", first, fault.Conflict, "choose another --id"},
			{"an id that is a path", agent, pki.Agent, "../../x", first, fault.Invalid, "id"},
			{"no key", agent, pki.Agent, "n1", nil, fault.Invalid, "certificate request"},
			{"a key that is rubbish", agent, pki.Agent, "n1", []byte("hello"), fault.Invalid, "certificate request"},
		} {
			err := w.joining(c.token, c.role, c.id, c.csr)
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				w.Errorf("%s: %v", c.name, err)
			}
		}
		if w.revision() != before {
			w.Error("a refusal has changed the state")
		}
		for range 2 { // an answer may get lost
			if err := w.joining(agent, pki.Agent, "n1", first); err != nil {
				w.Errorf("join: %v", err)
			}
		}
		if err := w.joining(agent, pki.Agent, "n2", second); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "already used by another machine") {
			w.Errorf("a token that another has used: %v", err)
		}
		if err := w.joining(coordinator, pki.Coordinator, "c2", second); err != nil {
			w.Errorf("a coordinator joins: %v", err)
		}
	})
}

// stream is an agent's connection.
type stream = grpc.BidiStreamingClient[claryv1.AgentMessage, claryv1.CoordinatorMessage]

func (w *world) connect(who string) stream {
	w.Helper()
	connected, err := claryv1.NewAgentLinkClient(w.as(who)).Connect(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	return connected
}

func hello(id string, held ...*claryv1.Held) *claryv1.AgentMessage {
	node := cluster.Node{ID: id, Address: "127.0.0.1", State: cluster.NodeReady, MilliCPU: 4000, Memory: 8 << 30}
	return &claryv1.AgentMessage{Message: &claryv1.AgentMessage_Hello{Hello: &claryv1.Hello{Node: wire.NodeToProto(node), Held: held}}}
}

func beat(sequence uint64, changed ...*claryv1.Held) *claryv1.AgentMessage {
	return &claryv1.AgentMessage{Message: &claryv1.AgentMessage_Beat{Beat: &claryv1.Beat{Sequence: sequence, Changed: changed}}}
}

func cachedHello(digests ...uint32) *claryv1.AgentMessage {
	message := hello("n1")
	message.GetHello().GetNode().Cached = digests
	return message
}

func cachedBeat(sequence uint64, digests ...uint32) *claryv1.AgentMessage {
	message := beat(sequence)
	message.GetBeat().Cached = &claryv1.CachedInputs{Digests: digests}
	return message
}

func TestWhatANodeHasInItsCacheIsPutDownOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		connected := w.connect("agent n1")
		_ = connected.Send(cachedHello(3, 9))
		acknowledged := func(sequence uint64) {
			w.Helper()
			for {
				message, err := connected.Recv()
				if err != nil {
					w.Fatal(err)
				}
				if message.GetAck().GetSequence() == sequence {
					return
				}
			}
		}
		holds := func(want ...uint32) (revision uint64) {
			w.Helper()
			snapshot, err := w.replica.Read(w.Context(), false)
			if err != nil {
				w.Fatal(err)
			}
			defer snapshot.Close()
			node, _ := snapshot.Node("n1")
			if !slices.Equal(node.Cached, want) {
				w.Errorf("it has %v, want %v", node.Cached, want)
			}
			return node.Revision
		}
		_ = connected.Send(beat(1))
		acknowledged(1)
		first := holds(3, 9)
		_ = connected.Send(cachedBeat(2, 3, 9))
		acknowledged(2)
		if again := holds(3, 9); again != first {
			w.Errorf("the same again makes revision %d of %d", again, first)
		}
		_ = connected.Send(cachedBeat(3, 4))
		acknowledged(3)
		holds(4)
		_ = connected.Send(beat(4)) // which tells nothing of it
		acknowledged(4)
		holds(4)
		_ = connected.Send(cachedBeat(5))
		acknowledged(5)
		holds()
	})
}

// While an older build takes part the log takes no such entry; an agent does not tell again what was acknowledged.
func TestWhatANodeHasInItsCacheIsPutDownWhenItsFormatComesIntoForce(t *testing.T) {
	inWorldAt(t, 0, func(w *world) {
		connected := w.connect("agent n1")
		_ = connected.Send(hello("n1"))
		tells := func(message *claryv1.AgentMessage) []uint32 {
			w.Helper()
			_ = connected.Send(message)
			for acknowledged := false; !acknowledged; {
				answer, err := connected.Recv()
				if err != nil {
					w.Fatal(err)
				}
				acknowledged = answer.GetAck().GetSequence() == message.GetBeat().GetSequence()
			}
			snapshot, err := w.replica.Read(w.Context(), false)
			if err != nil {
				w.Fatal(err)
			}
			defer snapshot.Close()
			node, _ := snapshot.Node("n1")
			return node.Cached
		}
		tells(cachedBeat(1, 3, 9))
		if got := tells(cachedBeat(2, 4)); len(got) > 0 {
			w.Errorf("format 0 takes %v", got)
		}
		w.propose(command.RaiseFormat{To: command.Format})
		if got := tells(beat(3)); !slices.Equal(got, []uint32{4}) {
			w.Errorf("once it is taken the node has %v", got)
		}
		before := w.revision()
		tells(beat(4))
		if w.revision() != before {
			w.Error("it is put down again")
		}
	})
}

func TestANodeWhoseDiskIsLowHasATaintAsLongAsItIs(t *testing.T) {
	inWorld(t, func(w *world) {
		connected := w.connect("agent n1")
		_ = connected.Send(hello("n1"))
		sequence := uint64(0)
		tells := func(disk *claryv1.NodeDisk) {
			w.Helper()
			sequence++
			message := beat(sequence)
			message.GetBeat().Disk = disk
			_ = connected.Send(message)
			for {
				message, err := connected.Recv()
				if err != nil {
					w.Fatal(err)
				}
				if message.GetAck().GetSequence() == sequence {
					return
				}
			}
		}
		has := func(want ...string) (revision uint64) {
			w.Helper()
			snapshot, err := w.replica.Read(w.Context(), false)
			if err != nil {
				w.Fatal(err)
			}
			defer snapshot.Close()
			node, _ := snapshot.Node("n1")
			var taints []string
			for _, taint := range node.Taints {
				taints = append(taints, taint.String())
			}
			if !slices.Equal(taints, want) {
				w.Errorf("it has the taints %q, not %q", taints, want)
			}
			return node.Revision
		}
		tells(nil) // as older builds do
		has()
		tells(&claryv1.NodeDisk{})
		has()
		if _, err := w.replica.Propose(w.Context(), command.SetNodeTaints{Node: "n1", Taints: []cluster.Taint{{Key: "team", Value: "vision", Effect: cluster.EffectNoPlace}}}); err != nil {
			w.Fatal(err)
		}
		tells(&claryv1.NodeDisk{Low: true})
		first := has("clary.disk=low:no-place", "team=vision:no-place")
		tells(&claryv1.NodeDisk{Low: true})
		if again := has("clary.disk=low:no-place", "team=vision:no-place"); again != first {
			w.Errorf("the same again makes revision %d of %d", again, first)
		}
		tells(&claryv1.NodeDisk{})
		has("team=vision:no-place")
	})
}

func TestAnAgentThatDoesNotKeepToTheProtocolIsToldSo(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, c := range []struct {
			name string
			says []*claryv1.AgentMessage
			kind fault.Kind
			want string
		}{
			{"another node's hello", []*claryv1.AgentMessage{hello("n2")}, fault.Denied, `the certificate is that of "n1"`},
			{"a beat before the hello", []*claryv1.AgentMessage{beat(1)}, fault.Invalid, "first message is a hello"},
			{"an empty message", []*claryv1.AgentMessage{{}}, fault.Invalid, "first message is a hello"},
			{"a hello of nobody", []*claryv1.AgentMessage{{Message: &claryv1.AgentMessage_Hello{Hello: &claryv1.Hello{}}}}, fault.Denied, "the certificate"},
			{"a hello with a cache out of order", []*claryv1.AgentMessage{cachedHello(9, 3)}, fault.Invalid, "00000003 comes after 00000009"},
			{"a cache out of order", []*claryv1.AgentMessage{hello("n1"), cachedBeat(1, 9, 3)}, fault.Invalid, "beat.cached: 00000003 comes after 00000009"},
			{"a cache of too much", []*claryv1.AgentMessage{hello("n1"), cachedBeat(1, make([]uint32, 513)...)}, fault.Invalid, "beat.cached: 513 inputs: at most 512"},
			{"two hellos", []*claryv1.AgentMessage{hello("n1"), hello("n1")}, fault.Invalid, "beats only"},
		} {
			connected := w.connect("agent n1")
			for _, message := range c.says {
				_ = connected.Send(message)
			}
			var err error
			for err == nil {
				_, err = connected.Recv()
			}
			if err = wire.FromStatus(err); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				w.Errorf("%s: %v", c.name, err)
			}
		}
	})
}

func TestAnAgentOfAnotherLifeIsToldSoAndNothingOfItIsTaken(t *testing.T) {
	inWorld(t, func(w *world) {
		connected := w.connect("agent n1")
		strange := hello("n1", &claryv1.Held{Task: "j/main/worker-0.1", Status: &claryv1.TaskStatus{State: "running"}})
		strange.GetHello().Life = "00000000ff-other"
		_ = connected.Send(strange)
		message, err := connected.Recv()
		if err != nil || message.GetWelcome() == nil || message.GetWelcome().GetLife() != "" {
			w.Fatalf("%v, %v", message, err)
		}
		if _, err = connected.Recv(); !fault.Is(wire.FromStatus(err), fault.Unready) || !strings.Contains(err.Error(), "this coordinator is of the first life of the cluster") {
			w.Errorf("it ends with %v", err)
		}
		snapshot, err := w.replica.Read(w.Context(), false)
		if err != nil {
			w.Fatal(err)
		}
		defer snapshot.Close()
		if node, known := snapshot.Node("n1"); known {
			w.Errorf("it was put down: %+v", node)
		}
	})
}

func TestACoordinatorOfAnotherLifeIsAnsweredNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		peer := claryv1.NewPeerClient(w.as("coordinator c1"))
		if _, err := peer.ReadIndex(w.Context(), &claryv1.ReadIndexRequest{}); err != nil {
			w.Fatal(err)
		}
		later := metadata.AppendToOutgoingContext(w.Context(), "clary-life", "00000000ff-later")
		if _, err := peer.ReadIndex(later, &claryv1.ReadIndexRequest{}); !fault.Is(wire.FromStatus(err), fault.Unready) || !strings.Contains(err.Error(), "stop this one") {
			w.Errorf("one of a later life: %v", err)
		}
		w.guard.Life = "00000000ff-later"
		if _, err := peer.ReadIndex(w.Context(), &claryv1.ReadIndexRequest{}); !fault.Is(wire.FromStatus(err), fault.Denied) || !strings.Contains(err.Error(), "join it anew") {
			w.Errorf("one of a former life: %v", err)
		}
		if _, err := peer.ReadIndex(later, &claryv1.ReadIndexRequest{}); err != nil {
			w.Errorf("one of the same life: %v", err)
		}
	})
}

// placed submits a job of so many tasks and returns when they are placed.
func (w *world) placed(name string, node string) cluster.Task {
	w.Helper()
	if _, err := w.submit(cluster.RoleUser, func(j *cluster.Job) { j.Name = name }); err != nil {
		w.Fatal(err)
	}
	for range 100 {
		snapshot, err := w.replica.Read(w.Context(), false)
		if err != nil {
			w.Fatal(err)
		}
		for task := range snapshot.TasksOn(node) {
			if task.Job == name {
				snapshot.Close()
				return task
			}
		}
		snapshot.Close()
		time.Sleep(100 * time.Millisecond)
	}
	w.Fatalf("%s is not placed", name)
	return cluster.Task{}
}

func TestANodeIsToldItsTasksAndItsReportsArePutDown(t *testing.T) {
	inWorld(t, func(w *world) {
		connected := w.connect("agent n1")
		if err := connected.Send(hello("n1")); err != nil {
			w.Fatal(err)
		}
		if first, err := connected.Recv(); err != nil || first.GetWelcome().GetLease() <= 0 {
			w.Fatalf("the first message is %v, %v", first, err)
		}
		if second, err := connected.Recv(); err != nil || !second.GetDesired().GetWhole() || len(second.GetDesired().GetAssignments()) > 0 {
			w.Fatalf("the second message is %v, %v", second, err)
		}
		task := w.placed("digits", "n1")
		told, err := connected.Recv()
		if err != nil || told.GetDesired().GetWhole() || len(told.GetDesired().GetAssignments()) != 1 || told.GetDesired().GetAssignments()[0].GetTask().GetId() != task.ID {
			w.Fatalf("told %v, %v", told, err)
		}
		running := &claryv1.Held{Task: task.ID, Status: wire.TaskStatusToProto(cluster.TaskStatus{State: cluster.TaskRunning, Started: 5})}
		if err := connected.Send(beat(7, running)); err != nil {
			w.Fatal(err)
		}
		if ack, err := connected.Recv(); err != nil || ack.GetAck().GetSequence() != 7 {
			w.Fatalf("acknowledged with %v, %v", ack, err)
		}
		time.Sleep(3 * time.Second) // the leader takes the beat
		_ = connected.Send(beat(8))
		if ack, err := connected.Recv(); err != nil || ack.GetAck().GetSequence() != 8 || !ack.GetAck().GetLeaseRenewed() {
			w.Fatalf("acknowledged with %v, %v", ack, err)
		}
		snapshot, err := w.replica.Read(w.Context(), false)
		if err != nil {
			w.Fatal(err)
		}
		now, _ := snapshot.Task(task.ID)
		snapshot.Close()
		if now.Status.State != cluster.TaskRunning || now.Status.Started != 5 {
			w.Errorf("put down: %+v", now.Status)
		}
	})
}

func TestOnlyTheNodeOfATaskGetsItsKeyCertified(t *testing.T) {
	inWorld(t, func(w *world) {
		w.propose(command.PutNode{Node: cluster.Node{ID: "n1", Address: "10.0.0.9", State: cluster.NodeReady, MilliCPU: 4000, Memory: 8 << 30}})
		task := w.placed("digits", "n1")
		sign := func(who, id string, csr []byte) error {
			_, err := claryv1.NewAgentLinkClient(w.as(who)).SignTask(w.Context(), &claryv1.SignTaskRequest{Task: id, Csr: csr})
			return wire.FromStatus(err)
		}
		if err := sign("agent n1", task.ID, csr(w.T)); err != nil {
			w.Errorf("its own node: %v", err)
		}
		if err := sign("agent n1", task.ID, []byte("rubbish")); !fault.Is(err, fault.Invalid) {
			w.Errorf("rubbish: %v", err)
		}
		for name, err := range map[string]error{
			"another node":  sign("agent n2", task.ID, csr(w.T)),
			"no such task":  sign("agent n1", "digits/main/worker-9.1", csr(w.T)),
			"a coordinator": sign("coordinator c2", task.ID, csr(w.T)),
			"an admin":      sign(cluster.RoleAdmin, task.ID, csr(w.T)),
		} {
			if !fault.Is(err, fault.Denied) {
				w.Errorf("%s: %v", name, err)
			}
		}
		ended := cluster.TaskStatus{State: cluster.TaskSucceeded}
		w.propose(command.ReportTasks{Node: "n1", Reports: []command.TaskReport{{Task: task.ID, Status: ended}}})
		if err := sign("agent n1", task.ID, csr(w.T)); !fault.Is(err, fault.Denied) {
			w.Errorf("after its end: %v", err)
		}
	})
}

func TestANodeRenewsItsOwnCertificateWhileItIsAMember(t *testing.T) {
	inWorld(t, func(w *world) {
		renew := func(who string) (*claryv1.RenewResponse, error) {
			answer, err := claryv1.NewAgentLinkClient(w.as(who)).Renew(w.Context(), &claryv1.RenewRequest{Csr: csr(w.T)})
			return answer, wire.FromStatus(err)
		}
		if _, err := renew("agent n1"); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "join again") {
			w.Errorf("a node that was removed: %v", err)
		}
		w.propose(command.PutNode{Node: cluster.Node{ID: "n1", Address: "10.0.0.9", State: cluster.NodeReady}})
		answer, err := renew("agent n1")
		if err != nil {
			w.Fatal(err)
		}
		cert, err := pki.ParseCertificate(answer.GetCertificatePem())
		if err != nil {
			w.Fatal(err)
		}
		if id, err := pki.IdentityOf(cert); err != nil || id != (pki.Node{Role: pki.Agent, ID: "n1"}) {
			w.Errorf("certified as %v, %v", id, err)
		}
	})
}

func TestACoordinatorAddsNobodyButItself(t *testing.T) {
	inWorld(t, func(w *world) {
		_, err := claryv1.NewPeerClient(w.as("coordinator c2")).AddMember(w.Context(), &claryv1.AddMemberRequest{Id: "c3", Address: "10.0.0.3:7420"})
		if err = wire.FromStatus(err); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), `that of "c2"`) {
			w.Errorf("error %v", err)
		}
	})
}

// raw sends bytes as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(text []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), text...)
	return nil
}
func (raw) Name() string { return "proto" }

func TestRubbishIsAnsweredAndKillsNobody(t *testing.T) {
	// Fields of all numbers and shapes, of which some nest: more is understood of it than of
	// bytes drawn blindly.
	messages := rapid.Custom(func(rt *rapid.T) []byte { return rubbish(rt, 3) })
	var drawn [][]byte
	for seed := range 60 {
		drawn = append(drawn, messages.Example(seed))
	}
	inWorld(t, func(w *world) {
		w.propose(command.PutNode{Node: cluster.Node{ID: "n1", Address: "10.0.0.9", State: cluster.NodeReady, MilliCPU: 4000, Memory: 8 << 30}})
		callers := []*grpc.ClientConn{w.as(cluster.RoleAdmin), w.as("agent n1"), w.as("coordinator c2")}
		answered := map[codes.Code]int{}
		for _, message := range drawn {
			for _, m := range w.methods() {
				method := m.name
				if method == rotates { // whoever calls it is not heard any more
					continue
				}
				for _, conn := range callers {
					ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
					stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodec(raw{}))
					if err == nil {
						_ = stream.SendMsg(&message)
						_ = stream.CloseSend()
						var answer []byte
						err = stream.RecvMsg(&answer)
					}
					cancel()
					answered[status.Code(err)]++
				}
			}
		}
		if _, err := claryv1.NewAdminClient(callers[0]).WhoAmI(w.Context(), &claryv1.WhoAmIRequest{}); err != nil {
			w.Errorf("afterwards: %v", err)
		}
		if answered[codes.OK] < 100 || answered[codes.InvalidArgument] < 100 || answered[codes.Unknown] > 0 {
			w.Errorf("answered %v", answered)
		}
		w.Log(answered)
	})
}

// rubbish draws an encoded message.
func rubbish(rt *rapid.T, depth int) []byte {
	var message []byte
	for range rapid.IntRange(0, 4).Draw(rt, "fields") {
		number := rapid.IntRange(1, 12).Draw(rt, "number")
		if rapid.Bool().Draw(rt, "varint") {
			message = append(message, byte(number<<3))
			message = append(message, rapid.SampledFrom([][]byte{{0}, {1}, {127}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, {0xff}}).Draw(rt, "value")...)
			continue
		}
		var inner []byte
		if depth > 0 && rapid.Bool().Draw(rt, "nested") {
			inner = rubbish(rt, depth-1)
		} else {
			inner = []byte(rapid.SampledFrom([]string{"", "n1", "digits", "s3://clary/x", "\xff", "training", "user", "agent"}).Draw(rt, "text"))
		}
		if len(inner) > 100 {
			inner = inner[:100]
		}
		message = append(append(message, byte(number<<3|2), byte(len(inner))), inner...)
	}
	return message
}
