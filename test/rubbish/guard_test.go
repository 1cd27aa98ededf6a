// Package rubbish throws at real Clary processes what no program of good will sends, and sees that each of them lives on within its
// memory, says in a few lines what came, and serves others meanwhile. `make e2e` runs it.
package rubbish

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/test/testbed"
)

// What is allowed while there is rubbish.
const (
	mostMemory = 256 << 20 // bytes that a process may grow by, where a test says nothing else
	mostLines  = 400       // that a process may log
	patience   = 5 * time.Second
)

// guard watches a cluster while something is done to it.
type guard struct {
	*testbed.Machines
	names   []string
	allowed int64 // bytes that a process may grow by, if it is not mostMemory

	memory map[string]int64
	lines  map[string]int
	most   map[string]int64
	asked  int
	slow   time.Duration
}

func start(t *testing.T, servers, agents int) *guard {
	t.Helper()
	g := &guard{Machines: testbed.Start(t, servers, agents)}
	for i := range servers {
		g.names = append(g.names, fmt.Sprintf("s%d", i+1))
	}
	g.names = append(g.names, storeOf("s1")) // who founds has it
	for i := range agents {
		g.names = append(g.names, fmt.Sprintf("n%d", i+1))
	}
	return g
}

// storeOf is the name here of the object store that a coordinator keeps.
func storeOf(server string) string { return server + "'s object store" }

// resident is the memory that a process of this name has.
func (g *guard) resident(name string) int64 {
	owner, isStore := strings.CutSuffix(name, storeOf(""))
	for _, pid := range g.PIDs(g.Path(owner)) {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		words := strings.Split(string(command), "\x00")
		if len(words) < 2 || isStore != (words[1] == "objectstore") || !isStore && words[1] != "server" && words[1] != "agent" {
			continue
		}
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(status)) {
			if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
				kib, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				return kib << 10
			}
		}
	}
	return 0
}

func (g *guard) said(name string) int {
	name, isStore := strings.CutSuffix(name, storeOf(""))
	if isStore {
		return 0 // its parent says what it says
	}
	text, _ := os.ReadFile(g.Path(name) + ".log")
	return strings.Count(string(text), "\n")
}

// during does something while a client asks all the time, and sees that it is answered, and that the processes live, within their memory
// and without a flood in their logs.
func (g *guard) during(t *testing.T, what string, do func()) {
	t.Helper()
	g.memory, g.lines, g.most = map[string]int64{}, map[string]int{}, map[string]int64{}
	for _, name := range g.names {
		g.memory[name], g.lines[name] = g.resident(name), g.said(name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var asking sync.WaitGroup
	asking.Go(func() { g.ask(ctx, t, what) })
	do()
	cancel()
	asking.Wait()
	if ended := g.Ended(); len(ended) > 0 {
		t.Fatalf("%s: %v ended", what, ended)
	}
	for _, name := range g.names {
		grown, lines := max(g.most[name], g.resident(name))-g.memory[name], g.said(name)-g.lines[name]
		t.Logf("%s: %s grew by %d MiB, and logged %d lines", what, name, grown>>20, lines)
		if grown > cmp.Or(g.allowed, mostMemory) {
			t.Errorf("%s: %s grew by %d MiB", what, name, grown>>20)
		}
		if lines > mostLines {
			t.Errorf("%s: %s logged %d lines", what, name, lines)
		}
	}
	t.Logf("%s: %d requests of others were answered meanwhile, the slowest within %s", what, g.asked, g.slow.Round(time.Millisecond))
}

// settle says how much memory there is now, before what is done to the cluster ends.
func (g *guard) settle(what string) {
	for _, name := range g.names {
		g.T.Logf("%s: %s has %d MiB, and had %d before", what, name, g.resident(name)>>20, g.memory[name]>>20)
	}
}

// ask is another client, which has a connection and makes new ones.
func (g *guard) ask(ctx context.Context, t *testing.T, what string) {
	g.asked, g.slow = 0, 0
	for ctx.Err() == nil {
		c, err := client.Dial(g.Context(), client.WithPatience(patience))
		if err != nil {
			t.Error(err)
			return
		}
		for range 5 {
			began := time.Now()
			if _, err := c.Nodes(context.WithoutCancel(ctx)); err != nil {
				t.Errorf("%s: nobody else is served: %v", what, err)
			}
			g.asked++
			g.slow = max(g.slow, time.Since(began))
			for _, name := range g.names {
				g.most[name] = max(g.most[name], g.resident(name))
			}
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		_ = c.Close()
	}
}

// flag is what a process was started with.
func (g *guard) flag(name, flag string) string {
	args := g.Args[name]
	return strings.TrimPrefix(args[slices.Index(args, flag)+1], "https://")
}

// door is a place where a process listens.
type door struct {
	what, address string
	udp           bool
}

func (g *guard) doors() []door {
	return []door{
		{what: "a coordinator's port", address: g.flag("s1", "--listen")},
		{what: "a coordinator's gossip", address: g.flag("s1", "--gossip")},
		{what: "a coordinator's gossip by UDP", address: g.flag("s1", "--gossip"), udp: true},
		{what: "the object store", address: g.flag("s1", "--object-store-listen")},
		{what: "a router", address: g.flag("s1", "--serve-listen")},
		{what: "an agent's port", address: g.flag("n1", "--listen")},
		{what: "an agent's gossip", address: g.flag("n1", "--gossip")},
		{what: "an agent's gossip by UDP", address: g.flag("n1", "--gossip"), udp: true},
	}
}
