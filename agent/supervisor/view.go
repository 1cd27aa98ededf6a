package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/clary-ml/clary/agent/contract"
	"github.com/clary-ml/clary/agent/ledger"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// Where a task with a view of its own finds what is not of the contract.
const (
	insideTemp    = "/tmp"
	insideTLS     = "/run/clary-tls"
	insideProgram = "/run/clary-bin/clary"
)

// view is what a task sees of the node, and as whom.
type view struct {
	place     contract.Place
	tls       string // folder of its certificate
	program   string // the node's own clary binary
	user      *runtime.User
	isolation *runtime.Isolation // nil: the task shares the node's view
	env       []string           // variables beside the contract's
	secrets   []string           // variables that stand in no file
	devices   []string           // what the task sees of GPUs: whole ones, one that it shares, slots
}

// view decides. Where the driver can, a task has its folders at /opt/ml, a user of its
// queue and nothing else of the node that it could change; where it cannot, it runs as the
// agent does and finds its folders by SAGEMAKER_BASE_DIR.
func (t *task) view(ctx context.Context, assignment ledger.Assignment) (view, error) {
	config := t.s.config
	place := contract.Place{
		Folders: t.folders, Home: t.temp(), Temp: t.temp(), Metrics: t.folders.Metrics(),
		Path: os.Getenv("PATH"), Listen: config.Listen, Interface: config.Interface,
	}
	contained := assignment.Program.Image != ""
	reason := t.cannotIsolate(contained)
	if (config.User == nil && !contained) || reason != nil {
		if assignment.Program.Network == cluster.NetworkNone {
			return view{}, fault.New(fault.Invalid, "network %q: this node cannot cut a task off: %w", cluster.NetworkNone, reason)
		}
		return view{place: place, tls: t.tlsDir(), program: config.Program}, nil
	}
	user, err := t.user(assignment.Queue)
	if err != nil {
		return view{}, err
	}
	if contained {
		place.Path = "" // the image's own
	}
	place.Folders, place.Home, place.Temp = staging.Folders{Base: contract.Base}, insideTemp, insideTemp
	place.Metrics = place.Folders.Metrics()
	switch assignment.Program.Network {
	case cluster.NetworkNone:
		place.Interface = "lo"
	case cluster.NetworkBridge:
		place.Interface = "eth0" // as engines call it
	}
	names, addresses := contract.Task{Assignment: assignment, Place: place}.Hosts()
	isolation := &runtime.Isolation{
		Mounts: []runtime.Mount{
			{Source: t.folders.Base, Target: contract.Base},
			{Source: t.temp(), Target: insideTemp},
		},
		Hosts:    resolve(ctx, addresses, assignment.Program.Network),
		Hostname: contract.Host(assignment.Task.Index),
		Network:  runtime.Network(assignment.Program.Network),
		Hide:     config.Hide,
		ReadOnly: assignment.Program.ReadOnly,
	}
	isolation.Mounts = append(isolation.Mounts, t.shown(assignment.Program)...)
	if assignment.Program.Contract == cluster.ContractServing {
		isolation.Mounts = append(isolation.Mounts, runtime.Mount{Source: t.folders.Model(), Target: place.Folders.Model(), ReadOnly: true})
	}
	if len(names) == 0 {
		isolation.Hostname = ""
	}
	if needsCertificate(assignment) && config.Certify != nil {
		if err := os.MkdirAll(t.tlsDir(), 0o700); err != nil {
			return view{}, fault.New(fault.Internal, "prepare task folder: %w", err)
		}
		isolation.Mounts = append(isolation.Mounts, runtime.Mount{Source: t.tlsDir(), Target: insideTLS, ReadOnly: true})
	}
	if assignment.Program.Clary {
		isolation.Mounts = append(isolation.Mounts, runtime.Mount{Source: config.Program, Target: insideProgram, ReadOnly: true})
	}
	if root := config.Environments; root != nil && assignment.Program.Python != nil {
		isolation.Mounts = append(isolation.Mounts, runtime.Mount{Source: root.Root(), Target: root.Root(), ReadOnly: true})
	}
	return view{place: place, tls: insideTLS, program: insideProgram, user: user, isolation: isolation}, nil
}

