package supervisor

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// defaultPids bounds processes and threads of one task: far more than any honest
// program has, and few enough that a fork bomb does not take the node.
const defaultPids = 16384

// prepare makes the task's folder and everything in it, and says what to run. It may
// be called again after it was cut short.
func (t *task) prepare(ctx context.Context) (runtime.Spec, error) {
	assignment := t.assignment()
	for _, folder := range append(t.folders.All(), t.temp()) {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return runtime.Spec{}, fault.New(fault.Internal, "prepare task folder: %w", err)
		}
	}
	if err := t.stage(ctx, assignment); err != nil {
		return runtime.Spec{}, err
	}
	if err := t.claim(ctx, assignment); err != nil {
		return runtime.Spec{}, err
	}
	if err := t.awaitLease(ctx, assignment); err != nil {
		return runtime.Spec{}, err
	}
	if err := checkPorts(t.s.config.Listen, assignment.Task.Allocation.Resources.Ports); err != nil {
		return runtime.Spec{}, err
	}
	if len(assignment.Program.Spec) > 0 {
		if err := os.WriteFile(t.specFile(), assignment.Program.Spec, 0o644); err != nil {
			return runtime.Spec{}, fault.New(fault.Internal, "write the job's spec: %w", err)
		}
	}
	if needsCertificate(assignment) && t.s.config.Certify != nil {
		if err := certify(ctx, t.s.config.Certify, assignment.Task.ID, t.tlsDir()); err != nil {
			return runtime.Spec{}, err
		}
	}
	return t.spec(assignment), nil
}

func (t *task) temp() string     { return filepath.Join(t.folder, "tmp") }
func (t *task) specFile() string { return filepath.Join(t.folders.Config(), "spec.json") }
func (t *task) tlsDir() string   { return filepath.Join(t.folder, "tls") }
func (t *task) metrics() string  { return filepath.Join(t.folder, "metrics.jsonl") }

// stage fetches inputs and an earlier attempt's checkpoints.
func (t *task) stage(ctx context.Context, assignment ledger.Assignment) error {
	inputs := assignment.Program.Inputs
	restore := assignment.Program.Checkpoints && assignment.RestoreFrom != ""
	if len(inputs) == 0 && !restore {
		return nil
	}
	if t.s.config.Store == nil || t.s.config.Cache == nil {
		return fault.New(fault.Unready, "the task has inputs, but this node knows no object store")
	}
	t.become(func(s *cluster.TaskStatus) { s.State = cluster.TaskStaging })
	for _, input := range inputs {
		err := patiently(ctx, func() error {
			return staging.Fetch(ctx, t.s.config.Store, t.s.config.Cache, input, t.folders.Input(input.Channel))
		})
		if err != nil {
			return err
		}
	}
	if !restore {
		return nil
	}
	return patiently(ctx, func() error {
		from, err := staging.Restore(ctx, t.s.config.Store, assignment.RestoreFrom, assignment.Task, t.folders.Checkpoints())
		if err == nil && from > 0 {
			t.s.config.Log.Info("checkpoints restored", "task", t.id(), "from_attempt", from)
		}
		return err
	})
}

// patiently tries for about a minute while the store cannot be reached.
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

func (t *task) spec(assignment ledger.Assignment) runtime.Spec {
	program, resources := assignment.Program, assignment.Task.Allocation.Resources
	argv := slices.Clone(program.Command)
	if program.Clary && len(argv) > 0 {
		argv[0] = t.s.config.Program
	}
	dir := program.Dir
	if dir == "" {
		dir = t.folders.Base
	}
	return runtime.Spec{
		ID: assignment.Task.ID, Argv: argv, Env: t.environment(assignment), Dir: dir,
		Limits: runtime.Limits{
			MilliCPU: resources.MilliCPU, HardCPU: program.HardCPU, Memory: resources.Memory, Pids: defaultPids,
		},
		Devices: resources.Devices, MaxRuntime: assignment.MaxRuntime, Grace: grace(program),
		Exclusive: program.Exclusive, Lease: t.s.config.Lease(),
	}
}

func grace(program cluster.Program) time.Duration {
	if program.Grace > 0 {
		return program.Grace
	}
	return defaultGrace
}

// environment is the contract's part, over it the program's own. Nothing of the
// agent's environment is passed on but where programs are.
func (t *task) environment(assignment ledger.Assignment) []string {
	task, resources := assignment.Task, assignment.Task.Allocation.Resources
	env := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": t.temp(), "TMPDIR": t.temp(), "LANG": "C.UTF-8",
		"SAGEMAKER_BASE_DIR": t.folders.Base,
		"CLARY_JOB":          task.Job, "CLARY_TASK": task.ID, "CLARY_ROLE": task.Role,
		"CLARY_INDEX": strconv.Itoa(int(task.Index)), "CLARY_ATTEMPT": strconv.Itoa(int(task.Attempt)),
		"CLARY_METRICS": t.metrics(), "CLARY_LISTEN": t.s.config.Listen,
		"TRAINING_JOB_NAME": task.Job,
	}
	for role, hosts := range assignment.Hosts {
		env["CLARY_HOSTS_"+strings.ToUpper(strings.ReplaceAll(role, "-", "_"))] = strings.Join(hosts, ",")
	}
	if len(resources.Ports) > 0 {
		var ports []string
		for _, port := range resources.Ports {
			ports = append(ports, strconv.Itoa(int(port)))
		}
		env["CLARY_PORTS"] = strings.Join(ports, ",")
	}
	if len(assignment.Program.Spec) > 0 {
		env["CLARY_SPEC"] = t.specFile()
	}
	if needsCertificate(assignment) && t.s.config.Certify != nil {
		env["CLARY_TLS_DIR"] = t.tlsDir()
	}
	maps.Copy(env, assignment.Program.Env)
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, fmt.Sprintf("%s=%s", name, env[name]))
	}
	return list
}
