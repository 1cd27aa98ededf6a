package command

import (
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// deedsAtATime is how many of the oldest deeds go with each new one, so that no command has much to do.
const deedsAtATime = 4

func (w *recording) putSecret(secret cluster.Secret, expected uint64) error {
	old, existed := w.Secret(secret.ID())
	if err := w.expect(state.KindSecret, secret.ID(), expected, old.Revision); err != nil {
		return err
	}
	if err := invalid(state.KindSecret, secret.ID(), secret.Validate()); err != nil {
		return err
	}
	if !w.HasQueue(secret.Queue) {
		return fault.New(fault.Invalid, "secret %q: queue: %q does not exist", secret.Name, secret.Queue)
	}
	if !existed {
		count := 0
		for range w.SecretsOf(secret.Queue) {
			count++
		}
		if count >= cluster.MaxQueueSecrets {
			return fault.New(fault.Exhausted, "secret %q: queue %s has %d secrets already: delete some", secret.Name, secret.Queue, count)
		}
	}
	w.PutSecret(secret)
	return nil
}

// putDeed begins a deed, or ends one that has begun; nothing else of it changes.
func (w *recording) putDeed(deed cluster.Deed, expected uint64) error {
	old, existed := w.Deed(deed.ID)
	if err := w.expect(state.KindDeed, deed.ID, expected, old.Revision); err != nil {
		return err
	}
	if err := invalid(state.KindDeed, deed.ID, deed.Validate()); err != nil {
		return err
	}
	if existed {
		told := deed
		told.Ended, told.Result, told.Outcome, told.Revision = old.Ended, old.Result, old.Outcome, old.Revision
		if told != old || old.Ended != 0 {
			return fault.New(fault.Conflict, "deed %q: it is on record, and only its end can be added", deed.ID)
		}
	} else {
		forgetDeeds(w.Tx, deed, w.now)
	}
	w.PutDeed(deed)
	return nil
}

// Apply implements Command. A request that proposes more than once is on record once.
func (c Audited) Apply(tx *state.Tx, now int64) (Result, error) {
	result, err := c.Command.Apply(tx, now)
	if err != nil {
		return result, err
	}
	deed := c.Deed
	if _, known := tx.Deed(deed.ID); known {
		return result, nil
	}
	deed.Ended, deed.Outcome = now, cluster.OutcomeOK
	if err := invalid(state.KindDeed, deed.ID, deed.Validate()); err != nil {
		return Result{}, err
	}
	forgetDeeds(tx, deed, now)
	tx.PutDeed(deed)
	return result, nil
}

// forgetDeeds deletes some of those that are too old, and the oldest if there are more than may be. The count is not looked
// at for an entry without a request, which an earlier version may have made and applies otherwise.
func forgetDeeds(tx *state.Tx, deed cluster.Deed, now int64) {
	retention := tx.Settings().Retention
	oldest := cluster.NewDeedID(now-int64(retention.Audit), "")
	beyond := int64(0) // how many have to go for this one to fit
	if deed.Request != "" {
		beyond = tx.DeedCount() + 1 - retention.AuditMost
	}
	var gone []string
	for deed := range tx.Deeds("") {
		if deed.ID >= oldest && int64(len(gone)) >= beyond || len(gone) == deedsAtATime {
			break
		}
		gone = append(gone, deed.ID)
	}
	for _, id := range gone {
		tx.DeleteDeed(id)
	}
}