// cannotIsolate is why a task of this node has no view of its own, or nil. A container
// always has one.
func (t *task) cannotIsolate(contained bool) error {
	if contained {
		return nil
	}
	if isolator, can := t.s.config.Driver.(runtime.Isolator); can {
		return isolator.CanIsolate()
	}
	return fault.New(fault.Invalid, "this node's driver has no isolation")
}

// user is whom tasks of a queue run as; nil leaves that to an image.
func (t *task) user(queue string) (*runtime.User, error) {
	if t.s.config.User == nil {
		return nil, nil //nolint:nilnil // none is an answer
	}
	user, err := t.s.config.User(queue)
	return &user, err
}

// resolve finds the IP address of each host. One that has none now is left out: the task
// finds out when it needs it.
func resolve(ctx context.Context, hosts map[string]string, network cluster.Network) map[string]string {
	found := map[string]string{}
	for name, host := range hosts {
		if network != cluster.NetworkHost { // it is alone there
			found[name] = "127.0.0.1"
			continue
		}
		if addresses, err := net.DefaultResolver.LookupHost(ctx, host); err == nil && len(addresses) > 0 {
			found[name] = addresses[0]
		}
	}
	return found
}

// own gives the task's user what it may write, and what is for its eyes alone. Inputs and
// configuration stay the agent's, and readable; in the folder that holds both a program may
// leave files of its own, as SageMaker's do.
func (v view) own(t *task, program cluster.Program) error {
	if v.user == nil {
		return nil
	}
	give := func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(v.user.UID), int(v.user.GID))
	}
	var errs []error
	above := []string{t.folders.Base, filepath.Dir(t.folders.Data())}
	for _, export := range program.Exports { // all that leads to an output; beside it there may be inputs
		for folder := filepath.Dir(filepath.Join(t.folders.Base, export.Folder)); folder != t.folders.Base; folder = filepath.Dir(folder) {
			above = append(above, folder)
		}
	}
	if program.Contract == cluster.ContractProcessing {
		above = append(above, t.folders.Processing())
	}
	for _, folder := range above {
		errs = append(errs, os.Lchown(folder, int(v.user.UID), int(v.user.GID)))
	}
	output := filepath.Dir(t.folders.OutputData())
	theirs := []string{output, t.folders.Checkpoints(), t.folders.Code(), t.temp(), t.tlsDir()}
	if program.Contract != cluster.ContractServing { // there a model is an input
		theirs = append(theirs, t.folders.Model())
	}
	for _, input := range program.Inputs {
		if input.Mode == cluster.InputFile && contract.Own(input.Channel) {
			theirs = append(theirs, t.folders.Of(input))
		}
	}
	for _, export := range program.Exports {
		theirs = append(theirs, filepath.Join(t.folders.Base, export.Folder))
	}
	for _, folder := range theirs {
		if _, err := os.Lstat(folder); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, filepath.WalkDir(folder, give))
	}
	if err := errors.Join(errs...); err != nil {
		return fault.New(fault.Internal, "give the task its folders: %w", err)
	}
	return nil
}

// awaitGang waits, ready, until the whole gang is.
func (t *task) awaitGang(ctx context.Context) error {
	for {
		t.s.mu.Lock()
		hold, changed := t.entry.Assignment.Hold, t.s.changed
		t.s.mu.Unlock()
		if !hold {
			return nil
		}
		if t.status().State != cluster.TaskReady {
			t.become(func(s *cluster.TaskStatus) { s.State = cluster.TaskReady })
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// python makes the environment that the program asks for and returns its folder of
// programs, "" if it asks for none.
func (t *task) python(ctx context.Context, program cluster.Program) (string, error) {
	if program.Python == nil {
		return "", nil
	}
	if t.s.config.Environments == nil {
		return "", fault.New(fault.Invalid, "python: this node makes no Python environments")
	}
	t.become(func(s *cluster.TaskStatus) { s.State = cluster.TaskStaging })
	bin, release, err := t.s.config.Environments.Ensure(ctx, *program.Python)
	if err != nil {
		return "", err
	}
	t.releases = append(t.releases, release)
	return bin, nil
}
