// Package many serves any number of models from one process: each is loaded when it is first asked
// for, and the ones that were not asked for longest go when there is no more room.
//
// A model is loaded once however many ask for it, is not unloaded while it answers, and is
// loaded anew when its artifact changes. One that cannot be loaded harms only who asks for it.
package many

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/clary-ml/clary/internal/fault"
)

// Model is one that is loaded.
type Model struct {
	Handler http.Handler
	// Name is how Handler calls it in paths of the v2 protocol.
	Name string
	// Run does what the handler needs until ctx ends; then Close frees what the model has.
	Run   func(ctx context.Context) error
	Close func() error
}

// Options say where models are and how many are loaded at once. What is 0 gets the default.
type Options struct {
	// Folder has the artifacts: NAME.tar.gz, or a folder NAME.
	Folder string
	// Unpack extracts an archive of at most so many bytes into a new folder, which is deleted when
	// its model is unloaded. Open loads a model from a folder, or a file that is no archive.
	Unpack func(ctx context.Context, archive string, most int64) (folder string, err error)
	Open   func(ctx context.Context, name, path string) (Model, error)
	// MaxModels is how many are loaded at once (100), MaxBytes the most that their files may have
	// together (8 GiB): what a model takes in memory is not known beforehand.
	MaxModels int
	MaxBytes  int64
	// Loads are how many are loaded at the same time (2), LoadWithin how long one may take, its wait
	// for room included (4 minutes).
	Loads      int
	LoadWithin time.Duration
	// Broken is how long a model is not tried again that could not be loaded, unless it changes (30 s),
	// and Check how often an artifact is looked at for changes while it is asked for (2 s).
	Broken, Check time.Duration
	// MaxRequests, MaxPayload and MaxMemory bound requests as those of one model's server do.
	MaxRequests           int
	MaxPayload, MaxMemory int64
	Timeout, Drain        time.Duration
	Log                   *slog.Logger
}

