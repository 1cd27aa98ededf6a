// Package registrytest has an object store in memory, for tests of the registry.
package registrytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/clary-ml/clary/internal/fault"
	"github.com/clary-ml/clary/storage/object"
)

// Store keeps objects in memory. Its methods may be called at the same time.
type Store struct {
	mu      sync.Mutex
	objects map[string]kept // by URI
	coming  []object.Unfinished
	broken  error
}

type kept struct {
	data     []byte
	modified time.Time
}

// New is a store with nothing in it.
func New() *Store { return &Store{objects: map[string]kept{}} }

// Break has every deletion fail with an error, until it is nil.
func (s *Store) Break(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

// Write puts an object as if at an instant.
func (s *Store) Write(uri, data string, modified time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[uri] = kept{[]byte(data), modified}
}

// Below are the URIs that begin with a prefix, in order.
func (s *Store) Below(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []string
	for _, uri := range slices.Sorted(maps.Keys(s.objects)) {
		if strings.HasPrefix(uri, prefix) {
			found = append(found, uri)
		}
	}
	return found
}

func (s *Store) read(of object.URI) (kept, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, found := s.objects[of.String()]
	if !found {
		return o, fault.New(fault.NotFound, "there is no object %s", of)
	}
	return o, nil
}

func describe(uri object.URI, o kept) object.Info {
	sum := sha256.Sum256(o.data)
	return object.Info{URI: uri, Size: int64(len(o.data)), ETag: hex.EncodeToString(sum[:4]), Modified: o.modified}
}

// Stat implements registry.Store.
func (s *Store) Stat(_ context.Context, of object.URI) (object.Info, error) {
	o, err := s.read(of)
	return describe(of, o), err
}

// List implements registry.Store.
func (s *Store) List(_ context.Context, prefix object.URI) ([]object.Info, error) {
	var all []object.Info
	for _, text := range s.Below(prefix.String()) {
		uri, err := object.ParseURI(text)
		if err != nil {
			return nil, err
		}
		if o, err := s.read(uri); err == nil {
			all = append(all, describe(uri, o))
		}
	}
	return all, nil
}

// Folders are the names of folders right below a prefix, as of object.Client.
func (s *Store) Folders(_ context.Context, below object.URI, after string, most int) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string]bool{}
	for uri := range s.objects {
		if rest, ok := strings.CutPrefix(uri, below.String()); ok {
			if name, _, isFolder := strings.Cut(rest, "/"); isFolder && (after == "" || name+"/" > after+"/") {
				found[name] = true
			}
		}
	}
	names := slices.SortedFunc(maps.Keys(found), func(a, b string) int { return strings.Compare(a+"/", b+"/") })
	return names[:min(most, len(names))], nil
}

// Extent is how much there is below a prefix, as of object.Client.
func (s *Store) Extent(_ context.Context, below object.URI) (found object.Extent, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for uri, o := range s.objects {
		if strings.HasPrefix(uri, below.String()) {
			found = found.Add(int64(len(o.data)), o.modified)
		}
	}
	return found, nil
}

// Begin begins an upload in parts, the last of which came at an instant.
func (s *Store) Begin(uri object.URI, bytes int64, modified time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coming = append(s.coming, object.Unfinished{URI: uri, ID: uri.Key, Extent: object.Extent{Objects: 1, Bytes: bytes, Newest: modified}})
}

// Unfinished are the uploads that were begun, as of object.Client.
func (s *Store) Unfinished(_ context.Context, below object.URI) (found []object.Unfinished, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, upload := range s.coming {
		if strings.HasPrefix(upload.URI.String(), below.String()) {
			found = append(found, upload)
		}
	}
	return found, nil
}

// GiveUp ends an upload in parts.
func (s *Store) GiveUp(_ context.Context, upload object.Unfinished) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.coming = slices.DeleteFunc(s.coming, func(u object.Unfinished) bool { return u.ID == upload.ID })
	return nil
}

// Get implements registry.Store.
func (s *Store) Get(_ context.Context, from object.URI, offset, _ int64) (io.ReadCloser, error) {
	o, err := s.read(from)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(o.data[offset:])), nil
}

// Put implements registry.Store.
func (s *Store) Put(_ context.Context, to object.URI, content io.Reader, _ int64) (object.Info, error) {
	data, err := io.ReadAll(content)
	if err != nil {
		return object.Info{}, err
	}
	s.Write(to.String(), string(data), time.Now())
	sum := sha256.Sum256(data)
	return object.Info{URI: to, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}, nil
}

// Copy implements registry.Store.
func (s *Store) Copy(_ context.Context, to, from object.URI) error {
	o, err := s.read(from)
	if err == nil {
		s.Write(to.String(), string(o.data), time.Now())
	}
	return err
}

// Delete removes an object.
func (s *Store) Delete(_ context.Context, at object.URI) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken == nil {
		delete(s.objects, at.String())
	}
	return s.broken
}

// DeletePrefix removes all objects below a prefix.
func (s *Store) DeletePrefix(ctx context.Context, prefix object.URI) (gone object.Extent, err error) {
	for _, text := range s.Below(prefix.String()) {
		uri, err := object.ParseURI(text)
		if err != nil {
			return gone, err
		}
		o, err := s.read(uri)
		if err != nil {
			continue // somebody else was faster
		}
		if err := s.Delete(ctx, uri); err != nil {
			return gone, err
		}
		gone = gone.Add(int64(len(o.data)), o.modified)
	}
	return gone, nil
}
