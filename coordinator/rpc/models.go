package rpc

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/auth"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/registry"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
	"github.com/clary-ml/clary/proto/wire"
	"github.com/clary-ml/clary/storage/object"
)

// Artifacts is the object store as the registry of models uses it.
type Artifacts interface {
	registry.Store
	DeletePrefix(ctx context.Context, prefix object.URI) (object.Extent, error)
	Delete(ctx context.Context, at object.URI) error
}

// changeTries is how often a change is tried again that others were faster than. So many in a row
// are no race any more, and the caller hears of the last one.
const changeTries = 64

const (
	versionsPage = 100     // versions of a page if no limit is said
	pageBytes    = 2 << 20 // of a page's versions, under the 4 MiB that a gRPC client takes if it says nothing
)

// models serves the registry.
type models struct {
	claryv1.UnimplementedModelsServer
	replica Replica
	store   func() (Artifacts, error)
}

// ownsModel refuses to decide about a model that belongs to another.
func (i Identity) ownsModel(model cluster.Model) error {
	if model.Owner == i.Name || auth.Allow(i.Role, auth.ControlAny) {
		return nil
	}
	return fault.New(fault.Denied, "model %s belongs to %s: only its owner or an admin may do this", model.Name, model.Owner)
}

func pageLimit(limit int32, usual int) (int, error) {
	if limit < 0 || limit > maxPage {
		return 0, fault.New(fault.Invalid, "limit: %d is out of range: from 0 (the default, %d) to %d", limit, usual, maxPage)
	}
	if limit == 0 {
		return usual, nil
	}
	return int(limit), nil
}

// List tells which models there are, by name.
func (s *models) List(ctx context.Context, request *claryv1.ListModelsRequest) (*claryv1.ListModelsResponse, error) {
	limit, err := pageLimit(request.GetLimit(), defaultPage)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	answer := &claryv1.ListModelsResponse{}
	for model := range snapshot.Models(request.GetAfter()) {
		if len(answer.Models) == limit {
			answer.Next = answer.Models[limit-1].GetName()
			break
		}
		answer.Models = append(answer.Models, wire.ModelToProto(model))
	}
	return answer, nil
}

// Get tells of one model.
func (s *models) Get(ctx context.Context, request *claryv1.GetModelRequest) (*claryv1.Model, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	model, ok := snapshot.Model(request.GetName())
	if !ok {
		return nil, registry.NoModel(request.GetName())
	}
	return wire.ModelToProto(model), nil
}

// Versions tells of a model's versions, the newest first. A page has as many as fit into pageBytes,
// and at least one.
func (s *models) Versions(ctx context.Context, request *claryv1.ListModelVersionsRequest) (*claryv1.ListModelVersionsResponse, error) {
	limit, err := pageLimit(request.GetLimit(), versionsPage)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	model, ok := snapshot.Model(request.GetModel())
	if !ok {
		return nil, registry.NoModel(request.GetModel())
	}
	end := model.Next
	if before := request.GetBefore(); before != 0 {
		end = min(end, before)
	}
	answer, size := &claryv1.ListModelVersionsResponse{}, 0
	for version := range registry.Newest(snapshot, model.Name, end) {
		next := wire.ModelVersionToProto(version)
		size += proto.Size(next)
		if have := len(answer.Versions); have == limit || have > 0 && size > pageBytes {
			answer.Next = answer.Versions[have-1].GetNumber()
			break
		}
		answer.Versions = append(answer.Versions, next)
	}
	return answer, nil
}

// Version resolves a reference, and tells who uses what it means.
func (s *models) Version(ctx context.Context, request *claryv1.GetModelVersionRequest) (*claryv1.ModelVersionView, error) {
	snapshot, err := s.replica.Read(ctx, request.GetStale())
	if err != nil {
		return nil, err
	}
	defer snapshot.Close()
	version, err := registry.Resolve(snapshot, request.GetRef())
	if err != nil {
		return nil, err
	}
	answer := &claryv1.ModelVersionView{Version: wire.ModelVersionToProto(version)}
	for use := range snapshot.UsesOf(version.ID()) {
		answer.Users = append(answer.Users, use.String())
		if use.Kind == state.UseAlias {
			answer.Aliases = append(answer.Aliases, use.ID)
		}
	}
	return answer, nil
}

