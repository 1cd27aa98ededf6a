package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// What each simulated node has.
const (
	nodeCores  = 64
	nodeMemory = 512 << 30
	nodeGPUs   = 8
)

// fleet is the simulated nodes: each has joined with a certificate of its own and holds a stream to a
// coordinator, beats, and says of every task it is given that it runs.
type fleet struct {
	nodes []*simulated
	told  func(job string, at time.Time) // a node was told of a task; called by many at once
	ends  atomic.Bool                    // tasks end as soon as they start
	pulse pulse                          // of all nodes together
	all   []string                       // coordinators
	in    sync.WaitGroup                 // nodes that were not welcomed yet
}

// simulated is one node.
type simulated struct {
	fleet  *fleet
	id     string
	source *pki.Current
	at     int       // the coordinator that it connects to
	acked  time.Time // when its last beat was answered

	mu      sync.Mutex
	running map[string]bool // tasks
	news    []*claryv1.Held // to be reported with the next beat
	rung    chan struct{}   // there is news
}

// join makes the nodes members, each by a token of its own. They are numbered from first.
func join(ctx context.Context, c *client.Client, first, count int, coordinators []string, told func(string, time.Time)) (*fleet, error) {
	f := &fleet{nodes: make([]*simulated, count), told: told, all: coordinators}
	f.in.Add(count)
	var joining errgroup.Group
	joining.SetLimit(64)
	for i := range f.nodes {
		joining.Go(func() error {
			id := fmt.Sprintf("sim-%05d", first+i)
			_, token, err := c.CreateToken(ctx, cluster.TokenJoin, id, pki.Agent, time.Hour)
			if err != nil {
				return err
			}
			key, err := pki.NewKey()
			if err != nil {
				return err
			}
			at := i % len(coordinators)
			answer, err := member.Join(ctx, member.TCP{}, coordinators[at], token, key, &claryv1.JoinRequest{Id: id, Role: pki.Agent, Address: "127.0.0.1", Version: "simulated"})
			if err != nil {
				return err
			}
			shown, err := member.Credentials(answer.GetCertificatePem(), key, answer.GetCaPem())
			f.nodes[i] = &simulated{fleet: f, id: id, at: at, source: pki.NewCurrent(shown), running: map[string]bool{}, rung: make(chan struct{}, 1)}
			return err
		})
	}
	return f, joining.Wait()
}

