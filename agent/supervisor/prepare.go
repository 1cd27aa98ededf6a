package supervisor

import (
	"context"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/agent/contract"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// defaultPids bounds processes and threads of one task: far more than any honest
// program has, and few enough that a fork bomb does not take the node.
const defaultPids = 4096

// prepare makes the task's folder and everything in it, and says what to run. It may
// be called again after it was cut short.
func (t *task) prepare(ctx context.Context) (runtime.Spec, error) {
	assignment := t.assignment()
	// Nobody but the agent enters it by its path: a task is shown what is its own.
	if err := os.MkdirAll(t.folder, 0o700); err != nil {
		return runtime.Spec{}, fault.New(fault.Internal, "prepare task folder: %w", err)
	}
	for _, folder := range append(t.folders.All(assignment.Program), t.temp(), t.scratch()) {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return runtime.Spec{}, fault.New(fault.Internal, "prepare task folder: %w", err)
		}
	}
	view, err := t.view(ctx, assignment)
	if err != nil {
		return runtime.Spec{}, err
	}
	if err := t.stage(ctx, assignment); err != nil {
		return runtime.Spec{}, err
	}
	if err := t.fetchImage(ctx, assignment.Program.Image); err != nil {
		return runtime.Spec{}, err
	}
	if err := t.feed(ctx, assignment, view.isolation == nil); err != nil {
		return runtime.Spec{}, err
	}
	bin, err := t.python(ctx, assignment.Program)
	if err != nil {
		return runtime.Spec{}, err
	}
	if err := t.claim(ctx, assignment); err != nil {
		return runtime.Spec{}, err
	}
	if err := t.awaitLease(ctx, assignment); err != nil {
		return runtime.Spec{}, err
	}
	if err := checkPorts(t.s.config.Listen, portsOf(assignment)); err != nil {
		return runtime.Spec{}, err
	}
	facts := contract.Task{Assignment: assignment, Place: view.place}
	for folder, files := range map[string]map[string][]byte{t.folders.Config(): facts.Files(), t.folders.JobConfig(): facts.JobFiles()} {
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(folder, name), text, 0o644); err != nil {
				return runtime.Spec{}, fault.New(fault.Internal, "write the task's configuration: %w", err)
			}
		}
	}
	if t.hasCertificate() {
		if err := certify(ctx, t.s.config.Certify, assignment.Task.ID, t.tlsDir()); err != nil {
			return runtime.Spec{}, err
		}
		t.loadCertificate() // from here on it may be outdated
	}
	if err := t.giveSecrets(ctx, assignment, &view); err != nil {
		return runtime.Spec{}, err
	}
	if err := view.own(t, assignment.Program); err != nil {
		return runtime.Spec{}, err
	}
	if view.devices, err = t.devices(ctx, facts.Task.Allocation.Resources); err != nil {
		return runtime.Spec{}, err
	}
	if err := t.awaitGang(ctx); err != nil {
		return runtime.Spec{}, err
	}
	return t.spec(facts, view, bin), nil
}

func (t *task) temp() string    { return filepath.Join(t.folder, "tmp") }     // the task's
func (t *task) scratch() string { return filepath.Join(t.folder, "scratch") } // the agent's own
func (t *task) tlsDir() string  { return filepath.Join(t.folder, "tls") }

// stage fetches inputs and an earlier attempt's checkpoints.
func (t *task) stage(ctx context.Context, assignment ledger.Assignment) error {
	inputs := assignment.Program.Inputs
	restore := assignment.Program.Checkpoints && (assignment.RestoreFrom != "" || assignment.Program.Restore != "")
	source := assignment.Program.Source
	if len(inputs) == 0 && !restore && source == "" {
		return nil
	}
	if t.s.config.Store == nil || t.s.config.Cache == nil {
		return fault.New(fault.Unready, "the task has inputs or a source, but this node knows no object store")
	}
	t.become(func(s *cluster.TaskStatus) { s.State = cluster.TaskStaging })
	for _, input := range inputs {
		if input.Mode != cluster.InputFile {
			continue
		}
		err := patiently(ctx, func() error {
			tally, err := t.fetch(ctx, assignment, input)
			if err == nil {
				t.s.config.Log.Info("input staged", "task", t.id(), "channel", input.Channel, "objects", tally.Objects, "fetched", tally.Fetched, "bytes", tally.Bytes)
			}
			return err
		})
		if err != nil {
			return err
		}
		if contract.Own(input.Channel) {
			if err := staging.Own(t.folders.Of(input)); err != nil {
				return fault.New(fault.Internal, "input %s: %w", input.Channel, err)
			}
		}
	}
	if source != "" {
		err := patiently(ctx, func() error {
			return staging.FetchSource(ctx, t.s.config.Store, t.s.config.Cache, source, t.scratch(), t.folders.Code())
		})
		if err != nil {
			return err
		}
	}
	if !restore {
		return nil
	}
	return t.restore(ctx, assignment)
}

func (t *task) fetch(ctx context.Context, assignment ledger.Assignment, input cluster.Input) (staging.Tally, error) {
	if input.Model {
		return staging.FetchModel(ctx, t.s.config.Store, t.s.config.Cache, input, t.scratch(), t.folders.Of(input))
	}
	return staging.Fetch(ctx, t.s.config.Store, t.s.config.Cache, input, share(assignment), t.folders.Of(input))
}

