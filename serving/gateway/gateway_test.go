package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/memnet"
	"github.com/clary-ml/clary/serving/gateway"
	"github.com/clary-ml/clary/serving/route"
)

const (
	address = "10.0.0.1:7424"
	task    = "shop/blue-1-0/replica-0.1"
)

// node is an agent with one task, which echoes what it is told until it is told no more, and then says
// bye; all in a bubble.
type node struct {
	*testing.T
	net       memnet.Network
	ca        *pki.Authority
	shown     *pki.Current // by the node
	ended     chan struct{}
	resumed   chan bool // of each handshake
	connected chan struct{}
}

func inBubble(t *testing.T, limit int, test func(*node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ca, err := pki.NewAuthority("test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		n := &node{T: t, ca: ca, ended: make(chan struct{}), resumed: make(chan bool, 100), connected: make(chan struct{}, 100)}
		n.serve(limit)
		test(n)
	})
}

func (n *node) serve(limit int) {
	n.Helper()
	host := n.net.Host("10.0.0.1")
	echo, err := host.Listen("10.0.0.1:20000")
	if err != nil {
		n.Fatal(err)
	}
	listener, err := host.Listen(address)
	if err != nil {
		n.Fatal(err)
	}
	n.shown = pki.NewCurrent(n.source(n.ca, pki.Node{Role: pki.Agent, ID: "n1"})())
	config := pki.MutualTLS(n.shown.Get, gateway.Expect)
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		n.resumed <- state.DidResume
		return verify(state)
	}
	mux := alpn.New(listener, config, slog.New(slog.DiscardHandler), gateway.Protocol)
	server := gateway.New(gateway.Config{Connections: limit, Log: slog.New(slog.DiscardHandler), Reach: func(ctx context.Context, id string) (net.Conn, <-chan struct{}, error) {
		if id != task {
			return nil, nil, fault.New(fault.NotFound, "task %s is not on this node", id)
		}
		conn, err := host.Dial(ctx, "10.0.0.1:20000")
		return conn, n.ended, err
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = mux.Run(ctx) })
	running.Go(func() {
		if err := server.Serve(ctx, mux.On(gateway.Protocol)); !errors.Is(err, context.Canceled) {
			n.Error(err)
		}
	})
	running.Go(func() {
		for conn, err := echo.Accept(); err == nil; conn, err = echo.Accept() {
			n.connected <- struct{}{}
			running.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
				_, _ = conn.Write([]byte("bye"))
			})
		}
	})
	n.Cleanup(func() {
		cancel()
		_ = echo.Close()
		running.Wait()
		time.Sleep(time.Minute) // of the bubble: what only waits for its time to be over
	})
}

func (n *node) source(ca *pki.Authority, identity pki.Identity) pki.Source {
	n.Helper()
	key, err := pki.NewKey()
	if err != nil {
		n.Fatal(err)
	}
	certificate, err := ca.Issue(key.Public(), pki.Request{Identity: identity, Validity: pki.NodeValidity}, time.Now())
	if err != nil {
		n.Fatal(err)
	}
	credentials, err := member.Credentials(certificate, key, ca.CertPEM())
	if err != nil {
		n.Fatal(err)
	}
	return credentials.Static()
}

func (n *node) dialer() *gateway.Dialer {
	n.Helper()
	return gateway.NewDialer(n.net.Host("10.0.0.9"), n.source(n.ca, pki.Node{Role: pki.Coordinator, ID: "c1"}))
}

var replica = route.Replica{ID: task, Node: "n1", Address: address, Gateway: true}

