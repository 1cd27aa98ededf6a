// Package loop runs the straight-line code of many connections on a few event loops.
//
// A connection's code is a Strand: it reads and writes sockets as if they blocked. On a loop it is a
// coroutine (iter.Pull), resumed by the loop when its socket is ready, so that a wait costs two
// switches of some tens of nanoseconds and no scheduler, no lock and no wake of another thread. What
// may really block (a name to look up, another library's connection) is done off the loop: a strand
// leaves, is an ordinary goroutine for a while, and returns.
package loop

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrStopped is what a strand is told when its group ends.
var ErrStopped = errors.New("the router ends")

const (
	batch      = 256                   // events taken at a time
	tick       = 50 * time.Millisecond // how exact deadlines are
	politeness = time.Millisecond      // how long a busy loop keeps other goroutines waiting
	maxSockets = 1 << 20
)

// Group is some loops. Make it with NewGroup, and Run it.
type Group struct {
	loops   []*Loop
	sockets []atomic.Pointer[Sock] // by descriptor
	base    time.Time
	killed  atomic.Bool
	running sync.WaitGroup
}

// Loop is one event loop: at most one of its strands runs on it at a time.
type Loop struct {
	group *Group
	index int
	epoll int
	bell  int // an eventfd: rung when there is something in the inbox

	rung  atomic.Bool
	mu    sync.Mutex
	inbox []message

	strands []*Strand
	load    atomic.Int64 // strands that are its, those in the inbox too
	gen     atomic.Uint32
}

// message is something that another thread asks of a loop.
type message struct {
	strand *Strand
	what   asked
	fd     int
	start  func(*Strand, *Sock)
}

type asked uint8

const (
	toWake asked = iota
	toReturn
	toEnd // it ended off the loop
	toStart
)

// NewGroup makes n loops, or one for each processor if n is 0.
func NewGroup(n int) (*Group, error) {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	g := &Group{base: time.Now(), sockets: make([]atomic.Pointer[Sock], min(limit.Max, maxSockets))}
	for i := range n {
		l, err := newLoop(g, i)
		if err != nil {
			g.close()
			return nil, err
		}
		g.loops = append(g.loops, l)
	}
	return g, nil
}

func newLoop(g *Group, index int) (*Loop, error) {
	l := &Loop{group: g, index: index}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(l.epoll))
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(l.bell)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, l.bell, &event); err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll_ctl", err), unix.Close(l.bell), unix.Close(l.epoll))
	}
	return l, nil
}

func (g *Group) close() {
	for _, l := range g.loops {
		_ = unix.Close(l.bell)
		_ = unix.Close(l.epoll)
	}
}

// Loops is how many there are.
func (g *Group) Loops() int { return len(g.loops) }

// Now is the time since the group was made, of a clock that only goes forward.
func (g *Group) Now() time.Duration { return time.Since(g.base) }

// Run runs the loops until ctx is done; then every strand is told ErrStopped, and Run returns when
// all have ended. It runs once.
func (g *Group) Run(ctx context.Context) {
	for _, l := range g.loops {
		g.running.Go(l.run)
	}
	<-ctx.Done()
	g.killed.Store(true)
	g.WakeAll()
	g.running.Wait()
	g.close()
}

// Strands is how many there are.
func (g *Group) Strands() int {
	n := int64(0)
	for _, l := range g.loops {
		n += l.load.Load()
	}
	return int(n)
}

// Start runs fn as a strand on the loop that has the fewest, with a connected non-blocking socket
// that it owns from now on. After the group's end the socket is closed.
func (g *Group) Start(fd int, fn func(*Strand, *Sock)) {
	least := g.loops[0]
	for _, l := range g.loops[1:] {
		if l.load.Load() < least.load.Load() {
			least = l
		}
	}
	least.load.Add(1)
	least.post(message{what: toStart, fd: fd, start: fn})
}

// WakeAll lets every strand that waits look again.
func (g *Group) WakeAll() {
	for _, l := range g.loops {
		l.post(message{})
	}
}

func (l *Loop) post(m message) {
	l.mu.Lock()
	l.inbox = append(l.inbox, m)
	l.mu.Unlock()
	if !l.rung.Swap(true) {
		one := [8]byte{0: 1}
		_, _ = unix.Write(l.bell, one[:]) // it cannot be full in the life of a machine
	}
}