// change puts what a request makes of a version and its model; when they changed meanwhile, it
// tries again. No changes are an answer too: it is so already.
func (s *models) change(ctx context.Context, ref string, owned bool, edit func(*state.Snapshot, cluster.ModelVersion, cluster.Model) ([]command.Change, error)) (cluster.ModelVersion, error) {
	for try := 1; ; try++ {
		snapshot, err := s.replica.Read(ctx, false)
		if err != nil {
			return cluster.ModelVersion{}, err
		}
		version, err := registry.Resolve(snapshot, ref)
		model, _ := snapshot.Model(version.Model)
		if err == nil && owned {
			err = caller(ctx).ownsModel(model)
		}
		var changes []command.Change
		if err == nil {
			changes, err = edit(snapshot, version, model)
		}
		snapshot.Close()
		if err != nil || len(changes) == 0 {
			return version, err
		}
		results, err := s.replica.Propose(ctx, command.Record{Changes: changes})
		if err == nil {
			if changes[0].Version != nil {
				version = *changes[0].Version
				version.Revision = results[0].Revision
			}
			return version, nil
		}
		if again := fault.Is(err, fault.Conflict) && s.moved(ctx, version, model); !again || try == changeTries {
			return version, err
		}
	}
}

// moved reports whether a version or its model is not as it was read: then a conflict is no
// answer yet.
func (s *models) moved(ctx context.Context, version cluster.ModelVersion, model cluster.Model) bool {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return false
	}
	defer snapshot.Close()
	nowVersion, _ := snapshot.ModelVersion(version.ID())
	nowModel, _ := snapshot.Model(model.Name)
	return nowVersion.Revision != version.Revision || nowModel.Revision != model.Revision
}

// Approve writes down what was decided about a version.
func (s *models) Approve(ctx context.Context, request *claryv1.ApproveModelRequest) (*claryv1.ModelVersion, error) {
	to := cluster.Approval{State: cluster.ApprovalState(request.GetState()), By: caller(ctx).Name, At: time.Now().UnixNano(), Why: request.GetWhy()}
	if to.State != cluster.ApprovalApproved && to.State != cluster.ApprovalRejected {
		return nil, fault.New(fault.Invalid, "state: %q: a version is %s or %s", cluster.Clip(request.GetState()), cluster.ApprovalApproved, cluster.ApprovalRejected)
	}
	version, err := s.change(ctx, request.GetRef(), true, func(_ *state.Snapshot, version cluster.ModelVersion, _ cluster.Model) ([]command.Change, error) {
		if was := version.Approval; was.State == to.State && was.By == to.By && was.Why == to.Why {
			return nil, nil
		}
		version.Approval = to
		return []command.Change{{Expect: version.Revision, Version: &version}}, nil
	})
	if err != nil {
		return nil, err
	}
	return wire.ModelVersionToProto(version), nil
}

// Alias names a version, or takes the name away.
func (s *models) Alias(ctx context.Context, request *claryv1.AliasModelRequest) (*claryv1.Model, error) {
	var p cluster.Problems
	cluster.CheckName(&p, "alias", request.GetAlias())
	if err := p.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "%w", err)
	}
	for try := 1; ; try++ {
		model, err := s.model(ctx, request.GetModel())
		if err != nil {
			return nil, err
		}
		old, known := model.Aliases[request.GetAlias()]
		switch number := request.GetNumber(); {
		case number == 0 && !known:
			return nil, fault.New(fault.NotFound, "model %s has no alias %q: see clary models show %s", model.Name, request.GetAlias(), model.Name)
		case number == old:
			return wire.ModelToProto(model), nil
		case number < 0 || number >= model.Next:
			return nil, fault.New(fault.NotFound, "model %s has no version %d: see clary models show %s", model.Name, number, model.Name)
		}
		model.Aliases = maps.Clone(model.Aliases)
		if model.Aliases == nil {
			model.Aliases = map[string]int64{}
		}
		if model.Aliases[request.GetAlias()] = request.GetNumber(); request.GetNumber() == 0 {
			delete(model.Aliases, request.GetAlias())
		}
		results, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Expect: model.Revision, Model: &model}}})
		if err == nil {
			model.Revision = results[0].Revision
			return wire.ModelToProto(model), nil
		}
		if now, readErr := s.model(ctx, model.Name); !fault.Is(err, fault.Conflict) || readErr != nil || now.Revision == model.Revision || try == changeTries {
			return nil, err
		}
	}
}

