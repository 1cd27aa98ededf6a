package process_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/process"
	"github.com/clary-ml/clary/agent/runtime/shim"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

const id = "job/main/worker-0.1"

// run starts a script under id and returns its folder.
func run(t testing.TB, d *process.Driver, root, script string, change ...func(*runtime.Spec)) string {
	t.Helper()
	spec := runtime.Spec{ID: id, Argv: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/"}
	for _, c := range change {
		c(&spec)
	}
	if _, err := d.Start(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "job~main~worker-0.1")
}

func started(t *testing.T, dir string) shim.Start {
	t.Helper()
	var start shim.Start
	if err := shim.ReadJSON(dir, shim.StartFile, &start); err != nil {
		t.Fatal(err)
	}
	return start
}

func wait(t testing.TB, d *process.Driver) runtime.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	exit, err := d.Wait(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

func TestAKilledShimMakesTheExitUnknownAndEndsTheTask(t *testing.T) {
	for name, newGroups := range map[string]func(testing.TB) *cgroup.Host{
		"with control groups": newHost,
		"without":             func(testing.TB) *cgroup.Host { return cgroup.Open("", "") },
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(name+", agent restarted "+strconv.FormatBool(restarted), func(t *testing.T) {
				root, host := t.TempDir(), newGroups(t)
				d := open(t, root, host)
				dir := run(t, d, root, `sleep 1000 & echo $!; wait`)
				start := started(t, dir)
				helper := firstPid(t, d)
				if restarted {
					if err := d.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if err := syscall.Kill(start.Shim, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if restarted {
					_, _ = syscall.Wait4(start.Shim, nil, 0, nil) // as init would
					d = open(t, root, host)
					if _, err := d.Recover(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if exit := wait(t, d); !exit.Unknown {
					t.Errorf("the exit is %+v, want unknown", exit)
				}
				for _, pid := range []int{start.Pid, helper} {
					if shim.Ticks(pid) != 0 {
						t.Errorf("process %d of the task lives on without its shim", pid)
					}
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
				// Once unknown, always unknown: the next agent says the same.
				d = open(t, root, host)
				found, err := d.Recover(t.Context())
				if err != nil || len(found) != 1 || found[0].Running {
					t.Errorf("recovered %+v, %v", found, err)
				}
				if exit := wait(t, d); !exit.Unknown {
					t.Errorf("later the exit is %+v", exit)
				}
			})
		}
	}
}

// firstPid reads the number that the task prints first.
func firstPid(t *testing.T, d *process.Driver) int {
	t.Helper()
	for {
		text := said(t, d, false)
		if pid, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && strings.HasSuffix(text, "\n") {
			return pid
		}
		time.Sleep(time.Millisecond)
	}
}

// said is what the task wrote to stdout, to its end if followed.
func said(t *testing.T, d *process.Driver, followed bool) string {
	t.Helper()
	var text []byte
	err := d.Logs(t.Context(), id, journal.Query{Streams: []string{runtime.Stdout}, Follow: followed}, func(batch []journal.Entry) error {
		for _, e := range batch {
			text = e.AppendRaw(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAFloodOfOutputKeepsOnlyItsNewestBytes(t *testing.T) {
	root := t.TempDir()
	d := open(t, root, newHost(t))
	defer d.Close() //nolint:errcheck // the test is over
	const keep = 128 << 10
	dir := run(t, d, root, `seq 1 200000; seq 1 200000 >&2`, func(s *runtime.Spec) { s.LogBytes = keep })
	wait(t, d)
	var total int64
	for _, name := range []string{shim.LogFile, shim.LogFile + ".1"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > keep || total < keep/2 {
		t.Errorf("%d bytes are kept, of %d", total, keep)
	}
	if err := d.DropLog(id); err != nil {
		t.Fatal(err)
	}
	err := d.Logs(t.Context(), id, journal.Query{}, nil)
	if left, _ := filepath.Glob(filepath.Join(dir, shim.LogFile+"*")); len(left) > 0 || !fault.Is(err, fault.NotFound) {
		t.Errorf("of a log that was dropped %v is left, and reading it gives %v", left, err)
	}
}

func TestFollowingAcrossRotationsLosesNothing(t *testing.T) {
	root := t.TempDir()
	d := open(t, root, newHost(t))
	defer d.Close() //nolint:errcheck // the test is over
	// Slow enough that the follower, which looks ten times a second, keeps up.
	dir := run(t, d, root, `i=0; while [ $i -lt 40 ]; do seq $((i*100+1)) $((i*100+100)); i=$((i+1)); sleep 0.05; done`,
		func(s *runtime.Spec) { s.LogBytes = 64 << 10 })
	lines := strings.Fields(said(t, d, true))
	if len(lines) != 4000 || lines[0] != "1" || lines[3999] != "4000" {
		t.Errorf("followed %d lines", len(lines))
	}
	if _, err := os.Stat(filepath.Join(dir, shim.LogFile+".1")); err != nil {
		t.Errorf("there was no rotation: %v", err)
	}
}

func TestAReusedPidIsNotTakenForTheTask(t *testing.T) {
	self := shim.Start{Boot: shim.Boot(), Pid: os.Getpid(), Ticks: shim.Ticks(os.Getpid())}
	if !self.Alive() {
		t.Error("this process is not alive")
	}
	other := self
	other.Ticks++
	earlier := self
	earlier.Boot = "another boot"
	if other.Alive() || earlier.Alive() {
		t.Error("a process of another time is taken for this one")
	}
}

func BenchmarkStart(b *testing.B) {
	work := b.TempDir()
	own := func(s *runtime.Spec) { s.Dir = work; isolate(s) }
	machines := func(*runtime.Spec) {}
	for _, bench := range []struct {
		name string
		host *cgroup.Host
		view func(*runtime.Spec)
	}{{"groups", newHost(b), machines}, {"none", cgroup.Open("", ""), machines}, {"isolated", newHost(b), own}} {
		host := bench.host
		b.Run(bench.name, func(b *testing.B) {
			root := b.TempDir()
			d := open(b, root, host)
			var total time.Duration
			for range b.N {
				began := time.Now()
				run(b, d, root, "exit 0", func(s *runtime.Spec) {
					s.Limits = runtime.Limits{MilliCPU: 1000, Memory: 64 << 20, Pids: 100}
					bench.view(s)
				})
				total += time.Since(began)
				wait(b, d)
				if err := d.Remove(b.Context(), id); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(total.Microseconds())/float64(b.N)/1000, "ms/start")
			_ = d.Close()
		})
	}
}
