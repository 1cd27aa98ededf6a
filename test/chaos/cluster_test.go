package chaos_test

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/clary-ml/clary/client"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/test/chaos"
	"github.com/clary-ml/clary/test/testbed"
)

var members = []string{"s1", "s2", "s3"}

// field is a drill on a cluster of three coordinators and two nodes, each with a network, a disk and a clock of its own.
type field struct {
	*drill
	beats   *beats
	beacon  string // where tasks send their beats
	stepped bool   // clocks can be stepped
	work    work
	asked   asked
	done    []string // the faults, and when
}

func beginField(t *testing.T) *field {
	t.Helper()
	d := &field{drill: &drill{t: t, excused: map[string]string{}, counts: map[chaos.Kind]int{}}, beats: newBeats(), work: work{kinds: map[string]int{}, undisturbed: map[string]string{}}}
	d.Machines = testbed.None(t)
	d.Apart()
	d.pretendNVML()
	scratch := d.Path("tmp")
	if err := os.Mkdir(scratch, 0o777); err != nil {
		t.Fatal(err)
	}
	d.Env = append(d.Env, "TMPDIR="+scratch)
	d.beacon = d.beats.listen(t, d.Host())
	for _, name := range slices.Concat(members, nodes) {
		d.disk(name, 512) // a coordinator's log alone has up to three segments of 64 MiB
		d.Clock(name)
	}
	d.Step("s1", time.Minute) // certificates allow for five
	for _, name := range members {
		d.Server(name)
		if name == "s1" {
			d.Login("s1")
			d.stepped = time.Until(d.Shows("s1")) > 30*time.Second
			d.Step("s1", 0)
		}
	}
	d.Clary("login", strings.Join(d.Context().Addresses, ","), "--ca", filepath.Join(d.Path("s1"), "tls", "ca.pem"), "--token-file", filepath.Join(d.Path("s1"), "admin.token"))
	d.WaitFor("all coordinators to vote", 30*time.Second, func() bool { return d.Voters() == len(members) })
	for _, node := range nodes {
		d.Agent(node, "--container-engine", "none")
	}
	d.WaitFor("both nodes", 30*time.Second, func() bool { return d.Ready() == len(nodes) })
	return d
}

// undisturbed does each larger kind of work once before anything is broken.
func (d *field) undisturbed(c *client.Client) {
	d.t.Helper()
	d.sides()
	d.Clary("cp", "../../examples/digits/train.csv.gz", "s3://clary/chaos/train.csv.gz")
	d.Clary("deploy", d.Path("sides"), "--name", "sides", "--replicas", "2", "--cores", "0.2", "--memory", "128MiB", "--detach")
	d.train("training-first")
	d.transform("transform-first")
	d.search(c, newHistory(), "sweep-first")
	for _, kind := range []string{"training", "transform", "sweep"} {
		d.Waits(0, kind+"-first")
		left, err := d.left(c, kind, kind+"-first")
		if err != nil || left == "" {
			d.t.Fatalf("an undisturbed %s leaves %q: %v", kind, left, err)
		}
		d.work.undisturbed[kind] = left
	}
}

// left is what a job left that has ended, or its digest, "" for one of which nothing is asked but its end.
func (d *field) left(c *client.Client, kind, job string) (string, error) {
	switch kind {
	case "training":
		return d.model(c, job)
	case "transform":
		return d.result(c, "s3://clary/scored/"+job+"/")
	case "sweep":
		return d.trials(c, job)
	}
	return "", nil
}

// faults are what is to happen: for as many minutes as the environment says, or once what can.
func (d *field) faults(seed uint64) (faults iter.Seq[chaos.Fault], most time.Duration) {
	kinds := chaos.Clustered()
	if !d.stepped {
		d.t.Log("clocks are not stepped: this binary was not built with the overlay of test/chaos/clock")
		kinds = slices.DeleteFunc(kinds, steps)
	}
	if minutes := number(d.t, "CLARY_CHAOS_MINUTES", 0); minutes > 0 {
		return chaos.Faults(seed, kinds, 9), time.Duration(minutes) * time.Minute
	}
	return slices.Values(chaos.Round(seed, kinds)), time.Hour
}

// roomAgain is how long after there is room again on a coordinator's disk the cluster may yet refuse what is new.
const roomAgain = 15 * time.Second

// steps reports whether a fault sets a clock.
func steps(kind chaos.Kind) bool { return kind == chaos.StepClock || kind == chaos.StepLead }

