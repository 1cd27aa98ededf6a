package bubble_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/journal"
)

// stopTakes is how long a program takes to end when it is asked to.
const stopTakes = 700 * time.Millisecond

// floor is where all programs of all nodes run, in the bubble's time. It sees what no
// part of the cluster sees: what really runs, everywhere.
type floor struct {
	mu      sync.Mutex
	broken  []string          // what must never be, and was
	started map[string]string // task → node
	holders map[string]string // device → task that runs with it
	counts  *tally
}

// tally counts what was exercised.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (t *tally) add(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[what]++
}

// missing is what was to be exercised, and was not.
func (t *tally) missing() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(exercised), func(what string) bool { return t.counts[what] > 0 })
}

func newFloor(counts *tally) *floor {
	return &floor{started: map[string]string{}, holders: map[string]string{}, counts: counts}
}

// driver runs one node's programs: "run 3s 0" runs for three seconds and exits with 0, "try
// 0.4 3" is a trial of rate 0.4 and three steps of a second each, see trialLoss. What drives a transform's
// server has its work done in driveTakes. It outlives its agent, as shims do.
type driver struct {
	floor *floor
	node  string
	tasks map[string]*program // guarded by the floor's lock
}

// driveTakes is how long a transform's driver runs.
const driveTakes = 6 * time.Second

type program struct {
	spec    runtime.Spec
	exit    runtime.Exit
	running bool
	ended   chan struct{}
	timer   *time.Timer
}

func (f *floor) driver(node string) *driver {
	return &driver{floor: f, node: node, tasks: map[string]*program{}}
}

func (d *driver) Start(_ context.Context, spec runtime.Spec) (time.Time, error) {
	f := d.floor
	f.mu.Lock()
	defer f.mu.Unlock()
	play, err := playOf(spec)
	if err != nil {
		return time.Time{}, fault.New(fault.Invalid, "%w", err)
	}
	if other, twice := f.started[spec.ID]; twice {
		f.broken = append(f.broken, fmt.Sprintf("%s starts on %s, and has started on %s", spec.ID, d.node, other))
	}
	f.started[spec.ID] = d.node
	for _, device := range spec.Devices {
		if holder := f.holders[device]; holder != "" {
			f.broken = append(f.broken, fmt.Sprintf("%s starts on %s with %s, which %s uses", spec.ID, d.node, device, holder))
		}
		f.holders[device] = spec.ID
	}
	f.counts.add("started")
	p := &program{spec: spec, running: true, ended: make(chan struct{})}
	p.exit.Started = time.Now()
	d.tasks[spec.ID] = p
	d.step(p, play, 0)
	return p.exit.Started, nil
}

func (d *driver) runs(p *program) bool {
	d.floor.mu.Lock()
	defer d.floor.mu.Unlock()
	return p.running
}

// play is what a program does: so many steps of some length, each of which it may tell of.
type play struct {
	steps   int
	length  time.Duration
	code    int
	metrics string                 // the file to tell in
	loss    func(step int) float64 // nil: it tells nothing
}

func playOf(spec runtime.Spec) (play, error) {
	p := play{steps: 1}
	var err error
	if spec.Argv[len(spec.Argv)-1] == "transformer" {
		p.length = driveTakes
		return p, nil
	}
	if spec.Argv[0] == "run" {
		if p.length, err = time.ParseDuration(spec.Argv[1]); err != nil {
			return p, err
		}
		p.code, err = strconv.Atoi(spec.Argv[2])
		return p, err
	}
	rate, err := strconv.ParseFloat(spec.Argv[1], 64)
	if err != nil {
		return p, err
	}
	if p.steps, err = strconv.Atoi(spec.Argv[2]); err != nil {
		return p, err
	}
	p.length = time.Second
	p.loss = func(step int) float64 { return trialLoss(rate, step) }
	if rate > trialFails {
		p.code = 3
	}
	for _, variable := range spec.Env {
		if path, is := strings.CutPrefix(variable, "CLARY_METRICS="); is {
			p.metrics = path
		}
	}
	return p, nil
}

// trialFails is the rate above which a trial ends with an exit code.
const trialFails = 0.9

// trialLoss is what a trial tells after a step.
func trialLoss(rate float64, step int) float64 { return (rate-0.3)*(rate-0.3) + 1/float64(step) }

// step lets a program work at the step after those that are done. The floor's lock is held.
func (d *driver) step(p *program, play play, done int) {
	p.timer = time.AfterFunc(play.length, func() {
		done++
		if play.loss != nil {
			d.tell(p, play, done)
		}
		if done >= play.steps {
			d.end(p, func(e *runtime.Exit) { e.Code = play.code })
			return
		}
		d.floor.mu.Lock()
		defer d.floor.mu.Unlock()
		if p.running {
			d.step(p, play, done)
		}
	})
}

// tell appends what a trial says after a step to its file of metrics.
func (d *driver) tell(p *program, play play, step int) {
	d.floor.mu.Lock()
	defer d.floor.mu.Unlock()
	if !p.running {
		return
	}
	file, err := os.OpenFile(play.metrics, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintf(file, "{\"epoch\": %d, \"metrics\": {\"loss\": %v}}\n", step, play.loss(step))
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		d.floor.broken = append(d.floor.broken, fmt.Sprintf("%s cannot tell its loss: %v", p.spec.ID, err))
	}
	d.floor.counts.add("told")
}

// end lets a program end, once.
func (d *driver) end(p *program, how func(*runtime.Exit)) {
	d.floor.mu.Lock()
	defer d.floor.mu.Unlock()
	if !p.running {
		return
	}
	p.running, p.exit.Ended = false, time.Now()
	how(&p.exit)
	p.timer.Stop()
	for _, device := range p.spec.Devices {
		delete(d.floor.holders, device)
	}
	close(p.ended)
}

// crash ends all programs of the node without anybody knowing how.
func (d *driver) crash() {
	for _, p := range d.all() {
		d.end(p, func(e *runtime.Exit) { e.Unknown = true })
	}
}

func (d *driver) all() []*program {
	d.floor.mu.Lock()
	defer d.floor.mu.Unlock()
	var all []*program
	for _, p := range d.tasks {
		all = append(all, p)
	}
	return all
}

func (d *driver) find(id string) *program {
	d.floor.mu.Lock()
	defer d.floor.mu.Unlock()
	return d.tasks[id]
}

func (d *driver) Recover(context.Context) ([]runtime.Found, error) {
	var found []runtime.Found
	d.floor.mu.Lock()
	defer d.floor.mu.Unlock()
	for id, p := range d.tasks {
		found = append(found, runtime.Found{ID: id, Started: p.exit.Started, Running: p.running})
	}
	return found, nil
}

func (d *driver) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	p := d.find(id)
	if p == nil {
		return runtime.Exit{}, fault.New(fault.NotFound, "no task %s", id)
	}
	select {
	case <-p.ended:
		return p.exit, nil
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
}

func (d *driver) Stop(_ context.Context, id string, _ time.Duration) error {
	if p := d.find(id); p != nil {
		time.AfterFunc(stopTakes, func() {
			d.end(p, func(e *runtime.Exit) { e.Code, e.Cause = -1, runtime.CauseStopped })
		})
	}
	return nil
}

func (d *driver) Logs(context.Context, string, journal.Query, journal.Sink) error { return nil }

func (d *driver) Remove(_ context.Context, id string) error {
	d.floor.mu.Lock()
	defer d.floor.mu.Unlock()
	if p := d.tasks[id]; p != nil && p.running {
		return fault.New(fault.Conflict, "task %s runs", id)
	}
	delete(d.tasks, id)
	return nil
}
