package supervisor_test

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/smalldisk"
)

// What cannot be promised is not begun: it is told lost, for its job to go elsewhere, and the node goes on.
func TestATaskThatAFullDiskKeepsOutIsLostAndTheNextOneRuns(t *testing.T) {
	disk := smalldisk.Mount(t, 4<<20)
	book, err := ledger.Open(filepath.Join(disk, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = book.Close() })
	var refused atomic.Int32
	b := newBench(t, func(c *supervisor.Config) {
		c.Ledger, c.Refused = book, func() { refused.Add(1) }
	})
	large := func(a *ledger.Assignment) { a.Program.Env = map[string]string{"FILLS": strings.Repeat("x", 300<<10)} }
	free := smalldisk.Fill(t, disk)
	b.run(script("exit 0", large))
	if status := b.ended(worker); status.State != cluster.TaskLost || !strings.Contains(status.Reason, "disk is full") || refused.Load() != 1 {
		t.Errorf("it ended as %+v; refused %d times", status, refused.Load())
	}
	free()
	next := script("exit 3")
	next.Task.ID, next.Task.Attempt = "digits/main/worker-0.2", 2
	b.run(next)
	if status := b.ended("digits/main/worker-0.2"); status.State != cluster.TaskFailed || status.ExitCode != 3 || refused.Load() != 1 {
		t.Errorf("the next one ended as %+v; refused %d times", status, refused.Load())
	}
}
