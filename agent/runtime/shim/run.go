package shim

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clary-ml/clary/storage/journal"
)

const (
	killPatience = 30 * time.Second // to see a killed task's processes go
	logPatience  = 2 * time.Second  // to read what is left in the pipes after that
	exitPatience = 10 * time.Minute // to find room on the disk for the exit code
)

// Ready is what a shim tells whose task has started.
const Ready = "ok"

// Failed is the exit code of a shim that has told what went wrong. Greater ones are of a defect.
const Failed = 1

// Options are what the agent hands to the shim beside the folder.
type Options struct {
	Dir string
	// Ready is told the word Ready or the error as soon as the task has started or cannot.
	Ready *os.File
	// Secrets are read to the end before the task starts: variables, each ended by a NUL.
	Secrets *os.File
}

// Run runs the task in the folder to its end. The caller holds the folder's lock
// for as long as the process lives.
func Run(options Options) error {
	var spec Spec
	if err := ReadJSON(options.Dir, SpecFile, &spec); err != nil {
		return fmt.Errorf("read what to run: %w", err)
	}
	if len(spec.Argv) == 0 {
		return fmt.Errorf("%s: argv is empty: name the program to run", SpecFile)
	}
	secrets, err := readSecrets(options.Secrets)
	if err != nil {
		return err
	}
	_, _ = unix.Setsid()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)

	start := Start{Boot: Boot(), Shim: os.Getpid(), Time: time.Now()}
	if err := WriteJSON(options.Dir, StartFile, start, false); err != nil {
		return err
	}
	t := &task{dir: options.Dir, spec: spec, secrets: secrets, start: start, signals: signals}
	exit := t.run(options.Ready)
	return t.record(exit)
}

// task is one run.
type task struct {
	dir     string
	spec    Spec
	secrets []string // variables that stand in no file
	start   Start
	signals chan os.Signal
	log     *journal.Writer
	copied  chan struct{}

	cause  Cause
	killAt time.Time // when SIGTERM becomes SIGKILL; zero if it was not asked to end
}

func (t *task) run(ready *os.File) Exit {
	c, err := t.begin()
	if err != nil {
		tell(ready, err.Error())
		return Exit{Code: -1, Error: err.Error(), Started: t.start.Time, Ended: time.Now()}
	}
	t.start.Pid = c.pid
	if of, ok := readStat(c.pid); ok {
		t.start.Ticks = of.ticks
	}
	err = WriteJSON(t.dir, StartFile, t.start, false)
	if err != nil {
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
	}
	// When memory runs out on the whole machine, tasks go before agent and shim.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.pid), []byte("300"), 0)
	tell(ready, Ready)

	status := t.watch(c)
	ended := time.Now()
	refused := t.spec.Group.Usage().Refused // later also those of who is being killed
	t.clear(c)
	exit := Exit{
		Code: status.ExitStatus(), Cause: t.cause,
		Started: t.start.Time, Ended: ended, Ran: ended.Sub(t.start.Time),
		Usage: t.spec.Group.Usage(), Dropped: t.log.Dropped(),
	}
	exit.Usage.Refused = refused
	if status.Signaled() {
		exit.Signal = int(status.Signal())
		if err != nil { // it was killed for that, unless it had ended by itself
			exit.Error = "record the start: " + err.Error()
		}
	}
	return exit
}

// tell ends the time in which the agent listens to what the shim says: from here on that goes to the log.
func tell(ready *os.File, text string) {
	if ready != nil {
		_ = unix.Dup3(syscall.Stdout, syscall.Stderr, 0)
		_, _ = ready.WriteString(text)
		_ = ready.Close()
	}
}

// streams are what a task writes to.
var streams = [2]string{"stdout", "stderr"}

// begin opens the log and starts the process.
func (t *task) begin() (*child, error) {
	var readers, writers [2]*os.File
	for i := range streams {
		reader, writer, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer writer.Close() //nolint:errcheck // the process has its own copy
		readers[i], writers[i] = reader, writer
	}
	t.log = journal.Open(filepath.Join(t.dir, LogFile), journal.Options{Bytes: t.spec.LogBytes})
	c, err := spawn(t.spec, t.secrets, writers[0], writers[1])
	t.secrets = nil
	if err != nil {
		return nil, err
	}
	t.copied = make(chan struct{})
	var copying sync.WaitGroup
	for i, name := range streams {
		copying.Go(func() { t.log.Stream(name).Drain(readers[i]) })
	}
	go func() {
		defer close(t.copied)
		copying.Wait()
	}()
	return c, nil
}

