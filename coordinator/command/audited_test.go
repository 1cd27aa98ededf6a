package command_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/internal/fault"
)

func TestAChangeAndWhoAskedForItAreOnRecordTogetherOrNeitherIs(t *testing.T) {
	w := newWorld(t)
	deed := cluster.Deed{ID: cluster.NewDeedID(w.now, "aa"), Time: w.now, User: "ann", Action: "nodes/drain", Object: "z", From: "10.0.0.1", Request: "r1"}
	drain := command.SetNodeState{Node: "z", State: cluster.NodeDraining, Reason: "disk"}
	w.refuses(command.Audited{Command: drain, Deed: deed}, fault.NotFound, "does not exist")
	if _, known := w.read().Deed(deed.ID); known {
		t.Error("a refused command left its entry")
	}
	w.must(command.PutNode{Node: cluster.Node{ID: "z", Address: "z"}})
	w.must(command.Audited{Command: drain, Deed: deed})
	node, _ := w.read().Node("z")
	kept, known := w.read().Deed(deed.ID)
	if !known || kept.Outcome != cluster.OutcomeOK || kept.Ended == 0 || kept.Revision != node.Revision || node.State != cluster.NodeDraining {
		t.Errorf("%+v, %+v", kept, node)
	}

	// A request that proposes again is on record once, and its further changes are made.
	w.must(command.Audited{Command: command.SetNodeState{Node: "z", State: cluster.NodeReady}, Deed: deed})
	if again, _ := w.read().Deed(deed.ID); again != kept {
		t.Errorf("%+v became %+v", kept, again)
	}
	bad := deed
	bad.ID, bad.Object = cluster.NewDeedID(w.now, "bb"), strings.Repeat("x", 300)
	w.refuses(command.Audited{Command: drain, Deed: bad}, fault.Invalid, "object")
	if node, _ := w.read().Node("z"); node.State != cluster.NodeReady {
		t.Errorf("the change was made without its entry: %s", node.State)
	}
	if _, err := command.Encode(1, command.Audited{Command: command.Audited{Command: drain, Deed: deed}, Deed: deed}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestOnlyANodeThatEmptiesHasADeadline(t *testing.T) {
	w := newWorld(t)
	w.must(command.PutNode{Node: cluster.Node{ID: "z", Address: "z"}})
	w.refuses(command.SetNodeState{Node: "z", State: cluster.NodeReady, Empties: true}, fault.Invalid, "deadline")
	w.refuses(command.SetNodeState{Node: "z", State: cluster.NodeDraining, Deadline: 7}, fault.Invalid, "deadline")
	w.must(command.SetNodeState{Node: "z", State: cluster.NodeDraining, Empties: true, Deadline: 7})
	w.must(command.PutNode{Node: cluster.Node{ID: "z", Address: "z"}}) // its agent was started again
	if node, _ := w.read().Node("z"); node.State != cluster.NodeDraining || !node.Empties || node.Deadline != 7 {
		t.Errorf("%+v", node)
	}
	w.must(command.SetNodeState{Node: "z", State: cluster.NodeReady})
	if node, _ := w.read().Node("z"); node.Empties || node.Deadline != 0 {
		t.Errorf("%+v", node)
	}
}

func TestOfTooManyEntriesTheOldestGo(t *testing.T) {
	w := newWorld(t)
	settings := cluster.DefaultSettings()
	settings.Retention.AuditMost = 1000
	first := w.now
	w.must(record(command.Change{Settings: &settings}))
	ids := func() (ids []string) {
		for deed := range w.read().Deeds("") {
			ids = append(ids, deed.ID)
		}
		return ids
	}
	for i := range 1100 {
		deed := cluster.Deed{ID: cluster.NewDeedID(first+int64(i), "aa"), Time: first, User: "ann", Action: "jobs/submit", Request: "r"}
		w.must(record(command.Change{Deed: &deed}))
	}
	if kept := ids(); len(kept) != 1000 || kept[0] != cluster.NewDeedID(first+100, "aa") || w.read().DeedCount() != 1000 {
		t.Errorf("%d are kept from %s on, and %d counted", len(kept), kept[0], w.read().DeedCount())
	}
	settings = w.read().Settings()
	settings.Retention.AuditMost = 2000
	w.must(record(command.Change{Settings: &settings, Expect: settings.Revision}))
	deed := cluster.Deed{ID: cluster.NewDeedID(first+5000, "aa"), Time: first, User: "ann", Action: "jobs/submit", Request: "r"}
	w.must(record(command.Change{Deed: &deed}))
	if kept := ids(); len(kept) != 1001 {
		t.Errorf("%d are kept once more may be", len(kept))
	}
}

func TestWhatEarlierVersionsCannotReadOfTheAuditWaitsOrGoesWithout(t *testing.T) {
	refusal := record(command.Change{Deed: &cluster.Deed{ID: cluster.NewDeedID(1, "aa"), User: "eve", Action: "nodes/drain", Request: "r1", Outcome: "denied"}})
	if _, err := command.Fit(0, "", refusal); !errors.Is(err, command.ErrHeldBack) {
		t.Errorf("a refusal is put on record: %v", err)
	}
	deed := cluster.Deed{ID: cluster.NewDeedID(1, "bb"), User: "ann", Action: "exec", Task: "one/main/worker-0.1", From: "10.0.0.1", Request: "r2", Outcome: "ok"}
	fit, err := command.Fit(0, "", record(command.Change{Deed: &deed}))
	if err != nil {
		t.Fatal(err)
	}
	if lesser := fit[0].(command.Record).Changes[0].Deed; lesser.From+lesser.Request+lesser.Outcome != "" || lesser.User != "ann" || lesser.Task != deed.Task || deed.From == "" {
		t.Errorf("%+v", lesser)
	}
	drain := command.SetNodeState{Node: "z", State: cluster.NodeDraining}
	if fit, err = command.Fit(0, "", command.Audited{Command: drain, Deed: deed}); err != nil || fit[0] != drain {
		t.Errorf("%+v, %v", fit, err)
	}
	if fit, err = command.Fit(command.Format, "", refusal); err != nil || len(fit) != 1 {
		t.Errorf("%+v, %v", fit, err)
	}
}
