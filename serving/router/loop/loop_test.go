package loop_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/serving/router/loop"
)

// group runs until the test ends, or stop.
func group(t *testing.T, loops int) (g *loop.Group, stop func()) {
	t.Helper()
	g, err := loop.NewGroup(loops)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { g.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return g, stop
}

// pair is two ends of a connection: a descriptor, and package net's.
func pair(t *testing.T) (int, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[1]), "peer")
	conn, err := net.FileConn(file)
	if err != nil {
		t.Fatal(err)
	}
	_ = file.Close()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return fds[0], conn
}

func TestManyStrandsEchoOnFewLoops(t *testing.T) {
	g, _ := group(t, 2)
	var all sync.WaitGroup
	for range 50 {
		fd, peer := pair(t)
		g.Start(fd, func(_ *loop.Strand, sock *loop.Sock) {
			defer func() { _ = sock.Close() }()
			buffer := make([]byte, 1000)
			for {
				n, err := sock.Read(buffer)
				if err != nil {
					return
				}
				if _, err := sock.Write(buffer[:n]); err != nil {
					return
				}
			}
		})
		all.Go(func() {
			const size = 3 << 20 // far more than sockets hold: writers wait too
			go func() {
				_, _ = peer.Write(make([]byte, size))
				_ = peer.(*net.UnixConn).CloseWrite()
			}()
			if n, err := io.Copy(io.Discard, peer); n != size || err != nil {
				t.Errorf("%d bytes of %d came back, %v", n, size, err)
			}
		})
	}
	all.Wait()
}