// model reads one that the caller may decide about.
func (s *models) model(ctx context.Context, name string) (cluster.Model, error) {
	snapshot, err := s.replica.Read(ctx, false)
	if err != nil {
		return cluster.Model{}, err
	}
	defer snapshot.Close()
	model, ok := snapshot.Model(name)
	if !ok {
		return model, registry.NoModel(name)
	}
	return model, caller(ctx).ownsModel(model)
}

// Evaluate puts a report beside a version, or takes one away.
func (s *models) Evaluate(ctx context.Context, request *claryv1.EvaluateModelRequest) (*claryv1.ModelVersion, error) {
	evaluation := wire.EvaluationFromProto(request.GetEvaluation())
	evaluation.By, evaluation.At = caller(ctx).Name, time.Now().UnixNano()
	var before cluster.Evaluation
	version, err := s.change(ctx, request.GetRef(), false, func(snapshot *state.Snapshot, version cluster.ModelVersion, model cluster.Model) ([]command.Change, error) {
		var known bool
		before, known = version.Evaluation(evaluation.Name)
		switch {
		case known && before.By != evaluation.By && caller(ctx).ownsModel(model) != nil && !(request.GetRemove() && comparesWith(snapshot, before, caller(ctx))):
			return nil, fault.New(fault.Denied, "evaluation %s of version %s is %s's: choose another name", evaluation.Name, version.Ref(), before.By)
		case !known && request.GetRemove():
			return nil, fault.New(fault.NotFound, "version %s has no evaluation %q: see clary models show %s", version.Ref(), cluster.Clip(evaluation.Name), version.Ref())
		}
		if evaluation.Against != "" {
			other, err := registry.Resolve(snapshot, evaluation.Against)
			if err != nil {
				return nil, fault.New(fault.KindOf(err), "against: %w", err)
			}
			evaluation.Against = other.Ref()
		}
		version.Evaluations = slices.DeleteFunc(slices.Clone(version.Evaluations), func(e cluster.Evaluation) bool { return e.Name == evaluation.Name })
		if len(version.Evaluations) == 0 {
			version.Evaluations = nil
		}
		if !request.GetRemove() {
			version.Evaluations = append(version.Evaluations, evaluation)
			slices.SortFunc(version.Evaluations, func(a, b cluster.Evaluation) int { return strings.Compare(a.Name, b.Name) })
		}
		return []command.Change{{Expect: version.Revision, Version: &version}}, nil
	})
	if err != nil {
		return nil, err
	}
	s.discard(ctx, version, before, evaluation, request.GetRemove())
	return wire.ModelVersionToProto(version), nil
}

// comparesWith reports whether a report compares with a version of the caller's, who may take it
// away then: it keeps the version from being deleted.
func comparesWith(snapshot *state.Snapshot, e cluster.Evaluation, caller Identity) bool {
	ref, err := cluster.ParseModelRef(e.Against)
	if err != nil {
		return false
	}
	model, ok := snapshot.Model(ref.Model)
	return ok && caller.ownsModel(model) == nil
}

// discard deletes the pages of a report that another has replaced. If it cannot, they go with
// the version.
func (s *models) discard(ctx context.Context, version cluster.ModelVersion, before, now cluster.Evaluation, removed bool) {
	store, err := s.store()
	if err != nil {
		return
	}
	for _, uri := range []string{before.Report, before.Details} {
		if at, err := object.ParseURI(uri); err == nil && strings.HasPrefix(uri, version.Folder()) && (removed || uri != now.Report && uri != now.Details) {
			_ = store.Delete(ctx, at)
		}
	}
}

