// Package bubble_test runs whole clusters in one process, in the virtual time of a
// testing/synctest bubble: real coordinators and agents with their TLS, raft, gossip,
// ledgers and files, over a network in memory that partitions as it is told. Only what
// tasks would do is played.
package bubble_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/agent"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator"
	gossipnet "github.com/clary-ml/clary/internal/gossip/memnet"
	"github.com/clary-ml/clary/internal/memnet"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/object"
	"github.com/clary-ml/clary/workload"
	"github.com/clary-ml/clary/workload/training"
	"github.com/clary-ml/clary/workload/transform"
	"github.com/clary-ml/clary/workload/tuning"
)

// world is one cluster.
type world struct {
	*testing.T
	dir    string
	net    memnet.Network
	gossip gossipnet.Network
	floor  *floor
	log    *slog.Logger

	mu        sync.Mutex
	processes map[string]*process
	drivers   map[string]*driver
	tokens    map[string]string
	conns     map[string]*grpc.ClientConn
}

// process is one coordinator or agent that runs.
type process struct {
	stop  context.CancelFunc
	ended chan error
}

// The hosts: any address of 127/8 can be bound, which agents try with tasks' ports.
func hostOf(id string) string {
	return map[string]string{
		"c1": "127.1.0.1", "c2": "127.1.0.2", "c3": "127.1.0.3", "n1": "127.2.0.1", "n2": "127.2.0.2", "user": "127.3.0.1",
	}[id]
}

var coordinators = []string{"c1", "c2", "c3"}