// watch waits for the process to end, and ends it when it must.
func (t *task) watch(c *child) syscall.WaitStatus {
	started := time.Now()
	t.heed(c) // a stop may have come before the signals were listened to
	for {
		timer := time.NewTimer(t.next(started))
		select {
		case status := <-c.status:
			timer.Stop()
			return status
		case s := <-t.signals:
			if s == syscall.SIGUSR1 {
				t.heed(c)
			} else {
				t.end(c, CauseStopped, t.spec.Grace)
			}
		case <-timer.C:
			t.expire(c, started)
		}
		timer.Stop()
	}
}

// next is how long nothing is due. Sleeping in short pieces keeps the lease honest
// when the machine was suspended, since timers do not count that time.
func (t *task) next(started time.Time) time.Duration {
	wait := 24 * time.Hour
	if t.spec.MaxRuntime > 0 && t.cause == CauseNone {
		wait = min(wait, t.spec.MaxRuntime-time.Since(started))
	}
	if t.spec.Exclusive && t.cause != CauseLease {
		wait = min(wait, leaseLeft(t.dir), time.Second)
	}
	if !t.killAt.IsZero() {
		wait = min(wait, time.Until(t.killAt))
	}
	return max(wait, 0)
}

// expire does what is due.
func (t *task) expire(c *child, started time.Time) {
	if t.spec.Exclusive && t.cause != CauseLease && leaseLeft(t.dir) == 0 {
		// Another node may start the same work from this instant: no grace.
		t.cause = CauseLease
		t.killAt = time.Now()
	}
	if t.spec.MaxRuntime > 0 && t.cause == CauseNone && time.Since(started) >= t.spec.MaxRuntime {
		t.end(c, CauseMaxRuntime, t.spec.Grace)
	}
	if !t.killAt.IsZero() && !time.Now().Before(t.killAt) {
		_ = syscall.Kill(-c.pid, syscall.SIGKILL)
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		t.killAt = time.Now().Add(time.Second) // until it is seen to have ended
	}
}

// heed reads the wish to end, if there is one.
func (t *task) heed(c *child) {
	var stop Stop
	if ReadJSON(t.dir, StopFile, &stop) == nil {
		t.end(c, CauseStopped, stop.Grace)
	}
}

// end asks the process group to end, once, and sets or shortens its grace.
func (t *task) end(c *child, cause Cause, grace time.Duration) {
	killAt := time.Now().Add(grace)
	if t.cause == CauseNone {
		t.cause = cause
		_ = syscall.Kill(-c.pid, syscall.SIGTERM)
	}
	if t.killAt.IsZero() || killAt.Before(t.killAt) {
		t.killAt = killAt
	}
}

// clear ends whatever the process left behind, in its group or out of it, and
// reads the rest of its output.
func (t *task) clear(c *child) {
	_ = t.spec.Group.Kill(killPatience)
	deadline := time.Now().Add(killPatience)
	for pause := time.Millisecond; !isClosed(c.orphan) && time.Now().Before(deadline); pause = min(2*pause, 50*time.Millisecond) {
		killChildren()
		select {
		case <-c.orphan:
		case <-time.After(pause):
		}
	}
	select {
	case <-t.copied:
	case <-time.After(logPatience):
	}
	t.log.Close()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// record writes how the task ended. A full disk must not lose an exit code, so it
// tries for a while.
func (t *task) record(exit Exit) error {
	deadline := time.Now().Add(exitPatience)
	err := WriteJSON(t.dir, ExitFile, exit, true)
	for ; err != nil && !errors.Is(err, os.ErrNotExist) && time.Now().Before(deadline); err = WriteJSON(t.dir, ExitFile, exit, true) {
		time.Sleep(time.Second)
	}
	return errors.Join(err, t.spec.Group.Remove())
}