// run is the loop.
func (l *Loop) run() {
	var events [batch]unix.EpollEvent
	lastTick, lastYield := l.group.Now(), l.group.Now()
	for {
		n := l.wait(events[:])
		for i := range n {
			l.event(&events[i])
		}
		if l.rung.Load() {
			l.read()
		}
		if l.group.killed.Load() && l.load.Load() == 0 {
			return
		}
		now := l.group.Now()
		if now-lastTick >= tick {
			lastTick = now
			l.expire(now)
		}
		if now-lastYield >= politeness {
			lastYield = now
			runtime.Gosched()
		}
	}
}

// wait takes what is ready; if that is nothing, it lets others have the processor until there is.
func (l *Loop) wait(events []unix.EpollEvent) int {
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), batch, 0, 0, 0)
	if errno != 0 || n > 0 {
		return max(int(n), 0)
	}
	timeout := -1
	if len(l.strands) > 0 {
		timeout = int(tick / time.Millisecond)
	}
	n, _, errno = syscall.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), batch, uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// event marks a socket and resumes whose it is.
func (l *Loop) event(e *unix.EpollEvent) {
	if int(e.Fd) == l.bell {
		return
	}
	sock := l.group.sockets[e.Fd].Load()
	if sock == nil || sock.gen != uint32(e.Pad) || sock.loop != l {
		return // closed since
	}
	sock.bits.Or(e.Events)
	if gone(e.Events) {
		sock.mu.Lock()
		sock.alarm()
		sock.mu.Unlock()
	}
	if owner := sock.owner.Load(); owner != nil {
		l.wake(owner)
	} else if sock.orphan != nil && gone(e.Events) {
		sock.orphan(sock)
	}
}

// wake resumes a strand that waits.
func (l *Loop) wake(s *Strand) {
	if s.off.Load() {
		select {
		case s.bell <- struct{}{}:
		default:
		}
		return
	}
	l.resume(s)
}

func (l *Loop) resume(s *Strand) {
	if s.ended {
		return
	}
	signal, more := s.next()
	switch {
	case !more:
		l.forget(s)
	case signal == leave:
		go s.runOff() // it is waited for: the loop ends when its strands have
	}
}

func (l *Loop) forget(s *Strand) {
	s.ended = true
	last := l.strands[len(l.strands)-1]
	l.strands[s.index] = last
	last.index = s.index
	l.strands[len(l.strands)-1] = nil
	l.strands = l.strands[:len(l.strands)-1]
	l.load.Add(-1)
}

// read does what others have asked.
func (l *Loop) read() {
	l.rung.Store(false)
	l.mu.Lock()
	messages := l.inbox
	l.inbox = nil
	l.mu.Unlock()
	for _, m := range messages {
		switch m.what {
		case toWake:
			if m.strand != nil {
				l.wake(m.strand)
			} else {
				l.wakeAll()
			}
		case toReturn:
			m.strand.off.Store(false)
			l.resume(m.strand)
		case toEnd:
			l.forget(m.strand)
		case toStart:
			l.begin(m)
		}
	}
}

func (l *Loop) wakeAll() {
	for _, s := range append([]*Strand(nil), l.strands...) {
		l.wake(s)
	}
}

func (l *Loop) begin(m message) {
	s := &Strand{loop: l, index: len(l.strands)}
	l.strands = append(l.strands, s)
	sock, err := s.Adopt(m.fd)
	if err != nil || l.group.killed.Load() {
		if sock != nil {
			_ = sock.Close()
		}
		l.forget(s)
		return
	}
	s.next, _ = iter.Pull(func(yield func(signal) bool) {
		s.yield = yield
		m.start(s, sock)
	})
	l.resume(s)
}

// expire wakes the strands whose deadlines have passed.
func (l *Loop) expire(now time.Duration) {
	for i := len(l.strands) - 1; i >= 0; i-- { // one that ends is replaced by one that was looked at
		s := l.strands[i]
		at := s.deadline.Load()
		if at > 0 && int64(now) >= at && s.deadline.CompareAndSwap(at, expired) {
			l.wake(s)
		}
	}
}
