package runtimetest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
)

func exitCode(b *bench) {
	for _, code := range []int{0, 3, 255} {
		spec := b.Script(b.T, "job/main/code-"+strconv.Itoa(code)+".1", "exit "+strconv.Itoa(code))
		_, err := b.driver.Start(b.ctx, spec)
		b.must(err)
		if exit := b.wait(spec.ID); exit.Code != code || exit.Signal != 0 || exit.Unknown || exit.OutOfMemory || exit.Cause != runtime.CauseNone {
			b.Errorf("exit %d is reported as %+v", code, exit)
		}
	}
}

func exitSignal(b *bench) {
	id := b.start("kill -SEGV $$; sleep 60")
	if exit := b.wait(id); exit.Signal != int(syscall.SIGSEGV) || exit.OutOfMemory {
		b.Errorf("a segmentation fault is reported as %+v", exit)
	}
}

func noProgram(b *bench) {
	spec := b.spec("true", func(s *runtime.Spec) { s.Argv = []string{"clary-no-such-program"} })
	_, err := b.driver.Start(b.ctx, spec)
	if err == nil { // a container's init finds out
		err = fault.New(fault.Invalid, "%s", b.wait(spec.ID).Error)
	}
	b.wantKind(err, fault.Invalid)
	if !strings.Contains(err.Error(), "clary-no-such-program") {
		b.Errorf("the error does not name the program: %v", err)
	}
}

func twice(b *bench) {
	spec := b.spec("sleep 60")
	_, err := b.driver.Start(b.ctx, spec)
	b.must(err)
	_, err = b.driver.Start(b.ctx, spec)
	b.wantKind(err, fault.Conflict)
	b.must(b.driver.Stop(b.ctx, spec.ID, 0))
	b.wait(spec.ID)
	_, err = b.driver.Start(b.ctx, spec)
	b.wantKind(err, fault.Conflict)
}

func stopGentle(b *bench) {
	id := b.start(`trap "echo bye; exit 7" TERM; echo ready; while :; do sleep 0.01; done`)
	b.until(id, "ready")
	b.must(b.driver.Stop(b.ctx, id, time.Hour))
	if exit := b.wait(id); exit.Code != 7 || exit.Cause != runtime.CauseStopped {
		b.Errorf("it ended as %+v", exit)
	}
	b.must(b.driver.Stop(b.ctx, id, time.Hour)) // an ended task is no error
}

func stopStubborn(b *bench) {
	id := b.start(`trap "" TERM; echo ready; while :; do sleep 0.01; done`)
	b.until(id, "ready")
	began := time.Now()
	b.must(b.driver.Stop(b.ctx, id, 200*time.Millisecond))
	exit := b.wait(id)
	if exit.Signal != int(syscall.SIGKILL) || exit.Cause != runtime.CauseStopped {
		b.Errorf("it ended as %+v", exit)
	}
	if took := time.Since(began); took < 200*time.Millisecond {
		b.Errorf("it was killed after %s, before its grace was over", took)
	}
}

func stopShorter(b *bench) {
	id := b.start(`trap "" TERM; echo ready; while :; do sleep 0.01; done`)
	b.until(id, "ready")
	b.must(b.driver.Stop(b.ctx, id, time.Hour))
	b.must(b.driver.Stop(b.ctx, id, 0))
	if exit := b.wait(id); exit.Signal != int(syscall.SIGKILL) {
		b.Errorf("it ended as %+v", exit)
	}
}

func maxRuntime(b *bench) {
	id := b.start(`trap "" TERM; while :; do sleep 0.01; done`, func(s *runtime.Spec) {
		s.MaxRuntime, s.Grace = 150*time.Millisecond, 50*time.Millisecond
	})
	exit := b.wait(id)
	if exit.Cause != runtime.CauseMaxRuntime || exit.Signal != int(syscall.SIGKILL) {
		b.Errorf("it ended as %+v", exit)
	}
	if ran := exit.Ended.Sub(exit.Started); ran < 150*time.Millisecond {
		b.Errorf("it was ended after %s, before its time", ran)
	}
}

func lease(b *bench) {
	can[runtime.Leaser](b, "ends tasks by a lease")
	id := b.start("sleep 60", func(s *runtime.Spec) {
		s.Exclusive, s.Lease, s.Grace = true, 200*time.Millisecond, time.Hour
	})
	if exit := b.wait(id); exit.Cause != runtime.CauseLease {
		b.Errorf("it ended as %+v", exit)
	}
}

func renewed(b *bench) {
	leaser := can[runtime.Leaser](b, "ends tasks by a lease")
	id := b.start("sleep 1.5; exit 4", func(s *runtime.Spec) { s.Exclusive, s.Lease = true, time.Second })
	b.must(leaser.SetLease(id, time.Hour))
	if exit := b.wait(id); exit.Code != 4 || exit.Cause != runtime.CauseNone {
		b.Errorf("it ended as %+v", exit)
	}
}

