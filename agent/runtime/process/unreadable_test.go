package process_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
)

// hide makes a file of a folder one that is there and cannot be opened, as when there are too many open files, until show.
func hide(t *testing.T, dir, name string) (show func()) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.Rename(path, path+".hidden"), os.Symlink(name, path)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(path+".hidden", path); err != nil {
			t.Error(err)
		}
	}
}

// An exit that is unknown is so for good: so it must not be one that only cannot be read now.
func TestAnExitThatCannotBeReadNowIsReadLater(t *testing.T) {
	root := t.TempDir()
	d := open(t, root, cgroup.Open("", ""))
	dir := run(t, d, root, "exit 3")
	wait(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	show := hide(t, dir, shim.ExitFile)
	d = open(t, root, cgroup.Open("", ""))
	if found, err := d.Recover(t.Context()); err != nil || len(found) != 1 {
		t.Fatalf("recovered %+v, %v", found, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if exit, err := d.Wait(t.Context(), id); !fault.Is(err, fault.Unready) {
		t.Errorf("an agent that ends before it can read it says %+v, %v", exit, err)
	}
	d = open(t, root, cgroup.Open("", ""))
	defer d.Close() //nolint:errcheck // the test is over
	if _, err := d.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	show()
	if exit := wait(t, d); exit.Code != 3 || exit.Unknown {
		t.Errorf("it ended as %+v", exit)
	}
}

// A task that runs must not be taken for one that never began, and swept away.
func TestATaskOfWhichTooLittleCanBeReadIsNotSweptAway(t *testing.T) {
	for _, name := range []string{shim.StartFile, shim.LockFile} {
		root := t.TempDir()
		d := open(t, root, cgroup.Open("", ""))
		dir := run(t, d, root, "sleep 1000")
		start := started(t, dir)
		show := hide(t, dir, name)
		next := open(t, root, cgroup.Open("", ""))
		if found, err := next.Recover(t.Context()); !fault.Is(err, fault.Internal) && (err != nil || len(found) != 1 || !found[0].Running) {
			t.Errorf("without its %s recovered %+v, %v", name, found, err)
		}
		show()
		if !start.Alive() {
			t.Errorf("without its %s the task was ended", name)
		}
		if err := d.Stop(t.Context(), id, 0); err != nil {
			t.Error(err)
		}
		wait(t, d)
		if err := errors.Join(next.Close(), d.Close()); err != nil {
			t.Error(err)
		}
	}
}
