package alpn_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/internal/alpn"
)

// soon is how long the other side may take; nothing here should take a tenth of it.
const soon = 8 * time.Second

// port is a mux that runs, with the protocols h2 and other. It may change its TLS settings before.
type port struct {
	*alpn.Mux
	address string
	end     func() error // ends it, and returns what Run did
}

func open(t *testing.T, change func(*port, *tls.Config)) *port {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	p := &port{address: listener.Addr().String()}
	if change != nil {
		change(p, config)
	}
	p.Mux = alpn.New(listener, config, slog.New(slog.DiscardHandler), alpn.GRPC, "other")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	p.end = func() error {
		cancel()
		select {
		case err := <-ended:
			ended <- err
			return err
		case <-time.After(soon):
			return errors.New("it does not end")
		}
	}
	t.Cleanup(func() { _ = p.end() })
	return p
}

// dial connects by TLS as a name that asks for a protocol.
func (p *port) dial(t *testing.T, name, protocol string) *tls.Conn {
	t.Helper()
	config := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	if protocol != "" {
		config.NextProtos = []string{protocol}
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: soon}, "tcp", p.address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// accepted is the next connection that arrives at a side.
func (p *port) accepted(t *testing.T, protocol string) net.Conn {
	t.Helper()
	arrived := make(chan net.Conn, 1)
	go func() { // ends with the mux
		if conn, err := p.On(protocol).Accept(); err == nil {
			arrived <- conn
		}
	}()
	select {
	case conn := <-arrived:
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	case <-time.After(soon):
		t.Fatalf("nobody arrives at the side of %s", protocol)
		return nil
	}
}

// closed reports whether the other side has closed a connection.
func closed(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(soon))
	_, err := conn.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

func TestEachProtocolArrivesAtItsOwnSideAndNoneAtTheFirst(t *testing.T) {
	p := open(t, nil)
	for asks, side := range map[string]string{alpn.GRPC: alpn.GRPC, "other": "other", "": alpn.GRPC} {
		conn := p.dial(t, "a", asks)
		there := p.accepted(t, side)
		if _, err := there.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 5)
		if _, err := io.ReadFull(conn, text); err != nil || string(text) != "hello" {
			t.Errorf("who asks for %q reads %q, %v", asks, text, err)
		}
	}
}

func TestWhoSpeaksNoTLSIsToldWhatToDo(t *testing.T) {
	p := open(t, nil)
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(soon))
	if text, err := io.ReadAll(conn); err != nil || !strings.Contains(string(text), "this port speaks TLS 1.3 only") {
		t.Errorf("it reads %q, %v", text, err)
	}
}

func TestACrowdThatSaysNothingKeepsNobodyOut(t *testing.T) {
	p := open(t, nil)
	var silent []net.Conn
	for range 600 { // more than may shake hands at once
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	p.dial(t, "a", alpn.GRPC)
	p.accepted(t, alpn.GRPC)
	if !closed(silent[0]) {
		t.Error("the one that has been silent for longest is still there")
	}
}

func TestWhoIsNotAdmittedAnyMoreIsHungUpOn(t *testing.T) {
	p := open(t, nil)
	good, bad := p.dial(t, "good", alpn.GRPC), p.dial(t, "bad", "other")
	there := p.accepted(t, alpn.GRPC)
	p.accepted(t, "other")
	p.HangUp(func(state tls.ConnectionState) error {
		if state.ServerName == "bad" {
			return errors.New("revoked")
		}
		return nil
	})
	if !closed(bad) {
		t.Error("who was revoked is still connected")
	}
	if _, err := there.Write([]byte{1}); err != nil {
		t.Error(err)
	}
	if _, err := good.Read(make([]byte, 1)); err != nil {
		t.Errorf("who was not revoked reads %v", err)
	}
}

// Between the check of a certificate and the end of its handshake somebody may be revoked.
func TestAHandshakeThatWasUnderWayIsLookedAtAgain(t *testing.T) {
	var looks atomic.Int64
	p := open(t, func(p *port, config *tls.Config) {
		config.VerifyConnection = func(tls.ConnectionState) error {
			if looks.Add(1) > 1 {
				return errors.New("revoked")
			}
			p.HangUp(func(tls.ConnectionState) error { return errors.New("revoked") })
			return nil
		}
	})
	conn := p.dial(t, "a", alpn.GRPC)
	if !closed(conn) || looks.Load() != 2 {
		t.Errorf("it was looked at %d times, and let in", looks.Load())
	}
}

func TestTheEndDoesNotWaitForWhoSaysNothing(t *testing.T) {
	p := open(t, nil)
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p.dial(t, "a", alpn.GRPC) // it came later, so the first has been taken
	p.accepted(t, alpn.GRPC)
	if err := p.end(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// stands reports whether a connection is not ended.
func stands(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	_, err := conn.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// A crowd from one address has all places but those that others want: it is not the crowd that decides who is served.
func TestWhoComesFromAnAddressWithFewTakesAPlaceOfTheAddressWithMost(t *testing.T) {
	p := open(t, nil)
	p.Guests, p.GuestsFrom = 8, 8
	var served sync.WaitGroup
	served.Go(func() { // reads what comes, until the end
		for {
			conn, err := p.On(alpn.GRPC).Accept()
			if err != nil {
				return
			}
			served.Go(func() { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() })
		}
	})
	from := func(address string) *tls.Conn {
		t.Helper()
		dialer := &net.Dialer{Timeout: soon, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
		conn, err := tls.DialWithDialer(dialer, "tcp", p.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn.GRPC}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	standing := func(conns []*tls.Conn) (n int) {
		for _, conn := range conns {
			if stands(conn) {
				n++
			}
		}
		return n
	}
	var crowd, others []*tls.Conn
	for range 10 {
		crowd = append(crowd, from("127.0.0.2"))
	}
	if n := standing(crowd); n != 8 {
		t.Fatalf("%d of one address stand, want 8", n)
	}
	if _, err := crowd[0].Write([]byte("I live")); err != nil {
		t.Fatal(err)
	}
	for p.Counts().Guests != 8 {
		t.Fatalf("it counts %+v", p.Counts())
	}
	_ = stands(crowd[0]) // what it said has come
	for range 6 {
		others = append(others, from("127.0.0.3"))
	}
	if a, b := standing(crowd), standing(others); a != 4 || b != 4 {
		t.Errorf("%d of the crowd and %d others stand, want 4 and 4", a, b)
	}
	if !stands(crowd[0]) {
		t.Error("of the crowd the one that said something last is ended")
	}
	third := from("127.0.0.4")
	if !stands(third) || standing(crowd)+standing(others) != 7 {
		t.Error("who comes from a third address is not let in")
	}
	if counts := p.Counts(); counts.Guests != 8 || counts.Refused != 2+4+2+1 {
		t.Errorf("it counts %+v", counts)
	}
	for _, conn := range append(append(crowd, others...), third) {
		_ = conn.Close()
	}
	if err := p.end(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	served.Wait()
}
