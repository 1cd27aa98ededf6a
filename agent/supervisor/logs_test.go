package supervisor_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/agent/staging/stagingtest"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
	"github.com/clary-ml/clary/storage/journal/archive"
)

// segments read a log in the bench's store.
type segments struct {
	stagingtest.Store
	prefix string
}

func (s segments) List(ctx context.Context) ([]string, error) {
	objects, err := s.Store.List(ctx, "clary", s.prefix)
	var names []string
	for _, object := range objects {
		names = append(names, strings.TrimPrefix(object.Key, s.prefix))
	}
	return names, err
}

func (s segments) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	body, _, err := s.Store.Open(ctx, "clary", s.prefix+name)
	return body, err
}

func (s segments) Put(context.Context, string, []byte) error { panic("the store is only read") }
func (s segments) Delete(context.Context, string) error      { panic("the store is only read") }

// archived waits until a task's log is in the store, whole, and no longer on its node, and returns it.
func (b *bench) archived(task string) string {
	b.Helper()
	short := task[strings.LastIndexByte(task, '/')+1:]
	short, attempt, _ := strings.Cut(short, ".")
	store := segments{stagingtest.Store{Dir: filepath.Join(b.dir, "store")}, "jobs/digits/attempts/" + attempt + "/" + short + "/logs/"}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := b.node(task); !fault.Is(err, fault.NotFound) {
			continue
		}
		var text []byte
		last := int64(0)
		whole, err := archive.Read(b.Context(), store, journal.Query{}, func(batch []journal.Entry) error {
			for _, e := range batch {
				if e.Time <= last {
					b.Errorf("an entry at %d follows one at %d", e.Time, last)
				}
				text, last = e.AppendRaw(text), e.Time
			}
			return nil
		})
		if err != nil || !whole {
			b.Fatalf("the log left its node and is not whole in the store: %q, %v", text, err)
		}
		folder := strings.ReplaceAll(task, "/", "~")
		if left, _ := filepath.Glob(filepath.Join(b.dir, "tasks", folder, shim.LogFile+"*")); len(left) > 0 {
			continue // about to go
		}
		return string(text)
	}
	b.Fatalf("the log of %s stays on its node", task)
	return ""
}

// node is what a task wrote, as its node has it.
func (b *bench) node(task string) (string, error) {
	var text []byte
	err := b.agent.Logs(b.Context(), task, journal.Query{}, func(batch []journal.Entry) error {
		for _, e := range batch {
			text = e.AppendRaw(text)
		}
		return nil
	})
	return string(text), err
}

// wrote is what a task wrote, wherever it is.
func (b *bench) wrote(task string) string {
	b.Helper()
	text, err := b.node(task)
	if fault.Is(err, fault.NotFound) {
		return b.archived(task)
	}
	if err != nil {
		b.Error(err)
	}
	return text
}

func TestALogIsInTheStoreOnceItsTaskHasEnded(t *testing.T) {
	b := newBench(t, nil)
	b.run(script("echo out; sleep 0.1; echo err >&2; sleep 0.1; printf 'no end'; exit 3"))
	if status := b.ended(worker); status.ExitCode != 3 {
		t.Errorf("it ended as %+v", status)
	}
	if log := b.archived(worker); log != "out\nerr\nno end" {
		t.Errorf("the log is %q", log)
	}
	// So it is for the next agent, which has nothing to do.
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	b.open(nil)
	if log := b.archived(worker); log != "out\nerr\nno end" {
		t.Errorf("later the log is %q", log)
	}
}

func TestALogIsWholeThoughAgentsAreKilledAtAnyInstant(t *testing.T) {
	b := newBench(t, nil)
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	task := script("i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); sleep 0.005; done")
	for i := range 8 {
		child := b.spawn(task)
		time.Sleep(time.Duration(100+i*37) * time.Millisecond) // the instant is what is tried here
		kill(t, child)
	}
	b.open(nil)
	b.run(task)
	b.ended(worker)
	var want strings.Builder
	for i := range 200 {
		fmt.Fprintln(&want, i)
	}
	if log := b.archived(worker); log != want.String() {
		t.Errorf("the log is %q", log)
	}
}

// farStore cannot be reached for logs while it is away.
type farStore struct {
	staging.Store
	away *atomic.Bool
}

func (s farStore) List(ctx context.Context, bucket, prefix string) ([]staging.Object, error) {
	if s.away.Load() {
		return nil, fault.New(fault.Unready, "no route to the store")
	}
	return s.Store.List(ctx, bucket, prefix)
}

func far(away *atomic.Bool) func(*supervisor.Config) {
	return func(c *supervisor.Config) { c.Store = farStore{c.Store, away} }
}

func TestATaskEndsAtOnceAndItsLogStaysWhileTheStoreIsAway(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	b := newBench(t, far(&away))
	b.run(script("echo said"))
	b.ended(worker)
	if log, err := b.node(worker); log != "said\n" || err != nil {
		t.Errorf("the node has %q, %v", log, err)
	}
	away.Store(false)
	if log := b.archived(worker); log != "said\n" {
		t.Errorf("the store has %q", log)
	}
}

func TestATaskThatIsDeletedWaitsForNoStore(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	b := newBench(t, far(&away))
	b.run(script("echo said"), script("echo on; sleep 1000", func(a *ledger.Assignment) {
		a.Task.ID, a.Task.Index, a.Program.Grace = "digits/main/worker-1.1", 1, 50*time.Millisecond
	}))
	b.ended(worker)
	b.becomes("digits/main/worker-1.1", cluster.TaskRunning)
	if err := b.agent.Desired(true, nil, nil); err != nil {
		t.Fatal(err)
	}
	b.until("both are forgotten", func(held map[string]cluster.TaskStatus) bool { return len(held) == 0 })
}