func (o Options) completed() (Options, error) {
	if o.MaxModels < 0 || o.MaxBytes < 0 || o.Loads < 0 || o.LoadWithin < 0 || o.Broken < 0 || o.Check < 0 || o.MaxRequests < 0 || o.MaxPayload < 0 || o.MaxMemory < 0 || o.Timeout < 0 || o.Drain < 0 {
		return o, fault.New(fault.Invalid, "a bound of the models' server is negative: give 0 for the default, or more")
	}
	o.MaxModels, o.MaxBytes, o.Loads = cmp.Or(o.MaxModels, 100), cmp.Or(o.MaxBytes, 8<<30), cmp.Or(o.Loads, 2)
	o.LoadWithin, o.Broken, o.Check = cmp.Or(o.LoadWithin, 4*time.Minute), cmp.Or(o.Broken, 30*time.Second), cmp.Or(o.Check, 2*time.Second)
	o.MaxRequests, o.MaxPayload = cmp.Or(o.MaxRequests, 1024), cmp.Or(o.MaxPayload, 16<<20)
	o.MaxMemory = max(cmp.Or(o.MaxMemory, 1<<30), o.MaxPayload)
	o.Timeout, o.Drain = cmp.Or(o.Timeout, time.Minute), cmp.Or(o.Drain, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Set is the models that are loaded, and those that are being.
type Set struct {
	options Options
	root    *os.Root
	metrics *metrics
	ctx     context.Context
	cancel  context.CancelFunc
	working sync.WaitGroup // loads and unloads
	loading chan struct{}  // a place for each load

	mu     sync.Mutex
	models map[string]*model
	recent list.List // of *model that are loaded, the one asked for last in front
	taken  room      // by models that are loaded, being loaded or being unloaded
	going  room      // the share of those being unloaded
	freed  chan struct{}
	broken map[string]failure
}

// room is what models take.
type room struct {
	models int
	bytes  int64
}

// model is one name's.
type model struct {
	name     string
	artifact artifact // as it was looked up when the load began
	named    string   // the artifact's name, if it was given apart from the model's
	ready    chan struct{}
	err      error // once ready

	// The rest is the set's lock's.
	at       *list.Element // in recent, while it can be asked
	answers  int           // requests that it answers now
	waits    int           // requests that wait for it, while it is being loaded
	checked  time.Time
	next     *model // that is to replace it, while that is loaded
	refused  *stamp // a state of the artifact that could not be loaded
	bytes    int64
	reserved bool
	unloaded bool // or about to be
	deleted  bool // not to be replaced
	loaded   Model
	stop     func() // ends Run, and waits
	folder   string // that was unpacked
}

// failure is why a model could not be loaded.
type failure struct {
	err   error
	stamp stamp
	until time.Time
}

// waitersShare says that a tenth of the requests that there may be at once may wait for one model's load.
const waitersShare = 10

// New makes a set of no models.
func New(o Options) (*Set, error) {
	o, err := o.completed()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(o.Folder)
	if err != nil {
		kind := fault.Internal
		if errors.Is(err, fs.ErrNotExist) {
			kind = fault.NotFound
		}
		return nil, fault.New(kind, "open the folder of models: %w", err)
	}
	s := &Set{options: o, root: root, models: map[string]*model{}, freed: make(chan struct{}), broken: map[string]failure{}, loading: make(chan struct{}, o.Loads)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.metrics = newMetrics(s)
	return s, nil
}

// Close unloads all models, whether they answer or not, and waits for their end.
func (s *Set) Close() error {
	s.cancel()
	s.mu.Lock()
	for _, m := range s.models {
		if m.at != nil {
			s.retire(m)
			s.unload(m)
		}
	}
	s.mu.Unlock()
	s.working.Wait()
	return s.root.Close()
}

// errEnded is what a set says that was closed.
func errEnded() error { return fault.New(fault.Unready, "the model server is ending: ask another") }

// path is where an artifact lies for those that need a path.
func (s *Set) path(a artifact) string { return filepath.Join(s.options.Folder, a.path) }

// Use hands a model to a function, and loads it before if need be. It waits for that until ctx ends.
func (s *Set) Use(ctx context.Context, name string, use func(Model)) error {
	if err := checkName(name); err != nil {
		return err
	}
	m, err := s.acquire(ctx, name)
	if err != nil {
		return err
	}
	defer s.release(m)
	use(m.loaded)
	return nil
}

// acquire waits for a model and keeps it loaded until it is released.
func (s *Set) acquire(ctx context.Context, name string) (*model, error) {
	counted := false
	for {
		if s.ctx.Err() != nil {
			return nil, errEnded()
		}
		m, state, err := s.look(name)
		if err != nil {
			return nil, err
		}
		if !counted {
			s.metrics.asked[state].Inc()
			counted = true
		}
		if state == stale {
			s.check(m)
			continue
		}
		if state == there {
			return m, nil
		}
		select {
		case <-m.ready:
		case <-ctx.Done():
			s.giveUp(m)
			return nil, fault.New(fault.Unready, "the model %q is being loaded: try again in a moment: %w", name, context.Cause(ctx))
		}
		if m.err != nil {
			return nil, m.err
		}
		return m, nil
	}
}

// giveUp takes back what look has promised to one that waits.
func (s *Set) giveUp(m *model) {
	s.mu.Lock()
	select {
	case <-m.ready:
		s.mu.Unlock()
		if m.err == nil {
			s.release(m)
		}
	default:
		m.waits--
		s.mu.Unlock()
	}
}

// How a model is found that is asked for.
const (
	there  = iota // loaded
	stale         // loaded, and its artifact is to be looked at; so far nobody does
	coming        // being loaded; it is kept for who waits
)

// look finds a model, or has its load begin. One that is there is kept so.
func (s *Set) look(name string) (m *model, state int, err error) {
	s.mu.Lock()
	m = s.models[name]
	if m == nil {
		s.mu.Unlock()
		return s.begin(name, name)
	}
	defer s.mu.Unlock()
	if m.at == nil {
		return s.await(m)
	}
	s.recent.MoveToFront(m.at)
	if now := time.Now(); now.Sub(m.checked) >= s.options.Check {
		m.checked = now
		return m, stale, nil
	}
	m.answers++
	return m, there, nil
}

// await promises a model that is being loaded to one more. They are bounded, so that those who wait for one
// model leave most of the server's places to those who ask for others.
func (s *Set) await(m *model) (*model, int, error) {
	if most := max(s.options.MaxRequests/waitersShare, 1); m.waits >= most {
		return nil, 0, fault.New(fault.Exhausted, "the model %q is being loaded, and %d requests wait for it already: try again in a moment", m.name, most)
	}
	m.waits++
	return m, coming, nil
}

// begin has a model's load begin, unless somebody else was faster.
func (s *Set) begin(name, from string) (*model, int, error) {
	a, err := find(s.root, from)
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.models[name]; m != nil && m.at == nil {
		return s.await(m)
	} else if m != nil {
		m.answers++
		return m, there, nil
	}
	if f, has := s.broken[name]; has && f.stamp == a.stamp && time.Now().Before(f.until) {
		return nil, 0, f.err
	}
	if s.ctx.Err() != nil {
		return nil, 0, errEnded()
	}
	m := &model{name: name, named: from, artifact: a, ready: make(chan struct{}), waits: 1}
	s.models[name] = m
	s.working.Go(func() { s.load(m, nil) })
	return m, coming, nil
}

func (s *Set) release(m *model) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.answers--; m.answers > 0 {
		return
	}
	if m.at == nil { // it was retired meanwhile
		s.unload(m)
	} else {
		s.tell() // it may go now
	}
}

// tell wakes those that wait for room.
func (s *Set) tell() {
	close(s.freed)
	s.freed = make(chan struct{})
}

// check looks at the artifact of a model that is loaded. If it has changed the new state is loaded
// beside the old, which answers until then.
func (s *Set) check(m *model) {
	a, err := find(s.root, m.named)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case m.at == nil || m.next != nil || s.ctx.Err() != nil:
	case fault.Is(err, fault.NotFound):
		s.options.Log.Info("a model is unloaded: its artifact was deleted", "model", m.name)
		m.deleted = true
		s.dismiss(m)
	case err != nil:
		s.options.Log.Warn("a model's artifact cannot be looked at", "model", m.name, "error", err)
	case a.stamp != m.artifact.stamp && (m.refused == nil || *m.refused != a.stamp):
		next := &model{name: m.name, named: m.named, artifact: a, ready: make(chan struct{})}
		m.next = next
		s.working.Go(func() { s.load(next, m) })
	}
}

// dismiss lets a model be asked no more, and unloads it when it has answered.
func (s *Set) dismiss(m *model) {
	s.retire(m)
	if m.answers == 0 {
		s.unload(m)
	}
}

// retire lets a model be asked no more.
func (s *Set) retire(m *model) {
	s.recent.Remove(m.at)
	m.at = nil
	if s.models[m.name] == m {
		delete(s.models, m.name)
	}
}

// unload frees what a retired model has that answers nobody.
func (s *Set) unload(m *model) {
	if m.unloaded {
		return
	}
	m.unloaded = true
	s.going = room{s.going.models + 1, s.going.bytes + m.bytes}
	s.working.Go(func() {
		s.free(m)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.going = room{s.going.models - 1, s.going.bytes - m.bytes}
		s.leave(m)
	})
}

// leave gives a model's room back.
func (s *Set) leave(m *model) {
	if m.reserved {
		m.reserved = false
		s.taken = room{s.taken.models - 1, s.taken.bytes - m.bytes}
		s.tell()
	}
}
