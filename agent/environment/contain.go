package environment

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/clary-ml/clary/agent/diskuse"
	"github.com/clary-ml/clary/agent/runtime"
	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
	"github.com/clary-ml/clary/storage/journal"
)

// Bounds on one installation.
const (
	together    = 4 // at a time: each has a user of its own
	buildMemory = 4 << 30
	buildPids   = 1024
	diskEvery   = 2 * time.Second // between looks at how much it has written
)

// Contain runs programs as a driver runs tasks.
type Contain struct {
	Driver runtime.Driver // one that can isolate
	Tasks  string         // its folder
	Hide   []string       // folders of the node that no task sees
	Disk   int64          // most bytes that an environment may hold; 0 is no bound
	// User is who works in a slot, numbered from 0: nobody else on the machine.
	User func(slot int) (runtime.User, error)
}

// contained is a runner whose slots are users.
type contained struct {
	*Contain
	slots chan int
}

func (c *Contain) runner() runner {
	slots := make(chan int, together)
	for slot := range together {
		slots <- slot
	}
	return contained{c, slots}
}

func (c contained) begin(ctx context.Context, folder string) (order, func(), error) {
	uid, release, err := c.enter(ctx)
	if err == nil {
		if err = give(ctx, folder, int(uid)); err != nil {
			release()
		}
	}
	return order{folder: folder, uid: uid}, release, err
}

// enter waits for a slot.
func (c contained) enter(ctx context.Context) (uid uint32, release func(), err error) {
	select {
	case slot := <-c.slots:
		user, err := c.User(slot)
		if err != nil {
			c.slots <- slot
			return 0, nil, err
		}
		return user.UID, func() { c.slots <- slot }, nil
	case <-ctx.Done():
		return 0, nil, ctx.Err()
	}
}

func (c contained) run(ctx context.Context, o order) (said string, err error) {
	if o.uid == 0 {
		uid, release, err := c.enter(ctx)
		if err != nil {
			return "", err
		}
		defer release()
		o.uid = uid
	}
	id := "python/" + strings.ToLower(rand.Text()[:12])
	spec := runtime.Spec{
		ID: id, Argv: append([]string{o.program}, o.arguments...), Env: o.environment, Dir: o.dir,
		Limits: runtime.Limits{MilliCPU: 1000, Memory: buildMemory, Pids: buildPids}, MaxRuntime: buildTime, Grace: time.Second, LogBytes: 1 << 20,
		User:      &runtime.User{UID: o.uid, GID: o.uid, Name: "clary-python"},
		Isolation: &runtime.Isolation{Hide: c.Hide},
	}
	if o.dir == "" {
		spec.Dir = "/"
	}
	if o.folder != "" {
		spec.Isolation.Mounts = append(spec.Isolation.Mounts, runtime.Mount{Source: o.folder, Target: o.folder})
	}
	if o.show != "" {
		spec.Isolation.Mounts = append(spec.Isolation.Mounts, runtime.Mount{Source: o.show, Target: o.show, ReadOnly: true})
	}
	defer func() { err = errors.Join(err, c.clear(id)) }()
	if _, err := c.Driver.Start(context.WithoutCancel(ctx), spec); err != nil {
		return "", err
	}
	exit, why := c.await(ctx, id, o)
	last := &tail{}
	for _, stream := range []string{runtime.Stdout, runtime.Stderr} {
		query := journal.Query{Streams: []string{stream}, Tail: 50}
		err := c.Driver.Logs(context.WithoutCancel(ctx), id, query, func(batch []journal.Entry) error {
			for _, e := range batch {
				_, _ = last.Write(e.AppendRaw(nil)) // it keeps the end, and never fails
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	switch {
	case why != nil:
		return "", why
	case exit.OutOfMemory:
		return "", fault.New(fault.Invalid, "it needs more than %s of memory: %s", cluster.FormatBytes(buildMemory), last)
	case exit.Cause == runtime.CauseMaxRuntime:
		return "", fault.New(fault.Invalid, "it takes longer than %s: %s", buildTime, last)
	case exit.Error != "":
		return "", errors.New(exit.Error)
	case exit.Signal != 0:
		return "", fmt.Errorf("signal %d: %s", exit.Signal, last)
	case exit.Code != 0:
		return "", fmt.Errorf("exit code %d: %s", exit.Code, last)
	}
	return last.String(), nil
}

// await waits for the program's end, and ends it with ctx, or when it has written too much.
func (c contained) await(ctx context.Context, id string, o order) (exit runtime.Exit, why error) {
	background := context.WithoutCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		var err error
		exit, err = c.Driver.Wait(background, id)
		ended <- err
	}()
	tick := time.NewTicker(diskEvery)
	defer tick.Stop()
	done := ctx.Done()
	stop := func(err error) {
		if why == nil {
			why = errors.Join(err, c.Driver.Stop(background, id, 0))
		}
	}
	for {
		select {
		case err := <-ended:
			return exit, errors.Join(why, err)
		case <-done:
			done = nil
			stop(context.Cause(ctx))
		case <-tick.C:
			if o.folder == "" || c.Disk == 0 || why != nil {
				continue
			}
			use, err := diskuse.Of(ctx, diskuse.Question{Folders: []string{o.folder}, Owner: &o.uid, Most: c.Disk})
			switch {
			case fault.Is(err, fault.Invalid):
				stop(err)
			case use.Bytes > c.Disk:
				stop(fault.New(fault.Invalid, "it takes more disk than it may (limit %s)", cluster.FormatBytes(c.Disk)))
			}
		}
	}
}

// clear forgets the program.
func (c contained) clear(id string) error {
	name, err := runtime.FolderName(id)
	if err != nil {
		return err
	}
	return errors.Join(c.Driver.Remove(context.Background(), id), tree.RemoveAll(filepath.Join(c.Tasks, name)))
}
