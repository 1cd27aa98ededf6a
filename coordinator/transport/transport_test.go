package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/transport"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/memnet"
)

const host = "10.0.0.1"

// port is a coordinator's port with gRPC behind it, in a bubble.
type port struct {
	*testing.T
	net  memnet.Network
	ca   *pki.Authority
	raft *transport.Raft
	mux  *alpn.Mux // of the port that was opened last
	// guests are how many the next port takes of those without a certificate, in all and from one address; nil: as many as always.
	guests *[2]int
}

func inBubble(t *testing.T, test func(*port)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &port{T: t, ca: newCA(t)}
		p.raft = p.open(host+":7420", "c1")
		test(p)
	})
}

func newCA(t *testing.T) *pki.Authority {
	t.Helper()
	ca, err := pki.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// open serves at an address until the test ends.
func (p *port) open(address, id string) *transport.Raft {
	p.Helper()
	listener, err := p.net.Host(strings.Split(address, ":")[0]).Listen(address)
	if err != nil {
		p.Fatal(err)
	}
	source := p.source(p.ca, pki.Node{Role: pki.Coordinator, ID: id})
	log := slog.New(slog.DiscardHandler)
	mux := alpn.New(listener, pki.ServerTLS(source), log, alpn.GRPC, transport.ProtocolRaft)
	p.mux = mux
	if p.guests != nil {
		mux.Guests, mux.GuestsFrom = p.guests[0], p.guests[1]
	}
	raft := transport.NewRaft(p.net.Host(host), mux.On(transport.ProtocolRaft), transport.ProtocolRaft, address, source, func(string) string { return "" }, log)
	server := grpc.NewServer(grpc.Creds(alpn.Accepted()))
	healthv1.RegisterHealthServer(server, health.NewServer())
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := mux.Run(ctx); !errors.Is(err, context.Canceled) {
			p.Error(err)
		}
	})
	running.Go(func() { _ = server.Serve(mux.On(alpn.GRPC)) })
	p.Cleanup(func() {
		server.Stop()
		cancel()
		_ = raft.Close()
		running.Wait()
		time.Sleep(time.Minute) // of the bubble: what only waits for its time to be over
	})
	return raft
}

func (p *port) source(ca *pki.Authority, identity pki.Identity) pki.Source {
	p.Helper()
	key, err := pki.NewKey()
	if err != nil {
		p.Fatal(err)
	}
	certificate, err := ca.Issue(key.Public(), pki.Request{Identity: identity, Validity: pki.NodeValidity}, time.Now())
	if err != nil {
		p.Fatal(err)
	}
	credentials, err := member.Credentials(certificate, key, ca.CertPEM())
	if err != nil {
		p.Fatal(err)
	}
	return credentials.Static()
}

func (p *port) dial() net.Conn {
	p.Helper()
	conn, err := p.net.Host("10.0.0.9").Dial(p.Context(), host+":7420")
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestAClientWithoutTLSIsToldWhatToDo(t *testing.T) {
	inBubble(t, func(p *port) {
		conn := p.dial()
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: clary\r\n\r\n")); err != nil {
			p.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "TLS 1.3 only") {
			p.Errorf("answered %q, %v", answer, err)
		}
	})
}

func TestWhoSaysNothingIsHungUpOn(t *testing.T) {
	for name, says := range map[string][]byte{
		"nothing at all":           nil,
		"a handshake's first byte": {22},
		"half a handshake":         {22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(p *port) {
				conn, began := p.dial(), time.Now()
				if _, err := conn.Write(says); err != nil {
					p.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, conn)
				if took := time.Since(began); took < time.Second || took > 15*time.Second {
					p.Errorf("after %s", took)
				}
			})
		})
	}
}

func TestADripOfBytesDoesNotHoldAHandshakeOpen(t *testing.T) {
	inBubble(t, func(p *port) {
		conn, began := p.dial(), time.Now()
		_, err := conn.Write([]byte{22, 3, 1, 2, 0})
		for err == nil && time.Since(began) < time.Minute {
			time.Sleep(time.Second)
			_, err = conn.Write([]byte{1})
		}
		if took := time.Since(began); took > 15*time.Second {
			p.Errorf("hung up after %s", took)
		}
	})
}

