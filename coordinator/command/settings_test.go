package command_test

import (
	"slices"
	"testing"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
)

func TestSettingsAreOneRowThatChangesAtTheRevisionThatWasRead(t *testing.T) {
	w := newWorld(t)
	open := w.read().Settings()
	if open != cluster.DefaultSettings() {
		t.Errorf("nobody has set anything, and there is %+v", open)
	}
	set := open
	set.Backup.Keep = 3
	w.must(record(command.Change{Settings: &set}))
	w.refuses(record(command.Change{Settings: &set}), fault.Conflict, "settings \"cluster\" exists already")
	stored := w.read().Settings()
	if stored.Backup.Keep != 3 || stored.Revision == 0 {
		t.Errorf("stored %+v", stored)
	}
	w.must(record(command.Change{Settings: &stored, Expect: stored.Revision})) // changes nothing
	if again := w.read().Settings(); again != stored {
		t.Errorf("a put that changes nothing makes %+v of %+v", again, stored)
	}
	wrong := stored
	wrong.Retention.Audit = time.Hour
	w.refuses(record(command.Change{Settings: &wrong, Expect: stored.Revision}), fault.Invalid, "settings.retention.audit: 1h is out of range")
	w.refuses(record(command.Change{Settings: &stored, Expect: stored.Revision}, command.Change{Settings: &stored, Expect: stored.Revision}), fault.Invalid, "twice")
	w.refuses(record(command.Change{Delete: &command.Key{Kind: state.KindSettings, ID: cluster.SettingsID}, Expect: stored.Revision}), fault.Invalid, "deletes")
}

func TestDeedsAreForgottenWhenTheSettingsSaySo(t *testing.T) {
	w := newWorld(t)
	put := func(random string) {
		deed := cluster.Deed{ID: cluster.NewDeedID(w.now, random), Time: w.now, User: "ann", Action: "exec", Task: "one/main/worker-0.1"}
		w.must(record(command.Change{Deed: &deed}))
	}
	kept := func() int { return len(slices.Collect(w.read().Deeds(""))) }
	put("aa")
	w.now += int64(48 * time.Hour)
	put("bb")
	if n := kept(); n != 2 {
		t.Fatalf("%d deeds of the last two days are kept", n)
	}
	set := w.read().Settings()
	set.Retention.Audit = 24 * time.Hour
	w.must(record(command.Change{Settings: &set}))
	put("cc")
	if n := kept(); n != 2 {
		t.Errorf("%d deeds are kept when only a day's shall be", n)
	}
}