// restore brings the newest checkpoints of the job's own attempts; without any, those of the
// job that it goes on from.
func (t *task) restore(ctx context.Context, assignment ledger.Assignment) error {
	other := assignment.Task
	other.Attempt = math.MaxInt32 // all of another job's attempts are earlier ones
	for _, source := range []struct {
		uri  string
		task cluster.Task
	}{{assignment.RestoreFrom, assignment.Task}, {assignment.Program.Restore, other}} {
		if source.uri == "" {
			continue
		}
		from := int32(0)
		err := patiently(ctx, func() (err error) {
			from, err = staging.Restore(ctx, t.s.config.Store, source.uri, source.task, assignment.Elastic, t.folders.Checkpoints())
			return err
		})
		if err != nil {
			return err
		}
		if from > 0 {
			t.s.config.Log.Info("checkpoints restored", "task", t.id(), "below", source.uri, "from_attempt", from)
			return nil
		}
	}
	return nil
}

// fetchImage brings the task's image before anything is held for it: a pull takes its time,
// and may be stopped.
func (t *task) fetchImage(ctx context.Context, image string) error {
	fetcher, ok := t.s.config.Driver.(runtime.Fetcher)
	if image == "" || !ok {
		return nil
	}
	t.become(func(s *cluster.TaskStatus) { s.State = cluster.TaskStaging })
	return patiently(ctx, func() error { return fetcher.Fetch(ctx, image) })
}

// patiently tries for about a minute while what it needs cannot be reached.
func patiently(ctx context.Context, do func() error) error {
	err := do()
	for pause := 250 * time.Millisecond; fault.Is(err, fault.Unready) && pause < time.Minute; pause *= 2 {
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		err = do()
	}
	return err
}

// checkPorts sees that nobody else on the machine has the task's ports.
func checkPorts(host string, ports []int32) error {
	for _, port := range ports {
		address := net.JoinHostPort(host, strconv.Itoa(int(port)))
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return fault.New(fault.Unready, "port %d cannot be bound on this node: %w", port, err)
		}
		if err := listener.Close(); err != nil {
			return fault.New(fault.Internal, "release port %d: %w", port, err)
		}
	}
	return nil
}

// needsCertificate reports whether anyone in the gang listens.
func needsCertificate(assignment ledger.Assignment) bool {
	if len(assignment.Task.Allocation.Resources.Ports) > 0 {
		return true
	}
	for _, hosts := range assignment.Hosts {
		for _, host := range hosts {
			if _, _, err := net.SplitHostPort(host); err == nil {
				return true
			}
		}
	}
	return false
}

func (t *task) spec(facts contract.Task, view view, bin string) runtime.Spec {
	program, resources := facts.Program, facts.Task.Allocation.Resources
	argv := slices.Clone(program.Command)
	if program.Clary && len(argv) > 0 {
		argv[0] = view.program
	}
	if program.Script != "" {
		argv = append(argv, facts.Arguments()...)
	}
	dir := program.Dir
	switch {
	case dir != "":
	case program.Source != "":
		dir = view.place.Folders.Code()
	case program.Image != "": // the image's own
	default:
		dir = view.place.Folders.Base
	}
	env := append(facts.Environment(), view.env...)
	if bin != "" {
		env = append(withPath(env, bin), "VIRTUAL_ENV="+filepath.Dir(bin))
	}
	if t.hasCertificate() {
		env = append(env, "CLARY_TLS_DIR="+view.tls)
	}
	return runtime.Spec{
		ID: facts.Task.ID, Image: program.Image, Entrypoint: program.Entrypoint, Argv: argv, Env: env, Dir: dir,
		Limits: runtime.Limits{
			MilliCPU: resources.MilliCPU, HardCPU: program.HardCPU, Memory: resources.Memory, Pids: defaultPids,
		},
		Devices: view.devices, MaxRuntime: facts.MaxRuntime, Grace: grace(program),
		Exclusive: program.Exclusive, Lease: t.s.config.Lease(),
		User: view.user, Isolation: view.isolation, Secrets: view.secrets,
	}
}

// devices are the names by which the task uses its GPUs.
func (t *task) devices(ctx context.Context, r cluster.Resources) ([]string, error) {
	names := slices.Clone(r.Devices)
	for _, share := range r.Shares {
		name := share.UUID
		if share.Profile != "" {
			if t.s.config.Slot == nil {
				return nil, fault.New(fault.Internal, "slot %s of device %s: this node has no GPUs that are cut", share.Profile, share.UUID)
			}
			var err error
			if name, err = t.s.config.Slot(ctx, share); err != nil {
				return nil, err
			}
		}
		names = append(names, name)
	}
	return names, nil
}

// withPath puts a folder first in PATH.
func withPath(env []string, folder string) []string {
	env = slices.Clone(env)
	for i, entry := range env {
		if path, ok := strings.CutPrefix(entry, "PATH="); ok {
			env[i] = "PATH=" + folder + ":" + path
		}
	}
	return env
}

func grace(program cluster.Program) time.Duration {
	if program.Grace > 0 {
		return program.Grace
	}
	return defaultGrace
}
