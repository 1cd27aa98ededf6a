package coordinator

import (
	"log/slog"
	"net"
	"path/filepath"

	"github.com/hashicorp/memberlist"

	"github.com/clary-ml/clary/auth/member"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/serving/ingress"
	"github.com/clary-ml/clary/storage/object"
)

// Config is how one coordinator is started.
type Config struct {
	ID        string // unique among the coordinators, stable over restarts
	Data      string // folder of everything that lasts
	Listen    string // host:port of gRPC and raft
	Advertise string // host:port under which others reach Listen; Listen itself if empty
	Gossip    string // host:port of membership, UDP and TCP

	Join  string // RPC address of any member; empty to found a cluster or to come back
	Token string // join token, for the first start of a joining coordinator

	// Store is an S3 that exists already. If its endpoint is empty, the founding
	// coordinator serves the embedded one at StoreListen, and the others use that.
	Store       object.Config
	StoreListen string

	// Serve is where this coordinator takes requests for endpoints.
	Serve ingress.Front

	// NoDecisions: what the scheduler is told and decides is not recorded in Data.
	NoDecisions bool

	// Network and GossipTransport stand in for the machine's own network where they are set.
	Network         member.Network
	GossipTransport memberlist.NodeAwareTransport

	// Metrics is where those who operate this coordinator ask; nil: nowhere.
	Metrics  net.Listener
	LogLevel *slog.LevelVar // of Log; nil: it is fixed

	Executable string // the clary binary, for child processes
	Version    string
	Log        *slog.Logger
}

// Validate reports every mistake in the configuration, named by its flag.
func (c Config) Validate() cluster.Problems {
	var p cluster.Problems
	cluster.CheckName(&p, "--id", c.ID)
	if c.Data == "" {
		p.Add("--data", "is empty: name a folder")
	}
	addresses := map[string]string{"--listen": c.Listen, "--gossip": c.Gossip}
	if c.Advertise != "" {
		addresses["--advertise"] = c.Advertise
	}
	if c.Join != "" {
		addresses["--join"] = c.Join
	}
	if c.Store.Endpoint == "" {
		addresses["--object-store-listen"] = c.StoreListen
	}
	for _, flag := range []string{"--listen", "--advertise", "--gossip", "--join", "--object-store-listen"} {
		if address, given := addresses[flag]; given {
			checkAddress(&p, flag, address)
		}
	}
	c.Serve.Validate(&p, "--serve")
	if host, _, err := net.SplitHostPort(c.advertised()); err == nil && (host == "" || net.ParseIP(host).IsUnspecified()) {
		p.Add("--advertise", "%q is no address that others can reach: say which of this machine's addresses they should use", c.advertised())
	}
	return p
}

func checkAddress(p *cluster.Problems, flag, address string) {
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		p.Add(flag, "%q is not host:port", cluster.Clip(address))
	}
}

func (c Config) advertised() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	return c.Listen
}

// advertisedHost is the host part of the advertised address.
func (c Config) advertisedHost() string {
	host, _, _ := net.SplitHostPort(c.advertised())
	return host
}

func (c Config) path(parts ...string) string {
	return filepath.Join(append([]string{c.Data}, parts...)...)
}

func (c Config) network() member.Network {
	if c.Network != nil {
		return c.Network
	}
	return member.TCP{}
}
