// Package runtimetest is what every runtime driver must do, as tests. A driver's
// own tests call Run with a way to make an agent's worth of it.
package runtimetest

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// Harness makes drivers for one test.
type Harness struct {
	// Open makes a driver; the second one opened in a test stands for the agent
	// after a restart. Close lets go of a driver without ending its tasks.
	Open  func(t *testing.T) runtime.Driver
	Close func(t *testing.T, d runtime.Driver)
	// Script turns a POSIX shell script into the command and folder of a task.
	Script func(t *testing.T, id, script string) runtime.Spec
	// Limited says that the driver enforces memory and process limits here.
	Limited bool
	// Isolate gives a task of Script's a view of its own, in which its folder is /opt/ml,
	// and a user of its own. Nil leaves those claims out.
	Isolate func(*runtime.Spec)
	// Roots are the folders in which the driver keeps files.
	Roots []string
	// Without are claims that do not hold here, and why. All others must: a driver that lacks
	// what a claim needs says so here, or the claim fails.
	Without map[string]string
	// Listener is a script that says "port N" and answers connections to it with "hello", if
	// that of the suite cannot run here.
	Listener string
}

// claim is one test.
type claim struct {
	name  string
	check func(*bench)
}

// The claims that a harness may be without.
const (
	PartialClaim     = "shows the beginning of a line at once"
	LeaseClaim       = "ends an exclusive task with its lease"
	RenewedClaim     = "keeps an exclusive task whose lease is renewed"
	OutOfMemoryClaim = "reports a kill for memory as such"
	ForkBombClaim    = "bounds a fork bomb"
	CoresClaim       = "holds a task to its cores when it is asked to"
	UsageClaim       = "tells what a task uses, and what it has used"
	PrivateTempClaim = "gives a task a private and bounded /tmp"
	SecretsClaim     = "gives a task its secrets and leaves them in no file"
)

const patience = 30 * time.Second

// can finds what a driver does beyond the core; one that does not must say so in Without.
func can[T any](b *bench, what string) T {
	b.Helper()
	able, ok := b.driver.(T)
	if !ok {
		b.Fatalf("the driver %s not, and its harness does not say why", what)
	}
	return able
}

// Run runs the suite. newHarness is called once for each test, with its t.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	claims := []claim{
		{"reports the exit code", exitCode},
		{"reports the signal that ended a task", exitSignal},
		{"refuses a program that does not exist", noProgram},
		{"refuses to run an ID twice", twice},
		{"ends a task that heeds SIGTERM", stopGentle},
		{"kills a task that ignores SIGTERM after its grace", stopStubborn},
		{"shortens the grace of a stop under way", stopShorter},
		{"ends a task at its maximum run time", maxRuntime},
		{LeaseClaim, lease},
		{RenewedClaim, renewed},
		{"keeps a task and its exit code over a restart of the agent", restart},
		{"keeps the exit code of a task that ended while no agent was there", endedAlone},
		{"leaves nothing of a task's descendants", descendants},
		{OutOfMemoryClaim, outOfMemory},
		{ForkBombClaim, forkBomb},
		{"removes an ended task and refuses a running one", remove},
		{"gives a task its devices and no others", devices},
		{"answers for an unknown task that it is not there", unknown},
	}
	all := slices.Concat(claims, logClaims, meterClaims, handsClaims, isolationClaims)
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			b := &bench{T: t, ctx: ctx, Harness: newHarness(t)}
			for name := range b.Without {
				if !slices.ContainsFunc(all, func(c claim) bool { return c.name == name }) {
					t.Fatalf("the harness is without %q, which nobody claims", name)
				}
			}
			if b.Isolate == nil && slices.ContainsFunc(isolationClaims, func(i claim) bool { return i.name == c.name }) {
				t.Skip("skipped: the tasks of this harness share the machine's view")
			}
			if why := b.Without[c.name]; why != "" {
				t.Skip("skipped: " + why)
			}
			b.driver = b.Open(t)
			defer func() { b.Close(t, b.driver) }()
			c.check(b)
		})
	}
}

// bench is one test's workplace.
type bench struct {
	*testing.T
	Harness
	ctx    context.Context
	driver runtime.Driver
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// start runs a script and sees that it is gone when the test is over.
func (b *bench) start(script string, change ...func(*runtime.Spec)) string {
	b.Helper()
	spec := b.spec(script, change...)
	_, err := b.driver.Start(b.ctx, spec)
	b.must(err)
	return spec.ID
}

func (b *bench) spec(script string, change ...func(*runtime.Spec)) runtime.Spec {
	b.Helper()
	spec := b.Script(b.T, "job/main/worker-0.1", script)
	for _, c := range change {
		c(&spec)
	}
	return spec
}

// work is the machine's name of the folder that Script's tasks work in.
func (b *bench) work() string {
	b.Helper()
	spec := b.spec("true")
	if b.Isolate != nil {
		b.Isolate(&spec)
		return spec.Isolation.Mounts[0].Source
	}
	return spec.Dir
}

func (b *bench) wait(id string) runtime.Exit {
	b.Helper()
	exit, err := b.driver.Wait(b.ctx, id)
	b.must(err)
	return exit
}

// log is what a task wrote to a stream.
func (b *bench) log(id, stream string) string {
	b.Helper()
	return raw(b.entries(id, journal.Query{Streams: []string{stream}}))
}

// until reads the log until it says the word.
func (b *bench) until(id, word string) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	var said []byte
	err := b.driver.Logs(ctx, id, journal.Query{Streams: []string{runtime.Stdout}, Follow: true}, func(batch []journal.Entry) error {
		for _, e := range batch {
			said = e.AppendRaw(said)
		}
		if strings.Contains(string(said), word) {
			cancel()
		}
		return nil
	})
	if !strings.Contains(string(said), word) {
		b.Fatalf("the task ended without saying %q; it said %q, %v", word, said, err)
	}
}

// restartAgent lets go of the driver and opens another one over the same tasks.
func (b *bench) restartAgent(between func()) []runtime.Found {
	b.Helper()
	b.Close(b.T, b.driver)
	between()
	b.driver = b.Open(b.T)
	found, err := b.driver.Recover(b.ctx)
	b.must(err)
	return found
}

func (b *bench) wantKind(err error, kind fault.Kind) {
	b.Helper()
	if err == nil || !fault.Is(err, kind) {
		b.Fatalf("error %v: want one of kind %v", err, kind)
	}
}