func newWorld(t *testing.T, counts *tally) *world {
	w := &world{
		T: t, dir: filepath.Join(t.TempDir(), "data[1]"), floor: newFloor(counts), log: slog.New(slog.DiscardHandler),
		processes: map[string]*process{}, drivers: map[string]*driver{}, tokens: map[string]string{}, conns: map[string]*grpc.ClientConn{},
	}
	if err := os.Mkdir(w.dir, 0o700); err != nil { // whatever its name means to a shell
		t.Fatal(err)
	}
	if path := os.Getenv("CLARY_BUBBLE_LOG"); path != "" { // to look at a run that failed
		file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		w.log = slog.New(slog.NewTextHandler(file, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	t.Cleanup(w.end)
	return w
}

// end stops everything, agents first, and sees that all of it ends without an error.
func (w *world) end() {
	for _, conn := range w.conns {
		_ = conn.Close()
	}
	w.partition()
	for _, id := range []string{"n1", "n2", "c1", "c2", "c3"} {
		w.stop(id)
	}
	for _, d := range w.drivers {
		d.crash()
	}
	time.Sleep(time.Minute) // of the bubble: what only waits for its time to be over
}

// launch runs a process until stop.
func (w *world) launch(id string, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	p := &process{stop: stop, ended: make(chan error, 1)}
	go func() { p.ended <- run(ctx) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes[id] = p
}

func (w *world) stop(id string) {
	w.Helper()
	w.mu.Lock()
	p := w.processes[id]
	delete(w.processes, id)
	w.mu.Unlock()
	if p == nil {
		return
	}
	p.stop()
	if err := <-p.ended; err != nil && !errors.Is(err, context.Canceled) {
		w.Errorf("%s ended: %v", id, err)
	}
}

// partition cuts hosts off from all others; the links of the rest are mended.
func (w *world) partition(ids ...string) {
	cut := map[string]bool{}
	for _, id := range ids {
		cut[hostOf(id)] = true
	}
	w.part(func(from, to string) bool { return cut[from] || cut[to] })
}

// between is part for two sets of machines.
func between(these, others []string) func(from, to string) bool {
	side := map[string]int{}
	for _, id := range these {
		side[hostOf(id)] = 1
	}
	for _, id := range others {
		side[hostOf(id)] = 2
	}
	return func(from, to string) bool { return side[from] != side[to] && side[from] != 0 && side[to] != 0 }
}

// part says between which hosts nothing passes; all other links are mended.
func (w *world) part(apart func(from, to string) bool) {
	others := func(from, to string) bool { return from != to && apart(from, to) }
	w.net.Cut(others)
	w.gossip.Cut(func(from, to string) bool {
		return others(strings.Split(from, ":")[0], strings.Split(to, ":")[0])
	})
}

// store is the object store of all agents.
func (w *world) store() stagingtest.Store {
	return stagingtest.Store{Dir: filepath.Join(w.dir, "store")}
}

func (w *world) folder(id string) string { return filepath.Join(w.dir, id) }

// coordinator starts a coordinator. The first of all founds the cluster.
func (w *world) coordinator(id string) {
	w.Helper()
	host := hostOf(id)
	transport, err := w.gossip.Transport(host + ":7421")
	if err != nil {
		w.Fatal(err)
	}
	config := coordinator.Config{
		ID: id, Data: w.folder(id), Listen: host + ":7420", Gossip: host + ":7421", Version: "test", Log: w.log.With("at", id),
		Network: w.net.Host(host), GossipTransport: transport,
		Store: object.Config{Endpoint: "127.0.0.1:1", AccessKey: "key", SecretKey: "secret-secret", Insecure: true}, // nobody asks it
	}
	if id != "c1" {
		config.Join, config.Token = hostOf("c1")+":7420", w.token(id, pki.Coordinator)
	}
	w.launch(id, func(ctx context.Context) error {
		return coordinator.Run(ctx, config, map[cluster.Kind]workload.Kind{cluster.KindTraining: training.Kind{}, cluster.KindTuning: tuning.Kind{}, cluster.KindTransform: transform.Kind{}})
	})
}

// agent starts the agent of a node with eight GPUs and four cores.
func (w *world) agent(id string) {
	w.Helper()
	host := hostOf(id)
	transport, err := w.gossip.Transport(host + ":7425")
	if err != nil {
		w.Fatal(err)
	}
	w.mu.Lock()
	d := w.drivers[id]
	if d == nil {
		d = w.floor.driver(id)
		w.drivers[id] = d
	}
	w.mu.Unlock()
	config := agent.Config{
		ID: id, Data: w.folder(id), Address: host, Listen: host + ":7424", Gossip: host + ":7425",
		Join: hostOf("c1") + ":7420", Token: w.token(id, pki.Agent), PortFirst: 20000, PortLast: 20100,
		SimulateGPUs: "8xA100", MilliCPU: 4000, Memory: 16 << 30, CacheBytes: 1 << 20, Version: "test", Log: w.log.With("at", id),
		Network: w.net.Host(host), GossipTransport: transport, Driver: d, Store: w.store(),
	}
	w.launch(id, func(ctx context.Context) error { return agent.Run(ctx, config) })
}

// token returns the join token of a machine, which it keeps over restarts.
func (w *world) token(id, role string) string {
	w.Helper()
	if w.tokens[id] == "" {
		answer, err := claryv1.NewAdminClient(w.conn("c1")).CreateToken(w.admin(w.Context()), &claryv1.CreateTokenRequest{Kind: string(cluster.TokenJoin), Role: role})
		if err != nil {
			w.Fatal(err)
		}
		w.tokens[id] = answer.GetSecret()
	}
	return w.tokens[id]
}

// admin is a context that shows the founder's token.
func (w *world) admin(ctx context.Context) context.Context {
	text, err := os.ReadFile(filepath.Join(w.folder("c1"), coordinator.AdminTokenFile))
	if err != nil {
		w.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(text)))
}

// conn is a user's connection to a coordinator.
func (w *world) conn(id string) *grpc.ClientConn {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[id] != nil {
		return w.conns[id]
	}
	ca, err := os.ReadFile(filepath.Join(w.folder("c1"), "tls", pki.CAFile))
	if err != nil {
		w.Fatal(err)
	}
	cert, err := pki.ParseCertificate(ca)
	if err != nil {
		w.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+hostOf(id)+":7420",
		grpc.WithTransportCredentials(credentials.NewTLS(pki.PinnedTLS(pki.PinOf(cert), "h2"))),
		grpc.WithContextDialer(w.net.Host(hostOf("user")).Dial),
	)
	if err != nil {
		w.Fatal(err)
	}
	w.conns[id] = conn
	return conn
}

func (w *world) jobs(id string) claryv1.JobsClient { return claryv1.NewJobsClient(w.conn(id)) }

// until asks again and again, in the bubble's time.
func (w *world) until(what string, within time.Duration, done func() error) {
	w.Helper()
	deadline := time.Now().Add(within)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("%s: not after %s: %v", what, within, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// remain asks for a while whether something is so, and goes on being so.
func (w *world) remain(what string, length time.Duration, is func() error) {
	w.Helper()
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(time.Second) {
		if err := is(); err != nil {
			w.Fatalf("%s: not any more, %s before the end: %v", what, time.Until(end), err)
		}
	}
}

// found starts three coordinators and two agents, and waits for all of them to be there.
func (w *world) found() {
	w.Helper()
	w.coordinator("c1")
	w.until("c1 leads", time.Minute, func() error {
		_, err := os.Stat(filepath.Join(w.folder("c1"), coordinator.AdminTokenFile))
		return err
	})
	w.coordinator("c2")
	w.coordinator("c3")
	w.agent("n1")
	w.agent("n2")
	w.until("three vote", time.Minute, func() error {
		info, err := claryv1.NewAdminClient(w.conn("c1")).Info(w.admin(w.Context()), &claryv1.InfoRequest{})
		voters := 0
		for _, member := range info.GetCoordinators() {
			if member.GetVoter() && member.GetAlive() {
				voters++
			}
		}
		if err == nil && voters != 3 {
			err = fmt.Errorf("%d voters: %v", voters, info)
		}
		return err
	})
	for _, id := range coordinators { // raft grants no vote to a member it has not heard of yet
		w.until(id+" sees both nodes ready", time.Minute, func() error { return w.nodesReady(id) })
	}
}

func (w *world) nodesReady(at string) error {
	ctx, cancel := context.WithTimeout(w.admin(w.Context()), 5*time.Second)
	defer cancel()
	list, err := claryv1.NewNodesClient(w.conn(at)).List(ctx, &claryv1.ListNodesRequest{})
	if err != nil {
		return err
	}
	ready := 0
	for _, view := range list.GetNodes() {
		if view.GetNode().GetState() == string(cluster.NodeReady) {
			ready++
		}
	}
	if ready != 2 {
		return fmt.Errorf("%d ready nodes", ready)
	}
	return nil
}

// work is a job whose tasks run so long and exit so. A transform's drivers take their own time, and its servers end with them.
type work struct {
	name      string
	kind      cluster.Kind // training if empty
	instances int
	gpus      int
	length    time.Duration
	code      int
	retries   int32
}

func (j work) request() *claryv1.SubmitRequest {
	kind := cmp.Or(j.kind, cluster.KindTraining)
	spec := fmt.Sprintf(`{"program": {"command": ["run", %q, "%d"]}, "instances": %d, "resources": {"memory": "256MiB", "cores": 0.5, "gpus": %d}}`,
		j.length, j.code, j.instances, j.gpus)
	if kind == cluster.KindTransform {
		spec = fmt.Sprintf(`{"program": {"command": ["run", "100h", "0"]}, "instances": %d, "input": "s3://data/set", "output": "s3://data/scored/",
			"resources": {"memory": "256MiB", "cores": 0.5, "gpus": %d}}`, j.instances, j.gpus)
	}
	return &claryv1.SubmitRequest{Job: wire.JobToProto(cluster.Job{
		Name: j.name, Kind: kind, Spec: []byte(spec), RequestID: "request-" + j.name,
		Retry: cluster.Retry{Limit: j.retries, Backoff: time.Second},
	})}
}

// look reads a job at a coordinator.
func (w *world) look(at, name string) (*claryv1.JobView, error) {
	ctx, cancel := context.WithTimeout(w.admin(w.Context()), 5*time.Second)
	defer cancel()
	return w.jobs(at).Get(ctx, &claryv1.GetJobRequest{Name: name})
}

// ends waits for a job's end.
func (w *world) ends(name string, within time.Duration) *claryv1.JobView {
	w.Helper()
	var view *claryv1.JobView
	w.until(name+" ends", within, func() (err error) {
		if view, err = w.look("c1", name); err != nil {
			return err
		}
		if !cluster.JobState(view.GetJob().GetState()).Ended() {
			return fmt.Errorf("it is %s (%s), attempt %d", view.GetJob().GetState(), view.GetJob().GetReason(), view.GetJob().GetAttempt())
		}
		return nil
	})
	return view
}

// put has an object in the store.
func (w *world) put(key, text string) {
	w.Helper()
	if err := w.store().Put(w.Context(), "data", key, strings.NewReader(text), int64(len(text))); err != nil {
		w.Fatal(err)
	}
}

// idle waits until no program runs any more on any node.
func (w *world) idle() {
	w.Helper()
	w.until("nothing is left over", time.Minute, func() error {
		for _, id := range []string{"n1", "n2"} {
			for _, p := range w.drivers[id].all() {
				if w.drivers[id].runs(p) {
					return fmt.Errorf("%s runs on %s", p.spec.ID, id)
				}
			}
		}
		return nil
	})
}

// sound fails the test if the floor has seen what must never be.
func (w *world) sound() {
	w.Helper()
	w.floor.mu.Lock()
	defer w.floor.mu.Unlock()
	for _, broken := range w.floor.broken {
		w.Error(broken)
	}
}
