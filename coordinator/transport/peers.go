package transport

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Peers holds one gRPC connection to each other member, by id. A member that moved is
// dialled where it is now.
type Peers struct {
	network member.Network
	resolve Resolve
	role    string
	life    string // of the cluster, which is told to the other
	source  pki.Source

	mu     sync.Mutex
	conns  map[string]peerConn
	former []*grpc.ClientConn // that nobody is given any more
}

type peerConn struct {
	address string
	conn    *grpc.ClientConn
}

// NewPeers makes connections of a coordinator to members of a role (pki.Coordinator or pki.Agent), in a life of the cluster.
func NewPeers(network member.Network, role, life string, source pki.Source, resolve Resolve) *Peers {
	return &Peers{network: network, resolve: resolve, role: role, life: life, source: source, conns: map[string]peerConn{}}
}

// Conn returns the connection to a member; it is shared, and closed by Close.
func (p *Peers) Conn(id string) (*grpc.ClientConn, error) {
	address := p.resolve(id)
	if address == "" {
		return nil, fault.New(fault.Unready, "%s %s cannot be found now", p.role, id)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.conns[id]; ok {
		if known.address == address {
			return known.conn, nil
		}
		_ = known.conn.Close()
	}
	conn, err := member.Dial(p.network, address, p.source, pki.ExpectNode(p.role), member.InLife(p.life)...)
	if err != nil {
		return nil, err
	}
	p.conns[id] = peerConn{address: address, conn: conn}
	return conn, nil
}

// Drop closes the connection to a member, if there is one. The next who asks for it gets another.
func (p *Peers) Drop(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.conns[id]; ok {
		_ = known.conn.Close()
		delete(p.conns, id)
	}
}

// Renew has whoever asks from now on get connections with another handshake. What is under way goes on until CloseFormer.
func (p *Peers) Renew() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, known := range p.conns {
		p.former = append(p.former, known.conn)
		delete(p.conns, id)
	}
}

// CloseFormer closes the connections from before Renew.
func (p *Peers) CloseFormer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.former {
		_ = conn.Close()
	}
	p.former = nil
}

// Close closes all connections.
func (p *Peers) Close() {
	p.Renew()
	p.CloseFormer()
}

// Propose hands an encoded batch of commands to the leader.
func (p *Peers) Propose(ctx context.Context, leader raft.ServerID, batch []byte) ([]byte, error) {
	conn, err := p.ready(ctx, string(leader))
	if err != nil {
		return nil, err
	}
	answer, err := claryv1.NewPeerClient(conn).Propose(ctx, &claryv1.ProposeRequest{Batch: batch})
	return answer.GetResults(), wire.FromStatus(err)
}

// ReadIndex asks the leader for an index at which a read is linearizable.
func (p *Peers) ReadIndex(ctx context.Context, leader raft.ServerID) (uint64, error) {
	conn, err := p.ready(ctx, string(leader))
	if err != nil {
		return 0, err
	}
	answer, err := claryv1.NewPeerClient(conn).ReadIndex(ctx, &claryv1.ReadIndexRequest{})
	return answer.GetIndex(), wire.FromStatus(err)
}

// ready returns a connection that stands, so that whoever gets an error from here knows
// that nothing was sent.
func (p *Peers) ready(ctx context.Context, id string) (*grpc.ClientConn, error) {
	conn, err := p.Conn(id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", replica.ErrNotSent, err)
	}
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.Connect()
		if state == connectivity.TransientFailure || state == connectivity.Shutdown || !conn.WaitForStateChange(ctx, state) {
			return nil, fmt.Errorf("%w: no connection to coordinator %s", replica.ErrNotSent, id)
		}
	}
	return conn, nil
}
