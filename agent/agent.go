// Package agent is one machine that runs tasks: it says what it has, hears from any
// coordinator what it should run, and works towards that through package supervisor.
// An agent may be killed and started again at any time: its tasks live under their own
// shims and do not notice.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/agent/diskuse"
	"github.com/clary-ml/clary/agent/environment"
	"github.com/clary-ml/clary/agent/feeder"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/internal/alpn"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/gossip"
	"github.com/clary-ml/clary/serving/ingress"
)

// Run is one agent, until ctx ends or it can no longer do its part. Tasks run on.
func Run(ctx context.Context, c Config) (err error) {
	if err := c.Validate().Err(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	if c.Data, err = filepath.Abs(c.Data); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if err := os.MkdirAll(c.path("tasks"), 0o711); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	self, err := enter(ctx, c)
	if err != nil {
		return err
	}
	a := &agent{config: c, self: self, log: c.Log, store: newObjects(c.path(accessFile), c.Log), dropped: make(chan struct{}, 1)}
	if err := a.life.open(c.path(lifeFile)); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := a.open(ctx); err != nil {
		return err
	}
	return a.run(ctx)
}

// agent is the parts of one agent.
type agent struct {
	config  Config
	self    membership
	life    life
	log     *slog.Logger
	machine *machine
	store   *objects
	cache   *staging.Cache
	shelf   *shelf
	driver  runtime.Driver
	release func() error // lets go of the driver
	ledger  *ledger.Ledger
	tasks   *supervisor.Supervisor
	gossip  *gossip.Gossip
	port    *alpn.Mux

	learning sync.Mutex    // of keys: one after the other
	dropped  chan struct{} // a CA is not trusted any more
	portAddr net.Addr
	ingress  *ingress.Server // nil if this agent takes no requests for endpoints

	mu   sync.Mutex
	link *link // the one that stands, nil between connections
	// routes are those of the ingress; nil without one.
	routes *coordinatorRoutes
	lease  time.Time // until when this node counts as alive for sure
}

func (a *agent) open(ctx context.Context) error {
	c := a.config
	var err error
	if a.machine, err = lookAround(c); err != nil {
		return err
	}
	var shelter string
	if shelter, err = a.openDriver(ctx); err != nil {
		return err
	}
	if a.ledger, err = ledger.Open(c.path("ledger.db")); err != nil {
		return err
	}
	if a.cache, err = staging.OpenCache(c.path("cache"), c.CacheBytes-c.CacheBytes/blockShare); err != nil {
		return err
	}
	a.cache.Spoilt = func(uri, file string) {
		c.Log.Warn("a file in the cache of inputs has changed on the disk: it is fetched again; if this comes again, look at the disk", "object", uri, "file", file)
	}
	disk, reserve, err := c.diskBounds()
	if err != nil {
		return err
	}
	a.shelf = &shelf{folder: c.Data, reserve: reserve, room: diskuse.RoomOf}
	a.warnOfViews()
	python, err := environment.Open(environment.Config{
		Root: c.path("python"), Index: c.PipIndex, Wheelhouse: c.Wheelhouse, Keep: keptEnvironments, UID: installer(), Contain: a.contain(disk), Log: c.Log,
	})
	if err != nil {
		return err
	}
	feeders := &feeder.Host{Program: c.Executable, Shelter: shelter, Log: c.Log}
	a.tasks, err = supervisor.Open(ctx, supervisor.Config{
		Root: c.path("tasks"), Driver: a.driver, Ledger: a.ledger, Store: a.objects(), Cache: a.cache,
		Certify: a.certify, Trust: a.self.credentials, Secrets: a.secrets, Memory: memoryFolder(c.groupName()), Listen: c.Address, Program: c.Executable, Lease: a.leaseLeft, Gauge: a.machine.gauge.Latest, Slot: a.machine.slot, Log: c.Log,
		Feeders: feeders, Disk: disk, DiskReserve: reserve, Refused: a.shelf.refuse,
		Feed: feeder.Instructions{Access: c.path(accessFile), Cache: c.path("blocks"), Limit: c.CacheBytes / blockShare},
		Hide: []string{c.Data}, User: a.users(), Interface: interfaceOf(c.Address), Environments: python,
	})
	if err != nil {
		return err
	}
	return a.openNetwork(ctx)
}

// objects are where tasks' inputs come from and their outputs go.
func (a *agent) objects() staging.Store {
	if a.config.Store != nil {
		return a.config.Store
	}
	return a.store
}

// blockShare is which part of the cache is for inputs that are fetched as they are read: one
// of so many.
const blockShare = 4

// memoryFolder is where the tasks' secret files are: in memory, and this agent's alone.
func memoryFolder(agent string) string { return filepath.Join("/dev/shm", agent) }

// keptEnvironments are how many Python environments stay that nobody uses.
const keptEnvironments = 20

// warnOfViews says if tasks of this node are not kept apart from it and from one another.
func (a *agent) warnOfViews() {
	isolator, can := a.driver.(runtime.Isolator)
	switch {
	case !can:
	case a.users() == nil:
		a.log.Warn("tasks run as this agent does and see all that it sees: give it --task-uids to keep them apart")
	case isolator.CanIsolate() != nil:
		a.log.Warn("tasks run as this agent does and see all that it sees", "error", isolator.CanIsolate())
	}
}

// contain has Python packages installed as tasks run, by users whom no queue has; nil where
// tasks have no view and no users of their own either.
func (a *agent) contain(disk int64) *environment.Contain {
	isolator, can := a.driver.(runtime.Isolator)
	users := a.users()
	if !can || users == nil || isolator.CanIsolate() != nil {
		return nil
	}
	return &environment.Contain{
		Driver: a.driver, Tasks: a.config.path("tasks"), Hide: []string{a.config.Data}, Disk: disk,
		User: func(slot int) (runtime.User, error) { return users(fmt.Sprintf("(python %d)", slot)) }, // no queue's name
	}
}

// installer is whom Python packages are installed as: nobody, if the agent may choose.
func installer() int {
	if os.Geteuid() != 0 {
		return 0
	}
	return 65534
}

// users gives each queue a user of this node; nil if tasks run as the agent.
func (a *agent) users() func(queue string) (runtime.User, error) {
	first, last := a.config.UIDFirst, a.config.UIDLast
	if first == 0 {
		return nil
	}
	return func(queue string) (runtime.User, error) {
		uid, err := a.ledger.User(queue, first, last)
		return runtime.User{UID: uid, GID: uid, Name: "clary-" + strconv.FormatUint(uint64(uid), 10)}, err
	}
}

// interfaceOf is the network interface that has a host's address, "" if it is not this
// machine's.
func interfaceOf(host string) string {
	addresses, err := net.LookupHost(host)
	if err != nil {
		return ""
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, one := range interfaces {
		owned, _ := one.Addrs()
		for _, address := range owned {
			ip, _, err := net.ParseCIDR(address.String())
			if err == nil && slices.Contains(addresses, ip.String()) {
				return one.Name
			}
		}
	}
	return ""
}

func (a *agent) openNetwork(ctx context.Context) error {
	c := a.config
	if err := a.openPort(); err != nil {
		return err
	}
	if err := a.openIngress(ctx); err != nil {
		return err
	}
	self := gossip.Member{Role: gossip.Agent, ID: c.ID}
	if a.ingress != nil {
		self.Serve = a.ingress.URL()
	}
	var err error
	a.gossip, err = gossip.Start(gossip.Config{
		Self: self, Bind: c.Gossip, Keys: a.self.keys.GossipKeys, Seeds: a.self.notes.Gossip, Log: c.Log,
		Transport: c.GossipTransport,
	})
	if err == nil {
		a.heed(a.self.credentials.Get().Trust)
	}
	return err
}

// close lets go of everything that open took, in the opposite order.
func (a *agent) close() error {
	var errs []error
	if a.tasks != nil {
		a.tasks.Close()
	}
	if a.release != nil {
		errs = append(errs, a.release())
	}
	if a.ledger != nil {
		errs = append(errs, a.ledger.Close())
	}
	if a.machine != nil {
		errs = append(errs, a.machine.close())
	}
	return errors.Join(errs...)
}

func (a *agent) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.gossip.Run(ctx) })
	group.Go(func() error { return a.remember(ctx) })
	group.Go(func() error { return a.machine.gauge.Run(ctx) })
	group.Go(func() error { return a.port.Run(ctx) })
	group.Go(func() error { return a.serveGRPC(ctx) })
	group.Go(func() error { return a.serveGateway(ctx) })
	group.Go(func() error { return a.keepLinked(ctx) })
	group.Go(func() error { return a.operators().Run(ctx) })
	if a.ingress != nil {
		group.Go(func() error { return a.ingress.Run(ctx) })
	}
	group.Go(func() error { return a.renew(ctx) })
	group.Go(func() error { return a.hangUpDropped(ctx) })
	a.log.Info("agent started", "id", a.config.ID, "address", a.config.Address, "listen", a.portAddr, "version", a.config.Version)
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