// Delete deletes a version that nothing uses, or a model without versions. A version is marked
// first, so that nobody begins to use it; then its objects go, then it goes: a crash in between
// leaves one that can be deleted again.
func (s *models) Delete(ctx context.Context, request *claryv1.DeleteModelRequest) (*claryv1.DeleteModelResponse, error) {
	ref, err := cluster.ParseModelRef(request.GetRef())
	if err != nil {
		return nil, fault.New(fault.Invalid, "model: %w", err)
	}
	model, err := s.model(ctx, ref.Model)
	if err != nil {
		return nil, err
	}
	if ref.Whole() {
		if model.Count > 0 {
			return nil, fault.New(fault.Conflict, "model %s has %d versions: delete them first, as in clary models delete %s@%d", model.Name, model.Count, model.Name, model.Next-1)
		}
		key := command.Key{Kind: state.KindModel, ID: model.Name}
		_, err := s.replica.Propose(ctx, command.Record{Changes: []command.Change{{Expect: model.Revision, Delete: &key}}})
		return &claryv1.DeleteModelResponse{Deleted: []string{model.Name}}, err
	}
	if ref.Alias != "" {
		return nil, fault.New(fault.Conflict, "%s is an alias, and what has one is used: name the version by its number, and take the alias away with clary models alias %s %s --remove", ref, model.Name, ref.Alias)
	}
	id := cluster.ModelVersionID(ref.Model, ref.Number)
	if err := s.mark(ctx, ref, id, model.Next); err != nil {
		return nil, err
	}
	return &claryv1.DeleteModelResponse{Deleted: []string{ref.String()}}, s.finish(ctx, id)
}

// mark makes a version one that nobody may use any more, unless it is or is gone already: an
// earlier request was cut off, or its answer was lost. Numbers from next on were never given.
func (s *models) mark(ctx context.Context, ref cluster.ModelRef, id string, next int64) error {
	marked := func() (bool, error) {
		snapshot, err := s.replica.Read(ctx, false)
		if err != nil {
			return false, err
		}
		defer snapshot.Close()
		version, exists := snapshot.ModelVersion(id)
		return version.Deleting || !exists && ref.Number < next, nil
	}
	if done, err := marked(); done || err != nil {
		return err
	}
	_, err := s.change(ctx, ref.String(), true, func(_ *state.Snapshot, version cluster.ModelVersion, _ cluster.Model) ([]command.Change, error) {
		version.Deleting = true
		return []command.Change{{Expect: version.Revision, Version: &version}}, nil
	})
	if fault.Is(err, fault.NotFound) { // another may have been faster
		if done, readErr := marked(); done || readErr != nil {
			return readErr
		}
	}
	return err
}

// finish deletes what a marked version left, and the version.
func (s *models) finish(ctx context.Context, id string) error {
	for try := 1; ; try++ {
		snapshot, err := s.replica.Read(ctx, false)
		if err != nil {
			return err
		}
		version, exists := snapshot.ModelVersion(id)
		model, _ := snapshot.Model(version.Model)
		snapshot.Close()
		if !exists {
			return nil // somebody else did it
		}
		folder, err := object.ParseURI(version.Folder())
		if err != nil {
			return err
		}
		store, err := s.store()
		if err != nil {
			return err
		}
		if _, err := store.DeletePrefix(ctx, folder); err != nil && !fault.Is(err, fault.NotFound) {
			return fault.New(fault.KindOf(err), "delete what version %s left in the object store: %w", version.Ref(), err)
		}
		expect := model.Revision
		model.Count, model.Deleted = model.Count-1, model.Deleted+1
		_, err = s.replica.Propose(ctx, command.Record{Changes: []command.Change{
			{Expect: expect, Model: &model},
			{Expect: version.Revision, Delete: &command.Key{Kind: state.KindVersion, ID: id}},
		}})
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) || ctx.Err() != nil || try == changeTries {
			return err
		}
	}
}
