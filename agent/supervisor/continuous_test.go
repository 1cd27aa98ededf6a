package supervisor_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/storage/journal"
)

// stage runs one task whose program is the test itself, inside a bubble.
type stage struct {
	*supervisor.Supervisor
	t      *testing.T
	driver *acted
	store  stagingtest.Store
	folder string // of the continuous output
	lease  atomic.Int64
}

// acted is a driver of tasks that end when the test says so.
type acted struct {
	runtime.Driver
	exits chan runtime.Exit
}

func (d *acted) Recover(context.Context) ([]runtime.Found, error)                { return nil, nil }
func (d *acted) Start(context.Context, runtime.Spec) (time.Time, error)          { return time.Now(), nil }
func (d *acted) Stop(context.Context, string, time.Duration) error               { return nil }
func (d *acted) Remove(context.Context, string) error                            { return nil }
func (d *acted) Logs(context.Context, string, journal.Query, journal.Sink) error { return nil }
func (d *acted) Wait(ctx context.Context, _ string) (runtime.Exit, error) {
	select {
	case exit := <-d.exits:
		return exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

// continuous makes an assignment that of a processing job whose files are wanted at once.
func continuous(a *ledger.Assignment) {
	processes(a)
	a.Program.Exports[0].Continuous = true
}

func onStage(t *testing.T, play func(s *stage)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		book, err := ledger.Open(filepath.Join(dir, "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer book.Close() //nolint:errcheck // only a test's
		name, err := runtime.FolderName(worker)
		if err != nil {
			t.Fatal(err)
		}
		s := &stage{
			t: t, driver: &acted{exits: make(chan runtime.Exit, 1)}, store: stagingtest.Store{Dir: filepath.Join(dir, "store")},
			folder: filepath.Join(dir, "tasks", name, "ml", "processing", "output"),
		}
		s.lease.Store(int64(time.Hour))
		s.Supervisor, err = supervisor.Open(t.Context(), supervisor.Config{
			Root: filepath.Join(dir, "tasks"), Driver: s.driver, Ledger: book, Store: s.store, Listen: "127.0.0.1",
			Lease: func() time.Duration { return time.Duration(s.lease.Load()) },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Desired(true, []ledger.Assignment{script("", continuous)}, nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		play(s)
	})
}

func (s *stage) write(name string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.folder, name), []byte(name), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// passes lets time pass: for many looks of a mirror, and more than an upload waits to be tried again.
func (s *stage) passes() {
	time.Sleep(time.Minute)
	synctest.Wait()
}

// delivered are the files where they were asked for.
func (s *stage) delivered() []string {
	s.t.Helper()
	objects, err := s.store.List(s.t.Context(), "made", "data/")
	if err != nil {
		s.t.Fatal(err)
	}
	names := []string{}
	for _, object := range objects {
		names = append(names, filepath.Base(object.Key))
	}
	return names
}

func (s *stage) status() cluster.TaskStatus {
	s.t.Helper()
	held, _ := s.Held()
	if len(held) != 1 {
		s.t.Fatalf("it holds %+v", held)
	}
	return held[0].Status
}

func TestATaskThatIsToEndBringsNoMoreFilesToTheirAddress(t *testing.T) {
	for claim, tell := range map[string]func(*stage) error{
		"since its node was lost, or it was cancelled": func(s *stage) error {
			return s.Desired(true, []ledger.Assignment{script("", continuous, func(a *ledger.Assignment) { a.Stop = true })}, nil)
		},
		"and is on no record any more": func(s *stage) error { return s.Desired(true, nil, nil) },
	} {
		t.Run(claim, func(t *testing.T) {
			onStage(t, func(s *stage) {
				s.write("first")
				s.passes()
				if got := s.delivered(); !slices.Equal(got, []string{"first"}) {
					t.Fatalf("while it is wanted it brings %v", got)
				}
				s.lease.Store(0) // the node is lost for a while: another attempt begins
				s.write("second")
				s.passes()
				if err := tell(s); err != nil {
					t.Fatal(err)
				}
				s.lease.Store(int64(time.Hour)) // and is heard again
				s.write("third")
				s.passes()
				s.driver.exits <- runtime.Exit{Ended: time.Now()}
				s.passes()
				if got := s.delivered(); !slices.Equal(got, []string{"first"}) {
					t.Errorf("the address has %v", got)
				}
			})
		})
	}
}

func TestATaskThatWasToEndAndSucceededHasItsOutputs(t *testing.T) {
	onStage(t, func(s *stage) {
		s.write("first")
		if err := s.Desired(false, []ledger.Assignment{script("", continuous, func(a *ledger.Assignment) { a.Stop = true })}, nil); err != nil {
			t.Fatal(err)
		}
		s.passes()
		s.driver.exits <- runtime.Exit{Ended: time.Now()}
		s.passes()
		if status := s.status(); status.State != cluster.TaskSucceeded || len(status.Outputs) != 1 || status.Outputs[0].Files != 1 {
			t.Errorf("it ends as %+v", status)
		}
	})
}

func TestOnlyATaskThatSucceedsBringsItsLastFilesToTheirAddress(t *testing.T) {
	for claim, test := range map[string]struct {
		exit runtime.Exit
		want []string
	}{
		"it succeeds":                   {runtime.Exit{}, []string{"last", "whole"}},
		"it fails":                      {runtime.Exit{Code: 3}, []string{"whole"}},
		"it is killed":                  {runtime.Exit{Signal: 9}, []string{"whole"}},
		"it runs too long":              {runtime.Exit{Signal: 9, Cause: runtime.CauseMaxRuntime}, []string{"whole"}},
		"nobody knows how it has ended": {runtime.Exit{Unknown: true}, []string{"whole"}},
	} {
		t.Run(claim, func(t *testing.T) {
			onStage(t, func(s *stage) {
				s.write("whole")
				s.passes()
				s.write("last") // as far as it came
				test.exit.Ended = time.Now()
				s.driver.exits <- test.exit
				s.passes()
				if got := s.delivered(); !slices.Equal(got, test.want) {
					t.Errorf("the address has %v, want %v", got, test.want)
				}
			})
		})
	}
}
