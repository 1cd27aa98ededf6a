package replica_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/replica"
)

// net joins replicas of one process. A link that is cut loses what is sent both ways.
type net struct {
	mu            sync.Mutex
	replicas      map[raft.ServerID]*member
	snapshotBytes int64
	cut           map[[2]raft.ServerID]bool
}

// member is one replica with its own end of the network.
type member struct {
	*replica.Replica
	id        raft.ServerID
	transport *raft.InmemTransport
	stop      context.CancelFunc
	ended     chan error
}

func newNet() *net {
	return &net{replicas: map[raft.ServerID]*member{}, cut: map[[2]raft.ServerID]bool{}}
}

// forwarder is a member's way to the leader.
type forwarder struct {
	net  *net
	from raft.ServerID
}

func (f forwarder) to(id raft.ServerID) (*member, error) {
	f.net.mu.Lock()
	defer f.net.mu.Unlock()
	m := f.net.replicas[id]
	if m == nil || f.net.cut[pair(f.from, id)] {
		return nil, fmt.Errorf("%s cannot reach %s: %w", f.from, id, replica.ErrNotSent)
	}
	return m, nil
}

func (f forwarder) Propose(ctx context.Context, leader raft.ServerID, batch []byte) ([]byte, error) {
	m, err := f.to(leader)
	if err != nil {
		return nil, err
	}
	results, err := m.HandlePropose(ctx, batch)
	if _, lost := f.to(leader); lost != nil { // the link broke before the answer came back
		return nil, fmt.Errorf("connection to %s was lost", leader)
	}
	return results, err
}

func (f forwarder) ReadIndex(ctx context.Context, leader raft.ServerID) (uint64, error) {
	m, err := f.to(leader)
	if err != nil {
		return 0, err
	}
	return m.HandleReadIndex(ctx)
}

func pair(a, b raft.ServerID) [2]raft.ServerID { return [2]raft.ServerID{min(a, b), max(a, b)} }

// start opens a member in a folder of its own below dir, and runs it.
func (n *net) start(t testing.TB, dir string, id raft.ServerID, bootstrap bool) *member {
	t.Helper()
	_, transport := raft.NewInmemTransportWithTimeout(raft.ServerAddress(id), 200*time.Millisecond)
	r, err := replica.Open(replica.Config{
		ID: string(id), Dir: filepath.Join(dir, string(id)), Transport: transport,
		Peers: forwarder{n, id}, Bootstrap: bootstrap,
		Logger:        slog.New(slog.NewTextHandler(io.Discard, nil)),
		Fatal:         func(err error) { t.Errorf("%s broke: %v", id, err) },
		SnapshotBytes: n.snapshotBytes,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	m := &member{Replica: r, id: id, transport: transport, stop: stop, ended: make(chan error, 1)}
	go func() { m.ended <- r.Run(ctx) }()
	n.mu.Lock()
	n.replicas[id] = m
	n.mu.Unlock()
	n.wire()
	return m
}

// wire makes raft's transports follow the map of cut links.
func (n *net) wire() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for a, from := range n.replicas {
		for b, to := range n.replicas {
			if a == b {
				continue
			}
			if n.cut[pair(a, b)] {
				from.transport.Disconnect(raft.ServerAddress(b))
			} else {
				from.transport.Connect(raft.ServerAddress(b), to.transport)
			}
		}
	}
}

// isolate cuts one member off from all others; nobody, if id is empty.
func (n *net) isolate(id raft.ServerID) {
	n.mu.Lock()
	clear(n.cut)
	for other := range n.replicas {
		if id != "" && other != id {
			n.cut[pair(id, other)] = true
		}
	}
	n.mu.Unlock()
	n.wire()
}

// halt ends a member as a power cut does, which lets it tell nobody, and waits for it.
func (n *net) halt(m *member) error {
	m.transport.DisconnectAll()
	n.mu.Lock()
	delete(n.replicas, m.id)
	for _, other := range n.replicas {
		other.transport.Disconnect(raft.ServerAddress(m.id))
	}
	n.mu.Unlock()
	m.stop()
	err := <-m.ended
	m.transport.Close()
	return err
}

// three starts a cluster of a, b and c. The caller must halt its members.
func three(t testing.TB, n *net, dir string) []*member {
	t.Helper()
	members := []*member{n.start(t, dir, "a", true), n.start(t, dir, "b", false), n.start(t, dir, "c", false)}
	n.isolate("")
	awaitLeader(t, members[0])
	for _, m := range members[1:] {
		if err := members[0].AddVoter(t.Context(), string(m.id), string(m.id)); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range members { // raft grants no vote to a member it has not heard of yet
		snapshot, err := m.Read(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		_ = snapshot.Close()
	}
	return members
}

// awaitLeader returns when one of the members leads.
func awaitLeader(t testing.TB, members ...*member) *member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	leads := make(chan *member, len(members))
	var wait sync.WaitGroup
	for _, m := range members {
		wait.Go(func() {
			_ = m.RunAsLeader(ctx, func(context.Context) error { leads <- m; cancel(); return nil })
		})
	}
	wait.Wait()
	select {
	case m := <-leads:
		return m
	default:
		t.Fatal("nobody was elected")
		return nil
	}
}

func submission(name string) command.Record {
	job := cluster.Job{
		Name: name, Kind: cluster.KindTraining, Owner: "ada", Queue: cluster.DefaultQueue,
		State: cluster.JobQueued, Attempt: 1, Spec: make([]byte, 300),
	}
	gang := cluster.Gang{
		Job: name, Name: "main", Queue: cluster.DefaultQueue, Owner: "ada", Attempt: 1,
		Roles: []cluster.Role{{
			Name: "worker", Count: 1, Ask: cluster.Ask{MilliCPU: 1000, Memory: 1 << 30},
			Program: cluster.Program{Command: []string{"python3", "train.py"}, Spec: make([]byte, 300)},
		}},
	}
	return command.Record{Changes: []command.Change{{Job: &job}, {Gang: &gang}}}
}
