package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

// Resolve finds where a member is now: "" if nobody knows.
type Resolve func(id string) (address string)

// NewRaft makes raft's transport: each stream is a TLS connection of its own, on which
// both ends have shown a coordinator's certificate.
func NewRaft(listener net.Listener, advertise string, source pki.Source, resolve Resolve, log *slog.Logger) *raft.NetworkTransport {
	layer := &streamLayer{
		listener: listener, advertise: address(advertise), log: log,
		dial: pki.ClientTLS(source, pki.ExpectNode(pki.Coordinator), ProtocolRaft),
	}
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                layer,
		MaxPool:               4,
		MaxRPCsInFlight:       16,
		Timeout:               10 * time.Second,
		ServerAddressProvider: provider(resolve),
		Logger:                hclog.FromStandardLogger(slog.NewLogLogger(log.Handler(), slog.LevelDebug), &hclog.LoggerOptions{Name: "raft-transport"}),
	})
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
	listener  net.Listener
	advertise address
	dial      *tls.Config
	log       *slog.Logger
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
		return conn, nil
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
	dialer := tls.Dialer{NetDialer: &net.Dialer{}, Config: l.dial}
	return dialer.DialContext(ctx, "tcp", string(to))
}

func (l *streamLayer) Close() error   { return l.listener.Close() }
func (l *streamLayer) Addr() net.Addr { return l.advertise }
