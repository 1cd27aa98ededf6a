// Package clienttest is a working cluster in memory for tests of programs that use the
// client: real TLS, real gRPC, several coordinators that share one state, and jobs that
// do what the test says.
package clienttest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/client/config"
	"github.com/clary-ml/clary/client/invoke"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Token is the secret that the cluster knows from the start, an admin's.
const Token = "clary_u_root_secret"

// Cluster is the cluster. Its fields may be set before the first request.
type Cluster struct {
	// Check refuses a job, if it is set.
	Check func(cluster.Job) error
	// Run plays a job that was submitted; it is called in a goroutine of its own, with a
	// context that ends when the cluster is closed.
	Run func(ctx context.Context, c *Cluster, job cluster.Job)
	// Lose is asked once a unary method, by its name's last word, has done its work: an error is
	// answered instead, as if the answer was lost.
	Lose func(method string) error
	// Show are the parameters of a trial, and Read makes a configuration of parameters: only
	// the test knows spaces.
	Show func(job cluster.Job, trial cluster.Trial) map[string]any
	Read func(job cluster.Job, parameters map[string]any) ([]float64, error)
	// Clock is what the cluster says that its clock shows; nil says nothing, as an earlier version does.
	Clock func() time.Time
	// Decisions sends the leader's record, part by part; nil is that there is none.
	Decisions func(send func([]byte) error) error
	// Queues answers for the tree of queues; nil is that there is none.
	Queues claryv1.QueuesServer

	authority    *pki.Authority
	coordinators []*coordinator
	running      sync.WaitGroup
	ctx          context.Context
	cancel       context.CancelFunc

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	jobs    map[string]client.JobView
	sweeps  map[string]Sweep // by job
	models  map[string]cluster.Model
	// versions are those of models, by ID.
	versions map[string]cluster.ModelVersion
	nodes    map[string]client.NodeView
	logs     map[string][]logged // by job
	metrics  map[string][]cluster.Series
	objects  map[string][]byte        // by URI
	tokens   map[string]cluster.Token // by secret
	calls    map[string]int           // by method's last word
	// endpoints are by job.
	endpoints map[string]Endpoint
	routers   []invoke.Router
	revised   uint64
	settings  cluster.Settings
	trust     cluster.Trust
	over      *claryv1.SweepResponse // what the next sweep finds
}

type coordinator struct {
	address string
	server  *grpc.Server
	unready error // what it answers to everything, if not nil
}

// Start makes a cluster of n coordinators on loopback.
func Start(n int) (*Cluster, error) {
	authority, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Cluster{
		settings:  cluster.DefaultSettings(),
		authority: authority, ctx: ctx, cancel: cancel, changed: make(chan struct{}),
		jobs: map[string]client.JobView{}, sweeps: map[string]Sweep{}, models: map[string]cluster.Model{}, versions: map[string]cluster.ModelVersion{}, nodes: map[string]client.NodeView{}, logs: map[string][]logged{}, metrics: map[string][]cluster.Series{},
		objects: map[string][]byte{}, calls: map[string]int{}, endpoints: map[string]Endpoint{},
		tokens: map[string]cluster.Token{Token: {ID: "root", Kind: cluster.TokenUser, Name: "root", Role: cluster.RoleAdmin}},
	}
	for i := range n {
		if err := c.startCoordinator(fmt.Sprintf("c%d", i+1)); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

func (c *Cluster) startCoordinator(id string) error {
	shown, err := c.credentials(id)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	member := &coordinator{address: listener.Addr().String()}
	c.serve(member, listener, pki.ServerTLS(shown.Static(), "h2"))
	c.coordinators = append(c.coordinators, member)
	return nil
}

// credentials are those of a coordinator.
func (c *Cluster) credentials(id string) (pki.Credentials, error) {
	key, err := pki.NewKey()
	if err != nil {
		return pki.Credentials{}, err
	}
	cert, err := c.authority.Issue(&key.PublicKey, pki.Request{
		Identity: pki.Node{Role: pki.Coordinator, ID: id}, Validity: time.Hour,
	}, time.Now())
	if err != nil {
		return pki.Credentials{}, err
	}
	keyPEM, err := pki.KeyPEM(key)
	if err != nil {
		return pki.Credentials{}, err
	}
	return pki.ParseCredentials(cert, keyPEM, c.authority.CertPEM())
}

func (c *Cluster) serve(member *coordinator, listener net.Listener, secure *tls.Config) {
	member.server = grpc.NewServer(
		grpc.Creds(credentials.NewTLS(secure)),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := c.admit(ctx, member, info.FullMethod); err != nil {
				return nil, wire.ToStatus(err)
			}
			answer, err := handle(ctx, request)
			if err == nil && c.Lose != nil {
				err = c.Lose(path.Base(info.FullMethod))
			}
			return answer, wire.ToStatus(err)
		}),
		grpc.StreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := c.admit(stream.Context(), member, info.FullMethod); err != nil {
				return wire.ToStatus(err)
			}
			return wire.ToStatus(handle(server, stream))
		}),
	)
	claryv1.RegisterJobsServer(member.server, &jobs{c: c})
	claryv1.RegisterSweepsServer(member.server, &sweeps{c: c})
	claryv1.RegisterEndpointsServer(member.server, &endpoints{c: c})
	claryv1.RegisterNodesServer(member.server, &nodes{c: c})
	claryv1.RegisterMetricsServer(member.server, &metrics{c: c})
	claryv1.RegisterObjectsServer(member.server, &objects{c: c})
	claryv1.RegisterModelsServer(member.server, &models{c: c})
	claryv1.RegisterQueuesServer(member.server, &queues{c: c})
	claryv1.RegisterSettingsServer(member.server, &settings{c: c})
	claryv1.RegisterAdminServer(member.server, &admin{c: c})
	claryv1.RegisterKeysServer(member.server, &keys{c: c})
	claryv1.RegisterDebugServer(member.server, debug{})
	c.running.Go(func() { _ = member.server.Serve(listener) })
}