func (n *node) dial(d *gateway.Dialer) net.Conn {
	n.Helper()
	conn, err := d.Dial(n.Context(), replica)
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestBytesGoThroughBothWaysAndSoDoesTheirEnd(t *testing.T) {
	inBubble(t, 0, func(n *node) {
		conn := n.dial(n.dialer())
		said := make([]byte, 1<<20)
		_, _ = rand.Read(said)
		go func() {
			_, _ = conn.Write(said)
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
		}()
		heard, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(heard, append(said, "bye"...)) {
			n.Errorf("%d bytes came back, %v", len(heard), err)
		}
	})
}

func TestAConnectionToAReplicaWithoutAGatewayIsItsOwn(t *testing.T) {
	inBubble(t, 0, func(n *node) {
		conn, err := gateway.NewDialer(n.net.Host("10.0.0.9"), nil).Dial(n.Context(), route.Replica{ID: "by hand", Address: "10.0.0.1:20000"})
		if err != nil {
			n.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("hello\n")); err != nil {
			n.Fatal(err)
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); line != "hello\n" {
			n.Errorf("it said %q, %v", line, err)
		}
	})
}

func TestTheNextConnectionsToANodeResumeTheirSession(t *testing.T) {
	inBubble(t, 0, func(n *node) {
		dialer := n.dialer()
		for i := range 3 {
			n.dial(dialer)
			if resumed := <-n.resumed; resumed != (i > 0) {
				n.Errorf("connection %d resumed: %v", i, resumed)
			}
		}
	})
}

// A CA is dropped at both ends: what was made under it is not used again, neither a connection nor a session.
func TestNothingFromBeforeACAWasDroppedIsUsedAgain(t *testing.T) {
	inBubble(t, 0, func(n *node) {
		router := pki.NewCurrent(n.source(n.ca, pki.Node{Role: pki.Coordinator, ID: "c1"})())
		dialer := gateway.NewDialer(n.net.Host("10.0.0.9"), router.Get)
		n.dial(dialer)
		before := n.dial(dialer)
		next, err := pki.NewAuthority("test", time.Now())
		if err != nil {
			n.Fatal(err)
		}
		for at, identity := range map[*pki.Current]pki.Node{router: {Role: pki.Coordinator, ID: "c1"}, n.shown: {Role: pki.Agent, ID: "n1"}} {
			renewed := n.source(next, identity)()
			if err := at.Update(func(pki.Credentials) (pki.Credentials, error) { return renewed, nil }); err != nil {
				n.Fatal(err)
			}
		}
		if before.(interface{ Alive() bool }).Alive() {
			n.Error("a connection under a CA that was dropped says that it can be used again")
		}
		n.dial(dialer) // with a session of before it would be refused, each time
	})
}

func TestWhoIsNoRouterGetsNoConnection(t *testing.T) {
	inBubble(t, 0, func(n *node) {
		other, err := pki.NewAuthority("other", time.Now())
		if err != nil {
			n.Fatal(err)
		}
		agent := pki.Node{Role: pki.Agent, ID: "n2"}
		for claim, c := range map[string]struct {
			source pki.Source
			reach  bool
		}{
			"an agent":                           {n.source(n.ca, agent), true},
			"a task":                             {n.source(n.ca, pki.Task{Job: "shop", Gang: "blue", Attempt: 1, Role: "replica"}), false},
			"an agent of another cluster":        {n.source(other, agent), false},
			"nobody, to a replica with gateways": {nil, false},
		} {
			conn, err := gateway.NewDialer(n.net.Host("10.0.0.9"), c.source).Dial(n.Context(), replica)
			if (err == nil) != c.reach {
				n.Errorf("%s: %v", claim, err)
			}
			if err == nil {
				_ = conn.Close()
			}
		}
		elsewhere := replica
		elsewhere.Node = "n7"
		if _, err := n.dialer().Dial(n.Context(), elsewhere); err == nil || !strings.Contains(err.Error(), `the agent of node "n7" is expected`) {
			n.Errorf("another node answers for it: %v", err)
		}
	})
}

func TestARefusalSaysWhyAndReachesNobody(t *testing.T) {
	inBubble(t, 0, func(n *node) {
		gone := replica
		gone.ID = "shop/blue-1-0/replica-0.7"
		if _, err := n.dialer().Dial(n.Context(), gone); !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "not on this node") {
			n.Errorf("an unknown task: %v", err)
		}
		bad := replica
		bad.ID = "two\nlines"
		if _, err := n.dialer().Dial(n.Context(), bad); !fault.Is(err, fault.Invalid) {
			n.Errorf("a name of two lines: %v", err)
		}
		away := replica
		away.Address = "10.0.0.1:1"
		if _, err := n.dialer().Dial(n.Context(), away); !fault.Is(err, fault.Unready) {
			n.Errorf("nobody listens: %v", err)
		}
		if len(n.connected) > 0 {
			n.Error("a server was reached all the same")
		}
	})
}

func TestMoreConnectionsThanThereMayBeAreToldSo(t *testing.T) {
	inBubble(t, 2, func(n *node) {
		dialer := n.dialer()
		first := n.dial(dialer)
		n.dial(dialer)
		if _, err := dialer.Dial(n.Context(), replica); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "2 connections") {
			n.Errorf("the third: %v", err)
		}
		_ = first.Close()
		time.Sleep(time.Second)
		n.dial(dialer)
	})
}

