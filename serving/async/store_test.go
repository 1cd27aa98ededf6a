package async_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// shelf is an object store in memory.
type shelf struct {
	mu      sync.Mutex
	objects map[string]stored
}

type stored struct {
	text     []byte
	modified time.Time
}

func newShelf() *shelf { return &shelf{objects: map[string]stored{}} }

func (s *shelf) put(place, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[place] = stored{[]byte(text), time.Now()}
}

func (s *shelf) get(place string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, has := s.objects[place]
	return string(o.text), has
}

func (s *shelf) below(prefix string) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.objects {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// fate is what happens to a step of a machine at the store.
type fate int

const (
	well     fate = iota
	fails         // nothing is done, and it is said
	lost          // it is done, and said to have failed
	dies          // the machine dies before the step
	diesDone      // the machine dies after it
)

// machine is what a process sees of the store. Once it has died nothing that it does has an effect.
type machine struct {
	*shelf
	fates func() fate // of the next step
	died  chan struct{}
	once  sync.Once
}

func (s *shelf) machine(fates func() fate) *machine {
	if fates == nil {
		fates = func() fate { return well }
	}
	return &machine{shelf: s, fates: fates, died: make(chan struct{})}
}

func (m *machine) die() { m.once.Do(func() { close(m.died) }) }

func (m *machine) dead() bool {
	select {
	case <-m.died:
		return true
	default:
		return false
	}
}

var errDead = errors.New("the machine is dead")

// step does one thing, as its fate has it.
func (m *machine) step(do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead() {
		return errDead
	}
	f := m.fates()
	switch f {
	case fails:
		return fault.New(fault.Unready, "the store is down")
	case dies:
		m.die()
		return errDead
	}
	err := do()
	switch f {
	case lost:
		return fault.New(fault.Unready, "the store's answer was lost")
	case diesDone:
		m.die()
		return errDead
	}
	return err
}

func (m *machine) Put(_ context.Context, to object.URI, content io.Reader, size int64) (object.Info, error) {
	text, err := io.ReadAll(content)
	if err != nil {
		return object.Info{}, fault.New(fault.Unready, "put: %w", err)
	}
	if size >= 0 && size != int64(len(text)) {
		return object.Info{}, fault.New(fault.Invalid, "%d bytes of %d", len(text), size)
	}
	return object.Info{}, m.step(func() error {
		m.objects[to.String()] = stored{text, time.Now()}
		return nil
	})
}

func (m *machine) Open(ctx context.Context, from object.URI, _, _ int64) (io.ReadCloser, object.Info, error) {
	var text []byte
	err := m.step(func() error {
		o, has := m.objects[from.String()]
		if !has {
			return fault.New(fault.NotFound, "there is no %s", from)
		}
		text = o.text
		return nil
	})
	if err != nil {
		return nil, object.Info{}, err
	}
	return io.NopCloser(bytes.NewReader(text)), object.Info{URI: from, Size: int64(len(text))}, nil
}

func (m *machine) Stat(ctx context.Context, of object.URI) (object.Info, error) {
	_, info, err := m.Open(ctx, of, 0, -1)
	return info, err
}

func (m *machine) List(_ context.Context, prefix object.URI) (infos []object.Info, err error) {
	err = m.step(func() error {
		for name, o := range m.objects {
			if u, _ := object.ParseURI(name); strings.HasPrefix(name, prefix.String()) {
				infos = append(infos, object.Info{URI: u, Size: int64(len(o.text)), Modified: o.modified})
			}
		}
		return nil
	})
	slices.SortFunc(infos, func(a, b object.Info) int { return strings.Compare(a.URI.Key, b.URI.Key) })
	return infos, err
}

func (m *machine) Delete(_ context.Context, at object.URI) error {
	return m.step(func() error {
		delete(m.objects, at.String())
		return nil
	})
}