// Guests keep places from one another, by the address that they come from, and never from members.
func TestOfGuestsOnlySoManyAreTaken(t *testing.T) {
	inBubble(t, func(p *port) {
		const at = "10.0.0.5:7420"
		p.guests = &[2]int{3, 2}
		other := p.open(at, "c2")
		defer other.Close()
		enter := func(from string, source pki.Source) (net.Conn, bool) {
			p.Helper()
			raw, err := p.net.Host(from).Dial(p.Context(), at)
			if err != nil {
				p.Fatal(err)
			}
			p.Cleanup(func() { _ = raw.Close() })
			conn := tls.Client(raw, blind(source, "h2"))
			if err := conn.HandshakeContext(p.Context()); err != nil {
				p.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err = conn.Read(make([]byte, 1)) // a server of HTTP/2 speaks first
			return conn, err == nil
		}
		member := p.source(p.ca, pki.Node{Role: pki.Agent, ID: "n1"})
		var first net.Conn
		for i, c := range []struct {
			from   string
			source pki.Source
			taken  bool
		}{
			{"10.0.0.8", nil, true},
			{"10.0.0.8", nil, true},
			{"10.0.0.8", nil, false},
			{"10.0.0.9", nil, true},
			{"10.0.0.9", nil, false}, // it would have as many as the other address has left
			{"10.0.0.8", member, true},
			{"10.0.0.10", member, true},
		} {
			conn, taken := enter(c.from, c.source)
			if taken != c.taken {
				p.Errorf("the %d. connection, from %s: taken %t", i, c.from, taken)
			}
			if first == nil {
				first = conn
			}
		}
		if counts := p.mux.Counts(); counts != (alpn.Counts{Members: 2, Guests: 3, Refused: 2}) {
			p.Errorf("it counts %+v", counts)
		}
		_ = first.Close()
		synctest.Wait()
		if _, taken := enter("10.0.0.10", nil); !taken {
			p.Error("a place that was given back is not taken")
		}
	})
}

// blind is a client that trusts everyone.
func blind(source pki.Source, protocol string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, NextProtos: []string{protocol}}
	if source != nil {
		config.GetClientCertificate = pki.ClientTLS(source, nil).GetClientCertificate
	}
	return config
}

// heard reports what becomes of a client that shakes hands and then waits to be spoken to.
func (p *port) heard(config *tls.Config) error {
	conn := tls.Client(p.dial(), config)
	if err := conn.HandshakeContext(p.Context()); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := conn.Read(make([]byte, 1))
	return err
}

