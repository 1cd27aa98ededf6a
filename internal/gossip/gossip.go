// Package gossip finds the other members of a cluster, by SWIM as HashiCorp's memberlist
// does it. Every message is encrypted with the cluster's gossip key. What it says is a
// hint: an address to try. Whether a node is lost is decided by its lease, and who a
// peer is by its certificate.
package gossip

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/sparing"
)

// KeySize is the length of a gossip key in bytes: AES-256.
const KeySize = 32

// Roles of members.
const (
	Coordinator = "coordinator"
	Agent       = "agent"
)

// Member is what a member says of itself.
type Member struct {
	Role  string `json:"r"`
	ID    string `json:"i"`
	RPC   string `json:"a,omitempty"` // host:port of gRPC
	Store string `json:"s,omitempty"` // endpoint of the embedded object store, from its server
	Serve string `json:"v,omitempty"` // URL at which its router takes requests for endpoints
	Life  string `json:"l,omitempty"` // of its cluster, from coordinators: see cluster.NewLife

	Gossip string `json:"-"` // host:port of gossip, filled in by the receiver

	started int64 // when this life of the member began, by its own clock
}

// Config is how a member takes part.
type Config struct {
	Self      Member
	Bind      string   // host:port, UDP and TCP; port 0 takes a free one
	Advertise string   // host or host:port under which others reach Bind; Bind itself if empty
	Keys      [][]byte // KeySize bytes each; the first is spoken, all are understood
	Seeds     []string // gossip addresses to start from; one that answers is enough
	Log       *slog.Logger

	// Transport replaces UDP and TCP where it is set.
	Transport memberlist.NodeAwareTransport
}

const (
	rejoinEvery = 10 * time.Second
	leaveTime   = 2 * time.Second
)

// Gossip is one running member. Each start is a life of its own to SWIM, with a name
// that no other had: a member that crashed and comes back elsewhere need not wait until
// its former life is found dead. Of several lives the one that began last counts; where
// clocks were set back, that is the former one until it is found dead.
type Gossip struct {
	config Config
	list   *memberlist.Memberlist
	// keyring is the list's own: keys that are added there are understood.
	keyring *memberlist.Keyring

	mu      sync.Mutex
	lives   map[string]Member // by the name of the life
	refused func(role, id string) bool
	changed chan struct{} // closed and replaced when members change
}

// Start begins to take part. It does not wait for others: Run looks for them.
func Start(config Config) (*Gossip, error) {
	config.Self.started = time.Now().UnixNano()
	g := &Gossip{config: config, lives: map[string]Member{}, changed: make(chan struct{})}
	settings, err := g.settings()
	if err != nil {
		return nil, err
	}
	g.keyring = settings.Keyring
	if g.list, err = memberlist.Create(settings); err != nil {
		return nil, fmt.Errorf("gossip at %s: %w", config.Bind, err)
	}
	return g, nil
}

func (g *Gossip) settings() (*memberlist.Config, error) {
	c := g.config
	if err := checkKeys(c.Keys); err != nil {
		return nil, err
	}
	settings := memberlist.DefaultLANConfig()
	settings.Name = name(c.Self) + "/" + rand.Text()
	var err error
	if settings.Keyring, err = memberlist.NewKeyring(c.Keys, c.Keys[0]); err != nil {
		return nil, fault.New(fault.Invalid, "gossip keys: %w", err)
	}
	settings.PushPullInterval = rejoinEvery
	settings.Delegate = delegate{g}
	settings.Events = events{g}
	settings.Alive = delegate{g}
	settings.Logger = slog.NewLogLogger(levelled{sparing.New(c.Log).Handler()}, slog.LevelDebug)
	if settings.BindAddr, settings.BindPort, err = split(c.Bind); err != nil {
		return nil, fault.New(fault.Invalid, "gossip address: %w", err)
	}
	settings.AdvertisePort = settings.BindPort
	if c.Advertise != "" {
		if settings.AdvertiseAddr, settings.AdvertisePort, err = split(c.Advertise); err != nil {
			return nil, fault.New(fault.Invalid, "gossip advertise address: %w", err)
		}
	}
	if c.Transport != nil {
		settings.Transport = c.Transport
	}
	return settings, nil
}

