package quorum

import (
	"context"
	"strings"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/replica"
	"github.com/clary-ml/clary/internal/fault"
)

// voteBehind is how many log entries a new coordinator may be behind when it begins to vote: what it
// catches up with in an instant, while a cluster that works never stands still for it.
const voteBehind = 256

// Applicant is a coordinator that asks to be a member, or says where it is now.
type Applicant struct {
	ID, Address string
	Key         string // fingerprint of its certificate's
	Format      int    // that its build knows
	Version     string
	Staged      bool // it asks again until it votes; earlier builds do not
	Applied     uint64
}

// Admit makes a coordinator a member: one that gets the log first, and votes once it has caught up. It reports whether it
// votes, and how far it is behind.
func (d *Desk) Admit(ctx context.Context, a Applicant) (voter bool, behind uint64, err error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if err := d.led(ctx); err != nil {
		return false, 0, err
	}
	known, err := d.Replica.Members()
	if err != nil {
		return false, 0, err
	}
	var member *replica.Member
	for _, m := range known {
		if m.ID == a.ID {
			member = &m
		}
	}
	if err := d.mayEnter(ctx, a, member != nil); err != nil {
		return false, 0, err
	}
	switch committed := d.Replica.Stats().Committed; {
	case !a.Staged:
		return true, 0, d.Replica.AddVoter(ctx, a.ID, a.Address)
	case member == nil:
		d.Log.Info("a coordinator joins: it gets the log, and votes when it has caught up", "id", a.ID, "address", a.Address, "version", a.Version)
		return false, committed, d.Replica.AddNonvoter(ctx, a.ID, a.Address)
	case member.Voter && member.Address == a.Address:
		return true, 0, nil
	case member.Voter:
		return true, 0, d.Replica.AddVoter(ctx, a.ID, a.Address)
	case a.Applied+voteBehind < committed:
		return false, committed - a.Applied, nil
	}
	d.Log.Info("a coordinator votes from now on", "id", a.ID)
	return true, 0, d.Replica.AddVoter(ctx, a.ID, a.Address)
}

// mayEnter refuses whom nobody vouches for, and builds that could not read the log.
func (d *Desk) mayEnter(ctx context.Context, a Applicant, member bool) error {
	snapshot, err := d.Replica.Read(ctx, false)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	var tokens []cluster.Token
	for token := range snapshot.Tokens() {
		tokens = append(tokens, token)
	}
	if err := vouched(tokens, a.ID, a.Key, member); err != nil {
		return err
	}
	if inForce := snapshot.Format(); a.Format < inForce {
		return fault.New(fault.Invalid, "the cluster is at format %d, and this build (%s) knows %d: install the version that the others run (clary cluster members), and start it again",
			inForce, a.Version, a.Format)
	}
	return nil
}

// Weigh decides whether a coordinator may be removed as things are, and returns what that means beyond having one less: which must be forced.
func (d *Desk) Weigh(ctx context.Context, id string, force bool) (means []string, err error) {
	if err := d.led(ctx); err != nil {
		return nil, err
	}
	members, err := d.Members(ctx)
	if err != nil {
		return nil, err
	}
	storeAt, embedded := d.StoreAt()
	if means, err = consequences(members, id, storeAt, embedded); err != nil {
		return nil, err
	}
	if len(means) > 0 && !force {
		return nil, fault.New(fault.Conflict, "id: removing coordinator %s is refused, since %s; --force does it all the same", id, strings.Join(means, "; and "))
	}
	return means, nil
}

// Remove takes a coordinator out of the cluster, if Weigh lets it. The leader hands over first, and answers elsewhere: whoever asked is
// to ask the new leader.
func (d *Desk) Remove(ctx context.Context, id string, force bool) (accepted []string, elsewhere bool, err error) {
	d.changing.Lock() // from before it is weighed: two that may go may not both
	defer d.changing.Unlock()
	means, err := d.Weigh(ctx, id, force)
	if err != nil {
		return nil, false, err
	}
	if id == d.ID {
		_, err := d.transfer(ctx, "")
		return nil, true, err
	}
	if err := d.disown(ctx, id); err != nil {
		return nil, false, err
	}
	if err := d.Replica.RemoveServer(ctx, id); err != nil {
		return nil, false, err
	}
	d.Log.Info("a coordinator was removed", "id", id, "forced", means)
	return means, false, nil
}

// disown revokes the join tokens that vouch for a coordinator: those bound in its name, and those of
// earlier builds, which noted no name. What they vouched for stays as long as it is a member.
func (d *Desk) disown(ctx context.Context, id string) error {
	for {
		snapshot, err := d.Replica.Read(ctx, false)
		if err != nil {
			return err
		}
		var changes []command.Change
		for token := range snapshot.Tokens() {
			if token.Kind == cluster.TokenJoin && token.Role == cluster.RoleCoordinator && token.BoundKey != "" && !token.Revoked && (token.Name == id || token.Name == "") {
				token = token.Revoke(time.Now().UnixNano())
				changes = append(changes, command.Change{Expect: token.Revision, Token: &token})
			}
		}
		_ = snapshot.Close()
		if len(changes) == 0 {
			return nil
		}
		if _, err := d.Replica.Propose(ctx, command.Record{Changes: changes}); err == nil || !fault.Is(err, fault.Conflict) {
			return err
		}
	}
}

// raiseEvery is how often the leader looks whether all know a newer format.
const raiseEvery = 5 * time.Second

// Run raises the format in force as soon as all coordinators know a newer one. It runs on the leader.
func (d *Desk) Run(ctx context.Context) error {
	defer d.heldBack.Store(nil)
	clock := time.NewTicker(raiseEvery)
	defer clock.Stop()
	for {
		if err := d.raise(ctx); err != nil && ctx.Err() == nil {
			d.Log.Debug("the format in force stays for now", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-clock.C:
		}
	}
}

// HeldBack is why a newer format is not in force, as far as this coordinator knows: the leader does.
func (d *Desk) HeldBack() string {
	if why := d.heldBack.Load(); why != nil {
		return *why
	}
	return ""
}

func (d *Desk) raise(ctx context.Context) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	inForce, err := d.Replica.Format()
	if err != nil || inForce >= command.Format {
		return err
	}
	members, err := d.Members(ctx)
	if err != nil {
		return err
	}
	format, why := raisable(members, command.Format)
	d.heldBack.Store(&why)
	if format <= inForce {
		return nil
	}
	if err := d.Replica.ProposeHere(ctx, command.RaiseFormat{To: format}); err != nil {
		return err
	}
	d.Log.Info("a newer format is in force: builds that do not know it can no longer take part", "format", format)
	return nil
}

// Formats tells which format is in force, and why the newest is not.
func (d *Desk) Formats(members []Member) (inForce int, heldBack string, err error) {
	if inForce, err = d.Replica.Format(); err != nil || inForce >= command.Format {
		return inForce, "", err
	}
	if _, heldBack = raisable(members, command.Format); heldBack == "" {
		heldBack = "all coordinators know it: it is raised within seconds"
	}
	return inForce, heldBack, nil
}
