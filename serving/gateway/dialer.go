package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/route"
)

// sessions are how many nodes a dialer remembers TLS sessions of, so that the next connection needs no
// certificates.
const sessions = 1024

// Dialer is a router's end.
type Dialer struct {
	network member.Network
	source  pki.Source

	mu    sync.Mutex
	cas   []*x509.Certificate // that were trusted when cache was begun
	cache tls.ClientSessionCache
}

// NewDialer makes a router's end. The source is its node's certificate; nil reaches only replicas that
// have no gateway before them.
func NewDialer(network member.Network, source pki.Source) *Dialer {
	return &Dialer{network: network, source: source}
}

// sessionsUnder are those that were begun while the same CAs were trusted as now. One from before may be refused after a
// handshake that looks good from here, again and again.
func (d *Dialer) sessionsUnder(cas []*x509.Certificate) tls.ClientSessionCache {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cache == nil || !slices.EqualFunc(cas, d.cas, (*x509.Certificate).Equal) {
		d.cas, d.cache = cas, tls.NewLRUClientSessionCache(sessions)
	}
	return d.cache
}

// Dial connects to a replica: the bytes are its server's. An error says that nothing has reached the
// server.
func (d *Dialer) Dial(ctx context.Context, replica route.Replica) (net.Conn, error) {
	raw, err := d.network.Dial(ctx, replica.Address)
	if err != nil {
		return nil, fault.New(fault.Unready, "replica %s: %w", replica.ID, err)
	}
	if !replica.Gateway {
		return raw, nil
	}
	conn, err := d.enter(ctx, raw, replica)
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("replica %s: %w", replica.ID, err)
	}
	return conn, nil
}

// enter has the agent at the other end of a connection lead it to the replica.
func (d *Dialer) enter(ctx context.Context, raw net.Conn, replica route.Replica) (net.Conn, error) {
	if d.source == nil {
		return nil, fault.New(fault.Invalid, "it is behind a gateway, and this router has no certificate of the cluster")
	}
	line, err := request(replica.ID)
	if err != nil {
		return nil, err
	}
	cas := d.source().CAs()
	config := pki.ClientTLS(d.source, expect(replica.Node), Protocol)
	config.ClientSessionCache = d.sessionsUnder(cas)
	conn := tls.Client(raw, config)
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fault.New(fault.Unready, "node %s: %w", replica.Node, err)
	}
	said, err := "", error(nil)
	if _, err = conn.Write(line); err == nil {
		said, err = readLine(conn)
	}
	if !stop() && ctx.Err() != nil {
		return nil, fault.New(fault.Unready, "node %s: %w", replica.Node, ctx.Err())
	}
	if err != nil {
		return nil, fault.New(fault.Unready, "node %s: %w", replica.Node, err)
	}
	return &entered{Conn: conn, raw: raw, cas: cas, source: d.source}, parseAnswer(said)
}

// entered is a connection through a gateway.
type entered struct {
	*tls.Conn
	raw    net.Conn
	cas    []*x509.Certificate // that were trusted when it was made
	source pki.Source
}

// Alive reports whether a connection on which nothing is under way can be used again. The agent closes it
// when the task has ended; whoever wrote a request to it then could not know that nobody has read it. Nor is one used again
// when a CA was dropped since: it is about to be closed.
func (c *entered) Alive() bool {
	if pki.Drops(c.cas, c.source().CAs()) {
		return false
	}
	tcp, ok := c.raw.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = raw.Control(func(fd uintptr) { // not Read: a deadline that is over would be in the way
		_, _, failed := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		alive = failed == unix.EAGAIN // anything to read is an end, or what nobody asked for
	})
	return err == nil && alive
}

// expect accepts the agent of a node, of any if it is not named.
func expect(node string) pki.Expect {
	return func(id pki.Identity) error {
		if n, ok := id.(pki.Node); ok && n.Role == pki.Agent && (node == "" || n.ID == node) {
			return nil
		}
		return fault.New(fault.Denied, "the peer is %s; the agent of node %q is expected", id.URI(), node)
	}
}
