package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/diskuse"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/supervisor"
	"github.com/clary-ml/clary/cluster"
)

// disk is one of which more is taken at each look, so that all tasks are looked at.
type disk struct{ free, looks atomic.Int64 }

func roomyDisk() *disk {
	d := &disk{}
	d.free.Store(1 << 40)
	return d
}

func (d *disk) room(string) (diskuse.Room, error) {
	return diskuse.Room{Total: 1 << 20, Free: d.free.Load(), Taken: d.looks.Add(1) << 40}, nil
}

func TestATaskThatFillsTheDiskIsEndedAndItIsSaid(t *testing.T) {
	b := newBench(t, func(c *supervisor.Config) { c.Disk, c.Room = 1<<20, roomyDisk().room })
	for what, text := range map[string]string{
		"a file":              `head -c 4000000 /dev/zero >big; sleep 60`,
		"a file in /tmp":      `head -c 4000000 /dev/zero >"$TMPDIR/big"; sleep 60`,
		"a deleted file":      `exec 3>big; rm big; head -c 4000000 /dev/zero >&3; sleep 60`,
		"many empty files":    `i=0; while [ $i -lt 400 ]; do : >e$i; i=$((i+1)); done; sleep 60`,
		"folders all the way": `mkdir -p $(printf 'd/%.0s' $(seq 150)); sleep 60`,
	} {
		b.run(script("trap '' TERM; " + text))
		status := b.ended(worker)
		if status.State != cluster.TaskFailed || !strings.Contains(status.Reason, "disk") {
			t.Errorf("%s: it ended as %+v", what, status)
		}
		if what != "folders all the way" && !strings.Contains(status.Reason, "limit 1 MiB") {
			t.Errorf("%s: %s", what, status.Reason)
		}
		awaitGone(t, filepath.Join(b.dir, "tasks", "digits~main~worker-0.1", "ml")) // before anybody forgets it
		if err := b.agent.Desired(true, nil, nil); err != nil {
			t.Fatal(err)
		}
		b.until("it is forgotten", func(held map[string]cluster.TaskStatus) bool { return len(held) == 0 })
	}
	// A job may ask for more than the node gives by itself, and an honest one is left alone.
	b.run(script(`head -c 4000000 /dev/zero >big; sleep 3`, func(a *ledger.Assignment) { a.Program.Disk = 64 << 20 }))
	if status := b.ended(worker); status.State != cluster.TaskSucceeded {
		t.Errorf("with 64 MiB of its own: %+v", status)
	}
}

func TestWhyATaskWasEndedIsKnownToTheNextAgent(t *testing.T) {
	bounded := func(c *supervisor.Config) { c.Disk, c.Room = 1<<20, roomyDisk().room }
	b := newBench(t, bounded)
	b.run(script(`head -c 4000000 /dev/zero >big; sleep 60`))
	b.becomes(worker, cluster.TaskRunning)
	awaitFile(t, b.dir+"/tasks/digits~main~worker-0.1/condemned")
	if err := b.agent.close(); err != nil {
		t.Fatal(err)
	}
	b.open(bounded)
	if status := b.ended(worker); status.State != cluster.TaskFailed || !strings.Contains(status.Reason, "limit 1 MiB") {
		t.Errorf("it ended as %+v", status)
	}
}

func TestAFullDiskEndsTheTaskThatHasMostOfIt(t *testing.T) {
	d := roomyDisk()
	b := newBench(t, func(c *supervisor.Config) { c.DiskReserve, c.Room = 1<<20, d.room })
	small := script(`head -c 500000 /dev/zero >big; touch ready; sleep 60`)
	large := script(`head -c 4000000 /dev/zero >big; touch ready; sleep 60`, func(a *ledger.Assignment) { a.Task.ID = "large/main/worker-0.1" })
	b.run(small, large)
	for _, id := range []string{worker, "large/main/worker-0.1"} {
		b.becomes(id, cluster.TaskRunning)
	}
	for before := d.looks.Load(); d.looks.Load() < before+2; time.Sleep(10 * time.Millisecond) { // a disk with room ends nobody
	}
	d.free.Store(1000)
	if status := b.ended("large/main/worker-0.1"); status.State != cluster.TaskFailed || !strings.Contains(status.Reason, "almost full") {
		t.Errorf("it ended as %+v", status)
	}
	b.becomes(worker, cluster.TaskRunning)
}

func TestATaskThatFloodsItsMetricsIsStillToldToEnd(t *testing.T) {
	b := newBench(t, nil)
	b.run(script(`yes '{"epoch":1,"metrics":{"loss":0.5}}' >>$SAGEMAKER_BASE_DIR/output/metrics.jsonl`, func(a *ledger.Assignment) {
		a.Program.Grace = time.Second
	}))
	metrics := filepath.Join(b.dir, "tasks", "digits~main~worker-0.1", "ml", "output", "metrics.jsonl")
	for {
		if info, err := os.Stat(metrics); err == nil && info.Size() > 256<<20 {
			break
		}
		time.Sleep(10 * time.Millisecond) // until there is more than can be read in a while
	}
	b.run(script("", func(a *ledger.Assignment) { a.Stop = true }))
	if status := b.ended(worker); status.State != cluster.TaskStopped || status.Progress.Epoch != 1 {
		t.Errorf("it ended as %+v", status)
	}
}
