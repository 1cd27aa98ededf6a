// Package memnet is a network of hosts in memory, for tests inside a testing/synctest
// bubble: streams like TCP's, and partitions that do to them what real ones do. What is
// sent into a partition is held back, not refused, and arrives when it heals, unless
// somebody has given up before.
package memnet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	window  = 256 << 10 // bytes on their way in one direction
	backlog = 128       // connections that wait to be accepted
)

// Network connects hosts. Its zero value is ready for use.
type Network struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*listener
	cut       func(from, to string) bool
	changed   chan struct{} // closed and replaced when something may go on
	port      uint16
}

// Host is one machine of the network, named by its IP address.
type Host struct {
	network *Network
	ip      netip.Addr
}

// Host returns the machine with an IP address.
func (n *Network) Host(ip string) Host { return Host{n, netip.MustParseAddr(ip)} }

// Cut installs between which hosts nothing passes; nil is none.
func (n *Network) Cut(cut func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
	n.wake()
}

// wake lets all who wait look again. It is called with the lock.
func (n *Network) wake() {
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

// wait returns the channel that the next wake closes. It is called with the lock.
func (n *Network) wait() <-chan struct{} {
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	return n.changed
}

func (n *Network) isCut(from, to netip.Addr) bool {
	return n.cut != nil && from != to && n.cut(from.String(), to.String())
}

// Listen takes connections at an address of the host; port 0 takes a free one.
func (h Host) Listen(address string) (net.Listener, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), n.nextPort())
	}
	if n.listeners[at] != nil || at.Addr() != h.ip {
		return nil, fmt.Errorf("memnet: listen on %s at %s: %w", at, h.ip, syscall.EADDRINUSE)
	}
	l := &listener{network: n, at: at}
	if n.listeners == nil {
		n.listeners = map[netip.AddrPort]*listener{}
	}
	n.listeners[at] = l
	return l, nil
}

func (n *Network) nextPort() uint16 {
	n.port++
	return 32768 + n.port%28000
}

// Dial opens a stream. Over a partition it waits; where nobody listens it fails at once.
func (h Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	n := h.network
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.isCut(h.ip, to.Addr()) || n.isCut(to.Addr(), h.ip) {
		changed := n.wait()
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		}
		n.mu.Lock()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("memnet: dial %s: %w", address, ctx.Err())
		}
	}
	l := n.listeners[to]
	if l == nil || len(l.waiting) == backlog {
		return nil, fmt.Errorf("memnet: dial %s: %w", address, syscall.ECONNREFUSED)
	}
	from := netip.AddrPortFrom(h.ip, n.nextPort())
	there, back := &way{from: h.ip, to: to.Addr()}, &way{from: to.Addr(), to: h.ip}
	l.waiting = append(l.waiting, &conn{network: n, in: there, out: back, local: to, remote: from})
	n.wake()
	return &conn{network: n, in: back, out: there, local: from, remote: to}, nil
}

type listener struct {
	network *Network
	at      netip.AddrPort
	waiting []*conn
	closed  bool
}

func (l *listener) Accept() (net.Conn, error) {
	n := l.network
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if l.closed {
			return nil, net.ErrClosed
		}
		if len(l.waiting) > 0 {
			next := l.waiting[0]
			l.waiting = l.waiting[1:]
			return next, nil
		}
		changed := n.wait()
		n.mu.Unlock()
		<-changed
		n.mu.Lock()
	}
}

// Close refuses what has not been accepted yet.
func (l *listener) Close() error {
	n := l.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	l.closed = true
	delete(n.listeners, l.at)
	for _, c := range l.waiting {
		c.in.abandoned, c.out.ended = true, true
	}
	n.wake()
	return nil
}

func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// way is one direction of a stream.
type way struct {
	from, to  netip.Addr
	buffer    []byte
	ended     bool // the writer has closed
	abandoned bool // the reader has closed
}

// conn is one end of a stream.
type conn struct {
	network       *Network
	in, out       *way
	local, remote netip.AddrPort
	closed        bool
	reading       time.Time // deadlines
	writing       time.Time
}

// await unlocks until something has changed or the deadline has passed.
func (c *conn) await(deadline time.Time) error {
	n := c.network
	changed := n.wait()
	n.mu.Unlock()
	defer n.mu.Lock()
	if deadline.IsZero() {
		<-changed
		return nil
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case <-changed:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	}
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (c *conn) Read(p []byte) (int, error) {
	n := c.network
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, net.ErrClosed
		case passed(c.reading):
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case n.isCut(c.in.from, c.in.to):
		case len(c.in.buffer) > 0:
			count := copy(p, c.in.buffer)
			c.in.buffer = c.in.buffer[count:]
			n.wake()
			return count, nil
		case c.in.ended:
			return 0, io.EOF
		}
		if err := c.await(c.reading); err != nil {
			return 0, err
		}
	}
}

func (c *conn) Write(p []byte) (int, error) {
	n := c.network
	n.mu.Lock()
	defer n.mu.Unlock()
	sent := 0
	for {
		room := window - len(c.out.buffer)
		switch {
		case c.closed || c.out.ended:
			return sent, net.ErrClosed
		case passed(c.writing):
			return sent, os.ErrDeadlineExceeded
		case c.out.abandoned && !n.isCut(c.out.to, c.out.from): // its reset has reached us
			return sent, syscall.ECONNRESET
		case room > 0 && sent < len(p):
			count := min(room, len(p)-sent)
			c.out.buffer = append(c.out.buffer, p[sent:sent+count]...)
			sent += count
			n.wake()
			continue
		case sent == len(p):
			return sent, nil
		}
		if err := c.await(c.writing); err != nil {
			return sent, err
		}
	}
}

func (c *conn) Close() error {
	n := c.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed, c.in.abandoned, c.out.ended = true, true, true
	n.wake()
	return nil
}

// CloseWrite says that nothing more is written.
func (c *conn) CloseWrite() error {
	n := c.network
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.out.ended = true
	n.wake()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *conn) SetDeadline(t time.Time) error { return c.set(t, &c.reading, &c.writing) }

func (c *conn) SetReadDeadline(t time.Time) error { return c.set(t, &c.reading) }

func (c *conn) SetWriteDeadline(t time.Time) error { return c.set(t, &c.writing) }

func (c *conn) set(t time.Time, deadlines ...*time.Time) error {
	n := c.network
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, deadline := range deadlines {
		*deadline = t
	}
	n.wake()
	return nil
}
