package modelserver

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// preface is how a connection of gRPC begins: HTTP/2 without TLS and without asking first (RFC
// 9113, section 3.4). No method of HTTP/1 is called PRI.
const preface = "PRI "

// split divides one listener's connections into those of HTTP/1 and those of gRPC, by their first
// bytes, so that one port serves both.
type split struct {
	listener net.Listener
	web, rpc *half
	wait     sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	pending map[net.Conn]struct{} // that have said nothing yet
	begun   map[net.Conn]struct{} // that gRPC was given, and has not closed
}

// half is a listener that is given its connections.
type half struct {
	address net.Addr
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once
}

func newSplit(l net.Listener) *split {
	s := &split{listener: l, pending: map[net.Conn]struct{}{}, begun: map[net.Conn]struct{}{}}
	for _, h := range []**half{&s.web, &s.rpc} {
		*h = &half{address: l.Addr(), conns: make(chan net.Conn), done: make(chan struct{})}
	}
	return s
}

func (h *half) Addr() net.Addr { return h.address }

// Close ends Accept. The listener beneath goes on.
func (h *half) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *half) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// run deals connections out until close. When it returns, none is being looked at.
func (s *split) run() error {
	defer s.wait.Wait()
	for {
		c, err := s.listener.Accept()
		switch {
		case err == nil:
			s.wait.Go(func() { s.deal(c) })
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED):
			time.Sleep(5 * time.Millisecond) // connections will end, and then there are descriptors again
		default:
			return err
		}
	}
}

// close takes no more connections, and closes those that have said nothing.
func (s *split) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	_ = s.listener.Close()
	for c := range s.pending {
		_ = c.Close()
	}
}

// cut closes the connections of gRPC. Its server waits, also when it is told to stop, for those that
// have not said all of their greeting.
func (s *split) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.begun {
		_ = c.Close()
	}
}

// look marks a connection as one that has said nothing, or closes it if it is too late for that.
func (s *split) look(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = c.Close()
		return false
	}
	s.pending[c] = struct{}{}
	return true
}

func (s *split) deal(c net.Conn) {
	if !s.look(c) {
		return
	}
	begin := make([]byte, len(preface))
	_ = c.SetReadDeadline(time.Now().Add(readHeader)) // that fails, the read does too
	_, err := io.ReadFull(c, begin)
	rpc := string(begin) == preface
	s.mu.Lock()
	delete(s.pending, c)
	if rpc {
		s.begun[c] = struct{}{}
	}
	s.mu.Unlock()
	if err != nil { // no request is that short
		_ = c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	given, to := &begun{Conn: c, begin: begin}, s.web
	if rpc {
		given.split, to = s, s.rpc
	}
	select {
	case to.conns <- given:
	case <-to.done:
		_ = given.Close()
	}
}

// begun is a connection whose first bytes were read already.
type begun struct {
	net.Conn
	begin []byte
	split *split // that remembers it until it is closed, or nil
}

func (b *begun) Close() error {
	if s := b.split; s != nil {
		s.mu.Lock()
		delete(s.begun, b.Conn)
		s.mu.Unlock()
	}
	return b.Conn.Close()
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.begin) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.begin)
	b.begin = b.begin[n:]
	return n, nil
}
