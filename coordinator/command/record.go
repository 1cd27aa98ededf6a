package command

import (
	"bytes"
	"cmp"
	"reflect"
	"slices"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// MaxChanges is how many nouns one record may name.
const MaxChanges = 4096

// Apply implements Command.
func (r Record) Apply(tx *state.Tx, now int64) (Result, error) {
	if len(r.Changes) == 0 || len(r.Changes) > MaxChanges {
		return Result{}, fault.New(fault.Invalid, "changes: a record has 1 to %d, not %d", MaxChanges, len(r.Changes))
	}
	w := recording{Tx: tx, now: now, named: make(map[Key]bool, len(r.Changes))}
	for _, change := range r.Changes {
		if err := w.apply(change); err != nil {
			return Result{}, err
		}
	}
	for _, put := range w.gangs {
		if err := w.checkOwner(put); err != nil {
			return Result{}, err
		}
	}
	if err := cmp.Or(w.checkSweeps(), w.checkModels(), w.checkEndpoints(), w.checkQueues()); err != nil {
		return Result{}, err
	}
	return Result{}, nil
}

// recording is one record while it is being applied.
type recording struct {
	*state.Tx
	now   int64
	named map[Key]bool // nouns of the changes so far
	gangs []gangPut    // to be checked against their jobs as the whole record leaves them
	// How a record changes sweeps, to be checked when all of it is known.
	sweeps []*sweepPut
	models []*modelPut // likewise
	queues bool        // it changes queues: the whole tree is checked likewise
	// Endpoints that the record puts, likewise; see gangs.
	endpoints []endpointPut
}

func (w *recording) apply(change Change) error {
	switch {
	case change.Job != nil:
		return w.putJob(*change.Job, change.Expect)
	case change.Gang != nil:
		return w.putGang(*change.Gang, change.Expect)
	case change.Queue != nil:
		return w.putQueue(*change.Queue, change.Expect)
	case change.Token != nil:
		return w.putToken(*change.Token, change.Expect)
	case change.Secret != nil:
		return w.putSecret(*change.Secret, change.Expect)
	case change.Trust != nil:
		return w.putTrust(*change.Trust, change.Expect)
	case change.Deed != nil:
		return w.putDeed(*change.Deed, change.Expect)
	case change.Sweep != nil:
		return w.putSweep(*change.Sweep, change.Expect)
	case change.Trial != nil:
		return w.putTrial(*change.Trial, change.Expect)
	case change.Endpoint != nil:
		return w.putEndpoint(*change.Endpoint, change.Expect)
	case change.Model != nil:
		return w.putModel(*change.Model, change.Expect)
	case change.Version != nil:
		return w.putVersion(*change.Version, change.Expect)
	case change.Settings != nil:
		return w.putSettings(*change.Settings, change.Expect)
	case change.Archived != nil:
		return w.putArchived(*change.Archived, change.Expect)
	case change.Check != nil:
		return w.check(*change.Check, change.Expect)
	case change.Delete != nil:
		return w.delete(*change.Delete, change.Expect)
	}
	return fault.New(fault.Invalid, "changes: one of them names no noun")
}

// expect checks the revision that was read, and that no noun is named twice. current is
// 0 if there is none.
func (w *recording) expect(kind state.Kind, id string, expected, current uint64) error {
	key := Key{Kind: kind, ID: id}
	if w.named[key] {
		return fault.New(fault.Invalid, "changes: %s %q is there twice", kind, cluster.Clip(id))
	}
	w.named[key] = true
	switch {
	case expected == current:
		return nil
	case expected == 0:
		return fault.New(fault.Conflict, "%s %q exists already, at revision %d", kind, cluster.Clip(id), current)
	case current == 0:
		return fault.New(fault.Conflict, "%s %q does not exist; it was expected at revision %d", kind, cluster.Clip(id), expected)
	}
	return fault.New(fault.Conflict, "%s %q is at revision %d, not %d: read it again", kind, cluster.Clip(id), current, expected)
}

func invalid(kind state.Kind, id string, problems cluster.Problems) error {
	if err := problems.Err(); err != nil {
		return fault.New(fault.Invalid, "%s %q: %w", kind, cluster.Clip(id), err)
	}
	return nil
}

func (w *recording) putJob(job cluster.Job, expected uint64) error {
	old, existed := w.Job(job.Name)
	if err := w.expect(state.KindJob, job.Name, expected, old.Revision); err != nil {
		return err
	}
	if job.Revision = old.Revision; existed && reflect.DeepEqual(job, old) {
		return nil
	}
	if err := invalid(state.KindJob, job.Name, job.Validate()); err != nil {
		return err
	}
	if !existed || job.Queue != old.Queue {
		if err := w.checkLine(job); err != nil {
			return err
		}
	}
	if !existed && job.State != cluster.JobQueued {
		return fault.New(fault.Invalid, "job %q: state: a new job is %s, not %q", job.Name, cluster.JobQueued, job.State)
	}
	if existed {
		if err := cmp.Or(jobMayBecome(old, job), w.checkEnd(job)); err != nil {
			return err
		}
	} else if err := cmp.Or(w.checkNotArchived(job.Name), w.checkParent(job), w.checkPins(job), CheckCrowd(w, job)); err != nil {
		return err
	}
	w.PutJob(job)
	return nil
}

// jobMayBecome says whether a stored job may be replaced by another form of it.
func jobMayBecome(old, job cluster.Job) error {
	if old.State.Ended() {
		return fault.New(fault.Conflict, "job %q has %s: it does not change any more", old.Name, old.State)
	}
	if old.State != job.State && !old.State.CanBecome(job.State) {
		return fault.New(fault.Conflict, "job %q: state: %s cannot become %s", old.Name, old.State, job.State)
	}
	fixed := ""
	switch {
	case old.Kind != job.Kind:
		fixed = "kind"
	case old.Owner != job.Owner:
		fixed = "owner"
	case old.Submitted != job.Submitted:
		fixed = "submitted"
	case old.RequestID != job.RequestID:
		fixed = "request_id"
	case old.Parent != job.Parent:
		fixed = "parent"
	case !bytes.Equal(old.Spec, job.Spec):
		fixed = "spec"
	case old.Register != job.Register:
		fixed = "register"
	case !slices.Equal(old.Models, job.Models):
		fixed = "models"
	}
	if fixed != "" {
		return fault.New(fault.Invalid, "job %q: %s: it never changes after submission", old.Name, fixed)
	}
	if old.Cancel && !job.Cancel {
		return fault.New(fault.Conflict, "job %q: cancel: it was cancelled, and that is not taken back", old.Name)
	}
	return nil
}

func (w *recording) putToken(token cluster.Token, expected uint64) error {
	old, existed := w.Token(token.ID)
	if err := w.expect(state.KindToken, token.ID, expected, old.Revision); err != nil {
		return err
	}
	if token.Revision = old.Revision; existed && reflect.DeepEqual(token, old) {
		return nil
	}
	if err := invalid(state.KindToken, token.ID, token.Validate()); err != nil {
		return err
	}
	if existed {
		switch {
		case old.Kind != token.Kind || old.Role != token.Role || !bytes.Equal(old.Hash, token.Hash):
			return fault.New(fault.Invalid, "token %q: kind, role and hash never change: make another token", token.ID)
		case old.Revoked && !token.Revoked:
			return fault.New(fault.Conflict, "token %q: revoked: that is not taken back: make another token", token.ID)
		case old.BoundKey != "" && old.BoundKey != token.BoundKey:
			return fault.New(fault.Denied, "token %q: another key has used it already", token.ID)
		}
	}
	w.PutToken(token)
	return nil
}