func split(address string) (string, int, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q has no port number", address)
	}
	return host, int(port), nil
}

// name is unique among coordinators and agents alike.
func name(m Member) string { return m.Role + "/" + m.ID }

// Run looks for the seeds until ctx ends, so that two halves of a healed partition find
// each other again, and then leaves.
func (g *Gossip) Run(ctx context.Context) error {
	ticker := time.NewTicker(rejoinEvery)
	defer ticker.Stop()
	for {
		g.rejoin()
		select {
		case <-ctx.Done():
			g.leave()
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// rejoin asks the seeds that are not members now.
func (g *Gossip) rejoin() {
	known := map[string]bool{}
	for _, member := range g.Members() {
		known[member.Gossip] = true
	}
	var missing []string
	for _, seed := range g.config.Seeds {
		if !known[seed] && seed != g.Address() {
			missing = append(missing, seed)
		}
	}
	if len(missing) == 0 {
		return
	}
	if reached, err := g.list.Join(missing); err != nil && reached == 0 {
		g.config.Log.Debug("gossip seeds do not answer", "seeds", missing, "error", err)
	}
}

func (g *Gossip) leave() {
	if err := g.list.Leave(leaveTime); err != nil {
		g.config.Log.Debug("leave gossip", "error", err)
	}
	if err := g.list.Shutdown(); err != nil {
		g.config.Log.Debug("stop gossip", "error", err)
	}
}

// Address is where this member gossips, as others see it.
func (g *Gossip) Address() string { return g.list.LocalNode().Address() }

// Members returns the members that are believed alive, this one included, by name. A coordinator does not see those of
// other lives of its cluster; an agent does, and finds out whom it belongs to.
func (g *Gossip) Members() []Member { return g.having(g.meets) }

// Strangers are the coordinators of other lives of the cluster.
func (g *Gossip) Strangers() []Member {
	return g.having(func(m Member) bool { return m.Role == Coordinator && m.Life != g.config.Self.Life })
}

// Count tells how many members there are of each role.
func (g *Gossip) Count() map[string]int {
	counts := map[string]int{Coordinator: 0, Agent: 0}
	for _, member := range g.Members() {
		counts[member.Role]++
	}
	return counts
}

// Find returns the member with a role and id, if it is believed alive.
func (g *Gossip) Find(role, id string) (Member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found Member
	known := false
	for _, start := range g.lives {
		if start.Role == role && start.ID == id && g.meets(start) && g.believes(start) && (!known || start.started > found.started) {
			found, known = start, true
		}
	}
	return found, known
}

// meets reports whether a member of its life is one that this member has to do with.
func (g *Gossip) meets(m Member) bool {
	self := g.config.Self
	return self.Role != Coordinator || m.Role != Coordinator || m.Life == self.Life
}

// believes is called with the lock.
func (g *Gossip) believes(m Member) bool { return g.refused == nil || !g.refused(m.Role, m.ID) }

// having picks, of the members that are so, the start of each that was last.
func (g *Gossip) having(wanted func(Member) bool) []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	newest := map[string]Member{}
	for _, start := range g.lives {
		if !wanted(start) || !g.believes(start) {
			continue
		}
		key := name(start) + "/" + start.Life
		if known, ok := newest[key]; !ok || start.started > known.started {
			newest[key] = start
		}
	}
	return slices.SortedFunc(maps.Values(newest), func(a, b Member) int {
		return cmp.Or(strings.Compare(name(a), name(b)), strings.Compare(b.Life, a.Life))
	})
}

// Changed returns a channel that is closed at the next change of members.
func (g *Gossip) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// set records what a life of a member says of itself, or that it has ended.
func (g *Gossip) set(node *memberlist.Node, alive bool) {
	var member Member
	if alive {
		var err error
		if member, err = parse(node.Meta); err != nil || !strings.HasPrefix(node.Name, name(member)+"/") {
			g.config.Log.Warn("a member's self-description is not to be understood", "member", node.Name)
			return
		}
		member.Gossip = node.Address()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if alive {
		g.lives[node.Name] = member
	} else {
		delete(g.lives, node.Name)
	}
	close(g.changed)
	g.changed = make(chan struct{})
}
