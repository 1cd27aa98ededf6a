// Package alpn divides one TCP port with TLS 1.3 by the protocol that a client's handshake asks for, so
// that a member of the cluster has one port for all that others want of it.
package alpn

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// GRPC is the ALPN name of HTTP/2, which gRPC asks for.
const GRPC = "h2"

const (
	handshakeTime = 10 * time.Second
	dismissTime   = time.Second // for a stranger to read why it is refused
	dismissBytes  = 64 << 10    // most that it may still say
	maxHandshakes = 512         // at once: strangers who connect and say nothing hold no more
)

// plaintextAnswer is what a client that speaks no TLS reads.
const plaintextAnswer = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n" +
	"this port speaks TLS 1.3 only: use the clary client, or gRPC with TLS\n"

// Mux accepts connections on one listener and hands them to the protocol they chose.
type Mux struct {
	listener net.Listener
	config   *tls.Config
	log      *slog.Logger
	first    *side
	sides    map[string]*side // by protocol
}

// New divides a listener. The config's protocols are replaced by those given; who asks for none gets the
// first.
func New(listener net.Listener, config *tls.Config, log *slog.Logger, protocols ...string) *Mux {
	config = config.Clone()
	config.NextProtos = protocols
	m := &Mux{listener: listener, config: config, log: log, sides: map[string]*side{}}
	for _, protocol := range protocols {
		m.sides[protocol] = newSide(listener.Addr())
	}
	m.first = m.sides[protocols[0]]
	return m
}

// On is where connections of a protocol arrive. They are *tls.Conn, handshake done.
func (m *Mux) On(protocol string) net.Listener { return m.sides[protocol] }

// Run accepts connections until ctx ends or the listener fails, and closes the listener.
func (m *Mux) Run(ctx context.Context) error {
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = m.listener.Close()
		for _, side := range m.sides {
			_ = side.Close()
		}
	})
	defer stop()
	slots := make(chan struct{}, maxHandshakes)
	for {
		conn, err := m.listener.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept on %s: %w", m.listener.Addr(), err)
			}
			m.log.Warn("accept", "error", err)
			time.Sleep(10 * time.Millisecond) // out of file descriptors: others may close theirs
			continue
		}
		select {
		case slots <- struct{}{}:
			handshakes.Go(func() {
				defer func() { <-slots }()
				m.greet(ctx, conn)
			})
		default:
			_ = conn.Close()
		}
	}
}

// greet does the handshake of one connection and hands it on, or closes it.
func (m *Mux) greet(ctx context.Context, raw net.Conn) {
	_ = raw.SetDeadline(time.Now().Add(handshakeTime))
	peeked := &peekedConn{Conn: raw, reader: bufio.NewReader(raw)}
	first, err := peeked.reader.Peek(1)
	if err != nil {
		_ = raw.Close()
		return
	}
	const tlsHandshakeRecord = 22
	if first[0] != tlsHandshakeRecord {
		m.log.Warn("refused a plaintext connection", "from", raw.RemoteAddr())
		_, _ = raw.Write([]byte(plaintextAnswer))
		dismiss(raw)
		return
	}
	conn := tls.Server(peeked, m.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		m.log.Warn("refused a connection", "from", raw.RemoteAddr(), "error", err)
		dismiss(raw) // TLS has sent an alert that says why
		return
	}
	_ = raw.SetDeadline(time.Time{})
	side := m.sides[conn.ConnectionState().NegotiatedProtocol]
	if side == nil {
		side = m.first
	}
	side.hand(conn)
}

// dismiss closes a connection so that the other side can read the last words: closed
// with unread bytes in it, the kernel would reset it, and the words be lost.
func dismiss(raw net.Conn) {
	defer raw.Close()
	half, ok := raw.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	_ = raw.SetReadDeadline(time.Now().Add(dismissTime))
	_, _ = io.CopyN(io.Discard, raw, dismissBytes)
}

// peekedConn is a connection whose first bytes were looked at.
type peekedConn struct {
	net.Conn
	reader *bufio.Reader
}

func (c *peekedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }

// side is the listener of one protocol.
type side struct {
	address net.Addr
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newSide(address net.Addr) *side {
	return &side{address: address, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (s *side) hand(conn net.Conn) {
	select {
	case s.conns <- conn:
	case <-s.closed:
		_ = conn.Close()
	}
}

func (s *side) Accept() (net.Conn, error) {
	select {
	case conn := <-s.conns:
		return conn, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *side) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *side) Addr() net.Addr { return s.address }
