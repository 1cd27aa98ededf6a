package embedded

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v3"

	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/fault"
)

// maxRequests are worked on at a time, by the gateway's own count.
const maxRequests = 4096

const (
	headTime = 30 * time.Second // for the head of a request, from the handshake on
	idleTime = 2 * time.Minute  // without a byte, in either direction, until a connection ends
	rearm    = time.Second      // how exact that is
)

const protocol = "http/1.1"

// entrance is where the world reaches the gateway. The gateway itself bounds connections by how many it can serve and never ends one
// that says nothing, so it listens at a socket in the file system, and its server is given the connections that the entrance lets in.
type entrance struct {
	socket  string // of the gateway; nobody but this process uses it
	address string
	files   [2]string // certificate and key
	cert    atomic.Pointer[tls.Certificate]
	log     *slog.Logger

	listening chan struct{} // closed when the gateway listens
	once      sync.Once
	app       chan *fiber.App
}

func newEntrance(c Config) (*entrance, error) {
	e := &entrance{
		socket: "../" + filepath.Base(c.Dir) + ".socket", // short, whatever the folder's path: the gateway works in its folder
		log:    slog.New(slog.NewTextHandler(os.Stderr, nil)), address: c.Address, files: [2]string{c.CertFile, c.KeyFile},
		listening: make(chan struct{}), app: make(chan *fiber.App, 1),
	}
	return e, e.load()
}

// load reads the certificate, again when it was renewed.
func (e *entrance) load() error {
	cert, err := tls.LoadX509KeyPair(e.files[0], e.files[1])
	if err != nil {
		return fault.New(fault.Invalid, "object store: read its certificate: %w", err)
	}
	e.cert.Store(&cert)
	return nil
}

// capture answers the first request, which is this process's own, and keeps the server behind it.
func (e *entrance) capture(ctx fiber.Ctx) error {
	first := false
	e.once.Do(func() {
		first = true
		e.app <- ctx.App()
	})
	if first {
		return ctx.SendStatus(http.StatusNoContent)
	}
	if conn, ok := ctx.RequestCtx().Conn().(*patientConn); ok {
		conn.began.Store(true)
	}
	return ctx.Next()
}

// Run lets connections in until ctx ends.
func (e *entrance) Run(ctx context.Context) error {
	gateway, err := e.find(ctx)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", e.address)
	if err != nil {
		return fault.New(fault.Unready, "object store: %w", err)
	}
	mux := alpn.New(listener, &tls.Config{
		MinVersion:     tls.VersionTLS12, // some S3 clients know no other
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return e.cert.Load(), nil },
	}, e.log, protocol)
	served := make(chan error, 1)
	go func() { served <- gateway.Server().Serve(patient{mux.On(protocol)}) }()
	err = mux.Run(ctx) // which ends what is served
	return errors.Join(err, <-served)
}

// find gets the gateway's server, by a request to it, and takes its own door away.
func (e *entrance) find(ctx context.Context) (*fiber.App, error) {
	select {
	case <-e.listening:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", e.socket)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/", nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fault.New(fault.Internal, "object store: ask the gateway: %w", err)
	}
	_ = answer.Body.Close()
	_ = os.Remove(e.socket)
	return <-e.app, nil
}

// patient is a listener whose connections end when nothing comes of them.
type patient struct{ net.Listener }

func (p patient) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return newPatientConn(conn.(*tls.Conn)), nil // the mux hands on no other
}

// patientConn is given some time for the head of its request, and from then on ends only if nothing moves for long, so that an upload may
// take as long as it takes.
type patientConn struct {
	*tls.Conn
	began atomic.Bool           // the head of its request has come
	held  atomic.Pointer[bound] // what it uploads is stopped by this
	armed atomic.Int64          // when its end was last put off, in Unix nanoseconds
}

func newPatientConn(conn *tls.Conn) *patientConn {
	_ = conn.SetDeadline(time.Now().Add(headTime))
	return &patientConn{Conn: conn}
}

func (c *patientConn) move() {
	if now := time.Now(); c.began.Load() && now.UnixNano()-c.armed.Load() > int64(rearm) {
		c.armed.Store(now.UnixNano())
		_ = c.Conn.SetDeadline(now.Add(idleTime))
	}
}

func (c *patientConn) Read(p []byte) (int, error) {
	if held := c.held.Load(); held != nil && held.now() {
		return 0, errNoRoom
	}
	c.move()
	return c.Conn.Read(p)
}

func (c *patientConn) Write(p []byte) (int, error) {
	c.move()
	return c.Conn.Write(p)
}

// The server's own idea of deadlines, which is that there are none, is left out.

func (c *patientConn) SetDeadline(time.Time) error      { return nil }
func (c *patientConn) SetReadDeadline(time.Time) error  { return nil }
func (c *patientConn) SetWriteDeadline(time.Time) error { return nil }
