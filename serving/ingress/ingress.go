// Package ingress keeps a router at work: it gives it the table of routes as the cluster has it, keeps
// that on disk, and tells the cluster what the router did.
//
// A router goes on with the table that it has for as long as nobody tells a newer one: while coordinators
// elect, and while none can be reached, also when it is started then.
package ingress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clary-ml/clary/internal/atomicfile"
	"github.com/clary-ml/clary/serving/route"
)

const (
	reportEvery = time.Second
	wakeRest    = 20 * time.Millisecond // the least time between two reports that could not wait
	reportTime  = 2 * time.Second       // for a report to be taken
	saveEvery   = time.Second           // the least time between two tables on disk
	pauseFirst  = 50 * time.Millisecond // before a source that failed is asked again …
	pauseLast   = time.Second           // … and again
	maxTable    = 1 << 30               // bytes of a table on disk
)

// Router is what is kept at work: see package router.
type Router interface {
	SetTable(table route.Table) error
	Report() route.Report
	Wake() <-chan struct{}
}

// Source is where tables come from and reports go to.
type Source interface {
	// Follow calls set with the newest table, and with each that follows, until ctx ends or it cannot
	// go on. Version is that of the table in force: an older one is only given if there is none newer.
	Follow(ctx context.Context, version uint64, set func(route.Table) error) error
	// Report brings a report to the leader.
	Report(ctx context.Context, report route.Report) error
}

// Config is what one ingress works with.
type Config struct {
	Router Router
	Source Source
	Path   string // file of the last table
	Log    *slog.Logger
}

// ingress is one at work.
type ingress struct {
	Config
	mu      sync.Mutex
	table   route.Table // in force
	unsaved chan struct{}
}

// Run keeps a router at work until ctx ends.
func Run(ctx context.Context, config Config) error {
	i := &ingress{Config: config, unsaved: make(chan struct{}, 1)}
	if err := i.load(); err != nil {
		i.Log.Warn("the last table of routes cannot be read: the router begins without", "file", i.Path, "error", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return i.follow(ctx) })
	group.Go(func() error { return i.report(ctx) })
	group.Go(func() error { return i.keep(ctx) })
	return group.Wait()
}

// load puts the table in force that was the last one before.
func (i *ingress) load() error {
	info, err := os.Stat(i.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Size() > maxTable {
		return fmt.Errorf("it has %d bytes", info.Size())
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(i.Path)
	if err != nil {
		return err
	}
	var table route.Table
	if err := json.Unmarshal(text, &table); err != nil {
		return err
	}
	return i.set(table)
}

func (i *ingress) version() uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.table.Version
}

// set puts a table in force. One that the router refuses is a defect of whoever made it; the one before
// stays.
func (i *ingress) set(table route.Table) error {
	if err := i.Router.SetTable(table); err != nil {
		return fmt.Errorf("table of routes, version %d: %w", table.Version, err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.table = table
	return nil
}

// follow has the newest table in force until ctx ends.
func (i *ingress) follow(ctx context.Context) error {
	said, pause := "", pauseFirst
	for {
		began := time.Now()
		err := i.Source.Follow(ctx, i.version(), func(table route.Table) error {
			if err := i.set(table); err != nil {
				i.Log.Error("a defect: the router goes on with the table before", "error", err)
				return nil
			}
			select {
			case i.unsaved <- struct{}{}:
			default:
			}
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if reason := fmt.Sprint(err); reason != said {
			i.Log.Warn("no news of routes now: the router goes on with the table that it has", "error", err)
			said = reason
		}
		if time.Since(began) > pauseLast {
			pause = pauseFirst
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, pauseLast)
	}
}

// report tells what the router did, once a second and when somebody waits for a fleet without replicas.
func (i *ingress) report(ctx context.Context) error {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-i.Router.Wake():
		}
		limited, cancel := context.WithTimeout(ctx, reportTime)
		err := i.Source.Report(limited, i.Router.Report())
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil:
			said = ""
		case fmt.Sprint(err) != said:
			said = fmt.Sprint(err)
			i.Log.Warn("what the router did is not told: whoever scales does not know of it", "error", err)
		}
		select { // many may wake it, for one report
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wakeRest):
		}
	}
}

// keep has the newest table on disk, a moment later and at the end.
func (i *ingress) keep(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			select {
			case <-i.unsaved:
				i.save()
			default:
			}
			return ctx.Err()
		case <-i.unsaved:
		}
		i.save()
		select {
		case <-ctx.Done():
		case <-time.After(saveEvery):
		}
	}
}

func (i *ingress) save() {
	i.mu.Lock()
	table := i.table
	i.mu.Unlock()
	text, err := json.Marshal(table)
	if err == nil {
		err = atomicfile.Write(i.Path, text, 0o600)
	}
	if err != nil {
		i.Log.Error("keep the table of routes for the next start", "file", i.Path, "error", err)
	}
}
