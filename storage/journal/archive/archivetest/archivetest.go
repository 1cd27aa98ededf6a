// Package archivetest has a working place for the segments of a journal, in memory.
package archivetest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"sync"

	"github.com/clary-ml/clary/internal/fault"
)

// Store is an archive.Store. The zero value is empty and ready.
type Store struct {
	mu      sync.Mutex
	objects map[string][]byte
	away    error
	counts  map[string]int
}

// Away makes everything fail with the error; nil makes it well again.
func (s *Store) Away(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = err
}

// Count is how often a method was called, with or without success.
func (s *Store) Count(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[method]
}

// Names are those of all objects, in order.
func (s *Store) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// Change replaces an object's content.
func (s *Store) Change(name string, to func([]byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[name] = to(bytes.Clone(s.objects[name]))
}

func (s *Store) enter(ctx context.Context, method string) error {
	if s.counts == nil {
		s.counts, s.objects = map[string]int{}, map[string][]byte{}
	}
	s.counts[method]++
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.away
}

// List implements archive.Store.
func (s *Store) List(ctx context.Context) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "List"); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(s.objects)), nil
}

// Open implements archive.Store.
func (s *Store) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "Open"); err != nil {
		return nil, err
	}
	content, found := s.objects[name]
	if !found {
		return nil, fault.New(fault.NotFound, "there is no object %s", name)
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

// Put implements archive.Store.
func (s *Store) Put(ctx context.Context, name string, content []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "Put"); err != nil {
		return err
	}
	s.objects[name] = bytes.Clone(content)
	return nil
}

// Delete implements archive.Store.
func (s *Store) Delete(ctx context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.enter(ctx, "Delete"); err != nil {
		return err
	}
	delete(s.objects, name)
	return nil
}
