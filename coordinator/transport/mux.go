// Package transport is the one TCP port of a coordinator: TLS 1.3, divided by the
// protocol that the handshake agrees on into gRPC (h2) and raft. It also dials the
// other coordinators.
package transport

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

// ProtocolRaft is the ALPN name under which coordinators speak raft to one another.
const ProtocolRaft = "clary-raft/1"

// protocolGRPC is the ALPN name of HTTP/2, which gRPC asks for.
const protocolGRPC = "h2"

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
	grpc     *side
	raft     *side
}

// NewMux divides a listener. The config's protocols are replaced by the mux's own.
func NewMux(listener net.Listener, config *tls.Config, log *slog.Logger) *Mux {
	config = config.Clone()
	config.NextProtos = []string{protocolGRPC, ProtocolRaft}
	address := listener.Addr()
	return &Mux{listener: listener, config: config, log: log, grpc: newSide(address), raft: newSide(address)}
}

// GRPC is where connections arrive that speak gRPC. They are *tls.Conn, handshake done.
func (m *Mux) GRPC() net.Listener { return m.grpc }

// Raft is where connections arrive that speak raft. They are *tls.Conn, handshake done.
func (m *Mux) Raft() net.Listener { return m.raft }

// Run accepts connections until ctx ends or the listener fails, and closes the listener.
func (m *Mux) Run(ctx context.Context) error {
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = m.listener.Close(); _ = m.grpc.Close(); _ = m.raft.Close() })
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
	side := m.grpc
	if conn.ConnectionState().NegotiatedProtocol == ProtocolRaft {
		side = m.raft
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
