package loop

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrWait is what a read of a socket that is only tried ends with when there is nothing yet. TLS
// takes it as passing.
var ErrWait net.Error = passing{}

type passing struct{}

func (passing) Error() string   { return "nothing is there yet" }
func (passing) Timeout() bool   { return false }
func (passing) Temporary() bool { return true }

// ErrGuard is what a wait for one socket ends with when the one that guards it is closed by its peer.
var ErrGuard = errors.New("who asked has gone")

const (
	readable = unix.EPOLLIN
	writable = unix.EPOLLOUT
	finished = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

func gone(bits uint32) bool { return bits&finished != 0 }

// Sock is a stream socket that belongs to a loop and, while it is in use, to a strand of it. It is a
// net.Conn whose deadlines are the strand's.
type Sock struct {
	fd     int
	gen    uint32
	loop   *Loop
	bits   atomic.Uint32 // what epoll has told since it was last used up
	owner  atomic.Pointer[Strand]
	closed atomic.Bool
	guard  *Sock
	try    bool
	orphan func(*Sock)

	mu      sync.Mutex
	reading net.Conn // see Alarm
}

var _ net.Conn = (*Sock)(nil)

// Adopt takes over a connected, non-blocking socket. If it cannot, the socket is closed.
func (s *Strand) Adopt(fd int) (*Sock, error) {
	l := s.loop
	if fd >= len(l.group.sockets) {
		return nil, errors.Join(os.NewSyscallError("socket", unix.EMFILE), unix.Close(fd))
	}
	sock := &Sock{fd: fd, gen: l.gen.Add(1), loop: l}
	sock.bits.Store(writable)
	sock.owner.Store(s)
	l.group.sockets[fd].Store(sock)
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd), Pad: int32(sock.gen)}
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		_ = sock.Close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return sock, nil
}

// Take takes over the socket of a TCP or Unix connection, which is of no use afterwards. It returns
// false, and leaves conn alone, if that is another kind of connection.
func (s *Strand) Take(conn net.Conn) (*Sock, bool, error) {
	raw, ok := conn.(syscall.Conn)
	if !ok {
		return nil, false, nil
	}
	inner, err := raw.SyscallConn()
	if err != nil {
		return nil, false, nil //nolint // it has no socket: not an error of anybody's
	}
	fd, dup := -1, error(nil)
	if err := inner.Control(func(p uintptr) { fd, dup = unix.FcntlInt(p, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || dup != nil {
		return nil, true, errors.Join(err, dup, conn.Close())
	}
	_ = conn.Close()
	sock, err := s.Adopt(fd)
	return sock, true, err
}

// Connect makes a TCP connection, without leaving the loop.
func (s *Strand) Connect(to netip.AddrPort) (*Sock, error) {
	domain, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()})
	if !to.Addr().Unmap().Is4() {
		domain, address = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := unix.Connect(fd, address); err != nil && err != unix.EINPROGRESS {
		return nil, errors.Join(os.NewSyscallError("connect", err), unix.Close(fd))
	}
	sock, err := s.Adopt(fd)
	if err != nil {
		return nil, err
	}
	sock.bits.Store(0)
	for sock.bits.Load()&(writable|finished) == 0 {
		if err := s.Park(); err != nil {
			_ = sock.Close()
			return nil, err
		}
	}
	if code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || code != 0 {
		return nil, errors.Join(os.NewSyscallError("connect", syscall.Errno(code)), sock.Close())
	}
	return sock, nil
}

// Give lets nobody own the socket, until Own. If its peer closes it meanwhile, orphan is called on
// the loop.
func (k *Sock) Give(orphan func(*Sock)) {
	k.guard = nil
	k.orphan = orphan
	k.owner.Store(nil)
}

// Own makes the socket the strand's. They are of the same loop.
func (k *Sock) Own(s *Strand) { k.owner.Store(s) }

// Gone reports whether the peer has closed it, in its direction at least.
func (k *Sock) Gone() bool { return gone(k.bits.Load()) }

// Readable reports whether a read would not wait, as far as is known.
func (k *Sock) Readable() bool { return k.bits.Load()&(readable|finished) != 0 }

// Guard ends waits for this socket with ErrGuard when the other one's peer is gone.
func (k *Sock) Guard(by *Sock) { k.guard = by }

// Alarm is Guard for some other library's connection: a read of that ends at once, late, when this
// socket's peer goes. It holds until Alarm(nil), after which the connection is left alone.
func (k *Sock) Alarm(reading net.Conn) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reading = reading
	if k.Gone() {
		k.alarm()
	}
}

// alarm is called with the lock held.
func (k *Sock) alarm() {
	if k.reading != nil {
		_ = k.reading.SetReadDeadline(time.Unix(1, 0))
	}
}

// Try makes reads end with ErrWait instead of waiting.
func (k *Sock) Try(on bool) { k.try = on }

// Await waits until a read would not.
func (k *Sock) Await() error {
	s := k.owner.Load()
	for !k.Readable() {
		if k.try {
			return ErrWait
		}
		if k.guard != nil && k.guard.Gone() {
			return ErrGuard
		}
		if err := s.Park(); err != nil {
			return err
		}
	}
	return nil
}

// Read reads what is there, and waits if there is nothing.
func (k *Sock) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if k.closed.Load() { // its number may be somebody else's by now
			return 0, net.ErrClosed
		}
		if err := k.Await(); err != nil {
			return 0, err
		}
		// What comes between this and the read sets it again: no news is lost.
		k.bits.And(^uint32(readable))
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(k.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
		switch errno {
		case 0:
			if int(n) == len(p) {
				k.bits.Or(readable) // perhaps there is more
			}
			if n == 0 {
				return 0, io.EOF
			}
			k.owner.Load().moved(int(n))
			return int(n), nil
		case unix.EINTR:
			k.bits.Or(readable)
		case unix.EAGAIN:
			if gone(k.bits.Load()) { // it was told twice
				return 0, io.EOF
			}
		default:
			return 0, os.NewSyscallError("recv", errno)
		}
	}
}

