package many

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/internal/tree"
	"github.com/clary-ml/clary/serving/modelserver"
)

// load makes a model ready, or says why it cannot be. It takes the place of old, if there is one.
func (s *Set) load(m, old *model) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, s.options.LoadWithin)
	defer cancel()
	err := s.make(ctx, m)
	if err != nil && s.ctx.Err() != nil {
		err = errEnded()
	} else if err != nil && ctx.Err() != nil {
		err = fault.New(fault.Unready, "the model %q was not loaded within %v: %w", m.name, s.options.LoadWithin, err)
	}
	if err != nil {
		s.free(m)
	}
	s.metrics.loaded(time.Since(began), err)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer close(m.ready)
	m.err = err
	if old != nil {
		old.next = nil
	}
	if err == nil {
		s.install(m, old)
		return
	}
	if old != nil {
		stamp := m.artifact.stamp
		old.refused = &stamp
		s.options.Log.Warn("a model has changed and cannot be loaded: it answers as it was", "model", m.name, "error", err)
	} else {
		s.options.Log.Warn("a model cannot be loaded", "model", m.name, "error", err)
	}
	if s.models[m.name] == m {
		delete(s.models, m.name)
	}
	s.leave(m)
	if !fault.Is(err, fault.Unready) && !fault.Is(err, fault.Exhausted) {
		s.remember(m, err)
	}
}

// install lets a model be asked, and hands it to those that wait for it.
func (s *Set) install(m, old *model) {
	delete(s.broken, m.name)
	if before := s.models[m.name]; before != nil && before.at != nil {
		s.dismiss(before)
	}
	s.models[m.name] = m
	m.at, m.checked, m.answers = s.recent.PushFront(m), time.Now(), m.waits
	if s.ctx.Err() != nil || old != nil && old.deleted { // it ended while it began
		s.dismiss(m)
	}
	s.tell()
}

// maxBroken is how many models are remembered that could not be loaded.
const maxBroken = 1000

// remember keeps that a model cannot be loaded as it is.
func (s *Set) remember(m *model, err error) {
	if len(s.broken) >= maxBroken {
		clear(s.broken) // at worst some are tried once more
	}
	s.broken[m.name] = failure{err, m.artifact.stamp, time.Now().Add(s.options.Broken)}
}

// make does all that loading a model takes. Who waits for room that others have to leave holds no place
// of those that load: what an archive has unpacked is known only afterwards, so one that finds no room
// then goes, waits, and is unpacked once more.
func (s *Set) make(ctx context.Context, m *model) error {
	bytes, known := m.artifact.stamp.bytes, !m.artifact.packed
	for {
		if known {
			if err := s.reserve(ctx, m, bytes, true); err != nil {
				return err
			}
		}
		var err error
		if bytes, err = s.attempt(ctx, m); !errors.Is(err, errNoRoom) {
			return err
		}
		folder := m.folder
		m.folder, known = "", true
		if err := tree.RemoveAll(folder); err != nil {
			return fault.New(fault.Internal, "delete what was unpacked of the model %q: %w", m.name, err)
		}
	}
}

// errNoRoom is that a model does not fit until others have answered.
var errNoRoom = errors.New("there is no room now")

// attempt loads a model in one of the places for that, and says what its files have; it ends with errNoRoom
// if they had to wait for it.
func (s *Set) attempt(ctx context.Context, m *model) (bytes int64, err error) {
	select {
	case s.loading <- struct{}{}:
		defer func() { <-s.loading }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	path := s.path(m.artifact)
	if m.artifact.packed {
		folder, err := s.options.Unpack(ctx, path, s.options.MaxBytes)
		if err != nil {
			return 0, broken(m, err)
		}
		m.folder, path = folder, folder
		if bytes, err = sizeOf(folder); err != nil {
			return 0, broken(m, err)
		}
		if err := s.reserve(ctx, m, bytes, false); err != nil {
			return bytes, err
		}
	}
	return bytes, s.launch(ctx, m, path)
}

// launch opens a model's files, and has what answers for it run.
func (s *Set) launch(ctx context.Context, m *model, path string) error {
	loaded, err := s.options.Open(ctx, m.name, path)
	if err != nil {
		return broken(m, err)
	}
	m.loaded = loaded
	running, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	m.stop = func() {
		end()
		<-ended
	}
	go func() {
		defer close(ended)
		if err := loaded.Run(running); err != nil && running.Err() == nil {
			s.options.Log.Error("a model has ended", "model", m.name, "error", err)
		}
	}()
	return nil
}

// broken says that it is the model's own fault: 424, since this server and its other models are well.
func broken(m *model, err error) error {
	if fault.Is(err, fault.Unready) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fault.New(fault.Unready, "the model %q cannot be loaded now: %w", m.name, err)
	}
	return modelserver.Refuse(http.StatusFailedDependency, fault.New(fault.Invalid, "the model %q cannot be loaded: %w", m.name, err))
}

func sizeOf(folder string) (bytes int64, err error) {
	err = filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	return bytes, err
}

// reserve waits for a model's room, and has others unloaded for it: those first that were not asked
// for longest, and none that answers. Unless it is patient it ends with errNoRoom where it would have to
// wait for one that answers.
func (s *Set) reserve(ctx context.Context, m *model, bytes int64, patient bool) error {
	if bytes > s.options.MaxBytes {
		return modelserver.Refuse(http.StatusInsufficientStorage, fault.New(fault.Invalid, "the model %q has %d bytes, and all models together may have %d: give this server more room", m.name, bytes, s.options.MaxBytes))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.reserved && m.bytes == bytes {
		return nil
	}
	s.leave(m) // the archive is another one than it was
	for {
		if s.fits(s.taken, bytes) {
			m.bytes, m.reserved = bytes, true
			s.taken = room{s.taken.models + 1, s.taken.bytes + bytes}
			return nil
		}
		if after := (room{s.taken.models - s.going.models, s.taken.bytes - s.going.bytes}); !s.fits(after, bytes) {
			if s.evict() {
				continue
			}
			if !patient {
				return errNoRoom
			}
		}
		freed := s.freed
		s.mu.Unlock()
		var err error
		select {
		case <-freed:
		case <-ctx.Done():
			err = fault.New(fault.Exhausted, "there is no room for the model %q: all that are loaded answer: try again in a moment, or give this server more room", m.name)
		}
		s.mu.Lock()
		if err != nil {
			return err
		}
	}
}

func (s *Set) fits(taken room, bytes int64) bool {
	return taken.models < s.options.MaxModels && taken.bytes+bytes <= s.options.MaxBytes
}

// evict unloads the model that was not asked for longest, if there is one that answers nobody.
func (s *Set) evict() bool {
	for e := s.recent.Back(); e != nil; e = e.Prev() {
		if m := e.Value.(*model); m.answers == 0 {
			s.metrics.evictions.Inc()
			s.dismiss(m)
			return true
		}
	}
	return false
}

// free ends what a model has begun, and deletes what was unpacked for it.
func (s *Set) free(m *model) {
	var errs []error
	if m.stop != nil {
		m.stop()
		errs = append(errs, m.loaded.Close())
	}
	if m.folder != "" {
		errs = append(errs, tree.RemoveAll(m.folder))
	}
	if err := errors.Join(errs...); err != nil {
		s.options.Log.Warn("a model was not unloaded cleanly", "model", m.name, "error", err)
	}
}
