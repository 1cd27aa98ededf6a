package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
)

const (
	// leaderWait is how long a request waits for a leader to be elected.
	leaderWait = 5 * time.Second
	// sendWait bounds how long raft takes an entry in, and how long a leader may take to
	// answer a follower: by then the cluster has elected another.
	sendWait = 10 * time.Second
	// inFlight is how many entries are on their way at once: while one is being
	// synced to disk, the next are gathered.
	inFlight = 2
	// retryPause is taken when the leader is known, but does not yet know it.
	retryPause = 25 * time.Millisecond

	maxEntryCommands = 256
	maxEntryBytes    = 1 << 20
)

// MaxProposal is the largest proposal, in bytes as it stands in the log.
const MaxProposal = 8 << 20

// errNotApplied is for what certainly did not get into the log, and may be sent again.
var errNotApplied = errors.New("not applied")

// proposal is one caller's commands on their way.
type proposal struct {
	raw   []byte
	count int
	local bool // came from a follower: it is not sent on a second time
	done  chan outcome
}

type outcome struct {
	results []command.Result
	err     error // errNotApplied, or the outcome is unknown
}

// Propose puts commands into the log, next to each other, and returns the answer to each
// after this cluster's majority has it on disk and the leader has applied it. The error is
// that of the first command that was refused; the results tell of each. Without results
// the error says why there was no answer: Unready if there is no leader, or if the
// connection to it broke. Then it may be unknown whether the commands were applied, and
// the error says so: commands that expect a revision can simply be proposed again.
//
// A command that takes a format beyond the one in force is refused, as Unready.
func (r *Replica) Propose(ctx context.Context, commands ...command.Command) ([]command.Result, error) {
	commands, err := r.fit(commands)
	if err != nil {
		return nil, err
	}
	raw, err := command.Encode(r.now().UnixNano(), commands...)
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxProposal {
		return nil, fault.New(fault.Invalid, "the proposal has %d bytes; the limit is %d", len(raw), MaxProposal)
	}
	results, err := r.submit(ctx, raw, len(commands), false)
	if err != nil {
		return nil, err
	}
	for _, result := range results {
		if result.Err != nil {
			return results, result.Err
		}
	}
	return results, nil
}

// fit makes commands such that coordinators of all builds can read them, or refuses them. What this replica has applied
// is never ahead of the leader's, and a format is never lowered: a follower may refuse what has just become
// possible, and nobody lets through what is not.
func (r *Replica) fit(commands []command.Command) ([]command.Command, error) {
	for _, c := range commands {
		if format, _ := command.Needs(c); format == 0 {
			continue
		}
		inForce, err := r.Format()
		if err != nil {
			return nil, err
		}
		return command.Fit(inForce, r.heldBack(), commands...)
	}
	return commands, nil
}

// Format is the one in force, as far as this replica has applied the log.
func (r *Replica) Format() (int, error) {
	snapshot, err := r.store.Snapshot()
	if err != nil {
		return 0, err
	}
	defer snapshot.Close()
	return snapshot.Format(), nil
}

// ProposeHere is Propose for the leader alone: another answers Unready, and sends nothing on.
func (r *Replica) ProposeHere(ctx context.Context, commands ...command.Command) error {
	raw, err := command.Encode(r.now().UnixNano(), commands...)
	if err != nil {
		return err
	}
	results, err := r.submit(ctx, raw, len(commands), true)
	if errors.Is(err, errNotApplied) {
		return fault.New(fault.Unready, "this coordinator does not lead; nothing was changed")
	}
	for _, result := range results {
		if err == nil {
			err = result.Err
		}
	}
	return err
}

// HandlePropose answers a follower's Forwarder. No results for a batch that has commands
// mean that nothing was applied, since this replica does not lead.
func (r *Replica) HandlePropose(ctx context.Context, batch []byte) ([]byte, error) {
	// An entry that cannot be decoded would stop every replica: it is refused here. And
	// there is one clock at a time: the leader's.
	stamped, err := command.Decode(batch)
	if err != nil {
		return nil, err
	}
	commands := make([]command.Command, len(stamped))
	for i, s := range stamped {
		commands[i] = s.Command
	}
	raw, err := command.Encode(r.now().UnixNano(), commands...)
	if err != nil {
		return nil, err
	}
	results, err := r.submit(ctx, raw, len(commands), true)
	if errors.Is(err, errNotApplied) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return command.EncodeResults(results)
}