// run keeps all nodes connected until ctx ends.
func (f *fleet) run(ctx context.Context) error {
	var group errgroup.Group
	entering := make(chan struct{}, 32) // a fleet does not start in the same millisecond
	for _, n := range f.nodes {
		in := sync.OnceFunc(f.in.Done)
		group.Go(func() error {
			defer in()
			for ctx.Err() == nil {
				entering <- struct{}{}
				if err := n.connect(ctx, sync.OnceFunc(func() { <-entering }), in); ctx.Err() == nil {
					if f.pulse.broke() {
						fmt.Fprintf(os.Stderr, "sched: node %s lost its connection to %s: %v\n", n.id, f.all[n.at], err)
					}
					n.at = (n.at + 1) % len(f.all) // as agents do
					time.Sleep(200 * time.Millisecond)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// finish ends every task that runs, and from now on every task as soon as it starts.
func (f *fleet) finish() {
	f.ends.Store(true)
	for _, n := range f.nodes {
		n.mu.Lock()
		for task := range n.running {
			n.note(task, cluster.TaskSucceeded)
			delete(n.running, task)
		}
		n.mu.Unlock()
	}
}

func (n *simulated) node() *claryv1.Node {
	node := cluster.Node{
		ID: n.id, Address: "127.0.0.1", State: cluster.NodeReady, MilliCPU: nodeCores * 1000, Memory: nodeMemory, Disk: 1 << 40,
		PortFirst: 20000, PortLast: 20999, Version: "simulated", Labels: map[string]string{"os": "linux", "arch": "amd64"},
	}
	for i := range nodeGPUs {
		node.Devices = append(node.Devices, cluster.Device{
			UUID: fmt.Sprintf("%s-gpu-%d", n.id, i), Kind: cluster.DeviceGPU, Model: "H100", Memory: 80 << 30, Healthy: true, Simulated: true,
		})
	}
	return wire.NodeToProto(node)
}

// connect follows a coordinator until the connection ends. It calls tried once it has connected
// or could not, and welcomed in the first case.
func (n *simulated) connect(ctx context.Context, tried, welcomed func()) error {
	defer tried()
	conn, err := member.Dial(member.TCP{}, n.fleet.all[n.at], n.source.Get, pki.ExpectNode(pki.Coordinator))
	if err != nil {
		return err
	}
	defer conn.Close()
	group, ctx := errgroup.WithContext(ctx)
	stream, err := claryv1.NewAgentLinkClient(conn).Connect(ctx)
	if err != nil {
		return err
	}
	hello := &claryv1.Hello{Node: n.node()}
	n.mu.Lock()
	for task := range n.running {
		hello.Held = append(hello.Held, held(task, cluster.TaskRunning))
	}
	n.mu.Unlock()
	if err := stream.Send(&claryv1.AgentMessage{Message: &claryv1.AgentMessage_Hello{Hello: hello}}); err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	tried()
	welcomed()
	acks := make(chan struct{}, 16)
	group.Go(func() error { return n.follow(stream, acks) })
	group.Go(func() error { return n.beat(ctx, stream, acks, time.Duration(first.GetWelcome().GetBeatEvery())) })
	return group.Wait()
}

func (n *simulated) follow(stream grpc.BidiStreamingClient[claryv1.AgentMessage, claryv1.CoordinatorMessage], acks chan<- struct{}) error {
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if message.GetAck() != nil {
			acks <- struct{}{}
		}
		now := time.Now()
		for _, assigned := range message.GetDesired().GetAssignments() {
			n.obey(assigned, now)
		}
	}
}

// obey starts a task that the node has not, and ends one that is to stop.
func (n *simulated) obey(assigned *claryv1.Assignment, now time.Time) {
	task := assigned.GetTask()
	id := task.GetId()
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case assigned.GetStop():
		delete(n.running, id)
		n.note(id, cluster.TaskStopped)
		return
	case n.running[id]:
		return
	}
	n.fleet.told(task.GetJob(), now)
	if n.fleet.ends.Load() {
		n.note(id, cluster.TaskSucceeded)
		return
	}
	n.running[id] = true
	n.note(id, cluster.TaskRunning)
}

func held(task string, state cluster.TaskState) *claryv1.Held {
	status := cluster.TaskStatus{State: state, Started: time.Now().UnixNano()}
	if state.Ended() {
		status.Ended = time.Now().UnixNano()
	}
	return &claryv1.Held{Task: task, Status: wire.TaskStatusToProto(status)}
}

// note has the next beat tell of a task. The caller holds mu.
func (n *simulated) note(task string, state cluster.TaskState) {
	n.news = append(n.news, held(task, state))
	select {
	case n.rung <- struct{}{}:
	default:
	}
}

// beat is an agent's: news at once, a sign of life now and then, one beat on its way at a time.
func (n *simulated) beat(ctx context.Context, stream grpc.BidiStreamingClient[claryv1.AgentMessage, claryv1.CoordinatorMessage], acks <-chan struct{}, every time.Duration) error {
	for sequence := uint64(1); ; sequence++ {
		n.mu.Lock()
		news := n.news
		n.news = nil
		n.mu.Unlock()
		beat, sent := &claryv1.Beat{Sequence: sequence, Changed: news}, time.Now()
		if err := stream.Send(&claryv1.AgentMessage{Message: &claryv1.AgentMessage_Beat{Beat: beat}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-acks:
		}
		now := time.Now()
		n.fleet.pulse.note(now.Sub(sent), n.acked, now)
		n.acked = now
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.rung:
		case <-time.After(every):
		}
	}
}