func TestAClusterKeepsItsWordWhateverBreaks(t *testing.T) {
	t.Parallel()
	seed := uint64(number(t, "CLARY_CHAOS_SEED", 1))
	d := beginField(t)
	faults, most := d.faults(seed)
	c := d.Client()
	d.undisturbed(c)
	t.Logf("seed %d: run it again with SEED=%d make chaos", seed, seed)
	h := newHistory()
	defer func() { d.keep(h, seed) }()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var working sync.WaitGroup
	for i := range 4 {
		own := d.Client(client.WithPatience(4 * time.Second))
		working.Go(func() { h.work(ctx, t, own, i, seed) })
	}
	for i := range 2 {
		own, other := d.Client(client.WithPatience(4*time.Second)), d.Client()
		working.Go(func() { h.store(ctx, t, own, i, seed) })
		working.Go(func() { d.programs(ctx, other, h, i, seed) })
	}
	own := d.Client()
	working.Go(func() { d.series(ctx, own, h) })
	working.Go(func() { d.ask(ctx, &d.asked) })

	began := time.Now()
	for fault := range faults {
		if time.Since(began) > most || t.Failed() {
			break
		}
		time.Sleep(fault.After) // the drill's own time passes: nothing is waited for
		if fault.Length > cluster.LeaseTime {
			d.outlasting(c, h, len(d.done))
		}
		d.done = append(d.done, fmt.Sprintf("%s after %s: %s", time.Now().Format("15:04:05.000"), time.Since(began).Round(time.Millisecond), fault))
		if steps(fault.Kind) {
			h.clock(time.Now().Add(fault.Length + 2*time.Second))
		}
		if fault.Kind == chaos.FillMember {
			h.disk(time.Now().Add(time.Hour))
		}
		d.ruin(fault)
		if fault.Kind == chaos.FillMember {
			h.disk(time.Now().Add(roomAgain))
		}
		d.alive(fault)
	}
	stop()
	working.Wait()
	took := time.Since(began)
	d.WaitFor("all coordinators to vote", time.Minute, func() bool {
		d.alive(chaos.Fault{Kind: "all was mended"})
		return d.Voters() == len(members)
	})
	d.WaitFor("both nodes to be ready", time.Minute, func() bool { return d.Ready() == len(nodes) })
	d.judgeAll(c, h)
	d.report(h, took)
}

// alive sees that no process has ended by itself.
func (d *field) alive(fault chaos.Fault) {
	for _, name := range d.Ended() {
		d.t.Errorf("%s ended by itself after: %s\n%s", name, fault, d.lastWords(name))
		d.done = append(d.done, name+" ended by itself")
		d.Kill(name)
		d.Again(name)
	}
}

// lastWords are what a process said of its own end, or the last line that it wrote: its parts may log on for a moment.
func (d *field) lastWords(name string) string {
	log, _ := os.ReadFile(d.Path(name) + ".log")
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	for _, line := range slices.Backward(lines[max(0, len(lines)-20):]) {
		if strings.HasPrefix(line, "clary: ") {
			return line
		}
	}
	return lines[len(lines)-1]
}

// judgeAll compares what was promised with what became of it.
func (d *field) judgeAll(c *client.Client, h *history) {
	d.t.Helper()
	for _, job := range d.work.jobs {
		d.ended(c, job)
	}
	held := map[string]string{}
	for job, err := range c.AllJobs(context.Background(), client.Filter{}) {
		if err != nil {
			d.t.Fatal(err)
		}
		held[job.Name] = job.Labels["by"]
	}
	for name, by := range h.promised {
		if held[name] != by {
			d.t.Errorf("%s was accepted from %s; the cluster has it from %q", name, by, held[name])
		}
	}
	if !porcupine.CheckOperations(register.ToModel(), h.ops) {
		d.t.Errorf("no order of %d operations explains what clients were told", len(h.ops))
	}
	d.beats.mu.Lock()
	for _, line := range d.beats.twice {
		d.t.Error(line)
	}
	d.beats.mu.Unlock()
	for _, answer := range d.asked.wrong {
		d.t.Errorf("the endpoint answered %q", answer)
	}
	d.WaitFor("the endpoint to answer", time.Minute, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		before := d.asked.answered
		d.ask(ctx, &d.asked)
		return d.asked.answered > before
	})
	d.Clary("endpoint", "delete", "sides")
	d.forget(c, held)
}

