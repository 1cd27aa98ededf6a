package command_test

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/coordinator/command"
	"github.com/clary-ml/clary/coordinator/state"
	"github.com/clary-ml/clary/internal/fault"
	claryv1 "github.com/clary-ml/clary/proto/clary/v1"
)

func TestAFormatIsRaisedAndNeverLowered(t *testing.T) {
	store, err := state.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var revisions []uint64
	err = store.Batch(func(w *state.Writer) error {
		for _, to := range []int{0, command.Format, command.Format - 1, -1} {
			result := command.Run(w, command.RaiseFormat{To: to}, 1)
			if result.Err != nil {
				t.Error(result.Err)
			}
			revisions = append(revisions, result.Revision)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	if format := snapshot.Format(); format != command.Format {
		t.Errorf("format %d is in force, want %d", format, command.Format)
	}
	if revisions[1] != revisions[0]+1 || revisions[3] != revisions[1] {
		t.Errorf("revisions %v: only raising it is a change", revisions)
	}
}

func TestWhatAnEarlierBuildCannotReadIsRefusedUntilItsFormatIsInForce(t *testing.T) {
	old := command.PutNode{Node: cluster.Node{ID: "n1"}}
	if format, what := command.Needs(old); format != 0 {
		t.Errorf("a command of old takes format %d for %q", format, what)
	}
	if _, err := command.Fit(0, "", old, command.RaiseFormat{To: command.Format}); err != nil {
		t.Errorf("what every build knows, and what changes the format: %v", err)
	}
	settings := command.Record{Changes: []command.Change{{Settings: &cluster.Settings{}}}}
	_, err := command.Fit(0, "coordinator b is of v1", old, command.SetNodeCached{Node: "n1"})
	if !fault.Is(err, fault.Unready) || !errors.Is(err, command.ErrHeldBack) || !strings.Contains(err.Error(), "coordinator b is of v1") {
		t.Errorf("what an earlier build does not know: %v", err)
	}
	audited := command.Audited{Command: command.PutNode{Node: cluster.Node{ID: "n1", Key: "sha256:k"}}, Deed: cluster.Deed{ID: "d"}}
	fit, err := command.Fit(0, "", audited)
	if put, ok := fit[0].(command.PutNode); err != nil || !ok || put.Node.ID != "n1" || put.Node.Key != "" {
		t.Errorf("what goes without what is new: %+v, %v", fit, err)
	}
	if _, err := command.Fit(0, "", command.Audited{Command: settings}); !errors.Is(err, command.ErrHeldBack) {
		t.Errorf("what is new inside of what is on record: %v", err)
	}
	if format, what := command.Needs(command.Audited{Command: settings}); format != 1 || what != "changing settings" {
		t.Errorf("what is new inside takes format %d for %q", format, what)
	}
	if fit, err := command.Fit(1, "", audited); err != nil || !reflect.DeepEqual(fit[0], audited) {
		t.Errorf("with the format in force: %+v, %v", fit, err)
	}
	if _, err := command.Fit(1, "", command.SetNodeCached{Node: "n1"}); err != nil {
		t.Errorf("with its format in force: %v", err)
	}
	if _, err := command.Fit(0, "", settings); !errors.Is(err, command.ErrHeldBack) {
		t.Errorf("a record with a noun that an earlier build does not know: %v", err)
	}
	if len(command.Beyond(0)) == 0 {
		t.Error("nothing is held back at format 0")
	}
	for _, held := range command.Beyond(0) {
		if held.Format < 1 || held.Format > command.Format || held.What == "" {
			t.Errorf("the table has %+v, and this build knows %d", held, command.Format)
		}
	}
	if held := command.Beyond(command.Format); len(held) > 0 {
		t.Errorf("with the newest format in force %v is held back", held)
	}
}

func TestAFormatOfTheFutureStopsThisBuild(t *testing.T) {
	raw, err := proto.Marshal(&claryv1.Batch{Commands: []*claryv1.Command{{Command: &claryv1.Command_RaiseFormat{RaiseFormat: &claryv1.RaiseFormat{To: command.Format + 1}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command.Decode(raw); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "a newer one wrote it") {
		t.Errorf("it was decoded: %v", err)
	}
}