// Write writes all of p.
func (k *Sock) Write(p []byte) (int, error) {
	written, again := 0, false
	for written < len(p) {
		if k.closed.Load() {
			return written, net.ErrClosed
		}
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(k.fd), uintptr(unsafe.Pointer(&p[written])), uintptr(len(p)-written), unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			written += int(n)
			k.owner.Load().moved(int(n))
		case unix.EINTR:
		case unix.EAGAIN:
			if !again { // room that was made before this is not told again: ask once more
				k.bits.And(^uint32(writable))
				again = true
				continue
			}
			again = false
			if err := k.waitWrite(); err != nil {
				return written, err
			}
		default:
			return written, os.NewSyscallError("send", errno)
		}
	}
	return written, nil
}

func (k *Sock) waitWrite() error {
	s := k.owner.Load()
	for k.bits.Load()&(writable|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
		if err := s.Park(); err != nil {
			return err
		}
	}
	return nil
}

// CloseWrite tells the peer that nothing more comes.
func (k *Sock) CloseWrite() error {
	if k.closed.Load() {
		return net.ErrClosed
	}
	return os.NewSyscallError("shutdown", unix.Shutdown(k.fd, unix.SHUT_WR))
}

// Close closes the socket; again does nothing. What is asked of it afterwards is net.ErrClosed.
func (k *Sock) Close() error {
	if k.closed.Swap(true) {
		return nil
	}
	k.loop.group.sockets[k.fd].CompareAndSwap(k, nil)
	return os.NewSyscallError("close", unix.Close(k.fd))
}

// Reset makes Close tell the peer that something went wrong, so that what it has is not taken as whole.
func (k *Sock) Reset() {
	if k.closed.Load() {
		return
	}
	_ = unix.SetsockoptLinger(k.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// LocalAddr and RemoteAddr are of a net.Conn; nobody asks.
func (k *Sock) LocalAddr() net.Addr { return &net.TCPAddr{} }

// RemoteAddr is the peer's.
func (k *Sock) RemoteAddr() net.Addr {
	if to, err := unix.Getpeername(k.fd); err == nil {
		return net.TCPAddrFromAddrPort(AddrPort(to))
	}
	return &net.TCPAddr{}
}

// AddrPort is a socket's address; the zero one if that is not of IP.
func AddrPort(of unix.Sockaddr) netip.AddrPort {
	switch a := of.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// SetDeadline does nothing: the strand has the deadline.
func (k *Sock) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (k *Sock) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (k *Sock) SetWriteDeadline(time.Time) error { return nil }
