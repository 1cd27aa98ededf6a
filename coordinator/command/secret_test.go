package command_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func TestASecretBelongsToAQueueThatThereIs(t *testing.T) {
	w := newWorld(t)
	secret := cluster.Secret{Queue: "lab", Name: "token", Sealed: []byte("sealed"), Owner: "ann", Version: 1}
	put := func(change func(*cluster.Secret)) command.Record {
		next := secret
		change(&next)
		old, _ := w.read().Secret(next.ID())
		return record(command.Change{Expect: old.Revision, Secret: &next})
	}
	w.refuses(put(func(*cluster.Secret) {}), fault.Invalid, `queue: "lab" does not exist`)
	w.must(record(command.Change{Queue: &cluster.Queue{Name: "lab", Weight: 1}}))
	w.must(put(func(*cluster.Secret) {}))
	w.must(put(func(s *cluster.Secret) { s.Sealed, s.Version = []byte("other"), 2 }))
	w.refuses(put(func(s *cluster.Secret) { s.Name = "../up" }), fault.Invalid, "name")
	w.refuses(put(func(s *cluster.Secret) { s.Sealed = make([]byte, 70<<10) }), fault.Invalid, "sealed")
	w.refuses(record(command.Change{Secret: &secret}), fault.Conflict, "exists already")
	if got, _ := w.read().Secret("lab/token"); string(got.Sealed) != "other" || got.Version != 2 {
		t.Errorf("it is %+v", got)
	}
	queue, _ := w.read().Queue("lab")
	w.refuses(record(command.Change{Expect: queue.Revision, Delete: &command.Key{Kind: state.KindQueue, ID: "lab"}}), fault.Conflict, `secret "token" is in it`)
	stored, _ := w.read().Secret("lab/token")
	w.must(record(command.Change{Expect: stored.Revision, Delete: &command.Key{Kind: state.KindSecret, ID: "lab/token"}}))
	if _, ok := w.read().Secret("lab/token"); ok {
		t.Error("it is still there")
	}
	for i := range cluster.MaxQueueSecrets {
		w.must(put(func(s *cluster.Secret) { s.Name = fmt.Sprintf("s%d", i) }))
	}
	w.refuses(put(func(s *cluster.Secret) { s.Name = "more" }), fault.Exhausted, "delete some")
}

func TestADeedIsOnRecordAndOnlyItsEndIsAdded(t *testing.T) {
	w := newWorld(t)
	deed := cluster.Deed{ID: cluster.NewDeedID(w.now, "aa"), Time: w.now, User: "ann", Action: "exec", Task: "one/main/worker-0.1", Detail: "sh"}
	put := func(change func(*cluster.Deed)) command.Record {
		next := deed
		change(&next)
		old, _ := w.read().Deed(next.ID)
		return record(command.Change{Expect: old.Revision, Deed: &next})
	}
	w.must(put(func(*cluster.Deed) {}))
	w.refuses(put(func(d *cluster.Deed) { d.User = "eve" }), fault.Conflict, "only its end")
	w.refuses(put(func(d *cluster.Deed) { d.Detail = strings.Repeat("x", 2000) }), fault.Invalid, "longer")
	w.must(put(func(d *cluster.Deed) { d.Ended, d.Result, d.Outcome = w.now+5, "exit code 0", cluster.OutcomeOK }))
	w.refuses(put(func(d *cluster.Deed) { d.Ended, d.Result = w.now+6, "nothing happened" }), fault.Conflict, "only its end")
	stored, _ := w.read().Deed(deed.ID)
	w.refuses(record(command.Change{Expect: stored.Revision, Delete: &command.Key{Kind: state.KindDeed, ID: deed.ID}}), fault.Invalid, "only")
	w.refuses(put(func(d *cluster.Deed) { d.ID = "late" }), fault.Invalid, "id")

	// What is older than three months goes when others come.
	w.now += int64(91 * 24 * time.Hour)
	deed.ID = cluster.NewDeedID(w.now, "bb")
	w.must(put(func(*cluster.Deed) {}))
	var ids []string
	for d := range w.read().Deeds("") {
		ids = append(ids, d.ID)
	}
	if len(ids) != 1 || ids[0] != deed.ID {
		t.Errorf("on record: %v", ids)
	}
}