func restart(b *bench) {
	id := b.start(`echo $$; while [ ! -e go ]; do sleep 0.01; done; echo $$; exit 42`)
	b.until(id, "\n")
	found := b.restartAgent(func() {})
	if len(found) != 1 || found[0].ID != id || !found[0].Running {
		b.Fatalf("recovered %+v", found)
	}
	dir := b.work()
	b.must(os.WriteFile(filepath.Join(dir, "go"), nil, 0o600))
	if exit := b.wait(id); exit.Code != 42 || !exit.Started.Equal(found[0].Started) {
		b.Errorf("it ended as %+v", exit)
	}
	if pids := strings.Fields(b.log(id, runtime.Stdout)); len(pids) != 2 || pids[0] != pids[1] {
		b.Errorf("the task noticed: its pids are %v", pids)
	}
}

func endedAlone(b *bench) {
	id := b.start("sleep 0.1; echo done > over; exit 9")
	over := filepath.Join(b.work(), "over")
	b.restartAgent(func() {
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(over); err == nil {
				return
			}
			if time.Now().After(deadline) {
				b.Fatal("the task does not end without an agent")
			}
		}
	})
	if exit := b.wait(id); exit.Code != 9 || exit.Unknown {
		b.Errorf("it ended as %+v", exit)
	}
}

func descendants(b *bench) {
	// In a container its number is another: it is known by a word that only its own command
	// line holds whole.
	stamp := strconv.FormatInt(time.Now().UnixNano(), 10)
	id := b.start(`word=clary-away; setsid sh -c ": $word-` + stamp + `; echo > away; trap '' TERM; while :; do sleep 1; done" & while [ ! -e away ]; do sleep 0.01; done; echo there; while [ ! -e go ]; do sleep 0.01; done; exit 0`)
	b.until(id, "there")
	if len(bearing("clary-away-"+stamp)) == 0 {
		b.Error("the descendant is not seen while it runs")
	}
	b.must(os.WriteFile(filepath.Join(b.work(), "go"), nil, 0o600))
	b.wait(id)
	if left := bearing("clary-away-" + stamp); len(left) > 0 {
		b.Errorf("processes %v outlive their task", left)
	}
}

// bearing are the machine's processes whose command line holds a word.
func bearing(word string) []string {
	var found []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		if text, err := os.ReadFile(line); err == nil && bytes.Contains(text, []byte(word)) {
			found = append(found, filepath.Base(filepath.Dir(line)))
		}
	}
	return found
}

func outOfMemory(b *bench) {
	id := b.start(`x=aaaaaaaaaaaaaaaa; while :; do x="$x$x"; done`, func(s *runtime.Spec) { s.Limits.Memory = 32 << 20 })
	if exit := b.wait(id); !exit.OutOfMemory || exit.Code == 0 && exit.Signal == 0 {
		b.Errorf("it ended as %+v", exit)
	}
}

func forkBomb(b *bench) {
	id := b.start(`echo ready; bomb() { bomb | bomb & sleep 1000; }; bomb; sleep 1000`, func(s *runtime.Spec) { s.Limits.Pids = 30 })
	b.until(id, "ready")
	b.must(b.driver.Stop(b.ctx, id, 300*time.Millisecond))
	b.wait(id)
}

func remove(b *bench) {
	id := b.start("sleep 60")
	b.wantKind(b.driver.Remove(b.ctx, id), fault.Conflict)
	b.must(b.driver.Stop(b.ctx, id, 0))
	b.wait(id)
	b.must(b.driver.Remove(b.ctx, id))
	b.must(b.driver.Remove(b.ctx, id)) // nothing there is no error
	_, err := b.driver.Wait(b.ctx, id)
	b.wantKind(err, fault.NotFound)
	if found := b.restartAgent(func() {}); len(found) != 0 {
		b.Errorf("a removed task is recovered: %+v", found)
	}
}

func devices(b *bench) {
	for i, uuids := range [][]string{{"GPU-1", "GPU-7"}, nil} {
		spec := b.Script(b.T, "job/main/gpu-"+strconv.Itoa(i)+".1", `echo "[$CUDA_VISIBLE_DEVICES]"`)
		spec.Devices = uuids
		spec.Env = append(spec.Env, "CUDA_VISIBLE_DEVICES=GPU-of-another")
		_, err := b.driver.Start(b.ctx, spec)
		b.must(err)
		b.wait(spec.ID)
		want := "[" + strings.Join(uuids, ",") + "]\n"
		if got := b.log(spec.ID, runtime.Stdout); got != want {
			b.Errorf("with devices %v it sees %q", uuids, got)
		}
	}
}

func unknown(b *bench) {
	_, err := b.driver.Wait(b.ctx, "no/such/task-0.1")
	b.wantKind(err, fault.NotFound)
	b.wantKind(b.driver.Stop(b.ctx, "no/such/task-0.1", 0), fault.NotFound)
	_, err = b.driver.Start(b.ctx, runtime.Spec{ID: "../../etc", Argv: []string{"true"}})
	b.wantKind(err, fault.Invalid)
}
