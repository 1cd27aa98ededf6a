// Package alpn divides one TCP port with TLS 1.3 by the protocol that a client's handshake asks for, so
// that a member of the cluster has one port for all that others want of it.
package alpn

import (
	"bufio"
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/clary-ml/clary/internal/sparing"
)

// GRPC is the ALPN name of HTTP/2, which gRPC asks for.
const GRPC = "h2"

const (
	handshakeTime = 10 * time.Second
	dismissTime   = time.Second // for a stranger to read why it is refused
	dismissBytes  = 64 << 10    // most that it may still say
	// maxHandshakes are under way at once: strangers who connect and say nothing, or stop midway, hold no more. The oldest
	// goes when there is one more: whoever means it is done within milliseconds, and is never the oldest of so many.
	maxHandshakes = 512
	// Of guests so many connections stand at once, and so many from one address, unless the mux is told otherwise.
	maxGuests, maxGuestsFrom = 4096, 1024
)

// plaintextAnswer is what a client that speaks no TLS reads.
const plaintextAnswer = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n" +
	"this port speaks TLS 1.3 only: use the clary client, or gRPC with TLS\n"

// Mux accepts connections on one listener and hands them to the protocol they chose.
type Mux struct {
	// Guests and GuestsFrom are how many connections stand at once of those who show no certificate of the cluster, in all and from
	// one address; more are refused, but that who comes from an address with fewer takes a place of the address with most: nobody is
	// locked out by a crowd. Members are as many as there are. Set them before Run.
	Guests, GuestsFrom int

	listener net.Listener
	config   *tls.Config
	log      *slog.Logger
	first    *side
	sides    map[string]*side // by protocol

	mu       sync.Mutex
	open     map[*peekedConn]*tls.Conn // those that were handed on and are not closed
	looks    int                       // how often they were looked at again
	greeting list.List                 // of net.Conn, in the order in which they came
	guests   map[string]int            // by address: those of open who showed no certificate
	counts   Counts
}

// Counts are how many connections there are.
type Counts struct {
	Members, Guests int   // that stand; guests showed no certificate
	Refused         int64 // guests, since there were too many; and those who had to make room
}

// Counts tells how many connections there are now.
func (m *Mux) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts
}

// New divides a listener. The config's protocols are replaced by those given; who asks for none gets the
// first.
func New(listener net.Listener, config *tls.Config, log *slog.Logger, protocols ...string) *Mux {
	config = config.Clone()
	config.NextProtos = protocols
	m := &Mux{Guests: maxGuests, GuestsFrom: maxGuestsFrom, listener: listener, config: config, log: sparing.New(log), sides: map[string]*side{}, open: map[*peekedConn]*tls.Conn{}, guests: map[string]int{}}
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
	for {
		conn, err := m.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
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
		done := m.enter(conn)
		handshakes.Go(func() { m.greet(ctx, conn, done) })
	}
}

// enter takes note of a handshake that begins, and ends the oldest if there are too many. It returns what
// to call, any number of times, when it is over.
func (m *Mux) enter(conn net.Conn) (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.greeting.Len() >= maxHandshakes {
		oldest := m.greeting.Remove(m.greeting.Front()).(net.Conn)
		_ = oldest.Close() // whose greet returns by that
		m.log.Warn("ended a handshake that took long, since too many are under way", "from", oldest.RemoteAddr(), "most", maxHandshakes)
	}
	entry := m.greeting.PushBack(conn)
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.greeting.Remove(entry) // which is nothing if it is not there any more
	})
}

