package command_test

import (
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func registered(number int64) cluster.ModelVersion {
	key := strings.Repeat("k", int(number))
	return cluster.ModelVersion{
		Model: "net", Number: number, Owner: "ann", Approval: cluster.Approval{State: cluster.ApprovalPending},
		Artifact: cluster.Output{Name: "m", URI: cluster.ModelFolder("net", key) + "m", SHA256: strings.Repeat("a", 64), Size: 1},
	}
}

func (w *world) model() cluster.Model { m, _ := w.read().Model("net"); return m }
func (w *world) version(number int64) cluster.ModelVersion {
	v, _ := w.read().ModelVersion(cluster.ModelVersionID("net", number))
	return v
}

// change is a record that changes a version.
func (w *world) change(number int64, edit func(*cluster.ModelVersion)) command.Record {
	v := w.version(number)
	expect := v.Revision
	edit(&v)
	return record(command.Change{Expect: expect, Version: &v})
}

func TestAVersionComesWithItsModelAndAMarkedOneOnlyGoes(t *testing.T) {
	w := newWorld(t)
	one, two, three := registered(1), registered(2), registered(3)
	model := cluster.Model{Name: "net", Owner: "ann", Next: 3, Count: 2}
	w.refuses(record(command.Change{Version: &one}), fault.Conflict, "must put it with its first version")
	w.must(record(command.Change{Model: &model}, command.Change{Version: &one}, command.Change{Version: &two}))
	w.refuses(record(command.Change{Version: &three}), fault.Invalid, "must put it with them")
	stale := w.model()
	stale.Next, stale.Count = 4, 3
	w.refuses(record(command.Change{Expect: 1, Model: &stale}, command.Change{Version: &three}), fault.Conflict, "read it again")
	w.refuses(w.change(1, func(v *cluster.ModelVersion) { v.Artifact.SHA256 = strings.Repeat("b", 64) }), fault.Invalid, "only its approval")
	w.refuses(w.change(1, func(v *cluster.ModelVersion) { v.Lineage.Job = "other" }), fault.Invalid, "only its approval")

	// A job reads what is there, with the digest that it has.
	reads := func(pin cluster.ModelPin) command.Record {
		r := submission("reader")
		r.Changes[0].Job.Models = []cluster.ModelPin{pin}
		return r
	}
	pin := one.Pin("model://net@1")
	forged := pin
	forged.SHA256 = strings.Repeat("b", 64)
	w.refuses(reads(forged), fault.Conflict, "not there any more")
	forged = pin
	forged.Number = 3
	w.refuses(reads(forged), fault.Conflict, "not there any more")
	w.must(reads(pin))
	w.refuses(w.change(1, func(v *cluster.ModelVersion) { v.Deleting = true }), fault.Conflict, "used by job reader")
	job := w.job("reader")
	job.Models = nil
	w.refuses(w.putJob(job), fault.Invalid, "models: it never changes")
	w.step("reader", cluster.JobStopping, cluster.JobCancelled)
	w.must(w.change(1, func(v *cluster.ModelVersion) { v.Deleting = true }))

	// A marked version is as good as gone.
	w.refuses(reads(pin), fault.Conflict, "exists already")
	for name, edit := range map[string]func(*cluster.ModelVersion){
		"unmarked": func(v *cluster.ModelVersion) { v.Deleting = false },
		"approved": func(v *cluster.ModelVersion) { v.Approval.State = cluster.ApprovalApproved },
		"evaluated": func(v *cluster.ModelVersion) {
			v.Evaluations = []cluster.Evaluation{{Name: "a", Metrics: map[string]float64{"x": 1}}}
		},
	} {
		if err := w.run(w.change(1, edit)).Err; !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "is being deleted") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.refuses(w.change(2, func(v *cluster.ModelVersion) {
		v.Evaluations = []cluster.Evaluation{{Name: "a", Metrics: map[string]float64{"x": 1}, Against: "net@1"}}
	}), fault.Conflict, "there is no version net@1")
	gone := command.Change{Expect: w.version(1).Revision, Delete: &command.Key{Kind: state.KindVersion, ID: one.ID()}}
	w.refuses(record(gone), fault.Invalid, "must put it with them")
	fewer := w.model()
	expect := fewer.Revision
	fewer.Count, fewer.Deleted = 1, 1
	w.must(record(command.Change{Expect: expect, Model: &fewer}, gone))
	w.refuses(record(command.Change{Expect: w.version(2).Revision, Delete: &command.Key{Kind: state.KindVersion, ID: two.ID()}}), fault.Conflict, "is not being deleted")
	w.refuses(record(command.Change{Expect: w.model().Revision, Delete: &command.Key{Kind: state.KindModel, ID: "net"}}), fault.Conflict, "has 1 versions")
}
