package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/clary-ml/clary/cluster"
	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/internal/fault"
)

// lifeFile is which life of the cluster this agent is of. It is there once a coordinator has welcomed it.
const lifeFile = "life"

// lifeGrace is how long an agent hears nothing of its own life of the cluster before it goes over to a later one: whoever
// restores a backup beside a cluster that lives takes no node from it.
const lifeGrace = 3 * cluster.LeaseTime

// life is which life of the cluster this agent is of: see cluster.NewLife.
type life struct {
	path string

	mu    sync.Mutex
	known bool // somebody has welcomed this agent
	name  string
	heard time.Time // when it was last sure that its own life goes on, or when the agent began
}

// open reads what the agent before noted.
func (l *life) open(path string) error {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.path, l.known, l.name, l.heard = path, err == nil, string(text), time.Now()
	return nil
}

// is returns the life by its name.
func (l *life) is() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.name
}

// goesOn notes that this life was heard of just now.
func (l *life) goesOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
}

// welcomed notes that a coordinator of this life has welcomed the agent.
func (l *life) welcomed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known {
		return nil
	}
	return l.become(l.name)
}

// become is called with the lock.
func (l *life) become(name string) error {
	if err := atomicfile.Write(l.path, []byte(name), 0o600); err != nil {
		return fault.New(fault.Internal, "note the life of the cluster: %w", err)
	}
	l.known, l.name, l.heard = true, name, time.Now()
	return nil
}

// goesOver decides whether the agent goes over to another life, whose coordinator has answered it. idle is an agent that
// has no tasks.
func (l *life) goesOver(other string, idle bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch silent := time.Since(l.heard); {
	case !l.known && idle:
		return nil
	case other < l.name:
		return fault.New(fault.Denied, "it is of %s, and this node of %s: stop that coordinator, and delete its folder", cluster.LifeText(other), cluster.LifeText(l.name))
	case silent < lifeGrace:
		return fault.New(fault.Unready, "it is of %s: this node goes over to it when its own has been silent for %s", cluster.LifeText(other), lifeGrace)
	}
	return nil
}

// meet is what becomes of this node when a coordinator of another life has answered it: if it goes over, it first ends all
// that it runs and forgets it, since names and attempts there may be those of other tasks.
func (a *agent) meet(ctx context.Context, other string) error {
	held, _ := a.tasks.Held()
	if err := a.life.goesOver(other, len(held) == 0); err != nil {
		return err
	}
	a.log.Warn("this node goes over to another life of its cluster, which was restored from a backup: all that it runs is ended", "life", other, "tasks", len(held))
	if err := a.tasks.Desired(true, nil, nil); err != nil {
		return err
	}
	for {
		held, version := a.tasks.Held()
		if len(held) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.tasks.Changed(version):
		}
	}
	if err := a.unlearn(); err != nil {
		return err
	}
	a.life.mu.Lock()
	defer a.life.mu.Unlock()
	if err := a.life.become(other); err != nil {
		return err
	}
	return fault.New(fault.Unready, "this node is of %s from now on: it connects again", cluster.LifeText(other))
}