// forget ends and deletes all jobs, and counts what is left of them.
func (d *field) forget(c *client.Client, held map[string]string) {
	d.t.Helper()
	d.gone("tasks' processes, ports, namespaces and control groups", d.traces)
	for name := range held {
		if name == "sides" {
			continue
		}
		_, _ = c.Cancel(context.Background(), name, "over")
		d.WaitFor("the deletion of "+name, 30*time.Second, func() bool { return c.Delete(context.Background(), name) == nil })
	}
	d.gone("what was kept of the tasks", d.kept)
	d.gone("files of their own for a while", d.scraps)
}

// scraps are temporary files, and parts of objects that were never whole.
func (d *field) scraps() []string {
	var found []string
	for _, pattern := range []string{d.Path("tmp") + "/*", d.Path("s1") + "/objects/.sgwtmp/*/*"} {
		files, _ := filepath.Glob(pattern)
		found = append(found, files...)
	}
	return found
}

// ended waits for the end of a job and sees that it is the one it has to have.
func (d *field) ended(c *client.Client, job promised) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last client.JobView
	for view, err := range c.Watch(ctx, job.name) {
		if err != nil {
			d.t.Errorf("%s, which was accepted, is %s (%s): %v", job.name, last.Job.State, last.Job.Reason, err)
			return
		}
		last = view
	}
	want := cluster.JobSucceeded
	if job.code != 0 {
		want = cluster.JobFailed
	}
	if last.Job.State != want || job.code != 0 && !strings.Contains(last.Job.Reason, fmt.Sprintf("exit code %d", job.code)) {
		said, _ := d.Try("logs", job.name)
		d.t.Errorf("%s, whose program ends with %d, has %s: %s; it said\n%s", job.name, job.code, last.Job.State, last.Job.Reason, said)
		return
	}
	if got, err := d.left(c, job.kind, job.name); err != nil || got != d.work.undisturbed[job.kind] {
		d.t.Errorf("%s left\n%s\nan undisturbed run\n%s\n%v", job.name, got, d.work.undisturbed[job.kind], err)
	}
}

// report prints what was done and what was seen.
func (d *field) report(h *history, took time.Duration) {
	d.t.Helper()
	faults := 0
	for _, kind := range chaos.Clustered() {
		d.t.Logf("%3d times: %s", d.counts[kind], kind)
		faults += d.counts[kind]
	}
	d.t.Logf("%d faults in %s", faults, took.Round(time.Second))
	d.t.Logf("jobs that ended as they had to: %v", d.work.kinds)
	d.t.Logf("%d operations are linearizable: %v", len(h.ops), h.counts)
	d.t.Logf("%d jobs that were never run, all of them there", len(h.promised))
	d.t.Logf("%d beats of tasks; none ran beside its own next attempt or on a device or port of another; what was held by several one after the other: %v", d.beats.count, d.beats.changes)
	d.t.Logf("endpoint: %d requests answered, %d of them by the second or third router, %d by none, the longest time without an answer %s",
		d.asked.answered, d.asked.hidden, d.asked.failed, d.asked.longest.Round(time.Millisecond))
	if len(h.ops) == 0 || d.beats.count == 0 || d.asked.answered == 0 || len(d.work.jobs) == 0 {
		d.t.Error("nothing was exercised")
	}
}

// keep writes history and logs of a run that failed to the folder that CLARY_CHAOS_OUT names.
func (d *field) keep(h *history, seed uint64) {
	folder := os.Getenv("CLARY_CHAOS_OUT")
	if !d.t.Failed() {
		return
	}
	d.t.Logf("seed %d, faults:\n%s", seed, strings.Join(d.done, "\n"))
	if folder == "" {
		return
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		d.t.Error(err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var text strings.Builder
	fmt.Fprintf(&text, "began %s\n%s\n", h.began.Format("15:04:05.000"), strings.Join(d.done, "\n"))
	for _, op := range h.ops {
		fmt.Fprintf(&text, "%d %s..%s %+v: %+v\n", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), op.Input, op.Output)
	}
	_ = os.WriteFile(filepath.Join(folder, "history"), []byte(text.String()), 0o600)
	logs, _ := filepath.Glob(d.Dir + "/*.log")
	for _, log := range logs {
		content, _ := os.ReadFile(log)
		_ = os.WriteFile(filepath.Join(folder, filepath.Base(log)), content, 0o600)
	}
	d.t.Logf("history and logs are in %s", folder)
}
