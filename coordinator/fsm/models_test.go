package fsm_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
)

func TestReplicasAreEqualInWhatModelsGoThrough(t *testing.T) {
	exercised := equalReplicas(t, func(d drawer) command.Command {
		if d.s.Index() < 3 {
			return d.register()
		}
		return pick(d, []func() command.Command{
			d.register, d.register, d.alias, d.alias, d.judge, d.judge, d.judge, d.part, d.part, d.part, d.dropModel, d.dropModel, d.reader, d.reader, d.changeJob, d.drop,
		}, "command")()
	})
	for _, what := range []string{"a version", "a change of a version", "an alias", "a version to go", "a version goes", "a model goes", "a reader"} {
		for _, answer := range []string{"accepted", "refused"} {
			if exercised[what+" "+answer] < 1 {
				t.Errorf("%s %s: %d times", what, answer, exercised[what+" "+answer])
			}
		}
	}
	t.Log(exercised)
}

func (d drawer) model() (cluster.Model, bool) {
	name := d.name("model", 2)
	model, exists := d.s.Model(name)
	if !exists {
		model = cluster.Model{Name: name, Owner: "ada", Next: 1}
	}
	return model, exists
}

func (d drawer) version() (cluster.ModelVersion, bool) {
	var all []cluster.ModelVersion
	for i := range 2 {
		all = slices.AppendSeq(all, d.s.VersionsOf(fmt.Sprintf("model%d", i+1), 0))
	}
	if len(all) == 0 {
		return cluster.ModelVersion{}, false
	}
	return pick(d, all, "version"), true
}

// register adds versions to a model, for the most part rightly.
func (d drawer) register() command.Command {
	model, _ := d.model()
	expect := d.expect(model.Revision)
	var record command.Record
	for i := range rapid.IntRange(1, 2).Draw(d.T, "versions") {
		number := model.Next
		if d.one(8) {
			number++
		}
		key := fmt.Sprintf("%d-%d", d.s.Index()+1, i)
		version := cluster.ModelVersion{
			Model: model.Name, Number: number, Owner: "ada", Created: int64(d.s.Index()) + 1, RequestID: key,
			Artifact: cluster.Output{Name: "m", URI: cluster.ModelFolder(model.Name, key) + "m", SHA256: strings.Repeat("a", 64), Size: 1},
			Approval: cluster.Approval{State: cluster.ApprovalPending},
		}
		model.Next++
		model.Count++
		record.Changes = append(record.Changes, command.Change{Version: &version})
	}
	if d.one(10) {
		model.Count, model.Deleted = model.Count-1, model.Deleted+1
	}
	if d.one(10) {
		return record // without its model
	}
	record.Changes = append(record.Changes, command.Change{Expect: expect, Model: &model})
	return record
}

func (d drawer) alias() command.Command {
	model, _ := d.model()
	model.Aliases = maps.Clone(model.Aliases)
	if model.Aliases == nil {
		model.Aliases = map[string]int64{}
	}
	alias := d.name("alias", 2)
	delete(model.Aliases, alias)
	if !d.one(4) {
		model.Aliases[alias] = rapid.Int64Range(1, max(model.Next, 1)).Draw(d.T, "number")
	}
	return command.Record{Changes: []command.Change{{Expect: d.expect(model.Revision), Model: &model}}}
}

// judge approves, rejects or evaluates a version, or means to change what never does.
func (d drawer) judge() command.Command {
	version, ok := d.version()
	if !ok {
		return d.register()
	}
	switch rapid.IntRange(0, 4).Draw(d.T, "judgement") {
	case 0:
		version.Artifact.Size++
	case 1, 2:
		other, _ := d.version()
		version.Evaluations = []cluster.Evaluation{{Name: d.name("report", 2), Metrics: map[string]float64{"auc": 0.5}}}
		if !d.one(3) {
			version.Evaluations[0].Against = other.Ref()
		}
	default:
		version.Approval.State = pick(d, []cluster.ApprovalState{cluster.ApprovalPending, cluster.ApprovalApproved, cluster.ApprovalRejected}, "state")
	}
	return command.Record{Changes: []command.Change{{Expect: d.expect(version.Revision), Version: &version}}}
}

// part marks a version, or deletes one that is marked.
func (d drawer) part() command.Command {
	version, ok := d.version()
	if !ok {
		return d.register()
	}
	for other := range d.s.VersionsOf(version.Model, 0) {
		if other.Deleting && d.one(2) {
			version = other
		}
	}
	if !version.Deleting && !d.one(8) {
		version.Deleting = true
		return command.Record{Changes: []command.Change{{Expect: d.expect(version.Revision), Version: &version}}}
	}
	model, _ := d.s.Model(version.Model)
	expect := model.Revision
	if !d.one(8) {
		model.Count, model.Deleted = model.Count-1, model.Deleted+1
	}
	return command.Record{Changes: []command.Change{
		{Expect: expect, Model: &model},
		{Expect: d.expect(version.Revision), Delete: &command.Key{Kind: state.KindVersion, ID: version.ID()}},
	}}
}

