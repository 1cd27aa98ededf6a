// Package transport is how coordinators reach one another: raft's streams over TLS on the port that they
// share with gRPC, and calls.
package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

// ProtocolRaft is the ALPN name under which coordinators speak raft to one another, in the first life of their cluster.
const ProtocolRaft = "clary-raft/1"

// RaftProtocol is ProtocolRaft in a life of the cluster: raft takes entries from whoever sends them, so those of
// another life must not get a connection.
func RaftProtocol(life string) string {
	if life == "" {
		return ProtocolRaft
	}
	return ProtocolRaft + "+" + life
}

// Resolve finds where a member is now: "" if nobody knows.
type Resolve func(id string) (address string)

// Raft is raft's transport between coordinators. Closing it ends every connection, those
// too that raft itself would leave open.
type Raft struct {
	*raft.NetworkTransport
	layer *streamLayer
}

// Close ends all connections, and takes no more.
func (r *Raft) Close() error {
	r.CloseStreams()
	err := r.NetworkTransport.Close() // closes the layer
	r.layer.hangUp()
	return err
}

// NewRaft makes raft's transport: each stream is a TLS connection of its own, on which
// both ends have shown a coordinator's certificate and said the same protocol, see RaftProtocol.
func NewRaft(network member.Network, listener net.Listener, protocol, advertise string, source pki.Source, resolve Resolve, log *slog.Logger) *Raft {
	layer := &streamLayer{
		network: network, listener: listener, advertise: address(advertise), log: log,
		config: pki.ClientTLS(source, pki.ExpectNode(pki.Coordinator), protocol), accepted: map[*acceptedConn]bool{},
	}
	inner := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                layer,
		MaxPool:               4,
		MaxRPCsInFlight:       16,
		Timeout:               10 * time.Second,
		ServerAddressProvider: provider(resolve),
		Logger:                hclog.FromStandardLogger(slog.NewLogLogger(log.Handler(), slog.LevelDebug), &hclog.LoggerOptions{Name: "raft-transport"}),
	})
	return &Raft{NetworkTransport: inner, layer: layer}
}

type provider Resolve

// ServerAddr fails for a member that nobody has seen; raft then uses the address in its
// own configuration.
func (p provider) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	if address := p(string(id)); address != "" {
		return raft.ServerAddress(address), nil
	}
	return "", fmt.Errorf("coordinator %s has not been seen by gossip", id)
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

type streamLayer struct {
	network   member.Network
	listener  net.Listener
	advertise address
	config    *tls.Config
	log       *slog.Logger

	mu       sync.Mutex
	closed   bool
	accepted map[*acceptedConn]bool
}

// acceptedConn is a stream that another coordinator opened.
type acceptedConn struct {
	net.Conn
	layer *streamLayer
}

func (c *acceptedConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.accepted, c)
	c.layer.mu.Unlock()
	return c.Conn.Close()
}

// keep remembers an accepted connection, unless the layer is closed.
func (l *streamLayer) keep(conn net.Conn) (*acceptedConn, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := &acceptedConn{Conn: conn, layer: l}
	if !l.closed {
		l.accepted[kept] = true
	}
	return kept, !l.closed
}

// hangUp ends all accepted connections, and those that would still come.
func (l *streamLayer) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for conn := range l.accepted {
		_ = conn.Conn.Close()
	}
	clear(l.accepted)
}

func (l *streamLayer) Accept() (net.Conn, error) {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := fromCoordinator(conn.(*tls.Conn).ConnectionState()); err != nil { // the mux hands over nothing else
			l.log.Warn("refused a raft connection", "from", conn.RemoteAddr(), "error", err)
			_ = conn.Close()
			continue
		}
		kept, open := l.keep(conn)
		if !open {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		return kept, nil
	}
}

// fromCoordinator refuses a peer that has not shown a coordinator's certificate.
func fromCoordinator(state tls.ConnectionState) error {
	identity, shown, err := pki.PeerIdentity(state)
	if err != nil {
		return err
	}
	if !shown {
		return fault.New(fault.Denied, "no certificate: only coordinators speak raft")
	}
	return pki.ExpectNode(pki.Coordinator)(identity)
}

func (l *streamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	raw, err := l.network.Dial(ctx, string(to))
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, l.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return conn, nil
}

func (l *streamLayer) Close() error   { return l.listener.Close() }
func (l *streamLayer) Addr() net.Addr { return l.advertise }
