// Package replica is one coordinator's copy of the state, kept equal to the others' by
// raft: it proposes commands, reads linearizably or not, and runs what only the leader may
// run.
//
// Any replica takes proposals and linearizable reads; a follower sends them on to the
// leader. Callers that come together share a log entry, a leadership check, a round trip.
package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/coordinator/fsm"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/storage/raftlog"
)

// Forwarder reaches the leader: it calls HandlePropose or HandleReadIndex there. An error
// that wraps ErrNotSent says that the request certainly never left.
type Forwarder interface {
	Propose(ctx context.Context, leader raft.ServerID, batch []byte) (results []byte, err error)
	ReadIndex(ctx context.Context, leader raft.ServerID) (uint64, error)
}

// ErrNotSent is wrapped by a Forwarder's error if the leader cannot have received the
// request, for instance because no connection could be made: it is tried again.
var ErrNotSent = errors.New("not sent")

// Config is what a replica stands on.
type Config struct {
	ID        string // unique in the cluster, and never changes
	Dir       string // raft's log and snapshots, and the state's file
	Transport raft.Transport
	Peers     Forwarder
	Bootstrap bool // begin a cluster of one, if Dir holds none yet
	Logger    *slog.Logger
	Fatal     func(error) // told once if this replica can no longer follow; may be nil
	// HeldBack says why a newer format is not in force, "" if nobody here knows; may be nil.
	HeldBack func() string
	// SnapshotBytes is how far the log grows until it is cut; 0 is 64 MiB.
	SnapshotBytes int64
	Stored        func(time.Duration) // told how long each append to the log took; may be nil
	// Now is the time that is put into the log; nil is the wall clock.
	Now      func() time.Time
	Headroom Headroom // of Dir; nil: its disk is never full
}

// Headroom is what room the disk has.
type Headroom interface {
	// Starved is told of a write that failed, and reports whether to write again: never once stop is closed.
	Starved(stop <-chan struct{}, err error) bool
	// Fits says why a snapshot does not fit now, Full why nothing may be put into the log, Waits why this replica does not
	// follow. nil: it does, something may, it does.
	Fits() error
	Full() error
	Waits() error
}

// endless is a disk that is never full.
type endless struct{}

func (endless) Starved(<-chan struct{}, error) bool { return false }
func (endless) Fits() error                         { return nil }
func (endless) Full() error                         { return nil }
func (endless) Waits() error                        { return nil }

// room is a replica's disk as its stores see it.
type room struct {
	Headroom
	stop <-chan struct{}
}

func (r room) Starved(err error) bool { return r.Headroom.Starved(r.stop, err) }

// Timing. A leader that dies is missed after Heartbeat to twice that, and another is
// elected within some round trips: 1 to 1.6 s in all. It is not shorter because a busy
// machine with two cores may not get to its heartbeats for some hundred milliseconds.
const (
	heartbeatTimeout = 750 * time.Millisecond
	electionTimeout  = 750 * time.Millisecond
	leaderLease      = 500 * time.Millisecond
	commitTimeout    = 20 * time.Millisecond
	snapshotEvery    = 30 * time.Second
	snapshotEntries  = 8192
	trailingEntries  = 4096
	maxAppendEntries = 128
)

// Replica is one member of the cluster.
type Replica struct {
	id      string
	log     *slog.Logger
	store   *state.Store
	machine *fsm.FSM
	files   *raftlog.Store
	raft    *raft.Raft
	peers   Forwarder

	notify      chan bool // raft: leadership gained or lost
	observed    chan raft.Observation
	established atomic.Uint64 // the term in which this replica leads and has applied all before it; else 0
	changed     signal        // rings when the leader, or established, may have changed

	queue         chan *proposal
	reads         chan *reading
	fatal         chan error
	giveUp        func(error) // ends the replica, the first time it is called
	snapshotBytes int64
	heldBack      func() string
	now           func() time.Time
	room          room
	gate          sync.Mutex    // nobody enters while stop is being closed
	stop          chan struct{} // closed when Run ends: nothing new is taken
	callers       sync.WaitGroup
}