// submit hands commands to the sender, and again as long as they certainly did not get
// into the log.
func (r *Replica) submit(ctx context.Context, raw []byte, count int, local bool) ([]command.Result, error) {
	if count == 0 {
		return nil, nil
	}
	if err := r.enter(); err != nil {
		return nil, err
	}
	defer r.callers.Done()
	wait, cancel := context.WithTimeout(ctx, leaderWait)
	defer cancel()
	for {
		if !local {
			if err := r.awaitLeader(ctx, wait); err != nil {
				return nil, err
			}
		}
		p := &proposal{raw: raw, count: count, local: local, done: make(chan outcome, 1)}
		select {
		case r.queue <- p:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		select {
		case got := <-p.done:
			if got.err == nil || local || !errors.Is(got.err, errNotApplied) {
				return got.results, got.err
			}
			if err := r.pause(ctx, wait); err != nil {
				return nil, fmt.Errorf("%w (the last leader answered: %w)", err, got.err)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("it is unknown whether the commands were applied: %w", ctx.Err())
		}
	}
}

// enter counts a caller in, so that Run ends after it, unless Run has ended.
func (r *Replica) enter() error {
	r.gate.Lock()
	defer r.gate.Unlock()
	select {
	case <-r.stop:
		return fault.New(fault.Unready, "this coordinator is stopping: ask another")
	default:
		r.callers.Add(1)
		return nil
	}
}

// awaitLeader returns once this replica knows of a leader.
func (r *Replica) awaitLeader(ctx, wait context.Context) error {
	for {
		changed := r.changed.wait()
		if r.Leader() != "" {
			return nil
		}
		select {
		case <-changed:
		case <-r.stop:
			return fault.New(fault.Unready, "this coordinator is stopping: ask another; nothing was changed")
		case <-wait.Done():
			return noLeader(ctx)
		}
	}
}

// pause waits a moment, or until something about the leadership has changed.
func (r *Replica) pause(ctx, wait context.Context) error {
	timer := time.NewTimer(retryPause)
	defer timer.Stop()
	select {
	case <-r.changed.wait():
	case <-timer.C:
	case <-r.stop:
		return fault.New(fault.Unready, "this coordinator is stopping: ask another; nothing was changed")
	case <-wait.Done():
		return noLeader(ctx)
	}
	return nil
}

func noLeader(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault.New(fault.Unready, "no leader answers: a majority of the coordinators must be up and connected; nothing was changed")
}

// propose gathers what waits into entries and sends each on its way.
func (r *Replica) propose(ctx context.Context) {
	var senders sync.WaitGroup
	defer senders.Wait()
	slots := make(chan struct{}, inFlight)
	var next *proposal
	for {
		if next == nil {
			select {
			case next = <-r.queue:
			case <-ctx.Done():
				return
			}
		}
		slots <- struct{}{} // meanwhile others queue up
		var entry []*proposal
		entry, next = r.gather(next)
		senders.Go(func() {
			r.send(ctx, entry)
			<-slots
		})
	}
}

// gather takes what waits, up to the limits of an entry; what goes over them is left.
func (r *Replica) gather(first *proposal) (entry []*proposal, left *proposal) {
	entry = []*proposal{first}
	count, size := first.count, len(first.raw)
	for {
		select {
		case p := <-r.queue:
			count, size = count+p.count, size+len(p.raw)
			if count > maxEntryCommands || size > maxEntryBytes {
				return entry, p
			}
			entry = append(entry, p)
		default:
			return entry, nil
		}
	}
}

// send puts an entry into the log, here or at the leader, and answers its callers.
func (r *Replica) send(ctx context.Context, entry []*proposal) {
	if r.raft.State() == raft.Leader {
		if err := r.room.Full(); err != nil {
			answer(entry, nil, err)
			return
		}
		results, err := r.append(join(entry))
		answer(entry, results, err)
		return
	}
	onward := entry[:0]
	for _, p := range entry {
		if p.local {
			answer([]*proposal{p}, nil, errNotApplied)
		} else {
			onward = append(onward, p)
		}
	}
	if len(onward) > 0 {
		results, err := r.forward(ctx, join(onward))
		answer(onward, results, err)
	}
}

// join makes one batch of the callers' batches: protobuf lists concatenate.
func join(entry []*proposal) []byte {
	if len(entry) == 1 {
		return entry[0].raw
	}
	size := 0
	for _, p := range entry {
		size += len(p.raw)
	}
	raw := make([]byte, 0, size)
	for _, p := range entry {
		raw = append(raw, p.raw...)
	}
	return raw
}

func answer(entry []*proposal, results []command.Result, err error) {
	for _, p := range entry {
		switch {
		case err != nil:
			p.done <- outcome{err: err}
		case len(results) < p.count:
			p.done <- outcome{err: fault.New(fault.Internal, "%d results for %d commands", len(results), p.count)}
		default:
			p.done <- outcome{results: results[:p.count:p.count]}
			results = results[p.count:]
		}
	}
}

// append puts an entry into this leader's log.
func (r *Replica) append(raw []byte) ([]command.Result, error) {
	future := r.raft.Apply(raw, sendWait)
	switch err := future.Error(); {
	case err == nil:
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout),
		errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return nil, fmt.Errorf("%w: %w", errNotApplied, err)
	default:
		return nil, fault.New(fault.Unready, "this coordinator stopped leading: it is unknown whether the commands were applied: %w", err)
	}
	switch answer := future.Response().(type) {
	case []command.Result:
		return answer, nil
	case error:
		// The entry is in the log of a majority: the next leader applies it. This one stops (Fatal), as with a full disk.
		return nil, fault.New(fault.Unready, "the leader cannot apply its log and stops, it is unknown whether the commands were applied: %w", answer)
	default:
		return nil, fault.New(fault.Internal, "the leader answered with a %T", answer)
	}
}

// forward sends an entry to the leader.
func (r *Replica) forward(ctx context.Context, raw []byte) ([]command.Result, error) {
	leader := r.Leader()
	if leader == "" || leader == r.id {
		return nil, errNotApplied
	}
	ctx, cancel := context.WithTimeout(ctx, sendWait)
	defer cancel()
	answer, err := r.peers.Propose(ctx, raft.ServerID(leader), raw)
	switch {
	case errors.Is(err, ErrNotSent):
		return nil, fmt.Errorf("%w: %w", errNotApplied, err)
	case fault.Is(err, fault.Invalid):
		return nil, err
	case err != nil:
		return nil, fault.New(fault.Unready, "the leader %s did not answer: it is unknown whether the commands were applied: %w", leader, err)
	case len(answer) == 0:
		return nil, errNotApplied
	}
	return command.DecodeResults(answer)
}
