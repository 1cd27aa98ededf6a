package route_test

import (
	"context"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/route"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// Whatever one of two drivers can do, both together can.
var _ interface {
	runtime.Driver
	runtime.Leaser
	runtime.Meter
	runtime.Isolator
	runtime.Fetcher
	runtime.Execer
	runtime.Dialer
	runtime.LogKeeper
} = (*route.Driver)(nil)

// recorder is a driver that only says what was asked of it.
type recorder struct {
	found []runtime.Found
	asked []string
}

func (r *recorder) note(call, id string) { r.asked = append(r.asked, call+" "+id) }

func (r *recorder) Start(_ context.Context, spec runtime.Spec) (time.Time, error) {
	r.note("start", spec.ID)
	if len(spec.Argv) == 0 {
		return time.Time{}, fault.New(fault.Invalid, "nothing to run")
	}
	return time.Unix(1, 0), nil
}

func (r *recorder) Recover(context.Context) ([]runtime.Found, error) { return r.found, nil }

func (r *recorder) Wait(_ context.Context, id string) (runtime.Exit, error) {
	r.note("wait", id)
	return runtime.Exit{Code: 7}, nil
}

func (r *recorder) Stop(_ context.Context, id string, _ time.Duration) error {
	r.note("stop", id)
	return nil
}

func (r *recorder) Logs(_ context.Context, id string, _ journal.Query, _ journal.Sink) error {
	r.note("logs", id)
	return nil
}

func (r *recorder) DropLog(id string) error {
	r.note("drop", id)
	return nil
}

func (r *recorder) Remove(_ context.Context, id string) error {
	r.note("remove", id)
	return nil
}

func (r *recorder) Usage(id string) (runtime.Usage, error) {
	r.note("usage", id)
	return runtime.Usage{Memory: 5}, nil
}

func (r *recorder) Exec(_ context.Context, id string, _ runtime.Command, _ runtime.Streams) (int, error) {
	r.note("exec", id)
	return 3, nil
}

func (r *recorder) Dial(_ context.Context, id string, _ int) (net.Conn, error) {
	r.note("dial", id)
	return nil, nil //nolint:nilnil // nobody speaks
}

// asks calls everything that is of one task.
func asks(t *testing.T, d *route.Driver, id string) {
	t.Helper()
	exit, errWait := d.Wait(t.Context(), id)
	use, errUsage := d.Usage(id)
	code, errExec := d.Exec(t.Context(), id, runtime.Command{}, runtime.Streams{})
	_, errDial := d.Dial(t.Context(), id, 80)
	if exit.Code != 7 || use.Memory != 5 || code != 3 {
		t.Errorf("task %s: answers are lost: %+v, %+v, %d", id, exit, use, code)
	}
	for _, err := range []error{
		errWait, errUsage, errExec, errDial, d.Stop(t.Context(), id, 0), d.Logs(t.Context(), id, journal.Query{}, nil), d.DropLog(id), d.Remove(t.Context(), id),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

func all(id string) []string {
	var calls []string
	for _, call := range []string{"wait", "usage", "exec", "dial", "stop", "logs", "drop", "remove"} {
		calls = append(calls, call+" "+id)
	}
	return calls
}

func TestEachTaskIsAskedOfTheDriverThatHasIt(t *testing.T) {
	processes, containers := &recorder{}, &recorder{found: []runtime.Found{{ID: "old-container"}}}
	d := route.New(processes, containers)
	if found, err := d.Recover(t.Context()); err != nil || len(found) != 1 {
		t.Fatalf("recovered %v, %v", found, err)
	}
	for id, image := range map[string]string{"process": "", "container": "busybox"} {
		if _, err := d.Start(t.Context(), runtime.Spec{ID: id, Image: image, Argv: []string{"true"}}); err != nil {
			t.Fatal(err)
		}
	}
	processes.asked, containers.asked = nil, nil
	asks(t, d, "process")
	asks(t, d, "container")
	asks(t, d, "old-container")
	if want := all("process"); !reflect.DeepEqual(processes.asked, want) {
		t.Errorf("of processes it is asked %v, want %v", processes.asked, want)
	}
	if want := append(all("container"), all("old-container")...); !reflect.DeepEqual(containers.asked, want) {
		t.Errorf("of containers it is asked %v, want %v", containers.asked, want)
	}
}

func TestAContainerThatDidNotStartIsRemovedAllTheSame(t *testing.T) {
	processes, containers := &recorder{}, &recorder{}
	d := route.New(processes, containers)
	if _, err := d.Start(t.Context(), runtime.Spec{ID: "a", Image: "busybox"}); !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	if err := d.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"start a", "remove a"}; !reflect.DeepEqual(containers.asked, want) || len(processes.asked) > 0 {
		t.Errorf("of containers it is asked %v, and of processes %v", containers.asked, processes.asked)
	}
}

func TestWhatADriverCannotDoIsSaid(t *testing.T) {
	d := route.New(struct{ runtime.Driver }{&recorder{}}, struct{ runtime.Driver }{&recorder{}})
	_, errUsage := d.Usage("a")
	_, errExec := d.Exec(t.Context(), "a", runtime.Command{}, runtime.Streams{})
	_, errDial := d.Dial(t.Context(), "a", 80)
	for _, err := range []error{errUsage, errExec, errDial} {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("error %v", err)
		}
	}
	if d.CanIsolate() == nil {
		t.Error("nobody isolates, and nobody says so")
	}
}
