package agent

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/clary-ml/clary/auth/pki"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/gossip"
)

// gossips takes part in a gossip of the test's own.
func gossips(t *testing.T, id string, seeds ...string) *gossip.Gossip {
	t.Helper()
	g, err := gossip.Start(gossip.Config{
		Self: gossip.Member{Role: gossip.Agent, ID: id}, Bind: "127.0.0.1:0", Keys: [][]byte{bytes.Repeat([]byte{1}, gossip.KeySize)},
		Seeds: seeds, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = g.Run(t.Context()) }()
	t.Cleanup(func() { <-ended })
	return g
}

// When the last revocation is forgotten, whoever joins under that name is seen again, without a restart of those who knew it.
func TestWhoWasRevokedIsAMemberAgainOnceThatIsForgotten(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	a := &agent{gossip: gossips(t, "a"), port: alpn.New(listener, &tls.Config{}, slog.New(slog.DiscardHandler), alpn.GRPC)}
	gossips(t, "b", a.gossip.Address())
	timeout := time.After(20 * time.Second)
	for {
		changed := a.gossip.Changed()
		if _, sees := a.gossip.Find(gossip.Agent, "b"); sees {
			break
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatal("they do not see one another")
		}
	}
	a.heed(pki.Trust{Revoked: []cluster.Revocation{{Role: cluster.RoleAgent, ID: "b"}}})
	if _, sees := a.gossip.Find(gossip.Agent, "b"); sees {
		t.Error("who was revoked is a member")
	}
	a.heed(pki.Trust{})
	if _, sees := a.gossip.Find(gossip.Agent, "b"); !sees {
		t.Error("who is not revoked any more is no member")
	}
}
