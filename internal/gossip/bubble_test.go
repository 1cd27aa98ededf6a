package gossip_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/gossip"
	"github.com/clary-ml/clary/internal/gossip/memnet"
)

// probeTime is longer than a probe that memberlist has on its way when it stops: it
// waits for none of them.
const probeTime = 10 * time.Second

// join starts a member inside a bubble, and stops it at the test's end.
func join(t *testing.T, network *memnet.Network, id, address string, seeds ...string) *gossip.Gossip {
	t.Helper()
	return joinAs(t, network, gossip.Agent, id, address, seeds...)
}

func joinAs(t *testing.T, network *memnet.Network, role, id, address string, seeds ...string) *gossip.Gossip {
	t.Helper()
	return joinIn(t, network, "", role, id, address, seeds...)
}

// joinIn is joinAs in a life of the cluster.
func joinIn(t *testing.T, network *memnet.Network, life, role, id, address string, seeds ...string) *gossip.Gossip {
	t.Helper()
	transport, err := network.Transport(address)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gossip.Start(gossip.Config{
		Self: gossip.Member{Role: role, ID: id, RPC: "rpc-of-" + id + ":1", Life: life},
		Bind: address, Keys: [][]byte{bytes.Repeat([]byte{7}, gossip.KeySize)}, Seeds: seeds,
		Log: slog.New(slog.DiscardHandler), Transport: transport,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := g.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		time.Sleep(probeTime) // of the bubble
	})
	return g
}

// sees waits, in the bubble's time, until a member sees exactly those ids.
func sees(t *testing.T, g *gossip.Gossip, want string, within time.Duration) {
	t.Helper()
	got := ""
	for range within / time.Second {
		var ids []string
		for _, m := range g.Members() {
			ids = append(ids, m.ID)
		}
		if got = strings.Join(ids, " "); got == want {
			return
		}
		time.Sleep(time.Second) // of the bubble
	}
	t.Fatalf("%s sees %q after %v, want %q", g.Address(), got, within, want)
}

const (
	addressA = "10.0.0.1:7946"
	addressB = "10.0.0.2:7946"
	addressC = "10.0.0.3:7946"
)

func TestAHealedPartitionMergesHoweverLongItLasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		a := join(t, &network, "a", addressA) // which knows nobody
		b := join(t, &network, "b", addressB, addressA)
		c := join(t, &network, "c", addressC, addressA)
		all := []*gossip.Gossip{a, b, c}
		for _, g := range all {
			sees(t, g, "a b c", time.Minute)
		}
		network.Cut(func(from, to string) bool { return (from == addressA) != (to == addressA) })
		sees(t, a, "a", 3*time.Minute)
		sees(t, b, "b c", 3*time.Minute)
		sees(t, c, "b c", 3*time.Minute)
		time.Sleep(10 * time.Minute) // dead members are forgotten by then
		network.Cut(nil)
		for _, g := range all {
			sees(t, g, "a b c", time.Minute)
		}
	})
}

func TestAMemberThatCrashedIsFoundAtOnceAtItsNewAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		a := join(t, &network, "a", addressA)
		join(t, &network, "b", addressB, addressA)
		sees(t, a, "a b", time.Minute)
		network.Cut(func(from, to string) bool { return from == addressB || to == addressB })
		crashed := time.Now()
		join(t, &network, "b", addressC, addressA) // at once, while all think the old one alive
		const soon = time.Second
		for found := ""; found != addressC; {
			if b, ok := a.Find(gossip.Agent, "b"); ok {
				found = b.Gossip
			}
			if time.Since(crashed) > soon {
				t.Fatalf("%s later a sees %+v", soon, a.Members())
			}
			time.Sleep(50 * time.Millisecond) // of the bubble
		}
		t.Logf("found after %v", time.Since(crashed))
		for range 60 { // the death of the former life, when it is noticed, is not the member's
			if b, ok := a.Find(gossip.Agent, "b"); !ok || b.Gossip != addressC || len(a.Members()) != 2 {
				t.Fatalf("%s later a sees %+v", time.Since(crashed), a.Members())
			}
			time.Sleep(time.Second) // of the bubble
		}
	})
}

func TestWhereCoordinatorsAreIsRememberedForTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		a := joinAs(t, &network, gossip.Coordinator, "a", addressA)
		b := joinAs(t, &network, gossip.Coordinator, "b", addressB, addressA)
		join(t, &network, "agent", addressC, addressA)
		noted := []string{"10.0.0.9:7946"}
		ctx, cancel := context.WithCancel(context.Background())
		var remembering sync.WaitGroup
		remembering.Go(func() {
			_ = a.Remember(ctx, func(others []gossip.Member) error {
				noted = gossip.Note(noted, others, func(m gossip.Member) string { return m.Gossip })
				return nil
			})
		})
		sees(t, b, "agent a b", time.Minute)
		sees(t, a, "agent a b", time.Minute)
		cancel()
		remembering.Wait()
		if want := []string{addressB, "10.0.0.9:7946"}; !slices.Equal(noted, want) {
			t.Errorf("a noted %v, want %v", noted, want)
		}
	})
}

func TestCoordinatorsOfTwoLivesSeeEachOtherAsStrangersOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network memnet.Network
		former := joinIn(t, &network, "", gossip.Coordinator, "a", addressA)
		later := joinIn(t, &network, "00-later", gossip.Coordinator, "a", addressB, addressA)
		agent := join(t, &network, "n", addressC, addressA)
		sees(t, former, "n a", time.Minute)
		sees(t, later, "n a", time.Minute)
		sees(t, agent, "n a a", time.Minute)
		for g, other := range map[*gossip.Gossip]string{former: addressB, later: addressA} {
			if strangers := g.Strangers(); len(strangers) != 1 || strangers[0].Gossip != other {
				t.Errorf("strangers %+v", strangers)
			}
			if found, ok := g.Find(gossip.Coordinator, "a"); !ok || found.Gossip != g.Address() {
				t.Errorf("found %+v", found)
			}
		}
		if lives := agent.Members(); lives[1].Life != "00-later" || lives[2].Life != "" {
			t.Errorf("the agent sees %+v", lives)
		}
	})
}
