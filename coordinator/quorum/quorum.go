// Package quorum is the life of the set of coordinators: who joins and votes, who is removed,
// who leads, what their builds know, and which format may be in the log because of it.
//
// What may be done is decided by pure functions of what the leader sees; the Desk asks,
// decides and acts. It works on the leader only. See ../DESIGN.md.
package quorum

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
)

// Replica is this coordinator's part in the quorum.
type Replica interface {
	Members() ([]replica.Member, error)
	AddVoter(ctx context.Context, id, address string) error
	AddNonvoter(ctx context.Context, id, address string) error
	RemoveServer(ctx context.Context, id string) error
	Transfer(ctx context.Context, to replica.Member) error
	Stats() replica.Stats
	Leader() string
	Leads() bool
	Format() (int, error)
	Read(ctx context.Context, stale bool) (*state.Snapshot, error)
	Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error)
	ProposeHere(ctx context.Context, commands ...command.Command) error
}

// Conns gives connections to the other coordinators by id.
type Conns interface {
	Conn(id string) (*grpc.ClientConn, error)
}

// Config is what a desk stands on.
type Config struct {
	ID      string
	Version string
	Replica Replica
	Peers   Conns
	// StoreAt is the coordinator that serves the embedded object store, "" if it is not seen, and
	// whether there is one at all.
	StoreAt func() (id string, embedded bool)
	Disk    func() Disk // this coordinator's; nil: it has room
	Log     *slog.Logger
}

// Desk does what operators ask of the quorum.
type Desk struct {
	Config
	changing sync.Mutex // one change at a time: a format is not raised while somebody comes in
	heldBack atomic.Pointer[string]
	refuses  atomic.Pointer[string] // why the cluster takes no changes
}

// New makes a desk.
func New(c Config) *Desk { return &Desk{Config: c} }

// Member is one coordinator as another sees it.
type Member struct {
	ID, Address string
	Voter       bool
	Leader      bool
	Alive       bool   // it answered
	Version     string // of its build; "" if it does not tell
	Format      int    // that its build knows; 0 if it does not tell
	Applied     uint64 // newest log entry in its state
	Behind      uint64 // log entries that it has yet to apply
	Problem     string // why it did not answer, or what is wrong with it
	Disk        Disk
}

// askTime bounds what one coordinator may take to say how it stands.
const askTime = 2 * time.Second

// Standing is how this coordinator stands itself.
func (d *Desk) Standing() *claryv1.StandingResponse {
	standing := &claryv1.StandingResponse{Version: d.Version, Format: command.Format, Leads: d.Replica.Leads(), Applied: d.Replica.Stats().Applied}
	if d.Disk != nil {
		disk := d.Disk()
		standing.DiskFree, standing.DiskLow = disk.Free, disk.Low
	}
	if why := d.refuses.Load(); why != nil && standing.Leads {
		standing.Refuses = *why
	}
	return standing
}

// Members asks every coordinator how it stands.
func (d *Desk) Members(ctx context.Context) ([]Member, error) {
	known, err := d.Replica.Members()
	if err != nil {
		return nil, err
	}
	last := d.Replica.Stats().Committed
	members := make([]Member, len(known))
	var asking sync.WaitGroup
	for i, one := range known {
		asking.Go(func() {
			members[i] = d.ask(ctx, one)
			if m := &members[i]; m.Alive && m.Applied < last {
				m.Behind = last - m.Applied
			}
		})
	}
	asking.Wait()
	return members, nil
}

func (d *Desk) ask(ctx context.Context, one replica.Member) Member {
	m := Member{ID: one.ID, Address: one.Address, Voter: one.Voter, Leader: one.Leader}
	standing, err := d.standing(ctx, one.ID)
	switch {
	case err == nil:
		m.Alive, m.Version, m.Format, m.Applied = true, standing.GetVersion(), int(standing.GetFormat()), standing.GetApplied()
		m.Disk = Disk{Free: standing.GetDiskFree(), Low: standing.GetDiskLow()}
		m.Problem = m.Disk.Low
	case status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unimplemented: // by its guard: a method that it does not know
		m.Alive, m.Problem = true, "its build is too old to tell how it stands"
		m.Applied = d.Replica.Stats().Committed
	default:
		m.Problem = wire.FromStatus(err).Error()
	}
	return m
}

func (d *Desk) standing(ctx context.Context, id string, options ...grpc.CallOption) (*claryv1.StandingResponse, error) {
	if id == d.ID {
		return d.Standing(), nil
	}
	conn, err := d.Peers.Conn(id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	return claryv1.NewPeerClient(conn).Standing(ctx, &claryv1.StandingRequest{}, options...)
}

// led answers Unready unless this coordinator leads for sure.
func (d *Desk) led(ctx context.Context) error {
	if !d.Replica.Leads() {
		return fault.New(fault.Unready, "only the leader can, which is %q", d.Replica.Leader())
	}
	snapshot, err := d.Replica.Read(ctx, false) // a round among the others: a deposed leader finds out here
	if err != nil {
		return err
	}
	return snapshot.Close()
}

// Transfer hands leadership to another coordinator, or to whichever is furthest if to is "", and waits until it leads.
func (d *Desk) Transfer(ctx context.Context, to string) (string, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	return d.transfer(ctx, to)
}

func (d *Desk) transfer(ctx context.Context, to string) (string, error) {
	if err := d.led(ctx); err != nil {
		return "", err
	}
	if to == d.ID {
		return to, nil
	}
	if to != "" { // it may be back, and the connection to it rest yet
		_, _ = d.standing(ctx, to, grpc.WaitForReady(true))
	}
	members, err := d.Members(ctx)
	if err != nil {
		return "", err
	}
	target, err := heir(members, to)
	if err != nil {
		return "", err
	}
	if err := d.Replica.Transfer(ctx, replica.Member{ID: target.ID, Address: target.Address}); err != nil {
		return "", err
	}
	return target.ID, d.awaitLeader(ctx, target.ID)
}

// awaitLeader waits until a coordinator leads: it has won already, and applies what came before.
func (d *Desk) awaitLeader(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		standing, err := d.standing(ctx, id)
		if err == nil && standing.GetLeads() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fault.New(fault.Unready, "coordinator %s was elected and does not lead yet: see clary cluster members", id)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