func TestStrangersGetNoConnection(t *testing.T) {
	inBubble(t, func(p *port) {
		other := newCA(p.T)
		c2 := pki.Node{Role: pki.Coordinator, ID: "c2"}
		old := blind(nil, "h2")
		old.MaxVersion = tls.VersionTLS12
		task := pki.Task{Job: "j", Gang: "main", Attempt: 1, Role: "worker"}
		for _, c := range []struct {
			name   string
			config *tls.Config
			want   string
		}{
			{"TLS 1.2", old, "protocol version"},
			{"a certificate of another CA", blind(p.source(other, c2), "h2"), "bad certificate"},
			{"raft, with a certificate of another CA", blind(p.source(other, c2), transport.ProtocolRaft), "bad certificate"},
			{"raft without a certificate", blind(nil, transport.ProtocolRaft), "EOF"},
			{"raft with an agent's certificate", blind(p.source(p.ca, pki.Node{Role: pki.Agent, ID: "n1"}), transport.ProtocolRaft), "EOF"},
			{"raft with a task's certificate", blind(p.source(p.ca, task), transport.ProtocolRaft), "EOF"},
			{"another protocol", blind(nil, "smtp"), "no application protocol"},
			{"raft, of another life of the cluster", blind(p.source(p.ca, c2), transport.RaftProtocol("00000000ff-later")), "no application protocol"},
		} {
			if err := p.heard(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
				p.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		}
		// Raft waits for the other to begin: a good peer is not hung up on.
		if err := p.heard(blind(p.source(p.ca, c2), transport.ProtocolRaft)); !strings.Contains(err.Error(), "timeout") {
			p.Errorf("a coordinator: %v", err)
		}
	})
}

func TestManyConnectionsAtOnceAllGetThrough(t *testing.T) {
	inBubble(t, func(p *port) {
		var clients sync.WaitGroup
		for range 60 {
			source := p.source(p.ca, pki.Node{Role: pki.Agent, ID: "n1"})
			clients.Go(func() {
				conn, err := member.Dial(p.net.Host("10.0.0.9"), host+":7420", source, pki.ExpectNode(pki.Coordinator))
				if err != nil {
					p.Error(err)
					return
				}
				defer conn.Close()
				if _, err := healthv1.NewHealthClient(conn).Check(p.Context(), &healthv1.HealthCheckRequest{}); err != nil {
					p.Error(err)
				}
			})
		}
		clients.Wait()
	})
}

func TestAPeerThatMovedIsFoundWhereItIsNow(t *testing.T) {
	inBubble(t, func(p *port) {
		where := host + ":7420"
		peers := transport.NewPeers(p.net.Host("10.0.0.9"), pki.Coordinator, "", p.source(p.ca, pki.Node{Role: pki.Coordinator, ID: "c2"}), func(string) string { return where })
		p.Cleanup(peers.Close)
		check := func() (*grpc.ClientConn, error) {
			conn, err := peers.Conn("c1")
			if err != nil {
				return nil, err
			}
			_, err = healthv1.NewHealthClient(conn).Check(p.Context(), &healthv1.HealthCheckRequest{})
			return conn, err
		}
		first, err := check()
		if err != nil {
			p.Fatal(err)
		}
		if again, _ := check(); again != first {
			p.Error("a second connection to a peer that has not moved")
		}
		p.open("10.0.0.7:7420", "c1")
		where = "10.0.0.7:7420"
		if moved, err := check(); err != nil || moved == first {
			p.Errorf("after it moved: %v", err)
		}
		where = ""
		if _, err := check(); !fault.Is(err, fault.Unready) {
			p.Errorf("when nobody knows where it is: %v", err)
		}
	})
}

func TestWhatWasNeverSentIsSaidToBe(t *testing.T) {
	inBubble(t, func(p *port) {
		for name, where := range map[string]string{"nobody knows it": "", "nobody listens there": host + ":1", "an agent listens there": "10.0.0.5:7420"} {
			if name == "an agent listens there" {
				listener, err := p.net.Host("10.0.0.5").Listen(where)
				if err != nil {
					p.Fatal(err)
				}
				p.Cleanup(func() { _ = listener.Close() })
				secured := tls.NewListener(listener, pki.ServerTLS(p.source(p.ca, pki.Node{Role: pki.Agent, ID: "n1"}), "h2"))
				go func() {
					for conn, err := secured.Accept(); err == nil; conn, err = secured.Accept() {
						_ = conn.(*tls.Conn).Handshake()
						_ = conn.Close()
					}
				}()
			}
			peers := transport.NewPeers(p.net.Host("10.0.0.9"), pki.Coordinator, "", p.source(p.ca, pki.Node{Role: pki.Coordinator, ID: "c2"}), func(string) string { return where })
			ctx, cancel := context.WithTimeout(p.Context(), 5*time.Second)
			if _, err := peers.Propose(ctx, "c1", []byte("batch")); !errors.Is(err, replica.ErrNotSent) {
				p.Errorf("%s: propose: %v", name, err)
			}
			if _, err := peers.ReadIndex(ctx, "c1"); !errors.Is(err, replica.ErrNotSent) {
				p.Errorf("%s: read index: %v", name, err)
			}
			cancel()
			peers.Close()
		}
	})
}

func TestARenewedConnectionIsAnotherAndTheFormerEndsWhenThatIsSaid(t *testing.T) {
	inBubble(t, func(p *port) {
		peers := transport.NewPeers(p.net.Host("10.0.0.9"), pki.Coordinator, "", p.source(p.ca, pki.Node{Role: pki.Coordinator, ID: "c9"}), func(string) string { return "10.0.0.1:7420" })
		defer peers.Close()
		former, err := peers.Conn("c1")
		if err != nil {
			p.Fatal(err)
		}
		peers.Renew()
		next, err := peers.Conn("c1")
		if err != nil || next == former {
			p.Errorf("after it the connection is the same, %v", err)
		}
		if former.GetState() == connectivity.Shutdown {
			p.Error("what is under way on the former is cut off at once")
		}
		peers.CloseFormer()
		if former.GetState() != connectivity.Shutdown || next.GetState() == connectivity.Shutdown {
			p.Errorf("the former is %s, the next %s", former.GetState(), next.GetState())
		}
	})
}
