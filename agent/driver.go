package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/agent/runtime/cgroup"
	"github.com/clary-ml/clary/agent/runtime/container"
	"github.com/clary-ml/clary/agent/runtime/process"
	"github.com/clary-ml/clary/agent/runtime/route"
	"github.com/clary-ml/clary/agent/runtime/shimbin"
	"github.com/clary-ml/clary/agent/staging"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
)

// noEngine is the address of a container engine that is not used.
const noEngine = "none"

// enginePatience is how long an agent that begins waits for an answer of the engine.
const enginePatience = 3 * time.Second

// sockets are where engines are found, in the order in which they are looked for.
var sockets = []string{"/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"}

// openDriver makes what runs this node's tasks, and returns the control group of what
// outlives this agent beside them.
func (a *agent) openDriver(ctx context.Context) (shelter string, err error) {
	c := a.config
	if c.Driver != nil {
		a.driver, a.release = c.Driver, func() error { return nil }
		return "", nil
	}
	shim, err := shimbin.Install(c.path("bin"))
	if err != nil {
		return "", err
	}
	groups := cgroup.OpenSelf(c.groupName())
	processes, err := process.New(process.Config{Root: c.path("tasks"), Shim: shim, Groups: groups, Host: c.Address, Log: c.Log})
	if err != nil {
		return "", err
	}
	a.driver = processes
	containers, err := a.openEngine(ctx)
	if err != nil {
		return "", errors.Join(err, processes.Close())
	}
	if containers != nil {
		a.driver = route.New(processes, containers)
	}
	a.release = func() error {
		err := processes.Close()
		if containers != nil {
			err = errors.Join(err, containers.Close())
		}
		if left := groups.Close(); left != nil { // tasks run on: they need their groups
			c.Log.Debug("control groups stay", "error", left)
		}
		return err
	}
	return groups.Shelter(), nil
}

// openEngine finds the container engine, and marks the node as one with containers; nil if
// there is none. One that was named by hand may come later.
func (a *agent) openEngine(ctx context.Context) (*container.Driver, error) {
	c := a.config
	address := c.Engine
	if address == "" {
		address = findEngine()
	}
	if address == "" || address == noEngine {
		return nil, nil //nolint:nilnil // none is an answer
	}
	images, err := c.imageBytes()
	if err != nil {
		return nil, err
	}
	d, err := container.Open(container.Config{
		Root: c.path("tasks"), Socket: address, Mirrors: c.Mirrors, Archive: a.archive, ImageBytes: images, Credentials: authn.DefaultKeychain,
		Simulated: c.SimulateGPUs != "", Host: c.Address, Log: c.Log,
	})
	if err != nil {
		return nil, fault.New(fault.Invalid, "--container-engine: %w", err)
	}
	asked, cancel := context.WithTimeout(ctx, enginePatience)
	defer cancel()
	name, err := d.Engine(asked)
	switch {
	case err == nil:
		a.log.Info("containers run here", "engine", name, "address", address)
		a.machine.host.Labels[cluster.LabelEngine] = name
	case c.Engine == "":
		a.log.Warn("no containers run here", "error", err)
		return nil, d.Close()
	default:
		a.log.Warn("the container engine does not answer yet", "error", err)
	}
	a.machine.host.Labels[cluster.LabelContainers] = cluster.LabelYes
	return d, nil
}

func findEngine() string {
	for _, path := range sockets {
		if info, err := os.Stat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
			return "unix://" + path
		}
	}
	return ""
}

// archive finds an image's file in the object store.
func (a *agent) archive(ctx context.Context, uri string) (etag string, open func(context.Context) (io.ReadCloser, error), err error) {
	bucket, key, err := staging.ParseURI(uri)
	if err != nil {
		return "", nil, err
	}
	object, err := a.store.Stat(ctx, bucket, key)
	if err != nil {
		return "", nil, fault.New(fault.KindOf(err), "image %s: %w", uri, err)
	}
	return object.ETag, func(ctx context.Context) (io.ReadCloser, error) {
		body, _, err := a.store.Open(ctx, bucket, key)
		return body, err
	}, nil
}

var _ runtime.Driver = (*route.Driver)(nil)