func (d drawer) dropModel() command.Command {
	model, exists := d.model()
	if !exists && d.one(2) {
		return command.Record{Changes: []command.Change{{Model: &model}}}
	}
	for other := range d.s.Models("") {
		if other.Count == 0 {
			model = other
		}
	}
	return command.Record{Changes: []command.Change{{Expect: d.expect(model.Revision), Delete: &command.Key{Kind: state.KindModel, ID: model.Name}}}}
}

// reader submits a job that reads a version, as it is or as it never was.
func (d drawer) reader() command.Command {
	version, ok := d.version()
	record := d.submit().(command.Record)
	if !ok {
		return record
	}
	pin := version.Pin("model://" + version.Ref())
	if d.one(8) {
		pin.SHA256 = strings.Repeat("b", 64)
	}
	record.Changes[0].Job.Models = []cluster.ModelPin{pin}
	return record
}

// checkModels: counts are those of the versions, numbers rise with time, aliases name what is
// there and was not rejected, and the index has exactly who uses a version.
func checkModels(t *rapid.T, s *state.Snapshot) {
	used := map[string][]string{}
	for i := range 2 {
		name := fmt.Sprintf("model%d", i+1)
		model, exists := s.Model(name)
		count, last := int64(0), cluster.ModelVersion{}
		for version := range s.VersionsOf(name, 0) {
			count++
			if version.Number <= last.Number || version.Created < last.Created || version.Number >= model.Next {
				t.Fatalf("%s made at %d comes after %s made at %d, and the next is %d", version.Ref(), version.Created, last.Ref(), last.Created, model.Next)
			}
			last = version
			for _, e := range version.Evaluations {
				if ref, err := cluster.ParseModelRef(e.Against); err == nil {
					id := cluster.ModelVersionID(ref.Model, ref.Number)
					used[id] = append(used[id], "evaluation "+version.Ref()+"/"+e.Name)
				}
			}
		}
		if count != model.Count || exists && count+model.Deleted != model.Next-1 {
			t.Fatalf("%d versions of %+v", count, model)
		}
		for alias, number := range model.Aliases {
			version, there := s.ModelVersion(cluster.ModelVersionID(name, number))
			if !there || version.Deleting || version.Approval.State == cluster.ApprovalRejected {
				t.Fatalf("alias %s names version %d: %+v", alias, number, version)
			}
			used[version.ID()] = append(used[version.ID()], "alias "+alias)
		}
	}
	for job := range s.Jobs("") {
		for _, pin := range job.Models {
			if !job.State.Ended() {
				used[pin.ID()] = append(used[pin.ID()], "job "+job.Name)
			}
		}
	}
	for endpoint := range s.Endpoints() {
		for _, fleet := range endpoint.Fleets {
			for _, pin := range fleet.Models {
				used[pin.ID()] = append(used[pin.ID()], "endpoint "+endpoint.Job+"/"+fleet.ID())
			}
		}
		for _, pin := range endpoint.PreviousModels {
			if len(endpoint.Fleets) > 0 {
				used[pin.ID()] = append(used[pin.ID()], "endpoint "+endpoint.Job+"/previous")
			}
		}
	}
	for i := range 2 {
		for version := range s.VersionsOf(fmt.Sprintf("model%d", i+1), 0) {
			var indexed []string
			for use := range s.UsesOf(version.ID()) {
				indexed = append(indexed, use.String())
			}
			want := used[version.ID()]
			delete(used, version.ID())
			slices.Sort(want)
			if !slices.Equal(want, indexed) {
				t.Fatalf("%s is used by %v, the index has %v", version.Ref(), want, indexed)
			}
			if version.Deleting && len(want) > 0 {
				t.Fatalf("%s is being deleted, and used by %v", version.Ref(), want)
			}
		}
	}
	if len(used) > 0 {
		t.Fatalf("versions that are not there are used: %v", used)
	}
}

// countModels counts what models went through.
func (y tally) countModels(c command.Command, result command.Result) {
	record, is := c.(command.Record)
	if !is {
		return
	}
	answer := "accepted"
	if result.Err != nil {
		answer = "refused"
	}
	for _, change := range record.Changes {
		what := ""
		switch v := change.Version; {
		case v != nil && v.Deleting:
			what = "a version to go"
		case v != nil && change.Expect == 0:
			what = "a version"
		case v != nil:
			what = "a change of a version"
		case change.Model != nil && len(record.Changes) == 1:
			what = "an alias"
		case change.Job != nil && len(change.Job.Models) > 0 && change.Expect == 0:
			what = "a reader"
		case change.Delete != nil && change.Delete.Kind == state.KindVersion:
			what = "a version goes"
		case change.Delete != nil && change.Delete.Kind == state.KindModel:
			what = "a model goes"
		default:
			continue
		}
		y[what+" "+answer]++
	}
}
