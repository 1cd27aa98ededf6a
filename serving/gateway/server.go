package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	lineTime    = 5 * time.Second // for a client to say what it wants
	dialTime    = 5 * time.Second // for the task to take the connection
	answerTime  = 5 * time.Second // for a client to take what it is answered
	drainTime   = 5 * time.Second // for a client to take the rest of what an ended task has said
	bufferBytes = 16 << 10        // as much as a TLS record holds
	connections = 4096            // at a time, unless Config says otherwise
	refusals    = 256             // being answered, beyond those
)

// Expect accepts whom a gateway serves: coordinators and agents, which may hold routers.
func Expect(id pki.Identity) error {
	if n, ok := id.(pki.Node); ok && (n.Role == pki.Coordinator || n.Role == pki.Agent) {
		return nil
	}
	return fault.New(fault.Denied, "the peer is %s: replicas are reached by coordinators and agents only", id.URI())
}

// Config is whose tasks a gateway leads to.
type Config struct {
	// Reach connects to the port on which a task serves. The channel is closed when the task ends,
	// and the connection with it.
	Reach func(ctx context.Context, task string) (net.Conn, <-chan struct{}, error)
	// Connections are how many there may be at a time; 0 is 4096.
	Connections int
	Log         *slog.Logger
}

// Server is an agent's end.
type Server struct {
	config  Config
	slots   chan struct{}
	answers chan struct{}
	buffers sync.Pool // of *[bufferBytes]byte, those of connections that have ended
}

// New makes an agent's end.
func New(config Config) *Server {
	if config.Connections == 0 {
		config.Connections = connections
	}
	return &Server{config: config, slots: make(chan struct{}, config.Connections), answers: make(chan struct{}, refusals), buffers: sync.Pool{New: func() any { return new([bufferBytes]byte) }}}
}

// Serve takes connections, handshake done, until ctx ends or the listener is closed, and waits for all
// that it began.
func (s *Server) Serve(caller context.Context, listener net.Listener) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	ctx, cancel := context.WithCancel(caller)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if caller.Err() != nil { // it knows before those below it, and before the listener that ends with it
			return caller.Err()
		}
		if err != nil {
			return fmt.Errorf("accept connections to tasks: %w", err)
		}
		select {
		case s.slots <- struct{}{}:
			serving.Go(func() {
				defer func() { <-s.slots }()
				s.serve(ctx, conn)
			})
			continue
		default:
		}
		select {
		case s.answers <- struct{}{}:
			serving.Go(func() {
				defer func() { <-s.answers }()
				defer conn.Close()
				s.refuse(conn, fault.New(fault.Exhausted, "%d connections to tasks of this node are open: as many as there may be", s.config.Connections))
			})
		default:
			_ = conn.Close()
		}
	}
}

// serve leads one connection to its task, until either has ended.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(lineTime))
	line, err := readLine(conn)
	if err != nil {
		s.config.Log.Debug("a connection asked for no task", "from", conn.RemoteAddr(), "error", err)
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	task, err := parseRequest(line)
	if err != nil {
		s.refuse(conn, err)
		return
	}
	dialing, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	inner, ended, err := s.config.Reach(dialing, task)
	if err != nil {
		s.refuse(conn, err)
		return
	}
	defer inner.Close()
	if !s.say(conn, nil) {
		return
	}
	s.splice(ctx, conn, inner, ended)
}

func (s *Server) refuse(conn net.Conn, err error) {
	s.say(conn, err)
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		_ = conn.SetReadDeadline(time.Now().Add(answerTime)) // closed with unread bytes in it, it would be reset
		_, _ = io.CopyN(io.Discard, conn, MaxLine)
	}
}

func (s *Server) say(conn net.Conn, err error) bool {
	_ = conn.SetWriteDeadline(time.Now().Add(answerTime))
	_, failed := conn.Write(answer(err))
	_ = conn.SetWriteDeadline(time.Time{})
	return failed == nil
}

// splice copies both ways. When one side has said all, the other is told so and may go on; it ends when
// both have, when either is broken, when ctx ends, or with the task: what that has said is still brought.
func (s *Server) splice(ctx context.Context, client, task net.Conn, ended <-chan struct{}) {
	var copying sync.WaitGroup
	up, down := make(chan error, 1), make(chan error, 1)
	copying.Go(func() { up <- s.pipe(task, client) })
	copying.Go(func() { down <- s.pipe(client, task) })
	defer func() {
		_, _ = client.Close(), task.Close()
		copying.Wait()
	}()
	for up != nil || down != nil {
		select {
		case err := <-up:
			if up = nil; err != nil {
				return
			}
		case err := <-down:
			if down = nil; err != nil {
				return
			}
		case <-ended:
			select {
			case <-down:
			case <-time.After(drainTime):
			case <-ctx.Done():
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// pipe copies until from has said all, and tells to so.
func (s *Server) pipe(to, from net.Conn) error {
	buffer := s.buffers.Get().(*[bufferBytes]byte)
	defer s.buffers.Put(buffer)
	// Hidden behind plain interfaces: a *net.TCPConn would bring a larger buffer of its own.
	if _, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buffer[:]); err != nil {
		return err
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.New("the connection has no halves")
}