// admit counts the call, and refuses a caller without a token.
func (c *Cluster) admit(ctx context.Context, member *coordinator, method string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[method[strings.LastIndexByte(method, '/')+1:]]++
	if member.unready != nil {
		return member.unready
	}
	if _, known := c.caller(ctx); !known {
		return fault.New(fault.Denied, "the token is unknown: run clary login")
	}
	c.tellEnd(ctx)
	return nil
}

func (c *Cluster) caller(ctx context.Context) (cluster.Token, bool) {
	md, _ := metadata.FromIncomingContext(ctx)
	for _, value := range md.Get("authorization") {
		token, known := c.tokens[strings.TrimPrefix(value, "Bearer ")]
		return token, known && !token.Revoked
	}
	return cluster.Token{}, false
}

// Context is how an admin reaches the cluster.
func (c *Cluster) Context() config.Context {
	to := config.Context{CAPin: c.authority.Pin(), Token: Token}
	for _, member := range c.coordinators {
		to.Addresses = append(to.Addresses, member.address)
	}
	return to
}

// CAPEM is the certificate of the cluster's CA.
func (c *Cluster) CAPEM() []byte { return c.authority.CertPEM() }

// Kill ends a coordinator, cutting its connections.
func (c *Cluster) Kill(index int) { c.coordinators[index].server.Stop() }

// Refuse makes a coordinator answer everything with an error; nil makes it well again.
func (c *Cluster) Refuse(index int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coordinators[index].unready = err
}

// Calls is how often a method was called, e.g. "Submit".
func (c *Cluster) Calls(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[method]
}

// Close ends everything and waits for it.
func (c *Cluster) Close() error {
	c.cancel()
	for _, member := range c.coordinators {
		member.server.Stop()
	}
	c.running.Wait()
	return nil
}

// PutNode adds or replaces a node.
func (c *Cluster) PutNode(view client.NodeView) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[view.Node.ID] = view
}

// Update changes a job, and everybody who watches it is told.
func (c *Cluster) Update(name string, change func(*client.JobView)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view := c.jobs[name]
	view.Tasks, view.Gangs = slices.Clone(view.Tasks), slices.Clone(view.Gangs)
	change(&view)
	c.revised++
	view.Job.Revision = c.revised
	c.jobs[name] = view
	c.tell()
}

// Object reads an object's bytes.
func (c *Cluster) Object(uri string) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, found := c.objects[uri]
	return data, found
}

// PutObject stores an object.
func (c *Cluster) PutObject(uri string, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.objects[uri] = data
}

// Job reads a job, and a channel that is closed when anything changes.
func (c *Cluster) Job(name string) (client.JobView, bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, found := c.jobs[name]
	return view, found, c.changed
}

func (c *Cluster) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}
