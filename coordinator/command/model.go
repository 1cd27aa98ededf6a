package command

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

// modelPut is how a record changes a model: what it was, and what becomes of its versions.
type modelPut struct {
	old           cluster.Model
	made, deleted int64
}

// modelOf is how the record changes a model so far.
func (w *recording) modelOf(name string) *modelPut {
	for _, put := range w.models {
		if put.old.Name == name {
			return put
		}
	}
	old, existed := w.Model(name)
	if !existed {
		old = cluster.Model{Name: name, Next: 1}
	}
	put := &modelPut{old: old}
	w.models = append(w.models, put)
	return put
}

// putModel makes a model, or changes its aliases, its text, and with its versions its counts.
func (w *recording) putModel(model cluster.Model, expected uint64) error {
	old, existed := w.Model(model.Name)
	if err := w.expect(state.KindModel, model.Name, expected, old.Revision); err != nil {
		return err
	}
	if err := invalid(state.KindModel, model.Name, model.Validate()); err != nil {
		return err
	}
	if existed && (model.Owner != old.Owner || model.Created != old.Created) {
		return fault.New(fault.Invalid, "model %q: owner and created never change", model.Name)
	}
	w.modelOf(model.Name)
	if model.Revision = old.Revision; existed && reflect.DeepEqual(model, old) {
		return nil
	}
	w.PutModel(model)
	return nil
}

// putVersion makes the next version of a model, or changes what is thought of one.
func (w *recording) putVersion(version cluster.ModelVersion, expected uint64) error {
	id := version.ID()
	old, existed := w.ModelVersion(id)
	if err := w.expect(state.KindVersion, id, expected, old.Revision); err != nil {
		return err
	}
	if err := invalid(state.KindVersion, version.Ref(), version.Validate()); err != nil {
		return err
	}
	put := w.modelOf(version.Model)
	if existed {
		if err := w.versionMayBecome(old, version); err != nil {
			return err
		}
	} else {
		switch {
		case version.Number != put.old.Next+put.made:
			return fault.New(fault.Conflict, "version %s: the next version has number %d", version.Ref(), put.old.Next+put.made)
		case version.Approval.State != cluster.ApprovalPending || version.Deleting:
			return fault.New(fault.Invalid, "version %s: a new version is %s", version.Ref(), cluster.ApprovalPending)
		}
		put.made++
	}
	for _, e := range version.Evaluations {
		if before, _ := old.Evaluation(e.Name); before.Against == e.Against || e.Against == "" {
			continue
		}
		if err := w.checkComparison(version, e); err != nil {
			return err
		}
	}
	w.PutModelVersion(version)
	return nil
}

// checkComparison demands that what an evaluation compares with is there to stay.
func (w *recording) checkComparison(version cluster.ModelVersion, e cluster.Evaluation) error {
	ref, err := cluster.ParseModelRef(e.Against)
	if err != nil {
		return fault.New(fault.Invalid, "version %s: against: %w", version.Ref(), err)
	}
	other, exists := w.ModelVersion(cluster.ModelVersionID(ref.Model, ref.Number))
	if !exists || other.Deleting {
		return fault.New(fault.Conflict, "version %s: evaluation %q: against: there is no version %s", version.Ref(), e.Name, ref)
	}
	return nil
}

// versionMayBecome says whether a stored version may be replaced by another form of it.
func (w *recording) versionMayBecome(old, version cluster.ModelVersion) error {
	if old.Deleting {
		return fault.New(fault.Conflict, "version %s is being deleted: it does not change any more", old.Ref())
	}
	same := version
	same.Approval, same.Evaluations, same.Deleting, same.Revision = old.Approval, old.Evaluations, old.Deleting, old.Revision
	if !reflect.DeepEqual(same, old) {
		return fault.New(fault.Invalid, "version %s: only its approval and its evaluations change", old.Ref())
	}
	if from, to := old.Approval.State, version.Approval.State; from != to && !from.CanBecome(to) {
		return fault.New(fault.Conflict, "version %s: approval: %s cannot become %s", old.Ref(), from, to)
	}
	if version.Deleting {
		return w.checkUnused(old)
	}
	return nil
}

// shownUses is how many users a refusal names.
const shownUses = 8

// checkUnused refuses to part with a version that something uses: see state.UseKind.
func (w *recording) checkUnused(version cluster.ModelVersion) error {
	var users []string
	for use := range w.UsesOf(version.ID()) {
		if len(users) == shownUses {
			users = append(users, "and others")
			break
		}
		users = append(users, use.String())
	}
	if len(users) == 0 {
		return nil
	}
	return fault.New(fault.Conflict, "version %s is used by %s: end that first", version.Ref(), strings.Join(users, ", "))
}

// deleteVersion is for one that was marked before, so that what it left in the store is gone.
func (w *recording) deleteVersion(id string) error {
	version, _ := w.ModelVersion(id)
	if !version.Deleting {
		return fault.New(fault.Conflict, "version %s is not being deleted", version.Ref())
	}
	w.modelOf(version.Model).deleted++
	w.DeleteModelVersion(id)
	return nil
}

func (w *recording) deleteModel(name string) error {
	if model, _ := w.Model(name); model.Count > 0 {
		return fault.New(fault.Conflict, "model %q has %d versions: delete them first", name, model.Count)
	}
	w.DeleteModel(name)
	return nil
}

// checkModels holds each model that the record touches against its versions: it was put with
// them, its counts are theirs, and an alias names a version that is there and was not rejected.
func (w *recording) checkModels() error {
	for _, put := range w.models {
		name := put.old.Name
		now, exists := w.Model(name)
		if !exists {
			return fault.New(fault.Conflict, "model %q does not exist: the record must put it with its first version", name)
		}
		if now.Next != put.old.Next+put.made || now.Deleted != put.old.Deleted+put.deleted {
			return fault.New(fault.Invalid, "model %q: next %d with %d deleted; its versions make %d with %d: the record must put it with them",
				name, now.Next, now.Deleted, put.old.Next+put.made, put.old.Deleted+put.deleted)
		}
		for _, alias := range slices.Sorted(maps.Keys(now.Aliases)) {
			number := now.Aliases[alias]
			version, there := w.ModelVersion(cluster.ModelVersionID(name, number))
			switch {
			case !there || version.Deleting:
				return fault.New(fault.Conflict, "model %q: alias %q names version %d, which is not there", name, alias, number)
			case version.Approval.State == cluster.ApprovalRejected:
				return fault.New(fault.Conflict, "model %q: alias %q names version %d, which is rejected: name another with clary models alias", name, alias, number)
			}
		}
	}
	return nil
}

// checkPins demands that the versions which a new job reads are there to stay, as they were
// when its references were resolved.
func (w *recording) checkPins(job cluster.Job) error {
	return w.checkThere("job", job.Name, job.Models)
}

// checkThere demands that the versions which references were resolved to are there to stay, as they were then.
func (w *recording) checkThere(what, name string, pins []cluster.ModelPin) error {
	for _, pin := range pins {
		version, exists := w.ModelVersion(pin.ID())
		if !exists || version.Deleting || version.Pin(pin.Ref) != pin {
			return fault.New(fault.Conflict, "%s %q: its input %s: version %d of model %s is not there any more", what, name, cluster.Clip(pin.Ref), pin.Number, pin.Model)
		}
	}
	return nil
}