// greet does the handshake of one connection and hands it on, or closes it.
func (m *Mux) greet(ctx context.Context, raw net.Conn, done func()) {
	defer done()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })() // whoever says nothing would hold up the end
	_ = raw.SetDeadline(time.Now().Add(handshakeTime))
	peeked := &peekedConn{mux: m, Conn: raw, reader: bufio.NewReader(raw)}
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
	m.mu.Lock()
	looks := m.looks
	m.mu.Unlock()
	conn := tls.Server(peeked, m.config)
	if err := conn.HandshakeContext(ctx); err != nil {
		m.log.Warn("refused a connection", "from", raw.RemoteAddr(), "error", err)
		dismiss(raw) // TLS has sent an alert that says why
		return
	}
	_ = raw.SetDeadline(time.Time{})
	done()
	side := m.sides[conn.ConnectionState().NegotiatedProtocol]
	if side == nil {
		side = m.first
	}
	missed, ok := m.seat(peeked, conn, looks)
	if !ok {
		dismiss(raw)
		return
	}
	if missed && m.config.VerifyConnection != nil {
		if err := m.config.VerifyConnection(conn.ConnectionState()); err != nil {
			_ = peeked.Close()
			return
		}
	}
	side.hand(conn)
}

// seat takes note of a connection, unless it is a guest's and there are too many. missed says that since it shook hands others were
// looked at again.
func (m *Mux) seat(peeked *peekedConn, conn *tls.Conn, looks int) (missed, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(conn.ConnectionState().PeerCertificates) > 0 {
		m.counts.Members++
	} else {
		from, _, err := net.SplitHostPort(peeked.RemoteAddr().String())
		if err != nil {
			from = peeked.RemoteAddr().String()
		}
		if m.guests[from] >= m.GuestsFrom || m.counts.Guests >= m.Guests && !m.makeRoom(from) {
			m.counts.Refused++
			m.log.Warn("refused a connection, since there are too many without a certificate of the cluster", "from", from, "from_there", m.guests[from], "in_all", m.counts.Guests)
			return false, false
		}
		m.counts.Guests++
		m.guests[from]++
		peeked.guest = from
	}
	m.open[peeked] = conn
	return m.looks != looks, true
}

// makeRoom ends, of the address with most guests, the connection that said nothing for longest, if whoever comes has fewer.
func (m *Mux) makeRoom(from string) bool {
	crowded := from
	for address, n := range m.guests {
		if n > m.guests[crowded] || n == m.guests[crowded] && address < crowded && address != from {
			crowded = address
		}
	}
	if m.guests[crowded] <= m.guests[from]+1 {
		return false
	}
	var silent *peekedConn
	for conn := range m.open {
		if conn.guest == crowded && (silent == nil || conn.heard.Load() < silent.heard.Load()) {
			silent = conn
		}
	}
	m.counts.Refused++
	m.log.Warn("ended a connection, since there are too many without a certificate of the cluster, and most from there", "from", crowded, "from_there", m.guests[crowded], "in_all", m.counts.Guests)
	m.forget(silent)
	_ = silent.Conn.Close() // not TLS's own way, which would wait for a reader
	return true
}

// leave forgets a connection.
func (m *Mux) leave(c *peekedConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(c)
}

func (m *Mux) forget(c *peekedConn) {
	if _, open := m.open[c]; !open {
		return
	}
	delete(m.open, c)
	if c.guest == "" {
		m.counts.Members--
		return
	}
	m.counts.Guests--
	if m.guests[c.guest]--; m.guests[c.guest] == 0 {
		delete(m.guests, c.guest)
	}
}

// HangUp closes the connections that stand and are not admitted any more.
func (m *Mux) HangUp(admits func(tls.ConnectionState) error) {
	m.mu.Lock()
	open := maps.Clone(m.open)
	m.looks++
	m.mu.Unlock()
	for raw, conn := range open {
		if err := admits(conn.ConnectionState()); err != nil {
			m.log.Warn("closed a connection", "from", raw.RemoteAddr(), "error", err)
			_ = raw.Close() // not TLS's own way, which would wait for a reader
		}
	}
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
	mux    *Mux
	reader *bufio.Reader
	guest  string       // the address it came from, if it showed no certificate
	heard  atomic.Int64 // when something was read last, in Unix nanoseconds
}

// Close implements net.Conn.
func (c *peekedConn) Close() error {
	c.mux.leave(c)
	return c.Conn.Close()
}

func (c *peekedConn) Read(p []byte) (int, error) {
	n, err := c.reader.Read(p)
	c.heard.Store(time.Now().UnixNano())
	return n, err
}

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