func TestAStrandGoesOnOffItsLoopAndBack(t *testing.T) {
	g, _ := group(t, 1)
	fd, peer := pair(t)
	reached, blocked := make(chan struct{}), make(chan struct{})
	g.Start(fd, func(s *loop.Strand, sock *loop.Sock) {
		defer func() { _ = sock.Close() }()
		buffer := make([]byte, 10)
		for range 100 {
			if _, err := sock.Read(buffer[:1]); err != nil {
				t.Error(err)
				return
			}
			s.Leave()
			if !s.Off() {
				t.Error("it has not left")
			}
			if _, err := sock.Read(buffer[1:2]); err != nil { // sockets serve off the loop too
				t.Error(err)
			}
			s.Return()
			if _, err := sock.Write(buffer[:2]); err != nil {
				t.Error(err)
			}
		}
		s.Leave()
		close(reached)
		<-blocked
	})
	answer := make([]byte, 2)
	for range 100 {
		if _, err := peer.Write([]byte("ab")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(peer, answer); err != nil || string(answer) != "ab" {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	<-reached // it blocks, and the loop's only thread does not
	other, peer2 := pair(t)
	g.Start(other, func(_ *loop.Strand, sock *loop.Sock) {
		_, _ = sock.Write([]byte("ok"))
		_ = sock.Close()
	})
	if _, err := io.ReadFull(peer2, answer); err != nil || string(answer) != "ok" {
		t.Errorf("while one strand blocks, another says %q, %v", answer, err)
	}
	close(blocked)
}

func TestADeadlineEndsAWaitAndTheNextBeginsAnew(t *testing.T) {
	g, _ := group(t, 1)
	fd, peer := pair(t)
	errs := make(chan error, 2)
	g.Start(fd, func(s *loop.Strand, sock *loop.Sock) {
		defer func() { _ = sock.Close() }()
		buffer := make([]byte, 10)
		s.SetDeadline(g.Now() + 10*time.Millisecond)
		_, err := sock.Read(buffer)
		errs <- err
		s.SetDeadline(0)
		_, err = sock.Read(buffer)
		errs <- err
	})
	if err := <-errs; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it ended with %v", err)
	}
	_, _ = peer.Write([]byte("x"))
	if err := <-errs; err != nil {
		t.Errorf("the next read ended with %v", err)
	}
}

func TestAnyoneMayWakeAStrand(t *testing.T) {
	g, _ := group(t, 1)
	fd, _ := pair(t)
	parked, woken := make(chan *loop.Strand, 1), make(chan bool, 1)
	g.Start(fd, func(s *loop.Strand, sock *loop.Sock) {
		defer func() { _ = sock.Close() }()
		parked <- s
		woken <- s.Park() == nil
	})
	s := <-parked
	s.Wake()
	if !<-woken {
		t.Error("it was not woken")
	}
	s.Wake() // one that has ended, too
}

func TestAtTheEndEveryStrandIsTold(t *testing.T) {
	g, stop := group(t, 2)
	errs := make(chan error, 20)
	var begun sync.WaitGroup
	for i := range 20 {
		fd, _ := pair(t)
		begun.Add(1)
		g.Start(fd, func(s *loop.Strand, sock *loop.Sock) {
			defer func() { _ = sock.Close() }()
			begun.Done()
			if i%2 == 0 {
				s.Leave()
			}
			_, err := sock.Read(make([]byte, 1))
			errs <- err
		})
	}
	begun.Wait()
	stop()
	for range 20 {
		if err := <-errs; !errors.Is(err, loop.ErrStopped) {
			t.Errorf("one ended with %v", err)
		}
	}
	if g.Strands() != 0 {
		t.Errorf("%d are left", g.Strands())
	}
}

func TestConnectingSaysWhetherSomebodyIsThere(t *testing.T) {
	g, _ := group(t, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(listener.Addr().String())
	try := func() error {
		fd, _ := pair(t)
		result := make(chan error, 1)
		g.Start(fd, func(s *loop.Strand, sock *loop.Sock) {
			defer func() { _ = sock.Close() }()
			to, err := s.Connect(at)
			if err == nil {
				err = to.Close()
			}
			result <- err
		})
		return <-result
	}
	if err := try(); err != nil {
		t.Errorf("somebody listens: %v", err)
	}
	_ = listener.Close()
	if err := try(); err == nil {
		t.Error("nobody listens, and it is connected")
	}
}

func TestAGuardThatGoesEndsTheWait(t *testing.T) {
	g, _ := group(t, 1)
	fd, peer := pair(t)
	other, _ := pair(t)
	errs := make(chan error, 1)
	waits := make(chan struct{})
	g.Start(fd, func(s *loop.Strand, sock *loop.Sock) {
		defer func() { _ = sock.Close() }()
		second, err := s.Adopt(other)
		if err != nil {
			errs <- err
			return
		}
		defer func() { _ = second.Close() }()
		second.Guard(sock)
		close(waits)
		_, err = second.Read(make([]byte, 1))
		errs <- err
	})
	<-waits
	_ = peer.Close()
	if err := <-errs; !errors.Is(err, loop.ErrGuard) {
		t.Errorf("it ended with %v", err)
	}
}

func TestASocketThatIsClosedTouchesNobodyElses(t *testing.T) {
	g, _ := group(t, 1)
	fd, _ := pair(t)
	foreign, peer := pair(t)
	done := make(chan struct{})
	g.Start(fd, func(_ *loop.Strand, sock *loop.Sock) {
		defer close(done)
		_ = sock.Close()
		if again, err := unix.FcntlInt(uintptr(foreign), unix.F_DUPFD_CLOEXEC, fd); err != nil || again != fd {
			t.Errorf("the number %d was not given again, but %d, %v", fd, again, err)
		}
		if _, err := sock.Write([]byte("secret")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write ends with %v", err)
		}
		if _, err := sock.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read ends with %v", err)
		}
		if err := sock.CloseWrite(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("an end of writing ends with %v", err)
		}
		sock.Reset()
	})
	<-done
	_ = unix.Close(foreign)
	_ = unix.Close(fd) // its other number
	if got, err := io.ReadAll(peer); len(got) > 0 || err != nil {
		t.Errorf("%q, %v came to somebody else", got, err)
	}
}

func TestAStrandThatAlwaysHasWorkLetsOthersWork(t *testing.T) {
	g, _ := group(t, 1)
	fd, _ := pair(t)
	other, _ := pair(t)
	second := make(chan struct{})
	g.Start(fd, func(s *loop.Strand, sock *loop.Sock) {
		defer func() { _ = sock.Close() }()
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		from, err := s.Adopt(ends[0])
		if err != nil {
			t.Error(err)
			return
		}
		to, err := s.Adopt(ends[1])
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _, _ = from.Close(), to.Close() }()
		g.Start(other, func(_ *loop.Strand, sock *loop.Sock) {
			_ = sock.Close()
			close(second)
		})
		buffer := make([]byte, 16<<10)
		for range 1000 { // none of this waits
			if _, err := from.Write(buffer); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(to, buffer); err != nil {
				t.Error(err)
			}
			select {
			case <-second:
				return
			default:
			}
		}
		t.Error("the other strand has not run meanwhile")
	})
	<-second
}

func BenchmarkSwitch(b *testing.B) {
	g, err := loop.NewGroup(1)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go g.Run(ctx)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	g.Start(fds[0], func(_ *loop.Strand, sock *loop.Sock) {
		_, _ = io.Copy(struct{ io.Writer }{sock}, struct{ io.Reader }{sock})
		_ = sock.Close()
	})
	g.Start(fds[1], func(_ *loop.Strand, sock *loop.Sock) {
		one := []byte("x")
		for b.Loop() {
			_, _ = sock.Write(one)
			_, _ = sock.Read(one)
		}
		_ = sock.Close()
		close(done)
	})
	<-done
}
