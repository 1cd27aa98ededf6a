package router

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/router/loop"
)

// Router answers requests by its table. Make it with New, give it a table, and Run it.
type Router struct {
	options Options
	boot    string
	group   *loop.Group
	buffers *buffers
	context context.Context // of what may block; ends with Run
	cancel  context.CancelFunc

	table   atomic.Pointer[table]
	setting sync.Mutex
	retired map[fleetKey]*fleet

	own      map[string]http.Handler // by path
	wake     chan struct{}
	visits   sync.WaitGroup
	draining atomic.Bool // what is answered is the connection's last
	closing  atomic.Bool // idle connections end

	mirrored shard        // what was counted of copies
	copies   atomic.Int64 // that wait
	clients  clients
	turns    turns
}

// New makes a router with an empty table.
func New(o Options) (*Router, error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	group, err := loop.NewGroup(o.Loops)
	if err != nil {
		return nil, err
	}
	boot := make([]byte, 8)
	_, _ = rand.Read(boot) // never fails
	r := &Router{
		options: o.whole(files.Max), boot: hex.EncodeToString(boot), group: group, buffers: newBuffers(), retired: map[fleetKey]*fleet{},
		wake: make(chan struct{}, 1), clients: clients{by: map[netip.Addr]int{}},
	}
	r.context, r.cancel = context.WithCancel(context.Background())
	r.own = map[string]http.Handler{"/ping": http.HandlerFunc(r.ping200)}
	if o.OpenMetrics {
		r.own["/metrics"] = r.Metrics()
	}
	r.table.Store(&table{guests: newGuests(nil)})
	return r, nil
}

// Wake tells when a request came for a cold fleet: a report should go out at once.
func (r *Router) Wake() <-chan struct{} { return r.wake }

func (r *Router) askWake() { tell(r.wake) }

// tell leaves word, unless there is some already.
func tell(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// Run answers requests of a TCP listener until ctx is done. Then it lets no more in, answers what it has for
// at most Options.Drain, and returns. It runs once, and closes the listener.
func (r *Router) Run(ctx context.Context, listener net.Listener) error {
	file, err := fileOf(listener)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	loops, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer r.cancel()
	var running, accepting sync.WaitGroup
	running.Go(func() { r.group.Run(loops) })
	running.Go(func() { r.preside(loops) })
	var failed error
	accepting.Go(func() { failed = r.accept(ctx, file) })
	unhook := context.AfterFunc(ctx, func() { _ = file.SetReadDeadline(time.Now()) })
	accepting.Wait()
	unhook()
	r.acceptRest(file)
	_ = file.Close()
	r.drain()
	stop()
	r.cancel()
	running.Wait()
	r.visits.Wait()
	r.hangUp()
	return failed
}

// hangUp closes the idle connections to replicas.
func (r *Router) hangUp() {
	r.setting.Lock()
	defer r.setting.Unlock()
	for _, f := range r.table.Load().fleets() {
		for _, m := range f.all {
			m.gone.Store(true)
			m.prune(r.group.Now() + 1)
		}
	}
}

const drainStep = 5 * time.Millisecond

// drain waits until every client has had its last answer.
func (r *Router) drain() {
	r.draining.Store(true)
	began := r.group.Now()
	for r.group.Strands() > 0 {
		spent := r.group.Now() - began
		if spent > r.options.Drain {
			return
		}
		if spent > min(time.Second, r.options.Drain/2) && !r.closing.Swap(true) {
			r.group.WakeAll()
		}
		time.Sleep(drainStep)
	}
}

// fileOf is the listening socket as a file: connections that it accepts are ours, not package net's.
func fileOf(listener net.Listener) (*os.File, error) {
	l, ok := listener.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, fault.New(fault.Invalid, "listen: a %T is no TCP listener, and the router needs one", listener)
	}
	file, err := l.File()
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return file, listener.Close()
}

// accept lets clients in until ctx is done.
func (r *Router) accept(ctx context.Context, file *os.File) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	for {
		fd, from, fault := -1, unix.Sockaddr(nil), error(nil)
		err := raw.Read(func(listening uintptr) bool {
			fd, from, fault = unix.Accept4(int(listening), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return fault != unix.EAGAIN || ctx.Err() != nil
		})
		switch {
		case fault == nil && err == nil:
			r.admitClient(fd, loop.AddrPort(from).Addr())
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case fault == unix.EMFILE || fault == unix.ENFILE || fault == unix.ENOBUFS || fault == unix.ENOMEM:
			r.turned(http.StatusServiceUnavailable)
			r.options.Log.Error("no client can be let in", "error", fault)
			time.Sleep(50 * time.Millisecond) // until something is closed
		case fault == unix.ECONNABORTED || fault == unix.EINTR || fault == unix.EPROTO || fault == unix.EPERM:
		default:
			return fmt.Errorf("accept: %w", fault)
		}
	}
}

// acceptRest lets in who has connected already: they would be refused when the listener is closed.
func (r *Router) acceptRest(file *os.File) {
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(listening uintptr) {
		for {
			fd, from, err := unix.Accept4(int(listening), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			r.admitClient(fd, loop.AddrPort(from).Addr())
		}
	})
}

// admitClient begins to serve a client, if there is room.
func (r *Router) admitClient(fd int, from netip.Addr) {
	if why := r.clients.enter(from, r.options.MaxConnections, r.options.PerClient); why != "" {
		r.turned(http.StatusServiceUnavailable)
		if r.options.TLS == nil {
			text := refuse(http.StatusServiceUnavailable, "%s: try again in a moment", why).retry(1).append(nil, nil, true, false)
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
			_, _ = unix.Write(fd, text)
		}
		_ = unix.Close(fd)
		return
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	seed := uint64(r.group.Now())<<20 ^ uint64(fd)
	r.group.Start(fd, func(strand *loop.Strand, sock *loop.Sock) {
		defer r.clients.leave(from)
		c := &session{r: r, strand: strand, sock: sock, conn: sock, random: max(mix(seed^hashOf(r.boot)), 1)}
		c.serve()
	})
}

// clients counts connections.
type clients struct {
	n  atomic.Int64
	mu sync.Mutex
	by map[netip.Addr]int
}

func (k *clients) enter(from netip.Addr, most, each int) string {
	if k.n.Add(1) > int64(most) {
		k.n.Add(-1)
		return fmt.Sprintf("the router has %d connections, and takes no more", most)
	}
	if each <= 0 {
		return ""
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by[from] >= each {
		k.n.Add(-1)
		return fmt.Sprintf("%s has %d connections, and one address may have no more", from, each)
	}
	k.by[from]++
	return ""
}

func (k *clients) leave(from netip.Addr) {
	k.n.Add(-1)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by[from]--; k.by[from] <= 0 {
		delete(k.by, from)
	}
}

// Listen listens on a TCP address that other processes may listen on too: a new router can begin before
// the old one ends.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		if err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); err != nil {
			return err
		}
		return os.NewSyscallError("setsockopt", set)
	}}
	return config.Listen(ctx, "tcp", address)
}