// Open opens the folder and starts to take part. Run must follow, and ends it.
func Open(config Config) (*Replica, error) {
	r := &Replica{
		id: config.ID, log: config.Logger, peers: config.Peers,
		notify: make(chan bool, 16), observed: make(chan raft.Observation, 1),
		queue: make(chan *proposal, 1024), reads: make(chan *reading, 1024),
		fatal: make(chan error, 1), stop: make(chan struct{}), snapshotBytes: cmp.Or(config.SnapshotBytes, snapshotBytes), heldBack: config.HeldBack,
		now: config.Now,
	}
	if r.now == nil {
		r.now = time.Now
	}
	r.room = room{config.Headroom, r.stop}
	if config.Headroom == nil {
		r.room.Headroom = endless{}
	}
	if r.heldBack == nil {
		r.heldBack = func() string { return "" }
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the state: %w", err)
	}
	var once sync.Once
	r.giveUp = func(err error) {
		select {
		case <-r.stop:
			return // it ends anyhow
		default:
		}
		once.Do(func() {
			r.log.Error("this coordinator can no longer follow the others and must stop", "error", err)
			r.fatal <- err
			if config.Fatal != nil {
				config.Fatal(err)
			}
		})
	}
	var err error
	if r.store, err = state.Open(filepath.Join(config.Dir, "state.db")); err != nil {
		return nil, err
	}
	if r.files, err = raftlog.Open(filepath.Join(config.Dir, "raft"), raftlog.Options{Log: r.log, Stored: config.Stored, Broken: r.giveUp, Starved: r.room.Starved}); err != nil {
		return nil, errors.Join(err, r.store.Close())
	}
	if err := r.start(config); err != nil {
		return nil, errors.Join(err, r.files.Close(), r.store.Close())
	}
	return r, nil
}

func (r *Replica) start(config Config) error {
	entries, stable, snapshots := r.files.Log, r.files.Stable, r.files.Snapshots
	settings := r.settings()
	r.machine = fsm.New(r.store, r.room, r.giveUp)
	if config.Bootstrap {
		existing, err := raft.HasExistingState(entries, stable, snapshots)
		if err != nil {
			return fmt.Errorf("look for an earlier cluster: %w", err)
		}
		if !existing {
			self := raft.Server{ID: raft.ServerID(r.id), Address: config.Transport.LocalAddr()}
			err := raft.BootstrapCluster(settings, entries, stable, snapshots, config.Transport,
				raft.Configuration{Servers: []raft.Server{self}})
			if err != nil {
				return fmt.Errorf("begin a cluster: %w", err)
			}
		}
	}
	var err error
	// The log keeps recent entries in memory: replication would read each from the file.
	cached, err := raft.NewLogCache(2*maxAppendEntries, entries)
	if err != nil {
		return err
	}
	if r.raft, err = raft.NewRaft(settings, r.machine, cached, stable, snapshots, config.Transport); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	r.raft.RegisterObserver(raft.NewObserver(r.observed, false, func(o *raft.Observation) bool {
		_, elected := o.Data.(raft.LeaderObservation)
		return elected
	}))
	return nil
}

func (r *Replica) settings() *raft.Config {
	settings := raft.DefaultConfig()
	settings.LocalID = raft.ServerID(r.id)
	settings.HeartbeatTimeout = heartbeatTimeout
	settings.ElectionTimeout = electionTimeout
	settings.LeaderLeaseTimeout = leaderLease
	settings.CommitTimeout = commitTimeout
	settings.MaxAppendEntries = maxAppendEntries
	settings.BatchApplyCh = true
	settings.SnapshotInterval = snapshotEvery
	settings.SnapshotThreshold = snapshotEntries
	settings.TrailingLogs = trailingEntries
	settings.NotifyCh = r.notify
	settings.NoLegacyTelemetry = true
	settings.ShutdownOnRemove = false // who is removed is told, and stops as a whole
	settings.Logger = hclogTo(r.log)
	return settings
}

// Run serves until ctx ends or the replica breaks, then leaves raft and closes the files.
// What was proposed before is answered first.
func (r *Replica) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.Background())
	defer cancel()
	var loops errgroup.Group
	loops.Go(func() error { r.propose(work); return nil })
	loops.Go(func() error { r.read(work); return nil })
	loops.Go(func() error { r.lead(work); return nil })
	loops.Go(func() error { r.compact(work); return nil })
	var err error
	select {
	case <-ctx.Done():
		err = ctx.Err()
		r.handOver()
	case err = <-r.fatal:
	}
	// Raft leaves requests unanswered when it is shut down, so it goes last: until then
	// it answers each, with a result or with the loss of leadership.
	r.gate.Lock()
	close(r.stop)
	r.gate.Unlock()
	r.callers.Wait()
	cancel()
	_ = loops.Wait()
	return errors.Join(err, r.raft.Shutdown().Error(), r.files.Close(), r.store.Close())
}

// handOver has another lead, so that the cluster need not miss this one first. If nobody can, it will.
func (r *Replica) handOver() {
	members, err := r.Members()
	others := slices.ContainsFunc(members, func(m Member) bool { return m.Voter && m.ID != r.id })
	if err != nil || !others || r.raft.State() != raft.Leader {
		return
	}
	if err := r.raft.LeadershipTransfer().Error(); err != nil {
		r.log.Info("nobody took over before this coordinator stops", "error", err)
	}
}

// Events tells of every change to this replica's state.
func (r *Replica) Events() *state.Bus { return r.store.Events() }

// signal wakes everyone who waits for something to change.
type signal struct {
	mu   sync.Mutex
	next chan struct{}
}

// wait returns a channel that the next ring closes. Take it before looking.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next = make(chan struct{})
	}
	return s.next
}

func (s *signal) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		close(s.next)
		s.next = nil
	}
}