func TestWhoSaysNothingIsHungUpOn(t *testing.T) {
	inBubble(t, 1, func(n *node) {
		for _, say := range []string{"", "serve ", "GET / HTTP/1.1\r\n\r\n", strings.Repeat("x", 2*gateway.MaxLine)} {
			raw, err := n.net.Host("10.0.0.9").Dial(n.Context(), address)
			if err != nil {
				n.Fatal(err)
			}
			conn := tls.Client(raw, pki.ClientTLS(n.source(n.ca, pki.Node{Role: pki.Coordinator, ID: "c1"}), pki.ExpectNode(pki.Agent), gateway.Protocol))
			if _, err := io.WriteString(conn, say); err != nil {
				n.Fatal(err)
			}
			began := time.Now()
			text, _ := io.ReadAll(conn)
			if took := time.Since(began); took > 15*time.Second {
				n.Errorf("%.20q is hung up on after %s", say, took)
			}
			if strings.HasPrefix(say, "GET") && !strings.HasPrefix(string(text), "no invalid: ") {
				n.Errorf("%.20q is answered %q", say, text)
			}
			_ = conn.Close()
			time.Sleep(time.Second)
		}
		n.dial(n.dialer()) // the one place is free again
	})
}

func TestConnectionsEndWithTheirTaskAndWhatItSaidIsBrought(t *testing.T) {
	inBubble(t, 0, func(n *node) {
		conn := n.dial(n.dialer())
		if _, err := fmt.Fprintln(conn, "last words"); err != nil {
			n.Fatal(err)
		}
		synctest.Wait()
		close(n.ended)
		began := time.Now()
		text, _ := io.ReadAll(conn)
		if string(text) != "last words\n" || time.Since(began) > 10*time.Second {
			n.Errorf("%q came within %s", text, time.Since(began))
		}
	})
}

func TestAClientThatTakesNothingIsNotWaitedForWhenItsTaskHasEnded(t *testing.T) {
	inBubble(t, 1, func(n *node) {
		conn := n.dial(n.dialer())
		wrote := make(chan struct{})
		go func() { // until the echo fills all that is between
			defer close(wrote)
			chunk := make([]byte, 1<<16)
			for {
				_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
				if _, err := conn.Write(chunk); err != nil {
					return
				}
			}
		}()
		<-wrote
		close(n.ended)
		time.Sleep(10 * time.Second)
		n.ended = make(chan struct{})
		n.dial(n.dialer()) // its place is free again
	})
}

func TestAConnectionThatItsTaskHasClosedSaysSoBeforeItIsUsedAgain(t *testing.T) {
	n := &node{T: t}
	var err error
	if n.ca, err = pki.NewAuthority("test", time.Now()); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan struct{})
	mux := alpn.New(listener, pki.MutualTLS(n.source(n.ca, pki.Node{Role: pki.Agent, ID: "n1"}), gateway.Expect), slog.New(slog.DiscardHandler), gateway.Protocol)
	server := gateway.New(gateway.Config{Log: slog.New(slog.DiscardHandler), Reach: func(context.Context, string) (net.Conn, <-chan struct{}, error) {
		here, there := net.Pipe()
		go func() { // a task that answers once
			buffer := make([]byte, 4)
			_, _ = io.ReadFull(there, buffer)
			_, _ = there.Write(buffer)
			<-end
			_ = there.Close()
		}()
		return here, nil, nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = mux.Run(ctx) })
	running.Go(func() { _ = server.Serve(ctx, mux.On(gateway.Protocol)) })
	t.Cleanup(func() { cancel(); running.Wait() })
	conn, err := gateway.NewDialer(member.TCP{}, n.source(n.ca, pki.Node{Role: pki.Coordinator, ID: "c1"})).Dial(t.Context(), route.Replica{ID: task, Node: "n1", Address: listener.Addr().String(), Gateway: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(-time.Second)) // as a pool leaves it
	alive := conn.(interface{ Alive() bool }).Alive
	if !alive() {
		t.Fatal("a connection that is good says that it is not")
	}
	close(end)
	for deadline := time.Now().Add(20 * time.Second); alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a connection that was closed says that it is good")
		}
	}
}
