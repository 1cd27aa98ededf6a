package state

import (
	"fmt"
	"iter"
	"strings"

	"github.com/clary-ml/clary/cluster"
)

// UseKind is a sort of user of a version of a model.
type UseKind string

// What may use a version of a model. Whatever is to keep a version from being deleted is a kind
// here, and is marked where it is written: see use.
const (
	UseAlias      UseKind = "alias"      // by its name
	UseEvaluation UseKind = "evaluation" // that compares with it, by "model@number/name"
	UseJob        UseKind = "job"        // that reads it and has not ended, by its name
	UseEndpoint   UseKind = "endpoint"   // one of whose fleets serves it, by "name/variant-generation", or "name/previous" for what a rollback goes back to
)

// Use is one user of a version.
type Use struct {
	Kind UseKind
	ID   string
}

// String reads like "job prep-2".
func (u Use) String() string { return string(u.Kind) + " " + u.ID }

// Model returns the named model.
func (r reader) Model(name string) (cluster.Model, bool) { return get(r, r.buckets.models, name) }

// ModelVersion returns a version by its ID, "model/000000003".
func (r reader) ModelVersion(id string) (cluster.ModelVersion, bool) {
	return get(r, r.buckets.versions, id)
}

// Models walks the models in the order of their names, those up to and with the name after left out.
func (r reader) Models(after string) iter.Seq[cluster.Model] {
	if after != "" {
		after += "\x00" // the next possible key
	}
	return all(r, r.buckets.models, "", after)
}

// VersionsOf walks the versions of a model from a number on.
func (r reader) VersionsOf(model string, from int64) iter.Seq[cluster.ModelVersion] {
	return all(r, r.buckets.versions, model+"/", cluster.ModelVersionID(model, from))
}

// UsesOf walks what uses a version, by an index.
func (r reader) UsesOf(version string) iter.Seq[Use] {
	prefix := version + "/"
	return func(yield func(Use) bool) {
		for entry, err := range r.buckets.uses.Range(r.from, prefix) {
			if err != nil {
				panic(fmt.Sprintf("state: stored bytes cannot be read: %v", err))
			}
			kind, id, _ := strings.Cut(entry.Key[len(prefix):], "/")
			if !yield(Use{Kind: UseKind(kind), ID: id}) {
				return
			}
		}
	}
}

// PutModel writes a model. Its aliases use what they name.
func (tx *Tx) PutModel(model cluster.Model) {
	model.Revision = tx.revision
	old, _ := tx.Model(model.Name)
	tx.useAliases(old, false)
	tx.useAliases(model, true)
	put(tx, tx.buckets.models, KindModel, model.Name, model)
}

// DeleteModel deletes a model. It leaves its versions to the caller.
func (tx *Tx) DeleteModel(name string) {
	old, _ := tx.Model(name)
	tx.useAliases(old, false)
	remove(tx, tx.buckets.models, KindModel, name)
}

// PutModelVersion writes a version. Its evaluations use what they compare with.
func (tx *Tx) PutModelVersion(version cluster.ModelVersion) {
	version.Revision = tx.revision
	old, _ := tx.ModelVersion(version.ID())
	tx.useComparisons(old, false)
	tx.useComparisons(version, true)
	put(tx, tx.buckets.versions, KindVersion, version.ID(), version)
}

// DeleteModelVersion deletes a version.
func (tx *Tx) DeleteModelVersion(id string) {
	old, _ := tx.ModelVersion(id)
	tx.useComparisons(old, false)
	remove(tx, tx.buckets.versions, KindVersion, id)
}

func (tx *Tx) useAliases(model cluster.Model, in bool) {
	for alias, number := range model.Aliases { // in any order: each has its own row
		tx.use(cluster.ModelVersionID(model.Name, number), UseAlias, alias, in)
	}
}

func (tx *Tx) useComparisons(version cluster.ModelVersion, in bool) {
	for _, evaluation := range version.Evaluations {
		if ref, err := cluster.ParseModelRef(evaluation.Against); err == nil && ref.Number != 0 {
			tx.use(cluster.ModelVersionID(ref.Model, ref.Number), UseEvaluation, version.Ref()+"/"+evaluation.Name, in)
		}
	}
}

// use marks that a version is used, or not any more.
func (tx *Tx) use(version string, kind UseKind, id string, in bool) {
	tx.mark(tx.buckets.uses, version+"/"+string(kind)+"/"+id, in)
}
