package ingress_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/serving/ingress"
	"github.com/clary-ml/clary/serving/route"
)

// router notes what it is given.
type router struct {
	mu   sync.Mutex
	set  []uint64
	wake chan struct{}
}

func (r *router) SetTable(table route.Table) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(table.Endpoints) > 0 && table.Endpoints[0].Name == "bad" {
		return fault.New(fault.Invalid, "a bad table")
	}
	r.set = append(r.set, table.Version)
	return nil
}

func (r *router) Report() route.Report  { return route.Report{Router: "agent/n1", Version: r.last()} }
func (r *router) Wake() <-chan struct{} { return r.wake }

func (r *router) last() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.set) == 0 {
		return 0
	}
	return r.set[len(r.set)-1]
}

// coordinators are a source whose tables a test gives.
type coordinators struct {
	mu      sync.Mutex
	away    bool
	asked   []uint64
	tables  chan route.Table
	reports []time.Time
}

func (c *coordinators) gone() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.away }

func (c *coordinators) Follow(ctx context.Context, version uint64, set func(route.Table) error) error {
	c.mu.Lock()
	c.asked = append(c.asked, version)
	c.mu.Unlock()
	if c.gone() {
		return fault.New(fault.Unready, "nobody answers")
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case table, open := <-c.tables:
			if !open {
				return fault.New(fault.Unready, "it is stopping")
			}
			if err := set(table); err != nil {
				return err
			}
		}
	}
}

func (c *coordinators) Report(context.Context, route.Report) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reports = append(c.reports, time.Now())
	if c.away {
		return fault.New(fault.Unready, "nobody answers")
	}
	return nil
}

func run(t *testing.T, path string, c *coordinators) (*router, func()) {
	r := &router{wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- ingress.Run(ctx, ingress.Config{Router: r, Source: c, Path: path, Log: slog.New(slog.DiscardHandler)})
	}()
	synctest.Wait()
	return r, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	}
}

func TestARouterThatIsStartedWhileNobodyAnswersGoesOnWithItsLastTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.json")
	synctest.Test(t, func(t *testing.T) {
		c := &coordinators{tables: make(chan route.Table, 10)}
		_, stop := run(t, path, c)
		for version := range uint64(5) {
			c.tables <- route.Table{Version: 10 + version, Tokens: []route.Token{{ID: "x", Hash: []byte("hash")}}}
		}
		synctest.Wait()
		stop()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the table on disk: %v, %v", info, err)
		}
		c = &coordinators{away: true}
		r, stop := run(t, path, c)
		if r.last() != 14 {
			t.Errorf("it begins with version %d, want 14", r.last())
		}
		time.Sleep(10 * time.Second)
		c.mu.Lock()
		asked := c.asked
		c.mu.Unlock()
		if len(asked) < 8 || asked[0] != 14 {
			t.Errorf("in 10 s the source was asked for what comes after %v", asked)
		}
		stop()
	})
}

func TestATableThatTheRouterRefusesLeavesTheOneBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.json")
	synctest.Test(t, func(t *testing.T) {
		c := &coordinators{tables: make(chan route.Table, 10)}
		r, stop := run(t, path, c)
		c.tables <- route.Table{Version: 1}
		c.tables <- route.Table{Version: 2, Endpoints: []route.Endpoint{{Name: "bad"}}}
		synctest.Wait()
		if r.last() != 1 {
			t.Errorf("version %d is in force", r.last())
		}
		c.tables <- route.Table{Version: 3}
		synctest.Wait()
		if r.last() != 3 {
			t.Errorf("version %d is in force after a good one", r.last())
		}
		stop()
	})
}

func TestADamagedFileIsNoReasonNotToBegin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.json")
	if err := os.WriteFile(path, []byte(`{"version": 7, "endp`), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		c := &coordinators{tables: make(chan route.Table, 1)}
		r, stop := run(t, path, c)
		c.tables <- route.Table{Version: 8}
		synctest.Wait()
		if r.last() != 8 {
			t.Errorf("version %d is in force", r.last())
		}
		stop()
	})
}

func TestReportsGoEverySecondAndAtOnceWhenSomebodyWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.json")
	synctest.Test(t, func(t *testing.T) {
		c := &coordinators{tables: make(chan route.Table)}
		r, stop := run(t, path, c)
		time.Sleep(10*time.Second + 500*time.Millisecond)
		synctest.Wait()
		c.mu.Lock()
		regular := len(c.reports)
		c.mu.Unlock()
		if regular != 10 {
			t.Errorf("%d reports in 10 s", regular)
		}
		began := time.Now()
		for range 100 { // a hundred wait, one after the other
			select {
			case r.wake <- struct{}{}:
			default:
			}
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		c.mu.Lock()
		extra := c.reports[regular:]
		c.mu.Unlock()
		if len(extra) < 3 || len(extra) > 7 || extra[0].Sub(began) > 0 {
			t.Errorf("%d reports for a hundred who waited, the first after %s", len(extra), extra[0].Sub(began))
		}
		stop()
	})
}

func TestASourceThatFailsIsAskedAgainSoonAndThenLessOften(t *testing.T) {
	path := filepath.Join(t.TempDir(), "routes.json")
	synctest.Test(t, func(t *testing.T) {
		c := &coordinators{away: true}
		_, stop := run(t, path, c)
		time.Sleep(time.Minute)
		c.mu.Lock()
		if n := len(c.asked); n < 55 || n > 70 {
			t.Errorf("it was asked %d times in a minute", n)
		}
		c.mu.Unlock()
		stop()
	})
}
